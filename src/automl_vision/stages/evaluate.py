"""Measuring a finished model on another labelled set, apart from the images that it was made with."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from automl_vision.config import Settings
from automl_vision.data.fingerprint import Fingerprint, How, Mark, look_alike
from automl_vision.data.lineage.groups import connected, declared_groups
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import read_manifest
from automl_vision.errors import AutomlVisionError, DataError, RunError
from automl_vision.events import Note, Progress, StageStarted, Tell, silent
from automl_vision.predictor import Model, Prediction, load
from automl_vision.report.belonging import run_is_of
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import metrics_section, test_section
from automl_vision.report.shift import drop_section, own_figures
from automl_vision.run_dir import REPORT_JSON, RunDir, read_report
from automl_vision.stages.rendering import render_run, write_rendered

#: Figures that are given for all images and for the new ones.
COMPARED_FIGURES = ("n", "accuracy", "macro_f1")


@dataclass(frozen=True)
class Evaluation:
    """What a model says of another set.

    Attributes:
        figures: as under `test` in report.json, of the images that count; None where there are none.
        known: what of the set the model knows, plain types: `checked`, and if so counts of `seen` (trained on, chosen
            with, or a copy of such) and of its own `test` images ({"exactly", "nearly"}), `too_plain`, `excluded`,
            the `images` ({path, set, how}), figures of `all` images and of the `new` ones, and `look`: which look at
            the test set this was, None where it was none.
        predictions: of all readable images, known ones included.
        failed: (path, reason) of each image that could not be read.
        drop: against the model's own test set, as `report.shift.drop_section` says it.
        missing: classes of the model that the set has no images of.
    """

    figures: dict[str, Any] | None
    known: dict[str, Any]
    predictions: Predictions
    failed: tuple[tuple[str, str], ...]
    drop: dict[str, Any]
    missing: tuple[str, ...]

    @property
    def seen(self) -> int:
        """Images that the model was trained on or chosen with."""
        return sum(self.known["seen"].values()) if self.known["checked"] else 0


def evaluate(
    model: Path, data: Path, settings: Settings, *, include_seen: bool = False, tell: Tell = silent
) -> Evaluation:
    """Measure a model on another labelled set.

    Args:
        model: the model file.
        data: folder or table of labelled images; its classes must be among those of the model.
        settings: how the data are read, and where it runs.
        include_seen: count images that the model was trained on or chosen with as well.
        tell: listener for events.

    Raises:
        DataError: the set has classes that the model does not know, or no readable image.
    """
    tell(StageStarted("read"))
    manifest = read_manifest(data, settings, lambda text: tell(Note(text)))
    loaded = load(model, device=settings.machine.device)
    labels = _labels_of_model(manifest.class_names, loaded.class_names)
    fingerprint = loaded.bundle.fingerprint
    if fingerprint is None and manifest.fingerprint == loaded.bundle.provenance.get("data_fingerprint"):
        tell(Note("This is the set that the model was made from: it knows most of these images.", "warning"))
    tell(StageStarted("test", f"{len(manifest):,} images"))
    said = _predicted(loaded, manifest, tell)
    rows = np.array([row for row, each in enumerate(said) if each.probabilities is not None], dtype=np.int64)
    if not len(rows):
        raise DataError("none of the images can be read", value=str(data), fix="look at the reasons with inspect")
    predictions = Predictions(
        paths=tuple(manifest.paths[row] for row in rows),
        labels=labels[manifest.labels[rows]],
        groups=_groups(manifest, settings, said)[rows],
        probabilities=np.stack([_probabilities(said[row]) for row in rows]),
        class_names=loaded.class_names,
    )
    failed = tuple((manifest.paths[row], each.error) for row, each in enumerate(said) if each.probabilities is None)
    own = own_figures(loaded.bundle.provenance, _report_beside(model))
    missing = tuple(each for place, each in enumerate(loaded.class_names) if place not in set(labels.tolist()))
    if fingerprint is None:
        known = {"checked": False, "reason": "the model file has no fingerprint of the images it was made with"}
        section = test_section(predictions, settings.machine.seed)
        return Evaluation(section, known, predictions, failed, drop_section(own, section), missing)
    marks = [mark for row in rows if (mark := said[row].mark) is not None]
    where = _where(fingerprint, marks)
    look = _look(model, loaded, sum(name == "test" for name, _ in where), tell)
    known = _known(predictions, where, marks, settings.machine.seed) | {"look": look}
    counted = predictions if include_seen else _of(predictions, _new(where))
    known["excluded"] = len(predictions) - len(counted)
    figures = test_section(counted, settings.machine.seed) if len(counted) else None
    known_count = len(predictions) - int(_new(where).sum()) if include_seen else 0
    why_not = f"{known_count:,} images that the model was made with count here" if known_count else ""
    return Evaluation(figures, known, predictions, failed, drop_section(own, figures, why_not), missing)


def _report_beside(model: Path) -> dict[str, Any] | None:
    """report.json of the run that the model lies in; one that is damaged counts as none."""
    try:
        return read_report(model.resolve().parent)
    except RunError:
        return None


def _predicted(model: Model, manifest: Manifest, tell: Tell) -> list[Prediction]:
    said: dict[int, Prediction] = {}
    order = manifest.reading_order.tolist()
    for row, each in zip(order, model.stream(map(manifest.file, order), marked=True), strict=True):
        said[row] = each
        tell(Progress(len(said), len(manifest)))
    return [said[row] for row in range(len(manifest))]


def _groups(manifest: Manifest, settings: Settings, said: Sequence[Prediction]) -> NDArray[np.int64]:
    """(N) what counts as one piece of evidence: declared groups, equal pixels, and what is recognised as the same."""
    declared = declared_groups(manifest, settings.data)
    links = [Link(int(first), row, "group", "declared") for row, first in enumerate(declared) if first != row]
    first_of: dict[int, int] = {}
    for row, each in enumerate(said):
        if each.mark is not None and (first := first_of.setdefault(each.mark.digest, row)) != row:
            links.append(Link(first, row, "digest", "same pixels"))
    alike = look_alike([each.mark for each in said])
    return connected(len(manifest), [*links, *(Link(*pair, "hash", "same picture") for pair in alike)])


def _probabilities(prediction: Prediction) -> NDArray[np.float64]:
    assert prediction.probabilities is not None  # noqa: S101 - rows without are left out
    return prediction.probabilities


def _labels_of_model(names: tuple[str, ...], known: tuple[str, ...]) -> NDArray[np.int64]:
    """(C of the set) the model's number of each class; equal letters in another Unicode form are the same name."""
    number = {normalize("NFC", name): place for place, name in enumerate(known)} | {
        name: place for place, name in enumerate(known)
    }
    found = [number.get(name, number.get(normalize("NFC", name), -1)) for name in names]
    unknown = [name for name, place in zip(names, found, strict=True) if place < 0]
    if unknown:
        raise DataError(
            f"the set has {len(unknown)} of {len(names)} classes that the model does not know",
            value=", ".join(f"{name}{_nearest(name, known)}" for name in unknown[:10]) + ", ..." * (len(unknown) > 10),
            fix="rename or merge them with --label-map FILE (lines THEIRS,OURS), or leave them out; the model knows "
            + ", ".join(known[:20])
            + f" and {len(known) - 20} more" * (len(known) > 20),
        )
    return np.array(found, dtype=np.int64)


def _nearest(name: str, known: tuple[str, ...]) -> str:
    folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1)
    return f" (did you mean {folded[near[0]]}?)" if near else ""


# --- what the model knows -------------------------------------------------------------------------------------------

#: Which set an image is of, and how it is known; ("", "") for a new one.
Place = tuple[str, How]


def _where(fingerprint: Fingerprint, marks: Sequence[Mark]) -> list[Place]:
    """Equal pixels say more than likeness, and of two that are alike, training says more than testing."""
    seen, test = fingerprint.seen.recognise(marks), fingerprint.test.recognise(marks)
    return [_place(*both) for both in zip(seen, test, strict=True)]


def _place(seen: How, test: How) -> Place:
    ranked: tuple[Place, ...] = (("seen", seen), ("test", test))
    return next((each for how in ("exactly", "nearly") for each in ranked if each[1] == how), ("", ""))


def _new(where: Sequence[Place]) -> NDArray[np.bool_]:
    """(n) True where the model was neither trained nor chosen with the image."""
    return np.array([name != "seen" for name, _ in where], dtype=np.bool_)


def _known(predictions: Predictions, where: Sequence[Place], marks: Sequence[Mark], seed: int) -> dict[str, Any]:
    counts = Counter(where)
    return {
        "checked": True,
        **{name: {how: counts[name, how] for how in ("exactly", "nearly")} for name in ("seen", "test")},
        "too_plain": sum(mark.hash is None for mark in marks),
        "all": _figures(predictions, seed),
        "new": _figures(_of(predictions, _new(where)), seed),
        "images": [
            {"path": path, "set": name, "how": how}
            for path, (name, how) in zip(predictions.paths, where, strict=True)
            if name
        ],
    }


def _figures(predictions: Predictions, seed: int) -> dict[str, Any] | None:
    if not len(predictions):
        return None
    section = metrics_section(predictions, seed)
    return {name: section[name] for name in COMPARED_FIGURES}


def _of(predictions: Predictions, kept: NDArray[np.bool_]) -> Predictions:
    rows = np.flatnonzero(kept)
    return Predictions(
        paths=tuple(predictions.paths[row] for row in rows),
        labels=predictions.labels[rows],
        groups=predictions.groups[rows],
        probabilities=predictions.probabilities[rows],
        class_names=predictions.class_names,
    )


# --- the ledger -----------------------------------------------------------------------------------------------------


def _look(model: Path, loaded: Model, images: int, tell: Tell) -> dict[str, Any] | None:
    """Which look at the model's own test images this is, written to the ledger of its run; None where it is none.

    {`number`, `images`, `unwritten`: why it is not in the ledger, empty where it is}
    """
    if not images:
        return None
    told = loaded.bundle.provenance.get("looks")
    before = told if isinstance(told, list) else []
    try:
        ledger = _ledger_with_look(model.resolve(), before, loaded.bundle.provenance, images, tell)
    except (AutomlVisionError, OSError) as error:  # the look was taken all the same, and the user is told
        return {"number": len(before) + 1, "images": images, "unwritten": str(error).split("\n", 1)[0]}
    return {"number": len(ledger), "images": images, "unwritten": ""}


def _ledger_with_look(
    model: Path, before: list[Any], provenance: Mapping[str, Any], images: int, tell: Tell
) -> list[dict[str, Any]]:
    run = RunDir.open(model.parent)
    try:
        if not run_is_of(run.about, _report_beside(model), provenance) or run.looks[: len(before)] != before:
            raise RunError("the model is of another run", value=str(model), fix="leave it in the folder of its run")
        ledger = run.record_look("evaluate, with images of the test set", images)
        _tell_in_pages(run.path, tell)
        return ledger
    finally:
        run.close()


def _tell_in_pages(run: Path, tell: Tell) -> None:
    """Have the report and the model card of the run say how often the set was opened, where there are any."""
    if not (run / REPORT_JSON).exists():
        return
    try:
        write_rendered(run, render_run(run))
    except (AutomlVisionError, OSError) as error:  # the ledger has the look, which is what counts
        reason = str(error).split("\n", 1)[0]
        tell(Note(f"The pages of the run do not tell of this look yet: {reason}. See automl-vision report.", "warning"))
