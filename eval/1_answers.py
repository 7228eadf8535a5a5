"""Answer the questions of benchmarks with vLLM, each in the benchmark's own format of answers.

AlpacaEval-2, MT-Bench (two turns; temperature 0.7 for writing and roleplay, 0.1 for stem and humanities) or Arena-Hard
v0.1; where the benchmark sets no temperature it is 0. The engine gets the tokens of the chat, in which the template
alone adds BOS. A sampled answer's seed is made from --seed and the question, so that the same policy gives the same
answers. A turn gets the room that its chat leaves; one that has none left is answered by nothing, and counted. The
judges see what follows the thoughts; a thought that was cut off is no answer. What is finished survives a kill: give
the same command again.

Reads:  --questions_files, one for each benchmark, by default the published: MT-Bench {"question_id", "category",
        "turns"}, Arena-Hard {"uid", "category", "prompt"}, AlpacaEval a list of {"instruction", "dataset"?}
Writes: --output_files, one for each: MT-Bench {"question_id", "answer_id", "model_id", "choices", "tstamp"}, Arena-Hard
        {"uid", "ans_id", "model", "messages", "tstamp"}, AlpacaEval a list of {"instruction", "output", "generator"}

    python eval/1_answers.py --benchmarks mt_bench --model_name_or_path runs/tiny/iter3/policy --model_name iter3 \
        --output_files my_mt_bench/answers.jsonl
"""

import hashlib
import json
import sys
import time

import published
from common import arguments, chats, engines, models, outputs, rows, thoughts

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "stem": 0.1,
    "humanities": 0.1,
}  # MT-Bench's categories
MAX_NEW_TOKENS = {"alpaca_eval": 2048, "mt_bench": 1024, "arena_hard": 4096}


def turns_of(question):
    return question.get("turns") or [question.get("prompt") or question["instruction"]]


def native(benchmark, question, answers, model, name):
    """An answer in the benchmark's own format; its id is made from the answer."""
    digest = hashlib.sha256(json.dumps([model, name, answers]).encode()).hexdigest()[:22]
    if benchmark == "alpaca_eval":
        kept = {key: question[key] for key in ("dataset", "datasplit") if key in question}
        return {
            "instruction": question["instruction"],
            "output": answers[0],
            "generator": model,
            **kept,
        }
    if benchmark == "mt_bench":
        choices = [{"index": 0, "turns": answers}]
        made = {
            "question_id": question["question_id"],
            "answer_id": digest,
            "model_id": model,
            "choices": choices,
        }
    else:
        asked = {"content": question["prompt"], "role": "user"}
        messages = [asked, {"content": {"answer": answers[0]}, "role": "assistant"}]
        made = {"uid": question["uid"], "ans_id": digest, "model": model, "messages": messages}
    return {**made, "tstamp": time.time()}


def context_of(tokenizer, questions, most):
    """Tokens that the longest conversation takes: its questions, and an answer of `most` tokens to each.

    Where there are several turns, one answer more is kept free: read again, an answer may have more tokens than it was
    sampled in.
    """
    lengths = []
    for name, question in questions.items():
        turns = turns_of(question)
        where = f"question {name!r}"
        texts = [
            chats.prompt_text(tokenizer, [{"role": "user", "content": turn}], where)
            for turn in turns
        ]
        asked = sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
        lengths.append(asked + most * (len(turns) + (len(turns) > 1)))
    return max(lengths)


def converse(engine, tokenizer, end, questions, most, length, seed):
    """Answers {name: question}, turn by turn: a row {"id", "answers", "ends"} for each.

    end: the tokenizer's TurnEnd; most: tokens of an answer; length: of a conversation, the model's context.
    """
    from vllm import SamplingParams

    conversations = {name: [] for name in questions}
    answers = {name: [] for name in questions}
    ends = {name: [] for name in questions}
    for turn in range(max(len(turns_of(question)) for question in questions.values())):
        asked = [name for name, question in questions.items() if turn < len(turns_of(question))]
        requests, settings = {}, []
        for name in asked:
            conversations[name].append({"role": "user", "content": turns_of(questions[name])[turn]})
            text = chats.prompt_text(tokenizer, conversations[name], f"question {name!r}")
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            room = min(most, length - len(ids))
            if room > 0:
                own = int(hashlib.sha256(f"{seed} {name} {turn}".encode()).hexdigest()[:7], 16)
                temperature = TEMPERATURES.get(questions[name].get("category"), 0.0)
                stop = [end.token_id] if end.token else None
                settings.append(
                    SamplingParams(
                        temperature=temperature, max_tokens=room, seed=own, stop_token_ids=stop
                    )
                )
                requests[name] = {"prompt_token_ids": ids}
            opened = chats.opens_thought(text)  # by the template, for all alike
        outputs = (
            engine.generate([*requests.values()], settings, use_tqdm=False) if requests else []
        )
        outputs = dict(zip(requests, outputs, strict=True))
        for name in asked:
            sample = outputs[name].outputs[0] if name in outputs else None
            response = sample.text if sample else ""
            ends[name].append(sample.finish_reason if sample else "no room")
            conversations[name].append({"role": "assistant", "content": response})
            answer = thoughts.without_thoughts(
                response, unfinished=opened and ends[name][-1] == "length"
            )
            answers[name].append(answer if answer == response else answer.lstrip())
    return [{"id": name, "answers": answers[name], "ends": ends[name]} for name in questions]


def publish(benchmark, answers, path):
    if benchmark == "alpaca_eval":
        text = json.dumps(answers, ensure_ascii=False, indent=2) + "\n"
    else:
        text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    outputs.write_text(path, text)


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--benchmarks", nargs="+", required=True, choices=[*MAX_NEW_TOKENS])
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument(
        "--model_name", help="name in the tables (default: as --model_name_or_path)"
    )
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
    model = args.model_name or args.model_name_or_path
    sources = args.questions_files or [
        published.PUBLISHED[benchmark] for benchmark in args.benchmarks
    ]
    if not len(args.benchmarks) == len(sources) == len(set(args.output_files)):
        parser.error("--questions_files, --output_files: one for each of --benchmarks")
    asked = [
        published.read(source, kind) for source, kind in zip(sources, args.benchmarks, strict=True)
    ]

    from transformers import AutoModelForCausalLM

    tokenizer = models.tokenizer(
        args.model_name_or_path, chat_template_kwargs=args.chat_template_kwargs
    )
    end = chats.turn_end(tokenizer)
    models.check(AutoModelForCausalLM, args.model_name_or_path, tokenizer)

    writers = [
        rows.Writer(file, rows.this_command(args.output_files)) for file in args.output_files
    ]
    if any(
        len(writer.done) < len(questions) for writer, questions in zip(writers, asked, strict=True)
    ):
        limit = engines.longest(args.model_name_or_path, args.max_model_len)
        context = max(
            context_of(tokenizer, questions, args.max_new_tokens or MAX_NEW_TOKENS[benchmark])
            for benchmark, questions in zip(args.benchmarks, asked, strict=True)
        )
        engine = engines.start(
            args.model_name_or_path,
            args.dtype,
            context,
            limit,
            tensor_parallel_size=args.tensor_parallel_size,
            seed=args.seed,
        )
    warned = set()
    for benchmark, questions, writer in zip(args.benchmarks, asked, writers, strict=True):
        todo, start = [name for name in questions if name not in writer.done], time.time()
        most = args.max_new_tokens or MAX_NEW_TOKENS[benchmark]
        for first in range(0, len(todo), args.chunk_size):
            chunk = {name: questions[name] for name in todo[first : first + args.chunk_size]}
            answered = converse(engine, tokenizer, end, chunk, most, limit, args.seed)
            writer.add(answered)
            ends = [end for row in answered for end in row["ends"]]
            if 2 * ends.count("length") > len(ends) and benchmark not in warned:
                warned.add(benchmark)
                print(
                    f"{benchmark}: {ends.count('length')} of {len(ends)} answers are cut off at {most} tokens, or at "
                    "the end of the context: raise --max_new_tokens, or look whether the model ends its turns",
                    flush=True,
                )
            done, seconds = first + len(chunk), time.time() - start
            told = (
                f"{done} of {len(todo)} questions, {seconds / done * (len(todo) - done):.0f} s left"
            )
            print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    for benchmark, questions, writer in zip(args.benchmarks, asked, writers, strict=True):
        made = {row["id"]: row for row in rows.read(writer.partial)}
        answers = [
            native(benchmark, q, made[name]["answers"], model, name)
            for name, q in questions.items()
        ]
        writer.file.close()  # its rows go when the answers, in the benchmark's format, have the name
        publish(benchmark, answers, writer.path)
        ends = [end for row in made.values() for end in row["ends"]]
        print(
            f"{writer.path} questions: {len(questions)}, finished before: {len(writer.done)}, turns: {len(ends)}, "
            f"truncated: {ends.count('length')}, without room: {ends.count('no room')}"
        )


if __name__ == "__main__":
    main()
