"""Kill processes that train trials beside each other: does the search end, with nothing lost and nothing done twice?

    python benchmarks/trust/killed_workers.py --kills 50

There are no loader processes here, images are decoded in threads; what can be killed beside a search are the workers of
`--max-parallel`. One of two is killed (`kill -9`) at a random moment while trials are in work; another takes its place,
and the trial goes on from its checkpoint as the next attempt. A trial that four workers died with counts as what killed
them, so none is hit more than three times. Checked against what was on record at each kill: no complete trial is
missing, different or in work again, no epoch on record was trained again, no trial fails, and the run ends by itself
with a report that follows from its predictions. Measured: seconds from a kill to the claim of the next attempt.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster import kill_nodes
from cluster.kill_nodes import compare, in_work, newest_records
from cluster.loopback_cluster import descendants
from trust.figure import Figure, conclude, parser
from trust.sessions import LOOK, Session
from trust.tiny_search import OPTIONS, TinySearch, faults_of_end, spread, tiny_search

BESIDE = OPTIONS.replace("--trials 4 --epochs 6", "--trials 6 --epochs 12") + " --max-parallel 2"
#: After so many workers a trial is given up.
MOST_LOST = 3
#: Seconds after which what was lost should be in work again; a worker imports everything first.
PATIENCE = 300.0


@dataclass
class Tally:
    """What was found.

    Attributes:
        kills: of a worker.
        runs: searches that came to their end.
        trials: in them.
        attempts_lost: trials that were in work on a worker that was killed.
        lost, repeated: committed trials that are missing or different, and what was trained again.
        again: seconds from a kill to the claim of the next attempt.
        faults: everything else that is not as it should be.
    """

    kills: int = 0
    runs: int = 0
    trials: int = 0
    attempts_lost: int = 0
    lost: int = 0
    repeated: int = 0
    again: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def figure(self, kills: int) -> Figure:
        """What it says of R13, where so many kills were to be."""
        faults = [*self.faults, *([f"only {self.kills} kills"] if self.kills < kills else [])]
        text = (
            f"{self.kills} workers killed in {self.runs} runs of {self.trials} trials: {self.lost} trials lost, "
            f"{self.repeated} epochs or trials done twice; {self.attempts_lost} attempts lost, the next one claimed "
            f"after {spread(self.again)} s; {len(self.faults)} other faults"
        )
        return Figure("R13", not (faults or self.lost or self.repeated), text, asdict(self), tuple(faults))


def _is_later(moment: float, _: Session) -> bool:
    return time.monotonic() > moment


def workers_of(session: Session) -> list[int]:
    """The processes of its workers."""
    return [pid for pid in descendants(session.pid) if b"executors.worker" in _command_of(pid)]


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended


def search_through_kills(search: TinySearch, run: Path, tally: Tally, chance: random.Random, kills: int) -> None:
    """One search whose workers are killed until so many were in all; then checked."""
    session, seen = search.begin(run), []
    while tally.kills < kills and session.runs_until(lambda _: may_be_killed(run) and len(workers_of(session)) > 0):
        wanted = time.monotonic() + chance.uniform(0.0, 3.0)
        session.runs_until(partial(_is_later, wanted))
        if session.code is not None or not may_be_killed(run):
            continue
        before = newest_records(run)
        seen.append(before)
        os.kill(chance.choice(workers_of(session)), signal.SIGKILL)
        tally.kills += 1
        again = _claimed_again(run, before, session)
        tally.attempts_lost += len(again)
        tally.again += again
        print(f"kill {tally.kills}: {len(again)} attempts lost, {len(before)} trials", file=sys.stderr, flush=True)
    session.wait()
    if session.code != 0:
        tally.faults.append(f"a session ended with {session.code}: {session.said[-300:]}")
        return
    tally.runs += 1
    tally.faults += check(seen, run, tally) + faults_of_end(search, run, 0)


def check(seen: Sequence[dict[int, kill_nodes.Record]], run: Path, tally: Tally) -> list[str]:
    """Count what was lost and repeated, and name trials that did not end well."""
    after, counts = newest_records(run), kill_nodes.Tally()
    for before in seen:
        compare(before, after, counts)
    tally.trials += len(after)
    tally.lost += counts.lost
    tally.repeated += counts.repeated
    ill = [number for number, each in after.items() if each["state"] not in ("complete", "stopped")]
    return [f"trials {ill} did not end well"] if ill else []


def may_be_killed(run: Path) -> bool:
    """Whether a fine-tune is in work, and none that lost so many workers that the next one would be its last."""
    records = [each for each in newest_records(run).values() if each["state"] == "running"]
    return bool(in_work(run)) and all(each["notes"].get("lost", 0) < MOST_LOST for each in records)


def _claimed_again(run: Path, before: dict[int, kill_nodes.Record], session: Session) -> list[float]:
    """Seconds until a trial that was in work has its next attempt; none where its worker was between two."""
    watched = {number: each["attempt"] for number, each in before.items() if each["state"] == "running"}
    killed = time.monotonic()
    while session.code is None and time.monotonic() - killed < PATIENCE:
        records = newest_records(run)
        if any(records[number]["attempt"] > attempt for number, attempt in watched.items()):
            return [time.monotonic() - killed]
        if all(records[number]["state"] != "running" for number in watched):
            return []
        time.sleep(5 * LOOK)
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    made = parser(__doc__)
    made.add_argument("--kills", type=int, default=50)
    made.add_argument("--minutes", type=float, default=math.inf, help="no run begins later than this")
    made.add_argument("--options", default=BESIDE, help="options for search, in one text")
    options = made.parse_args(arguments)
    tally, chance, until = Tally(), random.Random(options.seed), time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        search = tiny_search(scratch, options.options)
        while tally.kills < options.kills and not tally.faults and time.monotonic() < until:
            run = scratch / f"run{tally.runs}"
            search_through_kills(search, run, tally, chance, options.kills)
            shutil.rmtree(run, ignore_errors=True)
    return conclude(tally.figure(options.kills), options.json)


if __name__ == "__main__":
    sys.exit(main())
