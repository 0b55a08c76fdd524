"""Backbones side by side: one search for each, one after the other, each with the same time of its own.

Every search sees the trials of its own backbone and no others, so that none is compared with, promoted over or given up
for a trial of another backbone. Numbers are shared: they count on over all turns.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from automl_vision.executors import Executor
from automl_vision.search.run_trial import Assignment
from automl_vision.search.search import Records, Search, SearchEnded, SearchTask, adopted_heads, allowed_symmetries
from automl_vision.search.space import Space
from automl_vision.search.trial import Trial

#: Where turns ended for different reasons, the first of these is the reason of all.
_REASONS = ("interrupted", "budget", "trials", "failures", "converged")


@dataclass(frozen=True)
class _Turn:
    """Whose time runs, "" for nobody's, since when, and what each had used by then."""

    used: Mapping[str, float]
    name: str = ""
    since: float = 0.0

    def spent(self, now: float) -> dict[str, float]:
        """Backbone -> seconds used until now."""
        running = {self.name: self.used.get(self.name, 0.0) + now - self.since} if self.name else {}
        return {**self.used, **running}


class Shares:
    """The time of each backbone, of which only its own turn uses something.

    One thread begins and ends turns; any may ask. So a turn is replaced as a whole: whoever asks meanwhile hears of the
    old one or the new one, and never of a mixture, by which trials would end that have just begun.

    Args:
        seconds: that each backbone has.
        used: backbone -> seconds that earlier sessions of the run used.
        now: the clock, replaceable in tests.
    """

    def __init__(
        self, seconds: float, used: Mapping[str, float] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._now = now
        self._turn = _Turn(dict(used or {}))

    def begin(self, name: str) -> None:
        """The turn of `name` begins; that of another one ends."""
        now = self._now()
        self._turn = _Turn(self._turn.spent(now), name, now)

    def end(self) -> None:
        """No turn uses time from now on."""
        self._turn = _Turn(self.spent())

    def left(self) -> float:
        """Seconds that are left of the turn; 0 where it is nobody's."""
        turn = self._turn
        return self.seconds - turn.spent(self._now())[turn.name] if turn.name else 0.0

    def spent(self) -> dict[str, float]:
        """Backbone -> seconds used so far, of all sessions."""
        return self._turn.spent(self._now())

    def to_come(self, names: Sequence[str]) -> float:
        """Seconds that all of `names` together still have."""
        spent = self.spent()
        return sum(max(self.seconds - spent.get(name, 0.0), 0.0) for name in names)


@dataclass(frozen=True)
class TurnBegan:
    """The search of a backbone begins or goes on.

    Attributes:
        backbone: whose turn it is.
        place: 1 for the first of `of` turns.
        seconds: that it has left.
    """

    backbone: str
    place: int
    of: int
    seconds: float


class Turns:
    """The searches of several backbones, as one. Iterate over it; `trials` is the history of all as it grows.

    Args:
        task: what is searched; `max_trials` counts for each backbone.
        executor: where trials run.
        history: trials of an earlier session of the same run.
        shares: the time of each backbone.
        interrupted: whether the user asked to stop.
        records: of the trials, see `Search`.
    """

    def __init__(
        self,
        task: SearchTask,
        executor: Executor[Assignment, Trial],
        history: Sequence[Trial],
        *,
        shares: Shares,
        interrupted: Callable[[], bool] = lambda: False,
        records: Records | None = None,
    ) -> None:
        self.task = task
        self.shares = shares
        self.reasons: dict[str, str] = {}
        self._executor = executor
        self._interrupted = interrupted
        self._records = records
        self._trials = {trial.number: trial for trial in history}

    @property
    def trials(self) -> list[Trial]:
        """All trials of all turns by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def space(self) -> Space:
        """The space of all fine-tunes, with the heads that were adopted."""
        horizon = max((trial.recipe.epochs for trial in self.trials), default=0)
        return self.task.space(adopted_heads(self.trials), allowed_symmetries(self.trials), horizon)

    def __iter__(self) -> Iterator[Trial | SearchEnded | TurnBegan]:
        names = self.task.backbones
        for place, name in enumerate(names, start=1):
            self.shares.begin(name)
            yield TurnBegan(name, place, len(names), self.shares.left())
            yield from self._turn(name)
            if self._interrupted():
                break
        self.shares.end()
        yield SearchEnded(next(reason for reason in _REASONS if reason in self.reasons.values()))

    def _turn(self, name: str) -> Iterator[Trial]:
        search = Search(
            dataclasses.replace(self.task, backbones=(name,)),
            self._executor,
            [trial for trial in self.trials if trial.recipe.backbone == name],
            seconds_left=self.shares.left,
            interrupted=self._interrupted,
            first_number=max(self._trials, default=-1) + 1,
            records=self._records,
        )
        for event in search:
            if isinstance(event, SearchEnded):
                self.reasons[name] = event.reason
            else:
                self._trials[event.number] = event
                yield event
