"""Kill a search exactly where it writes: is every file as before or as after, and does the run end as undisturbed?

    python benchmarks/trust/crash_points.py --times 5

Every point of `POINTS` is a file and a moment: half of it written, written and not renamed, renamed and the folder not
synced, removed. One run dies at one point after the other, each time in a session that was resumed, and then ends by
itself; that is done `--times` times, in another order. Checked at each death: the file holds what it held before, or
what it was to hold, as the moment says, and every other file of the run can be read. Checked at the end: the run came
to what an undisturbed one came to, to the last bit, nothing unfinished is left, the report follows from the
predictions, and the test set was looked at once after the last death.

Trials of which several run at a time are claimed before they begin: a run of such a search dies where that is written.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from automl_vision.bundle import load_bundle
from automl_vision.errors import ModelFileError
from automl_vision.tensor_file import load_tensors
from trust import crash_hook
from trust.figure import Figure, conclude, parser
from trust.tiny_search import OPTIONS, TinySearch, differences, everything, faults_of_end, looked_before, tiny_search


@dataclass(frozen=True)
class Point:
    """Where a session dies.

    Attributes:
        name: in words.
        file: regular expression of the path in the run folder.
        moment: one of `crash_hook.MOMENTS`.
        often: whether a session comes to it more than once, so that it may die at the second time as well.
    """

    name: str
    file: str
    moment: str
    often: bool = False


def _points(name: str, file: str, *moments: str, often: bool = False) -> tuple[Point, ...]:
    return tuple(Point(f"{name} {moment}", file, moment, often) for moment in moments)


#: In the order in which a run comes to them; within a group but the first in any order. At those of the last group the
#: run is complete, so that it dies at one of them.
POINTS: tuple[tuple[Point, ...], ...] = (
    (
        *_points("owner of the lock", r"\.lock\.owner", "written"),
        *_points("settings", r"config\.toml", "half", "renamed"),
        *_points("what the run works on", r"run\.json", "written", "renamed"),
    ),
    (
        *_points("images left out of a probe", r"trials/held_out\.pt", "written"),
        *_points("weights of a probe", r"trials/000000/best\.pt", "renamed"),
        *_points("record of a probe", r"trials/000000\.json", "written"),
    ),
    (
        *_points("checkpoint", r"trials/\d+/checkpoint\.pt", "half", "written", "renamed", often=True),
        *_points("best weights", r"trials/\d+/best\.pt", "half", "written", "renamed", often=True),
        *_points("best predictions", r"trials/\d+/predicted\.pt", "written", "renamed", often=True),
        *_points("record", r"trials/\d+\.json", "half", "written", "renamed", often=True),
        *_points("time spent", r"spent\.json", "written", "renamed", often=True),
        *_points("model of the search", r"model\.pt", "half", "written", "renamed"),
    ),
    (
        *_points("ledger of looks", r"looks\.json", "written", "renamed"),
        *_points("predictions on the test set", r"predictions_test\.csv", "half", "renamed"),
        *_points("page", r"report\.html", "renamed"),
        *_points("model card", r"README\.md", "written"),
        *_points("report", r"report\.json", "half", "written"),
    ),
    (
        *_points("end of the run", r"report\.json", "renamed"),
        *_points("checkpoint of a trial that is over", r"trials/\d+/checkpoint\.pt", "removed"),
    ),
)
#: Of a search whose trials run in processes of their own.
CLAIMS: tuple[Point, ...] = (
    *_points("fence", r"trials/fence\.txt", "written"),
    *_points("claim", r"trials/\d+(\.attempt-\d+)?\.json", "half", "written", "renamed"),
)
Groups = Sequence[Sequence[Point]]
#: How a file is read that the name ends in: what cannot be read raises.
READERS: dict[str, Callable[[Path], object]] = {
    "model.pt": load_bundle,
    ".pt": load_tensors,
    ".json": lambda file: json.loads(file.read_text("utf-8")),
}
#: Runs beyond those that it takes where every run comes to every point.
TRIES = 3


@dataclass
class Tally:
    """What was found.

    Attributes:
        deaths: name of the point -> how often a session died there.
        runs: that came to their end.
        between: files that were neither as before nor as after, or could not be read.
        differing: runs that came to something else than the undisturbed one.
        faults: everything else that is not as it should be.
    """

    deaths: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    between: list[str] = field(default_factory=list)
    differing: int = 0
    faults: list[str] = field(default_factory=list)

    def figure(self, points: Sequence[Point], times: int) -> Figure:
        """What it says of R2, where each point was to be hit so often."""
        rare = [point.name for point in points if self.deaths.get(point.name, 0) < times]
        faults = [*self.between, *self.faults]
        faults += [f"not {times} times: {', '.join(rare)}"] if rare else []
        text = (
            f"{sum(self.deaths.values())} deaths at {len(self.deaths)} named points ({len(points) - len(rare)} of "
            f"{len(points)} at least {times} times) in {self.runs} runs: {len(self.between)} times a file was between "
            f"before and after, {self.differing} runs came to something else, {len(self.faults)} other faults"
        )
        return Figure("R2", not (faults or self.differing), text, asdict(self), tuple(faults))


class Walk:
    """One run that dies at one point after the other."""

    def __init__(self, search: TinySearch, run: Path, tally: Tally, chance: random.Random) -> None:
        self._search, self._run, self._tally, self._chance = search, run, tally, chance
        self._looked = 0
        self.ended = False

    def through(self, points: Sequence[Point]) -> None:
        """Die at each of them once, as far as the run comes to them before it ends."""
        for point in points:
            if self.ended:
                return
            self._die(point)

    def to_the_end(self) -> None:
        """Let it end by itself, and check it."""
        session = self._search.begin(self._run)
        self._end(session.wait(), session.said)

    def _die(self, point: Point) -> None:
        words = self._run.with_suffix(".last_words")
        words.unlink(missing_ok=True)
        nth = self._chance.choice((1, 1, 2)) if point.often else 1
        known = (str(self._run), point.file, point.moment, nth, str(words))
        session = self._search.begin(self._run, first=crash_hook.arm, of=known)
        code = session.wait()
        if code != -signal.SIGKILL or not words.is_file():
            self._end(code, session.said)
            return
        self._tally.deaths[point.name] = self._tally.deaths.get(point.name, 0) + 1
        print(f"{sum(self._tally.deaths.values())}: {point.name}", file=sys.stderr, flush=True)
        self._looked = looked_before(self._run)
        self._tally.between += between(self._run, point, json.loads(words.read_text()))

    def _end(self, code: int | None, said: str) -> None:
        self.ended = True
        if code != 0:
            self._tally.faults.append(f"a session of {self._run.name} ended with {code}: {said[-300:]}")
            return
        self._tally.runs += 1
        self._tally.faults += faults_of_end(self._search, self._run, self._looked)


def between(run: Path, point: Point, words: dict[str, Any]) -> list[str]:
    """What is neither as before a write nor as after it, where a session died.

    Args:
        run: its folder.
        point: where it died.
        words: what it said before: "path", and digests of what it held ("former") and was to hold ("new").
    """
    expected = {"half": words["former"], "written": words["former"], "renamed": words["new"], "removed": None}
    found = crash_hook.digest(words["path"])
    wrong = [] if found == expected[point.moment] else [f"{point.name}: {words['path']} is neither of both"]
    return wrong + [f"{point.name}: {why}" for why in unreadable(run)]


def unreadable(run: Path) -> list[str]:
    """The finished files of a run that cannot be read."""
    faults = []
    for file in sorted(each for each in run.rglob("*") if each.is_file()):
        reader = next((read for ending, read in READERS.items() if file.name.endswith(ending)), None)
        try:
            _ = None if reader is None else reader(file)
        except (ModelFileError, ValueError) as error:
            faults.append(f"{file.name} cannot be read ({error})")
    return faults


def walk_all(search: TinySearch, scratch: Path, groups: Groups, times: int, tally: Tally, seed: int) -> None:
    """Runs that die at all points, in another order each, until every point was hit so often."""
    expected = everything(scratch / "undisturbed")
    chance, runs = random.Random(seed), 0
    most = times * max(1, len(groups[-1])) + TRIES
    while (missing := _missing(groups, tally, times)) and runs < most and not tally.faults:
        run = scratch / f"run{runs}"
        walk = Walk(search, run, tally, chance)
        for place, group in enumerate(groups):
            left = [each for each in group if each in missing]
            walk.through(left if place == 0 else chance.sample(left, k=len(left)))
        if not walk.ended:
            walk.to_the_end()
        runs += 1
        if not tally.faults and (other := differences(expected, everything(run))):
            tally.differing += 1
            print(f"{run.name}: other {', '.join(other)}", file=sys.stderr, flush=True)


def _missing(groups: Groups, tally: Tally, times: int) -> list[Point]:
    return [point for group in groups for point in group if tally.deaths.get(point.name, 0) < times]


def walk_claims(search: TinySearch, run: Path, claims: Sequence[Point], times: int, tally: Tally, seed: int) -> None:
    """One run of trials beside each other that dies where they are claimed, and then ends."""
    walk = Walk(search, run, tally, random.Random(seed))
    walk.through([point for point in claims for _ in range(times)])
    if not walk.ended:
        walk.to_the_end()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    made = parser(__doc__)
    made.add_argument("--times", type=int, default=5, help="deaths at each point")
    made.add_argument("--only", default="", help="points whose name this regular expression is found in")
    made.add_argument("--options", default=OPTIONS, help="options for search, in one text")
    options = made.parse_args(arguments)
    tally = Tally()
    *groups, claims = _chosen(options.only)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        search = tiny_search(scratch, options.options)
        Walk(search, scratch / "undisturbed", tally, random.Random(0)).to_the_end()
        if not tally.faults:
            walk_all(search, scratch, groups, options.times, tally, options.seed)
        if not tally.faults and claims:
            beside = TinySearch([*search.options, *shlex.split("--max-parallel 2")])
            walk_claims(beside, scratch / "claims", claims, options.times, tally, options.seed)
    points = [point for group in (*groups, claims) for point in group]
    return conclude(tally.figure(points, options.times), options.json)


def _chosen(pattern: str) -> list[tuple[Point, ...]]:
    """The groups of points, those of claims last, each with the points that are wanted."""
    return [tuple(point for point in group if re.search(pattern, point.name)) for group in (*POINTS, CLAIMS)]


if __name__ == "__main__":
    sys.exit(main())
