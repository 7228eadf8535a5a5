"""Batches of sequences of like length, so that little of what goes through a model is padding."""


def by_length(items, length, max_tokens):
    """Yield lists of items, longest first: of at most max_tokens tokens with padding, or one item.

    length: tokens of an item.
    """
    ordered = sorted(items, key=length, reverse=True)
    first = 0
    while first < len(ordered):
        size = max(1, max_tokens // length(ordered[first]))
        yield ordered[first : first + size]
        first += size


def default_tokens(device, on_cpu):
    """Tokens of a batch by the memory of the device.

    on_cpu: those for the CPU, where larger batches are not faster.
    """
    import torch

    if device.type == "cpu":
        return on_cpu
    memory = torch.cuda.get_device_properties(device).total_memory
    return 16_384 if memory >= 40 * 2**30 else 4096
