from __future__ import annotations

import math

import pytest
from histories import finetune, histories
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.search.scheduler import ETA, FIRST_RUNG, Continue, Finish, Start, decide, rungs
from automl_vision.search.trial import Trial

HORIZONS = st.integers(1, 60)


def always(trial: Trial | None, until: int) -> bool:
    return True


def never(trial: Trial | None, until: int) -> bool:
    return False


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [(1, (1,)), (2, (2,)), (3, (3,)), (4, (2, 4)), (12, (2, 4, 12)), (27, (3, 9, 27)), (30, (3, 10, 30))],
)
def test_rungs(horizon: int, expected: tuple[int, ...]) -> None:
    assert rungs(horizon) == expected


@given(HORIZONS)
def test_rungs_ascend_to_the_horizon(horizon: int) -> None:
    marks = rungs(horizon)
    assert marks[-1] == horizon
    assert list(marks) == sorted(set(marks))
    assert all(FIRST_RUNG <= mark <= horizon / 2 for mark in marks[:-1])


@given(st.data(), HORIZONS, st.booleans())
def test_only_a_waiting_trial_goes_on_and_never_beyond_the_horizon(
    data: st.DataObject, horizon: int, may_start: bool
) -> None:
    trials = data.draw(histories(horizon))
    affordable = data.draw(st.integers(0, horizon))
    decision = decide(
        trials,
        marks=rungs(horizon),
        may_start=may_start,
        fits=lambda trial, until: until - (trial.epochs_done if trial else 0) <= affordable,
    )
    if isinstance(decision, Continue):
        chosen = trials[decision.number]
        assert chosen.state == "paused"
        assert chosen.epochs_done < decision.until <= horizon
    if isinstance(decision, Start):
        assert may_start
        assert 0 < decision.until <= horizon


@given(st.data(), HORIZONS)
def test_while_new_ones_may_start_only_the_top_third_of_a_rung_is_promoted(data: st.DataObject, horizon: int) -> None:
    trials = data.draw(histories(horizon))
    decision = decide(trials, marks=rungs(horizon), may_start=True, fits=always)
    marks = rungs(horizon)
    assert not isinstance(decision, Finish)
    if isinstance(decision, Start):
        assert not any(trial.state == "paused" and trial.epochs_done < marks[0] for trial in trials)
        return
    chosen = trials[decision.number]
    if chosen.epochs_done < marks[0]:
        assert decision.until == marks[0]
        return
    reached = max(mark for mark in marks if mark < decision.until)
    there = [trial for trial in trials if trial.epochs_done >= reached]
    better = [trial for trial in there if trial.score_by(reached) > chosen.score_by(reached)]
    assert chosen in there
    assert len(better) < len(there) // ETA


@given(st.data(), HORIZONS)
def test_left_alone_it_ends_with_a_trial_at_the_horizon(data: st.DataObject, horizon: int) -> None:
    trials = data.draw(histories(horizon))
    waiting = {trial.number for trial in trials if trial.state == "paused"}
    decisions = 0
    while not isinstance(decision := decide(trials, marks=rungs(horizon), may_start=False, fits=always), Finish):
        assert isinstance(decision, Continue)
        before = trials[decision.number]
        trials[decision.number] = trained(before, decision.until, horizon)
        assert trials[decision.number].epochs[: before.epochs_done] == before.epochs
        decisions += 1
        assert decisions <= len(trials) * len(rungs(horizon))
    assert all(trials[number].epochs_done == horizon for number in waiting)


@given(st.data(), st.integers(3, 30), st.integers(1, 12))
def test_a_whole_search_ends_and_its_first_score_survives(data: st.DataObject, horizon: int, most: int) -> None:
    trials: list[Trial] = []
    quality = data.draw(st.lists(st.integers(0, 1000), min_size=most, max_size=most, unique=True))
    for _ in range(most * (len(rungs(horizon)) + 1) + 1):
        decision = decide(trials, marks=rungs(horizon), may_start=len(trials) < most, fits=always)
        if isinstance(decision, Finish):
            break
        if isinstance(decision, Start):
            trials.append(finetune(len(trials), horizon=horizon))
        number = decision.number if isinstance(decision, Continue) else len(trials) - 1
        trials[number] = trained(trials[number], decision.until, horizon, quality[number] / 1000)
    assert isinstance(decision, Finish)
    assert len(trials) == most
    best = max(trials, key=lambda trial: quality[trial.number])
    assert best.epochs_done == horizon


def trained(trial: Trial, until: int, horizon: int, score: float = 0.5) -> Trial:
    scores = [each.score for each in trial.epochs] + [score] * (until - trial.epochs_done)
    return finetune(trial.number, scores, horizon=horizon)


def test_the_best_of_three_is_promoted_before_a_fourth_starts() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.1, 0.9]), finetune(2, [0.1, 0.3])]
    assert decide(trials[:2], marks=(2, 4, 12), may_start=True, fits=always) == Start(2)
    assert decide(trials, marks=(2, 4, 12), may_start=True, fits=always) == Continue(1, 4)


def test_a_promotion_that_does_not_fit_leaves_room_for_the_next_best() -> None:
    trials = [finetune(number, [0.0, number / 10]) for number in range(6)]
    costly = 5
    decision = decide(
        trials,
        marks=(2, 4, 12),
        may_start=False,
        fits=lambda trial, until: trial is not None and trial.number != costly,
    )
    assert decision == Continue(4, 4)


def test_what_was_broken_off_before_its_first_rung_goes_on_before_a_new_one_starts() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.9]), finetune(2, [])]
    assert decide(trials, marks=(2, 4, 12), may_start=True, fits=always) == Continue(1, 2)


def test_the_leader_uses_the_rest_of_the_time_where_nothing_else_fits() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.1, 0.9])]
    one_epoch = decide(
        trials,
        marks=(2, 4, 12),
        may_start=True,
        fits=lambda trial, until: trial is not None and until == trial.epochs_done + 1,
    )
    assert one_epoch == Continue(1, 12)


def test_nothing_is_done_where_nothing_fits() -> None:
    trials = [finetune(0, [0.1, 0.2]), finetune(1, [0.1])]
    assert decide(trials, marks=(2, 4, 12), may_start=True, fits=never) == Finish()
    assert decide([], marks=(2, 4, 12), may_start=False, fits=always) == Finish()


def test_the_first_epoch_alone_decides_nothing() -> None:
    assert min(min(rungs(horizon)) for horizon in range(4, 200)) == FIRST_RUNG
    assert math.isinf(finetune(0).score_by(2))
