"""`inspect.html`: what must be known before training, as one file with small pictures that opens offline."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from automl_vision.config import DataSettings
from automl_vision.data.audit import TINY
from automl_vision.data.decode import open_rgb
from automl_vision.data.files import Place
from automl_vision.data.preparation import Prepared
from automl_vision.data.preprocess import TINY_SIDE, thumbnail
from automl_vision.data.survey import in_order
from automl_vision.errors import IMAGE_FAULTS, ImageReadError
from automl_vision.report.evidence import Pictures, gather_pictures
from automl_vision.report.findings import Folded, fold
from automl_vision.report.html import capped, environment
from automl_vision.report.inspection import TOLD, class_bars, class_rows, judge, quarantined, sizes
from automl_vision.visible import visible

#: Longer side of a thumbnail in pixels.
THUMBNAIL = 160

#: What a page calls the roles.
ROLES = {"original": "original", "copy": "copy", "unsure": "unsure"}


@dataclass(frozen=True)
class Thumbnail:
    """A picture of the page.

    Attributes:
        uri: `data:` URI.
        tiny: whether the image is so small that it is shown pixel by pixel.
    """

    uri: str
    tiny: bool


def render_inspection(
    prepared: Prepared,
    settings: DataSettings,
    *,
    name: str,
    created: str,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """The page.

    Args:
        prepared: what `pipeline.inspect` returned.
        settings: what was looked at.
        name: title of the page.
        created: when, for people.
        threads: that decode thumbnails.
        progress: called with (thumbnails made, thumbnails in all).
    """
    pictured = gather_pictures(prepared)
    rows = class_rows(prepared)
    return (
        environment()
        .get_template("inspection.html")
        .render(
            name=visible(name),
            created=created,
            verdict=judge(prepared, settings),
            total=_totals(prepared),
            contents=_contents(prepared, pictured),
            classes=capped(rows[:-1], "classes"),
            all_classes=rows[-1],
            pictured=pictured,
            pictures=thumbnails(prepared, pictured.rows(), threads, progress),
            roles=ROLES,
            compared=prepared.facts.compared is not None,
            brought=prepared.manifest.split is not None,
            quarantine=capped(quarantined(prepared), "quarantine"),
            balance=capped(class_bars(prepared), "bars"),
            tiny_limit=TINY,
            sizes=sizes(prepared),
            findings=capped(_findings(prepared), "findings"),
        )
    )


def thumbnails(
    prepared: Prepared, rows: list[int], threads: int, progress: Callable[[int, int], None] | None = None
) -> Mapping[int, Thumbnail]:
    """Row -> its thumbnail; a file that went away since it was decoded has none."""
    files = [prepared.manifest.file(row) for row in rows]
    made: dict[int, Thumbnail] = {}
    for done, (row, each) in enumerate(zip(rows, in_order(_thumbnail, files, threads), strict=True), start=1):
        if each is not None:
            made[row] = each
        if progress:
            progress(done, len(rows))
    return made


def _thumbnail(file: Place) -> Thumbnail | None:
    try:
        image = open_rgb(file, THUMBNAIL)
    except ImageReadError:
        return None  # the page says that there is no picture
    media, data = thumbnail(image.pixels, THUMBNAIL)
    uri = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
    return Thumbnail(uri, max(image.width, image.height) <= TINY_SIDE)


def _findings(prepared: Prepared) -> list[Folded]:
    """What no other section of the page says."""
    return [line for line in fold(prepared) if line.kind not in TOLD and line.kind not in IMAGE_FAULTS]


def _totals(prepared: Prepared) -> dict[str, int]:
    groups = np.unique(prepared.audit.lineage.group[prepared.facts.usable])
    sets = {name: int((prepared.split.name == name).sum()) for name in ("test", "aside", "quarantine")}
    return {"images": len(prepared.manifest), "groups": len(groups), **sets}


def _contents(prepared: Prepared, pictured: Pictures) -> list[tuple[str, str, Any]]:
    """(anchor, title, how many) of the sections."""
    return [
        ("split", "Planned sets", None),
        ("groups", "Groups", pictured.strips.total),
        ("unsure", "Perhaps the same", pictured.unsure.total),
        ("leaks", "Leaks", pictured.leaks.total),
        ("conflicts", "Two labels", pictured.conflicts.total),
        ("quarantine", "Unreadable", int((~prepared.facts.usable).sum())),
        ("balance", "Balance", None),
        ("sizes", "Sizes and formats", None),
    ]
