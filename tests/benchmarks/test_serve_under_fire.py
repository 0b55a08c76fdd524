"""The measurement notices what it is there for: wrong answers, crashes, memory that grows, clients kept out."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trust import serve_under_fire
from trust.serve_under_fire import (
    BAD_REQUESTS,
    HUGE_REQUESTS,
    SLOW,
    Field,
    Good,
    Measured,
    Sample,
    Tally,
    crowd_of,
    exchanged,
    good_client,
    growth_mb,
    judged,
    mutated,
)

IMAGE = b"\xff\xd8" + bytes(range(256)) * 10
SAID = {"cat": 0.75, "dog": 0.25}


def answer(probabilities: dict[str, float]) -> bytes:
    return json.dumps({"results": [{"probabilities": probabilities}]}).encode()


@contextmanager
def answering(told: Callable[[], tuple[int, bytes]], *, keeps: bool = True) -> Iterator[int]:
    """Stands in for the server, at the port that is given; status 0 breaks the connection.

    Where it does not keep connections, the second request on one breaks it.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        used = False

        def do_POST(self) -> None:
            if self.used and not keeps:
                self.close_connection = True
                return
            self.used = True
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = told()
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def seen_by_good_clients(told: Callable[[], tuple[int, bytes]], *, keeps: bool = True) -> Tally:
    with answering(told, keeps=keeps) as port:
        place = Field(port, [Good(IMAGE, SAID)], 0.01, threading.Event(), Tally())
        thread = threading.Thread(target=good_client, args=(place, random.Random(0)))
        thread.start()
        place.over.wait(0.3)
        place.over.set()
        thread.join()
    return place.tally


def test_right_answers_are_timed() -> None:
    tally = seen_by_good_clients(lambda: (200, answer(SAID)))
    assert tally.wrong == []
    assert tally.outcomes["good: 200"] == len(tally.seconds) > 0


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (lambda: (200, answer({"cat": 0.6, "dog": 0.4})), "another image's answer"),
        (lambda: (200, answer({"cat": 0.75})), "another image's answer"),
        (lambda: (503, b"{}"), "503"),
        (lambda: (0, b""), "RemoteDisconnected"),
    ],
)
def test_wrong_answers_to_good_clients_are_told(told: Callable[[], tuple[int, bytes]], wrong: str) -> None:
    tally = seen_by_good_clients(told)
    assert tally.seconds == []
    assert tally.wrong
    assert all(each.startswith(f"good: {wrong}") for each in tally.wrong)


def test_an_answer_that_a_request_may_not_get_is_wrong() -> None:
    made = BAD_REQUESTS["cut image"](IMAGE, random.Random(0))
    tally = Tally()
    for status in (422, 200, 500):
        with answering(lambda status=status: (status, b"{}")) as port:  # type: ignore[misc]
            tally.note("cut image", exchanged(port, made.raw)[0], made.may)
    assert tally.wrong == ["cut image: 200, not 422", "cut image: 500, not 422"]


def test_a_kept_connection_that_was_closed_meanwhile_is_no_wrong_answer() -> None:
    tally = seen_by_good_clients(lambda: (200, answer(SAID)), keeps=False)
    assert tally.wrong == []
    assert tally.outcomes["good: 200"] > 1


def test_who_never_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_under_fire, "SILENT", 0.2)
    over = threading.Event()
    with answering(lambda: (200 if over.wait(30) else 0, b"")) as port:
        assert exchanged(port, BAD_REQUESTS["text"](IMAGE, random.Random(0)).raw) == ("held", "")
        over.set()


def measured(**other: Any) -> Measured:
    samples = [Sample(float(second), 1000.0, {7: 60.0, 8: 50.0}) for second in range(100)]
    quiet, fire = (Tally(seconds=[seconds] * 50) for seconds in (0.1, 0.3))
    facts = {
        "quiet": quiet,
        "fire": fire,
        "samples": samples,
        "seconds": 100.0,
        "survived": True,
        "code": 0,
        "said": "",
    }
    return Measured(**(facts | other))


def test_what_was_promised_is_held() -> None:
    figure = judged(measured())
    assert figure.held
    assert figure.line.startswith("R14 held: ")
    assert "3.0 times the quiet 100 ms" in figure.text


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"fire": Tally(seconds=[0.3] * 50, wrong=["good: 503, not 200"])}, "1 x good: 503, not 200"),
        ({"quiet": Tally(seconds=[0.1] * 50, wrong=["good: 500, not 200"])}, "1 x good: 500"),
        ({"fire": Tally(seconds=[0.3] * 40 + [0.5] * 10)}, "5.0 times as long"),
        ({"fire": Tally()}, "times as long"),
        ({"survived": False}, "ended before"),
        ({"code": 1}, "exit code 1"),
        ({"said": "Traceback (most recent call last):"}, "a traceback"),
        ({"samples": [Sample(float(each), 1000.0 + each, {}) for each in range(100)]}, "memory grew by 70 MB"),
        ({"samples": []}, "memory grew by nan MB"),
    ],
)
def test_what_was_not_is_missed(other: dict[str, Any], told: str) -> None:
    figure = judged(measured(**other))
    assert figure.line.startswith("R14 MISSED: ")
    assert any(told in each for each in figure.faults)


def test_decoders_that_grow_are_seen_and_an_image_under_way_is_not() -> None:
    def samples(of_decoder: Callable[[int], float]) -> list[Sample]:
        return [Sample(float(each), 1000.0, {7: of_decoder(each)}) for each in range(100)]

    assert growth_mb(samples(lambda each: 50.0 + each), 100.0) == pytest.approx(70.0)
    assert growth_mb(samples(lambda each: 900.0 if each % 3 else 50.0), 100.0) == 0.0


def test_mutations_differ_and_follow_from_the_seed() -> None:
    assert mutated(IMAGE, random.Random(1)) == mutated(IMAGE, random.Random(1)) != mutated(IMAGE, random.Random(2))
    assert all(mutated(IMAGE, random.Random(seed)) != IMAGE for seed in range(50))


def test_every_kind_is_sent_by_somebody_and_all_clients_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_under_fire, "plain_png", lambda _side: IMAGE)
    monkeypatch.setattr(serve_under_fire, "_made", {})
    assert sum(count for _, count in crowd_of(50, 100)) == 50 + 1  # one more holds all half-open ones
    assert not set(BAD_REQUESTS) & set(HUGE_REQUESTS) | set(SLOW) & set(BAD_REQUESTS)
    for each in (*BAD_REQUESTS.values(), *HUGE_REQUESTS.values()):
        assert each(IMAGE, random.Random(0)).may


@pytest.mark.parametrize("options", [["--clients", "3"], ["--minutes", "0"], ["--half-open", "301"]])
def test_a_fire_without_bounds_is_refused(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        serve_under_fire.main(options)
    assert left.value.code == 2
