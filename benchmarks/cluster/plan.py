"""What 10^7, 10^8 and 10^9 images would cost in each stage: arithmetic from figures that were measured per image.

    cd benchmarks
    python -m cluster.plan            # the tables of docs/scale.md

`MEASURED` is the one place where the figures are: CPU seconds of one core, bytes in the memory of one process and bytes
on disk, each for one image, from `cluster.per_image`, with the number of images that they were measured at. They are
extrapolated in proportion, but for the search of neighbours, which has a part that grows with the square. When figures
change, change them here and put the tables into docs/scale.md; a test compares them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Images of the columns.
COUNTS = (10**7, 10**8, 10**9)
#: One machine as it may be had: bytes of memory and of disk, and cores.
MEMORY, DISK, CORES = 256e9, 4e12, 64
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
    def ends(self) -> tuple[float, str]:
        """Images at which one machine is full or busy for a day, and which of these comes first."""
        cores = 1 if self.alone else CORES
        limits = {
            "its memory": MEMORY / self.memory if self.memory else math.inf,
            "its disk": DISK / self.disk if self.disk else math.inf,
            "a day": _positive_root(self.cpu_each_other, self.cpu, -_DAY * cores),
        }
        first = min(limits, key=lambda name: limits[name])
        return limits[first], first


def _positive_root(a: float, b: float, c: float) -> float:
    """Of a n^2 + b n + c with c < 0; infinite where nothing grows."""
    if a:
        return float((-b + (b * b - 4 * a * c) ** 0.5) / (2 * a))
    return -c / b if b else math.inf


def both(n: int, first: float, second: float) -> tuple[float, float]:
    """Of seconds for n and 2 n images: for each image, and for each other image too."""
    square = (second - 2 * first) / (2 * n * n)
    return first / n - square * n, square


#: Of the log, 2026-11-22: vectors with the spread of real descriptors, found by `Cells`.
_SEARCH = both(30_000, 11.5, 27.5)

#: `cluster.per_image`, 2026-11-23, two cores shared with much other work, one thread; figures that are counted, not
#: measured, say so in the name.
MEASURED: tuple[Stage, ...] = (
    Stage("list files and labels", cpu=5.9e-6, memory=265, at=1_000_000, alone=True),
    Stage("decode, 500 x 375, squares of 224 and 258 px", cpu=7.1e-3, disk=350e3, at=200),
    Stage("decode, 2048 x 1536 at a fraction", cpu=50e-3, disk=350e3, at=20),
    Stage("facts of each file", disk=95, at=2_000),
    Stage("audit; groups by names and equal bytes", cpu=16e-6, memory=1_070, at=1_000_000, alone=True),
    Stage("descriptors", cpu=21e-3, disk=960, at=200),
    Stage("neighbours", cpu=_SEARCH[0], cpu_each_other=_SEARCH[1], memory=6_940, at=60_000, alone=True),
    Stage("list of pairs to compare, 9.4 an image", cpu=71e-6, memory=3_320, at=40_000, alone=True),
    Stage("key points, where all pairs are compared", cpu=67e-3, at=64),
    Stage("pairs, where all 9.4 an image are compared", cpu=9.4 * 55e-3, at=64),
    Stage("split", cpu=8.1e-6, disk=56, at=1_000_000, alone=True),
    Stage("features of one backbone, 224 px", cpu=21e-3, memory=4 * 1_280, at=96),
    Stage("linear probe on them, 10 classes", cpu=0.85e-3, memory=39.3e3, at=20_000, alone=True),
    Stage("one epoch, all of EfficientNet-Lite0 at 224 px", cpu=97e-3, at=96),
    Stage("figures of the test set, 10 classes (an image of it)", cpu=139e-6, memory=824, at=100_000, alone=True),
    Stage("table of its predictions, 10 classes (an image of it)", cpu=18e-6, disk=268, at=100_000, alone=True),
    Stage(
        "table of its predictions, 1,000 classes (an image of it)",
        cpu=1.6e-3,
        memory=45e3,
        disk=22.1e3,
        at=10_000,
        alone=True,
    ),
    Stage("marks of seen images in model.pt (counted)", disk=16),
)


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


def ends_table() -> str:
    """One row per stage: where one machine is full, or busy for a day."""
    machine = f"{CORES} cores, {_bytes(MEMORY)} of memory and {_bytes(DISK)} of disk"
    lines = [
        f"| stage, as it is today | images at which a machine of {machine} has enough | because of |",
        "|---|---|---|",
    ]
    for stage in sorted(MEASURED, key=lambda each: each.ends[0]):
        images, why = stage.ends
        lines.append(
            f"| {stage.name} | {_counted(images)} | {why}{', on one core' * (stage.alone and why == 'a day')} |"
        )
    return "\n".join(lines)


def _counted(images: float) -> str:
    digits = float(f"{images:.2g}")
    return f"{digits / 1e9:.3g} billion" if digits >= 1e9 else f"{digits / 1e6:.3g} million"


def _measured(stage: Stage) -> str:
    parts = [f"{_seconds(stage.cpu)} CPU"] if stage.cpu else []
    if stage.cpu_each_other:
        parts.append(f"and {_seconds(stage.cpu_each_other)} for each other image")
    parts += [f"{_bytes(stage.memory)} memory"] if stage.memory else []
    parts += [f"{_bytes(stage.disk)} disk"] if stage.disk else []
    return ", ".join(parts).replace(", and", " and") + (f" ({stage.at:,})" if stage.at else "")


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
    print(cost_table(), ends_table(), sep="\n\n")


if __name__ == "__main__":
    main()
