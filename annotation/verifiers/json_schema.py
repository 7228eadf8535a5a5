"""Is the response JSON that fits a schema (jsonschema)?

arguments: {"schema"}: a JSON schema; "$schema" in it names its draft, by default 2020-12. The JSON
is the last ```json block of the response, else its last block without a language, else all of it.
Nothing is fetched: each "$ref" of a schema leads into the schema. "format" is not checked.
"""

import contextlib
import functools
import json
import signal

import regex

import verifier_arguments

REFERENCES = ("$ref", "$dynamicRef")
# Keywords that hold schemas by name, and those that hold JSON which is no schema.
OF_SCHEMAS = ("$defs", "definitions", "properties", "patternProperties", "dependentSchemas")
OF_DATA = ("const", "enum", "default", "examples")


def check(answer, arguments):
    import jsonschema

    verifier_arguments.check_names(arguments, ["schema"])
    verifier_arguments.check_required(arguments, "schema")
    schema = arguments["schema"]
    if not isinstance(schema, dict | bool):
        raise ValueError("arguments: schema: not a JSON schema (an object)")
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"arguments: schema: {error.message[:200]}") from None
    check_references(schema)


def check_references(schema):
    """Every reference of a schema leads to a part of it."""
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = REGISTRY.resolver_with_root(resource)
    for reference in references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(f"arguments: schema: $ref {reference!r} is not in it") from None


def references(schema):
    """Yield the texts after "$ref" and "$dynamicRef" in a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from references(part)
    if not isinstance(schema, dict):
        return
    for name, part in schema.items():
        if name in REFERENCES and isinstance(part, str):
            yield part
        elif name in OF_SCHEMAS and isinstance(part, dict):
            # Its keys are names of the user's, no keywords.
            yield from references(list(part.values()))
        elif name not in OF_DATA:
            yield from references(part)


def scores(responses, answer, arguments):
    schema_validator = validator(json.dumps(arguments["schema"]))
    return [fits(response, schema_validator) for response in responses]


@functools.cache
def validator(schema_text):
    """The validator of a schema, which fetches nothing."""
    import jsonschema
    from jsonschema_specifications import REGISTRY

    schema = json.loads(schema_text)
    of_draft = jsonschema.validators.validator_for(schema)
    # The library's own `pattern` would backtrack without end.
    limited = jsonschema.validators.extend(of_draft, {"pattern": matches})
    return limited(schema, registry=REGISTRY)


def matches(schema_validator, pattern, instance, schema):
    """In place of jsonschema's check of `pattern`."""
    from jsonschema import ValidationError

    if not schema_validator.is_type(instance, "string"):
        return
    if not verifier_arguments.apply(regex.compile(pattern).search, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def fits(response, schema_validator):
    text = verifier_arguments.last_block(response, ["json"])
    try:
        content = json.loads(text, parse_constant=refuse, parse_float=finite)
        with time_limit():
            return schema_validator.is_valid(content)
    # No JSON, nested too deeply, or a number that is too large to be divided (multipleOf).
    except (ValueError, RecursionError, ArithmeticError):
        return False


@contextlib.contextmanager
def time_limit():
    """TooSlow after PATTERN_TIMEOUT seconds: patternProperties may backtrack for years."""
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, verifier_arguments.PATTERN_TIMEOUT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def stop(number, frame):
    raise verifier_arguments.TooSlow


def refuse(name):
    """NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(name)


def finite(text):
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number
