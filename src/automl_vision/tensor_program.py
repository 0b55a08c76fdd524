"""What the program in a file of tensors would do, told from its opcodes without obeying one of them.

A pickle is a program for a machine with a stack and a memory. Which functions it calls is written in it. What it makes
is followed only as far as is needed to see whether it holds the same thing many times over: twenty tuples, each of
which holds the one before it ten times, take a few hundred bytes, and to hash them takes for ever.
"""

from __future__ import annotations

import pickletools  # nosec B403 # it tells opcodes, and obeys none
import re
from collections.abc import Mapping
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
#: Opcode that makes a tuple -> of how many values; 0 for all down to the last mark.
_MAKE_TUPLES = {"TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


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
        follower.take(opcode.name, argument)
        reused += opcode.name in _USE_AGAIN and follower.top not in grammar.reusable
        fault = _first(
            {
                "the index is of another protocol": opcode.name == "PROTO" and argument not in grammar.protocols,
                "the index is too long": count > LARGEST_PROGRAM,
                "it would run foreign code": opcode.name == "GLOBAL" and not grammar.callables.fullmatch(str(argument)),
                "it would change what was made": opcode.name in _CHANGE and not grammar.changes,
                "it fills what should be empty": follower.fills and not grammar.changes,
                "it names a container twice": reused > grammar.reuses,
            }
        )
        if fault:
            return f"this is no model file: {fault}"
    return ""


def _first(faults: Mapping[str, bool]) -> str:
    return next((fault for fault, found in faults.items() if found), "")


class _Follower:
    """Kinds of values on top of the stack and in the memory, as far as the opcodes just before tell them.

    Attributes:
        top: kind of the value on top.
        fills: whether an `OrderedDict` is called with anything but nothing.
    """

    def __init__(self) -> None:
        self.top = _CONTAINER
        self.fills = False
        self._memory: dict[object, str] = {}
        self._ordered: set[object] = set()
        self._is_ordered = False
        self._atoms = 0
        self._marked = False
        self._before = ""

    def take(self, opcode: str, argument: object) -> None:
        """The next opcode."""
        if opcode in _STORE:
            self._memory[argument] = self.top
            (self._ordered.add if self._is_ordered else self._ordered.discard)(argument)
            return
        self.fills = self._is_ordered and opcode != "EMPTY_TUPLE"
        self._is_ordered = (opcode == "GLOBAL" and argument == _ORDERED) or (
            opcode in _USE_AGAIN and argument in self._ordered
        )
        self.top = self._made(opcode, argument)
        if opcode == "MARK":
            self._atoms, self._marked = 0, True
        elif self.top == _ATOM and opcode != "REDUCE":
            self._atoms += 1
        else:
            self._atoms, self._marked = 0, False
        self._before = opcode

    def _made(self, opcode: str, argument: object) -> str:
        if opcode in _MAKE_ATOMS:
            return _ATOM
        if opcode == "EMPTY_TUPLE":
            return _FLAT
        if opcode in _USE_AGAIN:
            return self._memory.get(argument, _CONTAINER)
        if opcode in _MAKE_TUPLES:
            count = _MAKE_TUPLES[opcode]
            return _FLAT if (self._atoms >= count if count else self._marked) else _TUPLE
        # Called with nothing it is a dictionary, with something a tensor.
        return _ATOM if opcode == "REDUCE" and self._before != "EMPTY_TUPLE" else _CONTAINER
