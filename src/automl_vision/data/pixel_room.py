"""Room for the pixels of several large images at once, so that peak memory is that of one of the largest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

#: Pixels that are decoded of one image at most, and at once of all that are large.
MAX_PIXELS = 64_000_000
#: Images of up to so many pixels need not ask for room.
SMALL_PIXELS = 16_000_000


class PixelRoom:
    """A number of pixels that threads share.

    Args:
        pixels: that may be held at once. Who asks for more waits until nobody holds any, and is alone then.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, pixels: int) -> Iterator[None]:
        """Hold room for so many pixels, once there is as much."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_room = PixelRoom(MAX_PIXELS)


def room_for(pixels: int) -> AbstractContextManager[None]:
    """Held while an image of so many pixels is decoded or resized, which takes up to a dozen bytes for each.

    Not to be asked for by who holds it.
    """
    return _room.held(pixels) if pixels > SMALL_PIXELS else nullcontext()
