"""Two processes in one run folder, and a worker that stalls and wakes up: does anybody spoil what is another's?

    python benchmarks/trust/two_at_once.py                  # all scenes
    python benchmarks/trust/two_at_once.py --scenes folder  # a smoke test

- folder: while a search is at work, another one goes on with the same run, and a third begins one in the same folder.
  The second has to leave at once with exit code 75 and the number of the first, the third with 2; the first has to come
  to its end as if nothing was. Then `kill -9` of a search frees its folder: the next one goes on at once.
- at-once: two searches begin in one new folder at the same moment: one of them comes to its end, the other one leaves.
- nap: one of two workers is stopped (SIGSTOP) for seconds, and goes on: no trial is lost or begun anew.
- stall: one is stopped for good: it is replaced, which is said, and what it had on record is kept.
- zombie: a worker is stopped, its search is killed and resumed, and then the worker is let go: it may change nothing.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cluster.loopback_cluster import descendants
from trust.figure import Figure, conclude, parser
from trust.run_state import clear_faults, lost_and_repeated, records
from trust.sessions import PATIENCE, Session
from trust.tiny_search import TinySearch, faults_of_end, is_begun, looked_before, tiny_search

IN_USE, REFUSED = 75, 2
OPTIONS = (
    "--trials 2 --epochs 4 --batch-size 8 --resolutions 32 --backbones efficientnet_lite0 --offline --device cpu "
    "--lineage names --threads 1 --no-history"
)
#: Seconds that a nap takes: less than after which a worker counts as stalled.
NAP = 6.0
#: Seconds after which the one that comes too late must have left: imports on a busy machine, and no wait for the lock.
LEAVES = 60.0


@dataclass
class Told:
    """What was found in one scene.

    Attributes:
        name: of the scene.
        text: what happened, in words.
        faults: what was not as promised.
    """

    name: str
    text: str = ""
    faults: list[str] = field(default_factory=list)


def folder(search: TinySearch, run: Path, told: Told) -> None:
    """Others come into the folder of a search that is at work."""
    first = search.begin(run)
    if not first.runs_until(lambda _: bool(records(run))):
        told.faults.append(f"the search ended too early: {first.said[-300:]!r}")
        return
    second = search.asked(run, "search", "--resume", str(run))
    told.faults += [f"--resume: {each}" for each in clear_faults(second.code, second.said, IN_USE)]
    if f"process {first.pid})" not in second.said and not search.command:
        told.faults.append(f"--resume does not name process {first.pid}: {second.said[-300:]!r}")
    third = search.asked(run, "search", *search.options, "--out", str(run))
    told.faults += [f"--out: {each}" for each in clear_faults(third.code, third.said, REFUSED, IN_USE)]
    late = [f"{each.seconds:.0f} s" for each in (second, third) if each.seconds > 2 * LEAVES + first.seconds]
    told.faults += [f"it waited: {each}" for each in late]
    if first.code is None:
        first.kill()
    seen, looked = records(run), looked_before(run)
    _end(search, run, seen, looked, told)
    told.text = f"left with {second.code} and {third.code}"


def at_once(search: TinySearch, run: Path, told: Told) -> None:
    """Two begin in one new folder."""
    both = [search.begin(run), _beside(search, run)]
    codes = sorted(str(each.wait(PATIENCE)) for each in both)
    ended = [each for each in both if each.code == 0]
    left = [each for each in both if each.code != 0]
    if len(ended) != 1:
        told.faults.append(f"{len(ended)} of 2 came to their end: {[each.said[-200:] for each in both]}")
    for each in left:
        told.faults += clear_faults(each.code, each.said, REFUSED, IN_USE)
    told.faults += faults_of_end(search, run, 0) if len(ended) == 1 else []
    told.text = f"codes {' and '.join(codes)}"


def _beside(search: TinySearch, run: Path) -> Session:
    """Another search of the same folder, with a log of its own."""
    return search._started(["search", *search.options, "--out", str(run), "--quiet"], run.with_suffix(".second.log"))


def nap(search: TinySearch, run: Path, told: Told) -> None:
    """A worker does nothing for seconds."""
    session, worker = _with_worker(search, run, told)
    if worker:
        os.kill(worker, signal.SIGSTOP)
        time.sleep(NAP)
        _let_go(worker)
    _ended(search, session, run, told)
    log = (run / "events.log").read_text("utf-8", "replace")
    if "goes on elsewhere" in log:
        told.faults.append("a trial was taken away from a worker that took a nap")
    told.text = f"{NAP:.0f} s"


def stall(search: TinySearch, run: Path, told: Told) -> None:
    """A worker never goes on."""
    session, worker = _with_worker(search, run, told)
    if worker:
        os.kill(worker, signal.SIGSTOP)
    _ended(search, session, run, told)
    log = (run / "events.log").read_text("utf-8", "replace")
    if worker and "did not answer" not in log:
        told.faults.append("nobody was told that a worker stalled")
    told.text = "replaced" if "did not answer" in log else "not replaced"


def zombie(search: TinySearch, run: Path, told: Told) -> None:
    """A worker wakes up after its search was killed and resumed."""
    session, worker = _with_worker(search, run, told)
    if not worker:
        return
    os.kill(worker, signal.SIGSTOP)
    seen, looked = records(run), looked_before(run)
    with contextlib.suppress(ProcessLookupError):
        os.kill(session.pid, signal.SIGKILL)
    session.wait()
    resumed = search.begin(run)
    resumed.runs_until(lambda each: each.seconds > 2 and bool(_workers(each.pid)))
    woke = _let_go(worker)
    if resumed.wait(PATIENCE) != 0:
        told.faults.append(f"with a stopped worker about, it ended with {resumed.code}: {resumed.said[-300:]!r}")
    _let_go(worker)
    _compare(seen, run, told)
    told.faults += faults_of_end(search, run, looked)
    told.text = "woke up" if woke else "had died with its search"


def _with_worker(search: TinySearch, run: Path, told: Told) -> tuple[Session, int]:
    """A search with two workers, and one of these that trains; 0 where there is none."""
    session = search.begin(run)
    if session.runs_until(lambda each: len(_workers(each.pid)) > 1 and len(records(run)) > 1):
        return session, _workers(session.pid)[-1]
    told.faults.append(f"there was no worker to stop: {session.said[-300:]!r}")
    return session, 0


def _workers(process: int) -> list[int]:
    found = []
    for each in descendants(process):
        with contextlib.suppress(OSError):
            if b"automl_vision.executors.worker" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return sorted(found)


def _let_go(worker: int) -> bool:
    """Let a stopped process go on; whether it was there."""
    try:
        os.kill(worker, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def _ended(search: TinySearch, session: Session, run: Path, told: Told) -> None:
    if session.wait(PATIENCE) != 0:
        told.faults.append(f"it ended with {session.code}: {session.said[-300:]!r}")
        session.kill()
        return
    told.faults += faults_of_end(search, run, 0)


def _end(search: TinySearch, run: Path, seen: dict[int, dict[str, object]], looked: int, told: Told) -> None:
    """The next session goes on at once, and comes to its end."""
    if not is_begun(run):
        told.faults.append("there is no run any more")
        return
    resumed = search.begin(run)
    if resumed.wait(PATIENCE) != 0:
        told.faults.append(f"after a kill it ended with {resumed.code}: {resumed.said[-300:]!r}")
        return
    _compare(seen, run, told)
    told.faults += faults_of_end(search, run, looked)


def _compare(seen: dict[int, dict[str, object]], run: Path, told: Told) -> None:
    lost, repeated = lost_and_repeated(seen, records(run))
    if lost or repeated:
        told.faults.append(f"{lost} trials lost, {repeated} epochs trained again")


#: Name -> (what happens, more options of the search).
SCENES: dict[str, tuple[Callable[[TinySearch, Path, Told], None], str]] = {
    "folder": (folder, ""),
    "at-once": (at_once, ""),
    "nap": (nap, "--max-parallel 2"),
    "stall": (stall, "--max-parallel 2"),
    "zombie": (zombie, "--max-parallel 2"),
}


def figure_of(found: Sequence[Told]) -> Figure:
    """The line, and what is behind it."""
    faults = [f"{told.name}: {fault}" for told in found for fault in told.faults]
    return Figure(
        target="two at once",
        held=not faults and bool(found),
        text="; ".join(f"{told.name}: {told.text}" for told in found) + f"; {len(faults)} faults",
        figures={told.name: {"text": told.text, "faults": told.faults} for told in found},
        faults=tuple(faults),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where the promise was missed."""
    options = parser(__doc__)
    options.add_argument("--scenes", default=",".join(SCENES), help=f"of {', '.join(SCENES)}")
    options.add_argument("--data", type=Path, help="images (default: sixty that are drawn)")
    options.add_argument("--command", help="the program to measure (default: this package)")
    given = options.parse_args(arguments)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        search = tiny_search(Path(scratch), OPTIONS, given.command, given.data)
        for name in given.scenes.split(","):
            scene, more = SCENES[name]
            told = Told(name)
            own = TinySearch([*search.options, *shlex.split(more)], search.command)
            scene(own, Path(scratch) / name, told)
            found.append(told)
            print(f"{name}: {told.text}, {len(told.faults)} faults", file=sys.stderr, flush=True)
    return conclude(figure_of(found), given.json)


if __name__ == "__main__":
    sys.exit(main())
