"""Files that were damaged at random, each of which can be made again from its number."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from trust.image_seeds import Seed

#: Draws that are made of a file: most are damaged once, some several times.
_TIMES = (1, 1, 1, 1, 2, 3, 6)
#: How near to the start most damage is: headers decide more than pixels do.
_HEAD = 200
_PNG = b"\x89PNG\r\n\x1a\n"
_EDGES = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FORMATS = ("<H", ">H", "<I", ">I")

Generator = np.random.Generator
Mutation = Callable[[Generator, bytes, bytes], bytes]


def _place(rng: Generator, data: bytes) -> int:
    """A position in the file, half of the time near its start."""
    length = max(1, len(data))
    return int(rng.integers(min(length, _HEAD) if rng.random() < 0.5 else length))


def _span(rng: Generator, data: bytes) -> tuple[int, int]:
    start = _place(rng, data)
    return start, start + int(2 ** rng.uniform(0, 10))


def _flip_a_bit(rng: Generator, data: bytes, _other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :] if data else data


def _other_bytes(rng: Generator, data: bytes, _other: bytes) -> bytes:
    at, count = _place(rng, data), int(rng.integers(1, 9))
    return data[:at] + rng.bytes(count) + data[at + count :]


def _edge_number(rng: Generator, data: bytes, _other: bytes) -> bytes:
    form = _FORMATS[int(rng.integers(len(_FORMATS)))]
    size = struct.calcsize(form)
    value = _EDGES[int(rng.integers(len(_EDGES)))] & (256**size - 1)
    at = _place(rng, data)
    return data[:at] + struct.pack(form, value) + data[at + size :]


def _near_number(rng: Generator, data: bytes, _other: bytes) -> bytes:
    """A number of the file that is a little or much larger or smaller: sizes, counts and offsets."""
    form = _FORMATS[int(rng.integers(len(_FORMATS)))]
    size, at = struct.calcsize(form), _place(rng, data)
    if at + size > len(data):
        return data
    change = int(rng.choice((-1, 1))) * int(2 ** rng.uniform(0, 8 * size - 1))
    value = (struct.unpack_from(form, data, at)[0] + change) % 256**size
    return data[:at] + struct.pack(form, value) + data[at + size :]


def _cut(rng: Generator, data: bytes, _other: bytes) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _zeros(rng: Generator, data: bytes, _other: bytes) -> bytes:
    start, end = _span(rng, data)
    end = min(end, len(data))
    return data[:start] + bytes(end - start) + data[end:] if start < end else data


def _left_out(rng: Generator, data: bytes, _other: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _twice(rng: Generator, data: bytes, _other: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * int(rng.integers(1, 40)) + data[end:]


def _rubbish_inside(rng: Generator, data: bytes, _other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.bytes(int(2 ** rng.uniform(0, 9))) + data[at:]


def _exchanged(rng: Generator, data: bytes, _other: bytes) -> bytes:
    first, second = sorted((_place(rng, data), _place(rng, data)))
    return data[:first] + data[second:] + data[first:second]


def _end_of_another(rng: Generator, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def _rubbish_behind(rng: Generator, data: bytes, other: bytes) -> bytes:
    return data + (other if rng.random() < 0.5 else rng.bytes(int(2 ** rng.uniform(0, 12))))


#: What is done to a file; drawn evenly.
MUTATIONS: tuple[Mutation, ...] = (
    _flip_a_bit,
    _other_bytes,
    _edge_number,
    _near_number,
    _cut,
    _zeros,
    _left_out,
    _twice,
    _rubbish_inside,
    _exchanged,
    _end_of_another,
    _rubbish_behind,
)


def mutated(seeds: Sequence[Seed], seed: int, number: int) -> Seed:
    """File `number` of the storm `seed`: one of the seeds, damaged; always the same for the same three.

    The seeds take turns. Of PNGs half get sums that fit their chunks again, or hardly any damage would be looked at.
    """
    rng = np.random.default_rng((seed, number))
    begun = seeds[number % len(seeds)]
    other = seeds[int(rng.integers(len(seeds)))].data
    data = begun.data
    for _ in range(int(rng.choice(_TIMES))):
        data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](rng, data, other)
    if data.startswith(_PNG) and rng.random() < 0.5:
        data = with_fitting_sums(data)
    return Seed(begun.name, begun.ending, data)


def with_fitting_sums(data: bytes) -> bytes:
    """A PNG whose chunks have the sums of what they hold, as far as they can be told apart."""
    parts, at = [data[: len(_PNG)]], len(_PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        parts.append(data[at:end] + struct.pack(">I", zlib.crc32(data[at + 4 : end])))
        at = end + 4
    return b"".join(parts) + data[at:]
