"""Does a process that lives for long take more and more?

The rule: samples of one process, without those of its first part, are put into thirty stretches of equal length, of
which the medians count; a line goes through these (the median of the slopes between all pairs, which single peaks
cannot move: Theil 1950, Sen 1968). What that line rises over the time that counts is what the process grew by. Memory
is what is private to the process and no file (RssAnon): pages of mapped files come and go as the system likes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

STRETCHES = 30
#: What may be added in an hour, in megabytes and numbers. Shorter times may add as much: what is left of warming up
#: does not get less by being looked at for less time.
ALLOWED: dict[str, float] = {"memory": 50.0, "descriptors": 2.0, "threads": 2.0}


@dataclass(frozen=True)
class Sample:
    """One look at a process.

    Attributes:
        seconds: when, since the beginning of the measurement.
        values: measure -> value: `memory` in megabytes, private and anonymous; how many `descriptors` are open, and
            `threads` run.
    """

    seconds: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Growth:
    """How one measure of one process went.

    Attributes:
        process, measure: which.
        first, last: medians of the first and the last tenth of the time that counts.
        grown: rise of the line over the time that counts.
        seconds: how long that was.
        allowed: how much it may rise.
        medians: seconds and value of each stretch, for whoever wants to look.
    """

    process: str
    measure: str
    first: float
    last: float
    grown: float
    seconds: float
    allowed: float
    medians: tuple[tuple[float, float], ...] = ()

    @property
    def too_much(self) -> bool:
        """Whether it grew more than it may."""
        return self.grown > self.allowed

    def __str__(self) -> str:
        return (
            f"{self.measure} of {self.process}: {self.first:.0f} to {self.last:.0f}, {self.grown:+.1f} "
            f"in {self.seconds / 60:.0f} min (allowed: {self.allowed:g})"
        )


def look(pid: int, seconds: float) -> Sample | None:
    """A sample of a running process; None where it is gone, or has no memory of its own any more."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text("ascii", "replace").splitlines()
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return None
    told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if "RssAnon" not in told:
        return None
    memory = int(told["RssAnon"].split()[0]) / 1024
    return Sample(seconds, {"memory": memory, "descriptors": descriptors, "threads": int(told["Threads"])})


def growths(
    process: str, samples: Sequence[Sample], warm_up: float, allowed: Mapping[str, float] = ALLOWED
) -> list[Growth]:
    """How each measure went, without the first `warm_up` seconds of this process; none of too few samples to tell."""
    began = samples[0].seconds if samples else 0.0
    counted = [each for each in samples if each.seconds - began >= warm_up]
    if len(counted) < STRETCHES:
        return []
    return [
        _growth(process, measure, [(each.seconds, each.values[measure]) for each in counted], allowed[measure])
        for measure in counted[0].values
    ]


def _growth(process: str, measure: str, points: Sequence[tuple[float, float]], allowed: float) -> Growth:
    begin, end = points[0][0], points[-1][0]
    tenth = max(len(points) // 10, 1)
    medians = _medians(points)
    return Growth(
        process=process,
        measure=measure,
        first=statistics.median(value for _, value in points[:tenth]),
        last=statistics.median(value for _, value in points[-tenth:]),
        grown=slope(medians) * (end - begin),
        seconds=end - begin,
        allowed=allowed,
        medians=tuple(medians),
    )


def _medians(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    begin, end = points[0][0], points[-1][0]
    stretches: dict[int, list[tuple[float, float]]] = {}
    for seconds, value in points:
        number = min(int((seconds - begin) / max(end - begin, 1e-9) * STRETCHES), STRETCHES - 1)
        stretches.setdefault(number, []).append((seconds, value))
    return [
        (statistics.median(seconds for seconds, _ in each), statistics.median(value for _, value in each))
        for each in stretches.values()
    ]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Median of the slopes between all pairs of points; 0 of a single one."""
    slopes = [(v - u) / (t - s) for (s, u), (t, v) in combinations(points, 2) if t > s]
    return statistics.median(slopes) if slopes else 0.0
