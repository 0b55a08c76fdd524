"""What one client, and all of them together, may ask of the server."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from automl_vision.data.decode import MAX_PIXELS

MEGABYTE = 2**20
#: Clients whose rate is remembered; who was away longest is forgotten first.
_CLIENTS = 10_000


class Busy(Exception):
    """There is no room for this request now; a little later there may be."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what is accepted; with them memory is bounded whatever clients send.

    Attributes:
        file_bytes: of one image file.
        files: images of one request.
        request_bytes: of one request's body.
        pixels: of one image; what `data.decode` refuses stays refused.
        held_bytes: of the bodies of all requests under way; a request above it is answered 503.
        waiting: images that wait for the model; a request above it is answered 503.
        explained: images of one request that asks for heat maps.
        waiting_explained: heat maps that wait for the model; a request above it is answered 503.
        requests_per_minute: of one client, on average; 0: no limit.
        burst: requests of one client at once, after a pause.
        upload_seconds: until a body has to be here.
    """

    file_bytes: int = 16 * MEGABYTE
    files: int = 16
    request_bytes: int = 64 * MEGABYTE
    pixels: int = MAX_PIXELS
    held_bytes: int = 256 * MEGABYTE
    waiting: int = 256
    explained: int = 4
    waiting_explained: int = 16
    requests_per_minute: float = 600.0
    burst: int = 60
    upload_seconds: float = 60.0


class ClientRates:
    """A token bucket per client: `burst` tokens that refill at the given rate; a request takes one.

    Args:
        per_minute: tokens a minute; 0 lets everything pass.
        burst: tokens of a full bucket, >= 1.
        now: a clock in seconds.
    """

    def __init__(self, per_minute: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._burst = float(burst)
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, when

    def wait(self, client: str) -> float:
        """Take a token: 0.0 where there was one, else the seconds until there is (and none is taken)."""
        if not self._per_second:
            return 0.0
        now = self._now()
        tokens, then = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._per_second)
        granted = tokens >= 1
        self._buckets[client] = (tokens - granted, now)
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - tokens) / self._per_second


class HeldBytes:
    """The bytes of all bodies that are held in memory at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Room for `count` bytes while the context lasts.

        Raises:
            Busy: others hold too many.
        """
        if self.held + count > self._limit:
            raise Busy
        self.held += count
        try:
            yield
        finally:
            self.held -= count
