"""Kill a search at random moments, resume it each time: is anything lost, or done twice?

    python benchmarks/kill_resume.py --data examples/fashion --kills 20 --options "--trials 30 --epochs 2"

`kill -9` of the whole process group, at a moment that is drawn evenly from the first seconds of each session (start-up
included, so that some hit the imports and the decoding). A run that is complete before all kills are spent is checked,
and the next one begins. Checked against what was on disk at every kill: no trial that was complete is missing or
different, no epoch that was recorded was trained again, no default recipe was started twice, the report's figures
follow from the predictions, the model can be evaluated, and the test set was looked at once. Prints one line; exit
code 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages import ROOT, find_command, machine
from timed_process import run_timed

#: States of trials that no later session may change.
_FINAL = ("complete", "failed")
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
        faults: everything else that is not as it should be.
    """

    runs: int = 0
    kills: int = 0
    hit: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    lost: int = 0
    repeated: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.repeated or self.faults)

    def __str__(self) -> str:
        verdict = "all sound" if self.sound else "; ".join(["NOT sound", *self.faults])
        return (
            f"{self.kills} kills in {self.runs} runs of {self.trials} trials: "
            f"{self.lost} lost, {self.repeated} repeated; {verdict}"
        )


def search_through_kills(
    command: Sequence[str], options: Sequence[str], out: Path, moments: Iterator[float], tally: Tally, kills: int
) -> None:
    """One search, killed at the `moments` (seconds since a session's start) until it ends by itself; then checked.

    After `kills` in all it is left alone.
    """
    seen: list[dict[int, Record]] = []
    while True:
        # A session that was killed before it had made its folder left nothing to resume.
        begun = (out / "run.json").is_file()
        line = ["--resume", str(out)] if begun else [*options, "--out", str(out)]
        moment = next(moments) if tally.kills < kills else math.inf
        ended = run_timed([*command, "search", *line, "--quiet"], kill_after=moment)
        if not ended.killed:
            break
        tally.kills += 1
        doing = _last_stage(out)
        tally.hit[doing] = tally.hit.get(doing, 0) + 1
        seen.append(_records(out))
        print(
            f"kill {tally.kills} after {moment:.1f} s, in {doing}, {len(seen[-1])} trials", file=sys.stderr, flush=True
        )
    if ended.code:
        tally.faults.append(f"a session ended with {ended.code}: {ended.err[-300:]}")
        return
    tally.runs += 1
    _compare(seen, _records(out), tally)
    tally.faults += _faults(command, out)


def _last_stage(out: Path) -> str:
    log = out / "events.log"
    stages = [line.split(" stage ", 1)[1] for line in _lines(log) if " stage " in line]
    return stages[-1].split()[0] if stages else "start"


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8", "replace").splitlines() if file.is_file() else []


def _records(out: Path) -> dict[int, Record]:
    """Trial number -> its record."""
    files = sorted((out / "trials").glob("[0-9]*.json"))
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


def _faults(command: Sequence[str], out: Path) -> list[str]:
    """What is wrong with a run that has ended."""
    faults = []
    report = json.loads((out / "report.json").read_text("utf-8"))
    if report["stop_reason"] not in ("trials", "budget", "converged"):
        faults.append(f"stopped by {report['stop_reason']}")
    looks = json.loads((out / "looks.json").read_text("utf-8"))
    if len(looks) != 1:
        faults.append(f"{len(looks)} looks at the test set")
    leftovers = [file.name for pattern in ("*.tmp", "*.corrupt") for file in out.rglob(pattern)]
    if leftovers:
        faults.append(f"left behind: {', '.join(leftovers)}")
    verified = run_timed([*command, "report", str(out), "--verify"], math.inf)
    if verified.code:
        faults.append(f"the report does not follow from the predictions: {verified.out[-300:]}{verified.err[-300:]}")
    images = Path(json.loads((out / "run.json").read_text("utf-8"))["data"])
    one = next(file for file in sorted(images.rglob("*")) if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    predicted = run_timed([*command, "predict", str(out / "model.pt"), str(one), "--format", "json"], math.inf)
    if predicted.code:
        faults.append(f"the model does not predict: {predicted.err[-300:]}")
    return faults


def _moments(longest: float, seed: int) -> Iterator[float]:
    chance = random.Random(seed)
    while True:
        yield chance.uniform(0.0, longest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "fashion")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds that a session lives at most, when killed")
    parser.add_argument("--options", default="--trials 20 --epochs 2", help="more options for search, in one text")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--command", help="the program to measure (default: automl-vision)")
    options = parser.parse_args(arguments)
    command = shlex.split(options.command) if options.command else [find_command()]
    tally = Tally()
    moments = _moments(options.longest, options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        chosen = ["--data", str(options.data), "--device", options.device, *shlex.split(options.options)]
        chosen += ["--cache-dir", str(Path(scratch) / "cache")]
        while tally.kills < options.kills and not tally.faults:
            search_through_kills(command, chosen, Path(scratch) / f"run{tally.runs}", moments, tally, options.kills)
    print(tally)
    if options.json:
        content = {"machine": machine(), "options": options.options, **asdict(tally)}
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return int(not tally.sound)


if __name__ == "__main__":
    sys.exit(main())
