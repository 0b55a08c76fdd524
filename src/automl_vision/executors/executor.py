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
        lost: why whoever did the job is gone, "" where nobody is; the job did not end, and may be submitted again as a
            later attempt. Comes with `ended`, and without progress.
        preempted: lost because a machine was taken back, as its owner had said: no fault of the job.
        begun: False, with `lost`, where nobody is known to have begun it before all was over: it waits as it did, and
            there is no loss to tell of.
    """

    number: int
    attempt: int
    progress: Progress | None
    ended: bool
    lost: str = ""
    preempted: bool = False
    begun: bool = True


class Executor(Protocol[JobIn, Progress]):
    """Runs jobs somewhere. A job is named by its number; a later attempt replaces an earlier one."""

    @property
    def free_slots(self) -> int:
        """How many more jobs can be taken now; at least one while none is in work."""
        ...

    def submit(self, number: int, attempt: int, job: JobIn) -> None:
        """Take a job.

        Raises:
            RuntimeError: no slot is free; ask `free_slots` first.
        """
        ...

    def poll(self) -> list[Report[Progress]]:
        """What happened since the last call; waits for at least one report while a job is in work.

        Raises:
            What the work raised: a fault that no other job would be spared.
        """
        ...

    def cancel(self, number: int) -> None:
        """Stop a job as soon as possible; no further report of it comes."""
        ...

    def close(self) -> None:
        """Stop everything and free what is held."""
        ...
