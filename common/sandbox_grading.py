"""A program and its tests in two processes, which speak by plain data.

The tests get a Remote for each function and class of the program that they name. A call goes to
the program's process as data and its result comes back as data, with the arguments as the program
has left them. What decides stays with the tests: comparison, arithmetic and order of values. What
an object says of itself (its length, items, truth, attributes) is the program's answer. For
sandbox_forks.py; the tests' process is sandbox_tests.py.
"""

import builtins
import operator
import os
import sys
import types

from common import sandbox_values

# What a side may ask of the other's objects. None compares one with a value of the asking side.
OPERATIONS = {
    "call": lambda function, positional, named: function(*positional, **named),
    "getattr": getattr,
    "setattr": setattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "iter": iter,
    "next": next,
    "len": len,
    "str": str,
    "repr": repr,
    "bool": bool,
    "int": int,
    "float": float,
    "equal": lambda one, other: bool(one == other),
    "isinstance": isinstance,
}


def give_up():
    """End this process: the other side has ended, or has sent what no side sends.

    Not by an exception, which the tests could catch: some expect one.
    """
    os._exit(1)


# What both sides do


class Peer:
    """One end of the channel: asks the other side, and answers it meanwhile."""

    def __init__(self, channel, handles, operations):
        self.channel = channel
        self.handles = handles
        self.operations = operations
        handles.peer = self

    def ask(self, operation, *values):
        """The result of an operation on the other side; raises what it raised there."""
        encoder = sandbox_values.Encoder(self.handles)
        self.send({"operation": operation, "values": encoder.encode_all(values)})
        while True:
            message = self.receive()
            if "operation" not in message:
                return self.result(message, operation, encoder.numbered)
            self.answer(message)

    def serve(self):
        """Answer until the other side ends."""
        while True:
            self.answer(self.receive())

    def send(self, message):
        try:
            sandbox_values.send(self.channel, message)
        except OSError:
            give_up()

    def receive(self):
        """The next message, an object of JSON."""
        try:
            message = sandbox_values.receive(self.channel)
        except Exception:
            give_up()
        if not isinstance(message, dict):
            give_up()
        return message

    def answer(self, message):
        """Do what the other side asks, and send the result or the error."""
        # The tests' functions get no module: they may read attributes, and `os` has `system`.
        decoder = sandbox_values.Decoder(self.handles, modules=self.handles.own)
        try:
            values = decoder.decode_all(message["values"])
            operation = self.operations[message["operation"]]
            numbered = [decoder.numbered[number] for number in range(len(decoder.numbered))]
        except Exception:
            give_up()
        try:
            result = operation(*values)
            encoder = sandbox_values.Encoder(self.handles, numbered)
            # The arguments follow the result: the function may have changed them.
            reply = {"values": encoder.encode_all([result, numbered])}
            self.send(reply)
        except Exception as error:
            kinds = filter(sandbox_values.is_builtin, type(error).__mro__)
            names = [kind.__name__ for kind in kinds]
            encoder = sandbox_values.Encoder(self.handles)
            arguments = encoder.encode_all(plain_arguments(error))
            self.send({"error": names, "text": error_text(error), "arguments": arguments})

    def result(self, message, operation, numbered):
        """The result in a reply, with the earlier values changed in place; or the error, raised."""
        error = None
        try:
            if "error" in message:
                decoder = sandbox_values.Decoder(self.handles)
                arguments = decoder.decode_all(message["arguments"])
                error = builtin_error(message["error"], message["text"], arguments, operation)
            else:
                decoder = sandbox_values.Decoder(self.handles, numbered)
                result, _ = decoder.decode_all(message["values"])
        except Exception:
            give_up()
        if error is not None:
            raise error
        return result


def error_text(error):
    try:
        return str.__str__(str(error))
    except Exception:
        return ""


def plain_arguments(error):
    """Those with which it was raised, or none if one of them is no number or text."""
    if all(type(value) in (type(None), bool, int, float, str) for value in error.args):
        return error.args
    return ()


def builtin_error(names, text, arguments, operation):
    """An exception of Python's own with this text: the first of these names that is one."""
    for name in names:
        kind = getattr(builtins, str(name), None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            continue
        if issubclass(kind, StopIteration | StopAsyncIteration) and operation != "next":
            # It would end a loop of the tests before they have seen all results.
            return RuntimeError(f"{name} from a call")
        for values in (arguments, [str(text)]):
            try:
                error = kind(*values)
            except TypeError:  # one that needs more
                continue
            if values is not arguments or str(error) == text:
                return error
    raise ValueError("no exception")


class Handles:
    """The objects of this side that the other side knows by a number, and the other way round.

    own: may this side give away any object? The tests give away only what can be called or
    iterated over.
    """

    def __init__(self, own):
        self.own = own
        self.objects = []
        self.numbers = {}
        self.peer = None

    def encode(self, value):
        if isinstance(value, Remote):
            return ["yours", object.__getattribute__(value, "number")]
        if not self.own:
            if sandbox_values.is_builtin(value):
                return ["builtin", value.__name__]
            if not (callable(value) or hasattr(type(value), "__iter__")):
                raise TypeError(f"a {type(value).__name__} of the tests cannot be given away")
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return ["mine", self.numbers[id(value)]]

    def decode(self, tag, which):
        if tag == "yours":
            return self.objects[range(len(self.objects)).index(which)]
        if tag == "mine":
            return Remote(self.peer, int(which))
        if tag == "builtin" and self.own:
            return getattr(builtins, which)
        raise ValueError(f"{tag}: no value")


class Remote:
    """An object of the other side.

    It equals no value of this side, and none of this side's operators takes it. Two objects of the
    program are equal if the program says so: the tests ask for nothing else there.
    """

    def __init__(self, peer, number):
        object.__setattr__(self, "peer", peer)
        object.__setattr__(self, "number", number)

    def __getattr__(self, name):
        if name.startswith("__") and name != "__name__":  # what libraries look for
            raise AttributeError(name)
        return self.peer.ask("getattr", self, name)

    def __setattr__(self, name, value):
        self.peer.ask("setattr", self, name, value)

    def __call__(self, *positional, **named):
        return self.peer.ask("call", self, positional, named)

    def __eq__(self, other):
        if not isinstance(other, Remote):
            return False
        return self.number == other.number or self.peer.ask("equal", self, other) is True

    def __hash__(self):
        return hash(self.number)

    def __instancecheck__(self, instance):
        return isinstance(instance, Remote) and self.peer.ask("isinstance", instance, self) is True


def add_operations():
    """Give Remote the special methods that ask the other side."""
    for name in OPERATIONS:
        if name not in ("call", "getattr", "setattr", "equal", "isinstance"):
            setattr(Remote, f"__{name}__", asking(name))


def asking(name):
    """A method that asks the other side."""
    return lambda self, *values: self.peer.ask(name, self, *values)


add_operations()


# The program's side


def be_program(program, channel):
    """Run the program, then answer what its tests ask."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    handles = Handles(own=True)

    def names(wanted):
        return {name: vars(module)[name] for name in wanted if name in vars(module)}

    peer = Peer(channel, handles, {**OPERATIONS, "names": names})
    exec(compile(program, "program.py", "exec"), vars(module))
    peer.serve()
