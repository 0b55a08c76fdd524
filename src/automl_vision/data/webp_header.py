"""How large a WebP image is, told from its first bytes: to open one, the decoder sets memory for all of it aside twice.

Where the numbers are: RFC 9649, sections 2.5 to 2.7 and 3.4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

_LONGEST_HEAD = 30
_FIRST_CHUNK, _PAYLOAD = 12, 20
_LOSSY_START, _LOSSLESS_MARK = b"\x9d\x01\x2a", 0x2F
_14_BITS = 0x3FFF


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the header has them, of the whole canvas; None where it has none."""
    head = data[:_LONGEST_HEAD]
    if len(head) < _LONGEST_HEAD or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    read = _READERS.get(head[_FIRST_CHUNK : _FIRST_CHUNK + 4])
    return None if read is None else read(head[_PAYLOAD:])


def _extended(chunk: bytes) -> tuple[int, int]:
    width, height = (int.from_bytes(chunk[at : at + 3], "little") for at in (4, 7))
    return width + 1, height + 1


def _lossy(chunk: bytes) -> tuple[int, int] | None:
    if chunk[3:6] != _LOSSY_START:
        return None
    width, height = struct.unpack_from("<HH", chunk, 6)
    return width & _14_BITS, height & _14_BITS


def _lossless(chunk: bytes) -> tuple[int, int] | None:
    mark, bits = struct.unpack_from("<BI", chunk)
    return ((bits & _14_BITS) + 1, (bits >> 14 & _14_BITS) + 1) if mark == _LOSSLESS_MARK else None


_READERS: Mapping[bytes, Callable[[bytes], tuple[int, int] | None]] = MappingProxyType(
    {b"VP8X": _extended, b"VP8 ": _lossy, b"VP8L": _lossless}
)
