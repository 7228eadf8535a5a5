"""Run a script that samples with a policy that says what a file tells, in place of vLLM's engine.

The file holds {question: [turns of the assistant]}. In a turn, {seed} and {temperature} are those
of the request, {last} is the message that the policy reads before its turn, with other fences;
a turn with LOST ends the sandbox.

    python tests/scripted_policy.py turns.json generation/2c_tool_responses.py ...
"""

import json
import os
import re
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

from common import engines


class Engine:
    """What the scripts use of vLLM's LLM."""

    def __init__(self, path, context, turns):
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.end_id = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.context = context
        self.turns = turns

    def generate(self, requests, settings, use_tqdm):
        outputs = []
        for request, sampling_params in zip(requests, settings, strict=True):
            ids = request["prompt_token_ids"]
            assert len(ids) + sampling_params.max_tokens <= self.context
            assert sampling_params.stop_token_ids == [self.end_id]
            sample = self.sample(self.tokenizer.decode(ids), sampling_params)
            outputs.append(SimpleNamespace(outputs=[sample]))
        return outputs

    def sample(self, prompt, sampling_params):
        messages = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", prompt, re.DOTALL)
        question = next(content for role, content in messages if role == "user")
        turns = self.turns[question]
        number = sum(role == "assistant" for role, _ in messages)
        text = turns[min(number, len(turns) - 1)]
        if "LOST" in text:
            end_sandbox()
        values = {
            "{last}": messages[-1][1].replace("```", "~~~"),
            "{seed}": f"{sampling_params.seed}",
            "{temperature}": f"{sampling_params.temperature}",
        }
        for name, value in values.items():
            text = text.replace(name, value)
        return self.cut(text, sampling_params)

    def cut(self, text, sampling_params):
        """The sample of vLLM: the text up to a stop string, or to its last token."""
        for stop in sampling_params.stop or []:
            before, found, _ = text.partition(stop)
            if found:
                ids = self.ids_of(before + stop)
                return sample_of(before, ids, "stop", stop)
        ids = [*self.ids_of(text), self.end_id]
        if len(ids) > sampling_params.max_tokens:
            ids = ids[: sampling_params.max_tokens]
            return sample_of(self.tokenizer.decode(ids), ids, "length", None)
        return sample_of(text, ids, "stop", self.end_id)

    def ids_of(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def sample_of(text, ids, finish_reason, stop_reason):
    return SimpleNamespace(
        text=text, token_ids=ids, finish_reason=finish_reason, stop_reason=stop_reason
    )


def children(pid):
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def end_sandbox():
    """Kill the first process of its namespace, which bubblewrap has started."""
    for bubblewrap in children(os.getpid()):
        if Path(f"/proc/{bubblewrap}/comm").read_text() == "bwrap\n":
            for pid in children(bubblewrap):
                os.kill(pid, signal.SIGKILL)


def main():
    turns_file, script, *words = sys.argv[1:]
    turns = json.loads(Path(turns_file).read_text())
    engines.start = lambda path, dtype, context, limit, **_: Engine(path, context, turns)
    sys.argv = [script, *words]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


main()
