"""What 10^7, 10^8 and 10^9 images would cost in each stage: arithmetic from figures that were measured per image.

    cd benchmarks
    python -m cluster.plan            # the tables of docs/scale.md

`MEASURED` is the one place where the figures are: CPU seconds of one core, bytes in the memory of one process and bytes on disk, each for
one image, from `cluster.per_image` and benchmarks.md at the number of images that is named. All of it is extrapolated in
proportion, but for the search of neighbours, which has a part that grows with the square; nothing else is assumed. When
figures change, change them here, and run this again: a test holds docs/scale.md to it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Images of the columns.
COUNTS = (10**7, 10**8, 10**9)
#: One machine as it may be had: bytes of memory, and cores.
MEMORY, CORES = 256e9, 64
_DAY = 86_400.0


@dataclass(frozen=True)
class Stage:
    """What one image costs in a stage.

    Attributes:
        name: for the table.
        cpu: seconds of one core.
        cpu_each_other: the same for each other image: what grows with the square.
        memory: bytes in one process.
        disk: bytes that stay.
        at: images that it was measured with, the most of them.
        alone: whether all of it is one process that uses one core.
    """

    name: str
    cpu: float = 0.0
    cpu_each_other: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    at: int = 0
    alone: bool = False

    def cpu_hours(self, images: int) -> float:
        """Of one core."""
        return images * (self.cpu + self.cpu_each_other * images) / 3600

    @property
    def bends(self) -> tuple[float, str]:
        """Images at which one machine is full or busy for a day, and which of the two comes first."""
        by_memory = MEMORY / self.memory if self.memory else float("inf")
        cores = 1 if self.alone else CORES
        by_time = _positive_root(self.cpu_each_other, self.cpu, -_DAY * cores)
        return (by_memory, "memory") if by_memory < by_time else (by_time, "a day")


def _positive_root(a: float, b: float, c: float) -> float:
    """Of a n^2 + b n + c with c < 0; infinite where nothing grows."""
    if a:
        return float((-b + (b * b - 4 * a * c) ** 0.5) / (2 * a))
    return -c / b if b else float("inf")


#: Filled from `cluster.per_image`, see docs/benchmarks.md.
MEASURED: tuple[Stage, ...] = ()


def cost_table() -> str:
    """One row per stage: what an image costs, and what the counts do."""
    lines = [
        "| stage | measured for one image, at so many | " + " | ".join(f"10^{len(str(n)) - 1}" for n in COUNTS) + " |",
        "|---|---|" + "---|" * len(COUNTS),
    ]
    for stage in MEASURED:
        cells = [_costs(stage, count) for count in COUNTS]
        lines.append(f"| {stage.name} | {_measured(stage)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bends_table() -> str:
    """One row per stage: where one machine is full, or busy for a day."""
    lines = [f"| stage | ends on one machine of {CORES} cores and {MEMORY / 1e9:.0f} GB at | by |", "|---|---|---|"]
    for stage in sorted(MEASURED, key=lambda each: each.bends[0]):
        images, why = stage.bends
        lines.append(f"| {stage.name} | {_rounded(images)} images | {why} |")
    return "\n".join(lines)


def _measured(stage: Stage) -> str:
    parts = [f"{_seconds(stage.cpu)} CPU"] if stage.cpu else []
    if stage.cpu_each_other:
        parts.append(f"and {_seconds(stage.cpu_each_other)} for each other image")
    parts += [f"{_bytes(stage.memory)} memory"] if stage.memory else []
    parts += [f"{_bytes(stage.disk)} disk"] if stage.disk else []
    return ", ".join(parts).replace(", and", " and") + f" ({stage.at:,})"


def _costs(stage: Stage, count: int) -> str:
    hours = stage.cpu_hours(count)
    parts = [f"{_rounded(hours)} h"] if hours else []
    parts += [_bytes(stage.memory * count)] if stage.memory else []
    parts += [f"{_bytes(stage.disk * count)} disk"] if stage.disk else []
    return ", ".join(parts)


def _rounded(value: float) -> str:
    """Two digits that mean something: more would pretend."""
    if value >= 10:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.2g}" if value >= 0.01 else "under .01"


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if value >= size:
            return f"{value / size:.2g} {unit}" if value / size < 100 else f"{value / size:.0f} {unit}"
    return f"{value / 1e-12:.2g} ps"


def _bytes(value: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} B"


def main() -> None:
    """Print both tables."""
    print(cost_table(), bends_table(), sep="\n\n")


if __name__ == "__main__":
    main()
