"""Kill a search at random moments, resume it each time: is anything lost, done twice, or another in the end?

    python benchmarks/trust/kill_storm.py --kills 200
    python benchmarks/trust/kill_storm.py --kills 20 --data DIR --options "--trials 25 --epochs 2"

`kill -9` of the whole process group, at a moment that is drawn evenly from the first seconds of each session (start-up
included, so that some hit the imports and the decoding). A run that is complete before all kills are spent is checked,
and the next one begins; an undisturbed one is made first. Checked against what was on disk at every kill: no trial that
was complete is missing or different, no epoch that was recorded was trained again, no default recipe was started twice,
no session refused to go on, the report's figures follow from the predictions, the model predicts, and the test set was
looked at once after the last kill. A run has to come to what the undisturbed one came to, to the last bit: the figures
of every epoch, weights, model, predictions. Measured: seconds from the start of a resumed process to its search, and
what a kill cost, in epochs that were told and not on disk, and in seconds since the last record.

A trial writes its checkpoint when that takes a twentieth of the time at most: of epochs that take less than twenty times
as long as writing, a kill costs several, but seconds. So what is held against it is one epoch, or `--lost-seconds`.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timed_process import run_timed
from trust.figure import Figure, conclude, parser
from trust.tiny_search import (
    OPTIONS,
    TinySearch,
    everything,
    is_begun,
    is_complete,
    json_of,
    last_stage,
    log_lines,
    looks,
    tiny_search,
)

#: States of trials that no later session may change.
_FINAL = ("complete", "failed")
#: What the log says after an epoch.
_TOLD = re.compile(r"trial (?P<number>\d+) (?P<state>\w+) epoch (?P<epoch>\d+) ")
#: Ticks of the processor time in /proc.
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
Record = dict[str, Any]


@dataclass
class Tally:
    """What was found over all sessions and runs.

    Attributes:
        runs: searches that were completed.
        kills: sessions that were killed.
        hit: what the killed sessions were doing, by the last line of their log -> how often.
        trials: in the completed runs.
        lost: trials that were on disk at a kill and are not at the end, and final ones that changed.
        repeated: epochs that were recorded at a kill and trained again, and default recipes started twice.
        differing: runs that came to something else than the undisturbed one.
        restarts, restart_cpu: seconds, and CPU seconds, from the start of a resumed process to its search.
        epochs_lost, seconds_lost: of each kill within a trial: epochs that were told and not on disk, seconds since the
            last record.
        faults: everything else that is not as it should be.
    """

    runs: int = 0
    kills: int = 0
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

    def figure(self, kills: int, most_seconds: float, lost_seconds: float) -> Figure:
        """What it says of R1 and R3.

        Args:
            kills: that were to be.
            most_seconds: that a restart may take.
            lost_seconds: that a kill may cost where it costs more than one epoch.
        """
        faults = [*self.faults]
        slow = sum(each > most_seconds for each in self.restarts)
        faults += [f"{slow} restarts took longer than {most_seconds:g} s"] if slow else []
        costly = sum(
            epochs > 1 and seconds > lost_seconds
            for epochs, seconds in zip(self.epochs_lost, self.seconds_lost, strict=True)
        )
        faults += [f"{costly} kills cost more than one epoch and {lost_seconds:g} s"] if costly else []
        faults += [f"only {self.kills} kills"] if self.kills < kills else []
        held = not (faults or self.lost or self.repeated or self.differing)
        return Figure("R1 R3", held, self.text, asdict(self), tuple(faults))

    @property
    def text(self) -> str:
        """All figures on one line."""
        return (
            f"{self.kills} kills in {self.runs} runs of {self.trials} trials: {self.lost} lost, {self.repeated} "
            f"repeated, {self.differing} of {self.runs} runs other than undisturbed, {len(self.faults)} other faults; in "
            f"search again after {spread(self.restarts)} s, {spread(self.restart_cpu)} s of CPU; a kill within a trial "
            f"cost {spread(self.epochs_lost, 0)} whole epochs, {spread(self.seconds_lost)} s"
        )


class Restart:
    """Looks at a session that begins: when does it enter the search?"""

    def __init__(self, run: Path, tally: Tally) -> None:
        self._log, self._tally = run / "events.log", tally
        self._at = self._log.stat().st_size if self._log.is_file() else 0
        self._waits = is_begun(run)  # what begins anew decodes, and is no restart

    def look(self, process: int, seconds: float) -> None:
        """Called again and again."""
        if not self._waits or not self._log.is_file() or self._log.stat().st_size <= self._at:
            return
        with self._log.open("rb") as log:
            log.seek(self._at)
            if b" stage search " in log.read():
                self._waits = False
                self._tally.restarts.append(seconds)
                self._tally.restart_cpu.append(_cpu_seconds(process))


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return math.nan  # it has just ended, or the system has no such files
    return (int(fields[11]) + int(fields[12])) / _TICKS


def search_through_kills(search: TinySearch, run: Path, moments: Iterator[float], tally: Tally, kills: int) -> None:
    """One search, killed at the `moments` (seconds since a session's start) until it ends by itself; then checked.

    After `kills` in all it is left alone.
    """
    seen: list[dict[int, Record]] = []
    looked = 0
    while True:
        moment = next(moments) if tally.kills < kills else math.inf
        told_before = len(log_lines(run))
        ended = run_timed(search.line(run), moment, Restart(run, tally).look)
        if not ended.killed:
            break
        tally.kills += 1
        seen.append(_records(run))
        _count_costs(run, log_lines(run)[told_before:], seen[-1], tally)
        doing = last_stage(log_lines(run)[told_before:])
        tally.hit[doing] = tally.hit.get(doing, 0) + 1
        looked = looks(run) if not is_complete(run) else looks(run) - 1
        print(
            f"kill {tally.kills} after {moment:.1f} s, in {doing}, {len(seen[-1])} trials", file=sys.stderr, flush=True
        )
    if ended.code:
        tally.faults.append(f"a session ended with {ended.code}: {ended.err[-300:]}")
        return
    tally.runs += 1
    _compare(seen, _records(run), tally)
    tally.faults += _faults(search.command, run, looked)


def _count_costs(run: Path, lines: Sequence[str], records: dict[int, Record], tally: Tally) -> None:
    """What a kill cost, where it hit a fine-tune that was at work in this session."""
    told = [match for line in lines if (match := _TOLD.match(line))]
    if last_stage(lines) != "search" or not told or told[-1]["state"] != "running":
        return
    number, epoch = int(told[-1]["number"]), int(told[-1]["epoch"])
    record = run / "trials" / f"{number:06d}.json"
    if number in records and record.is_file():
        tally.epochs_lost.append(max(epoch - len(records[number]["epochs"]), 0))
        tally.seconds_lost.append(max(time.time() - record.stat().st_mtime, 0.0))


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


def _faults(command: Sequence[str], run: Path, looked: int) -> list[str]:
    """What is wrong with a run that has ended, whose sessions had looked so often at the test set when they died."""
    faults = []
    report = json_of(run / "report.json", {"stop_reason": "no report"})
    if report["stop_reason"] not in ("trials", "budget", "converged"):
        faults.append(f"stopped by {report['stop_reason']}")
    if looks(run) != looked + 1:
        faults.append(f"{looks(run)} looks at the test set, {looked} by sessions that were killed")
    leftovers = [file.name for pattern in ("*.tmp", "*.corrupt") for file in run.rglob(pattern)]
    if leftovers:
        faults.append(f"left behind: {', '.join(leftovers)}")
    verified = run_timed([*command, "report", str(run), "--verify"], math.inf)
    if verified.code:
        faults.append(f"the report does not follow from the predictions: {verified.out[-300:]}{verified.err[-300:]}")
    images = Path(json_of(run / "run.json", {})["data"])
    one = next(file for file in sorted(images.rglob("*")) if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    predicted = run_timed([*command, "predict", str(run / "model.pt"), str(one), "--format", "json"], math.inf)
    if predicted.code:
        faults.append(f"the model does not predict: {predicted.err[-300:]}")
    return faults


def moments(longest: float, seed: int) -> Iterator[float]:
    """Seconds, drawn evenly."""
    chance = random.Random(seed)
    while True:
        yield chance.uniform(0.0, longest)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and largest."""
    known = [each for each in values if not math.isnan(each)]
    return f"{statistics.median(known):.{digits}f} (most {max(known):.{digits}f})" if known else "(none)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    made = parser(__doc__)
    made.add_argument("--kills", type=int, default=200)
    made.add_argument("--longest", type=float, default=25.0, help="seconds that a session lives at most, when killed")
    made.add_argument("--restart-seconds", type=float, default=10.0, help="that it may take to be in search again")
    made.add_argument("--lost-seconds", type=float, default=10.0, help="that more than one epoch may cost")
    made.add_argument("--data", type=Path, help="images (default: drawn ones)")
    made.add_argument("--options", default=OPTIONS, help="options for search, in one text")
    made.add_argument("--command", help="the program to measure (default: this package)")
    options = made.parse_args(arguments)
    tally, drawn_moments = Tally(), moments(options.longest, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        search = tiny_search(scratch, options.options, options.command, options.data)
        undisturbed = Tally()
        search_through_kills(search, scratch / "undisturbed", drawn_moments, undisturbed, 0)
        tally.faults += undisturbed.faults
        expected = everything(scratch / "undisturbed") if not tally.faults else {}
        while tally.kills < options.kills and not tally.faults:
            run = scratch / f"run{tally.runs}"
            search_through_kills(search, run, drawn_moments, tally, options.kills)
            if not tally.faults and (found := everything(run)) != expected:
                tally.differing += 1
                other = sorted(name for name in expected | found if expected.get(name) != found.get(name))
                print(f"{run.name}: other {', '.join(other)}", file=sys.stderr, flush=True)
    return conclude(tally.figure(options.kills, options.restart_seconds, options.lost_seconds), options.json)


if __name__ == "__main__":
    sys.exit(main())
