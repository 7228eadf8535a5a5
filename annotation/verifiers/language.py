"""Is all of the response in a language?

arguments: {"language"}: its ISO 639 code, such as "de". The prose of a response is read in pieces
of 300 characters; each that says enough to be judged has to be in the language, and one has to say
enough: a response with less than 40 letters of English, or with code alone, gets 0.
"""

import textwrap

import verifier_arguments
from common import languages


def check(answer, arguments):
    verifier_arguments.check_names(arguments, ["language"])
    verifier_arguments.check_required(arguments, "language")
    if arguments["language"] not in languages.known():
        known = " ".join(languages.known())
        raise ValueError(f"arguments: language: {arguments['language']!r} is not one of {known}")


def scores(responses, answer, arguments):
    return [languages_of(response) == {arguments["language"]} for response in responses]


def languages_of(response):
    """The languages of the pieces of a response that say enough to be judged."""
    pieces = textwrap.wrap(languages.prose(response), languages.CHARACTERS_PER_TURN)
    return {languages.language([piece]) for piece in pieces} - {None}
