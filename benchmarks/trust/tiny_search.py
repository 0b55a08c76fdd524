"""The smallest search that is real, for scripts that kill it, stop it, or shift its clock; and what it came to.

One probe and four fine-tunes of six epochs of the one backbone whose weights come with the package, at 32 pixels, on
60 drawn images of 64 pixels. The number of trials ends it, so that what it comes to does not depend on the time; and
the four are all of the default recipes that there are for so short a training, since which of them begin first depends
on what they cost, and that is measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_vision.tensor_file import load_tensors
from cluster.runs import records, this_program, timeless
from stages import ROOT
from trust.sessions import Session, start_cold, start_forked

OPTIONS = (
    "--trials 4 --epochs 6 --batch-size 8 --resolutions 32 --backbones efficientnet_lite0 --offline --device cpu "
    "--lineage names --threads 1 --no-history"
)
#: What the model of a run is, besides its weights, that does not depend on when it was made.
_OF_THE_MODEL = ("digest", "backbone", "preprocessing", "class_names", "temperature", "class_bias", "flip", "share")
Record = dict[str, Any]


@dataclass(frozen=True)
class TinySearch:
    """How it is called.

    Attributes:
        options: of `search`, with the data.
        command: a program that takes the place of this package's, all of whose sessions are cold.
    """

    options: Sequence[str]
    command: Sequence[str] = ()

    def begin(
        self, run: Path, *, cold: bool = False, first: Callable[..., object] | None = None, of: Any = ()
    ) -> Session:
        """The next session of a run: it goes on with it, or begins it where there is nothing to go on with yet.

        Args:
            run: its folder.
            cold: a process that imports everything by itself.
            first: called with `of` in a session that is not cold, before anything else.
        """
        what = ["--resume", str(run)] if is_begun(run) else [*self.options, "--out", str(run)]
        return self._started(["search", *what, "--quiet"], run.with_suffix(".log"), cold, first, of)

    def asked(self, run: Path, *arguments: str) -> Session:
        """Another command, which has ended."""
        session = self._started(arguments, run.with_suffix(".asked.log"))
        session.wait()
        return session

    def _started(
        self,
        arguments: Sequence[str],
        log: Path,
        cold: bool = False,
        first: Callable[..., object] | None = None,
        of: Any = (),
    ) -> Session:
        if cold or self.command:
            return start_cold([*(self.command or this_program()), *arguments], log)
        return start_forked(arguments, log, first, *of)


def tiny_search(
    scratch: Path, options: str = OPTIONS, command: str | None = None, data: Path | None = None
) -> TinySearch:
    """The search of these options on these images, or on drawn ones, whose decoded images are kept in `scratch`."""
    chosen = ["--data", str(data or drawn(scratch / "data")), "--cache-dir", str(scratch / "cache")]
    return TinySearch([*chosen, *shlex.split(options)], shlex.split(command or ""))


def drawn(folder: Path) -> Path:
    """Sixty drawn images of 64 pixels, three classes."""
    maker = ROOT / "examples" / "make_smoke_data.py"
    line = [sys.executable, str(maker), str(folder), "--images", "20", "--size", "64"]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return folder


def faults_of_end(search: TinySearch, run: Path, looked: int) -> list[str]:
    """What is wrong with a run that came to its end.

    Args:
        search: how it was called.
        run: its folder.
        looked: how often earlier sessions had looked at the test set.
    """
    faults = []
    report = json_of(run / "report.json", {"stop_reason": "no report"})
    if report["stop_reason"] not in ("trials", "budget", "converged"):
        faults.append(f"stopped by {report['stop_reason']}")
    if looks(run) != looked + 1:
        faults.append(f"{looks(run)} looks at the test set, {looked} by sessions that did not end by themselves")
    leftovers = [file.name for pattern in ("*.tmp", "*.corrupt") for file in run.rglob(pattern)]
    if leftovers:
        faults.append(f"left behind: {', '.join(leftovers)}")
    verified = search.asked(run, "report", str(run), "--verify")
    if verified.code:
        faults.append(f"the report does not follow from the predictions: {verified.said[-300:]}")
    images = Path(json_of(run / "run.json", {})["data"])
    one = next(file for file in sorted(images.rglob("*")) if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    predicted = search.asked(run, "predict", str(run / "model.pt"), str(one), "--format", "json")
    if predicted.code:
        faults.append(f"the model does not predict: {predicted.said[-300:]}")
    return faults


def looked_before(run: Path) -> int:
    """Looks at the test set that the next session finds, besides the one that a complete run ended with."""
    return looks(run) - is_complete(run)


def is_begun(run: Path) -> bool:
    """Whether there is a run to resume."""
    return (run / "run.json").is_file()


def is_complete(run: Path) -> bool:
    """Whether the run came to its end, with nothing left to do."""
    report = json_of(run / "report.json", {})
    return bool(report) and report["stop_reason"] != "interrupted"


def looks(run: Path) -> int:
    """Looks at the test set that are on record."""
    return len(json_of(run / "looks.json", []))


def json_of(file: Path, default: Any) -> Any:
    """The content of a file, or the default where there is none."""
    return json.loads(file.read_text("utf-8")) if file.is_file() else default


def log_lines(run: Path) -> list[str]:
    """The lines of the log, without their dates."""
    log = run / "events.log"
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    return [line.partition(" ")[2] for line in lines]


def last_stage(lines: Sequence[str]) -> str:
    """The stage that a log ends in."""
    stages = [line.split()[1] for line in lines if line.startswith("stage ")]
    return stages[-1] if stages else "start"


def everything(run: Path) -> dict[str, str]:
    """What a run came to that does not depend on the machine and the hour, by its name: checksums.

    Trials with the figures of every epoch and the weights that are kept, the model, and the predictions. Which trial
    came first does not count: recipes that promise as much start in the order of what they cost, which is measured.
    """
    found = {"trials": _trials(run)}
    found |= {file.name: _digest(file.read_bytes()) for file in sorted(run.glob("predictions_*.csv"))}
    model = run / "model.pt"
    return {**found, "model": _model(load_tensors(model))} if model.is_file() else found


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The names of what two runs came to that is not the same."""
    return sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))


def _trials(run: Path) -> str:
    """A checksum of all of them, whatever their numbers."""
    each = []
    for number, record in records(run).items():
        told = json.dumps({**timeless(record), "number": 0}, sort_keys=True)
        best = run / "trials" / f"{number:06d}" / "best.pt"
        each.append(told + (_of_states(load_tensors(best)["weights"]) if best.is_file() else ""))
    return _digest("\n".join(sorted(each)).encode())


def _of_states(*states: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for state in states:
        for name in sorted(state):
            digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _model(content: Mapping[str, Any]) -> str:
    meta = json.loads(content["meta"])
    known = [{key: each.get(key) for key in _OF_THE_MODEL} for each in (meta, *meta["others"])]
    return _digest(json.dumps(known, sort_keys=True).encode()) + _of_states(
        content["state_dict"], *content.get("others", {}).values()
    )


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and largest."""
    known = [each for each in values if not math.isnan(each)]
    return f"{statistics.median(known):.{digits}f} (most {max(known):.{digits}f})" if known else "(none)"
