"""The smallest search that is real, for scripts that kill it, stop it, or shift its clock; and what it came to.

One probe and three fine-tunes of six epochs of the one backbone whose weights come with the package, at 32 pixels, on 60
drawn images of 64 pixels. The number of trials ends it, so that what it comes to does not depend on the time.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_vision.tensor_file import load_tensors
from cluster.runs import outcome, this_program
from stages import ROOT

OPTIONS = (
    "--trials 3 --epochs 6 --batch-size 8 --resolutions 32 --backbones efficientnet_lite0 --offline --device cpu "
    "--lineage names --threads 1 --no-history"
)
#: What the model of a run is, besides its weights, that does not depend on when it was made.
_OF_THE_MODEL = ("digest", "backbone", "preprocessing", "class_names", "temperature", "class_bias", "flip", "share")
Record = dict[str, Any]


@dataclass(frozen=True)
class TinySearch:
    """How it is called.

    Attributes:
        command: the program.
        options: of `search`, with the data.
    """

    command: Sequence[str]
    options: Sequence[str]

    def line(self, run: Path, *more: str) -> list[str]:
        """The command that goes on with a run, or begins it where it was killed before it had made its folder."""
        what = ["--resume", str(run)] if is_begun(run) else [*self.options, "--out", str(run)]
        return [*self.command, "search", *what, "--quiet", *more]


def tiny_search(scratch: Path, options: str = OPTIONS, command: str | None = None, data: Path | None = None) -> TinySearch:
    """The search of these options on these images, or on drawn ones, whose decoded images are kept in `scratch`."""
    chosen = ["--data", str(data or drawn(scratch / "data")), "--cache-dir", str(scratch / "cache")]
    return TinySearch(shlex.split(command) if command else this_program(), [*chosen, *shlex.split(options)])


def drawn(folder: Path) -> Path:
    """Sixty drawn images of 64 pixels, three classes."""
    maker = ROOT / "examples" / "make_smoke_data.py"
    line = [sys.executable, str(maker), str(folder), "--images", "20", "--size", "64"]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return folder


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

    Trials with the figures of every epoch and the weights that are kept, the model, and the predictions.
    """
    found = {"trials": outcome(run)}
    found |= {file.name: _digest(file.read_bytes()) for file in sorted(run.glob("predictions_*.csv"))}
    model = run / "model.pt"
    return {**found, "model": _model(load_tensors(model))} if model.is_file() else found


def _model(content: Mapping[str, Any]) -> str:
    meta = json.loads(content["meta"])
    known = [{key: each.get(key) for key in _OF_THE_MODEL} for each in (meta, *meta["others"])]
    digest = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=8)
    for states in (content["state_dict"], *content.get("others", {}).values()):
        for name in sorted(states):
            digest.update(name.encode() + states[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
