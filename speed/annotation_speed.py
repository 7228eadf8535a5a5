"""How fast annotation/1a_reward_model.py scores responses, beside the published code's way and
others.

There are two cases; in each, all ways take turns on the same rows, model, precision and threads:

- the tiny world's reward model and responses, where the overhead of a call dominates;
- a Llama of about 100M random weights, with prompts of 200 tokens and 8 responses of 50 to 500
  tokens, where the arithmetic dominates.

The published way calls a pipeline with batch size 1 for each response. The bound printed is the
most that sharing prompts can save: tokens of untruncated sequences over tokens with each prompt
counted once.

    python speed/annotation_speed.py --model_name_or_path runs/tiny/reward_model \
        --responses_file runs/tiny/iter1/responses.jsonl
"""

import argparse
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import rows, tables

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "annotation"))
import reward_scorer

PUBLISHED = "pipeline, batch 1"
UNSHARED = "whole sequences, sorted"
SHARED = "prompt once (1a_reward_model.py)"
ENGINE = "vLLM, prefix caching"
HEAD = ["way", "seconds", "tokens/s", "times the pipeline", "padding", "largest difference"]
WORDS = "cat red seven saw plum open day the is".split()


class CountingScorer(reward_scorer.Scorer):
    """A Scorer that counts the tokens of its batches."""

    computed_tokens = 0
    real_tokens = 0  # without padding

    def padded(self, sequences):
        batch = super().padded(sequences)
        self.computed_tokens += batch["input_ids"].numel()
        self.real_tokens += int(batch["attention_mask"].sum())
        return batch

    def padding(self):
        return 1 - self.real_tokens / self.computed_tokens

    def scores(self, answered):
        scores = []
        for outputs in self.outputs(answered):
            scores += [output["logits"][0] for output in outputs]
        return scores


class Engine:
    """vLLM with prefix caching; the cache is emptied before each measurement."""

    def __init__(self, path):
        from vllm import LLM, PoolingParams

        self.engine = LLM(
            str(path),
            runner="pooling",
            dtype="float32",
            enforce_eager=True,
            enable_prefix_caching=True,
        )
        self.raw_scores = PoolingParams(task="classify", use_activation=False)

    def scores(self, sequences):
        self.engine.reset_prefix_cache()
        prompts = [{"prompt_token_ids": token_ids} for token_ids in sequences]
        outputs = self.engine.encode(
            prompts, pooling_params=self.raw_scores, pooling_task="classify", use_tqdm=False
        )
        return [output.outputs.data.item() for output in outputs]


def random_model(tokenizer, folder):
    """About 100M random weights with that tokenizer, saved."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2560,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=1024,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.model_max_length = 1024
    tokenizer.save_pretrained(folder)
    return folder


def random_text(tokenizer, rng, size):
    """A text of `size` tokens at most."""
    words = " ".join(rng.choices(WORDS, k=size))
    token_ids = tokenizer(words)["input_ids"]
    return tokenizer.decode(token_ids[:size], skip_special_tokens=True)


def random_rows(tokenizer, count):
    """Rows with a prompt of 200 tokens and 8 responses of 50 to 500."""
    rng = random.Random(0)
    for _ in range(count):
        prompt = random_text(tokenizer, rng, 200)
        row = rows.Row(prompt=[{"role": "user", "content": prompt}])
        row["responses"] = []
        for _ in range(8):
            row["responses"].append(random_text(tokenizer, rng, rng.randint(50, 500)))
        row.place = "random"
        yield row


def tokens_with_prompts_once(scorer, sequences, n):
    """Tokens of rows of n sequences each, with the prefix of a row counted once."""
    tokens = sum(map(len, sequences))
    for first in range(0, len(sequences), n):
        saved = scorer.prefix_length(sequences[first : first + n])
        tokens -= saved * (n - 1)
    return tokens


def measure(ways, repeats):
    """({way: seconds of each run}, {way: scores}); the ways take turns."""
    seconds = {way: [] for way in ways}
    scores = {}
    for _ in range(repeats):
        for way, score in ways.items():
            start = time.perf_counter()
            scores[way] = score()
            seconds[way].append(time.perf_counter() - start)
    return seconds, scores


def table_line(way, seconds, scores, tokens, padding):
    """The cells of a way. seconds and scores: of all ways, as measure gives them."""
    median = statistics.median(seconds[way])
    runs = zip(seconds[way], seconds[PUBLISHED], strict=True)
    speedup = statistics.median(published / this for this, published in runs)
    responses = zip(scores[way], scores[PUBLISHED], strict=True)
    difference = max(abs(this - published) for this, published in responses)
    return [
        way,
        f"{median:.2f}",
        f"{tokens / median:.0f}",
        f"{speedup:.2f}",
        padding,
        f"{difference:.1e}",
    ]


def compare(path, answered, repeats, batch_tokens):
    """Print a table of the ways for one model. answered: rows with as many responses each."""
    import torch
    from transformers import pipeline

    chats = [reward_scorer.chats_of(row) for row in answered]
    model, tokenizer = reward_scorer.load(str(path), "float32", ("the first", chats[0][0]))
    texts = []
    for chat in itertools.chain.from_iterable(chats):
        texts.append(tokenizer.apply_chat_template(chat, tokenize=False))
    sequences = tokenizer(texts, add_special_tokens=False)["input_ids"]

    pipe = pipeline(
        "text-classification", model=model, tokenizer=tokenizer, function_to_apply="none"
    )
    # The pipeline's tokenizer adds the BOS token itself.
    texts = [text.replace(tokenizer.bos_token, "", 1) for text in texts]
    unshared = CountingScorer(model, tokenizer, batch_tokens, share_prefix=False)
    shared = CountingScorer(model, tokenizer, batch_tokens, share_prefix=True)
    engine = Engine(path)
    ways = {
        PUBLISHED: lambda: [pipe(text, batch_size=1)[0]["score"] for text in texts],
        UNSHARED: lambda: unshared.scores(answered),
        SHARED: lambda: shared.scores(answered),
        ENGINE: lambda: engine.scores(sequences),
    }
    seconds, scores = measure(ways, repeats)

    tokens = sum(map(len, sequences))
    once = tokens_with_prompts_once(shared, sequences, len(chats[0]))
    weights = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(
        f"\n{weights:.1f}M weights, float32, {torch.get_num_threads()} threads, "
        f"{len(sequences)} responses to {len(chats)} prompts, {tokens} tokens, "
        f"{once} with each prompt once: bound {tokens / once:.2f}; median of {repeats} runs"
    )
    paddings = {UNSHARED: f"{unshared.padding():.1%}", SHARED: f"{shared.padding():.1%}"}
    lines = []
    for way in ways:
        lines.append(table_line(way, seconds, scores, tokens, paddings.get(way, "none")))
    print(tables.markdown(HEAD, lines), flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_name_or_path", required=True, help="the tiny reward model")
    parser.add_argument("--responses_file", required=True, help="the tiny world's responses")
    parser.add_argument("--rows", type=int, default=200, help="prompts of the tiny case")
    parser.add_argument(
        "--large_rows", type=int, default=3, help="prompts of the case of 100M weights"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch_tokens", type=int, default=1024)
    return parser.parse_args()


def main():
    args = parse_arguments()
    answered = list(itertools.islice(rows.read(args.responses_file, "responses"), args.rows))

    # vLLM reads these when it is imported.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from transformers import AutoTokenizer

    compare(args.model_name_or_path, answered, args.repeats, args.batch_tokens)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(tokenizer, Path(folder) / "model")
        large = list(random_rows(tokenizer, args.large_rows))
        compare(path, large, args.repeats, args.batch_tokens)


if __name__ == "__main__":
    main()
