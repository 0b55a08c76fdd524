"""Take a search away at random moments (SIGTERM): how long does it take to leave, and does it end as undisturbed?

    python benchmarks/cluster/preempted.py --data examples/fashion --times 20

Each session gets SIGTERM at a moment that is drawn evenly from its first seconds (start-up included), twice, as batch
systems send it to every process of a job, and is resumed. Checked: exit code 75 and one line that says how to go on,
no test and no report before the end, one look at the test set unless it was taken away after that, and the records and
weights of an undisturbed run, to the last bit: the budget is a number of trials. Prints one line; exit code 1 where
something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.runs import outcome, start, this_program
from stages import ROOT, machine

TAKEN_AWAY = 75
SEARCH = "--trials 2 --epochs 4 --batch-size 8 --mix mixup --refit on"


@dataclass
class Tally:
    """What was found.

    Attributes:
        runs: that came to their end.
        seconds: from SIGTERM to the end of the process, of each session that was taken away.
        hit: what these sessions were doing -> how often.
        faults: what is not as it should be.
    """

    runs: int = 0
    seconds: list[float] = field(default_factory=list)
    hit: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "the same weights and records as undisturbed" if not self.faults else "; ".join(self.faults)
        where = ", ".join(f"{name} {count}" for name, count in self.hit.most_common())
        if not self.seconds:
            return f"nothing was taken away; {verdict}"
        median, longest = statistics.median(self.seconds), max(self.seconds)
        return (
            f"{len(self.seconds)} times SIGTERM in {self.runs} runs: left after {median:.2f} s (median), "
            f"{longest:.2f} s at most (in {where}); {verdict}"
        )


def take_away(
    search: Sequence[str], out: Path, times: int, chance: random.Random, longest: float, tally: Tally
) -> None:
    """One run, taken away and resumed until it ends by itself, or was taken away so often in all."""
    while True:
        begun = (out / "run.json").is_file()
        line = ["search", "--resume", str(out), "--quiet"] if begun else [*search, "--out", str(out)]
        log = out.with_suffix(".log")
        running = start([*this_program(), *line], log)
        disturbed = len(tally.seconds) < times
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(chance.uniform(0.3, longest) if disturbed else 1800)
        if running.poll() is None:
            doing, told = _last_stage(out), time.monotonic()
            os.kill(running.pid, signal.SIGTERM)
            time.sleep(0.05)
            _again(running.pid)
            running.wait(60)
            tally.seconds.append(time.monotonic() - told)
            tally.hit[doing] += 1
            print(f"{len(tally.seconds)}: {tally.seconds[-1]:.2f} s in {doing}", file=sys.stderr, flush=True)
        said = log.read_text("utf-8", "replace")
        if running.returncode == TAKEN_AWAY:
            tally.faults += _faults_of_leaving(said, out)
        elif running.returncode == -signal.SIGTERM and not begun:
            tally.hit["before Python could listen"] += 1
        else:
            break
    tally.runs += 1
    if running.returncode:
        tally.faults.append(f"a session ended with {running.returncode}: {said[-500:]}")


def _again(process: int) -> None:
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return  # it was fast


def _faults_of_leaving(said: str, out: Path) -> list[str]:
    lines = [line for line in said.splitlines() if line.startswith("Stopped:")]
    told = len(lines) == 1 and ("go on with" in lines[0] or "start it again" in lines[0])
    faults = [] if told else [f"it did not say how to go on: {said[-300:]!r}"]
    if "Traceback" in said:
        faults.append("a traceback")
    return faults + (["a report"] if (out / "report.json").exists() else [])


def _last_stage(out: Path) -> str:
    log = out / "events.log"
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    stages = [line.split(" stage ", 1)[1].split()[0] for line in lines if " stage " in line]
    return stages[-1] if stages else "start"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "fashion")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--longest", type=float, default=40.0, help="seconds that a session lives at most")
    parser.add_argument("--options", default=SEARCH, help="options for search, in one text")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    tally, chance, scratch = Tally(), random.Random(options.seed), Path(tempfile.mkdtemp())
    search = ["search", "--data", str(options.data), "--quiet", "--offline", "--cache-dir", str(scratch / "cache")]
    search += shlex.split(options.options)
    undisturbed = Tally()
    take_away(search, scratch / "undisturbed", 0, chance, 0.0, undisturbed)
    tally.faults += undisturbed.faults
    expected = outcome(scratch / "undisturbed")
    while len(tally.seconds) < options.times and not tally.faults:
        out = scratch / f"run{tally.runs}"
        take_away(search, out, options.times, chance, options.longest, tally)
        if not tally.faults and outcome(out) != expected:
            tally.faults.append(f"another outcome in {out}")
    print(tally)
    if options.json:
        content = {"machine": machine(), "options": options.options, **asdict(tally)}
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    if not tally.faults:
        shutil.rmtree(scratch)
    return int(bool(tally.faults))


if __name__ == "__main__":
    sys.exit(main())
