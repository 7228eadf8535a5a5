"""Has the response as many words, or characters, as it should?

arguments: {"at_least"?, "at_most"?, "unit"?}: one bound or both; the unit is "words" (the default:
what stands between blanks) or "characters" (without surrounding whitespace).
"""

import verifier_arguments

UNITS = ["words", "characters"]


def check(answer, arguments):
    verifier_arguments.check_names(arguments, ["at_least", "at_most", "unit"])
    bounds = [arguments[name] for name in ("at_least", "at_most") if name in arguments]
    if not bounds:
        raise ValueError("arguments: at_least: missing, and at_most, too")
    for bound in bounds:
        if type(bound) is not int or bound < 0:
            raise ValueError(f"arguments: {bound!r} is not a whole number from 0")
    if bounds != sorted(bounds):
        raise ValueError(f"arguments: at_most: {bounds[1]} is below at_least, {bounds[0]}")
    if arguments.get("unit", "words") not in UNITS:
        raise ValueError(f"arguments: unit: not one of {', '.join(UNITS)}")


def scores(responses, answer, arguments):
    at_least = arguments.get("at_least", 0)
    at_most = arguments.get("at_most", float("inf"))
    unit = arguments.get("unit", "words")
    return [at_least <= size(response, unit) <= at_most for response in responses]


def size(response, unit):
    if unit == "words":
        return len(response.split())
    return len(response.strip())
