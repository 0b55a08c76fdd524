"""What the two sides say to each other, and the side that works, over a connection in memory."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_jobs import told, wait_for

from automl_vision.errors import DataError, Interrupted
from automl_vision.executors import workplace
from automl_vision.executors.workplace import (
    Alive,
    Beat,
    Broken,
    Do,
    Drop,
    Ended,
    Leaving,
    Message,
    NoMessage,
    Open,
    Orders,
    Ready,
    Told,
    Worker,
    WorkFailed,
    Workplace,
    beat,
    error_of,
    error_values,
    from_line,
    to_line,
)

TEXT = st.text(st.characters() | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.dictionaries(TEXT, st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=8), max_size=4)
NUMBERS = st.integers(0, 10**9)
MESSAGES = st.one_of(
    st.builds(Open, TEXT, TEXT),
    st.builds(Do, NUMBERS, NUMBERS, VALUES),
    st.builds(Drop, NUMBERS, NUMBERS),
    st.builds(Beat, st.none() | st.floats(allow_nan=False, allow_infinity=False), st.booleans()),
    st.builds(Told, NUMBERS, NUMBERS, VALUES),
    st.builds(Ended, NUMBERS, NUMBERS),
    st.builds(Broken, VALUES),
    st.sampled_from([Alive(), Ready(), Leaving()]),
)


@given(message=MESSAGES)
def test_a_message_is_one_line_and_comes_back_as_it_was(message: Message) -> None:
    line = to_line(message)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert from_line(line) == message


def test_every_kind_of_message_is_in_the_table() -> None:
    assert set(workplace.MESSAGES.values()) == {Open, Do, Drop, Beat, Alive, Ready, Told, Ended, Leaving, Broken}


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{", b"[]", b"3", b"{}", b"\xff", b"[" * 10**6),
        *(b'{"kind": "none"}', b'{"kind": "do"}', b'{"kind": "alive", "more": 1}', b'{"kind": []}'),
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(NoMessage):
        from_line(line)


def test_nothing_but_values_of_json_is_sent() -> None:
    for progress in ({"score": math.nan}, {"score": math.inf}, {"file": Path("here")}):
        with pytest.raises((ValueError, TypeError)):
            to_line(Told(0, 1, progress))


# --- orders ---------------------------------------------------------------------------------------------------------


def test_the_time_that_is_left_runs_down_by_the_own_clock() -> None:
    now = [10.0]
    orders = Orders(lambda: now[0])
    assert orders.seconds_left() == math.inf
    orders.hear(Beat(30.0, stopped=False))
    now[0] += 12
    assert orders.seconds_left() == 18.0
    orders.hear(Beat(None, stopped=False))
    assert orders.seconds_left() == math.inf


def test_a_beat_that_was_overtaken_says_nothing() -> None:
    orders, now = Orders(lambda: 0.0), [-5.0]
    workplace: Workplace[Any, Any] = Workplace(seconds_left=lambda: now[0])
    early = beat(workplace)
    now[0] = 100.0
    orders.hear(beat(workplace))
    orders.hear(from_line(to_line(early)))  # type: ignore[arg-type]
    assert orders.seconds_left() == 100.0
    orders.hear(beat(workplace))
    assert orders.seconds_left() == 100.0


def test_a_job_is_replaced_by_its_own_number_and_older_attempts_only() -> None:
    orders = Orders()
    orders.begin(3, 2)
    for other in ((4, 9), (3, 1)):
        orders.drop(*other)
        assert not orders.replaced
    orders.drop(3, 2)
    assert orders.replaced
    orders.begin(3, 3)
    assert not orders.replaced
    orders.leave_alone()
    assert orders.replaced


def test_who_is_taken_away_stops_as_if_the_user_had_said_so() -> None:
    orders = Orders()
    assert not orders.stopped
    orders.leaving = True
    assert orders.stopped
    assert not orders.replaced


def test_a_beat_says_what_the_workplace_says() -> None:
    assert beat(Workplace()) == Beat(None, stopped=False)
    assert beat(Workplace(seconds_left=lambda: 5.0, stopped=lambda: True)) == Beat(5.0, stopped=True)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [DataError("what", value="v", fix="f"), Interrupted("w"), DataError("w", value=7, fix="f")]
)
def test_errors_of_ours_keep_their_class_and_text(error: Any) -> None:
    again = error_of(json.loads(json.dumps(error_values(error))))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_errors_of_the_system_keep_what_the_run_asks_for() -> None:
    again = error_of(error_values(OSError(28, "full", "some/file")))
    assert isinstance(again, OSError)
    assert (again.errno, again.strerror, again.filename) == (28, "full", "some/file")


@pytest.mark.parametrize("name", ["annotations", "AutomlVisionErrors", "__name__", ""])
def test_no_name_but_that_of_an_error_is_called(name: str) -> None:
    assert isinstance(error_of({"type": name, "text": "t"}), WorkFailed)


# --- the side that works --------------------------------------------------------------------------------------------


class InMemory:
    """A connection whose other end is a test."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.broken = False

    def send(self, message: Message) -> None:
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        self.answers.put(from_line(to_line(message)))

    def receive(self) -> Message | None:
        return self.orders.get()

    def next(self) -> Message:
        return self.answers.get(timeout=20)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[InMemory]:
    """A worker of odd jobs, which has opened its work."""
    made = InMemory()
    worker = Worker(made)
    thread = threading.Thread(target=worker.run)
    made.worker = worker  # type: ignore[attr-defined]
    made.thread = thread  # type: ignore[attr-defined]
    thread.start()
    made.orders.put(Open("odd_jobs:open_odd", str(tmp_path)))
    assert made.next() == Ready()
    yield made
    made.orders.put(None)
    thread.join(20)
    assert not thread.is_alive()


def test_a_worker_does_one_job_after_the_other(connection: InMemory) -> None:
    for number in (0, 1):
        connection.orders.put(Do(number, 1, {"do": "say", "what": number}))
    assert [connection.next() for _ in range(4)] == [
        *(Told(0, 1, {"said": 0}), Ended(0, 1)),
        *(Told(1, 1, {"said": 1}), Ended(1, 1)),
    ]


def test_a_worker_answers_beats_while_it_works(connection: InMemory) -> None:
    connection.orders.put(Do(0, 1, {"do": "wait"}))
    assert isinstance(connection.next(), Told)
    connection.orders.put(Beat(9.0, stopped=False))
    assert connection.next() == Alive()
    connection.orders.put(Beat(9.0, stopped=True))
    answers = [connection.next() for _ in range(3)]
    assert Ended(0, 1) in answers
    assert any(isinstance(each, Told) and each.progress["stopped"] for each in answers)


def test_a_dropped_job_says_nothing_more_but_that_it_ended(connection: InMemory, tmp_path: Path) -> None:
    connection.orders.put(Do(0, 1, {"do": "wait"}))
    assert isinstance(connection.next(), Told)
    connection.orders.put(Drop(0, 1))
    assert connection.next() == Ended(0, 1)
    assert told(tmp_path) == []


def test_whose_driver_is_gone_leaves_and_writes_nothing(connection: InMemory, tmp_path: Path) -> None:
    connection.orders.put(Do(0, 1, {"do": "wait"}))
    assert isinstance(connection.next(), Told)
    connection.broken = True
    connection.orders.put(None)
    assert wait_for(lambda: not connection.thread.is_alive())  # type: ignore[attr-defined]
    assert told(tmp_path) == []


@pytest.mark.parametrize("beats", [0, 3])
def test_a_driver_that_says_nothing_is_given_up(tmp_path: Path, beats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process lives, or the connection would end; whatever it gave to others is left alone."""
    monkeypatch.setattr(workplace, "BEAT_SECONDS", 0.05)
    made, gone = InMemory(), threading.Event()
    thread = threading.Thread(target=Worker(made, gone.set, silent_seconds=0.5).run)
    thread.start()
    made.orders.put(Open("odd_jobs:open_odd", str(tmp_path)))
    made.orders.put(Do(0, 1, {"do": "wait"}))
    for _ in range(beats):
        assert not gone.wait(0.3)
        made.orders.put(Beat(9.0, stopped=False))
    assert gone.wait(5)
    thread.join(5)
    assert not thread.is_alive()
    made.orders.put(None)
    answers = [made.next() for _ in range(3 + beats)]
    assert answers[-1] == Leaving()
    assert not [each for each in answers if isinstance(each, Ended)]
    assert told(tmp_path) == []


def test_an_error_of_a_job_that_nobody_wants_ends_nothing(connection: InMemory) -> None:
    connection.orders.put(Do(0, 1, {"do": "fail_late"}))
    assert isinstance(connection.next(), Told)
    connection.orders.put(Drop(0, 1))
    connection.orders.put(Do(1, 1, {"do": "say", "what": "next"}))
    assert [connection.next() for _ in range(3)] == [Ended(0, 1), Told(1, 1, {"said": "next"}), Ended(1, 1)]


def test_who_is_taken_away_says_so_instead_of_its_last_progress(connection: InMemory, tmp_path: Path) -> None:
    connection.orders.put(Do(0, 1, {"do": "wait"}))
    assert isinstance(connection.next(), Told)
    connection.worker.leave()  # type: ignore[attr-defined]
    assert connection.next() == Leaving()
    assert wait_for(lambda: not connection.thread.is_alive())  # type: ignore[attr-defined]
    assert told(tmp_path) == ["wrote"]  # as of its last checkpoint


def test_an_error_ends_the_worker_and_is_told(connection: InMemory) -> None:
    connection.orders.put(Do(0, 1, {"do": "fail", "how": "ours"}))
    assert isinstance(connection.next(), Told)
    message = connection.next()
    assert isinstance(message, Broken)
    assert (message.number, message.attempt) == (0, 1)
    assert str(error_of(message.error)) == str(DataError("no images", value="here", fix="bring some"))
    assert wait_for(lambda: not connection.thread.is_alive())  # type: ignore[attr-defined]
