"""What networks see of an image that is not square, and why, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl_vision.data.preprocess import MIDDLE, SQUASH
from automl_vision.metrics import METRICS
from automl_vision.report.warnings import percent, points

Record = Mapping[str, Any]

_SEEN = {
    SQUASH: "Networks see the whole of each image, squashed to a square",
    MIDDLE: "Networks see the largest square in the middle of each image",
}


def resize_sentence(record: Record | None) -> str:
    """What `resize` of run.json says, for people; empty where nothing was settled, or nearly all images are square.

    Args:
        record: `chosen`, `reason`, and where both ways were tried `compared`.
    """
    if not record or not record["chosen"] or record.get("square"):
        return ""
    seen, found = _SEEN[record["chosen"]], record.get("compared")
    return f"{seen}: {_compared(found) if found else ''}{record['reason']}."


def _compared(found: Record) -> str:
    words, error = METRICS[found["objective"]].words, found["standard_error"]
    sure = "" if error is None else f", standard error {points(error)}"
    return (
        f"on {found['val']:,} validation images, the {words} of a linear probe (frozen {found['backbone']}, "
        f"{found['resolution']} px, {found['train']:,} training images) is {percent(found[MIDDLE])} with the middle "
        f"and {percent(found[SQUASH])} with the whole, a difference of {points(found['gain'])} points{sure}; "
    )
