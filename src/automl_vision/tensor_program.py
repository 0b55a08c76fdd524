"""What the program in a file of tensors would do, told from its opcodes without obeying one of them.

A pickle is a program for a machine with a stack and a memory. Which functions it calls is written in it. What it makes
is followed only as far as is needed to see whether it holds the same thing many times over: twenty tuples, each of
which holds the one before it ten times, take a few hundred bytes, and to hash them takes for ever.
"""

from __future__ import annotations

import pickletools  # nosec B403 # it tells opcodes, and obeys none
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

LARGEST_PROGRAM = 1_000_000  # opcodes; a network of a thousand tensors has thirty thousand

_STORAGES = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")
_STORE = {"BINPUT", "LONG_BINPUT"}
_USE_AGAIN = {"BINGET", "LONG_BINGET"}
_CHANGE = {"BUILD", "NEWOBJ"}
_ORDERED = "collections OrderedDict"

#: Kinds of values. An atom holds nothing: a number, a text, a function, a tensor. A flat tuple holds atoms alone.
_ATOM, _FLAT, _TUPLE, _CONTAINER = "atom", "flat tuple", "tuple", "container"
_MAKE_ATOMS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING", "GLOBAL"),
}
_MAKE_TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
#: Functions that make an atom, whatever they are called with. What any other makes may hold things.
_MAKES_ATOM = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter Parameter|torch (Tensor|Size|device)"
    r"|(__builtin__|builtins) complex|_codecs encode"
)


@dataclass(frozen=True)
class Grammar:
    """What a program may do.

    Attributes:
        callables: matches what it may call, "module name". torch's own list is longer: it has `bytearray`, which one
            number makes fill the memory.
        reusable: kinds of values that it may name again as often as it likes.
        reuses: how often it may name any others again.
        changes: whether it may set attributes of what it made, and call `OrderedDict` with something in it.
        protocols: of pickles; torch writes the second, and warns of those that it does not know.
    """

    callables: re.Pattern[str]
    reusable: frozenset[str]
    reuses: int = 0
    changes: bool = False
    protocols: tuple[int, ...] = (2,)


#: Of the files that this package writes: no container is named twice.
OWN = Grammar(
    re.compile(rf"torch\._utils _rebuild_tensor_v2|{_ORDERED}|torch ({'|'.join(_STORAGES)})Storage"),
    frozenset((_ATOM,)),
)
#: Of what others write with torch: plain values, parameters, dictionaries with attributes. Of what it holds only tuples
#: can be keys, and are hashed; to name so few of them again cannot make one of more than some million parts.
OTHERS = Grammar(
    re.compile(
        r"torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)|torch(\.cuda|\.storage)? \w+Storage"
        r"|torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter|torch (Tensor|Size|device)"
        r"|torch (bool|u?int\d+|b?float\d+\w*|complex\d+|half|double|long)"
        rf"|{_ORDERED}|collections Counter|(__builtin__|builtins) (set|complex)|_codecs encode"
    ),
    frozenset((_ATOM, _FLAT, _CONTAINER)),
    reuses=40,
    changes=True,
    protocols=(2, 3),
)


def program_fault(program: bytes | IO[bytes], grammar: Grammar) -> str:
    """What is wrong with a program, in words; empty where nothing is.

    Args:
        program: ends at its STOP; a file is read up to there.
        grammar: what it may do.

    Raises:
        ValueError: it is no program.
    """
    follower = _Follower()
    reused = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        follower.take(opcode, argument)
        reused += opcode.name in _USE_AGAIN and follower.top not in grammar.reusable
        own = _OWN_FAULTS.get(opcode.name)  # most have none, and there are many of them
        fault = own(argument, count, grammar) if own is not None else ""
        fault = fault or _fault_so_far(count, follower.fills, reused, grammar)
        if fault:
            return f"this is no model file: {fault}"
    return ""


def _fault_so_far(count: int, fills: bool, reused: int, grammar: Grammar) -> str:
    if count > LARGEST_PROGRAM:
        return "the index is too long"
    if fills and not grammar.changes:
        return "it fills what should be empty"
    return "it names a container twice" if reused > grammar.reuses else ""


def _protocol_fault(argument: object, count: int, grammar: Grammar) -> str:
    if argument not in grammar.protocols:
        return "the index is of another protocol"
    return "the index names its protocol again" if count > 0 else ""


def _call_fault(argument: object, _count: int, grammar: Grammar) -> str:
    return "" if grammar.callables.fullmatch(str(argument)) else "it would run foreign code"


def _change_fault(_argument: object, _count: int, grammar: Grammar) -> str:
    return "" if grammar.changes else "it would change what was made"


#: Opcode -> what is wrong with it: its argument, how many came before it, what the program may do.
_OWN_FAULTS: Mapping[str, Callable[[object, int, Grammar], str]] = {
    "PROTO": _protocol_fault,
    "GLOBAL": _call_fault,
    **dict.fromkeys(_CHANGE, _change_fault),
}


@dataclass(frozen=True)
class _Value:
    """What is known of a value.

    Attributes:
        kind: one of those above.
        function: "module name" of a function, empty for all else.
        empty: whether it is a tuple of nothing.
    """

    kind: str
    function: str = ""
    empty: bool = False


_SOME_ATOM = _Value(_ATOM)


class _Follower:
    """What stands on the stack and in the memory of the machine.

    It is kept whole, and not told from the opcodes just before: some opcodes do nothing, and would come in between.

    Attributes:
        fills: whether an `OrderedDict` was called with anything but nothing.
    """

    def __init__(self) -> None:
        self.fills = False
        self._stack: list[_Value] = []
        self._below: list[list[_Value]] = []  # what stood before each mark
        self._memory: dict[object, _Value] = {}

    @property
    def top(self) -> str:
        """Kind of the value on top."""
        return self._stack[-1].kind if self._stack else _CONTAINER

    def take(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """The next opcode.

        Raises:
            ValueError: it takes more values than there are.
        """
        if opcode.name == "MARK":
            self._below.append(self._stack)
            self._stack = []
            return
        if opcode.name in _STORE:
            self._memory[argument] = self._stack[-1] if self._stack else _Value(_CONTAINER)
            return
        taken = self._taken(opcode)
        self._stack += [self._made(opcode.name, argument, taken)] * len(opcode.stack_after)

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[_Value]:
        """The values that an opcode takes off the stack, in their order."""
        if not opcode.stack_before:
            return []
        fixed = [each for each in opcode.stack_before if each not in (pickletools.markobject, pickletools.stackslice)]
        to_mark: list[_Value] = []
        if len(fixed) < len(opcode.stack_before):
            if not self._below:
                raise ValueError(f"{opcode.name} without a mark")
            to_mark, self._stack = self._stack, self._below.pop()
        if len(self._stack) < len(fixed):
            raise ValueError(f"{opcode.name} takes {len(fixed)} values of {len(self._stack)}")
        place = len(self._stack) - len(fixed)
        taken = self._stack[place:]
        del self._stack[place:]
        return taken + to_mark

    def _made(self, opcode: str, argument: object, taken: list[_Value]) -> _Value:
        if opcode in _MAKE_ATOMS:
            return _Value(_ATOM, function=str(argument)) if opcode == "GLOBAL" else _SOME_ATOM
        if opcode in _USE_AGAIN:
            return self._memory.get(argument, _Value(_CONTAINER))
        if opcode in _MAKE_TUPLES:
            return _Value(_FLAT if all(each.kind == _ATOM for each in taken) else _TUPLE, empty=not taken)
        return self._returned(*taken) if opcode == "REDUCE" else _Value(_CONTAINER)

    def _returned(self, called: _Value, arguments: _Value) -> _Value:
        """What a function returns."""
        self.fills |= called.function == _ORDERED and not arguments.empty
        return _Value(_ATOM if _MAKES_ATOM.fullmatch(called.function) else _CONTAINER)
