"""Answer the questions of benchmarks with vLLM, in each benchmark's own answer format.

The benchmarks are AlpacaEval 2, MT-Bench (two turns) and Arena-Hard v0.1. MT-Bench samples writing
and roleplay at temperature 0.7, stem and humanities at 0.1; everything else is greedy (see
conversations.py). vLLM gets token ids: BOS comes from the chat template alone. The seed of a
sampled answer follows from --seed and the question: the same policy gives the same answers.

A turn has at most the tokens that the context leaves. Where it leaves none, the answer is empty,
and counted. The judges see what follows the thoughts: where generation stops inside a thought, the
answer is empty. Finished answers survive a kill: the same command resumes.

Reads:  --questions_files, one for each benchmark, by default the published ones: MT-Bench
        {"question_id", "category", "turns"}, Arena-Hard {"uid", "category", "prompt"}, AlpacaEval a
        list of {"instruction", "dataset"?}
Writes: --output_files, one for each: MT-Bench {"question_id", "answer_id", "model_id", "choices",
        "tstamp"}, Arena-Hard {"uid", "ans_id", "model", "messages", "tstamp"}, AlpacaEval a list of
        {"instruction", "output", "generator", "dataset"?}

    python eval/1_answers.py --benchmarks mt_bench --model_name_or_path runs/tiny/iter3/policy \
        --model_name iter3 --output_files my_mt_bench/answers.jsonl
"""

import hashlib
import json
import time
from dataclasses import dataclass

import conversations
import published
from common import arguments, chats, engines, models, outputs, progress, rows

MAX_NEW_TOKENS = {"alpaca_eval": 2048, "mt_bench": 1024, "arena_hard": 4096}


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--benchmarks", nargs="+", required=True, choices=[*MAX_NEW_TOKENS])
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--model_name", help="name in the tables (default: --model_name_or_path)")
    parser.add_argument(
        "--questions_files", nargs="+", help="(default: the benchmarks', at a pinned commit)"
    )
    parser.add_output("--output_files", nargs="+", required=True)
    parser.add_argument(
        "--max_new_tokens",
        type=arguments.whole(1),
        help="tokens a turn (default: alpaca_eval 2048, mt_bench 1024, arena_hard 4096)",
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        help="(default: the weights'; vLLM's auto lowers float32)",
    )
    parser.add_argument(
        "--max_model_len",
        type=arguments.whole(1),
        help="tokens of a conversation at most (default: the model's)",
    )
    parser.add_argument(
        "--tensor_parallel_size",
        type=arguments.whole(1),
        default=1,
        help="GPUs that share one model",
    )
    parser.add_argument(
        "--chunk_size",
        type=arguments.whole(1),
        default=256,
        help="questions between two writes to disk",
    )
    args = parser.parse_args()
    if not args.questions_files:
        args.questions_files = [published.PUBLISHED[benchmark] for benchmark in args.benchmarks]
    if not len(args.benchmarks) == len(args.questions_files) == len(set(args.output_files)):
        parser.error("--questions_files, --output_files: one for each of --benchmarks")
    return args


# Benchmarks


@dataclass
class Benchmark:
    """One benchmark of this command."""

    name: str
    questions: dict  # {id: question}
    max_new_tokens: int  # of a turn
    output_file: str
    writer: rows.Writer | None = None  # of rows {"id", "answers", "ends"}


def read_benchmarks(args):
    benchmarks = []
    files = zip(args.benchmarks, args.questions_files, args.output_files, strict=True)
    for name, questions_file, output_file in files:
        questions = published.read(questions_file, name)
        max_new_tokens = args.max_new_tokens or MAX_NEW_TOKENS[name]
        benchmarks.append(Benchmark(name, questions, max_new_tokens, output_file))
    return benchmarks


# Answering


def start_policy(args, tokenizer, turn_end, benchmarks):
    """The policy in vLLM's engine, with the context that the longest conversation needs.

    It is sized by all benchmarks, finished ones too, so that a resumed run has the same engine.
    """
    context = engines.longest(args.model_name_or_path, args.max_model_len)
    lengths = []
    for benchmark in benchmarks:
        max_new_tokens = benchmark.max_new_tokens
        lengths.append(conversations.longest(tokenizer, benchmark.questions, max_new_tokens))
    engine = engines.start(
        args.model_name_or_path,
        args.dtype,
        max(lengths),
        context,
        tensor_parallel_size=args.tensor_parallel_size,
        seed=args.seed,
    )
    return conversations.Policy(engine, tokenizer, turn_end, context, args.seed)


def answer_benchmark(policy, benchmark, chunk_size):
    """Answer the questions that are not in the writer yet, chunk by chunk."""
    todo = [key for key in benchmark.questions if key not in benchmark.writer.done]
    start = time.time()
    warned = False
    for first in range(0, len(todo), chunk_size):
        chunk = todo[first : first + chunk_size]
        questions = {question_id: benchmark.questions[question_id] for question_id in chunk}
        answered = conversations.converse(policy, questions, benchmark.max_new_tokens)
        benchmark.writer.add(answered)  # survives a kill from here on
        if not warned:
            warned = warn_of_truncation(benchmark, answered)
        done = first + len(chunk)
        seconds_left = (time.time() - start) / done * (len(todo) - done)
        progress.show(f"{done} of {len(todo)} questions, {seconds_left:.0f} s left")


def warn_of_truncation(benchmark, answered):
    """Print a warning if most answers are truncated; returns whether it did."""
    finish_reasons = finish_reasons_of(answered)
    truncated = finish_reasons.count("length")
    if 2 * truncated <= len(finish_reasons):
        return False
    print(
        f"{benchmark.name}: {truncated} of {len(finish_reasons)} answers are cut off at "
        f"{benchmark.max_new_tokens} tokens, or at the end of the context: raise "
        "--max_new_tokens, or look whether the model ends its turns",
        flush=True,
    )
    return True


def finish_reasons_of(answered):
    """The finish reason of every turn of these rows."""
    finish_reasons = []
    for row in answered:
        finish_reasons += row["ends"]
    return finish_reasons


# Writing


def in_benchmark_format(benchmark_name, question, answers, model, question_id):
    """The row of one question."""
    if benchmark_name == "alpaca_eval":
        row = {
            "instruction": question["instruction"],
            "output": answers[0],
            "generator": model,
        }
        for key in ("dataset", "datasplit"):
            if key in question:
                row[key] = question[key]
        return row
    # The same answers have the same id.
    content = json.dumps([model, question_id, answers])
    answer_id = hashlib.sha256(content.encode()).hexdigest()[:22]
    if benchmark_name == "mt_bench":
        return {
            "question_id": question["question_id"],
            "answer_id": answer_id,
            "model_id": model,
            "choices": [{"index": 0, "turns": answers}],
            "tstamp": time.time(),
        }
    messages = [
        {"content": question["prompt"], "role": "user"},
        {"content": {"answer": answers[0]}, "role": "assistant"},
    ]
    return {
        "uid": question["uid"],
        "ans_id": answer_id,
        "model": model,
        "messages": messages,
        "tstamp": time.time(),
    }


def write_output_file(benchmark, model):
    """Write the output file from the rows of the writer, and print its counts."""
    writer = benchmark.writer
    # Rows of this run, and of a killed one that it resumed.
    row_by_id = {row["id"]: row for row in rows.read(writer.partial)}
    answers = []
    for question_id, question in benchmark.questions.items():
        texts = row_by_id[question_id]["answers"]
        answers.append(in_benchmark_format(benchmark.name, question, texts, model, question_id))
    # AlpacaEval reads one JSON list, the others JSON lines.
    if benchmark.name == "alpaca_eval":
        text = json.dumps(answers, ensure_ascii=False, indent=2) + "\n"
    else:
        text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    # Writing the output file removes the unfinished rows, which the writer must not hold open.
    writer.file.close()
    outputs.write_text(writer.path, text)

    finish_reasons = finish_reasons_of(row_by_id.values())
    print(
        f"{writer.path} questions: {len(answers)}, finished before: {len(writer.done)}, "
        f"turns: {len(finish_reasons)}, truncated: {finish_reasons.count('length')}, "
        f"without room: {finish_reasons.count(conversations.NO_ROOM)}"
    )


def main():
    args = parse_arguments()
    benchmarks = read_benchmarks(args)

    from transformers import AutoModelForCausalLM

    path = args.model_name_or_path
    tokenizer = models.tokenizer(path, chat_template_kwargs=args.chat_template_kwargs)
    turn_end = chats.turn_end(tokenizer)
    models.check(AutoModelForCausalLM, path, tokenizer)

    command = rows.this_command(args.output_files)
    for benchmark in benchmarks:
        benchmark.writer = rows.Writer(benchmark.output_file, command)
    # vLLM takes a while to start: it is not started if all answers are there already.
    unfinished = [b for b in benchmarks if len(b.writer.done) < len(b.questions)]
    if unfinished:
        policy = start_policy(args, tokenizer, turn_end, benchmarks)
        for benchmark in unfinished:
            answer_benchmark(policy, benchmark, args.chunk_size)
    for benchmark in benchmarks:
        write_output_file(benchmark, args.model_name or path)


if __name__ == "__main__":
    main()
