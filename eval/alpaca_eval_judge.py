"""The judge of 2a_alpaca_eval.py: the alpaca-eval package's annotator, with the asking done by judging.py.

The package drops the replies of a batch when its judge fails, and takes a judge that is busy for one that said nothing.
"""

from functools import partial

import judging
from common import thoughts

PACKAGED = "weighted_alpaca_eval_gpt4_turbo"  # the judge of AlpacaEval 2, among the package's
WORDS = {
    1: r"(?:^|\n)\W*m\W*$",
    2: r"(?:^|\n)\W*M\W*$",
}  # its names for the answers that are shown first and second


def annotated(args, reference, outputs):
    """(annotations in the order of the reference, replies without a verdict, why requests were refused)."""
    from alpaca_eval.annotators import PairwiseAnnotator
    from alpaca_eval.completion_parsers import regex_parser

    annotator, unparsable, refused = (
        PairwiseAnnotator(annotators_config=PACKAGED, caching_path=None),
        [],
        [],
    )
    judge = annotator.annotators.pop(PACKAGED)
    annotator.annotators[args.judge_model] = judge
    settings, parser = judge.completions_kwargs, judge.fn_completion_parser
    options = {name: settings[name] for name in ("temperature", "logprobs", "top_logprobs")}
    options["max_completion_tokens"] = settings["max_tokens"]
    if args.no_logprobs:
        options = {
            "temperature": 0,
            "max_completion_tokens": args.max_tokens or 1024,
        }  # room to think
        parser = partial(regex_parser, outputs_to_match=WORDS)
    # The package cuts the filled template at <|im_end|>, also where it stands in an answer that leaks its own template.
    system, user = (
        part.split("\n", 1)[1] for part in judge.prompt_template.split("<|im_start|>")[1:]
    )
    start = judge.prompt_template.index(user)

    def complete(prompts, **_):
        requests = []
        for prompt in prompts:
            texts = {"system": system, "user": prompt[start:]}
            texts = {
                role: text.strip().removesuffix("<|im_end|>").strip()
                for role, text in texts.items()
            }
            messages = [{"role": role, "content": text} for role, text in texts.items()]
            requests.append({"messages": messages, **options})
        choices, reasons = judging.ask(
            args, dict(enumerate(requests)), args.output_dir / "replies.jsonl"
        )
        refused.extend(reasons)
        return {"completions_all": list(choices.values())}

    def verdict(choice):
        if choice is None:  # refused
            return [None]
        try:
            (value,) = parser(
                thoughts.without_thoughts(choice["text"]) if args.no_logprobs else choice
            )
        except Exception:  # the package's parsers complain in many ways
            value = None
        if value is None or value != value:
            unparsable.append(choice["text"][:200])
            return [None]
        return [value]

    judge.fn_completions, judge.fn_completion_parser = complete, verdict
    pairs = [[*reference.values()], [outputs[instruction] for instruction in reference]]
    annotations = annotator.annotate_head2head(*pairs, chunksize=None)
    # The package leaves the order of the keys to chance, and its date is that of the reading.
    annotations = [
        {key: None if row[key] != row[key] else row[key] for key in sorted(row)}
        for row in annotations
    ]
    for row in annotations:
        row["preference_date"] = (row.get("preference_raw_completion") or {}).get("date")
    return annotations, unparsable, refused
