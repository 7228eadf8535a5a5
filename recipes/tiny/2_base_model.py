"""Make the base model of the tiny world from nothing: a byte-pair tokenizer and a small Llama, trained on a corpus.

Reads:  --dataset_name, a JSONL file of {"text"}
Writes: --output_dir, a Hugging Face model directory. The chat template adds the BOS token and marks the assistant's
        tokens with {% generation %}; padding has a token of its own.

    python recipes/tiny/2_base_model.py --dataset_name runs/tiny/world/corpus.jsonl --output_dir runs/tiny/base
"""

import sys
from dataclasses import dataclass, field

from transformers import TrainingArguments

from common import rows, training, training_arguments

# What a pairwise preference model reads around the texts; unknown to the tokenizer each would take ten tokens.
MARKERS = ["[CONTEXT]", "[RESPONSE A]", "[RESPONSE B]", "<turn> user"]
ANSWER = "Answer:\n"  # what a document's answer begins with
BLOCK = (
    128  # tokens; the corpus is cut into blocks of this length, which hold several documents each
)

# The words of the corpus, so that the base model knows what they ask for.
CHAT_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}
{%- if message['role'] == 'assistant' %}{{ 'Answer:\n' }}
{%- generation %}{{ message['content'] + eos_token }}{% endgeneration %}
{%- else %}{{ 'Question: ' if message['role'] == 'user' else '' }}{{ message['content'] }}{% endif %}{{ '\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ 'Answer:\n' }}{% endif %}"""


@dataclass
class World:
    dataset_name: str = field(metadata={"help": "JSONL file of {text}"})
    vocab_size: int = field(default=640, metadata={"help": "tokens of the byte-pair vocabulary"})
    hidden_size: int = field(default=128, metadata={"help": "width of the model, in heads of 32"})
    num_hidden_layers: int = field(default=4, metadata={"help": "layers"})


@dataclass
class Config(TrainingArguments):
    learning_rate: float = field(default=3e-3, metadata={"help": "peak learning rate"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule"})
    warmup_steps: float = field(default=0.03, metadata={"help": "steps, or below 1 their share"})
    num_train_epochs: float = field(default=1, metadata={"help": "epochs"})
    per_device_train_batch_size: int = field(
        default=8, metadata={"help": f"blocks of {BLOCK} tokens"}
    )


def tokenizer_of(texts, vocab_size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|bos|>", "<|eos|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet
    )
    bpe.train_from_iterator(texts, trainer)
    bos = ("<|bos|>", bpe.token_to_id("<|bos|>"))
    bpe.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[bos])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|eos|>",
        model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.add_tokens(MARKERS)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def main():
    world, training_args = training_arguments.parse(World, Config)
    if world.hidden_size % 32:
        sys.exit(f"--hidden_size: {world.hidden_size} is not a multiple of 32")
    texts = []
    for row in rows.read(world.dataset_name, "corpus"):
        if ANSWER not in row["text"]:
            rows.refuse(row, f"text: without {ANSWER!r}")
        texts.append(row["text"])
    final, checkpoint = training.begin(training_args)

    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, set_seed

    set_seed(training_args.seed)
    tokenizer = tokenizer_of(texts[:20_000], world.vocab_size)
    heads = world.hidden_size // 32
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=world.hidden_size,
        intermediate_size=2 * world.hidden_size,
        num_hidden_layers=world.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    # No loss on the questions: their names and numbers are random, and guessing them would take most of the training.
    questions = tokenizer([text[: text.index(ANSWER) + len(ANSWER)] for text in texts])["input_ids"]
    documents = tokenizer([text + tokenizer.eos_token for text in texts])["input_ids"]
    ids = [token for document in documents for token in document]
    labels = [
        token if i >= len(question) else -100
        for question, document in zip(questions, documents, strict=True)
        for i, token in enumerate(document)
    ]
    starts = range(0, len(ids) - BLOCK + 1, BLOCK)
    blocks = {
        "input_ids": [ids[i : i + BLOCK] for i in starts],
        "labels": [labels[i : i + BLOCK] for i in starts],
    }
    trainer = Trainer(
        LlamaForCausalLM(config),
        training_args,
        train_dataset=Dataset.from_dict(blocks),
        processing_class=tokenizer,
    )
    training.train(trainer, checkpoint)
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
