"""What one client, and all of them together, may ask of the server."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

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
        held_bytes: of the bodies of all requests under way, as they come; what is above it is answered 503.
        waiting: images that wait for a decoder or the model; a request above it is answered 503.
        explained: images of one request that asks for heat maps.
        waiting_explained: heat maps that wait for the model; a request above it is answered 503.
        requests_per_minute: of one client, on average; 0: no limit.
        burst: requests of one client at once, after a pause.
        upload_seconds: until a body has to be here.
        upload_grace: seconds in which no body is too slow.
        upload_bytes_per_second: that have to come on average after the grace.
        connections_of_one: that one client may hold open; 0: no limit. Where it is not 0, no client has more than half
            of `held_bytes` and of `waiting` either. None of it holds for clients on this machine: one of them may be a
            proxy that has all others behind it.
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
    upload_grace: float = 10.0
    upload_bytes_per_second: int = 8192
    connections_of_one: int = 64


@lru_cache(maxsize=4096)
def client_of(host: str) -> str:
    """Whom an address belongs to: of IPv6, the first 64 bits, as one client has all others behind them."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a socket without addresses
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address if address.is_loopback else ipaddress.ip_network((address, 64), strict=False))


def is_this_machine(client: str) -> bool:
    """Whether a client, as `client_of` has it, is a program on this machine."""
    return client in ("", "::1") or client.startswith("127.")


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


class Shares:
    """Of something that is bounded: what all clients have taken together, and each of them.

    Args:
        limit: of all; infinity where only that of one holds.
        of_one: of each client that is not on this machine; 0: no such limit.
    """

    def __init__(self, limit: float, of_one: int = 0) -> None:
        self._limit = limit
        self._of_one = of_one
        self._each: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """By all clients."""
        return self._each.total()

    @contextmanager
    def hold(self, client: str, count: int = 0) -> Iterator[Share]:
        """A share of `count` while the context lasts, or of more as it grows.

        Raises:
            Busy: others have too much.
        """
        share = Share(self, client)
        try:
            share.grow(count)
            yield share
        finally:
            self._give_back(client, share.count)

    def take(self, client: str, count: int) -> None:
        """Add to what a client has.

        Raises:
            Busy: there is not so much left for it.
        """
        bounded = self._of_one and not is_this_machine(client)
        if self.taken + count > self._limit or (bounded and self._each[client] + count > self._of_one):
            raise Busy
        self._each[client] += count

    def _give_back(self, client: str, count: int) -> None:
        self._each[client] -= count
        if not self._each[client]:
            del self._each[client]


class Share:
    """What one request has of `Shares`.

    Attributes:
        count: how much.
    """

    def __init__(self, shares: Shares, client: str) -> None:
        self._shares = shares
        self._client = client
        self.count = 0

    def grow(self, count: int) -> None:
        """Take more.

        Raises:
            Busy: there is not so much left.
        """
        self._shares.take(self._client, count)
        self.count += count
