"""Move the wall clock by a day while a search runs: is its budget kept, and is what it says still true?

    python benchmarks/trust/shifted_clock.py --runs 20 --budget 45

The clock of the machine is left alone. A library of some lines, which the C compiler of this machine makes (`cc`), is
put before those of the search (LD_PRELOAD), and adds to the wall clock what it is told, in all that Python and C ask;
the clock that only goes forward stays right. It moves at random moments, forward or back, once or twice; in half of the
runs the search is killed between them, and resumed with what is left. A budget of seconds stands for one of an hour:
what is late is late by the same seconds. Checked: a run takes no longer than its budget and 60 s, all sessions
together, and ends for its budget with a report whose stages took between no and all of that time. Logs show that the
clock moved, unless it moved back before the next line.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trust.figure import Figure, conclude, parser
from trust.tiny_search import OPTIONS, TinySearch, faults_of_end, json_of, looked_before, spread, tiny_search

DAY = 86_400
SEARCH = OPTIONS.replace("--trials 4 --epochs 6", "")
#: Seconds that a run may take beyond its budget.
LATE = 60.0
#: The parts of the budget within which the clock moves: a search leaves some of it for the report, and may end early.
WITHIN = (0.05, 0.45)
#: Two lines of the log that are further apart than this, in seconds, show a clock that moved.
MOVED = DAY / 2


@dataclass
class Tally:
    """What was found.

    Attributes:
        runs: that came to their end.
        resumed: those of them that were killed and resumed between two moves of the clock.
        moves: of the clock, as the logs show them.
        over: seconds beyond the budget, of each run; negative where it ended earlier.
        faults: what is not as it should be.
    """

    runs: int = 0
    resumed: int = 0
    moves: int = 0
    over: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def figure(self, runs: int, budget: float) -> Figure:
        """What it says of R16."""
        faults = [*self.faults, *([f"only {self.runs} runs"] if self.runs < runs else [])]
        faults += [] if 2 * self.moves >= self.runs else [f"the logs of {self.runs} runs show {self.moves} moves"]
        late = sum(each > LATE for each in self.over)
        faults += [f"{late} runs took more than {LATE:g} s beyond their budget"] if late else []
        text = (
            f"{self.runs} runs of {budget:g} s, {self.resumed} of them killed and resumed, their wall clock moved "
            f"{self.moves} times by a day: seconds beyond the budget {spread(self.over)}; {len(self.faults)} other "
            "faults"
        )
        return Figure("R16", not faults, text, asdict(self), tuple(faults))


class WallClock:
    """The clock of all sessions that are started while it is in force."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift = 0
        self.move(0)

    def move(self, days: int) -> None:
        """Forward or back by so many days."""
        self.shift += days * DAY
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", self.shift))


@contextmanager
def shifted(scratch: Path) -> Iterator[WallClock]:
    """A wall clock that can be moved, for whatever is started meanwhile.

    Raises:
        RuntimeError: there is no C compiler, or it fails.
    """
    library, file = scratch / "shifted_clock.so", scratch / "shift"
    source = Path(__file__).with_suffix(".c")
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("this needs a C compiler: there is no cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    clock = WallClock(file)
    former = {name: os.environ.get(name) for name in ("LD_PRELOAD", "SHIFTED_CLOCK")}
    os.environ.update(LD_PRELOAD=str(library), SHIFTED_CLOCK=str(file))
    try:
        yield clock
    finally:
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def run_with_moves(
    search: TinySearch, run: Path, clock: WallClock, chance: random.Random, budget: float
) -> tuple[float, int]:
    """One run whose clock moves, killed and resumed in half of the cases.

    Returns:
        the seconds of all its sessions, infinity where the last one failed; and how often the session that was killed
        had looked at the test set.
    """
    first, second = sorted(chance.uniform(*WITHIN) * budget for _ in range(2))
    session = search.begin(run)
    session.runs_until(lambda session: session.seconds >= first)
    clock.move(chance.choice((-1, 1)))
    session.runs_until(lambda session: session.seconds >= second)
    seconds, looked = 0.0, 0
    if chance.random() < 0.5 and session.code is None:
        seconds = session.seconds
        session.kill()
        looked = looked_before(run)
        clock.move(chance.choice((-1, 1)))
        session = search.begin(run)
    elif chance.random() < 0.5:
        clock.move(-1 if clock.shift > 0 else 1)
    session.runs_until(lambda _: False)
    seconds += session.seconds
    session.wait()
    return seconds if session.code == 0 else math.inf, looked


def moves_in(log: Sequence[str]) -> int:
    """How often the dates of a log jump."""
    dates = [datetime.fromisoformat(line.split()[0]).timestamp() for line in log]
    return sum(abs(after - before) > MOVED for before, after in pairwise(dates))


def faults_of_times(run: Path, budget: float) -> list[str]:
    """What a report says of time that cannot be."""
    report = json_of(run / "report.json", {})
    stages = report.get("seconds", {})
    wrong = {name: seconds for name, seconds in stages.items() if not -1 <= seconds <= budget + LATE}
    faults = [f"{run.name}: stages took {json.dumps(wrong)} s"] if wrong or not stages else []
    reason = report.get("stop_reason")
    return faults + ([] if reason == "budget" else [f"{run.name}: stopped by {reason}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=20)
    made.add_argument("--budget", type=float, default=45.0, help="seconds")
    made.add_argument("--options", default=SEARCH, help="options for search, in one text")
    options = made.parse_args(arguments)
    tally, chance = Tally(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, shifted(Path(folder)) as clock:
        scratch = Path(folder)
        search = tiny_search(scratch, f"{options.options} --budget {options.budget:g}s")
        while tally.runs < options.runs and not tally.faults:
            run = scratch / f"run{tally.runs}"
            took, looked = run_with_moves(search, run, clock, chance, options.budget)
            if math.isinf(took):
                tally.faults.append(f"{run.name} failed: {run.with_suffix('.log').read_text('utf-8')[-300:]}")
                break
            lines = (run / "events.log").read_text("utf-8").splitlines()
            tally.runs += 1
            tally.resumed += sum(" stage read" in line for line in lines) > 1
            tally.moves += moves_in(lines)
            tally.over.append(took - options.budget)
            tally.faults += faults_of_times(run, options.budget) + faults_of_end(search, run, looked)
            print(f"{run.name}: {tally.over[-1]:+.1f} s, {moves_in(lines)} moves", file=sys.stderr, flush=True)
            shutil.rmtree(run)
    return conclude(tally.figure(options.runs, options.budget), options.json)


if __name__ == "__main__":
    sys.exit(main())
