"""The front matter of a model card: what a hub reads of it, in YAML.

Figures are in `model-index`, as https://huggingface.co/docs/hub/model-cards describes it: only those of the test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from automl_vision.data.hub_name import is_hub_name, parse_hub_name

_TASK = {"type": "image-classification", "name": "Image Classification"}
#: Figure of the test set -> its type and name on a hub.
_FIGURES = {
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("f1", "macro F1"),
}
#: Readers of a hub know a folder of class folders by this name.
_LOCAL = "imagefolder"


def card_front(library: str, tags: Sequence[str] = (), report: Mapping[str, Any] | None = None) -> str:
    """The front matter, its fences included; a card is this and Markdown after it.

    Args:
        library: what loads the model.
        tags: beside those of every model.
        report: content of report.json, where the card is of the very model that was tested; None states no figure.
    """
    front: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": _TASK["type"],
        "tags": [_TASK["type"], *tags, "automl-vision"],
    }
    if report is not None:
        front["model-index"] = [{"name": report["name"], "results": [_results(report)]}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n"


def _results(report: Mapping[str, Any]) -> dict[str, Any]:
    test = report["test"]
    figures = [(*_FIGURES[key], test[key]) for key in _FIGURES if test[key]["value"] is not None]
    return {
        "task": _TASK,
        "dataset": {**_data_set(report["data"]["source"]), "split": "test"},
        "metrics": [
            {"type": kind, "value": round(float(figure["value"]), 6), "name": f"{name}{_interval(figure)}"}
            for kind, name, figure in figures
        ],
    }


def _data_set(source: str) -> dict[str, str]:
    """Its name, and no path: where it lies on somebody's disk is nobody's business."""
    if is_hub_name(Path(source)):
        known = parse_hub_name(Path(source))
        if not Path(known.name).is_absolute():
            return {"name": known.name, "type": known.name}
        source = known.name
    return {"name": Path(source).name or "images", "type": _LOCAL}


def _interval(figure: Mapping[str, float | None]) -> str:
    low, high = figure["low"], figure["high"]
    return "" if low is None or high is None else f", 95 % interval {low:.3f} to {high:.3f}"
