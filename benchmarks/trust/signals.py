"""Send a search SIGINT or SIGTERM at random moments, half of the times twice: does it leave soon, in order, resumable?

    python benchmarks/trust/signals.py --times 100

Moments are seconds of CPU of each session, drawn evenly; the second signal comes at once or within half a second. One
session in ten is a process as a user starts it (see sessions.py). Each session is resumed until the run ends by itself,
and then the next run begins. Checked, after SIGINT: exit code 130 (the signal itself where it came twice, or before
anybody could listen), and where there is a report it is one of an interrupted run, whose figures follow from the
predictions, and there is a model that loads; after SIGTERM: exit code 75 within 10 s of wall clock, and no report that
was not there before; after both: no traceback, a line that says how to go on, and at the end what an undisturbed run
came to, to the last bit. A session that ended by itself all the same was about to, and is counted apart.

How long the report of a stopped run takes is a matter of who else wants the processor, so SIGINT is held against
seconds of CPU; both clocks are printed.
"""

from __future__ import annotations

import math
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from automl_vision.bundle import load_bundle
from automl_vision.errors import AutomlVisionError
from automl_vision.pipeline import verify_run
from trust.figure import Figure, conclude, parser
from trust.sessions import Session
from trust.tiny_search import (
    OPTIONS,
    TinySearch,
    differences,
    everything,
    faults_of_end,
    is_begun,
    is_complete,
    json_of,
    last_stage,
    log_lines,
    looked_before,
    spread,
    tiny_search,
)

#: What is sent, by its name.
KINDS: dict[str, tuple[signal.Signals, ...]] = {
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM": (signal.SIGTERM,),
    "SIGTERM twice": (signal.SIGTERM, signal.SIGTERM),
}
#: Exit codes: of a session that heard, and of one that the system ended.
TOLD = {signal.SIGINT: 130, signal.SIGTERM: 75}
#: Seconds within which the second signal comes.
BETWEEN = (0.0, 0.0, 0.05, 0.5)
#: Seconds to leave within.
MOST = 10.0


@dataclass
class Tally:
    """What was found.

    Attributes:
        runs: that came to their end.
        hit: kind and stage -> how often.
        seconds, cpu: kind -> seconds from the first signal to the end of each session, on the wall clock and of CPU.
        reports: of runs that SIGINT ended.
        before: sessions that the system ended, since nobody listened yet.
        too_late: sessions that ended by themselves all the same.
        differing: runs that came to something else than the undisturbed one.
        faults: everything else that is not as it should be.
    """

    runs: int = 0
    hit: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    reports: int = 0
    before: int = 0
    too_late: int = 0
    differing: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def times(self) -> int:
        """Sessions that got a signal."""
        return sum(map(len, self.seconds.values()))

    def figure(self, times: int) -> Figure:
        """What it says of R5, where so many signals were to be."""
        faults = [*self.faults, *self._slow()]
        faults += [f"only {self.times} times"] if self.times < times else []
        spent = "; ".join(
            f"{kind} {len(self.seconds[kind])} times, left after {spread(self.seconds[kind])} s, "
            f"{spread(self.cpu[kind])} s of CPU"
            for kind in KINDS
            if kind in self.seconds
        )
        text = (
            f"{self.times} signals in {self.runs} runs: {spent}; {self.reports} reports of stopped runs, all valid; "
            f"{self.before} before anybody listened, {self.too_late} too late; {self.differing} runs came to something "
            f"else; {len(self.faults)} other faults"
        )
        return Figure("R5", not (faults or self.differing), text, asdict(self), tuple(faults))

    def _slow(self) -> list[str]:
        clocks = {kind: self.seconds if KINDS[kind][0] == signal.SIGTERM else self.cpu for kind in self.seconds}
        slow = {kind: sum(each > MOST for each in clock[kind]) for kind, clock in clocks.items()}
        return [f"{kind}: {count} sessions took more than {MOST:g} s to leave" for kind, count in slow.items() if count]


class Storm:
    """Runs whose sessions are told to end."""

    def __init__(self, search: TinySearch, tally: Tally, seed: int, longest: float, cold: int) -> None:
        self._search, self._tally, self._chance = search, tally, random.Random(seed)
        self._longest, self._cold = longest, cold

    def run(self, run: Path, times: int) -> None:
        """One run until it ends by itself; left alone after so many signals in all."""
        while self._tally.times < times and not self._tally.faults:
            if self._disturbed(run):
                return
        looked = looked_before(run)
        session = self._search.begin(run)
        session.wait()
        self._end(run, session, looked)

    def _disturbed(self, run: Path) -> bool:
        """A session that is told to end; whether the run came to its end."""
        kind = self._chance.choice(list(KINDS))
        looked = looked_before(run)
        had_report = (run / "report.json").is_file()
        cold = self._cold > 0 and self._chance.random() < 1 / self._cold
        lines = len(log_lines(run))
        session, moment = self._search.begin(run, cold=cold), self._chance.uniform(0.0, self._longest)
        moment *= 2 if cold else 1
        if not session.runs_until(lambda session: session.cpu_seconds >= moment):
            self._end(run, session, looked)
            return True
        doing = last_stage(log_lines(run)[lines:])
        seconds, cpu = told_to_end(session, KINDS[kind], self._chance.choice(BETWEEN))
        print(
            f"{self._tally.times + 1}: {kind} in {doing}: {session.code} after {seconds:.1f} s, {cpu:.1f} s of CPU",
            file=sys.stderr,
            flush=True,
        )
        self._tally.hit[f"{kind} in {doing}"] = self._tally.hit.get(f"{kind} in {doing}", 0) + 1
        self._tally.seconds.setdefault(kind, []).append(seconds)
        self._tally.cpu.setdefault(kind, []).append(cpu)
        complete = is_complete(run)
        self._tally.faults += faults_of_leaving(session.said, session.code, KINDS[kind], complete=complete)
        if complete:
            self._tally.too_late += 1
            self._check(run, looked)
        else:
            self._look_at(run, session, KINDS[kind], had_report)
            told = session.code in TOLD.values() and is_begun(run)
            if told and not says_how_to_go_on(session.said, resumed=lines > 0):
                self._tally.faults.append(f"it did not say how to go on: {session.said[-300:]!r}")
        return complete

    def _look_at(self, run: Path, session: Session, sent: Sequence[signal.Signals], had_report: bool) -> None:
        if session.code == -sent[0] and len(sent) == 1:
            self._tally.before += 1
        has_report = (run / "report.json").is_file()
        if sent[0] == signal.SIGTERM and has_report and not had_report:
            self._tally.faults.append("SIGTERM left a report")
        if sent[0] == signal.SIGINT and has_report and session.code == TOLD[signal.SIGINT]:
            self._tally.reports += 1
            self._tally.faults += faults_of_report(run)

    def _end(self, run: Path, session: Session, looked: int) -> None:
        if session.code != 0:
            self._tally.faults.append(f"a session of {run.name} ended with {session.code}: {session.said[-300:]}")
            return
        self._check(run, looked)

    def _check(self, run: Path, looked: int) -> None:
        self._tally.runs += 1
        self._tally.faults += faults_of_end(self._search, run, looked)


def told_to_end(session: Session, signals: Sequence[signal.Signals], between: float) -> tuple[float, float]:
    """Send signals with a pause between them, wait for the end; seconds, and of CPU, since the first."""
    told, used = time.monotonic(), session.cpu_seconds
    session.send(signals[0])
    for number in signals[1:]:
        time.sleep(between)
        session.send(number)
    newest = used

    def look(session: Session) -> bool:
        nonlocal newest
        newest = max(newest, session.cpu_seconds)
        return False

    session.runs_until(look)
    session.wait()
    return time.monotonic() - told, newest - used


def says_how_to_go_on(said: str, *, resumed: bool) -> bool:
    """With the command for it; a command that goes on with a run already may be given again as it was."""
    return "go on with: " in said or (resumed and "start it again with the same command" in said)


def faults_of_leaving(
    said: str, code: int | None, sent: Sequence[signal.Signals], *, complete: bool = False
) -> list[str]:
    """What is wrong with the exit code, and with what was printed, of a session whose run is or is not complete."""
    by_system = code == -sent[0] and (len(sent) > 1 or complete or not said.strip())
    told = code == TOLD[sent[0]] or (code == 0 and complete)
    faults = [] if told or by_system else [f"{sent}: exit code {code}: {said[-300:]}"]
    loud = [word for word in ("Traceback", "Internal error") if word in said]
    return faults + [f"{sent}: it printed {word}: {said[-500:]}" for word in loud]


def faults_of_report(run: Path) -> list[str]:
    """What is wrong with the report of a run that was stopped, and with its model."""
    reason = json_of(run / "report.json", {}).get("stop_reason")
    faults = [] if reason == "interrupted" else [f"a stopped run says it was stopped by {reason}"]
    try:
        faults += [f"the report of a stopped run does not follow: {each}" for each in verify_run(run)]
        load_bundle(run / "model.pt")
    except AutomlVisionError as error:
        faults.append(f"a stopped run left what cannot be read: {error}")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    made = parser(__doc__)
    made.add_argument("--times", type=int, default=100)
    made.add_argument("--longest", type=float, default=8.0, help="seconds of CPU at which a session is told at latest")
    made.add_argument("--cold", type=int, default=10, help="of so many sessions one imports everything by itself")
    made.add_argument("--minutes", type=float, default=math.inf, help="no run begins later than this")
    made.add_argument("--options", default=OPTIONS, help="options for search, in one text")
    options = made.parse_args(arguments)
    tally, until = Tally(), time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        search = tiny_search(scratch, options.options)
        undisturbed = Tally()
        Storm(search, undisturbed, options.seed, 0.0, 0).run(scratch / "undisturbed", 0)
        tally.faults += undisturbed.faults
        expected = everything(scratch / "undisturbed") if not tally.faults else {}
        storm = Storm(search, tally, options.seed, options.longest, options.cold)
        while tally.times < options.times and not tally.faults and time.monotonic() < until:
            run = scratch / f"run{tally.runs}"
            storm.run(run, options.times)
            if not tally.faults and (other := differences(expected, everything(run))):
                tally.differing += 1
                print(f"{run.name}: other {', '.join(other)}", file=sys.stderr, flush=True)
            shutil.rmtree(run, ignore_errors=True)
    return conclude(tally.figure(options.times), options.json)


if __name__ == "__main__":
    sys.exit(main())
