"""Kill a search at random moments, resume it each time: is anything lost, done twice, or another in the end?

    python benchmarks/trust/kill_storm.py --kills 200
    python benchmarks/trust/kill_storm.py --kills 20 --data DIR --options "--trials 25 --epochs 2"

`kill -9` of the whole process group, after seconds of CPU that are drawn evenly for each session. One in ten is a
process as a user starts it, the others are forked from one that has imported everything (see sessions.py). A run that
is complete before all kills are spent is checked, and the next one begins; an undisturbed one is made first. Checked
against what was on disk at every kill: no trial that was complete is missing or different, no epoch that was recorded
was trained again, no default recipe was started twice, no session refused to go on, the report's figures follow from
the predictions, the model predicts, and the test set was looked at once after the last kill. A run has to come to what
the undisturbed one came to, to the last bit: figures of every epoch, weights, model, predictions. Measured: seconds
from the start of a resumed, cold process to its search, and what a kill cost, in epochs that were told and not on disk,
and in seconds since the last record.

A trial writes its checkpoint as often as takes a twentieth of the time: of epochs that take less than twenty times as
long as writing, a kill costs several, but seconds. So what is held against it is one epoch, or `--lost-seconds`.
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trust.figure import Figure, conclude, parser
from trust.sessions import Session
from trust.tiny_search import (
    OPTIONS,
    TinySearch,
    differences,
    everything,
    faults_of_end,
    is_begun,
    last_stage,
    log_lines,
    looked_before,
    spread,
    tiny_search,
)

#: States of trials that no later session may change.
_FINAL = ("complete", "failed")
#: What the log says after an epoch.
_TOLD = re.compile(r"trial (?P<number>\d+) (?P<state>\w+) epoch (?P<epoch>\d+) ")
Record = dict[str, Any]


@dataclass
class Tally:
    """What was found over all sessions and runs.

    Attributes:
        runs: searches that were completed.
        kills: sessions that were killed.
        cold: those of them that had to import everything by themselves.
        hit: what the killed sessions were doing, by the last line of their log -> how often.
        trials: in the completed runs.
        lost: trials that were on disk at a kill and are not at the end, and final ones that changed.
        repeated: epochs that were recorded at a kill and trained again, and default recipes started twice.
        differing: runs that came to something else than the undisturbed one.
        restarts, restart_cpu: seconds, and CPU seconds, from the start of a resumed cold process to its search.
        epochs_lost, seconds_lost: of each kill within a trial: epochs that were told and not on disk, seconds since the
            last record.
        faults: everything else that is not as it should be.
    """

    runs: int = 0
    kills: int = 0
    cold: int = 0
    hit: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    lost: int = 0
    repeated: int = 0
    differing: int = 0
    restarts: list[float] = field(default_factory=list)
    restart_cpu: list[float] = field(default_factory=list)
    epochs_lost: list[int] = field(default_factory=list)
    seconds_lost: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def figures(self, kills: int, most_seconds: float, lost_seconds: float) -> tuple[Figure, Figure]:
        """What it says of R3, and of R1.

        Args:
            kills: that were to be.
            most_seconds: of CPU that a restart may take; on the wall clock it takes as long as others let it.
            lost_seconds: that a kill may cost where it costs more than one epoch.
        """
        few = [f"only {self.kills} kills"] if self.kills < kills else []
        slow = sum(each > most_seconds for each in self.restart_cpu)
        slowness = [f"{slow} restarts took more than {most_seconds:g} s of CPU"] if slow else []
        costs = zip(self.epochs_lost, self.seconds_lost, strict=True)
        costly = sum(epochs > 1 and seconds > lost_seconds for epochs, seconds in costs)
        cost = [f"{costly} kills cost more than one epoch and {lost_seconds:g} s"] if costly else []
        other = [f"{self.differing} of {self.runs} runs came to something else"] if self.differing else []
        r3, r1 = (*cost, *other, *few, *self.faults), (*self.faults, *slowness, *few)
        return (
            Figure("R3", not r3, self._of_r3, asdict(self), r3),
            Figure("R1", not (r1 or self.lost or self.repeated), self._of_r1, asdict(self), r1),
        )

    @property
    def _of_r1(self) -> str:
        return (
            f"{self.kills} kills ({self.cold} of cold sessions) in {self.runs} runs of {self.trials} trials: "
            f"{self.lost} trials lost, {self.repeated} told or trained twice, {len(self.faults)} other faults; in "
            f"search again after {spread(self.restart_cpu)} s of CPU, {spread(self.restarts)} s in all"
        )

    @property
    def _of_r3(self) -> str:
        return (
            f"{len(self.epochs_lost)} kills within a trial cost {spread(self.epochs_lost, 0)} whole epochs, "
            f"{spread(self.seconds_lost)} s since the last record; {self.differing} of {self.runs} runs came to "
            "something else than the undisturbed one"
        )


class Restart:
    """Looks at a session that begins: when does it enter the search?"""

    def __init__(self, run: Path, tally: Tally) -> None:
        self._log, self._tally = run / "events.log", tally
        self._at = self._log.stat().st_size if self._log.is_file() else 0
        self._counts = is_begun(run)  # what begins anew decodes, and is no restart
        self.searches = False

    def look(self, session: Session) -> None:
        """Called again and again."""
        if self.searches or not self._log.is_file() or self._log.stat().st_size <= self._at:
            return
        with self._log.open("rb") as log:
            log.seek(self._at)
            self.searches = b" stage search " in log.read()
        if self.searches and self._counts and session.cold:
            self._tally.restarts.append(session.seconds)
            self._tally.restart_cpu.append(session.cpu_seconds)


@dataclass
class Moments:
    """When sessions die: after seconds of their own CPU, so that a busy machine does not shift what is hit.

    Attributes:
        longest: seconds; moments are drawn evenly from 0 to it.
        cold: of so many sessions one is cold. Of these, a third dies within the imports, the others the drawn seconds
            after they entered the search.
        on_the_wall: seconds are those of the wall clock.
    """

    longest: float
    cold: int
    chance: random.Random
    on_the_wall: bool = False

    def draw(self) -> tuple[bool, bool, float]:
        """Whether the next session is cold, whether its seconds count from the search on, and the seconds."""
        cold = self.cold > 0 and self.chance.random() < 1 / self.cold
        return cold, cold and self.chance.random() < 2 / 3, self.chance.uniform(0.0, self.longest)

    def clock(self, session: Session) -> float:
        """What the seconds are measured with."""
        return session.seconds if self.on_the_wall else session.cpu_seconds


def search_through_kills(
    search: TinySearch, run: Path, moments: Moments, tally: Tally, kills: int, until: float = math.inf
) -> None:
    """One search, killed at drawn moments until it ends by itself, then checked.

    It is left alone after `kills` in all, and after `until` in monotonic seconds.
    """
    seen: list[dict[int, Record]] = []
    looked = 0
    while True:
        told_before = len(log_lines(run))
        disturbed = tally.kills < kills and time.monotonic() < until
        session = _session_that_dies(search, run, moments, tally) if disturbed else _left_alone(search, run)
        if session.code != -signal.SIGKILL:
            break
        tally.kills += 1
        tally.cold += session.cold
        seen.append(_records(run))
        _count_costs(run, log_lines(run)[told_before:], seen[-1], session.seconds, tally)
        doing = last_stage(log_lines(run)[told_before:])
        tally.hit[doing] = tally.hit.get(doing, 0) + 1
        looked = looked_before(run)
        print(f"kill {tally.kills} in {doing}, {len(seen[-1])} trials", file=sys.stderr, flush=True)
    if session.code != 0:
        tally.faults.append(f"a session ended with {session.code}: {session.said[-300:]}")
        return
    tally.runs += 1
    _compare(seen, _records(run), tally)
    tally.faults += faults_of_end(search, run, looked)


def _session_that_dies(search: TinySearch, run: Path, moments: Moments, tally: Tally) -> Session:
    cold, in_search, seconds = moments.draw()
    session, restart = search.begin(run, cold=cold), Restart(run, tally)
    since = 0.0

    def is_time(session: Session) -> bool:
        nonlocal since
        searched = restart.searches
        restart.look(session)
        if restart.searches and not searched and in_search:
            since = moments.clock(session)
        counts = restart.searches or not in_search
        return counts and moments.clock(session) - since >= seconds

    if session.runs_until(is_time):
        session.kill()
    session.wait()
    return session


def _left_alone(search: TinySearch, run: Path) -> Session:
    session = search.begin(run)
    session.wait()
    return session


def _count_costs(run: Path, lines: Sequence[str], records: dict[int, Record], lived: float, tally: Tally) -> None:
    """What a kill cost, where it hit a fine-tune that was at work in this session, which lived so many seconds."""
    told = [match for line in lines if (match := _TOLD.match(line))]
    if last_stage(lines) != "search" or not told or told[-1]["state"] != "running":
        return
    number, epoch = int(told[-1]["number"]), int(told[-1]["epoch"])
    record = run / "trials" / f"{number:06d}.json"
    if number in records and record.is_file():
        tally.epochs_lost.append(max(epoch - len(records[number]["epochs"]), 0))
        tally.seconds_lost.append(min(max(time.time() - record.stat().st_mtime, 0.0), lived))


def _records(run: Path) -> dict[int, Record]:
    """Trial number -> its record."""
    files = sorted((run / "trials").glob("[0-9]*.json"))
    return {int(file.stem): json.loads(file.read_text("utf-8")) for file in files}


def _compare(seen: Sequence[dict[int, Record]], at_end: dict[int, Record], tally: Tally) -> None:
    tally.trials += len(at_end)
    lost: set[int] = set()
    again: set[tuple[int, int]] = set()
    for records in seen:
        for number, record in records.items():
            end = at_end.get(number)
            if end is None or (record["state"] in _FINAL and record != end):
                lost.add(number)
                continue
            pairs = zip(record["epochs"], end["epochs"][: len(record["epochs"])], strict=False)
            again |= {(number, before["epoch"]) for before, after in pairs if before != after}
            missing = range(len(end["epochs"]), len(record["epochs"]))
            again |= {(number, epoch + 1) for epoch in missing}
    tally.lost += len(lost)
    tally.repeated += len(again) + _twins(at_end)


def _twins(records: dict[int, Record]) -> int:
    """Probes and default recipes that are there more than once."""
    kinds = ("probe", "portfolio")
    points = [json.dumps([each["recipe"], each["parameters"]]) for each in records.values() if each["origin"] in kinds]
    return len(points) - len(set(points))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    made = parser(__doc__)
    made.add_argument("--kills", type=int, default=200)
    made.add_argument("--longest", type=float, default=8.0, help="seconds of CPU that a session has at most")
    made.add_argument("--cold", type=int, default=10, help="of so many sessions one imports everything by itself")
    made.add_argument("--wall", action="store_true", help="the seconds of --longest are those of the wall clock")
    made.add_argument("--restart-seconds", type=float, default=10.0, help="of CPU until a cold session searches again")
    made.add_argument("--lost-seconds", type=float, default=10.0, help="that more than one epoch may cost")
    made.add_argument("--minutes", type=float, default=math.inf, help="nothing is killed later than this")
    made.add_argument("--data", type=Path, help="images (default: drawn ones)")
    made.add_argument("--options", default=OPTIONS, help="options for search, in one text")
    made.add_argument("--command", help="the program to measure (default: this package)")
    options = made.parse_args(arguments)
    tally, until = Tally(), time.monotonic() + 60 * options.minutes
    moments = Moments(options.longest, options.cold, random.Random(options.seed), options.wall)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        search = tiny_search(scratch, options.options, options.command, options.data)
        undisturbed = Tally()
        search_through_kills(search, scratch / "undisturbed", moments, undisturbed, 0)
        tally.faults += undisturbed.faults
        expected = everything(scratch / "undisturbed") if not tally.faults else {}
        while tally.kills < options.kills and not tally.faults and time.monotonic() < until:
            run = scratch / f"run{tally.runs}"
            search_through_kills(search, run, moments, tally, options.kills, until)
            if not tally.faults and (other := differences(expected, everything(run))):
                tally.differing += 1
                print(f"{run.name}: other {', '.join(other)}", file=sys.stderr, flush=True)
            shutil.rmtree(run)
    r3, r1 = tally.figures(options.kills, options.restart_seconds, options.lost_seconds)
    print(r3.line)
    return conclude(r1, options.json) or int(not r3.held)


if __name__ == "__main__":
    sys.exit(main())
