"""What every executor does, wherever the work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from odd_jobs import Values, open_letters, told, wait_for

from automl_vision.executors import EXECUTORS, Executor, Slot, Workplace
from automl_vision.executors.workplace import Orders
from automl_vision.training.ranks import ALONE

every_executor = pytest.mark.parametrize("name", EXECUTORS)

Make = Callable[..., Executor[Values, Values]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes an executor that spells words; all are closed in the end."""
    made: list[Executor[Values, Values]] = []

    def one(name: str, slots: int = 2) -> Executor[Values, Values]:
        workplace: Workplace[Values, Values] = Workplace(
            here=open_letters(str(tmp_path), Orders()),
            opening="odd_jobs:open_letters",
            folder=str(tmp_path),
            slots=(Slot(),) * slots,
            logs=tmp_path / "workers",
            ranks=ALONE,
        )
        made.append(EXECUTORS[name](workplace))
        return made[-1]

    yield one
    for executor in made:
        executor.close()


def word(letters: str) -> Values:
    return {"word": letters}


def drain(executor: Executor[Values, Values], most: int = 50) -> list[tuple[int, int, Any, bool]]:
    reports = []
    for _ in range(most):
        news = executor.poll()
        if not news:
            break
        reports += [(each.number, each.attempt, (each.progress or {}).get("said"), each.ended) for each in news]
    return reports


@every_executor
def test_an_idle_one_has_room_and_nothing_to_tell(name: str, make: Make) -> None:
    executor = make(name)
    assert executor.free_slots >= 1
    assert executor.poll() == []


@every_executor
def test_reports_come_in_order_and_the_last_one_says_so(name: str, make: Make) -> None:
    executor = make(name)
    executor.submit(7, 2, word("abc"))
    reports = drain(executor)
    assert {report[:2] for report in reports} == {(7, 2)}
    assert [report[2] for report in reports if report[2] is not None] == ["a", "ab", "abc"]
    assert [report[3] for report in reports] == [False] * (len(reports) - 1) + [True]


@every_executor
def test_a_job_takes_a_slot_until_it_ends(name: str, make: Make) -> None:
    executor = make(name)
    slots = executor.free_slots
    executor.submit(0, 1, word("ab"))
    assert executor.free_slots == slots - 1
    drain(executor)
    assert executor.free_slots == slots


@every_executor
def test_a_job_too_many_is_refused_and_harms_none(name: str, make: Make, tmp_path: Path) -> None:
    executor = make(name)
    slots = executor.free_slots
    for number in range(slots):
        executor.submit(number, 1, word("ab"))
    with pytest.raises(RuntimeError, match="slot"):
        executor.submit(slots, 1, word("no"))
    reports = drain(executor)
    assert {report[0] for report in reports if report[3]} == set(range(slots))
    assert "begin no" not in told(tmp_path)


@every_executor
def test_a_job_without_progress_ends_too(name: str, make: Make) -> None:
    executor = make(name)
    executor.submit(0, 1, word(""))
    assert [(progress, ended) for _, _, progress, ended in drain(executor)] == [(None, True)]


@every_executor
def test_jobs_follow_one_another(name: str, make: Make) -> None:
    executor = make(name, slots=1)
    for number, letters in enumerate(["ab", "c", "def"]):
        executor.submit(number, 1, word(letters))
        assert [progress for *_, progress, _ in drain(executor) if progress][-1] == letters


@every_executor
def test_a_job_may_be_given_again_as_a_later_attempt(name: str, make: Make) -> None:
    executor = make(name, slots=1)
    for attempt in (1, 2):
        executor.submit(3, attempt, word("a"))
        assert {report[:2] for report in drain(executor)} == {(3, attempt)}


@every_executor
def test_after_a_cancel_no_report_comes_and_the_work_is_tidied_up(name: str, make: Make, tmp_path: Path) -> None:
    executor = make(name)
    slots = executor.free_slots
    executor.submit(3, 1, word("abc"))
    assert executor.poll()
    executor.cancel(3)
    assert drain(executor) == []
    assert executor.free_slots == slots
    assert wait_for(lambda: told(tmp_path) == ["begin abc", "leave abc"])
    executor.cancel(3)


@every_executor
def test_after_a_cancel_the_next_job_is_done(name: str, make: Make) -> None:
    executor = make(name, slots=1)
    executor.submit(3, 1, word("abc"))
    assert executor.poll()
    executor.cancel(3)
    executor.submit(4, 1, word("d"))
    assert [(number, progress) for number, _, progress, _ in drain(executor)] == [(4, "d"), (4, None)]


@every_executor
def test_cancelling_another_job_does_nothing(name: str, make: Make) -> None:
    executor = make(name)
    executor.submit(3, 1, word("ab"))
    executor.cancel(4)
    assert [progress for *_, progress, _ in drain(executor) if progress] == ["a", "ab"]


@every_executor
def test_closing_stops_the_work_and_can_be_done_twice(name: str, make: Make, tmp_path: Path) -> None:
    executor = make(name)
    executor.submit(0, 1, word("abc"))
    executor.poll()
    executor.close()
    executor.close()
    assert told(tmp_path)[-1] == "leave abc"
    assert executor.poll() == []
