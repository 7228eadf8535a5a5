"""The judge of 2a_alpaca_eval.py: the alpaca-eval package's annotator, which asks by judging.py.

The package itself drops the replies of a batch when its judge fails, and takes a busy judge for one
that said nothing.
"""

from dataclasses import dataclass, field
from functools import partial

import judging
from common import thoughts

PACKAGED = "weighted_alpaca_eval_gpt4_turbo"  # the judge of AlpacaEval 2, among the package's
# The prompt calls the answer that is shown first "m", the second "M". The last line is the verdict.
LAST_LINES = {1: r"(?:^|\n)\W*m\W*$", 2: r"(?:^|\n)\W*M\W*$"}
ROOM_TO_THINK = 1024  # tokens of a reply whose last line is the verdict
TURN_END = "<|im_end|>"


@dataclass
class Judgements:
    """The judgements of a list of questions, and the requests that gave none."""

    annotations: list[dict]  # in the package's format, in the order of the reference
    unparsable: list[str] = field(default_factory=list)  # the start of replies without a verdict
    refused: list[str] = field(default_factory=list)  # why the server refused a request


def annotated(args, reference, outputs):
    """Compare {instruction: answer} of the model with those of the reference: the Judgements."""
    from alpaca_eval.annotators import PairwiseAnnotator

    annotator = PairwiseAnnotator(annotators_config=PACKAGED, caching_path=None)
    packaged_judge = annotator.annotators.pop(PACKAGED)
    annotator.annotators[args.judge_model] = packaged_judge  # the name in the annotations

    judge = Judge(args, packaged_judge)
    packaged_judge.fn_completions = judge.complete
    packaged_judge.fn_completion_parser = judge.preference

    reference_answers = list(reference.values())
    model_answers = [outputs[instruction] for instruction in reference]
    annotations = annotator.annotate_head2head(reference_answers, model_answers, chunksize=None)
    return Judgements(list(map(reproducible, annotations)), judge.unparsable, judge.refused)


class Judge:
    """Stands in for two functions of the package's judge: asking, and reading a reply."""

    def __init__(self, args, packaged_judge):
        self.args = args
        self.unparsable = []
        self.refused = []
        # Without log-probabilities the verdict is in words, after thoughts if there are any.
        if args.no_logprobs:
            from alpaca_eval.completion_parsers import regex_parser

            self.parser = partial(regex_parser, outputs_to_match=LAST_LINES)
            self.options = {"temperature": 0}
            self.options["max_completion_tokens"] = args.max_tokens or ROOM_TO_THINK
        else:
            settings = packaged_judge.completions_kwargs
            self.parser = packaged_judge.fn_completion_parser
            self.options = {}
            for name in ("temperature", "logprobs", "top_logprobs"):
                self.options[name] = settings[name]
            self.options["max_completion_tokens"] = settings["max_tokens"]

        # The package cuts the filled template into turns at every <|im_end|>, also at one in an
        # answer that leaks its own template. The turns are cut here, before anything is filled in.
        template = packaged_judge.prompt_template
        _, system_turn, user_turn = template.split("<|im_start|>")
        user = user_turn.removeprefix("user\n")
        self.system = without_turn_end(system_turn.removeprefix("system\n"))
        self.user_start = template.index(user)  # nothing is filled in before it

    def complete(self, prompts, **_):
        """The package's fn_completions: ask all prompts; a refused one has no completion."""
        requests = {}
        for number, prompt in enumerate(prompts):
            user = without_turn_end(prompt[self.user_start :])
            messages = [
                {"role": "system", "content": self.system},
                {"role": "user", "content": user},
            ]
            requests[number] = {"messages": messages, **self.options}
        replies_file = self.args.output_dir / "replies.jsonl"
        choices, reasons = judging.ask(self.args, requests, replies_file)
        self.refused.extend(reasons)
        return {"completions_all": list(choices.values())}

    def preference(self, choice):
        """The package's fn_completion_parser: [1 to 2, towards the second answer], or [None]."""
        if choice is None:  # the server refused the request
            return [None]
        reply = thoughts.without_thoughts(choice["text"]) if self.args.no_logprobs else choice
        try:
            (preference,) = self.parser(reply)
        except Exception:  # the package's parsers complain in many ways
            preference = None
        preference = null_for_nan(preference)
        if preference is None:
            self.unparsable.append(choice["text"][:200])
        return [preference]


def without_turn_end(text):
    """A turn of a ChatML template as the content of a message."""
    return text.strip().removesuffix(TURN_END).strip()


def reproducible(annotation):
    """The annotation with its keys in order and the date of its reply.

    The package leaves the order of the keys to chance, and its date is that of the reading.
    """
    ordered = {key: null_for_nan(annotation[key]) for key in sorted(annotation)}
    reply = ordered.get("preference_raw_completion") or {}
    ordered["preference_date"] = reply.get("date")
    return ordered


def null_for_nan(value):
    """None in place of NaN, which JSON does not have."""
    return None if value != value else value
