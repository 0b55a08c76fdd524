"""The check notices what it is there for: trials that are lost, changed, begun again, or trained twice."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.kill_nodes import Tally, compare, ended_well, plan_of

EPOCHS = [{"epoch": 1, "seconds": 0.5}, {"epoch": 2, "seconds": 0.25}]


def record(**changes: Any) -> dict[str, Any]:
    return {"number": 3, "attempt": 1, "state": "complete", "epochs": EPOCHS, "checksum": "a", **changes}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (record(), record(), (0, 0)),
        (record(), None, (1, 0)),
        (record(), record(score=0.5), (1, 0)),
        (record(), record(attempt=2, state="running"), (1, 1)),
        (record(state="running"), record(), (0, 0)),
        (record(state="running"), record(attempt=3), (0, 0)),
        (record(state="paused"), None, (1, 0)),
        (record(state="running"), record(epochs=EPOCHS[:1]), (0, 1)),
        (record(state="running"), record(epochs=[EPOCHS[0], {"epoch": 2, "seconds": 0.3}]), (0, 1)),
    ],
)
def test_what_was_on_record_is_held_against_the_end(before: Any, after: Any, found: tuple[int, int]) -> None:
    tally = Tally()
    compare({3: before}, {3: after} if after else {}, tally)
    assert (tally.lost, tally.repeated) == found
    assert tally.sound == (found == (0, 0))


def test_kills_come_in_an_order_that_the_seed_says() -> None:
    plan = plan_of(20, 10, seed=0)
    assert plan == plan_of(20, 10, seed=0) != plan_of(20, 10, seed=1)
    assert (plan.count("node"), plan.count("driver")) == (20, 10)


def test_a_trial_that_waits_too_long_or_a_search_that_never_ended_misses_the_promise() -> None:
    good = Tally(nodes=1, runs=1, trials=12, attempts_lost=1, rescheduled=[2.0])
    assert good.figure.held
    assert not Tally(nodes=1, runs=0, rescheduled=[2.0]).figure.held
    assert not Tally(nodes=1, runs=1, rescheduled=[2.0, 15.1]).figure.held
    assert not Tally(nodes=1, runs=1, rescheduled=[2.0], faults=["run0 hangs"]).figure.held


@pytest.mark.parametrize(
    ("state", "notes", "well"),
    [
        ("complete", {}, True),
        ("stopped", {}, True),
        ("failed", {"lost": 4}, True),
        ("failed", {"lost": 3}, False),
        ("failed", {}, False),
        ("running", {"lost": 4}, False),
    ],
)
def test_a_trial_ends_well_or_is_given_up_after_it_was_lost_too_often(state: str, notes: Any, well: bool) -> None:
    assert ended_well(record(state=state, notes=notes)) is well
