"""The history: what every rung of every run on this machine came to, one line of JSON each.

It is for learning what to try first (`fitting/recipe_prior.py --history`). A line says how a candidate was trained,
what the network and the data are like in numbers, and what came of it; no path, no class name, no picture. Nothing
leaves the machine. Lines are appended with one write each, so that runs at the same time do not disturb one another.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from automl_vision.search.scheduler import rungs_of
from automl_vision.search.trial import Trial
from automl_vision.user_state import state_folder

FORMAT = 1
#: Only the user may read it.
_MODE = 0o600


@dataclass(frozen=True)
class RungRecord:
    """One line.

    Attributes:
        run: a random name that the lines of one run share.
        trial: its number in the run.
        kind: "probe", "head" or "finetune".
        state: of the trial, a key of `trial.STATES`.
        epoch: epochs trained so far; 0 for what is fitted to frozen features.
        score: best score on validation so far.
        loss: validation loss of that epoch.
        seconds: of all its training so far.
        objective: a name of `metrics.METRICS`: what the score is.
        recipe: the fields of `Recipe`.
        backbone: `parameters_m`, `gmacs` at 224 px and `imagenet_top1` in percent; null where they are not known.
        data: `n_train`, `n_val`, `n_classes`, and `imbalance`, the largest over the smallest class of the training set.
        device: its kind, "cpu", "cuda" or "mps".
        precision: of training, "float32", "bfloat16" or "float16"; what learns the statistics of batch norm on a CPU
            is in float32 in any case.
        version: of this program.
        format: of the line.
    """

    run: str
    trial: int
    kind: str
    state: str
    epoch: int
    score: float
    loss: float | None
    seconds: float
    objective: str
    recipe: Mapping[str, Any]
    backbone: Mapping[str, float | None]
    data: Mapping[str, float]
    device: str
    precision: str
    version: str
    format: int = FORMAT


@dataclass(frozen=True)
class RunFacts:
    """What the lines of one run have in common; see `RungRecord`."""

    run: str
    objective: str
    data: Mapping[str, float]
    device: str
    precision: str
    version: str


@dataclass
class History:
    """Appends a line whenever a trial has come to a rung, or to its end.

    Attributes:
        file: made with its folder where it is missing.
        facts: of the run.
        begun: trials of an earlier session, whose rungs are on record.
    """

    file: Path
    facts: RunFacts
    begun: Iterable[Trial] = ()
    _told: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._told = {trial.number: trial.epochs_done for trial in self.begun if _at_rung(trial)}

    def take(self, trial: Trial, backbone: Mapping[str, float | None]) -> None:
        """Take the newest state of a trial.

        Raises:
            OSError: the file cannot be written.
        """
        if not _at_rung(trial) or trial.score is None or trial.epochs_done <= self._told.get(trial.number, -1):
            return
        self._told[trial.number] = trial.epochs_done
        append(self.file, _record(trial, backbone, self.facts))


def history_file() -> Path:
    """`history.jsonl` in the user's state folder: that of $XDG_STATE_HOME, else of the platform."""
    return state_folder() / "history.jsonl"


def append(file: Path, record: RungRecord) -> None:
    """Append one line with one write. A torn line that a crash left before it is ended first, and stays torn.

    What looks torn may be a line that another process is just writing; then a blank line comes after it, which does no
    harm.

    Raises:
        OSError: the file cannot be written, or not the whole line.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(dataclasses.asdict(record), allow_nan=False, separators=(",", ":")).encode() + b"\n"
    with open(file, "ab+", buffering=0, opener=partial(os.open, mode=_MODE)) as handle:
        if handle.seek(0, os.SEEK_END) and not _ends_a_line(handle):
            line = b"\n" + line
        if handle.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


def read_history(file: Path) -> tuple[RungRecord, ...]:
    """Every line that can be read, oldest first; none where there is no file.

    Torn lines, and those of a format that is not known, are passed over.
    """
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    records = (_parsed(line) for line in lines)
    return tuple(record for record in records if record is not None)


def _ends_a_line(handle: Any) -> bool:
    handle.seek(-1, os.SEEK_END)
    return bool(handle.read(1) == b"\n")


def _at_rung(trial: Trial) -> bool:
    """Whether a trial is where it is compared with others, or at its end."""
    if trial.recipe.kind != "finetune":
        return trial.state == "complete"
    ended = trial.state in ("complete", "stopped", "failed")
    return trial.epochs_done > 0 and (ended or trial.epochs_done in rungs_of(trial))


def _record(trial: Trial, backbone: Mapping[str, float | None], facts: RunFacts) -> RungRecord:
    return RungRecord(
        trial=trial.number,
        kind=trial.recipe.kind,
        state=trial.state,
        epoch=trial.epochs_done,
        score=float(trial.score or 0.0),
        loss=trial.loss,
        seconds=trial.seconds,
        recipe=trial.recipe.to_dict(),
        backbone=dict(backbone),
        **vars(facts),
    )


def _parsed(line: bytes) -> RungRecord | None:
    try:
        record = RungRecord(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    return record if record.format == FORMAT else None
