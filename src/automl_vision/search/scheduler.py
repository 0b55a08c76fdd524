"""Who gets more epochs: asynchronous successive halving that pauses and resumes.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), with two changes: a trial that is not
promoted is paused, not thrown away, and goes on from its checkpoint when its turn comes; and what starts next is what
promises most for its cost. `benchmarks/curves.py` drives this class through recorded trainings.

Pure logic: no clock, no file, no random draw. The caller says what happened and how much time is left.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from automl_vision.search.trial import Trial, default_trial

ETA = 3
FIRST_RUNG = 2  # the score after one epoch says next to nothing about the final one
#: What a factor e in cost is worth in expected rank: a candidate that costs e times as much must promise .1 more.
COST_WEIGHT = 0.1
#: Paused trials whose checkpoints are kept; more change nothing that was measured (docs/LOG.md).
KEPT_PAUSED = 12
#: Trials whose best weights are kept when they cannot go on.
KEPT_BEST = 3


@dataclass(frozen=True)
class Candidate:
    """Something that may be started.

    Attributes:
        key: what the caller knows it by; the scheduler only hands it back.
        rungs: epochs after which it is compared, ascending; the last is its horizon. See `rungs`.
        expected: the share of candidates that it is expected to beat in the end; only differences count.
        epoch_seconds: estimated seconds per epoch, > 0; infinity where nothing is known.
    """

    key: Any
    rungs: tuple[int, ...]
    expected: float = 0.5
    epoch_seconds: float = math.inf


@dataclass(frozen=True)
class Start:
    """Start `candidate` and train it to `until` epochs."""

    candidate: Candidate
    until: int


@dataclass(frozen=True)
class Continue:
    """Go on with a paused trial, from its checkpoint, until `until` epochs are done."""

    number: int
    until: int


@dataclass(frozen=True)
class Finish:
    """Nothing is left that is worth its time."""


Decision = Start | Continue | Finish


@dataclass(frozen=True)
class Kept:
    """Numbers of the trials whose files are still needed; the files of all others may be dropped.

    Attributes:
        checkpoints: trials that are in work or may go on.
        weights: these, and the best few.
    """

    checkpoints: frozenset[int]
    weights: frozenset[int]


def rungs(horizon: int, warm_up: float = 0.0) -> tuple[int, ...]:
    """Epochs after which a trial is compared, each three times the one before; the last is the horizon.

    A rung is left out where the whole schedule costs hardly more: it has to be more than half as long again.

    Args:
        horizon: epochs of the whole schedule, >= 1.
        warm_up: epochs with a rising learning rate; scores within them say little, so the first rung comes after.

    >>> rungs(12), rungs(30, warm_up=2.4), rungs(3)
    ((2, 6, 12), (3, 9, 30), (3,))
    """
    marks = []
    mark = max(FIRST_RUNG, math.ceil(warm_up))
    while 3 * mark < 2 * horizon:
        marks.append(mark)
        mark *= ETA
    return (*marks, horizon)


def rungs_of(trial: Trial) -> tuple[int, ...]:
    """The rungs that a trial was started with; its horizon alone where it was trained in one go."""
    return tuple(trial.notes.get("rungs", ())) or (trial.recipe.epochs,)


def kept_files(trials: Iterable[Trial], best: int = KEPT_BEST) -> Kept:
    """What must stay on disk: all that a trial in work or a paused one needs, and the weights of the best `best`.

    Those of the default recipe stay too: it may be the model although others are better (`search.choice`).
    """
    trials = list(trials)
    going_on = frozenset(trial.number for trial in trials if trial.state in ("running", "paused"))
    ranked = sorted(trials, key=lambda trial: (*trial.rank, -trial.number), reverse=True)
    default = default_trial(trials)
    ranked = [*ranked[:best], *([default] if default else [])]
    return Kept(going_on, going_on | {trial.number for trial in ranked})


class Scheduler:
    """Answers "what next?" from what it was told.

    A paused trial is never started again and never loses an epoch: it goes on when it is among the best third of those
    that reached its rung, or when nothing else fits into the time left, or never. At most `kept_paused` trials wait,
    so that the disk is bounded: `surplus` names those to give up, the least likely to be promoted first.

    Args:
        epoch_seconds: seconds per epoch of a trial as far as known; infinity where nothing is.
        overhead: seconds to start or resume a trial.
        cost_weight: see `COST_WEIGHT`; 0 leaves cost out of the order.
        kept_paused: paused trials at most, >= 1, once those of `surplus` are given up.
    """

    def __init__(
        self,
        epoch_seconds: Callable[[Trial], float],
        *,
        overhead: float = 0.0,
        cost_weight: float = COST_WEIGHT,
        kept_paused: int = KEPT_PAUSED,
    ) -> None:
        self._epoch_seconds = epoch_seconds
        self._overhead = overhead
        self._cost_weight = cost_weight
        self._kept_paused = kept_paused
        self._trials: dict[int, Trial] = {}

    def tell(self, trial: Trial) -> None:
        """Take what came of a trial so far; later news of the same number replaces it.

        A trial in work is left alone until it is told as something else than "running".
        """
        self._trials[trial.number] = trial

    def next(self, seconds_left: float, waiting: Sequence[Candidate] = ()) -> Decision:
        """What to train now.

        Args:
            seconds_left: seconds until everything must have ended.
            waiting: what may be started, in any order; of equals the first one is taken.

        Returns:
            the best promotion that fits into the time left, from the highest rung down; else what was broken off
            before its first rung; else the candidate that promises most for its cost among those whose first rung
            fits; else the best paused trial of which one more epoch fits; else `Finish`.
        """
        for trial, until in self._promised():
            if self._fits(self._epoch_seconds(trial), until - trial.epochs_done, seconds_left):
                return Continue(trial.number, until)
        for candidate in self._in_order(waiting):
            if self._fits(candidate.epoch_seconds, candidate.rungs[0], seconds_left):
                return Start(candidate, candidate.rungs[0])
        for trial in self._unfinished():
            if self._fits(self._epoch_seconds(trial), 1, seconds_left):
                return Continue(trial.number, trial.recipe.epochs)
        return Finish()

    def surplus(self) -> tuple[int, ...]:
        """Paused trials to give up now, so that no more than `kept_paused` wait; tell them as "stopped"."""
        standings = _Standings(self._trials.values())
        waiting = [(*_distance(trial, standings), trial.number) for trial in self._paused()]
        return tuple(number for *_, number in sorted(waiting)[self._kept_paused :])

    def kept(self, best: int = KEPT_BEST) -> Kept:
        """The files that are still needed: of what is in work or may go on, and of the best `best` trials."""
        return kept_files(self._trials.values(), best)

    # --- order of what may start --------------------------------------------------------------------------------

    def _in_order(self, waiting: Sequence[Candidate]) -> list[Candidate]:
        """Most expected for its cost first; what costs nobody knows what counts as the dearest."""
        known = [each.epoch_seconds for each in waiting if math.isfinite(each.epoch_seconds)]
        dearest = max(known, default=1.0)

        def merit(candidate: Candidate) -> float:
            seconds = min(candidate.epoch_seconds, dearest) * candidate.rungs[0]  # until it can be compared
            return candidate.expected - self._cost_weight * math.log(seconds)

        return sorted(waiting, key=merit, reverse=True)

    # --- order of what waits ------------------------------------------------------------------------------------

    def _paused(self) -> list[Trial]:
        waiting = [trial for trial in self._trials.values() if trial.state == "paused"]
        return [trial for trial in waiting if trial.epochs_done < trial.recipe.epochs]

    def _promised(self) -> Iterator[tuple[Trial, int]]:
        """What is owed more epochs, and until when, most promising first."""
        standings = _Standings(self._trials.values())
        paused = sorted(self._paused(), key=lambda trial: trial.number)
        at_rung = [trial for trial in paused if _reached(trial)]
        at_rung.sort(key=lambda trial: (_reached(trial), trial.rank_by(_reached(trial))), reverse=True)
        for trial in at_rung:
            rank, size = standings.place(trial, _reached(trial))
            if rank < size // ETA:
                yield trial, _next_rung(trial)
        # An earlier session ended before these could be compared with any other.
        yield from ((trial, _next_rung(trial)) for trial in paused if not _reached(trial))

    def _unfinished(self) -> list[Trial]:
        return sorted(self._paused(), key=lambda trial: (*trial.rank, -trial.number), reverse=True)

    def _fits(self, epoch_seconds: float, epochs: int, seconds_left: float) -> bool:
        if math.isinf(epoch_seconds):
            return seconds_left > 0  # nothing was timed yet: a trial finds out
        return epochs * epoch_seconds + self._overhead <= seconds_left


class _Standings:
    """Places of trials among those that reached a rung; equal scores are told apart by number.

    Args:
        trials: all trials.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._trials = tuple(trials)
        self._by_rung: dict[int, list[tuple[float, float, int]]] = {}

    def place(self, trial: Trial, rung: int) -> tuple[int, int]:
        """How many did better by that rung, and how many reached it. What ended earlier for good reached it, too."""
        if rung not in self._by_rung:
            there = [each for each in self._trials if each.epochs_done >= rung or each.state == "complete"]
            self._by_rung[rung] = sorted((*each.rank_by(rung), -each.number) for each in there)
        ranked = self._by_rung[rung]
        return len(ranked) - bisect.bisect_right(ranked, (*trial.rank_by(rung), -trial.number)), len(ranked)


def _distance(trial: Trial, standings: _Standings) -> tuple[float, int]:
    """How far a paused trial is from being promoted: its place in its rung as a share, then lower rungs."""
    reached = _reached(trial)
    if not reached:
        return (0.0, 0)  # it was not compared yet
    rank, size = standings.place(trial, reached)
    return ((rank + 1) / size, -reached)


def _reached(trial: Trial) -> int:
    """The highest of its rungs that a trial has passed, 0 before the first."""
    return max((mark for mark in rungs_of(trial) if mark <= trial.epochs_done), default=0)


def _next_rung(trial: Trial) -> int:
    return min((mark for mark in rungs_of(trial) if mark > trial.epochs_done), default=trial.recipe.epochs)
