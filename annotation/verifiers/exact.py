"""Is the response the row's answer, without regard to case and surrounding whitespace?

arguments: {"pattern"?}: a regular expression; what its one group matches last is compared.
"""

import verifier_arguments


def check(answer, arguments):
    verifier_arguments.check_answer(answer)
    verifier_arguments.check_answer_pattern(arguments)


def scores(responses, answer, arguments):
    return [is_equal(response, answer, arguments) for response in responses]


def is_equal(response, answer, arguments):
    text = verifier_arguments.last_match(arguments, response)
    return text is not None and text.strip().casefold() == answer.strip().casefold()
