"""How fast annotation/1a_reward_model.py scores responses, beside the published code's way and others.

Two cases, each way on the same rows, model, precision and threads, in turns: the tiny world's reward model and its
responses, where the overhead of a call rules; and a Llama of about 100M random weights, prompts of 200 tokens and 8
responses of 50 to 500, where the arithmetic rules. The published way calls a pipeline with batch 1 for each response.
The bound is what the arithmetic leaves to be saved: tokens of whole sequences over tokens with each prompt once.

    python speed/annotation_speed.py --model_name_or_path runs/tiny/reward_model \
        --responses_file runs/tiny/iter1/responses.jsonl
"""

import argparse
import importlib.util
import itertools
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from common import rows

WAYS = [
    "pipeline, batch 1",
    "whole sequences, sorted",
    "prompt once (1a_reward_model.py)",
    "vLLM, prefix caching",
]


def script():
    """annotation/1a_reward_model.py as a module; its name is none that `import` takes."""
    path = Path(__file__).resolve().parent.parent / "annotation" / "1a_reward_model.py"
    spec = importlib.util.spec_from_file_location("annotation_1a", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def random_rows(tokenizer, count):
    """Prompts of 200 tokens, 8 responses each of 50 to 500."""
    rng = random.Random(0)

    def text(size):
        ids = tokenizer(
            " ".join(rng.choices("cat red seven saw plum open day the is".split(), k=size))
        )["input_ids"]
        return tokenizer.decode(ids[:size], skip_special_tokens=True)

    for _ in range(count):
        row = rows.Row(prompt=[{"role": "user", "content": text(200)}])
        row["responses"] = [text(rng.randint(50, 500)) for _ in range(8)]
        row.place = "random"
        yield row


def compare(path, answered, repeats, batch_tokens):
    """Prints a table of the ways for one model."""
    import torch
    from transformers import pipeline
    from vllm import LLM, PoolingParams

    scoring = script()
    chats = [scoring.chats_of(row) for row in answered]
    model, tokenizer = scoring.load(str(path), "float32", ("the first", chats[0][0]))
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for row in chats for chat in row]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    of_rows = [ids[i : i + len(chats[0])] for i in range(0, len(ids), len(chats[0]))]
    scorers = {
        share: scoring.Scorer(model, tokenizer, batch_tokens, share) for share in (False, True)
    }
    tokens = sum(map(len, ids))
    once = tokens - sum(scorers[True].shared(row) * (len(row) - 1) for row in of_rows)
    run, engine_texts = {}, [text.replace(tokenizer.bos_token, "", 1) for text in texts]
    pipe = pipeline(
        "text-classification", model=model, tokenizer=tokenizer, function_to_apply="none"
    )
    counts = {}

    def batched(share):
        scorer, count = scorers[share], counts.setdefault(share, [0, 0])
        padded = scoring.Scorer.padded

        def counted(ids):
            batch = padded(scorer, ids)
            count[0] += batch["input_ids"].numel()
            count[1] += int(batch["attention_mask"].sum())
            return batch

        scorer.padded = counted
        return lambda: [one["logits"][0] for row in scorer.outputs(answered) for one in row]

    run[WAYS[0]] = lambda: [pipe(text, batch_size=1)[0]["score"] for text in engine_texts]
    run[WAYS[1]], run[WAYS[2]] = batched(False), batched(True)
    engine = LLM(
        str(path), runner="pooling", dtype="float32", enforce_eager=True, enable_prefix_caching=True
    )
    raw = PoolingParams(task="classify", use_activation=False)

    def pooled():
        engine.reset_prefix_cache()
        prompts = [{"prompt_token_ids": row} for row in ids]
        outputs = engine.encode(
            prompts, pooling_params=raw, pooling_task="classify", use_tqdm=False
        )
        return [output.outputs.data.item() for output in outputs]

    run[WAYS[3]] = pooled
    seconds, scores = {way: [] for way in WAYS}, {}
    for _ in range(repeats):
        for way in WAYS:
            start = time.perf_counter()
            scores[way] = run[way]()
            seconds[way].append(time.perf_counter() - start)
    weights = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(
        f"\n{weights:.1f}M weights, float32, {torch.get_num_threads()} threads, {len(ids)} responses to {len(chats)} "
        f"prompts, {tokens} tokens, {once} with each prompt once: bound {tokens / once:.2f}; median of {repeats} runs"
    )
    print(
        "| way | seconds | tokens/s | times the pipeline | padding | largest difference |\n"
        + "| --- " * 6
        + "|"
    )
    for way in WAYS:
        median = statistics.median(seconds[way])
        ratio = statistics.median(
            a / b for a, b in zip(seconds[WAYS[0]], seconds[way], strict=True)
        )
        difference = max(abs(a - b) for a, b in zip(scores[way], scores[WAYS[0]], strict=True))
        share = {WAYS[1]: False, WAYS[2]: True}.get(way)
        waste = f"{1 - counts[share][1] / counts[share][0]:.1%}" if share is not None else "none"
        print(
            f"| {way} | {median:.2f} | {tokens / median:.0f} | {ratio:.2f} | {waste} | {difference:.1e} |",
            flush=True,
        )


def main():
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
    args = parser.parse_args()
    answered = list(itertools.islice(rows.read(args.responses_file, "responses"), args.rows))

    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from transformers import AutoTokenizer

    compare(args.model_name_or_path, answered, args.repeats, args.batch_tokens)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(tokenizer, Path(folder) / "model")
        compare(
            path, list(random_rows(tokenizer, args.large_rows)), args.repeats, args.batch_tokens
        )


if __name__ == "__main__":
    main()
