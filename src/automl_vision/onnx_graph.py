"""Which operations an ONNX file names, read from its bytes: what predicts with one has no `onnx` to ask.

The format is Protocol Buffers (https://protobuf.dev/programming-guides/encoding): fields one after the other, each with
its number and a kind. Only three are followed: the graph of a model, its nodes, and the name of what a node does.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Numbers of fields in onnx.proto: of a model, of a graph, and of a node.
_GRAPH, _FUNCTIONS = 7, 25
_NODE = 1
_OPERATION = 4
#: Kinds of fields: a number, eight bytes, a length and so many bytes, four bytes.
_NUMBER, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_WIDTHS = {_EIGHT: 8, _FOUR: 4}
#: What can go on for ever, or hides what is done: exported classifiers compute straight on.
REPEATING = frozenset(("Loop", "Scan", "If", "SequenceMap"))


def repeats(model: bytes) -> str:
    """The first operation that may go on for ever, or "a function" where the file defines some; empty for none.

    Raises:
        ValueError: these bytes are no such file.
    """
    for number, content in _fields(memoryview(model)):
        if number == _FUNCTIONS:
            return "a function"
        found = next((name for name in _operations(content) if name in REPEATING), "") if number == _GRAPH else ""
        if found:
            return found
    return ""


def _operations(graph: memoryview) -> Iterator[str]:
    for number, node in _fields(graph):
        if number == _NODE:
            yield from (bytes(name).decode("utf-8") for field, name in _fields(node) if field == _OPERATION)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of every field; content is empty for what is no bytes."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        kind = key & 7
        if kind == _NUMBER:
            _, place = _number(message, place)
            yield key >> 3, message[:0]
            continue
        if kind == _BYTES:
            length, place = _number(message, place)
        elif kind in _WIDTHS:
            length = _WIDTHS[kind]
        else:
            raise ValueError("it is not written as ONNX is")
        if place + length > len(message):
            raise ValueError("it was cut off")
        yield key >> 3, message[place : place + length] if kind == _BYTES else message[:0]
        place += length


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven in each byte, and where what follows it begins."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("it was cut off")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is not written as ONNX is")
