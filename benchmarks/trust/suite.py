"""Every promise of docs/trust.md, measured one after the other.

    python benchmarks/trust/suite.py --size smoke        # minutes, a little of each (`make trust-smoke`, in CI)
    python benchmarks/trust/suite.py --size selection    # a quarter of an hour (`make trust`)
    python benchmarks/trust/suite.py --size full         # the whole counts, in hours (`make trust-full`)
    python benchmarks/trust/suite.py --size full --only R1,R5 --json figures.json

A script that misses its target, fails or takes longer than its limit does not keep the next one from its turn. At the
end there is a table, and one file with all figures where `--json` says so; exit code 1 where anything was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cluster.loopback_cluster import descendants
from stages import ROOT, machine

SIZES = ("smoke", "selection", "full")


@dataclass(frozen=True)
class Share:
    """What one size asks of a script.

    Attributes:
        options: for its command line, in one text.
        minutes: it is stopped when they are over, which counts as missed.
    """

    options: str
    minutes: float


@dataclass(frozen=True)
class Measurement:
    """A script, and what it is asked for.

    Attributes:
        targets: what it measures, as `docs/trust.md` numbers them.
        script: relative to the repository; or "-m MODULE".
        smoke, selection, full: None where that size leaves it out.
        writes: whether it knows `--json`.
    """

    targets: tuple[str, ...]
    script: str
    smoke: Share | None
    selection: Share | None
    full: Share | None
    writes: bool = True

    def share(self, size: str) -> Share | None:
        """What this size asks of it."""
        return {"smoke": self.smoke, "selection": self.selection, "full": self.full}[size]


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        targets, script: of the measurement.
        held: whether it ended by itself, with 0.
        text: its last line, or why there is none.
        seconds: wall clock.
        told: what it wrote with `--json`; None where it wrote nothing.
    """

    targets: tuple[str, ...]
    script: str
    held: bool
    text: str
    seconds: float
    told: Any = None


_TRUST = "benchmarks/trust"
#: In the order in which they are measured. The smoke leaves out what `.ci/run` has done right before (R17, R18), what
#: tells nothing in seconds (an hour of faults, a clock that moves within a budget, latencies of a crowd on a busy
#: machine), and what takes minutes to begin (a cluster, two whole searches).
MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement(
        ("R1", "R3"),
        f"{_TRUST}/kill_storm.py",
        Share("--kills 3", 5),
        Share("--kills 15 --minutes 2", 6),
        Share("--kills 200", 240),
    ),
    Measurement(
        ("R2",),
        f"{_TRUST}/crash_points.py",
        Share("--times 1 --only best", 5),
        Share("--times 1", 8),
        Share("--times 5", 240),
    ),
    Measurement(
        ("R4",),
        "benchmarks/cluster/kill_nodes.py",
        None,
        None,
        Share("--nodes 20 --drivers 10 --minutes 60", 120),
    ),
    Measurement(
        ("R5",),
        f"{_TRUST}/signals.py",
        Share("--times 2", 5),
        Share("--times 10 --minutes 2", 6),
        Share("--times 100", 240),
    ),
    Measurement(
        ("R6",), f"{_TRUST}/full_disk.py", Share("--sizes 1", 5), Share("--sizes 3", 6), Share("--sizes 30", 240)
    ),
    Measurement(
        ("R6",),
        f"{_TRUST}/damaged_runs.py",
        Share("--files 2 --ways cut --commands report,predict", 5),
        Share("--files 6 --ways cut,garble --commands resume,report,predict", 6),
        Share("", 240),
    ),
    Measurement(
        ("R6",), f"{_TRUST}/two_at_once.py", Share("--scenes folder", 5), Share("--scenes folder,nap", 6), Share("", 60)
    ),
    Measurement(("R6",), f"{_TRUST}/read_only.py", None, Share("--scenes output,run", 6), Share("", 60)),
    Measurement(
        ("R7",),
        f"{_TRUST}/mutated_images.py",
        Share("--files 150 --commands 12", 5),
        Share("--files 5000 --commands 200", 6),
        Share("", 240),
    ),
    Measurement(
        ("R8",), f"{_TRUST}/mutated_models.py", Share("--files 60", 5), Share("--files 500", 6), Share("", 240)
    ),
    Measurement(("R9",), f"{_TRUST}/hostile_files.py", Share("--every 8", 5), Share("--every 3", 6), Share("", 240)),
    Measurement(("R10",), f"{_TRUST}/odd_folder.py", None, Share("--each 20", 6), Share("", 240)),
    Measurement(
        ("R11",),
        f"{_TRUST}/corrupt_share.py",
        Share("--runs 0 --images 200 --width 64 --height 48", 5),
        Share("--runs 0 --images 1000", 6),
        Share("", 240),
    ),
    Measurement(
        ("R12",),
        f"{_TRUST}/many_files.py",
        Share("--files 20000 --classes 0", 5),
        Share("--files 200000 --classes 0", 6),
        Share("", 240),
    ),
    Measurement(
        ("R13",),
        f"{_TRUST}/killed_workers.py",
        None,
        Share("--kills 3 --minutes 2", 6),
        Share("", 240),
    ),
    Measurement(
        ("R14",),
        f"{_TRUST}/serve_under_fire.py",
        None,
        Share("--minutes 0.5 --quiet-minutes 0.3", 6),
        Share("--minutes 10", 30),
    ),
    Measurement(("R15",), f"{_TRUST}/soak.py", None, Share("--minutes 2 --every 12", 8), Share("--minutes 60", 100)),
    Measurement(("R16",), f"{_TRUST}/shifted_clock.py", None, Share("--runs 1 --budget 30", 6), Share("", 240)),
    Measurement(
        ("R17",),
        "-m pytest tests/test_golden.py -q -p no:cacheprovider",
        None,
        Share("", 4),
        Share("", 10),
        writes=False,
    ),
    Measurement(("R18",), "checks/banned_calls.py", None, Share("", 2), Share("", 4), writes=False),
    Measurement(
        ("R18",),
        "-m bandit --quiet --recursive src --configfile pyproject.toml",
        None,
        Share("", 2),
        Share("", 4),
        writes=False,
    ),
    Measurement(("R18",), "checks/audit_packages.py", None, Share("", 4), Share("", 30), writes=False),
)


def wanted(size: str, only: Sequence[str], table: Iterable[Measurement] = MEASUREMENTS) -> list[Measurement]:
    """What a size measures; `only` some targets, where there are any.

    Raises:
        ValueError: a target that nothing measures, or not in this size.
    """
    measured = [each for each in table if each.share(size) is not None]
    known = {target for each in measured for target in each.targets}
    unknown = [target for target in only if target not in known]
    if unknown:
        raise ValueError(f"--size {size} does not measure {', '.join(unknown)}: it has {', '.join(_sorted(known))}")
    return [each for each in measured if not only or set(only) & set(each.targets)]


def _sorted(targets: Iterable[str]) -> list[str]:
    return sorted(targets, key=lambda target: int(target.removeprefix("R")))


def measure(each: Measurement, share: Share, figures: Path) -> Outcome:
    """Run one script to its end, or to the end of its time; what it prints goes to stderr, its figures to a file."""
    print(f"== {', '.join(each.targets)}: {each.script} {share.options}", file=sys.stderr, flush=True)
    command = [sys.executable, *each.script.split(), *share.options.split()]
    command += ["--json", str(figures)] if each.writes else []
    begun = time.monotonic()
    said, code = _run(command, share.minutes * 60)
    seconds = round(time.monotonic() - begun, 1)
    told = json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = f"stopped after {share.minutes:g} minutes" if code is None else (lines[-1] if lines else "nothing was said")
    held = code == 0
    if code not in (0, 1, None):
        text = f"ended with {code}: {text}"
    return Outcome(each.targets, each.script, held, text, seconds, told)


def _run(command: Sequence[str], seconds: float) -> tuple[str, int | None]:
    """What it printed, and its exit code; None where it was stopped."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        said, code = _stopped(process), None
    except BaseException:
        _stopped(process)
        raise
    else:
        code = process.returncode
    print(said, end="", file=sys.stderr, flush=True)
    return said, code


def _stopped(process: subprocess.Popen[str]) -> str:
    """Kill it with all that it had started, some of it in groups of their own; returns what it had printed."""
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return process.communicate()[0]


def measure_all(size: str, chosen: Sequence[Measurement], at_once: int) -> list[Outcome]:
    """All of them in their order, some at once, whatever comes of each."""
    shares = [(each, share) for each in chosen if (share := each.share(size)) is not None]
    with tempfile.TemporaryDirectory(prefix="trust-") as scratch, ThreadPoolExecutor(at_once) as several:
        figures = (Path(scratch) / f"{number}.json" for number in range(len(shares)))
        begun = [several.submit(measure, *each, file) for each, file in zip(shares, figures, strict=True)]
        return [each.result() for each in begun]


def table(outcomes: Sequence[Outcome]) -> str:
    """One line each: targets, verdict, seconds, what was said."""
    width = max((len(",".join(each.targets)) for each in outcomes), default=0)
    lines = [
        f"{','.join(each.targets):<{width}}  {'held' if each.held else 'MISSED':<6}  {each.seconds:7.1f} s  {each.text}"
        for each in outcomes
    ]
    missed = [target for each in outcomes if not each.held for target in each.targets]
    seconds = sum(each.seconds for each in outcomes)
    verdict = f"missed: {', '.join(dict.fromkeys(missed))}" if missed else "none missed"
    return "\n".join([*lines, f"{len(outcomes)} measurements that took {seconds / 60:.1f} minutes, {verdict}"])


def main(arguments: Sequence[str] | None = None, measurements: Iterable[Measurement] = MEASUREMENTS) -> int:
    """Command line; 1 where something was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="selection")
    parser.add_argument("--only", default="", help="some targets, with commas between them: R1,R5")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--at-once", type=int, default=1, help="scripts side by side, which disturb each other's times")
    options = parser.parse_args(arguments)
    only = [target.strip() for target in options.only.split(",") if target.strip()]
    try:
        chosen = wanted(options.size, only, measurements)
    except ValueError as unknown:
        parser.error(str(unknown))
    began = datetime.now(UTC).isoformat(timespec="seconds")
    outcomes = measure_all(options.size, chosen, options.at_once)
    if options.json is not None:
        told = {"size": options.size, "began": began, "machine": machine(), "figures": [asdict(e) for e in outcomes]}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(table(outcomes), flush=True)
    return 0 if all(each.held for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
