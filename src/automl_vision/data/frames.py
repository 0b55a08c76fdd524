"""How many frames or pages an image file has, told from its blocks in a bounded time.

Pillow counts the frames of a GIF and the pages of a TIFF by walking through them: minutes where these are millions.
Where the next one is: https://www.w3.org/Graphics/GIF/spec-gif89a.txt and the TIFF 6.0 specification.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import IO, Protocol

#: Frames that are counted; more of them change nothing.
MOST_FRAMES = 1000
#: Blocks that are looked at: at most 255 bytes of a GIF lie in one.
_MOST_BLOCKS = 2**20
_GIF_HEAD, _GIF_SCREEN = 13, 10
_FRAME, _EXTENSION, _END = b",", b"!", b";"


class Opened(Protocol):
    """An image that Pillow opened."""

    @property
    def format(self) -> str | None:
        """Pillow's name of it."""
        ...


def count_frames(image: Opened) -> int:
    """Frames or pages of an image that was opened and not loaded yet; at least 1, at most `MOST_FRAMES`.

    What is damaged behind the first of them ends the count: the first is what is used.
    """
    count, file = _COUNTED.get(image.format or ""), getattr(image, "fp", None)
    try:
        if count is None or file is None:
            return min(int(getattr(image, "n_frames", 1)), MOST_FRAMES)
        return max(1, _from_where_it_is(file, count))
    except (OSError, ValueError, LookupError, TypeError, SyntaxError, EOFError, struct.error):
        return 1


def _from_where_it_is(file: IO[bytes], count: Callable[[IO[bytes]], int]) -> int:
    at = file.tell()
    try:
        return count(file)
    finally:
        file.seek(at)


def _gif_frames(file: IO[bytes]) -> int:
    file.seek(_GIF_SCREEN)
    palette = _palette_bytes(file.read(1)[0])
    file.seek(_GIF_HEAD + palette)
    count, blocks = 0, _MOST_BLOCKS
    while blocks > 0 and count < MOST_FRAMES:
        kind = file.read(1)
        blocks -= 1
        if kind in (b"", _END):
            break
        if kind == _FRAME:
            described = file.read(9)
            if len(described) < 9:
                break
            count += 1
            file.seek(_palette_bytes(described[8]) + 1, os.SEEK_CUR)
        elif kind == _EXTENSION:
            file.seek(1, os.SEEK_CUR)
        else:
            continue  # what Pillow passes over as well
        blocks = _behind_data(file, blocks)
    return count


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_data(file: IO[bytes], blocks: int) -> int:
    """Go behind blocks of data; how many blocks are left to be looked at."""
    while blocks > 0 and (size := file.read(1)) not in (b"", b"\0"):
        file.seek(size[0], os.SEEK_CUR)
        blocks -= 1
    return blocks


def _tiff_pages(file: IO[bytes]) -> int:
    file.seek(0)
    head = file.read(16)
    order, big = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    number, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
    (at,) = struct.unpack_from(order + offset, head, 8 if big else 4)
    seen: set[int] = set()
    while at and at not in seen and len(seen) < MOST_FRAMES:
        file.seek(at)
        entries = file.read(struct.calcsize(number))
        if len(entries) < struct.calcsize(number):
            break
        seen.add(at)
        file.seek(struct.unpack(order + number, entries)[0] * entry, os.SEEK_CUR)
        following = file.read(struct.calcsize(offset))
        at = struct.unpack(order + offset, following)[0] if len(following) == struct.calcsize(offset) else 0
    return len(seen)


#: Formats of which Pillow does not know the number without going through the file.
_COUNTED: Mapping[str, Callable[[IO[bytes]], int]] = {"GIF": _gif_frames, "TIFF": _tiff_pages}
