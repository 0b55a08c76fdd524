"""What the stages of one run share: where it writes, what it listens to, and how much time is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.config import Settings
from automl_vision.events import Note, StageStarted, Tell
from automl_vision.run_dir import RunDir, how_to_resume
from automl_vision.runtime import Clock
from automl_vision.stop_request import StopRequest
from automl_vision.training.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from automl_vision.stages.cluster import Joined

__all__ = ["RunContext", "StopRequest"]


@dataclass(frozen=True)
class RunContext:
    """What the stages of one run share.

    Attributes:
        run: the run folder, locked.
        data: the images.
        settings: all settings.
        tell: listener for events.
        stop: set from outside to end tidily, or at once.
        clock: the budget.
        cluster: where trials run, None for this machine.
        fail_on_leak: end the run where the split that came with the data leaks.
        ranks: the processes that train each model together, of which this is the first.
        seconds: wall time by stage; grows as stages end.
        troubles: sentences about what went wrong beside the run, for the report's warnings; grows.
    """

    run: RunDir
    data: Path
    settings: Settings
    tell: Tell
    stop: StopRequest
    clock: Clock
    cluster: Joined | None = None
    fail_on_leak: bool = False
    ranks: Ranks = ALONE
    seconds: dict[str, float] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        """Tell that a stage begins, and time it.

        Raises:
            TakenAway: the machine is taken away; no stage begins any more.
        """
        if self.stop.taken:
            raise self.stop.taken_away()
        self.tell(StageStarted(name, detail, self.clock.remaining, self.clock.budget))
        self.run.log(f"stage {name} {detail}".rstrip())
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def note(self, text: str, *, warning: bool = False) -> None:
        """Tell the user one sentence, and keep it in the log."""
        self.run.log(text)
        self.tell(Note(text, "warning" if warning else "info"))

    @property
    def data_fingerprint(self) -> str:
        """Of the images that were found, by which a model is known to be of this run: a budget may use fewer."""
        return str(self.run.about["fingerprint"])

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with this run."""
        return how_to_resume(self.run.path)

    def seconds_by_stage(self) -> dict[str, float]:
        """Wall seconds so far: "start" is what came before the first stage (imports), "report" what is left over."""
        spent = {"earlier sessions": self.run.spent} if self.run.spent else {}
        known = {"start": self.clock.at_open - self.run.spent, **spent, **self.seconds}
        return {**known, "report": self.clock.elapsed - sum(known.values())}
