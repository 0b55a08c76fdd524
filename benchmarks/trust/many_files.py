"""R12: a million files, and ten thousand classes. How long until they are listed, and how large is the report?

    python benchmarks/trust/many_files.py --files 1000000 --classes 10000

A million empty files in class folders are listed, audited and dealt (`scale.py rows`, in a process of its own); listing
them may take 60 s of processor time and 1 GB. Then `search` on as many classes, four small pictures of each, has to end
with a report page of at most 5 MB, and `report` has to render it again. The files are removed at the end.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scale import listed_rows
from stages import find_command
from timed_process import run_timed
from trust.figure import Figure, conclude, parser

MOST_SECONDS, MOST_MB = 60.0, 1000.0
MOST_PAGE_MB = 5.0
#: Pictures of a class: one to test on, one to validate with, two to train on.
_EACH = 4
_SIDE = 16
_PATIENCE = 7200.0
#: A linear probe and one fine-tune of one epoch at the smallest size: what is measured is what classes cost.
_QUICK = (
    *("--trials", "1", "--epochs", "1", "--batch-size", "128", "--resolutions", "32", "--lineage", "names"),
    *("--backbones", "efficientnet_lite0", "--offline", "--device", "cpu", "--quiet"),
)


@dataclass
class Tally:
    """What was seen.

    Attributes:
        listed: what `scale.py rows` told; None where no files were listed.
        classes: that were searched; 0: none.
        page_mb: of report.html.
        cpu_seconds, peak_mb: of the search.
        faults: what is wrong, in a line each.
    """

    listed: dict[str, Any] | None = None
    classes: int = 0
    page_mb: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    faults: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        """What is concluded."""
        faults, said = list(self.faults), []
        figures: dict[str, Any] = {}
        if self.listed is not None:
            rows, seconds, peak = self.listed["rows"], self.listed["read"], self.listed["peak_mb_reading"]
            figures["listed"] = self.listed
            said.append(
                f"{rows:,} files listed in {seconds:.0f} s of processor time and {peak:.0f} MB (audited and dealt: "
                f"{self.listed['all']:.0f} s and {self.listed['peak_mb']:.0f} MB in all)"
            )
            faults += [f"{seconds:.0f} s to list {rows:,} files"] * (seconds > MOST_SECONDS)
            faults += [f"{peak:.0f} MB to list {rows:,} files"] * (peak > MOST_MB)
        if self.classes:
            figures |= {"classes": self.classes, "page_mb": self.page_mb, "search_cpu_seconds": self.cpu_seconds}
            figures["search_peak_mb"] = self.peak_mb
            said.append(
                f"{self.classes:,} classes: report of {self.page_mb:.1f} MB (search: {self.cpu_seconds:.0f} s of "
                f"processor time, {self.peak_mb:.0f} MB)"
            )
            faults += [f"a page of {self.page_mb:.1f} MB"] * (self.page_mb > MOST_PAGE_MB)
        return Figure("R12", not faults, "; ".join(said), figures, tuple(faults))


def make_classes(folder: Path, classes: int, rng: np.random.Generator) -> None:
    """Class folders of noise around a colour of their own, no two pictures alike."""
    for label in range(classes):
        to = folder / f"class_{label:05d}"
        to.mkdir(parents=True)
        colour = rng.integers(0, 256, 3)
        for number in range(_EACH):
            pixels = np.clip(rng.normal(colour, 25, (_SIDE, _SIDE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(to / f"{number}.png", compress_level=1)


def many_classes(classes: int, seed: int, folder: Path, tally: Tally) -> None:
    """Search them, and render the report again."""
    make_classes(folder / "data", classes, np.random.default_rng(seed))
    run = folder / "run"
    words = ("--data", str(folder / "data"), "--out", str(run), "--cache-dir", str(folder / "cache"))
    ended = run_timed([find_command(), "search", *words, *_QUICK, "--seed", str(seed)], _PATIENCE)
    tally.classes, tally.cpu_seconds, tally.peak_mb = classes, ended.cpu_seconds, ended.peak_mb
    if ended.code != 0:
        tally.faults.append(f"the search ended with {ended.code}: {ended.err[-500:]}")
        return
    again = run_timed([find_command(), "report", str(run)], _PATIENCE)
    if again.code != 0:
        tally.faults.append(f"report ended with {again.code}: {again.err[-500:]}")
    told = json.loads((run / "report.json").read_text("utf-8"))
    if len(told["test"]["classes"]) != classes:
        tally.faults.append(f"the report is of {len(told['test']['classes']):,} classes, not {classes:,}")
    tally.page_mb = (run / "report.html").stat().st_size / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=1_000_000, help="empty files that are listed; 0: none")
    options.add_argument("--classes", type=int, default=10_000, help="classes that are searched; 0: none")
    given = options.parse_args(arguments)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="many-files-") as scratch:
        if given.files:
            tally.listed = listed_rows(Path(scratch) / "files", given.files)
        if given.classes:
            many_classes(given.classes, given.seed, Path(scratch) / "classes", tally)
    return conclude(tally.figure(), given.json)


if __name__ == "__main__":
    sys.exit(main())
