"""The process that decodes for the server: `python -m automl_vision.serving.decoder`, started by `decoders`.

What lies behind an image decoder is foreign bytes and C. So it runs here, with a bound on memory and on processor time
for each image, no network of its own, no secrets in its environment, and nothing that it may write but its answers.
Orders come in through standard input and answers leave through standard output: a line of JSON each, with as many
bytes behind it as the line says. Nothing is pickled. The process ends with its input.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.decode import dimensions, draft_scale, open_rgb
from automl_vision.data.preprocess import fitted, squares
from automl_vision.errors import ImageReadError

#: Files that may be open at once: three streams, and what Python opens to import a module.
_FILES = 64
_JPEG = b"\xff\xd8"


@dataclass(frozen=True)
class Duty:
    """What a decoder does with every image.

    Attributes:
        sides: sides in pixels of the squares that are made of it.
        resize: how, one of `data.preprocess.RESIZES`.
        decode_side: as in `data.preprocess.Preprocessing`.
        pixels: of an image at most, from its header.
        at_once: pixels that are decoded here at most; an image that has more is not decoded but called large.
        picture_side: longer side in pixels of the picture that is made for a heat map.
        memory: bytes of address space that the process may take beyond what it has when it is ready.
        cpu_seconds: for one image, whole seconds.
        niceness: how much other processes come first, 0 to 19.
    """

    sides: tuple[int, ...]
    resize: str
    decode_side: int
    pixels: int
    at_once: int
    picture_side: int
    memory: int
    cpu_seconds: int
    niceness: int = 0

    def to_line(self) -> bytes:
        """As the first line of a decoder's input."""
        return _line(asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> Duty:
        """The inverse."""
        values = json.loads(line)
        return cls(**{**values, "sides": tuple(values["sides"])})


@dataclass(frozen=True)
class Decoded:
    """An answer that is not an error.

    Attributes:
        squares: (S, S, 3) uint8 for each of the sides, in their order; none of an image that is too large for here.
        picture: (H, W, 3) uint8, where it was asked for.
    """

    squares: tuple[NDArray[np.uint8], ...] = ()
    picture: NDArray[np.uint8] | None = None


def decode(data: bytes, duty: Duty, *, picture: bool) -> Decoded:
    """Make an image what the model takes.

    Raises:
        ImageReadError: it cannot be used.
    """
    width, height = dimensions(data)
    if width * height > duty.pixels:
        raise ImageReadError("too_large", f"{width} x {height} pixels, over {duty.pixels}")
    scale = draft_scale(width, height, duty.decode_side) if data.startswith(_JPEG) else 1
    if width * height > duty.at_once * scale**2:
        return Decoded()
    pixels = open_rgb(data, duty.decode_side).pixels
    made = squares(pixels, duty.sides, duty.resize)
    return Decoded(made, fitted(pixels, duty.picture_side) if picture else None)


def main() -> None:
    """Decode what comes until nothing more does."""
    incoming, outgoing = _streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the server, which answers what it began
    duty = Duty.from_line(incoming.readline())
    _bound(duty)
    outgoing.write(_line({"ready": True}))
    outgoing.flush()
    while order := incoming.readline():
        asked = json.loads(order)
        data = incoming.read(asked["bytes"])
        if len(data) < asked["bytes"]:
            break  # the server is gone
        _allow_cpu(duty.cpu_seconds)
        for part in _answer(data, duty, picture=asked["picture"]):
            outgoing.write(part)
        outgoing.flush()
        del data  # before the next one comes


def _answer(data: bytes, duty: Duty, *, picture: bool) -> list[bytes | memoryview]:
    """A line, and the pixels that it tells of."""
    try:
        decoded = decode(data, duty, picture=picture)
    except ImageReadError as error:
        return [_line({"kind": error.kind, "detail": error.detail})]
    except MemoryError:  # while it was resized
        return [_line({"kind": "too_large", "detail": "not enough memory to decode it"})]
    if not decoded.squares:
        return [_line({"large": True})]
    shape = [] if decoded.picture is None else list(decoded.picture.shape[:2])
    parts = [*decoded.squares, *([] if decoded.picture is None else [decoded.picture])]
    return [_line({"picture": shape}), *(np.ascontiguousarray(each).data.cast("B") for each in parts)]


def _line(values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


def _streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output, which no library has from then on."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    os.close(nothing)
    return incoming, outgoing


def _bound(duty: Duty) -> None:
    """What the system will not let this process have, whatever runs in it. Linux alone keeps all of it."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(duty.niceness)
    bounds = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,  # no file: pipes do not count
        "RLIMIT_NPROC": 0,  # neither processes nor threads, unless it runs as root
        "RLIMIT_NOFILE": _FILES,
    }
    if sys.platform == "linux":  # others either lack it or do not say how much is in use
        bounds["RLIMIT_AS"] = _address_space() + duty.memory
    for name, most in bounds.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _allow_cpu(seconds: int) -> None:
    """From now on; the kernel ends the process behind it."""
    if sys.platform == "win32":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    until = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def expected_bytes(sides: Sequence[int], picture: Sequence[int]) -> int:
    """How many bytes come behind an answer's line: of squares with these sides, and of a picture (height, width)."""
    return 3 * (sum(side**2 for side in sides) + (math.prod(picture) if picture else 0))


if __name__ == "__main__":
    main()
