"""Trials on disk: the truth that samplers and the scheduler are functions of.

trials/000012.json             the record; written after every epoch, whole or not at all
trials/000012/checkpoint.pt    to go on from; only while the trial may go on
trials/000012/best.pt          weights and validation probabilities of the best epoch; only for the best few trials
trials/000012/predicted.pt     the class that this epoch gives each validation image; stays, for the choice among all
trials/held_out.pt             what the best probe says of each training image when it is fitted without its group
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.errors import ModelFileError
from automl_vision.files import UNFINISHED, write_json
from automl_vision.search.scheduler import KEPT_BEST, kept_files
from automl_vision.search.trial import Trial
from automl_vision.tensor_file import load_tensors, save_tensors

#: Probabilities of training images that are kept at most (80 MB): 20,000 images of 1,000 classes.
MOST_HELD_OUT = 20_000_000
_HELD_OUT = "held_out.pt"


@dataclass(frozen=True)
class Result:
    """The best epoch of a trial.

    Attributes:
        weights: state dict of the classifier.
        probabilities: (N_val, C) validation probabilities that they give.
    """

    weights: dict[str, torch.Tensor]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """What a probe says of training images that it was not fitted to.

    Attributes:
        trial: number of the probe.
        score: its score on validation.
        rows: (n) manifest rows, training images.
        probabilities: (n, C) each from a fit without the row's group.
    """

    trial: int
    score: float
    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]


class TrialFiles:
    """The `trials` folder of one run.

    Args:
        folder: created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def commit(self, trial: Trial) -> None:
        """Make the record of `trial` durable; from here on no crash loses it."""
        values = trial.to_dict()
        write_json(self._record(trial.number), {**values, "checksum": _checksum(values)})

    def read(self) -> tuple[list[Trial], list[str]]:
        """All trials by number, and what was found damaged (those records are renamed to `*.corrupt`)."""
        self._sweep()
        trials: list[Trial] = []
        damaged: list[str] = []
        for file in sorted(self.folder.glob("[0-9]*.json")):
            trial = _read_record(file)
            if trial is None:
                file.rename(file.with_suffix(".json.corrupt"))
                damaged.append(file.name)
            else:
                trials.append(trial)
        return trials, damaged

    def record(self, number: int) -> Trial | None:
        """One trial, or None where there is no record of it that can be read; nothing is changed on disk."""
        file = self._record(number)
        return _read_record(file) if file.is_file() else None

    def with_weights(self) -> list[int]:
        """Numbers of the trials whose best weights are on disk."""
        return sorted(int(file.parent.name) for file in self.folder.glob("[0-9]*/best.pt"))

    def save_checkpoint(self, number: int, state: Mapping[str, Any]) -> None:
        """Keep what a trial needs to go on: tensors and plain types only."""
        self._save(number, "checkpoint.pt", dict(state))

    def load_checkpoint(self, number: int) -> dict[str, Any] | None:
        """The last checkpoint of a trial, or None where there is none that can be read."""
        return _load(self._folder(number) / "checkpoint.pt")

    def save_result(self, number: int, weights: Mapping[str, torch.Tensor], probabilities: NDArray[np.float32]) -> None:
        """Keep the best weights so far and the (N_val, C) validation probabilities they give: both or none."""
        self._save(number, "best.pt", {"weights": dict(weights), "probabilities": torch.from_numpy(probabilities)})
        self._save(number, "predicted.pt", {"predicted": torch.from_numpy(probabilities.argmax(axis=1))})

    def load_result(self, number: int) -> Result | None:
        """The best epoch of a trial, or None where its weights were given up or cannot be read."""
        content = _load(self._folder(number) / "best.pt")
        return Result(content["weights"], content["probabilities"].numpy()) if content else None

    def load_predicted(self, number: int) -> NDArray[np.int64] | None:
        """(N_val) class that the best epoch of a trial gives each image, or None where that cannot be read."""
        content = _load(self._folder(number) / "predicted.pt")
        if content is not None:
            predicted: NDArray[np.int64] = content["predicted"].numpy()
            return predicted
        result = self.load_result(number)  # a run of an earlier version, or one that was killed in between
        return None if result is None else result.probabilities.argmax(axis=1)

    def keep_held_out(self, held_out: HeldOut) -> None:
        """Keep what a probe says of training images, unless a better probe's is there, or it is too large."""
        if held_out.probabilities.size > MOST_HELD_OUT:
            return
        known = self.load_held_out()
        if known is not None and known.score > held_out.score:
            return
        content = {
            "trial": held_out.trial,
            "score": held_out.score,
            "rows": torch.from_numpy(held_out.rows),
            "probabilities": torch.from_numpy(held_out.probabilities),
        }
        save_tensors(self.folder / _HELD_OUT, content)

    def load_held_out(self) -> HeldOut | None:
        """What the best probe says of training images, or None where there is none that can be read."""
        content = _load(self.folder / _HELD_OUT)
        if content is None:
            return None
        rows, probabilities = content["rows"].numpy(), content["probabilities"].numpy()
        return HeldOut(content["trial"], content["score"], rows, probabilities)

    def best(self, trials: Iterable[Trial]) -> tuple[Trial, Result] | None:
        """The best of `trials` whose weights can be read; a damaged file costs its trial, not the run."""
        scored = [trial for trial in trials if trial.score is not None]
        for trial in sorted(scored, key=lambda trial: (*trial.rank, -trial.number), reverse=True):
            result = self.load_result(trial.number)
            if result is not None:
                return trial, result
        return None

    def prune(self, trials: Sequence[Trial], keep: int = KEPT_BEST, *, also: Collection[int] = ()) -> None:
        """Bound the disk: weights of the best `keep` fine-tunes and of `also`, and checkpoints of those that may go on.

        Weights of all trials on frozen features stay: fine-tunes start with their heads.
        """
        fine_tunes = [trial for trial in trials if trial.recipe.kind == "finetune"]
        weights = kept_files(fine_tunes, keep).weights
        checkpoints = kept_files(trials).checkpoints
        for trial in trials:
            if trial.number not in checkpoints:
                (self._folder(trial.number) / "checkpoint.pt").unlink(missing_ok=True)
        for trial in fine_tunes:
            if trial.number not in {*weights, *also}:
                (self._folder(trial.number) / "best.pt").unlink(missing_ok=True)

    def discard(self, number: int) -> None:
        """Remove the files of a trial, but not its record."""
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def _record(self, number: int) -> Path:
        return self.folder / _record_name(number)

    def _folder(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _save(self, number: int, name: str, value: Mapping[str, Any]) -> None:
        self._folder(number).mkdir(exist_ok=True)
        save_tensors(self._folder(number) / name, value)

    def _sweep(self) -> None:
        for leftover in self.folder.rglob(f"*{UNFINISHED}"):
            leftover.unlink(missing_ok=True)


def _record_name(number: int) -> str:
    return f"{number:06d}.json"


def _checksum(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, allow_nan=False, ensure_ascii=True)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def _read_record(file: Path) -> Trial | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values.pop("checksum") != _checksum(values):
            return None
        trial = Trial.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return trial if file.name == _record_name(trial.number) else None  # a copy of another record is none of its own


def _load(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        return load_tensors(file)
    except ModelFileError:
        return None  # the trial starts again, or another one is the best; `read` has named damaged records
