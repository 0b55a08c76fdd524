"""The page of an evaluation on another set: its figures, how far each class falls, and what the model knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl_vision.report.html import capped, environment
from automl_vision.report.shift import drop_sentences
from automl_vision.visible import visible


def render_evaluation(said: Mapping[str, Any], *, name: str, model: str, created: str) -> str:
    """The page.

    Args:
        said: what `automl-vision evaluate --json` prints, of at least one image that counts.
        name: of the set; model: path of the model file; created: when.
    """
    jinja = environment()
    jinja.filters |= {"visible": visible}
    drops = {row["class"]: row for row in said["drop"].get("classes", [])}
    rows = [{**row, "drop": drops.get(row["class"])} for row in said["per_class"] if row["support"]]
    rows.sort(key=lambda row: (-row["drop"]["value"] if row["drop"] else 0.0, row["recall"]["value"]))
    return jinja.get_template("evaluation.html").render(
        said=said,
        name=name,
        model=model,
        created=created,
        sentences=[*drop_sentences(said["drop"], said["missing_classes"]), *_known(said["known"])],
        rows=capped(rows, "classes"),
        has_drop=bool(drops),
        confused=capped(said["confused"], "confused"),
        failed=capped(said["failed"], "quarantine"),
    )


def _known(known: Mapping[str, Any]) -> list[str]:
    if not known["checked"]:
        return [f"Whether the model knows these images cannot be checked: {known['reason']}."]
    seen, tested = (sum(known[name].values()) for name in ("seen", "test"))
    sentences = [
        f"{seen:,} images were in training or validation, by equal pixels or by what they show; "
        f"{known['excluded']:,} images do not count for it. {known['too_plain']:,} are too plain to be recognised "
        "unless they are equal."
    ]
    if tested:
        sentences.append(
            f"{tested:,} are the model's own test images, or copies of them: this was look {known['look']['number']} "
            "at the test set."
        )
    return sentences
