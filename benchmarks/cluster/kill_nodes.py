"""Kill machines of a cluster, and the search itself, at random moments: is anything lost, or trained twice?

    python benchmarks/cluster/kill_nodes.py --nodes 20 --drivers 10 --minutes 60 --json kill_nodes.json

A Ray cluster on this machine: a head without processors, on which the search runs, and two nodes of two processors.
A node is killed (`kill -9` of everything of it, its workers included) while trials are in work on it, and another one
takes its place; or the search is killed (`kill -9`), and resumed. A search that ends is checked, and the next begins.
Checked: no trial that was complete at a kill is missing, different, or in work again; no epoch that was on record was
trained again; every trial ends; the report's figures follow from the predictions. Measured: seconds from the kill of a
node to the claim of the next attempt of a trial that was on it. Prints one line; exit code 1 where something is wrong.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from automl_vision.search.search import MOST_LOST
from cluster.loopback_cluster import LoopbackCluster, LoopbackNode, descendants, loopback_cluster
from stages import ROOT
from trust.figure import Figure, conclude, parser

Record = dict[str, Any]
OPTIONS = (
    "--trials 12 --epochs 18 --batch-size 8 --resolutions 32 --backbones efficientnet_lite0 --offline --device cpu "
    "--lineage names --max-parallel 2 --threads 1"
)
#: Seconds without a line in the log of the run before it counts as hanging.
PATIENCE = 240.0
#: Seconds until a trial that was on a node which died has its next attempt, as promised.
PROMPT = 15.0
#: Processors that each node says it has.
CPUS = 2


@dataclass
class Tally:
    """What was found.

    Attributes:
        nodes, drivers: kills.
        runs: searches that were completed.
        trials: in them.
        attempts_lost: trials that were in work on a node when it was killed.
        lost: trials complete at a kill that are missing or different at the end.
        repeated: trials complete at a kill that were begun again, and recorded epochs that were trained again.
        rescheduled: seconds from the kill of a node to the claim of the next attempt.
        resumed: seconds from the kill of the search to the first trial that is in work again.
        faults: everything else that is not as it should be.
    """

    nodes: int = 0
    drivers: int = 0
    runs: int = 0
    trials: int = 0
    attempts_lost: int = 0
    lost: int = 0
    repeated: int = 0
    rescheduled: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.repeated or self.faults)

    @property
    def figure(self) -> Figure:
        """What is published of it."""
        prompt = all(seconds <= PROMPT for seconds in self.rescheduled)
        return Figure("R4", self.sound and prompt and self.runs > 0, str(self), asdict(self), tuple(self.faults))

    def __str__(self) -> str:
        return (
            f"{self.nodes} nodes and {self.drivers} drivers killed in {self.runs} runs of {self.trials} trials: "
            f"{self.lost} committed trials lost, {self.repeated} run twice; {self.attempts_lost} attempts lost, "
            f"next one claimed after {_spread(self.rescheduled)}; in work again after a resume in "
            f"{_spread(self.resumed)}"
        )


@dataclass
class Driver:
    """One run and its search."""

    command: Sequence[str]
    run: Path
    cluster: LoopbackCluster
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, or resume where there is something to resume."""
        begun = (self.run / "run.json").is_file()
        what = ["--resume", str(self.run)] if begun else ["--out", str(self.run), *self.command[1:]]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*shlex.split(self.command[0]), "search", *what],
                env={**os.environ, **self.cluster.driver_environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """`kill -9` of the search."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL) if self.process.poll() is None else None
            self.process.wait()


def newest_records(run: Path) -> dict[int, Record]:
    """Trial -> the record of its newest attempt."""
    found: dict[int, Record] = {}
    for file in run.glob("trials/[0-9]*.json"):
        record = json.loads(file.read_text("utf-8"))
        number = record["number"]
        if number not in found or found[number]["attempt"] < record["attempt"]:
            found[number] = record
    return found


def compare(before: dict[int, Record], after: dict[int, Record], tally: Tally) -> None:
    """Hold what was on record at a kill against what is at the end."""
    for number, record in before.items():
        then = after.get(number)
        if record["state"] == "complete":
            tally.lost += then is None or {**then, "checksum": ""} != {**record, "checksum": ""}
            tally.repeated += then is not None and then["attempt"] != record["attempt"]
        elif then is None:
            tally.lost += 1
        else:
            tally.repeated += then["epochs"][: len(record["epochs"])] != record["epochs"]


def ended_well(record: Record) -> bool:
    """Whether a trial is done, or failed because it was lost more often than a trial may be."""
    given_up = record["state"] == "failed" and record["notes"].get("lost", 0) > MOST_LOST
    return given_up or record["state"] in ("complete", "stopped")


def slots_on(node: LoopbackNode) -> bool:
    """Whether a slot is on this node."""
    for pid in descendants(node.process.pid):
        try:
            if b"serve_slot" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def in_work(run: Path) -> list[Record]:
    """Fine-tunes with an epoch on record that go on."""
    return [each for each in newest_records(run).values() if each["state"] == "running" and each["epochs"]]


class Session:
    """One cluster, searches on it, and what is killed."""

    def __init__(
        self, cluster: LoopbackCluster, command: Sequence[str], scratch: Path, seed: int, tally: Tally
    ) -> None:
        self.cluster, self.command, self.scratch, self.tally = cluster, command, scratch, tally
        self.chance = random.Random(seed)
        run = scratch / f"run{tally.runs}"
        self.driver = Driver(command, run, cluster, scratch / f"{run.name}.log")
        self.seen: list[dict[int, Record]] = []
        self.ended = False

    def kill_all(self, plan: Sequence[str], until: float) -> None:
        """Kill as planned ("node" or "driver", in this order), or until the time is over; then let the search end."""
        self.driver.start()
        for what in plan:
            if time.monotonic() > until or self.tally.faults:
                break
            if not self._wait(lambda: bool(in_work(self.driver.run)) and any(map(slots_on, self.cluster.nodes[1:]))):
                break
            time.sleep(self.chance.uniform(0.0, 3.0))
            {"node": self._kill_node, "driver": self._kill_driver}[what]()
        if not self.ended:
            self._wait(lambda: False)
        self.driver.kill()

    def _kill_node(self) -> None:
        busy = [node for node in self.cluster.nodes[1:] if slots_on(node)]
        if not busy:
            return
        node = self.chance.choice(busy)
        before = newest_records(self.driver.run)
        self.seen.append(before)
        killed = time.monotonic()
        node.kill()
        self.cluster.nodes.remove(node)
        self.tally.nodes += 1
        again = self._next_attempts(before, killed)
        self.tally.attempts_lost += len(again)
        self.tally.rescheduled += again
        self.cluster.add_node(cpus=CPUS)

    def _next_attempts(self, before: dict[int, Record], killed: float) -> list[float]:
        """Seconds until trials that were in work have a later attempt; those that have none in time were not lost."""
        watched = {number: each["attempt"] for number, each in before.items() if each["state"] == "running"}
        found: dict[int, float] = {}
        while self.driver.code is None and time.monotonic() - killed < (3.0 + max(found.values()) if found else 30.0):
            for number, record in newest_records(self.driver.run).items():
                if number in watched and number not in found and record["attempt"] > watched[number]:
                    found[number] = time.monotonic() - killed
            time.sleep(0.05)
        return list(found.values())

    def _kill_driver(self) -> None:
        self.seen.append(newest_records(self.driver.run))
        self.driver.kill()
        killed = time.monotonic()
        self.tally.drivers += 1
        before = len(self._claims())
        self.driver.start()
        if self._wait(lambda: len(self._claims()) > before):
            self.tally.resumed.append(time.monotonic() - killed)

    def _claims(self) -> list[Path]:
        return list(self.driver.run.glob("trials/[0-9]*.json"))

    def _wait(self, happened: Callable[[], bool]) -> bool:
        """Wait until it happens; False where the search ends meanwhile, which is then checked."""
        until, said = time.monotonic() + PATIENCE, -1
        while not happened():
            if self.driver.code is not None:
                self._check()
                return False
            if self.driver.log.stat().st_size != said:
                until, said = time.monotonic() + PATIENCE, self.driver.log.stat().st_size
            if time.monotonic() > until:
                self.tally.faults.append(f"{self.driver.run.name} hangs")
                return False
            time.sleep(0.1)
        return True

    def _check(self) -> None:
        """Hold a search that ended against all that was seen of it."""
        after, tally = newest_records(self.driver.run), self.tally
        self.ended = True
        for before in self.seen:
            compare(before, after, tally)
        self.seen.clear()
        tally.runs += 1
        tally.trials += len(after)
        if self.driver.code:
            tally.faults.append(f"{self.driver.run.name} ended with {self.driver.code}, see {self.driver.log}")
            return
        open_ends = [number for number, each in after.items() if not ended_well(each)]
        if open_ends:
            tally.faults.append(f"trials {open_ends} of {self.driver.run.name} did not end well")
        checking = [*shlex.split(self.command[0]), "report", str(self.driver.run), "--verify"]
        verify = subprocess.run(checking, stdout=subprocess.DEVNULL, check=False)
        if verify.returncode:
            tally.faults.append(f"the report of {self.driver.run.name} does not follow from its predictions")


def plan_of(nodes: int, drivers: int, seed: int) -> list[str]:
    """The kills in a random order."""
    plan = ["node"] * nodes + ["driver"] * drivers
    random.Random(seed).shuffle(plan)
    return plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    line = parser(__doc__)
    line.add_argument("--data", type=Path, help="images (default: drawn ones)")
    line.add_argument("--nodes", type=int, default=20, help="kills of a node")
    line.add_argument("--drivers", type=int, default=10, help="kills of the search")
    line.add_argument("--minutes", type=float, default=60.0, help="no kill begins later than this")
    line.add_argument("--options", default=OPTIONS, help="options for search, in one text")
    line.add_argument("--command", default=f"{sys.executable} -m automl_vision", help="the program to measure")
    options = line.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then, too
    tally, until = Tally(), time.monotonic() + 60 * options.minutes
    plan = plan_of(options.nodes, options.drivers, options.seed)
    with (
        tempfile.TemporaryDirectory() as scratch,
        loopback_cluster(1, cpus=0, environment={"PYTHONPATH": os.environ.get("PYTHONPATH", "")}) as cluster,
    ):
        for _ in range(2):
            cluster.add_node(cpus=CPUS)
        chosen = [
            "--data",
            str(options.data or _drawn(Path(scratch))),
            "--cluster",
            cluster.address,
            *shlex.split(options.options),
        ]
        command = [options.command, *chosen, "--cache-dir", str(Path(scratch) / "cache")]
        while (left := plan[tally.nodes + tally.drivers :]) and time.monotonic() < until and tally.sound:
            Session(cluster, command, Path(scratch), options.seed + tally.runs, tally).kill_all(left, until)
        if not tally.sound:
            print(_last_words(Path(scratch)), file=sys.stderr)
    return conclude(tally.figure, options.json)


def _drawn(scratch: Path) -> Path:
    data = scratch / "data"
    maker = ROOT / "examples" / "make_smoke_data.py"
    subprocess.run([sys.executable, str(maker), str(data), "--images", "20"], check=True, stdout=subprocess.DEVNULL)
    return data


def _last_words(scratch: Path) -> str:
    return "\n".join(f"{log.name}: {log.read_text('utf-8', 'replace')[-3000:]}" for log in scratch.glob("*.log"))


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "(none)"
    return f"{statistics.median(seconds):.1f} s (median; longest {max(seconds):.1f})"


if __name__ == "__main__":
    sys.exit(main())
