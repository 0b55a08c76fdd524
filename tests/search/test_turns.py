"""Backbones side by side: equal time for each, and no search sees the trials of another."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from histories import finetune
from hypothesis import given
from hypothesis import strategies as st
from test_search import EPOCH_SECONDS, PROBE_SECONDS, World, make_task

from automl_vision.executors import LocalExecutor
from automl_vision.search.search import SearchEnded
from automl_vision.search.trial import Trial
from automl_vision.search.turns import Shares, TurnBegan, Turns
from automl_vision.training.recipe import Recipe

NAMES = ("net_a", "net_b", "net_c")


class SharedWorld(World):
    """A world whose trials end when the turn does."""

    shares: Shares

    @property
    def left(self) -> float:
        return self.shares.left()


def run(
    seconds: float, history: Sequence[Trial] = (), used: dict[str, float] | None = None, **changes: Any
) -> tuple[Turns, list[Trial | TurnBegan], str]:
    """The turns, what they yielded, and why they ended."""
    world = SharedWorld(stop_at=changes.pop("stop_at", math.inf), fails=changes.pop("fails", None))
    world.shares = Shares(seconds, used or {}, now=lambda: world.time)
    turns = Turns(
        make_task(**{"max_trials": 0, **changes}),
        LocalExecutor(world),
        history,
        shares=world.shares,
        interrupted=lambda: world.stopped,
    )
    *events, end = list(turns)
    assert isinstance(end, SearchEnded)
    return turns, events, end.reason  # type: ignore[return-value] # all but the last are no ends


def of(turns: Turns, name: str) -> list[Trial]:
    return [trial for trial in turns.trials if trial.recipe.backbone == name]


@given(st.floats(20.0, 1_500.0))
def test_each_backbone_has_its_time_and_no_more(seconds: float) -> None:
    turns, events, reason = run(seconds)
    assert reason == "budget"
    assert [event.backbone for event in events if isinstance(event, TurnBegan)] == list(NAMES)
    spent = turns.shares.spent()
    assert set(spent) == set(NAMES)
    assert max(spent.values()) <= seconds + PROBE_SECONDS
    assert all(of(turns, name)[0].recipe.kind == "probe" for name in NAMES)
    assert turns.shares.to_come(NAMES) == pytest.approx(sum(max(seconds - each, 0) for each in spent.values()))


def test_turns_come_one_after_the_other_and_numbers_count_on() -> None:
    turns, _, _ = run(800.0)
    assert [trial.number for trial in turns.trials] == list(range(len(turns.trials)))
    order = [trial.recipe.backbone for trial in turns.trials]
    assert order == sorted(order)
    assert all(len(of(turns, name)) > 2 for name in NAMES)
    assert {trial.state for trial in turns.trials} <= {"complete", "stopped"}
    assert all(turns.space.contains(trial.parameters) for trial in turns.trials if trial.parameters)


def test_a_backbone_is_searched_as_if_it_were_alone() -> None:
    """Good trials of an earlier backbone end nothing of a later one."""
    turns, _, _ = run(700.0)
    alone, _, _ = run(700.0, backbones=("net_c",))
    recipes, expected = ([trial.recipe for trial in of(each, "net_c")] for each in (turns, alone))
    assert [recipe for recipe in recipes if recipe.kind == "probe"] == expected[:1]
    assert recipes[1] == expected[1]
    assert len(recipes) == len(expected)


def test_the_number_of_trials_counts_for_each() -> None:
    turns, _, reason = run(5_000.0, max_trials=2)
    assert reason == "trials"
    assert [sum(trial.recipe.kind == "finetune" for trial in of(turns, name)) for name in NAMES] == [2, 2, 2]


def test_one_recipe_is_compared_across_backbones() -> None:
    turns, _, _ = run(5_000.0, max_trials=1, fixed={"epochs": 3, "learning_rate": 0.5})
    asked_for = turns.task.candidates(turns.trials)
    assert [(trial.recipe.backbone, trial.recipe.epochs, trial.recipe.learning_rate) for trial in asked_for] == [
        (name, 3, 0.5) for name in NAMES
    ]


def test_a_backbone_that_cannot_be_trained_leaves_the_others_theirs() -> None:
    turns, _, _ = run(300.0, fails={0: 0} | dict.fromkeys(range(1, 3), 0))
    assert {trial.state for trial in of(turns, "net_a")[:2]} == {"failed"}
    assert any(trial.state == "complete" for trial in of(turns, "net_c"))


@pytest.mark.parametrize("stop_at", [2.0, 100.0, 350.0, 620.0])
def test_a_resumed_run_goes_on_where_it_was(stop_at: float) -> None:
    first, _, reason = run(300.0, stop_at=stop_at)
    assert reason == "interrupted"
    used = first.shares.spent()
    again, _, reason = run(300.0, first.trials, used)
    assert reason == "budget"
    spent = again.shares.spent()
    assert all(used.get(name, 0.0) <= spent[name] <= 300.0 + EPOCH_SECONDS for name in NAMES)
    before = {trial.number: trial for trial in first.trials if trial.state == "complete"}
    assert {number: trial for number, trial in before.items() if again.trials[number] != trial} == {}
    assert [trial.number for trial in again.trials] == list(range(len(again.trials)))
    assert all(of(again, name) for name in NAMES)


def test_numbers_of_an_earlier_backbone_are_not_given_twice() -> None:
    """The first backbone has time left though a later one has begun: its share was not recorded before a crash."""
    history = [
        finetune(number, [0.5] * 12, recipe=Recipe("finetune", name, 160, epochs=12), parameters={})
        for number, name in enumerate(["net_a", "net_b"])
    ]
    turns, _, _ = run(200.0, history)
    assert len({trial.number for trial in turns.trials}) == len(turns.trials)
    assert turns.trials[:2] == history


def test_time_belongs_to_nobody_between_turns() -> None:
    now = [0.0]
    shares = Shares(10.0, {"a": 4.0}, now=lambda: now[0])
    assert shares.left() == 0.0
    shares.begin("a")
    now[0] = 2.0
    assert (shares.left(), shares.spent()) == (4.0, {"a": 6.0})
    shares.end()
    now[0] = 9.0
    assert (shares.left(), shares.spent(), shares.to_come(["a", "b"])) == (0.0, {"a": 6.0}, 14.0)


def at_each_step(of: tuple[str, ...], do: Callable[[], None]) -> Callable[..., Any]:
    """A trace that does something between any two instructions of these methods, as another thread may."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_qualname not in of:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            sys.settrace(None)  # what is done is not traced
            do()
            sys.settrace(trace)
        return trace

    return trace


@contextmanager
def traced(trace: Callable[..., Any]) -> Iterator[None]:
    former = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(former)


def test_whoever_asks_while_a_turn_begins_hears_of_the_old_one_or_the_new_one() -> None:
    """The thread that tells workers how much is left asks at any moment: a turn that seems over ends their trials."""
    shares, heard = Shares(10.0, now=lambda: 100.0), []
    with traced(at_each_step(("Shares.begin", "Shares.end"), lambda: heard.append((shares.left(), shares.spent())))):
        shares.begin("a")
    assert len(heard) > 5
    assert all(each in [(0.0, {}), (10.0, {"a": 0.0})] for each in heard)
