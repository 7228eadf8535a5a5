"""The sizes of models and of machines, which footprint.py and compute.py compute with."""

from dataclasses import dataclass

GIB = 2**30

CONFIG_KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class Shape:
    """The sizes in a decoder's config.json, and the numbers of parameters that follow from them."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # the head shares the embedding's weights
    max_length: int
    biases: int = 0  # of one layer

    @property
    def head(self):
        """Parameters of the language model's head; the embedding has as many."""
        return self.vocabulary * self.hidden

    @property
    def attention(self):
        """Numbers that a token's queries have in one layer, all heads together."""
        return self.heads * self.head_dim

    @property
    def kv(self):
        """Numbers that a token's keys have in one layer; its values have as many."""
        return self.kv_heads * self.head_dim

    @property
    def cache(self):
        """Bytes of a token in the KV cache: keys and values of all layers in bf16."""
        return 4 * self.layers * self.kv

    @property
    def layer(self):
        """Parameters of one layer's matrices."""
        query_and_output = 2 * self.attention
        key_and_value = 2 * self.kv
        mlp = 3 * self.intermediate
        return self.hidden * (query_and_output + key_and_value + mlp)

    @property
    def matrices(self):
        """Parameters of all layers' matrices."""
        return self.layers * self.layer

    @property
    def body(self):
        """Parameters of the model without its head: layers with two norms each, norm, embedding."""
        layers = self.layers * (self.layer + self.biases + 2 * self.hidden)
        return layers + self.hidden + self.head

    @property
    def parameters(self):
        if self.tied:
            return self.body
        return self.body + self.head


@dataclass(frozen=True)
class Machine:
    """The number of GPUs, and the sizes of one: GiB, bf16 FLOP/s, bytes/s of its memory."""

    name: str
    gpus: int
    gib: float
    flops: float
    bandwidth: float


# Of the published config.json files.
SHAPES = {
    "llama3_8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, False, 8192),
    "llama3.2_1b": Shape(16, 2048, 8192, 32, 8, 64, 128256, True, 131072),
    "qwen2.5_1.5b": Shape(28, 1536, 8960, 12, 2, 128, 151936, True, 32768, biases=2048),
    "llama3_70b": Shape(80, 8192, 28672, 64, 8, 128, 128256, False, 8192),
}
# {in the name of a GPU: (bf16 FLOP/s without sparsity, bytes/s)}, of NVIDIA's data sheets.
GPU_RATES = {
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),  # SXM; the PCIe card is slower
    "NVIDIA H200": (989e12, 4.8e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 2.039e12),
    "RTX 4090": (165e12, 1.008e12),
}
# GiB as CUDA reports them.
MACHINES = {
    "8x80": Machine("8 x 80 GB (H100 SXM)", 8, 79.1, *GPU_RATES["NVIDIA H100 80GB HBM3"]),
    "1x141": Machine("1 x 141 GB (H200 SXM)", 1, 139.8, *GPU_RATES["NVIDIA H200"]),
    "1x24": Machine("1 x 24 GB (RTX 4090)", 1, 23.6, *GPU_RATES["RTX 4090"]),
}


def shape(config):
    """The Shape of a config.json, which is a dict; ValueError if it is no decoder known here.

    The Shape of a model that reads pictures as well is its language model's alone.
    """
    config = config.get("text_config") or config
    kind = config.get("model_type")
    values = [config.get(key) for key in CONFIG_KEYS]
    # A bool is an int to isinstance, but no size.
    numbers = all(type(value) is int and value > 0 for value in values)
    if kind not in ("llama", "mistral", "qwen2") or not numbers:
        raise ValueError(
            f"model_type {kind!r} is none of llama, mistral, qwen2, "
            f"or one of {' '.join(CONFIG_KEYS)} is no number"
        )
    layers, hidden, intermediate, heads, vocabulary, max_length = values
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    biases = 0
    if kind == "qwen2":  # queries, keys and values have one each
        biases = (heads + 2 * kv_heads) * head_dim
    return Shape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        tied=bool(config.get("tie_word_embeddings")),
        max_length=max_length,
        biases=biases,
    )


def size(shape, stage, lora_rank=0):
    """Parameters that a stage trains: the whole model, or LoRA's adapters of that rank.

    PEFT's choice for LoRA are the matrices of queries and values. A reward model's head is one row.
    """
    if lora_rank:
        query_adapter = shape.hidden + shape.attention
        value_adapter = shape.hidden + shape.kv
        return shape.layers * lora_rank * (query_adapter + value_adapter)
    if stage == "reward_model":
        return shape.body + shape.hidden
    return shape.parameters
