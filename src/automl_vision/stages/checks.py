"""Stage `checks`: what may be wrong with the data, looked for in training and validation images alone.

Labels are checked with what the best linear probe said of images that it was not fitted to, which the search has at
hand anyway; shortcuts with small trees. Both come before the test set is opened, and nothing follows from them: they
are told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.preparation import Prepared
from automl_vision.data.store import SealedRowError
from automl_vision.errors import AutomlVisionError
from automl_vision.report.inspection_page import thumbnails
from automl_vision.report.label_errors import PICTURED, Checked, find_suspects, one_of_each_group, suspect_rows
from automl_vision.report.shortcuts import file_facts, find_shortcuts, pixel_facts
from automl_vision.stages.context import RunContext
from automl_vision.stages.reserve import CHECK_CPU_SECONDS, seconds_to_report

if TYPE_CHECKING:
    from automl_vision.search.trial import Trial
    from automl_vision.search.trial_files import HeldOut
    from automl_vision.stages.search import Searched

#: Images whose facts are looked at; more tell little more.
MOST_IMAGES = 2_000
_BATCH = 256


@dataclass(frozen=True)
class DataChecks:
    """What the report says of them, and the table of suspects.

    Attributes:
        labels: section `label_check` of the report.
        shortcuts: section `shortcuts` of the report.
        suspects: rows of label_suspects.csv; None where labels were not checked.
    """

    labels: dict[str, Any]
    shortcuts: dict[str, Any]
    suspects: list[dict[str, Any]] | None


def check_data(context: RunContext, prepared: Prepared, searched: Searched, passes: int = 1) -> DataChecks:
    """Both checks, as far as the time goes that the test and the report do not need.

    They can fail without the run: the model is worth more than what is said of its data.

    Args:
        context, prepared, searched: of the run.
        passes: of the model over each test image.
    """
    after = seconds_to_report(context, prepared, searched.search.trials, passes) - CHECK_CPU_SECONDS
    deadline = time.monotonic() + context.clock.remaining - after

    def late() -> bool:
        return context.stop.requested or time.monotonic() > deadline

    labels, suspects = _timed(context, "labels", lambda: _labels(context, prepared, searched, late))
    shortcuts, _ = _timed(context, "shortcuts", lambda: (_shortcuts(context, prepared, late), None))
    return DataChecks(labels, shortcuts, suspects)


def _timed(
    context: RunContext, what: str, check: Callable[[], tuple[dict[str, Any], Any]]
) -> tuple[dict[str, Any], Any]:
    started = time.monotonic()
    try:
        found, rest = check()
    except (SealedRowError, AutomlVisionError):
        raise
    except Exception as error:  # noqa: BLE001 - said in the log and in the report, and the model is not lost
        found, rest = _unmeasured(f"looking for it failed ({type(error).__name__}: {error})"), None
        context.note(f"The check of {what} failed: {type(error).__name__}: {error}", warning=True)
    return {**found, "seconds": time.monotonic() - started}, rest


def _unmeasured(reason: str) -> dict[str, Any]:
    return {"measured": False, "reason": reason}


def _over(context: RunContext) -> str:
    return "the run was stopped early" if context.stop.requested else "its time was over before it began"


# --- labels ---------------------------------------------------------------------------------------------------------


def _labels(
    context: RunContext, prepared: Prepared, searched: Searched, late: Callable[[], bool]
) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    if late():
        return _unmeasured(_over(context)), None
    held_out = searched.runner.files.load_held_out()
    probe = _probe_of(held_out, searched)
    result = searched.runner.files.load_result(probe.number) if probe is not None else None
    if held_out is None or probe is None or result is None:
        return _unmeasured("no linear probe was completed, or there are too many classes to keep what it said"), None
    val = prepared.split.rows("val")
    rows = np.concatenate([held_out.rows, val])
    checked = _checked(prepared, rows, np.concatenate([held_out.probabilities, result.probabilities]))
    found = find_suspects(checked.labels, checked.probabilities)
    suspects = suspect_rows(checked, found)
    shown = one_of_each_group(suspects)[:PICTURED]
    train = len(prepared.split.rows("train"))
    section = {
        "measured": True,
        "recipe": f"linear probe on frozen {probe.recipe.backbone}, {probe.recipe.resolution} px, "
        f"{probe.notes.get('folds')} folds of whole groups",
        "images": {"train": len(held_out.rows), "val": len(val)},
        "left_out": train - len(held_out.rows),
        "suspects": len(found),
        "groups": len(np.unique(checked.groups[found.rows])),
        "listed": len(suspects),
        "gallery": _with_pictures(searched.runner.runtime.threads, prepared, rows, shown, late),
    }
    return section, suspects


def _checked(prepared: Prepared, rows: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Checked:
    lineage, names = prepared.audit.lineage, prepared.split.name
    return Checked(
        paths=[prepared.manifest.paths[row] for row in rows],
        sets=[str(names[row]) for row in rows],
        roles=[str(lineage.role[row]) for row in rows],
        labels=prepared.labels(rows),
        groups=prepared.groups(rows),
        probabilities=probabilities.astype(np.float64),
        class_names=prepared.manifest.class_names,
    )


def _probe_of(held_out: HeldOut | None, searched: Searched) -> Trial | None:
    """The probe that said it; None where its record was lost, and its number may be that of another trial."""
    for trial in searched.search.trials:
        if held_out and trial.number == held_out.trial and trial.score == held_out.score:
            return trial if trial.recipe.kind == "probe" else None
    return None


def _with_pictures(
    threads: int,
    prepared: Prepared,
    rows: NDArray[np.int64],
    shown: list[dict[str, Any]],
    late: Callable[[], bool],
) -> list[dict[str, Any]]:
    """The suspects of the gallery, with their thumbnails where there is time to make them."""
    asked = [] if late() else [int(rows[each["row"]]) for each in shown]
    pictures = thumbnails(prepared, asked, threads)
    made = {row: {"picture": each.uri, "tiny": each.tiny} for row, each in pictures.items()}
    nothing = {"picture": None, "tiny": False}
    told = [{key: value for key, value in each.items() if key != "row"} for each in shown]
    return [{**said, **made.get(int(rows[each["row"]]), nothing)} for said, each in zip(told, shown, strict=True)]


# --- shortcuts ------------------------------------------------------------------------------------------------------


def _shortcuts(context: RunContext, prepared: Prepared, late: Callable[[], bool]) -> dict[str, Any]:
    if late():
        return _unmeasured(_over(context))
    seed = context.settings.machine.seed
    rows = _looked_at(prepared, seed)
    facts = file_facts(prepared.facts.table.iloc[rows])
    seen = _pixel_facts(prepared, rows, late)
    if seen is not None:
        facts = pd.concat([facts, seen], axis=1)
    names = prepared.manifest.class_names
    return find_shortcuts(facts, prepared.labels(rows), np.arange(len(rows)), names, seed, late)


def _looked_at(prepared: Prepared, seed: int) -> NDArray[np.int64]:
    """One image of each group in training and validation, an original where it has one; at most `MOST_IMAGES`."""
    rows = np.concatenate([prepared.split.rows("train"), prepared.split.rows("val")])
    copies_last = rows[np.argsort(prepared.audit.lineage.role[rows] == "copy", kind="stable")]
    _, first = np.unique(prepared.groups(copies_last), return_index=True)
    chosen = np.random.default_rng(seed).permutation(copies_last[first])[:MOST_IMAGES]
    return np.sort(chosen)


def _pixel_facts(prepared: Prepared, rows: NDArray[np.int64], late: Callable[[], bool]) -> pd.DataFrame | None:
    """None where the time was over before all were seen."""
    size, parts = prepared.store.sizes[0], []
    for start in range(0, len(rows), _BATCH):
        if late():
            return None
        batch = prepared.store.fetch(rows[start : start + _BATCH], size)
        parts.append(pixel_facts(batch.permute(0, 2, 3, 1).numpy()))
    return pd.concat(parts, ignore_index=True)
