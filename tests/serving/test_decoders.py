"""Decoders in processes of their own: the same pixels, bounds that hold, and a new one for each that dies or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served import Client, by_length, picture, serving

from automl_vision.data.decode import open_rgb
from automl_vision.data.preprocess import fitted, square
from automl_vision.errors import ImageReadError
from automl_vision.predictor import Prediction
from automl_vision.serving import decoders
from automl_vision.serving.decoder import Duty
from automl_vision.serving.decoders import Decoders, Picture
from automl_vision.serving.limits import MEGABYTE, Busy

DUTY = Duty(
    sides=(8, 16),
    resize="squash",
    decode_side=256,
    pixels=10_000_000,
    at_once=10_000_000,
    picture_side=20,
    memory=512 * MEGABYTE,
    cpu_seconds=10,
)
#: A decoder that does what an image says; the real one in all else.
ODD = """
import os, signal, sys, time
from automl_vision.errors import ImageReadError
from automl_vision.serving import decoder
real = decoder.decode
def decode(data, duty, *, picture):
    does = {{
        b"crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        b"leave": lambda: os._exit(0),
        b"hang": lambda: time.sleep(600),
        b"spin": lambda: [None for _ in iter(int, 1)],
        b"tell": lambda: os.write(3, b"x"),
        b"lie": lambda: os.write({stream}, b'{{"picture": [9, 9999999999]}}' + bytes(90) + b"\\n"),
        b"babble": lambda: os.write({stream}, bytes(100_000)),
        b"write": lambda: open("{file}", "wb").write(b"x"),
    }}.get(data)
    try:
        if does: does()
    except OSError as error:
        raise ImageReadError("unreadable", error.strerror) from None
    if data == b"secrets":
        raise ImageReadError("unreadable", " ".join(sorted(os.environ)))
    return real(data, duty, picture=picture)
decoder.decode = decode
decoder.main()
"""


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Decoders that can be told to go wrong; a file that none may write."""
    file = tmp_path / "written"
    # Standard input and output are copied to 3 and 4, and nobody else has them from then on.
    script = ODD.format(stream=4, file=file)
    monkeypatch.setattr(decoders, "COMMAND", (sys.executable, "-P", "-c", script))
    return file


def with_decoders(
    use: Callable[[Decoders], Coroutine[Any, Any, Any]], duty: Duty = DUTY, *, count: int = 1, hung: float = 60.0
) -> Any:
    async def run() -> Any:
        async with Decoders(duty, count, hung_seconds=hung) as opened:
            return await use(opened)

    return asyncio.run(run())


def jpeg(width: int, height: int) -> bytes:
    shades = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "JPEG")
    return file.getvalue()


def same(made: Picture, data: bytes) -> bool:
    pixels = open_rgb(data, DUTY.decode_side).pixels
    assert made.shown is not None
    return all(np.array_equal(made.squares[side], square(pixels, side)) for side in DUTY.sides) and np.array_equal(
        made.shown, fitted(pixels, DUTY.picture_side)
    )


def test_the_pixels_are_those_that_this_process_would_make() -> None:
    files = [picture(1), picture(2, side=90), jpeg(30, 50), jpeg(900, 700)]

    async def decode_all(opened: Decoders) -> list[Picture]:
        return await asyncio.gather(*(opened.decode(data, shown=True) for data in files * 3))

    for made, data in zip(with_decoders(decode_all, count=2), files * 3, strict=True):
        assert same(made, data)


def test_a_large_image_is_decoded_beside_the_others_and_waits_for_none_of_them() -> None:
    async def decode(opened: Decoders) -> Picture:
        (only,) = opened._lane._all
        os.kill(only.number, signal.SIGSTOP)  # and yet its decoder is asked first how large an image is
        large = asyncio.create_task(opened.decode(jpeg(200, 100), shown=True))
        await asyncio.sleep(0.05)
        os.kill(only.number, signal.SIGCONT)
        made = await large
        assert isinstance(await opened.decode(picture(), shown=False), Picture)
        return made

    assert same(with_decoders(decode, replace(DUTY, at_once=5000)), jpeg(200, 100))


def test_of_large_images_no_more_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "LARGE_WAITING", 2)

    async def decode_all(opened: Decoders) -> list[Any]:
        (only,) = opened._large._all
        os.kill(only.number, signal.SIGSTOP)
        asked = [asyncio.create_task(opened.decode(jpeg(200, 100), shown=False)) for _ in range(12)]
        while sum(each.done() for each in asked) < 12 - decoders.LARGE_WAITING:
            await asyncio.sleep(0.01)
        os.kill(only.number, signal.SIGCONT)
        return await asyncio.gather(*asked, return_exceptions=True)

    told = Counter(map(type, with_decoders(decode_all, replace(DUTY, at_once=5000))))
    assert told == {Picture: 2, Busy: 10}  # one in work, and one that waits


@pytest.mark.parametrize(("data", "kind"), [(b"hello", "not_an_image"), (b"", "empty"), (picture()[:60], "truncated")])
def test_what_is_wrong_with_an_image_is_told(data: bytes, kind: str) -> None:
    with pytest.raises(ImageReadError) as told:
        with_decoders(lambda opened: opened.decode(data, shown=False))
    assert told.value.kind == kind
    assert told.value.detail


def test_an_image_that_takes_too_much_memory_is_refused() -> None:
    async def decode(opened: Decoders) -> list[Any]:
        asked = (opened.decode(jpeg(side, side), shown=False) for side in (3000, 20))
        return await asyncio.gather(*asked, return_exceptions=True)

    refused, made = with_decoders(decode, replace(DUTY, decode_side=0, memory=20 * MEGABYTE))
    assert isinstance(refused, ImageReadError)
    assert refused.kind in ("too_large", "truncated")
    assert isinstance(made, Picture)


@pytest.mark.parametrize(
    ("does", "kind"),
    [
        (b"crash", "truncated"),
        (b"leave", "truncated"),
        (b"lie", "truncated"),
        (b"babble", "truncated"),
        (b"spin", "too_large"),
    ],
)
def test_a_decoder_that_goes_wrong_is_replaced(odd: Path, does: bytes, kind: str) -> None:
    async def decode(opened: Decoders) -> tuple[set[int], set[int]]:
        before = set(opened._lane.processes)
        with pytest.raises(ImageReadError) as told:
            await opened.decode(does, shown=True)
        assert told.value.kind == kind
        assert same(await opened.decode(picture(), shown=True), picture())
        return before, set(opened._lane.processes)

    before, after = with_decoders(decode, replace(DUTY, cpu_seconds=1))
    assert not before & after
    assert [number for number in (*before, *after) if _lives(number)] == []


async def again(opened: Decoders) -> Picture:
    """Where the machine is so busy that a decoder seems to hang, it is asked once more."""
    while True:
        with contextlib.suppress(Busy):
            return await opened.decode(picture(), shown=True)


def test_one_that_hangs_is_replaced_and_the_image_may_come_again(odd: Path) -> None:
    async def decode(opened: Decoders) -> None:
        with pytest.raises(Busy):
            await opened.decode(b"hang", shown=False)
        assert same(await again(opened), picture())

    began = time.monotonic()
    with_decoders(decode, hung=1.0)
    assert time.monotonic() - began < 60


def test_one_that_ended_by_chance_costs_nobody_an_answer() -> None:
    async def decode(opened: Decoders) -> None:
        os.kill(opened._lane.processes[0], signal.SIGKILL)
        assert same(await opened.decode(picture(), shown=True), picture())

    with_decoders(decode)


def test_it_has_no_secrets_and_writes_no_file(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_VISION_TOKEN", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")

    async def decode(opened: Decoders) -> list[Any]:
        asked = (opened.decode(does, shown=False) for does in (b"secrets", b"write"))
        return await asyncio.gather(*asked, return_exceptions=True)

    secrets, written = with_decoders(decode, count=1)
    assert "TOKEN" not in secrets.detail
    assert "PATH" in secrets.detail
    assert isinstance(written, ImageReadError)
    assert not odd.exists() or odd.stat().st_size == 0


def test_what_cannot_be_started_is_told_when_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "COMMAND", ("/nowhere/python",))

    async def decode(_opened: Decoders) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(OSError, match="nowhere"):
        with_decoders(decode)


# --- behind the server ----------------------------------------------------------------------------------------------


def by_shade(images: Sequence[Picture]) -> list[Prediction]:
    return by_length([bytes(int(each.squares[8].mean())) for each in images])


@pytest.fixture
def client(odd: Path) -> Iterator[Client]:
    with serving(by_shade, decoding=Decoders(DUTY, 2, hung_seconds=2.0)) as served:
        yield served


def test_a_request_is_answered_whatever_its_image_does_to_the_decoder(client: Client) -> None:
    reply = client.predict(("a.png", picture()), ("crash", b"crash"), ("b.png", picture(1)))
    assert reply.status == 200
    assert [row["status"] for row in reply.rows] == ["ok", "error", "ok"]
    assert (reply.rows[1]["error"]["kind"], reply.rows[1]["error"]["http_status"]) == ("truncated", 422)
    hung = client.predict(("hang", b"hang"))
    assert (hung.status, hung.rows[0]["error"]["kind"], hung.headers["retry-after"]) == (503, "busy", "1")
    end = time.monotonic() + 60
    while client.predict(("a.png", picture())).status != 200:  # a busy machine may make others seem to hang
        assert time.monotonic() < end


def test_a_process_asks_for_its_token_and_its_decoders_end_with_it(begin: Any) -> None:
    running = begin("--decoders", "2", "--token", "a-token-of-this-test")
    assert running.client.get("/about").status == 401
    assert running.client.get("/about", Authorization="Bearer a-token-of-this-test").status == 200
    number = running._process.pid
    lists = Path(f"/proc/{number}/task").glob("*/children")
    started = [int(each) for file in lists for each in file.read_text("ascii").split()]
    assert len([each for each in started if b"decoder" in Path(f"/proc/{each}/cmdline").read_bytes()]) == 3
    running.close()
    end = time.monotonic() + 30
    while any(_lives(each) for each in started):
        assert time.monotonic() < end
        time.sleep(0.02)


def _lives(number: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{number}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    return False
