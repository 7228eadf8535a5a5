"""Score every response with a reward model (paper 3.3, Algorithm 2).

Responses of like length go through the model together, in batches of at most --batch_tokens tokens with padding; the
size of the batch changes a score by rounding only (below 1e-4 in float32). Finished rows survive a kill: give the same
command again.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", ...}
Writes: --output_file, the same rows with "rewards", one for each response, and "annotator". A row in which a prompt
        and response are longer than the model's context is dropped and counted.

    python annotation/1a_reward_model.py --model_name_or_path runs/tiny/reward_model --n 8 \
        --responses_file runs/tiny/iter1/responses.jsonl --output_file runs/tiny/iter1/rewards.jsonl

One shard of two, on the second GPU; `python rows.py` joins the shards:
    CUDA_VISIBLE_DEVICES=1 python annotation/1a_reward_model.py --shard 1 --num_shards 2 ...
"""

import argparse
import sys
import time

import rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--responses_file", required=True)
    parser.add_argument("--output_file", required=True)
    parser.add_argument("--n", type=int, help="responses that every row must have (default: as the first row)")
    parser.add_argument("--batch_tokens", type=int, default=16_384, help="tokens a batch, padding included")
    parser.add_argument("--dtype", default="float32", help="of weights and activations: float32, bfloat16")
    parser.add_argument("--chunk_size", type=int, default=512, help="rows between two writes to disk")
    parser.add_argument("--shard", type=int, default=0, help="which share of the rows: 0 to num_shards - 1")
    parser.add_argument("--num_shards", type=int, default=1, help="shares, one a process; no row is lost")
    args = parser.parse_args()
    answered = list(rows.read(args.responses_file, "responses", n=args.n))[args.shard :: args.num_shards]

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    except (OSError, ValueError) as error:
        sys.exit(f"{args.model_name_or_path}: no model there ({str(error).splitlines()[0]})")
    if not tokenizer.chat_template:
        sys.exit(f"{args.model_name_or_path}: its tokenizer has no chat template")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        # The model takes the last token that is not padding for the end of the response.
        sys.exit(f"{args.model_name_or_path}: its tokenizer needs a pad token that is not the EOS token")
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model_name_or_path, dtype=args.dtype, device_map="cuda" if torch.cuda.is_available() else "cpu"
    ).eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.config.num_labels != 1:
        sys.exit(f"{args.model_name_or_path}: gives {model.config.num_labels} scores, a reward model gives one")

    @torch.inference_mode()
    def scores(chats):
        """One score for each chat, in the order given; nan where the chat is longer than the context."""
        texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        results = [float("nan")] * len(ids)
        fitting = (i for i in range(len(ids)) if len(ids[i]) <= model.config.max_position_embeddings)
        order = sorted(fitting, key=lambda i: len(ids[i]), reverse=True)
        while order:
            size = max(1, args.batch_tokens // len(ids[order[0]]))
            batch, order = order[:size], order[size:]
            padded = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, padding_side="right", return_tensors="pt")
            logits = model(**padded.to(model.device)).logits[:, 0].float()
            for i, score in zip(batch, logits.tolist(), strict=True):
                results[i] = score
        return results

    writer = rows.Writer(args.output_file, rows.fingerprint(sys.argv[1:]))
    todo = [row for row in answered if row["id"] not in writer.done]
    start, dropped = time.time(), 0
    for first in range(0, len(todo), args.chunk_size):
        chunk = todo[first : first + args.chunk_size]
        chats = [row["prompt"] + [{"role": "assistant", "content": t}] for row in chunk for t in row["responses"]]
        results = iter(scores(chats))
        finished = []
        for row in chunk:
            rewards = [next(results) for _ in row["responses"]]
            if all(reward == reward for reward in rewards):
                finished.append({**row, "rewards": rewards, "annotator": args.model_name_or_path})
        writer.add(finished)
        dropped += len(chunk) - len(finished)
        done, seconds = first + len(chunk), time.time() - start
        told = f"{done} of {len(todo)} rows, {done / seconds:.0f}/s, {seconds / done * (len(todo) - done):.0f} s left"
        print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    if len(answered) == dropped:
        sys.exit(f"{args.responses_file}: every row is longer than the context of {args.model_name_or_path}")
    writer.finish()
    print(
        f"{args.output_file} rows in: {len(answered)}, finished before: {len(writer.done)}, "
        f"dropped, too long: {dropped}, rows out: {len(answered) - dropped}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
