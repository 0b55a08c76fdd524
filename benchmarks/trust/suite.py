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
from collections.abc import Callable, Iterable, Sequence
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


#: In the order in which they are measured. `.ci/run` has done itself, right before, what the smoke leaves out.
MEASUREMENTS: tuple[Measurement, ...] = ()


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


def measure(each: Measurement, share: Share, scratch: Path) -> Outcome:
    """Run one script to its end, or to the end of its time; what it prints goes to stderr."""
    figures = scratch / "figures.json"
    figures.unlink(missing_ok=True)
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


def measure_all(
    size: str, chosen: Sequence[Measurement], measured: Callable[[Measurement, Share, Path], Outcome] = measure
) -> list[Outcome]:
    """All of them, one after the other, whatever comes of each."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="trust-") as scratch:
        for each in chosen:
            share = each.share(size)
            assert share is not None
            print(f"== {', '.join(each.targets)}: {each.script} {share.options}", file=sys.stderr, flush=True)
            outcomes.append(measured(each, share, Path(scratch)))
    return outcomes


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
    return "\n".join([*lines, f"{len(outcomes)} measurements in {seconds / 60:.1f} minutes, {verdict}"])


def main(arguments: Sequence[str] | None = None, measurements: Iterable[Measurement] = MEASUREMENTS) -> int:
    """Command line; 1 where something was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="selection")
    parser.add_argument("--only", default="", help="some targets, with commas between them: R1,R5")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    only = [target.strip() for target in options.only.split(",") if target.strip()]
    try:
        chosen = wanted(options.size, only, measurements)
    except ValueError as unknown:
        parser.error(str(unknown))
    began = datetime.now(UTC).isoformat(timespec="seconds")
    outcomes = measure_all(options.size, chosen)
    if options.json is not None:
        told = {"size": options.size, "began": began, "machine": machine(), "figures": [asdict(e) for e in outcomes]}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(table(outcomes), flush=True)
    return 0 if all(each.held for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
