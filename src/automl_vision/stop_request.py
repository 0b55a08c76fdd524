"""The request to end a run before its time, and the error that it ends with."""

from __future__ import annotations

from dataclasses import dataclass

from automl_vision.errors import Interrupted, TakenAway

#: What to do where a run was taken away before it had a folder.
_START_AGAIN = "start it again with the same command"


@dataclass
class StopRequest:
    """Set from outside, by a signal handler or another thread, and looked at by whatever may take long.

    Attributes:
        requested: end as soon as possible; tidily, with the best model so far, unless `taken`.
        taken: the machine is taken away: end at once, as of the last checkpoint, without a test and a report.
        go_on: what the user does to go on with the run.
    """

    requested: bool = False
    taken: bool = False
    go_on: str = _START_AGAIN

    @property
    def has_something_to_save(self) -> bool:
        """Whether a run was begun: until then the process may end at once."""
        return self.go_on != _START_AGAIN

    def take_away(self) -> None:
        """The machine is taken away."""
        self.taken = self.requested = True

    def error(self, doing: str, value: object) -> Interrupted:
        """What to raise where there is no model yet, or nothing more may be done.

        Args:
            doing: what was left, after "stopped while".
            value: how far it came.
        """
        if self.taken:
            return self.taken_away()
        return Interrupted(f"stopped while {doing}", value=value, fix=self.go_on)

    def taken_away(self) -> TakenAway:
        """One line: a batch system that reads it needs no more."""
        return TakenAway(f"told to end (SIGTERM); all is kept as of the last checkpoint; {self.go_on}")
