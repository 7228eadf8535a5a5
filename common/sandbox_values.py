"""Values as plain data, between the process of a program and that of its tests.

JSON with tags, and not pickle: what is decoded makes values of Python's own types and runs no
code, whatever a program sends. An object of any other type stays where it is; the other side gets
a handle. Lists, dictionaries and sets have numbers, so that one value which stands at two places,
in itself or in the arguments of an earlier message is one value again on the other side.
"""

import builtins
import collections
import datetime
import decimal
import fractions
import functools
import importlib
import json
import struct
import sys

LENGTH = struct.Struct("<I")
MESSAGE_BYTES = 16 * 2**20
SAFE_MODULES = {*sys.stdlib_module_names, "numpy", "sympy"}
# Types by name, which the other side may call.
TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
TYPE_NAMES = {kind: kind.__name__ for kind in TYPES}
TYPES_BY_NAME = {kind.__name__: kind for kind in TYPES}
# Longer ones as hexadecimal digits: Python limits the decimal ones.
SHORT_INTEGER = 2**63
# Types of values with a number, by their tags. A subclass arrives as one of these.
MUTABLE = {"list": list, "set": set, "deque": collections.deque, "bytearray": bytearray}
DICTIONARIES = {
    "dict": dict,
    "Counter": collections.Counter,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": collections.defaultdict,
}
DICTIONARY_TAGS = {kind: tag for tag, kind in DICTIONARIES.items()}
IMMUTABLE = {"tuple": tuple, "frozenset": frozenset}
# {tag: (type, what takes a value of exactly this type apart, what makes it again)}
PARTS = {
    "fraction": (fractions.Fraction, lambda v: [v.numerator, v.denominator], fractions.Fraction),
    "decimal": (decimal.Decimal, lambda v: [str(v)], decimal.Decimal),
    "date": (datetime.date, lambda v: [v.isoformat()], datetime.date.fromisoformat),
    "time": (datetime.time, lambda v: [v.isoformat()], datetime.time.fromisoformat),
    "datetime": (datetime.datetime, lambda v: [v.isoformat()], datetime.datetime.fromisoformat),
    "timedelta": (
        datetime.timedelta,
        lambda v: [v.days, v.seconds, v.microseconds],
        datetime.timedelta,
    ),
}
PARTS_TAGS = {kind: tag for tag, (kind, *_) in PARTS.items()}


# Messages


def send(channel, message):
    """Send a message of JSON over a socket: its length, four bytes, then its text."""
    text = json.dumps(message).encode()
    if len(text) > MESSAGE_BYTES:
        raise OverflowError(f"values of more than {MESSAGE_BYTES} bytes")
    channel.sendall(LENGTH.pack(len(text)) + text)


def receive(channel):
    """The next message, or None at the end; a ValueError for what is no message."""
    head = receive_bytes(channel, LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    if length > MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    text = receive_bytes(channel, length)
    if len(text) < length:
        return None
    return json.loads(text)


def receive_bytes(channel, count):
    """That many bytes, fewer at the end."""
    parts = []
    while count:
        part = channel.recv(min(count, 2**20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# Values


class Encoder:
    """Turns the values of one message into JSON.

    handles: the Handles of this side. earlier: the numbered values of the message that this one
    answers; they keep their numbers.
    """

    def __init__(self, handles, earlier=()):
        self.handles = handles
        self.numbered = list(earlier)
        self.numbers = {id(value): number for number, value in enumerate(self.numbered)}
        self.sent = set()

    def encode(self, value):
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        # The methods of the type itself: those of a subclass may do anything.
        if isinstance(value, bool | int):
            return encode_integer(int.__pos__(value))
        if isinstance(value, float):
            return float.__pos__(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, complex):
            return ["complex", complex.__add__(value, 0).real, complex.__add__(value, 0).imag]
        if isinstance(value, bytes):
            return ["bytes", bytes.hex(value)]
        if isinstance(value, tuple | frozenset):
            return self.encode_immutable(value, kind)
        if isinstance(value, (dict, *MUTABLE.values())):
            return self.encode_mutable(value)
        return self.encode_other(value, kind)

    def encode_all(self, values):
        return [self.encode(value) for value in values]

    def encode_immutable(self, value, kind):
        if isinstance(value, frozenset):
            return ["frozenset", self.encode_all(frozenset.__iter__(value))]
        items = self.encode_all(tuple.__iter__(value))
        if has_field_names(kind):
            return ["namedtuple", kind.__name__, list(kind._fields), items]
        return ["tuple", items]

    def encode_mutable(self, value):
        """A value with a number, whole where it appears first."""
        number = self.numbers.setdefault(id(value), len(self.numbered))
        if number == len(self.numbered):
            self.numbered.append(value)
        if number in self.sent:
            return ["again", number]
        self.sent.add(number)
        if isinstance(value, dict):
            return self.encode_dictionary(value, number)
        for tag, kind in MUTABLE.items():
            if isinstance(value, kind):
                return [tag, number, self.encode_all(kind.__iter__(value))]

    def encode_dictionary(self, value, number):
        tag = DICTIONARY_TAGS.get(type(value), "dict")
        items = [self.encode_all(item) for item in DICTIONARIES[tag].items(value)]
        if tag == "defaultdict":
            return [tag, number, items, self.encode(value.default_factory)]
        return [tag, number, items]

    def encode_other(self, value, kind):
        """A value of numpy, of PARTS, a range, a type, a module, else a handle."""
        if kind in PARTS_TAGS:
            tag = PARTS_TAGS[kind]
            _, take_apart, _ = PARTS[tag]
            return [tag, *self.encode_all(take_apart(value))]
        if kind is range:
            bounds = (value.start, value.stop, value.step)
            return ["range", self.encode_all(bounds)]
        if kind.__module__ == "numpy" and hasattr(value, "tolist") and not value.dtype.hasobject:
            if kind.__name__ == "ndarray":
                return ["array", value.dtype.str, list(value.shape), value.tobytes().hex()]
            return self.encode(value.tolist())
        if kind is type and value in TYPE_NAMES:
            return ["type", TYPE_NAMES[value]]
        if kind is type(sys):
            return ["module", value.__name__]
        return self.handles.encode(value)


def has_field_names(kind):
    """Is it a class that collections.namedtuple can make again?"""
    names = getattr(kind, "_fields", None)
    if not isinstance(names, tuple):
        return False
    for name in names:
        if not (isinstance(name, str) and name.isidentifier() and not name.startswith("_")):
            return False
    return True


@functools.cache
def class_with_fields(name, fields):
    return collections.namedtuple(name, fields)


def encode_integer(value):
    if -SHORT_INTEGER < value < SHORT_INTEGER:
        return value
    return ["int", hex(value)]


class Decoder:
    """Turns the JSON of one message into values.

    earlier: as of Encoder, they are changed in place; modules: may a module be among the values?
    Whatever is not as an Encoder writes it is a ValueError, TypeError, KeyError or IndexError.
    """

    def __init__(self, handles, earlier=(), modules=True):
        self.handles = handles
        self.modules = modules
        self.numbered = dict(enumerate(earlier))
        self.seen = set()

    def decode(self, node):
        if not isinstance(node, list):
            if isinstance(node, dict):
                raise ValueError("an object of JSON")
            return node
        tag, *rest = node
        if tag in IMMUTABLE:
            return IMMUTABLE[tag](self.decode_all(rest[0]))
        if tag in DICTIONARIES or tag in MUTABLE:
            return self.decode_mutable(tag, *rest)
        if tag == "again":
            return self.numbered[rest[0]]
        return self.decode_other(tag, *rest)

    def decode_all(self, nodes):
        return [self.decode(node) for node in nodes]

    def decode_mutable(self, tag, number, nodes, factory=None):
        kind = MUTABLE.get(tag) or DICTIONARIES[tag]
        value = self.numbered.setdefault(number, kind())
        if not isinstance(value, kind) or number in self.seen:
            raise ValueError(f"{tag}: a number of another value")
        self.seen.add(number)
        # Only now its items: it may hold itself.
        if tag in DICTIONARIES:
            items = [self.decode_all(node) for node in nodes]
            value.clear()
            # Not `update`, with which a Counter counts.
            for key, item in items:
                value[key] = item
            if tag == "defaultdict":
                value.default_factory = self.decode(factory)
            return value
        items = self.decode_all(nodes)
        value.clear()
        if kind is set:
            value.update(items)
        else:
            value.extend(items)
        return value

    def decode_other(self, tag, *rest):
        if tag == "int":
            return int(rest[0], 16)
        if tag in PARTS:
            _, _, make = PARTS[tag]
            return make(*self.decode_all(rest))
        if tag == "namedtuple":
            name, fields, values = rest
            return class_with_fields(str(name), tuple(fields))._make(self.decode_all(values))
        if tag == "complex":
            return complex(*map(float, rest))
        if tag == "bytes":
            return bytes.fromhex(rest[0])
        if tag == "range":
            return range(*self.decode_all(rest[0]))
        if tag == "array":
            return decode_array(*rest)
        if tag == "type":
            return TYPES_BY_NAME[rest[0]]
        if tag == "module" and self.modules:
            return safe_module(rest[0])
        return self.handles.decode(tag, *rest)


def decode_array(kind, shape, text):
    import numpy

    return numpy.frombuffer(bytes.fromhex(text), numpy.dtype(str(kind))).reshape(shape).copy()


def safe_module(name):
    """The module of that name, as this side itself imports it; Python's, numpy's or sympy's."""
    if name.partition(".")[0] not in SAFE_MODULES:
        raise ValueError(f"{name}: not a module of the tests")
    return importlib.import_module(name)


def is_builtin(value):
    """Is it a function or type that has the same name in every Python?"""
    name = getattr(value, "__name__", None)
    return isinstance(name, str) and getattr(builtins, name, None) is value
