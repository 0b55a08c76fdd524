"""Parallel coordinates of the fine-tunes: one line per trial through its settings to its score.

Inselberg, "The plane with parallel coordinates", The Visual Computer 1985. Drawn as SVG by hand: lines carry a title,
so that a pointer tells which trial it is on, and colours come from the style sheet of the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from automl_vision.report.plots import plain

Report = Mapping[str, Any]
Row = Mapping[str, Any]

#: Trials that are drawn at most, the best ones, and axes at most besides the score.
LINES, AXES = 150, 8
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 300, 50, 60, 34, 30
#: Values of a setting above which its axis is one of numbers, where they are numbers.
_FEW = 6

#: What an axis shows: title -> value of a row of the table of trials. The order is that of the axes.
_SETTINGS = (
    "backbone",
    "resolution",
    "epochs",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "layer_decay",
    "batch_size",
    "augment",
    "strength",
    "label_smoothing",
    "drop_path",
    "mix",
    "freeze_stages",
)
_LOGARITHMIC = {"learning_rate", "weight_decay", "batch_size"}


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: the setting.
        places: (n) height of each trial, 0 at the bottom to 1; None where it has no value.
        ticks: (height, text).
    """

    title: str
    places: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]


def parallel_coordinates(report: Report) -> Markup:
    """The drawing; empty where fewer than two fine-tunes have a score, or nothing differs between them."""
    rows = [row for row in report["trials"]["table"] if row.get("kind") == "finetune" and row.get("score") is not None]
    rows = sorted(rows, key=lambda row: -row["score"])[:LINES]
    settings = [axis for axis in (_axis(name, rows) for name in _SETTINGS) if axis is not None][:AXES]
    if len(rows) < 2 or not settings:
        return Markup("")
    axes = [*settings, _numbers("score", [row["score"] for row in rows], logarithmic=False, form=_percent)]
    step = (WIDTH - LEFT - RIGHT) / (len(axes) - 1)
    xs = [LEFT + step * k for k in range(len(axes))]
    lines = [_line(row, [axis.places[n] for axis in axes], xs, n, len(rows)) for n, row in enumerate(rows)]
    drawn = Markup("").join([*reversed(lines), *map(_drawn_axis, axes, xs)])  # the best trial lies on top
    title = "Settings and score of the fine-tunes"
    start = Markup('<svg class="parallel" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    return start + drawn + Markup("</svg>")


def _value(row: Row, name: str) -> Any:
    return row[name] if row.get(name) is not None else row.get("hyperparameters", {}).get(name)


def _axis(name: str, rows: Sequence[Row]) -> Axis | None:
    """None where the setting is the same in all trials."""
    values = [_value(row, name) for row in rows]
    known = {str(value) for value in values if value is not None}
    if len(known) < 2:
        return None
    title = name.replace("_", " ")
    if all(value is None or _is_number(value) for value in values) and len(known) > _FEW:
        return _numbers(title, values, logarithmic=name in _LOGARITHMIC, form=_short)
    return _options(title, values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(title: str, values: Sequence[Any], *, logarithmic: bool, form: Callable[[float], str]) -> Axis:
    known = [float(value) for value in values if value is not None]
    logarithmic = logarithmic and min(known) > 0
    scale: Callable[[float], float] = math.log if logarithmic else float
    low, high = scale(min(known)), scale(max(known))
    reach = (high - low) or 1.0
    places = tuple(None if value is None else (scale(value) - low) / reach for value in values)
    return Axis(title, places, ((0.0, form(min(known))), (1.0, form(max(known)))))


def _options(title: str, values: Sequence[Any]) -> Axis:
    known = {str(value): value for value in values if value is not None}
    names = sorted(
        known, key=lambda name: (not _is_number(known[name]), known[name] if _is_number(known[name]) else 0, name)
    )
    height = {name: k / max(len(names) - 1, 1) for k, name in enumerate(names)}
    places = tuple(None if value is None else height[str(value)] for value in values)
    step = -(-len(names) // 12)
    return Axis(title, places, tuple((height[name], plain(name, 16)) for name in names[::step]))


def _line(row: Row, places: Sequence[float | None], xs: Sequence[float], rank: int, count: int) -> Markup:
    points = " ".join(f"{x:.1f},{_y(place):.1f}" for x, place in zip(xs, places, strict=True) if place is not None)
    kind = "best" if rank == 0 else "good" if rank < max(1, count // 5) else "other"
    title = f"trial {row.get('number')}: {_percent(row['score'])}"
    return Markup('<polyline class="{}" points="{}"><title>{}</title></polyline>').format(kind, points, title)


def _drawn_axis(axis: Axis, x: float) -> Markup:
    rail = Markup('<line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(x, TOP, HEIGHT - BOTTOM)
    title = Markup('<text class="title" x="{:.1f}" y="14">{}</text>').format(x, plain(axis.title, 18))
    ticks = (Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(x + 4, _y(at) + 3, text) for at, text in axis.ticks)
    return rail + title + Markup("").join(ticks)


def _y(place: float) -> float:
    return TOP + (1 - place) * (HEIGHT - TOP - BOTTOM)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _short(value: float) -> str:
    return f"{value:.3g}"
