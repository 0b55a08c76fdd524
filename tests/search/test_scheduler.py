from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from histories import finetune, histories, probe
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.search import scheduler as module
from automl_vision.search.scheduler import (
    ETA,
    FIRST_RUNG,
    KEPT_PAUSED,
    Candidate,
    Continue,
    Decision,
    Finish,
    Scheduler,
    Start,
    kept_files,
    rungs,
)
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles

HORIZONS = st.integers(1, 60)
EPOCH_SECONDS = 10.0


def scheduler_of(trials: Sequence[Trial] = (), *, epoch_seconds: float = EPOCH_SECONDS, **options: Any) -> Scheduler:
    scheduler = Scheduler(lambda trial: epoch_seconds, **options)
    for trial in trials:
        scheduler.tell(trial)
    return scheduler


def candidate(
    key: str = "new", *, horizon: int = 12, expected: float = 0.5, seconds: float = EPOCH_SECONDS
) -> Candidate:
    return Candidate(key, rungs(horizon), expected, seconds)


# --- rungs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("horizon", "warm_up", "expected"),
    [
        (1, 0, (1,)),
        (2, 0, (2,)),
        (3, 0, (3,)),
        (4, 0, (2, 4)),
        (12, 0.96, (2, 6, 12)),
        (27, 2.16, (3, 9, 27)),
        (30, 2.4, (3, 9, 30)),
        (50, 0, (2, 6, 18, 50)),
        (50, 10, (10, 30, 50)),
        (10, 9, (10,)),
    ],
)
def test_rungs(horizon: int, warm_up: float, expected: tuple[int, ...]) -> None:
    assert rungs(horizon, warm_up) == expected


@given(HORIZONS, st.floats(0, 20))
def test_rungs_ascend_to_the_horizon_and_begin_after_the_warm_up(horizon: int, warm_up: float) -> None:
    marks = rungs(horizon, warm_up)
    assert marks[-1] == horizon
    assert list(marks) == sorted(set(marks))
    assert all(max(FIRST_RUNG, warm_up) <= mark < horizon for mark in marks[:-1])


def test_the_first_epoch_alone_decides_nothing() -> None:
    assert min(min(rungs(horizon)) for horizon in range(4, 200)) == FIRST_RUNG
    assert math.isinf(finetune(0).rank_by(2)[0])


# --- a whole search, whatever is drawn ------------------------------------------------------------------------------


@dataclass
class Searched:
    """A search that was driven to its end, and everything that can be held against it."""

    scheduler: Scheduler
    kept_paused: int
    seconds_left: float
    curves: dict[Any, list[float]]
    waiting: list[Candidate]
    trials: list[Trial] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def step(self) -> bool:
        """One decision and its work; False at the end."""
        decision = self.scheduler.next(self.seconds_left, self.waiting)
        self.decisions.append(decision)
        if isinstance(decision, Finish):
            return False
        if isinstance(decision, Start):
            self.waiting.remove(decision.candidate)
            notes = {"rungs": list(decision.candidate.rungs), "key": decision.candidate.key}
            seconds = decision.candidate.epoch_seconds
            horizon = decision.candidate.rungs[-1]
            started = finetune(len(self.trials), horizon=horizon, notes=notes, parameters={"seconds": seconds})
            self.trials.append(started)
        number = decision.number if isinstance(decision, Continue) else len(self.trials) - 1
        self._train(number, decision.until)
        for given_up in self.scheduler.surplus():
            self._tell(self.trials[given_up].replace(state="stopped"))
        return True

    def _train(self, number: int, until: int) -> None:
        trial = self.trials[number]
        seconds = trial.parameters["seconds"]
        affordable = min(until, trial.epochs_done + int(self.seconds_left / seconds))
        self.seconds_left -= (affordable - trial.epochs_done) * seconds
        scores = self.curves[trial.notes["key"]][:affordable]
        trained = finetune(number, scores, horizon=trial.recipe.epochs, notes=trial.notes, parameters=trial.parameters)
        self._tell(trained)

    def _tell(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        self.scheduler.tell(trial)


@st.composite
def searches(draw: st.DrawFn, fewest: int = 0) -> Searched:
    """Candidates with any curves, costs and expectations, and any budget."""
    score = st.integers(0, 20).map(lambda value: value / 20)
    horizon = draw(st.sampled_from([1, 3, 4, 6, 12, 20]))
    number = draw(st.integers(fewest, 14))
    curves = {key: draw(st.lists(score, min_size=horizon, max_size=horizon)) for key in range(number)}
    waiting = [
        Candidate(
            key, rungs(horizon, draw(st.sampled_from([0, 0, 3]))), draw(score), draw(st.sampled_from([1.0, 2.0, 9.0]))
        )
        for key in range(number)
    ]
    kept_paused = draw(st.integers(1, 6))
    budget = draw(st.one_of(st.floats(0, 60), st.floats(0, 3_000)))
    scheduler = Scheduler(lambda trial: trial.parameters["seconds"], kept_paused=kept_paused)
    return Searched(scheduler, kept_paused, budget, curves, waiting)


def steps(search: Searched) -> Iterator[Decision]:
    """Its decisions, each before the next one; more than there can be fail."""
    most = sum(len(each.rungs) for each in search.waiting) + len(search.waiting) + 1
    for _ in range(most):
        more = search.step()
        yield search.decisions[-1]
        if not more:
            return
    raise AssertionError("it does not end")


@given(searches())
def test_it_ends_for_every_budget_and_keeps_it(search: Searched) -> None:
    *_, last = steps(search)
    assert isinstance(last, Finish)
    assert search.seconds_left >= -1e-6
    cheapest = min((each.rungs[0] * each.epoch_seconds for each in search.waiting), default=math.inf)
    assert search.seconds_left < cheapest
    assert all(search.seconds_left < trial.parameters["seconds"] for trial in search.trials if trial.state == "paused")


@given(searches())
def test_no_trial_is_started_again_and_no_rung_is_lost(search: Searched) -> None:
    done: dict[int, int] = {}
    keys = []
    for decision in steps(search):
        if isinstance(decision, Start):
            keys.append(decision.candidate.key)
        if isinstance(decision, Continue):
            assert done[decision.number] < decision.until <= search.trials[decision.number].recipe.epochs
        for trial in search.trials:
            assert trial.epochs_done >= done.get(trial.number, 0)
            done[trial.number] = trial.epochs_done
    assert len(keys) == len(set(keys)) == len(search.trials)


@given(searches())
def test_a_trial_that_was_given_up_or_ended_never_goes_on(search: Searched) -> None:
    over: set[int] = set()
    for decision in steps(search):
        if isinstance(decision, Continue):
            assert decision.number not in over
        over |= {trial.number for trial in search.trials if trial.state in ("complete", "stopped")}


@given(searches(), st.integers(0, 4))
def test_no_more_files_are_kept_than_promised(search: Searched, best: int) -> None:
    for _ in steps(search):
        kept = search.scheduler.kept(best)
        paused = {trial.number for trial in search.trials if trial.state == "paused"}
        assert kept.checkpoints == paused
        assert len(kept.checkpoints) <= search.kept_paused
        assert kept.weights >= kept.checkpoints
        assert len(kept.weights) <= search.kept_paused + best + 1  # one for the default recipe
        others = sorted((trial.rank for trial in search.trials if trial.number not in kept.weights), reverse=True)
        lost = others[0] if others else (-math.inf, -math.inf)
        assert sum(trial.rank >= lost for trial in search.trials if trial.number in kept.weights) >= min(
            best, len(others)
        )


@given(searches())
def test_who_goes_on_is_in_the_best_third_of_its_rung_or_nothing_else_can_be_done(search: Searched) -> None:
    before: list[Trial] = []
    left, waiting = search.seconds_left, list(search.waiting)
    for decision in steps(search):
        if isinstance(decision, Continue) and not in_best_third(before[decision.number], before):
            assert not any(each.rungs[0] * each.epoch_seconds <= left for each in waiting)
            others = [trial for trial in before if trial.state == "paused" and in_best_third(trial, before)]
            assert not any(to_next_rung(trial) * trial.parameters["seconds"] <= left for trial in others)
        before, left, waiting = list(search.trials), search.seconds_left, list(search.waiting)


def in_best_third(trial: Trial, trials: Sequence[Trial]) -> bool:
    """Written as the paper says it: fewer than a third of those at its rung are better."""
    reached = max((mark for mark in trial.notes["rungs"] if mark <= trial.epochs_done), default=0)
    there = [each for each in trials if each.epochs_done >= reached]
    better = [each for each in there if (each.rank_by(reached), -each.number) > (trial.rank_by(reached), -trial.number)]
    return reached > 0 and len(better) < len(there) // ETA


def to_next_rung(trial: Trial) -> int:
    return min(mark for mark in trial.notes["rungs"] if mark > trial.epochs_done) - trial.epochs_done


@given(st.data())
def test_the_same_is_decided_again(data: st.DataObject) -> None:
    search = data.draw(searches())
    again = Searched(
        Scheduler(lambda trial: trial.parameters["seconds"], kept_paused=search.kept_paused),
        search.kept_paused,
        search.seconds_left,
        search.curves,
        list(search.waiting),
    )
    assert list(steps(search)) == list(steps(again))


@given(st.data())
def test_it_is_a_function_of_what_it_was_told(data: st.DataObject) -> None:
    """Told only how everything stands, in any order, it decides as the one that was there all along."""
    search = data.draw(searches(fewest=3))
    for _ in range(data.draw(st.integers(0, 12))):
        if not search.step():
            break
    fresh = Scheduler(lambda trial: trial.parameters["seconds"], kept_paused=search.kept_paused)
    for trial in data.draw(st.permutations(search.trials)):
        fresh.tell(trial)
    left = data.draw(st.floats(0, 500))
    assert fresh.next(left, search.waiting) == search.scheduler.next(left, search.waiting)
    assert fresh.surplus() == search.scheduler.surplus()


# --- pause and resume -----------------------------------------------------------------------------------------------


def test_who_was_passed_over_goes_on_when_worse_ones_have_come() -> None:
    """What pruning cannot do: number 1 is second of three, and among the best third of six."""
    first = [finetune(0, [0.1, 0.9]), finetune(1, [0.1, 0.8]), finetune(2, [0.1, 0.1])]
    scheduler = scheduler_of(first)
    assert scheduler.next(1e6, [candidate()]) == Continue(0, 6)
    scheduler.tell(finetune(0, [0.1, *[0.9] * 5]))
    assert isinstance(scheduler.next(1e6, [candidate()]), Start)
    for number in (3, 4, 5):
        scheduler.tell(finetune(number, [0.1, 0.2]))
    assert scheduler.next(1e6, [candidate()]) == Continue(1, 6)


def test_a_late_bloomer_wins_where_there_is_time() -> None:
    """It is the worst at every rung but the last; without resuming it would never have got there."""
    curves = {key: [0.5 + key / 100] * 12 for key in range(5)} | {5: [0.1] * 11 + [1.0]}
    waiting = [candidate(str(key)) for key in curves]
    search = Searched(
        Scheduler(lambda trial: EPOCH_SECONDS), 12, 1e6, {str(key): curve for key, curve in curves.items()}, waiting
    )
    list(steps(search))
    best = max(search.trials, key=lambda trial: trial.rank)
    assert (best.notes["key"], best.score, best.epochs_done) == ("5", 1.0, 12)
    assert all(trial.state == "complete" for trial in search.trials)


@given(searches(fewest=1))
def test_with_time_for_everything_every_trial_that_is_not_given_up_is_finished(search: Searched) -> None:
    search.seconds_left = math.inf
    search.scheduler = Scheduler(lambda trial: trial.parameters["seconds"], kept_paused=len(search.waiting))
    search.kept_paused = len(search.waiting)
    search._train = lambda number, until: search._tell(whole(search, number, until))  # type: ignore[method-assign]
    list(steps(search))
    assert not search.waiting
    assert {trial.state for trial in search.trials} == {"complete"}


def whole(search: Searched, number: int, until: int) -> Trial:
    trial = search.trials[number]
    scores = search.curves[trial.notes["key"]][:until]
    return finetune(number, scores, horizon=trial.recipe.epochs, notes=trial.notes, parameters=trial.parameters)


# --- single decisions -----------------------------------------------------------------------------------------------


@given(st.data(), HORIZONS, st.booleans())
def test_whatever_a_killed_search_left_only_a_waiting_trial_goes_on(
    data: st.DataObject, horizon: int, may_start: bool
) -> None:
    trials = data.draw(histories(horizon))
    waiting = [candidate(horizon=horizon)] if may_start else []
    decision = scheduler_of(trials).next(data.draw(st.floats(0, 1_000)), waiting)
    if isinstance(decision, Continue):
        chosen = trials[decision.number]
        assert chosen.state == "paused"
        assert chosen.epochs_done < decision.until <= horizon
    if isinstance(decision, Start):
        assert may_start
        assert decision.until == rungs(horizon)[0]


@given(st.data(), HORIZONS)
def test_whatever_a_killed_search_left_it_can_be_brought_to_its_end(data: st.DataObject, horizon: int) -> None:
    trials = data.draw(histories(horizon))
    waiting = {trial.number for trial in trials if trial.state == "paused"}
    scheduler = scheduler_of(trials)
    decisions = 0
    while not isinstance(decision := scheduler.next(1e9), Finish):
        assert isinstance(decision, Continue)
        before = trials[decision.number]
        scores = [each.score for each in before.epochs] + [0.5] * (decision.until - before.epochs_done)
        trials[decision.number] = finetune(decision.number, scores, horizon=horizon)
        scheduler.tell(trials[decision.number])
        decisions += 1
        assert decisions <= len(trials) * len(rungs(horizon))
    assert all(trials[number].epochs_done == horizon for number in waiting)


def test_the_best_of_three_is_promoted_before_a_fourth_starts() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.1, 0.9]), finetune(2, [0.1, 0.3])]
    new = candidate()
    assert scheduler_of(trials[:2]).next(1e6, [new]) == Start(new, 2)
    assert scheduler_of(trials).next(1e6, [new]) == Continue(1, 6)


def test_equal_scores_are_told_apart_by_their_loss() -> None:
    trials = [finetune(number, [0.1, 0.5]) for number in range(3)]
    sharper = [*trials[2].epochs[:1], trials[2].epochs[1].__class__(2, 1.0, 0.1, 0.5, 1e-3, 1.0)]
    trials[2] = trials[2].replace(epochs=tuple(sharper))
    assert scheduler_of(trials).next(1e6, []) == Continue(2, 6)


def test_a_higher_rung_comes_first() -> None:
    low = [finetune(number, [0.1, 0.9 + number / 100]) for number in range(3)]
    high = [finetune(number, [0.1, *[0.5 + number / 100] * 5]) for number in (3, 4, 5)]
    assert scheduler_of([*low, *high]).next(1e6, [candidate()]) == Continue(5, 12)


def test_what_ended_early_for_good_is_still_compared_with() -> None:
    early = finetune(0, [0.1, 0.95, 0.9], state="complete")
    others = [finetune(number, [0.1] * 5 + [number / 10]) for number in (1, 2, 3)]
    new = candidate()
    assert scheduler_of([early, *others]).next(1e6, [new]) == Start(new, 2)
    assert scheduler_of(others).next(1e6, [new]) == Continue(3, 12)


def test_what_is_in_work_is_left_alone() -> None:
    trials = [finetune(0, [0.1, 0.9], state="running"), finetune(1, [0.1, 0.2]), finetune(2, [0.1, 0.3])]
    new = candidate()
    assert scheduler_of(trials).next(1e6, [new]) == Start(new, 2)


def test_a_promotion_that_does_not_fit_leaves_room_for_what_does() -> None:
    trials = [finetune(number, [0.0, number / 10]) for number in range(3)]
    new = candidate()
    assert scheduler_of(trials).next(4 * EPOCH_SECONDS, [new]) == Continue(2, 6)
    assert scheduler_of(trials).next(3 * EPOCH_SECONDS, [new]) == Start(new, 2)
    assert scheduler_of(trials, overhead=1.0).next(4 * EPOCH_SECONDS, [new]) == Start(new, 2)


def test_what_was_broken_off_before_its_first_rung_goes_on_before_a_new_one_starts() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.9]), finetune(2, [])]
    assert scheduler_of(trials).next(1e6, [candidate()]) == Continue(1, 2)


def test_the_leader_uses_the_rest_of_the_time_where_nothing_else_fits() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.1, 0.9])]
    assert scheduler_of(trials).next(EPOCH_SECONDS, [candidate()]) == Continue(1, 12)


def test_nothing_is_done_where_nothing_fits() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.1])]
    assert scheduler_of(trials).next(EPOCH_SECONDS - 1, [candidate()]) == Finish()
    assert scheduler_of().next(1e6) == Finish()
    assert scheduler_of().next(0.0, [candidate(seconds=math.inf)]) == Finish()


def test_what_nobody_has_timed_finds_out() -> None:
    new = candidate(seconds=math.inf)
    assert scheduler_of().next(0.1, [new]) == Start(new, 2)
    assert scheduler_of([finetune(0, [])], epoch_seconds=math.inf).next(0.1) == Continue(0, 2)


# --- the order of candidates ----------------------------------------------------------------------------------------


def started(waiting: Sequence[Candidate], **options: Any) -> Any:
    decision = scheduler_of(**options).next(1e9, waiting)
    assert isinstance(decision, Start)
    return decision.candidate.key


def test_more_is_expected_of_what_costs_more() -> None:
    cheap, dear = candidate("cheap", expected=0.5, seconds=1.0), candidate("dear", expected=0.59, seconds=math.e)
    assert started([dear, cheap]) == "cheap"
    assert started([cheap, candidate("dear", expected=0.61, seconds=math.e)]) == "dear"
    assert started([cheap, dear], cost_weight=0.0) == "dear"


def test_the_cost_is_that_of_its_first_rung() -> None:
    soon, late = Candidate("soon", (2, 6, 12), 0.5, 2.0), Candidate("late", (6, 12), 0.5, 1.0)
    assert started([late, soon]) == "soon"


def test_of_equals_the_first_comes_first() -> None:
    assert started([candidate("a"), candidate("b")]) == "a"
    assert started([candidate("b"), candidate("a")]) == "b"


def test_what_nobody_has_timed_counts_as_the_dearest() -> None:
    unknown = candidate("unknown", expected=0.5, seconds=math.inf)
    assert (
        started([unknown, candidate("known", expected=0.5, seconds=5.0), candidate(seconds=9.0, expected=0.1)])
        == "known"
    )
    assert started([unknown, candidate("known", expected=0.4, seconds=9.0)]) == "unknown"


def test_what_does_not_fit_is_passed_over() -> None:
    dear, cheap = candidate("dear", expected=0.9, seconds=100.0), candidate("cheap", expected=0.1, seconds=1.0)
    decision = scheduler_of(cost_weight=0.0).next(50.0, [dear, cheap])
    assert decision == Start(cheap, 2)


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_the_worst_of_those_that_wait_is_given_up() -> None:
    trials = [finetune(number, [0.1, 0.1 + number / 100]) for number in range(4)]
    assert scheduler_of(trials, kept_paused=4).surplus() == ()
    assert scheduler_of(trials, kept_paused=2).surplus() == (1, 0)
    assert scheduler_of([finetune(n, [0.1, 0.2 + n / 20]) for n in range(KEPT_PAUSED + 1)]).surplus() == (0,)


def test_what_was_not_compared_yet_is_not_given_up_for_others() -> None:
    trials = [finetune(0, [0.0]), finetune(1, [0.1, 0.9]), finetune(2, [0.1, 0.8])]
    assert scheduler_of(trials, kept_paused=1).surplus() == (1, 2)


def test_files_on_disk_are_those_that_are_kept(tmp_path: Path) -> None:
    trials = [
        probe(0),
        finetune(1, [0.9] * 12),
        finetune(2, [0.2] * 12),
        finetune(3, [0.1, 0.4]),
        finetune(4, [0.1, 0.3], state="stopped"),
    ]
    files = TrialFiles(tmp_path)
    for trial in trials:
        for name in ("checkpoint.pt", "best.pt"):
            file = tmp_path / f"{trial.number:06d}" / name
            file.parent.mkdir(exist_ok=True)
            file.touch()
    files.prune(trials, keep=1)
    assert (
        {int(file.parent.name) for file in tmp_path.rglob("checkpoint.pt")} == kept_files(trials, 1).checkpoints == {3}
    )
    assert (
        {int(file.parent.name) for file in tmp_path.rglob("best.pt")}
        == kept_files(trials, 1).weights | {0}
        == {0, 1, 3}
    )


def test_it_knows_neither_clock_nor_file_nor_chance() -> None:
    """It says what it imports; what that imports is as pure, or it would not be a row of plain values."""
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    plain = {"__future__", "bisect", "math", "collections.abc", "dataclasses", "typing"}
    assert imported == plain | {"automl_vision.search.trial"}
