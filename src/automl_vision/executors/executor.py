"""The seam between deciding what to train and training it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Job = TypeVar("Job")
Progress = TypeVar("Progress")
JobIn = TypeVar("JobIn", contravariant=True)

#: Does a job and yields its progress; the last thing it yields is the result.
Work = Callable[[Job], Iterator[Progress]]


@dataclass(frozen=True)
class Report(Generic[Progress]):
    """What happened to a job.

    Attributes:
        number: the number under which the job was submitted.
        attempt: the attempt it belongs to; reports of an older attempt than the last submitted are dropped.
        progress: the newest progress, None when nothing new came with the end of the job.
        ended: True when nothing more will come.
    """

    number: int
    attempt: int
    progress: Progress | None
    ended: bool


class Executor(Protocol[JobIn, Progress]):
    """Runs jobs somewhere. A job is named by its number; a later attempt replaces an earlier one."""

    @property
    def free_slots(self) -> int:
        """How many more jobs can be taken now."""
        ...

    def submit(self, number: int, attempt: int, job: JobIn) -> None:
        """Take a job.

        Raises:
            RuntimeError: no slot is free; ask `free_slots` first.
        """
        ...

    def poll(self) -> list[Report[Progress]]:
        """What happened since the last call; waits for at least one report while a job is in work."""
        ...

    def cancel(self, number: int) -> None:
        """Stop a job as soon as possible; no further report of it comes."""
        ...

    def close(self) -> None:
        """Stop everything and free what is held."""
        ...
