"""Does a regular expression match in the response?

arguments: {"pattern", "full"?}: with "full": true it has to match all of the response, without
surrounding whitespace. Patterns are those of the package regex: (?i) ignores case.
"""

import verifier_arguments


def check(answer, arguments):
    verifier_arguments.check_names(arguments, ["pattern", "full"])
    verifier_arguments.check_required(arguments, "pattern")
    verifier_arguments.check_pattern(arguments["pattern"])
    if not isinstance(arguments.get("full", False), bool):
        raise ValueError("arguments: full: neither true nor false")


def scores(responses, answer, arguments):
    pattern = verifier_arguments.compiled(arguments["pattern"])
    method = pattern.fullmatch if arguments.get("full") else pattern.search
    return [bool(verifier_arguments.apply(method, response.strip())) for response in responses]
