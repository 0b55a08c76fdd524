"""Who gets more epochs: asynchronous successive halving that pauses and resumes, as a function of the history.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), with one change: a candidate that
is not promoted is paused, not thrown away, and goes on from its checkpoint if time is left for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from automl_vision.search.trial import Trial

ETA = 3
FIRST_RUNG = 2  # the score after one epoch says next to nothing about the final one


@dataclass(frozen=True)
class Start:
    """Start a new candidate and train it to `until` epochs."""

    until: int


@dataclass(frozen=True)
class Continue:
    """Go on with a paused trial until `until` epochs are done."""

    number: int
    until: int


@dataclass(frozen=True)
class Finish:
    """Nothing is left that is worth its time."""


Decision = Start | Continue | Finish
Fits = Callable[[Trial | None, int], bool]


def rungs(horizon: int) -> tuple[int, ...]:
    """Epochs after which candidates are compared: a ninth, a third and the whole of the horizon, at least two.

    >>> rungs(12), rungs(27), rungs(3)
    ((2, 4, 12), (3, 9, 27), (3,))
    """
    marks = {max(FIRST_RUNG, round(horizon / ETA**power)) for power in (2, 1)}
    return (*sorted(mark for mark in marks if mark * 2 <= horizon), horizon)


def decide(trials: Sequence[Trial], *, marks: Sequence[int], may_start: bool, fits: Fits) -> Decision:
    """The next thing to train.

    Args:
        trials: the fine-tunes so far; those in work are left alone.
        marks: epochs after which candidates are compared, ascending; the last is the horizon. See `rungs`.
        may_start: whether the number of trials leaves room for a new one.
        fits: `(trial or None for a new one, until) -> bool`: whether training until then fits in the time left.

    Returns:
        the best promotion that fits, from the highest rung down; else what was broken off before its first rung;
        else a new candidate; else the best paused trial that still fits in part; else `Finish`.
    """
    for trial, until in _expected(trials, marks):
        if fits(trial, until):
            return Continue(trial.number, until)
    if may_start and fits(None, marks[0]):
        return Start(marks[0])
    for trial in _unfinished(trials):
        if fits(trial, trial.epochs_done + 1):
            return Continue(trial.number, trial.recipe.epochs)
    return Finish()


def _expected(trials: Sequence[Trial], marks: Sequence[int]) -> Iterator[tuple[Trial, int]]:
    """What was promised more epochs, and how many, most promising first."""
    for reached, until in reversed(list(pairwise(marks))):
        yield from ((trial, until) for trial in _promotable(trials, reached=reached, until=until))
    # An earlier session ended before these could be compared with any other.
    broken_off = [trial for trial in trials if trial.state == "paused" and trial.epochs_done < marks[0]]
    yield from ((trial, marks[0]) for trial in broken_off)


def _promotable(trials: Sequence[Trial], *, reached: int, until: int) -> list[Trial]:
    """Paused trials in the top third of those that reached a rung, if they did not go beyond it yet; best first."""
    there = [trial for trial in trials if trial.epochs_done >= reached]
    there.sort(key=lambda trial: (trial.score_by(reached), -trial.number), reverse=True)
    top = there[: len(there) // ETA]
    return [trial for trial in top if trial.state == "paused" and trial.epochs_done < until]


def _unfinished(trials: Sequence[Trial]) -> list[Trial]:
    waiting = [trial for trial in trials if trial.state == "paused" and trial.epochs_done < trial.recipe.epochs]
    return sorted(waiting, key=lambda trial: (*trial.rank, -trial.number), reverse=True)
