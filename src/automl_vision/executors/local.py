"""Trials in this very process, one after another: no service, no second import of torch, nothing to clean up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic

from automl_vision.executors.executor import Job, Progress, Report, Work


@dataclass
class _Running(Generic[Progress]):
    number: int
    attempt: int
    progress: Iterator[Progress]


class LocalExecutor(Generic[Job, Progress]):
    """One slot. `poll` advances the job in work to its next progress.

    Args:
        work: does a job and yields its progress.
    """

    def __init__(self, work: Work[Job, Progress]) -> None:
        self._work = work
        self._running: _Running[Progress] | None = None

    @property
    def free_slots(self) -> int:
        """1 when idle, else 0."""
        return int(self._running is None)

    def submit(self, number: int, attempt: int, job: Job) -> None:
        """Take a job; it starts at the next `poll`."""
        if self._running is not None:
            raise RuntimeError(f"the slot is taken, got {number=} while {self._running.number} is in work")
        self._running = _Running(number, attempt, self._work(job))

    def poll(self) -> list[Report[Progress]]:
        """Advance the job in work by one progress; nothing when idle."""
        running = self._running
        if running is None:
            return []
        progress = next(running.progress, None)
        if progress is None:
            self._running = None
        return [Report(running.number, running.attempt, progress, ended=progress is None)]

    def cancel(self, number: int) -> None:
        """Drop the job in work, if it has this number."""
        if self._running is not None and self._running.number == number:
            self.close()

    def close(self) -> None:
        """Drop the job in work."""
        running, self._running = self._running, None
        if running is not None and hasattr(running.progress, "close"):
            running.progress.close()
