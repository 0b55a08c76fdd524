"""R10: everything that is odd about images and folders, in one data set. Does a search end, and say all of it?

    python benchmarks/trust/odd_folder.py --each 40

Handwritten digits are searched twice with the same seed: as they are, and between some eighty oddities (`oddities.py`):
files that are no images, images stored in unusual ways, bombs, links, pipes, litter, files and folders that may not be
read, odd names of files and of all classes. The second search has to end, its report has to name each oddity with its
reason, and its model has to be as right about other digits as the first one's, within a point of accuracy or two
standard errors of the difference. What has to stop a search is tried by itself.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from automl_vision.spreadsheet import rearmed
from stages import find_command
from timed_process import run_timed
from trust.digit_sets import Digits, dealt, picture, points_lost, right, search, write
from trust.figure import Figure, conclude, parser
from trust.oddities import (
    CLOSED,
    DROPPED,
    FINDING,
    FOLDERS,
    IGNORED,
    NO_PICTURES,
    QUARANTINE,
    STOPS,
    STORED,
    USED,
    Expected,
    saved,
)
from trust.other_users import as_other_users

MOST_POINTS = 1.0
#: The ten classes, by digit, as the odd folder calls them.
CLASSES = (
    "zero",
    "new\nline",
    "\x1b[31mred\x1b]0;owned\x07",
    "[bold] [link=x]",
    "=SUM(A1)",
    "-rf",
    "<script>alert(1)<script>",
    "n" * 250,
    "tab\t; {{ 7*7 }}",
    os.fsdecode(b"\xff\xfe"),
)
#: Digits for pictures that are stored in unusual ways; enough of each kind.
_SPARE = 200
_SETS = ("train", "val", "test", "aside")


@dataclass
class Tally:
    """What was seen.

    Attributes:
        oddities: how many were tried, those that stop a search among them.
        lost: points of accuracy that the oddities cost, and the standard error of that; None where it was not reached.
        skipped: what could not be tried here.
        faults: what is wrong, in a line each.
    """

    oddities: int = 0
    lost: tuple[float, float] | None = None
    skipped: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        """What is concluded."""
        faults = list(self.faults)
        said = [f"{self.oddities} oddities, {len(self.faults)} of them not as promised", *self.skipped]
        if self.lost is None:
            faults.append("the accuracies were not compared")
        else:
            points, error = self.lost
            said.append(f"they cost {points:+.2f} points of accuracy (standard error {error:.2f})")
            if points > max(MOST_POINTS, 2 * error):
                faults.append(f"{points:.2f} points of accuracy are lost")
        figures = {
            "oddities": self.oddities,
            "lost": self.lost,
            "skipped": self.skipped,
            "not_as_promised": self.faults,
        }
        return Figure("R10", not faults, "; ".join(said), figures, tuple(faults))


def make_odd(root: Path, ours: Digits, spare: Digits, closed: bool) -> list[Expected]:
    """The digits under odd class names, with all oddities between them."""
    write(ours, root)
    for digit, name in enumerate(CLASSES):
        (root / str(digit)).rename(root / name)
    expected = [*_stored(root, spare), *_no_pictures(root)]
    folder = root / CLASSES[0]
    good = saved(picture(spare.pictures[np.flatnonzero(spare.labels == 0)[-1]]), "PNG")
    for make in (*FOLDERS, *((CLOSED,) if closed else ())):
        expected += make(root, folder, good)
    return expected


def _stored(root: Path, spare: Digits) -> Iterable[Expected]:
    """Pictures of each class in turn, under its own label."""
    for number, (oddity, (ending, encode, kind)) in enumerate(STORED.items()):
        digit = number % len(CLASSES)
        levels = spare.pictures[np.flatnonzero(spare.labels == digit)[number // len(CLASSES)]]
        path = f"{CLASSES[digit]}/odd_{number}.{ending}"
        (root / path).write_bytes(encode(picture(levels)))
        yield Expected(oddity, USED, path)
        if kind:
            yield Expected(oddity, FINDING, path, kind)
    yield Expected("EXIF orientations", FINDING, kind="exif_rotated")


def _no_pictures(root: Path) -> Iterable[Expected]:
    for number, (oddity, (name, content, fault)) in enumerate(NO_PICTURES.items()):
        path = f"{CLASSES[number % len(CLASSES)]}/{name}"
        (root / path).write_bytes(content())
        yield Expected(oddity, QUARANTINE, path, fault)


@dataclass(frozen=True)
class Told:
    """What a finished run says of its data.

    Attributes:
        sets: path -> the set that it is in.
        found: path (or "") and kind of each finding.
        passed_over: what is said of files and folders that were ignored.
        dropped: classes that were left out.
    """

    sets: Mapping[str, str]
    found: frozenset[tuple[str, str]]
    passed_over: tuple[str, ...]
    dropped: tuple[str, ...]

    def kinds_of(self, path: str) -> list[str]:
        """Of its findings."""
        return sorted(kind for each, kind in self.found if each == path)


def told_by(data: Mapping[str, Any], split: Path) -> Told:
    """What section `data` of the report and split.csv say."""
    with split.open(encoding="utf-8", newline="") as file:
        sets = {rearmed(row["path"]): row["split"] for row in csv.DictReader(file)}
    found = data["findings"]
    return Told(
        sets,
        frozenset((each["path"], each["kind"]) for each in found),
        tuple(each["detail"] for each in found if each["kind"] == "ignored"),
        tuple(data["dropped_classes"]),
    )


def _not_used(each: Expected, told: Told) -> str:
    placed = told.sets.get(_shown(each.path), "no set")
    return "" if placed in _SETS else f"it is in {placed} ({told.kinds_of(each.path)})"


def _not_quarantined(each: Expected, told: Told) -> str:
    placed, kinds = told.sets.get(_shown(each.path), "no set"), told.kinds_of(each.path)
    return "" if placed == "quarantine" and each.kind in kinds else f"it is in {placed} ({kinds}), not {each.kind}"


def _not_found(each: Expected, told: Told) -> str:
    return "" if (each.path, each.kind) in told.found else f"nothing says {each.kind} ({told.kinds_of(each.path)})"


def _not_ignored(each: Expected, told: Told) -> str:
    return "" if any(each.kind in words for words in told.passed_over) else f"nothing says {each.kind}"


def _not_dropped(each: Expected, told: Told) -> str:
    return "" if each.kind in told.dropped else "the class is not named"


#: Fate -> what is not said of it, "" where it is.
_LACKING: Mapping[str, Callable[[Expected, Told], str]] = {
    USED: _not_used,
    QUARANTINE: _not_quarantined,
    FINDING: _not_found,
    IGNORED: _not_ignored,
    DROPPED: _not_dropped,
}


def unsaid(expected: Iterable[Expected], told: Told) -> list[str]:
    """What a run does not say, or says otherwise."""
    lacking = ((each, _LACKING[each.fate](each, told)) for each in expected)
    return [f"{each.oddity}: {words}" for each, words in lacking if words]


def _shown(path: str) -> str:
    """As tables have it."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def stops(folder: Path, good: bytes, tally: Tally) -> None:
    """What has to be refused, each by itself."""
    for number, (oddity, (make, words)) in enumerate(STOPS.items()):
        place = folder / f"stop-{number}"
        place.mkdir()
        data = make(place / "data", good)
        line = [find_command(), "search", "--data", str(data), "--out", str(folder / f"refused-{number}"), "--quiet"]
        ended = run_timed([*line, "--offline", "--device", "cpu"], 600.0)
        told = " ".join(ended.err.split())
        tally.oddities += 1
        lacking = [each for each in words if each not in told]
        if ended.code != 2 or "Traceback" in told or lacking:
            tally.faults.append(f"{oddity}: exit code {ended.code}, does not say {lacking}: {told[-300:]}")


def searched(folder: Path, seed: int, each: int, tally: Tally) -> None:
    """Both searches, and what they say."""
    ours, others = dealt(seed, each)
    spare = Digits(others.pictures[:_SPARE], others.labels[:_SPARE])
    judges = Digits(others.pictures[_SPARE:], others.labels[_SPARE:])
    write(judges, folder / "judged")
    write(ours, folder / "sound")
    before = as_other_users()
    if before is None:
        tally.skipped.append("files that may not be read were not tried")
    expected = make_odd(folder / "odd" / "data", ours, spare, closed=before is not None)
    tally.oddities += len({item.oddity for item in expected})
    sound = search(folder / "sound", folder / "sound-run", ("--seed", str(seed)))
    odd = search(
        folder / "odd" / "data", folder / "odd-run", ("--seed", str(seed), "--drop-small-classes"), before or ()
    )
    for name, ended in (("sound", sound), ("odd", odd)):
        if ended.code != 0:
            tally.faults.append(f"the search of the {name} folder ended with {ended.code}: {ended.err[-600:]}")
            return
    report = json.loads((folder / "odd-run" / "report.json").read_text("utf-8"))
    tally.faults += unsaid(expected, told_by(report["data"], folder / "odd-run" / "split.csv"))
    if any(character in odd.err + odd.out for character in ("\x1b[31m", "\x07")):
        tally.faults.append("control characters of a name reached the terminal")
    plain = right(folder / "sound-run" / "model.pt", folder / "judged", folder / "sound.jsonl")
    named = {_printable(name): str(digit) for digit, name in enumerate(CLASSES)}
    tally.lost = points_lost(
        plain, right(folder / "odd-run" / "model.pt", folder / "judged", folder / "odd.jsonl", named)
    )


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--each", type=int, default=60, help="digits of each kind that are searched")
    given = options.parse_args(arguments)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="odd-folder-") as scratch:
        good = saved(picture(dealt(given.seed, 1)[0].pictures[0]), "PNG")
        stops(Path(scratch), good, tally)
        searched(Path(scratch), given.seed, given.each, tally)
        _open_again(Path(scratch))
    return conclude(tally.figure(), given.json)


def _open_again(folder: Path) -> None:
    """What may not be read cannot be removed either."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(place) / name
            if not path.is_symlink():
                path.chmod(0o700)


if __name__ == "__main__":
    sys.exit(main())
