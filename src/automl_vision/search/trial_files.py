"""Trials on disk: the truth that samplers and the scheduler are functions of.

trials/000012.json             the record; written after every epoch, whole or not at all
trials/000012/checkpoint.pt    to go on from; only while the trial may go on
trials/000012/best.pt          weights and validation probabilities of the best epoch; only for the best few trials
trials/000012/predicted.pt     the class that this epoch gives each validation image; stays, for the choice among all
trials/held_out.pt             what the best probe says of each training image when it is fitted without its group
trials/refit.pt                how far training the chosen recipe once more has come; only while it may go on

Where trials run in other processes, one may stall, be replaced, and wake up. So a start is *claimed* by the driver
before it is given away, and each attempt after the first has files of its own, which no other attempt writes:

trials/000012.attempt-2.json   the record of the second attempt
trials/000012/attempt-2/       its files
trials/000012/[attempt-2/]held_out.pt    instead of the one above, since two probes may end at once
trials/fence.txt               says so: whoever goes on with such a run keeps attempts apart, too

Whoever reads takes the newest attempt that has what is asked for. Numbers of attempts are never given twice. A process
that is replaced in the middle of writing still ends that one file of its own. So a result of an epoch carries its
figures, and where those are not the ones of the record, it does not count.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.errors import ModelFileError, ShortOfMemory
from automl_vision.files import UNFINISHED, write_json, write_text
from automl_vision.place import Place, files_below, make_folder, remove_folder, set_aside
from automl_vision.search.scheduler import KEPT_BEST, kept_files
from automl_vision.search.trial import Trial
from automl_vision.tensor_file import load_tensors, save_tensors

#: Probabilities of training images that are kept at most (80 MB): 20,000 images of 1,000 classes.
MOST_HELD_OUT = 20_000_000
#: Names of the files, as above.
HELD_OUT, CHECKPOINT, BEST, PREDICTED = "held_out.pt", "checkpoint.pt", "best.pt", "predicted.pt"
RETRAINED = "refit.pt"
_ATTEMPT = "attempt-"
#: What a result notes of the epoch it is of, where it is of one: fields of `Trial`.
_FIGURES = ("score", "loss")
_REAL, _WHOLE = (torch.float32, torch.float64), (torch.int64,)
_FENCE = "fence.txt"
_WHY_FENCED = (
    "Processes that ran trials here may outlive what is believed of them: each attempt has files of its own.\n"
)
#: The record of an attempt, also one that was set aside.
_RECORD_NAME = re.compile(r"(\d{6,})(?:\.attempt-(\d+))?\.json(?:\.corrupt)?")
#: What is set aside where it cannot be read: records, and copies of them that somebody made.
_LIKE_A_RECORD = re.compile(r"\d{6,}(?:\D.*)?\.json", re.DOTALL)
#: What a process that was killed amid writing leaves: records and the fence, and files of trials.
_OWN_UNFINISHED = re.compile(
    rf"(?:\d{{6,}}(?:\.{_ATTEMPT}\d+)?\.json|{re.escape(_FENCE)}|{re.escape(HELD_OUT)}"
    rf"|\d{{6,}}/(?:{_ATTEMPT}\d+/)?[a-z_]+\.pt)(?:\.[0-9a-z]+)?{re.escape(UNFINISHED)}"
)


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


class TrialReplaced(Exception):
    """A newer attempt of the trial was claimed: this one is over, and writes nothing more."""


class TrialFiles:
    """The `trials` folder of one run.

    Args:
        folder: created when missing; an address will do.
        fenced: whether attempts are kept apart, because processes that outlive what is believed of them may write. In
            a folder of one process, each attempt takes the files of the one before it. Once they were kept apart in a
            folder, they always are: those processes may be alive.
    """

    def __init__(self, folder: Place, *, fenced: bool = False) -> None:
        self.folder = folder
        make_folder(folder)
        self._fenced = (folder / _FENCE).is_file() or any(folder.glob(f"*.{_ATTEMPT}*"))
        if fenced:
            self.fence()

    @property
    def fenced(self) -> bool:
        """Whether attempts are kept apart."""
        return self._fenced

    def fence(self) -> None:
        """Keep attempts apart from now on, in later sessions too."""
        if not (self.folder / _FENCE).is_file():
            write_text(self.folder / _FENCE, _WHY_FENCED)
        self._fenced = True

    # --- records ------------------------------------------------------------------------------------------------

    def claim(self, trial: Trial) -> Trial:
        """Make durable that an attempt begins, before anybody works on it; the trial with its number.

        It is that of `trial`, or a later one where that was taken by another start. Where attempts are not kept
        apart, nothing is written.
        """
        if not self.fenced:
            return trial
        newest = self._newest_claim(trial.number)
        known = self.record(trial.number)
        goes_on = known is not None and (known.attempt, known.recipe) == (newest, trial.recipe)
        first_free = newest if goes_on else newest + 1
        claimed = trial.replace(state="running", attempt=max(trial.attempt, first_free))
        self.commit(claimed)
        return claimed

    def commit(self, trial: Trial) -> None:
        """Make the record of `trial` durable; from here on no crash loses it.

        Raises:
            TrialReplaced: attempts are kept apart, and a newer one was claimed.
        """
        self._require_newest(trial.number, trial.attempt)
        values = trial.to_dict()
        write_json(self._record(trial.number, trial.attempt), {**values, "checksum": _checksum(values)})

    def read(self) -> tuple[list[Trial], list[str]]:
        """All trials by number, and what was found damaged (those records are renamed to `*.corrupt`).

        Where the newest attempt of a trial has no record that can be read, the one before it counts, and what the
        newest wrote goes with its record. It goes on as an attempt after all that were claimed.
        """
        self.sweep()
        trials: dict[int, Trial] = {}
        damaged: list[str] = []
        for file in sorted(self.folder.glob("[0-9]*.json"), key=_by_attempt):
            if not _LIKE_A_RECORD.fullmatch(file.name):
                continue  # somebody else's
            trial = _read_record(file)
            if trial is not None:
                trials[trial.number] = trial
                continue
            set_aside(file)
            damaged.append(file.name)
        for name in damaged:
            self._drop_newer(name, trials)
        claims = self._newest_claims()
        return [_after(claims[number], trials[number]) for number in sorted(trials)], damaged

    def record(self, number: int) -> Trial | None:
        """One trial as `read` has it, or None where no record of it can be read; nothing is changed on disk."""
        trial = self._newest_record(number)
        return None if trial is None else _after(self._newest_claim(number), trial)

    def _newest_record(self, number: int) -> Trial | None:
        files = (self._record_file(number, attempt) for attempt in reversed(self._claims(number)))
        known = (_read_record(file) for file in files if file.is_file())
        return next((trial for trial in known if trial is not None), None)

    # --- checkpoints and weights --------------------------------------------------------------------------------

    def with_weights(self) -> list[int]:
        """Numbers of the trials whose best weights are on disk."""
        numbers = {int(file.name) for file in self.folder.glob("[0-9]*") if file.is_dir()}
        return sorted(number for number in numbers if self.load_result(number) is not None)

    def save_checkpoint(self, number: int, state: Mapping[str, Any], *, attempt: int = 1) -> None:
        """Keep what a trial needs to go on: tensors and plain types only.

        Raises:
            TrialReplaced: a newer attempt was claimed.
        """
        self._save(number, attempt, CHECKPOINT, dict(state))

    def load_checkpoint(self, number: int, unread: Callable[[Place], object] = lambda _: None) -> dict[str, Any] | None:
        """The last checkpoint of a trial, or None where there is none that can be read.

        Args:
            number: of the trial.
            unread: told each newer one that is there and cannot be read.

        Raises:
            ShortOfMemory: it does not fit into the memory that is free.
        """
        for file in self._files(number, CHECKPOINT):
            state = _load_to_go_on(file)
            if state is not None:
                return state
            unread(file)
        return None

    def name_of_checkpoint(self, number: int) -> Place:
        """Where that is; where the first attempt would keep it if there is none."""
        return next(self._files(number, CHECKPOINT), self._folder(number) / CHECKPOINT)

    def save_result(
        self,
        number: int,
        weights: Mapping[str, torch.Tensor],
        probabilities: NDArray[np.float32],
        *,
        attempt: int = 1,
        figures: tuple[float, float] | None = None,
    ) -> None:
        """Keep the best weights so far and the (N_val, C) validation probabilities they give: both or none.

        Args:
            number: of the trial.
            weights: state dict of the classifier.
            probabilities: (N_val, C).
            attempt: which writes them.
            figures: score and loss of these weights, as the record is going to have them; where they are given,
                the weights are only read together with such a record.

        Raises:
            TrialReplaced: a newer attempt was claimed.
        """
        own = {} if figures is None else dict(zip(_FIGURES, figures, strict=True))
        content = {"weights": dict(weights), "probabilities": torch.from_numpy(probabilities)}
        self._save(number, attempt, BEST, {**content, **own})
        self._save(number, attempt, PREDICTED, {"predicted": torch.from_numpy(probabilities.argmax(axis=1)), **own})

    def load_result(self, number: int) -> Result | None:
        """The best epoch of a trial as its record has it, or None where its weights were given up or cannot be read."""
        trial = self._newest_record(number)
        place = self._place_of_result(number, trial)
        content = _load(place / BEST) if place is not None else None
        return result_of(content) if content is not None and _is_told_of(content, trial) else None

    def load_predicted(self, number: int) -> NDArray[np.int64] | None:
        """(N_val) class that the best epoch of a trial gives each image, or None where that cannot be read."""
        trial = self._newest_record(number)
        place = self._place_of_result(number, trial)
        content = _load(place / PREDICTED) if place is not None else None
        if content is not None and _is_told_of(content, trial):
            predicted = predicted_of(content)
            if predicted is not None:
                return predicted
        result = self.load_result(number)  # a run of an earlier version, or one that was killed in between
        return None if result is None else result.probabilities.argmax(axis=1)

    def best(self, trials: Iterable[Trial]) -> tuple[Trial, Result] | None:
        """The best of `trials` whose weights can be read; a damaged file costs its trial, not the run."""
        scored = [trial for trial in trials if trial.score is not None]
        for trial in sorted(scored, key=lambda trial: (*trial.rank, -trial.number), reverse=True):
            result = self.load_result(trial.number)
            if result is not None:
                return trial, result
        return None

    # --- what probes say of training images ---------------------------------------------------------------------

    def save_retrained(self, state: Mapping[str, Any]) -> None:
        """Keep how far training the chosen recipe once more has come: tensors and plain types only."""
        save_tensors(self.folder / RETRAINED, dict(state))

    def load_retrained(self) -> dict[str, Any] | None:
        """What was kept of that, or None where there is nothing that can be read.

        Raises:
            ShortOfMemory: it does not fit into the memory that is free.
        """
        return _load_to_go_on(self.folder / RETRAINED)

    @property
    def name_of_retrained(self) -> Place:
        """Where that is."""
        return self.folder / RETRAINED

    def drop_retrained(self) -> None:
        """It is done, and needed no more."""
        (self.folder / RETRAINED).unlink(missing_ok=True)

    def keep_held_out(self, held_out: HeldOut, *, attempt: int = 1) -> None:
        """Keep what a probe says of training images, unless a better probe's is there, or it is too large.

        Raises:
            TrialReplaced: a newer attempt was claimed.
        """
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
        if not self.fenced:
            save_tensors(self.folder / HELD_OUT, content)
            return
        self._save(held_out.trial, attempt, HELD_OUT, content)
        self._drop_worse_held_out()

    def load_held_out(self) -> HeldOut | None:
        """What the best probe says of training images, or None where there is none that can be read."""
        known = [held_out for held_out in map(_load_held_out, self._held_out_files()) if held_out is not None]
        return max(known, key=_held_out_rank, default=None)

    # --- bounding the disk --------------------------------------------------------------------------------------

    def prune(self, trials: Sequence[Trial], keep: int = KEPT_BEST, *, also: Collection[int] = ()) -> None:
        """Bound the disk: weights of the best `keep` fine-tunes and of `also`, and checkpoints of those that may go on.

        Weights of all trials on frozen features stay: fine-tunes start with their heads. Of several attempts, what
        the newest has of its own stays.
        """
        fine_tunes = [trial for trial in trials if trial.recipe.kind == "finetune"]
        weights = {*kept_files(fine_tunes, keep).weights, *also}
        weights |= {trial.number for trial in trials if trial.recipe.kind != "finetune"}
        checkpoints = kept_files(trials).checkpoints
        present = files_below(self.folder)  # asked once: an object store takes its time for each question
        for trial in trials:
            self._keep_newest(trial.number, CHECKPOINT, 1 if trial.number in checkpoints else 0, present)
            self._keep_newest(trial.number, BEST, 1 if trial.number in weights else 0, present)

    def sweep(self) -> None:
        """Remove what killed processes left half written; to be called while no trial is in work."""
        if not isinstance(self.folder, Path):
            return  # objects are put whole
        for leftover in self.folder.rglob(f"*{UNFINISHED}"):
            # A run of somebody else's may name any folder of ours as the place of its trials.
            if _OWN_UNFINISHED.fullmatch(leftover.relative_to(self.folder).as_posix()):
                leftover.unlink(missing_ok=True)

    def discard(self, number: int) -> None:
        """Remove the files of a trial, but not its records."""
        remove_folder(self._folder(number))

    def _keep_newest(self, number: int, name: str, count: int, present: Collection[str]) -> None:
        own = [each for each in present if each.startswith(f"{number:06d}/") and each.endswith(f"/{name}")]
        for each in sorted(own, key=_attempt_of_file, reverse=True)[count:]:
            (self.folder / each).unlink(missing_ok=True)

    # --- places -------------------------------------------------------------------------------------------------

    def _record(self, number: int, attempt: int) -> Place:
        return self._record_file(number, self._own(number, attempt))

    def _record_file(self, number: int, attempt: int) -> Place:
        return self.folder / _record_name(number, attempt)

    def _folder(self, number: int, attempt: int = 1) -> Place:
        folder = self.folder / f"{number:06d}"
        return folder if attempt == 1 else folder / _attempt_name(attempt)

    def _own(self, number: int, attempt: int) -> int:
        """The attempt whose files this one writes: its own, or the newest there is where they are not kept apart."""
        return attempt if self.fenced else max(self._newest_claim(number), 1)

    def _claims(self, number: int) -> list[int]:
        """Attempts that were claimed, those with a damaged record too; ascending."""
        names = (_RECORD_NAME.fullmatch(file.name) for file in self.folder.glob(f"{number:06d}.*json*"))
        return sorted({int(name[2] or 1) for name in names if name is not None})

    def _newest_claims(self) -> dict[int, int]:
        """Number -> the newest attempt that was claimed, of all trials; the folder is listed once."""
        names = filter(None, (_RECORD_NAME.fullmatch(file.name) for file in self.folder.glob("[0-9]*.json*")))
        claims = sorted((int(name[1]), int(name[2] or 1)) for name in names)
        return dict(claims)  # of equal numbers, the last one stays

    def _newest_claim(self, number: int) -> int:
        return max(self._claims(number), default=0)

    def _require_newest(self, number: int, attempt: int) -> None:
        if self.fenced and self._newest_claim(number) > attempt:
            raise TrialReplaced

    def _files(self, number: int, name: str) -> Iterator[Place]:
        """The files of this name that the attempts of a trial have, newest attempt first."""
        places = (self._folder(number, attempt) / name for attempt in (*self._later_attempts(number), 1))
        return (file for file in places if file.is_file())

    def _later_attempts(self, number: int) -> list[int]:
        """Attempts after the first that wrote anything, newest first."""
        try:
            names = [each.name for each in self._folder(number).iterdir()]
        except OSError:  # no attempt wrote anything
            return []
        return sorted((int(name.removeprefix(_ATTEMPT)) for name in names if name.startswith(_ATTEMPT)), reverse=True)

    def _place_of_result(self, number: int, trial: Trial | None) -> Place | None:
        """The folder of the newest attempt whose result the record tells of; its weights may have been given up since.

        Those of an older attempt are not the weights that its newest record tells of.
        """
        places = (self._folder(number, attempt) for attempt in (*self._later_attempts(number), 1))
        return next((place for place in places if _holds_result(place, trial)), None)

    def _held_out_files(self) -> list[Place]:
        own = [file for name in (f"[0-9]*/{HELD_OUT}", f"[0-9]*/*/{HELD_OUT}") for file in self.folder.glob(name)]
        return [self.folder / HELD_OUT, *own]

    def _drop_worse_held_out(self) -> None:
        """All but the best, whichever of two probes that end at once comes first: each sees at least its own."""
        best = self.load_held_out()
        for file in self._held_out_files():
            held_out = _load_held_out(file)
            if best is not None and held_out is not None and _held_out_rank(held_out) < _held_out_rank(best):
                file.unlink(missing_ok=True)

    def _save(self, number: int, attempt: int, name: str, value: Mapping[str, Any]) -> None:
        self._require_newest(number, attempt)
        folder = self._folder(number, self._own(number, attempt))
        make_folder(folder)
        save_tensors(folder / name, value)

    def _drop_newer(self, record: str, trials: Mapping[int, Trial]) -> None:
        """Remove the files of a damaged record where an older one counts instead: it does not tell of their weights."""
        name = _RECORD_NAME.fullmatch(record)
        if name is None or name[2] is None:
            return
        number, attempt = int(name[1]), int(name[2])
        if number in trials and trials[number].attempt < attempt:
            remove_folder(self._folder(number, attempt))


def _record_name(number: int, attempt: int = 1) -> str:
    return f"{number:06d}.json" if attempt == 1 else f"{number:06d}.{_attempt_name(attempt)}.json"


def _attempt_name(attempt: int) -> str:
    return f"{_ATTEMPT}{attempt}"


def _after(newest: int, trial: Trial) -> Trial:
    """The trial of a record; where the record of a later attempt was damaged, as the attempt that comes after that."""
    return trial.replace(attempt=newest + 1) if newest > trial.attempt else trial


def _attempt_of_file(name: str) -> int:
    """The attempt that wrote a file, by its name below the folder of all trials."""
    attempt = name.split("/")[1]
    return int(attempt.removeprefix(_ATTEMPT)) if attempt.startswith(_ATTEMPT) else 1


def _by_attempt(file: Place) -> tuple[int, str]:
    """Records of older attempts first: a newer one replaces them."""
    name = _RECORD_NAME.fullmatch(file.name)
    return (int(name[2] or 1) if name is not None else 0, file.name)


def _checksum(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, allow_nan=False, ensure_ascii=True)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def _read_record(file: Place) -> Trial | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values.pop("checksum") != _checksum(values):
            return None
        trial = Trial.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    name = _RECORD_NAME.fullmatch(file.name)
    attempt = int(name[2] or 1) if name is not None else 0
    # A copy of another record is none of its own. Where attempts are not kept apart, later ones write over the first.
    own = file.name == _record_name(trial.number, attempt) and attempt <= trial.attempt
    return trial if own else None


def _load(file: Place) -> dict[str, Any] | None:
    try:
        return _load_to_go_on(file)
    except ShortOfMemory:
        return None


def _load_to_go_on(file: Place) -> dict[str, Any] | None:
    """As `_load`; but what memory is too short for is no reason to begin again."""
    if not file.exists():
        return None
    try:
        return load_tensors(file)
    except ShortOfMemory:
        raise
    except ModelFileError:
        return None  # the trial starts again, or another one is the best; `read` has named damaged records


def _holds_result(place: Place, trial: Trial | None) -> bool:
    """Whether an attempt saved a result, unless one can see that it is not what the record tells of."""
    file = next((place / name for name in (PREDICTED, BEST) if (place / name).is_file()), None)
    content = _load(file) if file is not None else None
    return file is not None and (content is None or _is_told_of(content, trial))


def _is_told_of(content: Mapping[str, Any], trial: Trial | None) -> bool:
    """Whether a result has the figures of the record; those of frozen features and of earlier versions note none."""
    figures = [content.get(name) for name in _FIGURES]
    if trial is None or all(figure is None for figure in figures):
        return True
    return all(isinstance(figure, float) for figure in figures) and figures == [trial.score, trial.loss]


def result_of(content: Mapping[str, Any]) -> Result | None:
    """The result that a file holds, None where it holds something else."""
    weights, probabilities = content.get("weights"), _array(content.get("probabilities"), 2, _REAL)
    if probabilities is None or not isinstance(weights, dict):
        return None
    named = all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in weights.items())
    return Result(weights, probabilities) if named else None


def _load_held_out(file: Place) -> HeldOut | None:
    content = _load(file)
    return held_out_of(content) if content is not None else None


def held_out_of(content: Mapping[str, Any]) -> HeldOut | None:
    """What a probe says of training images, as a file holds it, None where it holds something else."""
    trial, score = content.get("trial"), content.get("score")
    rows, probabilities = _array(content.get("rows"), 1, _WHOLE), _array(content.get("probabilities"), 2, _REAL)
    if not (isinstance(trial, int) and isinstance(score, float) and math.isfinite(score)):
        return None
    if rows is None or probabilities is None or len(rows) != len(probabilities):
        return None
    return HeldOut(trial, score, rows, probabilities)


def predicted_of(content: Mapping[str, Any]) -> NDArray[np.int64] | None:
    """The classes that a file holds, None where it holds something else."""
    return _array(content.get("predicted"), 1, _WHOLE)


def _array(value: object, dimensions: int, kinds: Collection[torch.dtype]) -> NDArray[Any] | None:
    """A tensor of a file as an array, or None where it is not what is written there."""
    if not isinstance(value, torch.Tensor) or value.dim() != dimensions or value.dtype not in kinds:
        return None
    return value.detach().numpy()


def _held_out_rank(held_out: HeldOut) -> tuple[float, int]:
    """Larger is better; of equals, that of the newer probe."""
    return (held_out.score, held_out.trial)
