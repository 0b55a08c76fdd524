"""Drives whatever decides what to train through recorded runs, as if each epoch were trained when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from automl_vision.search.scheduler import ETA, Candidate, Continue, Decision, Finish, Scheduler, rungs_of
from automl_vision.search.trial import EpochRecord, Trial
from automl_vision.training.recipe import Recipe
from recorded_runs import HORIZON, RecordedRun


class Decider(Protocol):
    """What `automl_vision.search.scheduler.Scheduler` offers, and its rivals do."""

    def tell(self, trial: Trial) -> None: ...

    def next(self, seconds_left: float, waiting: Sequence[Candidate] = ()) -> Decision: ...

    def surplus(self) -> tuple[int, ...]: ...


class PruneOnly:
    """Successive halving that cannot go back: what is not among the best third when it arrives at a rung is lost.

    The rule is that of Optuna's SuccessiveHalvingPruner: the first at a rung passes, then the best third of all that
    arrived so far. What starts next is up to the `Scheduler` that it is given.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._trials: dict[int, Trial] = {}
        self._arrived: int | None = None

    def tell(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._arrived = trial.number if trial.state == "paused" else None
        self._scheduler.tell(trial)

    def next(self, seconds_left: float, waiting: Sequence[Candidate] = ()) -> Decision:
        if self._arrived is not None:
            trial = self._trials[self._arrived]
            if self._passes(trial):
                return Continue(trial.number, min(mark for mark in rungs_of(trial) if mark > trial.epochs_done))
            self.tell(trial.replace(state="stopped"))
        return self._scheduler.next(seconds_left, waiting)

    def surplus(self) -> tuple[int, ...]:
        return ()

    def _passes(self, trial: Trial) -> bool:
        rung = trial.epochs_done
        arrived = sorted(
            (each.rank_by(rung) for each in self._trials.values() if each.epochs_done >= rung), reverse=True
        )
        return trial.rank_by(rung) >= arrived[max(len(arrived) // ETA, 1) - 1]


@dataclass(frozen=True)
class Progress:
    """One recorded epoch that was trained: seconds since the beginning, and the trial that it made."""

    seconds: float
    trial: Trial


def epoch_seconds(trial: Trial) -> float:
    """What an epoch of a trial took so far."""
    return trial.seconds / trial.epochs_done if trial.epochs_done else math.inf


def replay(decider: Decider, candidates: Sequence[Candidate], budget: float) -> Iterator[Progress]:
    """Train what `decider` says until it finishes or the budget ends; an epoch that the budget cuts counts for nothing.

    Args:
        decider: asked, and told the result, until there is nothing left to do.
        candidates: the key of each is its recorded run.
        budget: seconds.
    """
    waiting, clock = list(candidates), 0.0
    runs: list[RecordedRun] = []
    trials: list[Trial] = []
    while not isinstance(decision := decider.next(budget - clock, waiting), Finish):
        if isinstance(decision, Continue):
            number = decision.number
        else:
            waiting.remove(decision.candidate)
            number = len(trials)
            runs.append(decision.candidate.key)
            trials.append(_begun(number, decision.candidate))
        for trial in _trained(trials[number], runs[number], decision.until):
            clock += trial.epochs[-1].seconds
            if clock > budget:
                return
            trials[number] = trial
            yield Progress(clock, trial)
        decider.tell(trials[number])
        for given_up in decider.surplus():
            trials[given_up] = trials[given_up].replace(state="stopped")
            decider.tell(trials[given_up])


def _begun(number: int, candidate: Candidate) -> Trial:
    recipe = Recipe("finetune", str(candidate.key.traits["backbone"]), 224, epochs=HORIZON)
    return Trial(number, recipe, {}, "recorded", state="paused", notes={"rungs": list(candidate.rungs)})


def _trained(trial: Trial, run: RecordedRun, until: int) -> Iterator[Trial]:
    """The trial after each epoch up to `until`, or up to the end of the record."""
    last = len(run.accuracy)
    for done in range(trial.epochs_done, min(until, last)):
        score, seconds = float(run.accuracy[done]) / 100, float(run.seconds[done])
        record = EpochRecord(done + 1, None, 0.0, score, 0.0, seconds)
        trial = trial.replace(
            epochs=(*trial.epochs, record),
            score=max(score, trial.score or 0.0),
            loss=0.0,
            seconds=trial.seconds + seconds,
            state="complete" if done + 1 == last else "paused",
        )
        yield trial
