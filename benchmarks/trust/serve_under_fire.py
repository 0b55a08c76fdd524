"""R14: does the server stay right, quick and small while clients send it all that it should refuse?

    python benchmarks/trust/serve_under_fire.py --minutes 10
    python benchmarks/trust/serve_under_fire.py --minutes 0.3 --quiet-minutes 0.1    # a smoke test

Three times in one server: quiet, fire, quiet. Good clients send a photograph of 500 x 375 now and then (up to
`--pause` seconds after the last answer, evenly drawn) and compare the probabilities with those that the model
gives in this process. In the quiet parts there is nobody else. Under fire there are `--clients` in all, of which
three in ten are good; the others send what is damaged, no image, no HTTP or somebody else's, what is huge (bombs,
bodies over the limits, images of up to 60 million pixels, which have to be answered), and what is slow (headers,
bodies and answers that are not read); and `--half-open` connections that send half a request and nothing more, a
tenth of which announce 60 MB. Every request has the answers that it may get; any other is wrong, and so is a
broken connection of a good client.

Held where no answer was wrong, the process never ended and says nothing of a traceback, ends with 0 when told to,
the 99th percentile of good requests is at most 4 times that of the quiet parts, and memory grows by at most 50 MB
after the warm-up. The warm-up is the first fifth of the fire; growth is from the tenth behind it to the one of the
later tenths that has the most. Counted is memory that nobody but these processes has, of the server the median and
of each decoder the least of a tenth, as an image that is decoded at the moment is no growth. All clients share the
machine with the server.
"""

from __future__ import annotations

import http.client
import io
import json
import math
import random
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from automl_vision.predictor import load
from serve_load import CONTENT_TYPE, Server, ask, form, latencies, make_model, photographs, running
from trust.figure import Figure, conclude, parser

MOST_GROWTH_MB, MOST_RATIO = 50.0, 4.0
MOST_CLIENTS, MOST_HALF_OPEN, MOST_MINUTES = 200, 300, 120.0
#: Shares of the clients under fire; what is left over of them is slow.
GOOD, BAD, HUGE = 0.3, 0.25, 0.2
#: How far a probability may be from what this process computes of the same file, in batches of other sizes.
TOLERANCE = 1e-3
#: Seconds without a byte of the server after which a connection counts as held for ever.
SILENT = 120.0
CLOSED, HELD = "closed", "held"
MEGABYTE = 2**20

Raw = bytes
Outcomes = frozenset[str]


@dataclass(frozen=True)
class Sent:
    """A request that is sent as it is.

    Attributes:
        raw: what is sent.
        may: how it may end: statuses, or `CLOSED`.
    """

    raw: Raw
    may: Outcomes


@dataclass
class Tally:
    """What the clients of one part saw.

    Attributes:
        outcomes: kind of request and how it ended -> how often.
        wrong: answers that no such request may get.
        seconds: of each good request, from the first byte sent to the last received.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, outcome: str, may: Outcomes, seconds: float | None = None, said: str = "") -> None:
        """Count one request; `said` is the end of its answer."""
        with self._lock:
            self.outcomes[f"{kind}: {outcome}"] += 1
            if outcome not in may:
                self.wrong.append(f"{kind}: {outcome}, not {' or '.join(sorted(may))} {said}".rstrip())
            elif seconds is not None:
                self.seconds.append(seconds)


@dataclass(frozen=True)
class Good:
    """A photograph, and what the model says of it.

    Attributes:
        data: the file.
        probabilities: by class.
    """

    data: bytes
    probabilities: Mapping[str, float]

    def outcome(self, status: int, body: bytes) -> str:
        """The status, or what is wrong with a 200."""
        if status != 200:
            return str(status)
        told = json.loads(body)["results"][0]["probabilities"] or {}
        same = told.keys() == self.probabilities.keys()
        if not same or any(abs(told[each] - self.probabilities[each]) > TOLERANCE for each in told):
            return "another image's answer"
        return "200"


# --- what is sent ---------------------------------------------------------------------------------------------------


def request(
    body: bytes = b"", *fields: str, path: str = "/predict", method: str = "POST", host: str = "localhost"
) -> bytes:
    """A whole request, closed behind its answer."""
    kind = "" if any(each.startswith("Content-Type") for each in fields) else f"Content-Type: {CONTENT_TYPE}\r\n"
    length = "" if any(each.startswith("Transfer-Encoding") for each in fields) else f"Content-Length: {len(body)}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{kind}{length}"
    return (head + "".join(f"{each}\r\n" for each in fields) + "\r\n").encode("latin-1") + body


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds little of that."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 10_000)))
    chunks = (
        struct.pack(">I", len(each)) + name + each + struct.pack(">I", zlib.crc32(name + each)) for name, each in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def plain_png(side: int) -> bytes:
    """A sound PNG of `side` x `side` pixels in a few hundred kilobytes."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 30)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes of it changed, left out or put in twice."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 30)):
        at = chance.randrange(len(changed))
        piece = chance.choice((bytes([chance.randrange(256)]), b"", bytes(changed[at : at + 50]) * 2))
        changed[at : at + chance.randrange(1, 4)] = piece
    return bytes(changed)


Make = Callable[[bytes, random.Random], Sent]


def _sent(make: Callable[[bytes, random.Random], Raw], *may: str) -> Make:
    return lambda data, chance: Sent(make(data, chance), frozenset(may))


_CHUNKED = "Transfer-Encoding: chunked"
#: What is refused at once, by its name.
BAD_REQUESTS: dict[str, Make] = {
    "cut image": _sent(lambda data, _: request(form(data[: len(data) // 3])), "422"),
    "text": _sent(lambda *_: request(form(b"hello")), "415"),
    "empty file": _sent(lambda *_: request(form(b"")), "422"),
    "mutated image": _sent(lambda data, chance: request(form(mutated(data, chance))), "200", "413", "415", "422"),
    "noise": _sent(lambda _, chance: request(form(chance.randbytes(5000))), "415", "422"),
    "cut form": _sent(lambda data, _: request(form(data)[:-50]), "400"),
    "no form": _sent(lambda *_: request(b"{}", "Content-Type: application/json"), "415"),
    "too many files": _sent(lambda *_: request(form(*[b"x"] * 17)), "413"),
    "no HTTP": _sent(lambda _, chance: chance.randbytes(400) + b"\r\n\r\n", "400", CLOSED),
    "two lengths": _sent(lambda *_: request(b"5\r\nhello\r\n0\r\n\r\n", _CHUNKED, "Content-Length: 5"), "400", CLOSED),
    "two other lengths": _sent(lambda data, _: request(form(data), "Content-Length: 7"), "400", CLOSED),
    "crumbs": _sent(lambda *_: request(b"1\r\nx\r\n" * 5000, _CHUNKED), "400", CLOSED),
    "many fields": _sent(lambda data, _: request(form(data), *(f"X-{n}: y" for n in range(300))), "431"),
    "long header": _sent(lambda *_: request(b"", f"X: {'y' * 400_000}"), "400", "431", CLOSED),
    "foreign name": _sent(lambda data, _: request(form(data), host="evil.example"), "400"),
    "foreign page": _sent(lambda data, _: request(form(data), "Origin: https://evil.example"), "403"),
    "nothing there": _sent(lambda *_: request(path="/../../etc/passwd", method="GET"), "404"),
    "wrong method": _sent(lambda *_: request(path="/about", method="DELETE"), "405"),
    "WebSocket": _sent(
        lambda *_: request(b"", "Upgrade: websocket", "Sec-WebSocket-Version: 13", path="/predict", method="GET"), "405"
    ),
}
#: What costs much, or would. An image that is large and sound is answered, or told to come back.
HUGE_REQUESTS: dict[str, Make] = {
    "bomb of 144 Mpx": _sent(lambda *_: request(form(png_header(12_000, 12_000))), "413"),
    "bomb of 4,295 Mpx": _sent(lambda *_: request(form(png_header(65_535, 65_535))), "413"),
    "17 MB file": _sent(lambda *_: request(form(b"\xff\xd8" + bytes(17 * MEGABYTE))), "413"),
    "65 MB announced": _sent(
        lambda *_: request(b"", "Content-Length: 68157440").replace(b"Content-Length: 0\r\n", b""), "413"
    ),
    "66 MB in pieces": _sent(
        lambda *_: request(b"100000\r\n%b\r\n" % bytes(MEGABYTE) * 66 + b"0\r\n\r\n", _CHUNKED), "400", "413", CLOSED
    ),
    "image of 36 Mpx": _sent(lambda *_: request(form(_large(6000))), "200", "503"),
    "image of 60 Mpx": _sent(lambda *_: request(form(_large(7750))), "200", "503"),
}
_made: dict[int, bytes] = {}


def _large(side: int) -> bytes:
    if side not in _made:
        _made[side] = plain_png(side)
    return _made[side]


# --- clients --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """Where clients act, and until when.

    Attributes:
        port: of the server.
        photographs: that good clients send.
        pause: seconds that clients wait at most between two requests.
        over: when clients have to end.
        tally: what they see.
    """

    port: int
    photographs: Sequence[Good]
    pause: float
    over: threading.Event
    tally: Tally

    def rest(self, chance: random.Random) -> None:
        """Between two requests."""
        self.over.wait(chance.uniform(0.0, self.pause))


Client = Callable[[Field, random.Random], None]


def good_client(place: Field, chance: random.Random) -> None:
    """Sends photographs over one connection, like a program."""
    place.rest(chance)
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=SILENT)
    while not place.over.is_set():
        sent = chance.choice(place.photographs)
        began = time.monotonic()
        outcome = _asked(connection, sent, again=connection.sock is not None)
        place.tally.note("good", outcome, frozenset({"200"}), time.monotonic() - began)
        if chance.random() < 0.2:
            connection.close()  # the next request opens another one
        place.rest(chance)
    connection.close()


def _asked(connection: http.client.HTTPConnection, sent: Good, *, again: bool) -> str:
    """How it ends. A connection that was kept may be closed by now, and such a request is sent again on a new one, as
    the libraries of programs do."""
    try:
        return sent.outcome(*ask(connection, sent.data))
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return _asked(connection, sent, again=False) if again else f"{type(error).__name__}: {error}"


def _client_of(kinds: Mapping[str, Make]) -> Client:
    def client(place: Field, chance: random.Random) -> None:
        while not place.over.is_set():
            kind = chance.choice(sorted(kinds))
            made = kinds[kind](chance.choice(place.photographs).data, chance)
            outcome, said = exchanged(place.port, made.raw)
            place.tally.note(kind, outcome, made.may, said=said)
            place.rest(chance)

    return client


def exchanged(port: int, raw: bytes) -> tuple[str, str]:
    """Send it and say how it ends: with which status, closed without one, or held; and the end of what was answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=SILENT) as made:
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it was answered before all was sent
                made.sendall(raw)
            start = made.recv(4096)
            return _status(start), start[-200:].decode("latin-1")
        except TimeoutError:
            return HELD, ""
        except ConnectionResetError:
            return CLOSED, ""


def _status(start: bytes) -> str:
    words = start.split(b" ", 2)
    return words[1].decode("latin-1") if len(words) > 1 else CLOSED


def slow_client(place: Field, chance: random.Random) -> None:
    """Sends a byte now and then, or reads nothing."""
    while not place.over.is_set():
        kind = chance.choice(sorted(SLOW))
        pieces, pause, may = SLOW[kind]
        with socket.create_connection(("127.0.0.1", place.port), timeout=SILENT) as made:
            outcome = trickled(place, made, pieces(chance.choice(place.photographs).data), pause)
        if outcome is not None:
            place.tally.note(kind, outcome, may)


def trickled(place: Field, made: socket.socket, pieces: Iterator[bytes], pause: float) -> str | None:
    """Send pieces with pauses and say how it ends; None where the part is over before that."""
    made.setblocking(False)
    end = time.monotonic() + SILENT
    with suppress(ConnectionError):
        for piece in pieces:
            with suppress(BlockingIOError):  # the server reads no more of it
                made.send(piece)
            if place.over.wait(pause):
                return None
            with suppress(BlockingIOError):
                return _status(made.recv(4096))
        while time.monotonic() < end and not place.over.wait(0.2):
            with suppress(BlockingIOError):
                return _status(made.recv(4096))
        return None if place.over.is_set() else HELD
    return CLOSED


def _bytewise(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def _unread(_data: bytes) -> Iterator[bytes]:
    """Far more answers than the system keeps for who does not read them; whether it was closed is seen by sending."""
    asked = request(path="/page.js", method="GET").replace(b"Connection: close\r\n", b"")
    yield from (asked * 200 for _ in range(1000))


def _steadily(data: bytes) -> Iterator[bytes]:
    """Slow, and fast enough: 20 kB a second and more."""
    whole = request(form(data))
    return (whole[at : at + 10_000] for at in range(0, len(whole), 10_000))


#: Name -> what is sent, seconds between two pieces, how it may end.
SLOW: dict[str, tuple[Callable[[bytes], Iterator[bytes]], float, Outcomes]] = {
    "slow header": (lambda data: _bytewise(request(form(data))), 1.0, frozenset({CLOSED})),
    "slow body": (
        lambda data: iter([request(form(data))[:300], *_bytewise(form(data)[300:])]),
        0.5,
        frozenset({"408"}),
    ),
    "slow and steady": (_steadily, 0.4, frozenset({"200"})),
}


def unread_client(place: Field, chance: random.Random) -> None:
    """Asks and asks, and reads none of the answers."""
    while not place.over.is_set():
        with socket.create_connection(("127.0.0.1", place.port), timeout=SILENT) as made:
            outcome = _pushed(place, made)
        if outcome is not None:
            place.tally.note("unread answers", outcome, frozenset({CLOSED}))
        place.rest(chance)


def _pushed(place: Field, made: socket.socket) -> str | None:
    made.setblocking(False)
    end = time.monotonic() + SILENT
    try:
        for piece in _unread(b""):
            with suppress(BlockingIOError):
                made.send(piece)
            if place.over.wait(0.5):
                return None
            if time.monotonic() > end:
                break
    except ConnectionError:
        return CLOSED
    return HELD


def half_open(place: Field, chance: random.Random, count: int) -> None:
    """Keeps so many connections that never become a request; those that the server closes are opened anew."""
    opened: list[socket.socket] = []
    announced = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n"
    announced += f"Content-Type: {CONTENT_TYPE}\r\n\r\n--x".encode()
    while not place.over.is_set():
        opened = [each for each in opened if not _is_closed(each)]
        while len(opened) < count:
            made = socket.create_connection(("127.0.0.1", place.port), timeout=SILENT)
            made.setblocking(False)
            made.send(announced if chance.random() < 0.1 else announced[: chance.randrange(40)] or b"P")
            place.tally.note("half-open", "opened", frozenset({"opened"}))
            opened.append(made)
        place.over.wait(0.2)
    for each in opened:
        each.close()


def _is_closed(made: socket.socket) -> bool:
    with suppress(ConnectionError):
        try:
            made.recv(4096)  # nothing, or a 408 to what was announced
        except BlockingIOError:
            return False
    made.close()
    return True


# --- the measurement ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Memory at one moment.

    Attributes:
        seconds: since the fire began.
        server: megabytes that the server alone has.
        decoders: the same of each of its decoders, by the numbers of their processes.
    """

    seconds: float
    server: float
    decoders: Mapping[int, float]


@contextmanager
def at_work(place: Field, crowd: Sequence[tuple[Client, int]], seed: int) -> Iterator[None]:
    """Clients, of each kind so many, until the context ends."""
    clients = [each for each, count in crowd for _ in range(count)]
    threads = [
        threading.Thread(target=each, args=(place, random.Random(f"{seed} {number}")), daemon=True)
        for number, each in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        place.over.set()
        for thread in threads:
            thread.join(SILENT)


def watched(server: Server, seconds: float) -> list[Sample]:
    """A sample a second, until the time is over or the server is."""
    samples = []
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds and server.alive:
        memories = server.memories_mb("RssAnon")  # what the system takes back of libraries is no merit of the server
        samples.append(Sample(now, memories.pop(server.number, 0.0), memories))
        time.sleep(min(1.0, seconds / 50))
    return samples


def settled_mb(samples: Sequence[Sample]) -> float:
    """The median of the server, and the least of each decoder that was there in half of the samples or more."""
    if not samples:
        return math.nan
    seen = Counter(number for each in samples for number in each.decoders)
    lasting = [number for number, count in seen.items() if 2 * count >= len(samples)]
    decoders = sum(min(each.decoders[number] for each in samples if number in each.decoders) for number in lasting)
    return statistics.median(each.server for each in samples) + decoders


def growth_mb(samples: Sequence[Sample], seconds: float) -> float:
    """From the first tenth behind the warm-up to the one behind it that has the most."""
    first, *later = (settled_mb(_tenth(samples, seconds, number)) for number in range(2, 10))
    return max(later) - first if not any(map(math.isnan, later)) else math.nan


def _tenth(samples: Sequence[Sample], seconds: float, number: int) -> list[Sample]:
    return [each for each in samples if number <= 10 * each.seconds / seconds < number + 1]


def crowd_of(clients: int, half_open_count: int) -> list[tuple[Client, int]]:
    """Who is there under fire."""
    good, bad, huge = (max(1, round(share * clients)) for share in (GOOD, BAD, HUGE))
    slow = max(2, clients - good - bad - huge)
    return [
        (good_client, good),
        (_client_of(BAD_REQUESTS), bad),
        (_client_of(HUGE_REQUESTS), huge),
        (slow_client, slow - slow // 4),
        (unread_client, slow // 4),
        (lambda place, chance: half_open(place, chance, half_open_count), 1),
    ]


@dataclass(frozen=True)
class Measured:
    """All three parts.

    Attributes:
        quiet, fire: what clients saw; both quiet parts together.
        samples: memory under fire.
        seconds: of the fire.
        survived: whether the server lived to the end.
        code: its exit code when it was told to end.
        said: what it wrote.
    """

    quiet: Tally
    fire: Tally
    samples: Sequence[Sample]
    seconds: float
    survived: bool
    code: int
    said: str


def measure(
    model: Path, crowd: Sequence[tuple[Client, int]], seconds: float, quiet: float, pause: float, seed: int
) -> Measured:
    """Start a server, and let the clients at it."""
    expected = [Good(data, _said(row, names)) for data, row, names in _predicted(model)]
    for side in (6000, 7750):
        _large(side)
    calm, fire = Tally(), Tally()
    with tempfile.TemporaryFile() as log, running(model, log) as server:

        def place(tally: Tally) -> Field:
            return Field(server.port, expected, pause, threading.Event(), tally)

        only_good = [crowd[0]]
        with at_work(place(Tally()), only_good, seed):  # nobody counts the first passes
            watched(server, quiet / 4)
        with at_work(place(calm), only_good, seed):
            watched(server, quiet / 2)
        with at_work(place(fire), crowd, seed + 1):
            samples = watched(server, seconds)
        with at_work(place(calm), only_good, seed + 2):
            watched(server, quiet / 2)
        survived = server.alive
        code = server.end()
        log.seek(0)
        said = log.read().decode("utf-8", "replace")
    return Measured(calm, fire, samples, seconds, survived, code, said)


def _predicted(model: Path) -> Iterator[tuple[bytes, NDArray[np.float64], Sequence[str]]]:
    loaded = load(model, device="cpu")
    for data in photographs(500, 375):
        yield data, loaded.predict_proba([data])[0], loaded.class_names


def _said(row: NDArray[np.float64], names: Sequence[str]) -> dict[str, float]:
    return dict(zip(names, row.tolist(), strict=True))


def judged(measured: Measured) -> Figure:
    """Whether all was as promised."""
    quiet, fire = (latencies(each.seconds)["p99_ms"] for each in (measured.quiet, measured.fire))
    ratio, growth = fire / quiet, growth_mb(measured.samples, measured.seconds)
    wrong = Counter(measured.quiet.wrong + measured.fire.wrong)
    faults = [f"{count} x {each}" for each, count in wrong.most_common(20)]
    if not measured.survived:
        faults.append("the server ended before it was told to")
    if measured.code != 0:
        faults.append(f"it ended with exit code {measured.code}")
    if "Traceback" in measured.said:
        faults.append(f"a traceback: {measured.said[-500:]}")
    if not ratio <= MOST_RATIO:
        faults.append(f"good requests took {ratio:.1f} times as long, over {MOST_RATIO:g}")
    if not growth <= MOST_GROWTH_MB:
        faults.append(f"memory grew by {growth:.0f} MB, over {MOST_GROWTH_MB:g}")
    seen = {number for each in measured.samples for number in each.decoders}
    at_once = max((len(each.decoders) for each in measured.samples), default=0)
    peak = max((each.server + sum(each.decoders.values()) for each in measured.samples), default=math.nan)
    requests = sum(count for kind, count in measured.fire.outcomes.items() if not kind.startswith("half-open"))
    text = (
        f"{requests} requests in {measured.seconds:.0f} s, {len(measured.fire.seconds)} of them good, "
        f"{wrong.total()} wrong answers, {int(not measured.survived)} crashes, p99 of good ones {fire:.0f} ms, "
        f"{ratio:.1f} times the quiet {quiet:.0f} ms; memory {growth:+.0f} MB after the warm-up, "
        f"at most {peak:.0f} MB with decoders"
    )
    figures = {
        "quiet": {"requests": len(measured.quiet.seconds), **latencies(measured.quiet.seconds)},
        "fire": {"requests": len(measured.fire.seconds), **latencies(measured.fire.seconds)},
        "outcomes": dict(sorted(measured.fire.outcomes.items())),
        "ratio": ratio,
        "growth_mb": growth,
        "peak_mb": peak,
        "server_mb": [round(each.server) for each in measured.samples[:: max(1, len(measured.samples) // 60)]],
        "decoders_replaced": len(seen) - at_once,
    }
    return Figure("R14", not faults, text, figures, tuple(faults))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where the promise is not kept."""
    options = parser(__doc__)
    options.add_argument("--model", type=Path, help="a model.pt; default: efficientnet_lite0, random weights")
    options.add_argument("--clients", type=int, default=50, help="under fire, in all")
    options.add_argument("--half-open", type=int, default=100, help="connections that say half of something")
    options.add_argument("--minutes", type=float, default=10.0, help="of the fire")
    options.add_argument("--quiet-minutes", type=float, default=3.0, help="of both quiet parts together")
    options.add_argument("--pause", type=float, default=4.0, help="seconds between two requests of a client, at most")
    given = options.parse_args(arguments)
    if not 4 <= given.clients <= MOST_CLIENTS or not 0 <= given.half_open <= MOST_HALF_OPEN:
        options.error(f"4 to {MOST_CLIENTS} clients, and at most {MOST_HALF_OPEN} half-open connections")
    if not 0 < given.minutes <= MOST_MINUTES or not 0 < given.quiet_minutes <= MOST_MINUTES:
        options.error(f"at most {MOST_MINUTES:g} minutes")
    crowd = crowd_of(given.clients, given.half_open)
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or make_model(Path(folder) / "model.pt")
        seconds, quiet = 60 * given.minutes, 60 * given.quiet_minutes
        measured = measure(model, crowd, seconds, quiet, given.pause, given.seed)
    return conclude(judged(measured), given.json)


if __name__ == "__main__":
    sys.exit(main())
