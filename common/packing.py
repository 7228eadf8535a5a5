"""Packed forward passes: little padding, and what sequences have in common is computed once.

TRL's trainers call a model on padded sequences: all chosen, then all rejected. Much of that work is
padding or a second pass over the same prompt. Here the sequences of a pair become a tree, their
common beginning with a branch for each of them, and rows are filled with trees. (FlashAttention
takes no mask: with it all sequences stand in one row, each whole.)

    padded    p p p c c c c -         packed    p p p' c c c c p' r r
              p p p r r - - -

A token attends to the tokens before it in its own branch and in the common beginning, and has its
position in its own sequence. The last common token opens every branch (p'), since what it predicts
differs. Results are handed back in the padded layout: losses, metrics and options stay TRL's.
"""

import inspect
from dataclasses import dataclass

import torch

# Attention that takes a mask of ours. FlashAttention tells sequences apart by their positions.
TAKES_A_MASK = ("sdpa", "eager", "flex_attention")
# The fields of TRL's FusedCausalLMOutput that have a number for each token.
TOKEN_FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def obstacle(model):
    """Why the forward pass of a model cannot be packed, or None."""
    config = model.config
    name = config.model_type
    if config.get_text_config() is not config:
        return f"{name} reads more than text"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{name} takes no positions"
    if not model._supports_attention_backend:
        return f"{name} has layers that take no mask"
    unknown = attention_kinds(config) - {"full_attention", "sliding_attention"}
    if unknown:
        return f"{name} has layers of the kind {', '.join(sorted(unknown))}"
    if getattr(config, "router_aux_loss_coef", 0) and hasattr(config, "output_router_logits"):
        return f"{name} has a loss that balances its experts by the padding"
    attention = config._attn_implementation
    if attention not in TAKES_A_MASK and not by_positions(config):
        return f"--attn_implementation {attention} takes no mask"
    return None


def attention_kinds(config):
    """The kinds of attention that a model's layers have, a set."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds)
    return {"sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"}


def by_positions(config):
    """Whether the attention takes no mask, but tells packed sequences apart by their positions."""
    return config._attn_implementation.startswith("flash_attention")


# Layout


@dataclass
class Layout:
    """Where the tokens of padded sequences stand in packed rows."""

    # (sequences, length): index into the flattened rows; at padding 0, which is then masked
    slot: torch.Tensor
    is_token: torch.Tensor  # (sequences, length): False at padding
    positions: torch.Tensor  # (rows, width): in the sequence
    tree: torch.Tensor  # (rows, width): number of the tree, -1 at the unused end of a row
    branch: torch.Tensor  # (rows, width): 0 in the common beginning, then 1, 2, ...

    def unpack(self, packed):
        """(sequences, length, ...) of packed values (rows, width, ...)."""
        return packed.flatten(0, 1)[self.slot]


def layout(input_ids, attention_mask, branches, one_row=False):
    """The Layout of sequences that are padded on the right.

    input_ids and attention_mask: (sequences, length).
    branches: the number of sequences in a tree; of n trees the sequences i, i + n, ... are one.
    one_row: all trees stand in one row, else each row has room for the largest tree.
    """
    sequences, length = input_ids.shape
    trees = sequences // branches
    is_token = attention_mask.bool()
    lengths = is_token.sum(dim=1).view(branches, trees)
    common = common_tokens(input_ids.view(branches, trees, length), lengths)  # (trees,)

    # A tree is its common beginning, and then what each sequence has of its own.
    own = lengths - common  # (branches, trees)
    branch_starts = common + own.cumsum(dim=0) - own
    sizes = common + own.sum(dim=0)
    tree_starts, shape = fill_rows(sizes.tolist(), one_row)
    tree_starts = torch.tensor(tree_starts, device=input_ids.device).view(1, trees, 1)

    common = common.view(1, trees, 1)
    position = torch.arange(length, device=input_ids.device).expand(branches, trees, length)
    in_tree = torch.where(
        position < common, position, branch_starts.unsqueeze(2) + position - common
    )
    slot = (tree_starts + in_tree).view(sequences, length).masked_fill(~is_token, 0)

    number = torch.arange(sequences, device=input_ids.device).view(branches, trees, 1)
    tree = (number % trees).expand(branches, trees, length)
    branch = torch.where(position < common, 0, 1 + number // trees)
    return Layout(
        slot,
        is_token,
        positions=pack(position.reshape(sequences, length), slot, is_token, shape, 0),
        tree=pack(tree.reshape(sequences, length), slot, is_token, shape, -1),
        branch=pack(branch.reshape(sequences, length), slot, is_token, shape, 0),
    )


def common_tokens(input_ids, lengths):
    """(trees,): how many tokens the sequences of each tree compute together.

    input_ids (branches, trees, length), lengths (branches, trees). The last common token is not
    counted, so that each sequence has a token of its own. A sequence alone has nothing in common.
    """
    if len(input_ids) == 1:
        return torch.zeros_like(lengths[0])
    equal = (input_ids == input_ids[:1]).all(dim=0)  # (trees, length)
    same_beginning = equal.long().cumprod(dim=1).sum(dim=1)
    return torch.minimum(same_beginning, lengths.amin(dim=0)).sub(1).clamp(min=0)


def fill_rows(sizes, one_row):
    """(the slot at which each tree begins, (rows, width)): first fit, the largest trees first."""
    width = sum(sizes) if one_row else max(sizes)
    room = []  # tokens, in each row
    starts = [0] * len(sizes)
    for tree in sorted(range(len(sizes)), key=lambda tree: -sizes[tree]):
        size = sizes[tree]
        row = 0
        while row < len(room) and room[row] < size:
            row += 1
        if row == len(room):
            room.append(width)
        starts[tree] = row * width + width - room[row]
        room[row] -= size
    return starts, (len(room), width)


def pack(values, slot, selected, shape, fill):
    """(rows, width): the selected ones of padded values, at their slots; all (sequences, length).

    Tokens of a common beginning are written once for each sequence, with the same value.
    """
    packed = values.new_full(shape, fill)
    packed.view(-1)[slot[selected]] = values[selected]
    return packed


# Attention


def attention_masks(packed, config, dtype):
    """The masks of a Layout, as the attention of a model takes them.

    None for an attention that goes by positions, one mask, or one for each kind of attention.
    """
    if by_positions(config):
        return None
    masks = {}
    for kind in attention_kinds(config):
        window = config.sliding_window if kind == "sliding_attention" else None
        masks[kind] = mask(packed, window, config._attn_implementation, dtype)
    return masks if len(masks) > 1 else masks.popitem()[1]


def mask(packed, window, attention, dtype):
    """Who sees whom: boolean, additive for eager attention, or a BlockMask for flex_attention.

    (rows, 1, width, width), the last dimension being what is seen.
    """
    tokens = (packed.tree, packed.branch, packed.positions)
    if attention == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def sees_in_row(row, head, query, key):
            querying = [values[row, query] for values in tokens]
            return sees(querying, [values[row, key] for values in tokens], window)

        rows, width = packed.tree.shape
        return create_block_mask(sees_in_row, rows, None, width, width, packed.tree.device)
    querying = [values.unsqueeze(2) for values in tokens]
    visible = sees(querying, [values.unsqueeze(1) for values in tokens], window).unsqueeze(1)
    if attention == "eager":
        additive = torch.zeros_like(visible, dtype=dtype)
        return additive.masked_fill(~visible, torch.finfo(dtype).min)
    return visible


def sees(querying, seen, window):
    """Whether tokens see others, in their own sequence, at or before them, within the window.

    Both are (tree, branch, position), tensors of the same shape or that broadcast.
    """
    tree, branch, position = querying
    seen_tree, seen_branch, seen_position = seen
    in_sequence = (seen_tree == tree) & ((seen_branch == 0) | (seen_branch == branch))
    distance = position - seen_position
    visible = in_sequence & (distance >= 0)
    if window is not None:
        visible = visible & (distance < window)
    return visible


# Models


def packed_inputs(config, dtype, input_ids, attention_mask, branches):
    """(the Layout of padded sequences, the arguments of a model's forward pass over its rows)."""
    one_row = by_positions(config)
    if one_row:
        branches = 1
    packed = layout(input_ids, attention_mask, branches, one_row)
    arguments = {
        "input_ids": pack(input_ids, packed.slot, packed.is_token, packed.positions.shape, 0),
        "attention_mask": attention_masks(packed, config, dtype),
        "position_ids": packed.positions,
        "use_cache": False,
    }
    return packed, arguments


class PackedModel:
    """A language model with TRL's fused head, called as TRL calls it, which computes packed rows.

    model: perhaps wrapped for distributed training. branches: as of `layout`.
    """

    def __init__(self, model, config, branches):
        self.model = model
        self.config = config
        self.branches = branches

    def __call__(self, input_ids, attention_mask, labels, use_cache=False, fused_lm_head=True):
        """TRL's FusedCausalLMOutput, whose fields are (sequences, length - 1).

        use_cache and fused_lm_head are TRL's, always so.
        """
        dtype = next(self.model.parameters()).dtype
        packed, arguments = packed_inputs(
            self.config, dtype, input_ids, attention_mask, self.branches
        )
        has_loss = labels[:, 1:] != -100
        # Each token predicts the one behind it in its sequence.
        before = packed.slot[:, :-1]
        shape = packed.positions.shape
        shift_labels = pack(labels[:, 1:], before, has_loss, shape, -100)
        output = self.model(**arguments, shift_labels=shift_labels, fused_lm_head=True)
        for name in TOKEN_FIELDS:
            values = getattr(output, name)
            if values is not None:
                unpacked = values.view(-1)[before].masked_fill(~has_loss, 0)
                setattr(output, name, unpacked)
        return output


def pack_backbone(model, branches):
    """Let the layers of a model, called on padded sequences, compute packed rows.

    What they hand back is (sequences, length, hidden size), as before. For reward models, whose
    head is small.
    """
    backbone = model.base_model
    forward = backbone.forward

    def packed_forward(input_ids, attention_mask=None, **options):
        dtype = backbone.get_input_embeddings().weight.dtype
        packed, arguments = packed_inputs(
            backbone.config, dtype, input_ids, attention_mask, branches
        )
        output = forward(**{**options, **arguments})
        output.last_hidden_state = packed.unpack(output.last_hidden_state)
        return output

    backbone.forward = packed_forward


def fold_backbone(model):
    """Let the layers of a model, called on one row of many sequences, compute several rows.

    TRL's packed fine-tuning hands over all blocks of a batch as a row, (1, length), in which the
    positions tell the sequences apart. A mask over that row costs length^2; here rows are as long
    as the longest sequence. What is handed back is in one row again.
    """
    backbone = model.base_model
    forward = backbone.forward

    def folded_forward(input_ids, position_ids=None, attention_mask=None, **options):
        if position_ids is None or attention_mask is not None:
            return forward(
                input_ids, position_ids=position_ids, attention_mask=attention_mask, **options
            )
        folded = folded_layout(position_ids)
        dtype = backbone.get_input_embeddings().weight.dtype
        output = forward(
            pack(input_ids, folded.slot, folded.is_token, folded.positions.shape, 0),
            position_ids=folded.positions,
            attention_mask=attention_masks(folded, backbone.config, dtype),
            use_cache=False,
        )
        output.last_hidden_state = folded.unpack(output.last_hidden_state)
        return output

    backbone.forward = folded_forward


def folded_layout(position_ids):
    """The Layout of the sequences that stand in one row; position_ids: (1, length)."""
    sequence = (position_ids == 0).cumsum(dim=1) - 1  # (1, length): the number of each token's
    starts, shape = fill_rows(sequence[0].bincount().tolist(), one_row=False)
    slot = torch.tensor(starts, device=position_ids.device)[sequence] + position_ids
    is_token = torch.ones_like(position_ids, dtype=torch.bool)
    return Layout(
        slot,
        is_token,
        positions=pack(position_ids, slot, is_token, shape, 0),
        tree=pack(sequence, slot, is_token, shape, -1),
        branch=torch.zeros(shape, dtype=torch.long, device=position_ids.device),
    )
