"""The model card of a trial that was exported: a figure on validation, and no other."""

from __future__ import annotations

from collections.abc import Sequence

from automl_vision.bundle import Bundle
from automl_vision.metrics import METRICS
from automl_vision.report.model_card import CLASSES, plain

#: What every such card says first.
UNTESTED = (
    "**This model has not been tested.** The test set of its run was opened for the shipped model alone. The figure "
    "below is on validation, which trials were compared with: the best of several looks better there than it is."
)


def untested_card(bundle: Bundle, file: str, use: Sequence[str] | None = None) -> str:
    """Markdown.

    Args:
        bundle: the model; its provenance may be of unknown origin, and what is missing there is left out.
        file: name of the model file.
        use: lines on how to use it; those of a model file by default.
    """
    names = ", ".join(plain(name) for name in bundle.class_names[:CLASSES])
    more = f" and {len(bundle.class_names) - CLASSES} more" if len(bundle.class_names) > CLASSES else ""
    lines = [
        f"# Trial {plain(str(bundle.provenance.get('trial', '?')))} of {plain(str(bundle.provenance.get('run', '?')))}",
        "",
        f"An image classifier of {len(bundle.class_names)} classes: a trial of a search by automl-vision.",
        "",
        UNTESTED,
        "",
        "## Model",
        "",
        f"- backbone: {plain(bundle.backbone)}",
        f"- input: {bundle.preprocessing.size} px",
        f"- classes: {names}{more}",
        f"- probabilities are calibrated on validation (temperature {bundle.temperature:.3f})",
        "",
        "## Figure on validation",
        "",
        _figure(bundle),
        "",
        "## Test it",
        "",
        "On labelled images that had no part in the run, before its answers are relied on.",
        *([] if use else ["", "```", f"automl-vision evaluate {file} --data OTHER", "```"]),
        "",
        "## Use",
        "",
        *(use or ("```", f"automl-vision predict {file} IMAGE", "```")),
        "",
    ]
    return "\n".join(lines)


def _figure(bundle: Bundle) -> str:
    about = bundle.provenance
    objective, score, images = (about.get(name) for name in ("objective", "validation_score", "validation_images"))
    known = isinstance(objective, str) and objective in METRICS and isinstance(score, float) and isinstance(images, int)
    if not known:
        return "It is not known."
    words = METRICS[str(objective)].words
    return f"{words[0].upper()}{words[1:]} {score:.3f} on {images:,} images."
