"""Train the base model of the tiny world from scratch: a byte-pair tokenizer and a small Llama.

Reads:  --dataset_name, a JSONL file of {"text"}
Writes: --output_dir, a Hugging Face model directory. The chat template adds the BOS token and marks
        the assistant's tokens with {% generation %}; padding has a token of its own.

    python recipes/tiny/2_base_model.py --dataset_name runs/tiny/world/corpus.jsonl \
        --output_dir runs/tiny/base
"""

import sys
from dataclasses import dataclass, field

from transformers import TrainingArguments

from common import rows, training, training_arguments

# Markers in the preference model's input, single tokens instead of about ten each.
MARKERS = ["[CONTEXT]", "[RESPONSE A]", "[RESPONSE B]", "<turn> user"]
ANSWER = "Answer:\n"  # what a document's answer begins with
HEAD_SIZE = 32
MAX_LENGTH = 512
IGNORED = -100  # label of a token without loss

# It uses the words of the corpus, which the base model knows. A backslash joins two lines.
CHAT_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}
{%- if message['role'] == 'assistant' %}{{ 'Answer:\n' }}
{%- generation %}{{ message['content'] + eos_token }}{% endgeneration %}
{%- else %}{{ 'Question: ' if message['role'] == 'user' else '' }}{{ message['content'] }}\
{% endif %}{{ '\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ 'Answer:\n' }}{% endif %}"""


@dataclass
class Shape:
    dataset_name: str = field(metadata={"help": "JSONL file of {text}"})
    vocab_size: int = field(default=640, metadata={"help": "tokens of the byte-pair vocabulary"})
    hidden_size: int = field(default=128, metadata={"help": "width of the model, in heads of 32"})
    num_hidden_layers: int = field(default=4, metadata={"help": "layers"})
    block_size: int = field(
        default=128, metadata={"help": "tokens of a block of documents, a training example"}
    )


@dataclass
class Config(TrainingArguments):
    learning_rate: float = field(default=3e-3, metadata={"help": "peak learning rate"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule"})
    warmup_steps: float = field(default=0.03, metadata={"help": "steps, or below 1 their share"})
    num_train_epochs: float = field(default=1, metadata={"help": "epochs"})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "blocks"})


def read_texts(path):
    texts = []
    for row in rows.read(path, "corpus"):
        if ANSWER not in row["text"]:
            rows.refuse(row, f"text: without {ANSWER!r}")
        texts.append(row["text"])
    return texts


def train_tokenizer(texts, vocab_size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|bos|>", "<|eos|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    bos = ("<|bos|>", bpe.token_to_id("<|bos|>"))
    # A text begins with BOS, as in the chat template.
    bpe.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[bos])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(MARKERS)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(tokenizer, shape):
    """A Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = shape.hidden_size // HEAD_SIZE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=2 * shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def make_blocks(tokenizer, texts, size):
    """The documents one after the other, cut into blocks of that many tokens: a dataset of
    input_ids and labels.

    There is no loss on the questions: their names and numbers are random, and guessing them would
    take most of the training.
    """
    from datasets import Dataset

    questions = [text[: text.index(ANSWER) + len(ANSWER)] for text in texts]
    documents = [text + tokenizer.eos_token for text in texts]
    question_ids = tokenizer(questions)["input_ids"]
    document_ids = tokenizer(documents)["input_ids"]
    input_ids = []
    labels = []
    for question, document in zip(question_ids, document_ids, strict=True):
        # A question's tokens are the first ones of its document: the pre-tokenizer splits at the
        # line feed that ends the question.
        start = len(question)
        input_ids += document
        labels += [IGNORED] * start + document[start:]
    # What remains after the last full block is left out.
    starts = range(0, len(input_ids) - size + 1, size)
    return Dataset.from_dict(
        {
            "input_ids": [input_ids[start : start + size] for start in starts],
            "labels": [labels[start : start + size] for start in starts],
        }
    )


def main():
    shape, training_args = training_arguments.parse(Shape, Config)
    if shape.hidden_size % HEAD_SIZE:
        sys.exit(f"--hidden_size: {shape.hidden_size} is not a multiple of {HEAD_SIZE}")
    texts = read_texts(shape.dataset_name)
    # From here on output_dir is a partial folder; training.finish renames it to `final`.
    final, checkpoint = training.begin(training_args)

    from transformers import Trainer, set_seed

    set_seed(training_args.seed)
    # The rest of the corpus has the same words.
    tokenizer = train_tokenizer(texts[:20_000], shape.vocab_size)
    trainer = Trainer(
        new_model(tokenizer, shape),
        training_args,
        train_dataset=make_blocks(tokenizer, texts, shape.block_size),
        processing_class=tokenizer,
    )
    training.train(trainer, checkpoint)
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
