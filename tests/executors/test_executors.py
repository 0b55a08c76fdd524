from __future__ import annotations

from collections.abc import Iterator

import pytest

from automl_vision.executors import EXECUTORS, Executor

every_executor = pytest.mark.parametrize("name", EXECUTORS)


class Letters:
    """Work that spells a word, and remembers what was begun, taken and tidied up."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, word: str) -> Iterator[str]:
        self.told.append(f"begin {word}")
        try:
            for end in range(1, len(word) + 1):
                yield word[:end]
        finally:
            self.told.append(f"leave {word}")


def make(name: str) -> tuple[Executor[str, str], Letters]:
    work = Letters()
    return EXECUTORS[name](work), work


def drain(executor: Executor[str, str], most: int = 50) -> list[tuple[int, int, str | None, bool]]:
    reports = []
    for _ in range(most):
        news = executor.poll()
        if not news:
            break
        reports += [(each.number, each.attempt, each.progress, each.ended) for each in news]
    return reports


@every_executor
def test_an_idle_one_has_room_and_nothing_to_tell(name: str) -> None:
    executor, _ = make(name)
    assert executor.free_slots >= 1
    assert executor.poll() == []


@every_executor
def test_reports_come_in_order_and_the_last_one_says_so(name: str) -> None:
    executor, _ = make(name)
    executor.submit(7, 2, "abc")
    reports = drain(executor)
    assert {report[:2] for report in reports} == {(7, 2)}
    assert [report[2] for report in reports if report[2] is not None] == ["a", "ab", "abc"]
    assert [report[3] for report in reports] == [False] * (len(reports) - 1) + [True]


@every_executor
def test_a_job_takes_a_slot_until_it_ends(name: str) -> None:
    executor, _ = make(name)
    slots = executor.free_slots
    executor.submit(0, 1, "ab")
    assert executor.free_slots == slots - 1
    drain(executor)
    assert executor.free_slots == slots


@every_executor
def test_a_job_too_many_is_refused_and_harms_none(name: str) -> None:
    executor, work = make(name)
    slots = executor.free_slots
    for number in range(slots):
        executor.submit(number, 1, "ab")
    with pytest.raises(RuntimeError, match="slot"):
        executor.submit(slots, 1, "no")
    reports = drain(executor)
    assert {report[0] for report in reports if report[3]} == set(range(slots))
    assert "begin no" not in work.told


@every_executor
def test_a_job_without_progress_ends_too(name: str) -> None:
    executor, _ = make(name)
    executor.submit(0, 1, "")
    assert [(progress, ended) for _, _, progress, ended in drain(executor)] == [(None, True)]


@every_executor
def test_jobs_follow_one_another(name: str) -> None:
    executor, _ = make(name)
    for number, word in enumerate(["ab", "c", "def"]):
        executor.submit(number, 1, word)
        assert [progress for *_, progress, _ in drain(executor) if progress][-1] == word


@every_executor
def test_after_a_cancel_no_report_comes_and_the_work_is_tidied_up(name: str) -> None:
    executor, work = make(name)
    slots = executor.free_slots
    executor.submit(3, 1, "abc")
    assert executor.poll()
    executor.cancel(3)
    assert drain(executor) == []
    assert executor.free_slots == slots
    assert work.told == ["begin abc", "leave abc"]
    executor.cancel(3)


@every_executor
def test_cancelling_another_job_does_nothing(name: str) -> None:
    executor, _ = make(name)
    executor.submit(3, 1, "ab")
    executor.cancel(4)
    assert [progress for *_, progress, _ in drain(executor) if progress] == ["a", "ab"]


@every_executor
def test_closing_stops_the_work_and_can_be_done_twice(name: str) -> None:
    executor, work = make(name)
    executor.submit(0, 1, "abc")
    executor.poll()
    executor.close()
    executor.close()
    assert work.told[-1] == "leave abc"
    assert executor.poll() == []
