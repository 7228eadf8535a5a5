"""Sample n trajectories to every prompt with vLLM, in which the policy may run Python programs.

The multi-turn loop of the slides (Iterative preference learning, "Multi-turn tool-integrated
reasoning") and of arXiv 2409.02392: y = a_1, o_1, ..., o_{H-1}, a_H. The assistant's turn a_h is
sampled; if it calls the tool, the program runs in the sandbox of common/sandbox.py, and its output
is the tool's turn o_h. A turn without a call is the final answer. All trajectories of a chunk
advance together: one batch for the policy, then programs in parallel.

--tool_format fenced: a turn that ends with the fence of a ```python block calls that program; so
does one that goes on with ```output, where generation stops. The output is shown as a user's turn,
a block ```output. --tool_format native: the chat template gets the schema of a tool "python" with
one argument, "code", and a parser of vLLM, --tool_call_parser, reads its calls.

A program sees what the trajectory's earlier programs defined: those that ended without an error run
again before it, unseen, and within the limits of one program. Of an output the head and the tail
are kept. Each turn of each trajectory has its own seed, made from --seed, the id, the trajectory's
index and the turn's: rows depend neither on shards nor on a resumed run (but see 2_responses.py).

Reads:  --prompts_file, {"id", "prompt", "system"?, ...}; the engine gets "system" before the
        prompt. A prompt that leaves no room for --max_new_tokens is dropped and counted.
Writes: --output_file, the same rows with
            "responses"         [[messages] x n], of roles assistant, tool, ..., assistant; the
                                assistant's verbatim, the tool's with a "name" if native
            "temperatures"
            "finish_reasons"    "stop": a final answer; "length": a turn was cut off at
                                --max_new_tokens, or the context is full; "turns": the last of
                                --max_turns turns still calls the tool
            "end_tokens"        the token that ended the last turn, "" if none did
            "response_tokens"   sampled tokens of all the assistant's turns
            "programs", "failed_programs"       answered calls; those whose program failed, or that
                                                held none
            "prompt_tokens", "policy", and "tools" if native

    python generation/2c_tool_responses.py --model_name_or_path my_policy \
        --prompts_file runs/tiny/iter1/prompts.jsonl --n 8 --run_generated_code \
        --output_file my_trajectories.jsonl
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import sampling
import tool_calls
import tool_programs
from common import arguments, chats, rows, sandbox, shards, trajectories

# Tokens that a chat template writes around an output, and around the turn before it.
TEMPLATE_TOKENS = 64


def parse_arguments():
    parser = arguments.Parser(__doc__)
    sampling.add_arguments(parser)
    sampling.add_engine_arguments(parser)
    parser.add_argument(
        "--max_new_tokens",
        type=arguments.whole(1),
        default=1024,
        help="tokens of a turn of the assistant at most (code of arXiv 2409.02392)",
    )
    parser.add_argument(
        "--max_turns",
        type=arguments.whole(1),
        default=6,
        help="turns of the assistant at most, H (code of arXiv 2409.02392)",
    )
    parser.add_argument(
        "--run_generated_code", action="store_true", help="run the policy's programs, in a sandbox"
    )
    parser.add_argument("--tool_format", choices=["fenced", "native"], default="fenced")
    parser.add_argument(
        "--tool_call_parser",
        help="of vLLM, for native calls: hermes (Qwen2.5, Qwen3), llama3_json, mistral, ...",
    )
    parser.add_argument(
        "--max_output_characters",
        type=arguments.whole(2),
        default=1000,
        help="of a program's output that the policy reads at most, half of them from its end",
    )
    args = sampling.parse(parser)
    if not args.run_generated_code:
        parser.error("--run_generated_code: programs that the policy wrote run only with it")
    if (args.tool_format == "native") != bool(args.tool_call_parser):
        parser.error("--tool_call_parser: needed with --tool_format native, and only there")
    return args


def tool_format_of(args, tokenizer, prompts):
    """The tool_calls.Fenced or Native that is asked for; it has to fit the chat template."""
    if args.tool_format == "native":
        tool_format = tool_calls.Native(args.tool_call_parser, tokenizer)
    else:
        tool_format = tool_calls.Fenced()
    for row in prompts:
        if row.get("tools") not in (None, tool_format.tools):
            rows.refuse(row, "tools: the only tool here is python, of --tool_format native")
    # A shard may be empty.
    if prompts:
        first = prompts[0]
        chat = sampling.chat(first)
        tool_calls.check_template(tokenizer, tool_format, chat, first.at("prompt"))
    return tool_format


@dataclass
class Trajectory:
    """The response that is being made to a prompt."""

    row: rows.Row
    index: int  # among the n of its prompt
    temperature: float
    messages: list[dict] = field(default_factory=list)
    finish_reason: str = ""  # until it is finished
    end_token: str = ""
    tokens: int = 0  # sampled
    calls: list = field(default_factory=list)  # of the last turn, not answered yet
    cells: list[str] = field(default_factory=list)  # programs that ended without an error
    programs: int = 0
    failed_programs: int = 0

    def finish(self, reason):
        self.finish_reason = reason
        if reason == "length":
            self.end_token = ""
        # A trajectory ends with a turn of the assistant.
        while self.messages[-1]["role"] == "tool":
            self.messages.pop()


class TrajectorySampler(sampling.EngineSampler):
    """Samples n trajectories to every prompt of a chunk, a turn of all of them at a time.

    pool: the sandbox's. seconds: of "generation" and of the "tool", so far.
    """

    other_limit = " a turn, or by a full context"

    def __init__(self, args, tokenizer, turn_end, all_prompts, tool_format, pool):
        output_tokens = args.max_output_characters + TEMPLATE_TOKENS
        # A character is at most a token, but for rare ones: then the context is full earlier.
        response_tokens = args.max_turns * (args.max_new_tokens + output_tokens)
        super().__init__(args, tokenizer, turn_end, all_prompts, response_tokens, tool_format.tools)
        self.tool_format = tool_format
        self.pool = pool
        self.seconds = Counter()

    def sample(self, prompts):
        """The rows of these prompts with n trajectories each."""
        started = []
        for row in prompts:
            for index, temperature in enumerate(self.temperatures()):
                started.append(Trajectory(row, index, temperature))
        unfinished = started
        for turn in range(self.args.max_turns):
            self.answer_calls(unfinished)
            self.sample_turn(unfinished, turn)
            unfinished = [trajectory for trajectory in unfinished if trajectory.calls]
            if not unfinished:
                break
        for trajectory in unfinished:
            trajectory.finish("turns")
        finished = []
        for first in range(0, len(started), self.args.n):
            finished.append(self.finished_row(started[first : first + self.args.n]))
        return finished

    def answer_calls(self, unfinished):
        """Run the programs that these trajectories call, and add their outputs."""
        start = time.time()
        limit = self.args.max_output_characters
        tool_programs.answer_calls(unfinished, self.tool_format, self.pool, limit)
        self.seconds["tool"] += time.time() - start

    def sample_turn(self, unfinished, turn):
        """Sample the next turn of these trajectories, and read its calls."""
        start = time.time()
        sampled = []
        requests = []
        settings = []
        for trajectory, ids in zip(unfinished, self.ids_of(unfinished), strict=True):
            room = self.context - len(ids)
            if room < 1:
                trajectory.calls = []
                trajectory.finish("length")
                continue
            sampled.append(trajectory)
            requests.append({"prompt_token_ids": ids})
            settings.append(self.sampling_params(trajectory, turn, room))
        outputs = self.engine.generate(requests, settings, use_tqdm=False) if requests else []
        for trajectory, output in zip(sampled, outputs, strict=True):
            self.add_turn(trajectory, output.outputs[0])
        self.seconds["generation"] += time.time() - start

    def ids_of(self, unfinished):
        """The token ids that each trajectory goes on from."""
        texts = []
        for trajectory in unfinished:
            row = trajectory.row
            messages = [*sampling.chat(row), *trajectories.for_template(trajectory.messages)]
            texts.append(chats.prompt_text(self.tokenizer, messages, row.at("prompt"), self.tools))
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def sampling_params(self, trajectory, turn, room):
        """vLLM's settings. room: tokens that the context has left."""
        from vllm import SamplingParams

        return SamplingParams(
            temperature=trajectory.temperature,
            max_tokens=min(self.args.max_new_tokens, room),
            seed=sampling.seed_of(self.args.seed, trajectory.row["id"], trajectory.index, turn),
            stop_token_ids=self.stop_token_ids(),
            **self.tool_format.sampling_options,
        )

    def add_turn(self, trajectory, sample):
        """Add the turn of vLLM's sample: a call, or the end of the trajectory."""
        trajectory.tokens += len(sample.token_ids)
        trajectory.end_token = self.end_token(sample)
        content = sample.text
        trajectory.calls = []
        if sample.finish_reason == "stop":
            content, trajectory.calls = self.tool_format.read(sample.text, sample.stop_reason)
        trajectory.messages.append({"role": "assistant", "content": content})
        if trajectory.calls:
            return
        # A turn that ends at a text and calls nothing was cut off there, in a thought, say.
        cut_off = isinstance(sample.stop_reason, str)
        trajectory.finish("length" if cut_off else sample.finish_reason)

    def finished_row(self, finished):
        """A prompt's row with its trajectories."""
        row = finished[0].row
        extended = {
            **row,
            "responses": [trajectory.messages for trajectory in finished],
            "temperatures": [trajectory.temperature for trajectory in finished],
            "finish_reasons": [trajectory.finish_reason for trajectory in finished],
            "end_tokens": [trajectory.end_token for trajectory in finished],
            "response_tokens": [trajectory.tokens for trajectory in finished],
            "programs": [trajectory.programs for trajectory in finished],
            "failed_programs": [trajectory.failed_programs for trajectory in finished],
            "prompt_tokens": self.prompt_tokens[row["id"]],
            "policy": self.args.model_name_or_path,
        }
        if self.tools:
            extended["tools"] = self.tools
        return extended


def sample_remaining(args, tokenizer, all_prompts, tool_format, remaining, writer):
    """(counts of sampling.sample_in_chunks, seconds of generation and of the tool)."""
    turn_end = chats.turn_end(tokenizer)
    try:
        with sandbox.Pool() as pool:
            sampler = TrajectorySampler(args, tokenizer, turn_end, all_prompts, tool_format, pool)
            counts = sampling.sample_in_chunks(sampler, remaining, writer)
    except sandbox.UnusableError as error:
        sys.exit(f"--run_generated_code: {error}; the same command goes on from what is finished")
    return counts, sampler.seconds


def main():
    args = parse_arguments()
    all_prompts = list(rows.read(args.prompts_file, "prompts"))
    prompts = list(shards.own_rows(all_prompts, args))
    tokenizer = sampling.load_tokenizer(args, prompts)
    tool_format = tool_format_of(args, tokenizer, prompts)
    if reason := sandbox.unusable():
        sys.exit(f"--run_generated_code: {reason}")

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    remaining = [row for row in prompts if row["id"] not in writer.done]
    counts = sampling.count_finished(writer)
    seconds = Counter()
    # A shard without prompts, or one that is finished, needs no engine.
    if remaining:
        new_counts, seconds = sample_remaining(
            args, tokenizer, all_prompts, tool_format, remaining, writer
        )
        counts += new_counts
    writer.finish()
    print(
        f"{args.output_file} rows in: {len(prompts)}, finished before: {len(writer.done)}, "
        f"dropped, too long: {counts['too long']}, rows out: {len(prompts) - counts['too long']}, "
        f"truncated trajectories: {counts['truncated']}, "
        f"at --max_turns: {counts['at max_turns']}, programs: {counts['programs']}, "
        f"failed: {counts['failed programs']}, generation {seconds['generation']:.1f} s, "
        f"tool {seconds['tool']:.1f} s"
    )


if __name__ == "__main__":
    main()
