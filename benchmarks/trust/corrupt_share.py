"""R11: what broken images cost. 5 % of them may cost a point of accuracy; at 60 % a search says so and stops.

    python benchmarks/trust/corrupt_share.py --runs 3 --images 10000

Small: handwritten digits are searched twice with the same seed, sound and with 5 % of the files broken in one of six
ways (some of which leave a file that can be read, with other pixels), and both models are judged on the same other
digits. Large: 10,000 photographs, 6,000 of them broken, have to be refused with the share, the reasons and the names of
the first within a minute of processor time (of the whole command, start included).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from photographs import jpeg, photograph
from stages import find_command
from timed_process import Ended, run_timed
from trust.digit_sets import dealt, points_lost, right, search, write
from trust.figure import Figure, conclude, parser

FEW, MOST = 0.05, 0.6
MOST_POINTS = 1.0
#: Seconds of processor time for 10,000 files.
MOST_SECONDS, PER_FILES = 60.0, 10_000
#: Digits of each kind that are searched; about 900 others judge.
_EACH = 90
#: Different photographs; files of one differ by a comment alone, so that each has to be decoded.
_PHOTOGRAPHS = 20
_PATIENCE = 3600.0

Generator = np.random.Generator


def _zeros(rng: Generator, data: bytes) -> bytes:
    start = int(rng.integers(len(data) // 4, len(data)))
    return data[:start] + bytes(len(data) - start)


def _noise(rng: Generator, data: bytes) -> bytes:
    start = int(rng.integers(len(data) // 2, len(data)))
    return data[:start] + rng.bytes(40) + data[start + 40 :]


#: How files break.
BROKEN: dict[str, Callable[[Generator, bytes], bytes]] = {
    "cut": lambda rng, data: data[: int(rng.integers(1, len(data)))],
    "empty": lambda _rng, _data: b"",
    "web page": lambda _rng, _data: b"<!DOCTYPE html><html>404</html>",
    "other bytes": lambda rng, data: rng.bytes(len(data)),
    "zeros to the end": _zeros,
    "noise inside": _noise,
}


def break_some(paths: Sequence[Path], share: float, rng: Generator, kinds: Sequence[str] = tuple(BROKEN)) -> list[Path]:
    """Break this share of the files, the kinds in turn; those that were."""
    chosen = [paths[at] for at in sorted(rng.choice(len(paths), round(share * len(paths)), replace=False).tolist())]
    for number, path in enumerate(chosen):
        path.write_bytes(BROKEN[kinds[number % len(kinds)]](rng, path.read_bytes()))
    return chosen


@dataclass
class Tally:
    """What was seen.

    Attributes:
        lost: points of accuracy that 5 % cost, of each run.
        errors: their standard errors, as the images that judged are few.
        refused: how the command ended that was given mostly broken files; None where it was not tried.
        files: of those.
        faults: what is wrong, in a line each.
    """

    lost: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    refused: Ended | None = None
    files: int = 0
    faults: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        """What is concluded."""
        faults, said = list(self.faults), []
        figures: dict[str, Any] = {"points_lost": self.lost, "standard_errors": self.errors}
        if self.lost:
            mean = float(np.mean(self.lost))
            error = float(np.sqrt(np.sum(np.square(self.errors))) / len(self.errors))
            said.append(f"5 % broken cost {mean:+.2f} points (standard error {error:.2f}, {len(self.lost)} runs)")
            if mean > MOST_POINTS:
                faults.append(f"{mean:.2f} points of accuracy are lost")
        if self.refused is not None:
            allowed = MOST_SECONDS * self.files / PER_FILES
            cpu, wall = self.refused.cpu_seconds, self.refused.wall_seconds
            took = f"{cpu:.0f} s of processor time ({wall:.0f} s by the clock)"
            said.append(f"60 % of {self.files:,}: refused after {took}")
            figures |= {"files": self.files, "cpu_seconds": cpu, "wall_seconds": wall}
            faults += unsaid(self.refused, self.files)
            if cpu > max(allowed, MOST_SECONDS / 2):
                faults.append(f"{cpu:.0f} s of processor time, over {allowed:.0f}")
        return Figure("R11", not faults, "; ".join(said), figures, tuple(faults))


def unsaid(ended: Ended, files: int) -> list[str]:
    """What the refusal of mostly broken files lacks."""
    told = " ".join(ended.err.split())
    faults = [] if ended.code == 2 else [f"exit code {ended.code}, not 2"]
    if "Traceback" in ended.err:
        faults.append("a traceback")
    wanted = (f"of {files:,} (", "cannot be read", "truncated", "not_an_image", "--max-unreadable")
    return faults + [f"the refusal does not say {words!r}: {told[-300:]}" for words in wanted if words not in told]


def small(seed: int, folder: Path, tally: Tally) -> None:
    """One pair of searches."""
    ours, others = dealt(seed, _EACH)
    write(others, folder / "judged")
    told: list[list[bool]] = []
    for name, share in (("sound", 0.0), ("broken", FEW)):
        break_some(write(ours, folder / name), share, np.random.default_rng(seed))
        ended = search(folder / name, folder / f"{name}-run", ("--seed", str(seed)))
        if ended.code != 0:
            tally.faults.append(f"the search of {name} digits ended with {ended.code}: {ended.err[-300:]}")
            return
        told.append(right(folder / f"{name}-run" / "model.pt", folder / "judged", folder / f"{name}.jsonl"))
    lost, error = points_lost(*told)
    tally.lost.append(lost)
    tally.errors.append(error)


def make_photographs(folder: Path, count: int, size: tuple[int, int], rng: Generator) -> list[Path]:
    """So many JPEGs in ten class folders, no two with the same bytes."""
    kinds = [jpeg(photograph(*size, rng)) for _ in range(min(count, _PHOTOGRAPHS))]
    paths = []
    for number in range(count):
        data = kinds[number % len(kinds)]
        path = folder / f"class_{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:2] + b"\xff\xfe\x00\x0a%08d" % number + data[2:])
        paths.append(path)
    return paths


def large(count: int, size: tuple[int, int], seed: int, folder: Path, tally: Tally) -> None:
    """A search of mostly broken files; whatever it makes is beside them."""
    rng = np.random.default_rng(seed)
    # Only what cannot be read: the share is meant to be 60 %.
    unreadable = ("cut", "empty", "web page", "other bytes")
    break_some(make_photographs(folder / "data", count, size, rng), MOST, rng, unreadable)
    words = ("--data", str(folder / "data"), "--out", str(folder / "run"), "--cache-dir", str(folder / "cache"))
    options = ("--backbones", "efficientnet_lite0", "--offline", "--device", "cpu", "--budget", "1h", "--quiet")
    tally.files = count
    tally.refused = run_timed([find_command(), "search", *words, *options], _PATIENCE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=3, help="pairs of searches, sound and with 5 % broken; 0: none")
    options.add_argument("--images", type=int, default=10_000, help="photographs, 60 % of them broken; 0: none")
    options.add_argument("--width", type=int, default=500, help="of a photograph, in pixels")
    options.add_argument("--height", type=int, default=375, help="of a photograph, in pixels")
    given = options.parse_args(arguments)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="corrupt-share-") as scratch:
        for run in range(given.runs):
            small(given.seed + run, Path(scratch) / str(run), tally)
        if given.images:
            large(given.images, (given.width, given.height), given.seed, Path(scratch), tally)
    return conclude(tally.figure(), given.json)


if __name__ == "__main__":
    sys.exit(main())
