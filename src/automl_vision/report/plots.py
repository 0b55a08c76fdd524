"""Pictures of a report, each a function of the report alone.

Drawn on `Figure` objects, without pyplot and its global state. They come as SVG whose ink is
`currentColor`, so that one drawing is right on a light page, a dark one and on paper; a large one comes as
a PNG on white. Class names are literal text: nothing in them is mathematics.
"""

from __future__ import annotations

import base64
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Report = Mapping[str, Any]

#: An SVG above this is sent as a PNG instead.
LARGEST_SVG = 300_000

#: Classes whose cells carry their count, classes that all get a tick label, and classes drawn at all.
_COUNTED, _LABELLED, _DRAWN = 20, 40, 400
#: Classes whose cells carry their share of the true class too.
_SHARED = 12

#: Trials whose curves are drawn: the best ones.
_CURVES = 12

#: Fine-tunes below which dots by setting say nothing.
_FEWEST_DOTS = 4
#: Settings whose values are drawn against the score: scale of the axis, and the optimizers that have it.
_PANELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "learning_rate": ("log", ("adamw", "sgd")),
    "weight_decay": ("log", ("adamw", "sgd")),
    "momentum": ("linear", ("sgd",)),
    "label_smoothing": ("linear", ("adamw", "sgd")),
}

# Stand-ins that become style-sheet colours in the SVG. The page defines them for light, dark and paper.
_INK, _FAINT = "#010203", "#010204"
_ON_PAGE = {_INK: "currentColor", _FAINT: "var(--faint, #8a8f98)"}
_ACCENT, _SECOND, _THIRD = "#2f6fb5", "#c2603a", "#6b8e4e"
_OPTIONS = (_FAINT, _ACCENT, _SECOND, _THIRD)
_COLOURS = {"adamw": _ACCENT, "sgd": _SECOND}

_STYLE: Any = {
    "text.parse_math": False,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "automl-vision",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@dataclass(frozen=True)
class Plot:
    """One picture.

    Attributes:
        title: caption.
        draw: report -> Figure, or None where the report has nothing to draw.
    """

    title: str
    draw: Callable[[Report], Figure | None]


def draw_plots(report: Report) -> dict[str, str]:
    """Every picture the report has data for: name -> SVG text, or a PNG data URI where it would be large."""
    drawn: dict[str, str] = {}
    # Style and filters are set for the drawing alone; a font without a glyph is the browser's business.
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        for name, plot in PLOTS.items():
            figure = plot.draw(report)
            if figure is not None:
                drawn[name] = _rendered(figure, plot.title)
    return drawn


def plain(name: str, longest: int = 22) -> str:
    """A class name as a label: one line, no control characters, shortened in the middle."""
    printable = "".join(" " if unicodedata.category(c) in _UNPRINTABLE else c for c in name)
    if len(printable) <= longest:
        return printable
    head = (longest - 1) // 2
    return f"{printable[:head]}…{printable[-(longest - 1 - head) :]}"


_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}


def _rendered(figure: Figure, title: str) -> str:
    stream = io.BytesIO()
    # `savefig` would go through the whole drawing once before, for a layout that is made while drawing anyway.
    undated = {"Date": None, "Creator": None}
    FigureCanvasSVG(figure).print_svg(stream, metadata=undated)  # type: ignore[no-untyped-call]  # matplotlib has no types
    svg = _for_page(stream.getvalue().decode("utf-8"), title)
    if len(svg.encode("utf-8")) <= LARGEST_SVG:
        return svg
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _for_page(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Names that nothing refers to would appear once per drawing of the page.
    svg = re.sub(r'<g id="[A-Za-z.]+_\d+">', "<g>", svg)
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt"| width="[\d.]+pt"', "", svg, count=2)
    for sentinel, colour in _ON_PAGE.items():
        svg = svg.replace(sentinel, colour)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _confusion(report: Report) -> Figure | None:
    matrix = report["test"]["confusion"]
    names = report["test"]["classes"]
    if matrix is None or len(names) > _DRAWN:
        return None
    counts = np.array(matrix, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.2 + 0.38 * len(names), 3.4, 8.0))
    figure, axes = _canvas(side + 0.6, side)
    axes.imshow(_tinted(shares), interpolation="nearest", aspect="equal")
    axes.set(xlabel="Predicted", ylabel="True")
    _class_ticks(axes, names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) <= _COUNTED:
        _cell_counts(axes, counts, shares)
    return figure


def _tinted(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, C, 4) one hue whose opacity is the share, so that it lies on a page of any colour."""
    tint = np.empty((*shares.shape, 4))
    tint[..., :3] = np.array([int(_ACCENT[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    tint[..., 3] = np.where(shares > 0, 0.12 + 0.88 * shares, 0.03)
    return tint


def _cell_counts(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    size = 8.5 if len(counts) <= 12 else 6.5
    for row, column in np.argwhere(counts > 0).tolist():
        ink = "white" if shares[row, column] > 0.5 else _INK
        said = str(counts[row, column])
        if len(counts) <= _SHARED:
            said += f"\n{100 * shares[row, column]:.0f} %"
        axes.text(column, row, said, ha="center", va="center", color=ink, fontsize=size)


def _class_ticks(axes: Axes, names: list[str]) -> None:
    step = -(-len(names) // _LABELLED)
    ticks = np.arange(0, len(names), step)
    labels = [plain(names[i]) for i in ticks]
    size = 8.5 if len(names) <= 20 else 6.5
    upright = max(map(len, labels)) * len(labels) > 40
    axes.set_xticks(ticks, labels, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(ticks, labels, fontsize=size)


def _class_counts(report: Report) -> Figure | None:
    counts = report["data"].get("class_counts", {})
    names = report["test"]["classes"]
    if not counts or len(names) > _DRAWN:
        return None
    rows = np.arange(len(names))
    figure, axes = _canvas(6.4, float(np.clip(1.1 + 0.26 * len(names), 1.8, 9.0)))
    left = np.zeros(len(names))
    for set_name, colour in zip(("train", "val", "test"), (_ACCENT, _THIRD, _SECOND), strict=True):
        width = np.array(counts.get(set_name, left * 0), dtype=np.float64)
        axes.barh(rows, width, left=left, color=colour, height=0.72, label=set_name)
        left = left + width
    step = -(-len(names) // _LABELLED)
    axes.set_yticks(rows[::step], [plain(name) for name in names[::step]], fontsize=8.5 if len(names) <= 25 else 6.5)
    axes.invert_yaxis()
    axes.set_xlabel("Images")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def _learning_curves(report: Report) -> Figure | None:
    curved = [row for row in report["trials"]["table"] if row.get("curve")]
    if not curved:
        return None
    curved.sort(key=lambda row: -_number(row.get("score"), default=-np.inf))
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    score, loss = figure.subplots(1, 2)
    for rank, row in enumerate(curved[:_CURVES]):
        _curves_of(score, loss, row, best=rank == 0)
    score.set(xlabel="Epoch", ylabel="Validation score")
    loss.set(xlabel="Epoch", ylabel="Loss")
    for axes in (score, loss):
        axes.grid(visible=True)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for style, label in (("-", "train"), ("--", "validation")):
        loss.plot([], [], style, color=_ACCENT, label=label)
    loss.legend(fontsize=8)
    return figure


def _curves_of(score: Axes, loss: Axes, row: Mapping[str, Any], *, best: bool) -> None:
    colour, alpha, order = (_ACCENT, 1.0, 3) if best else (_FAINT, 0.5, 2)
    style: dict[str, Any] = {
        "color": colour,
        "alpha": alpha,
        "zorder": order,
        "marker": "o",
        "markersize": 2.5,
    }
    epochs = [point["epoch"] for point in row["curve"]]
    score.plot(epochs, _column(row["curve"], "score"), "-", **style)
    loss.plot(epochs, _column(row["curve"], "train_loss"), "-", **style)
    loss.plot(epochs, _column(row["curve"], "val_loss"), "--", **style)
    if best:
        score.set_title(f"Best: trial {row['number']}, {plain(str(row.get('backbone', '')), 30)}", loc="left")


def _trial_scores(report: Report) -> Figure | None:
    scored = [row for row in report["trials"]["table"] if row.get("score") is not None]
    if not scored:
        return None
    timed = all(row.get("finished") is not None for row in scored)
    key, label = ("finished", "Seconds since the start") if timed else ("number", "Trial")
    scored.sort(key=lambda row: _number(row[key]))
    when = np.array([row[key] for row in scored], dtype=np.float64)
    scores = np.array([row["score"] for row in scored], dtype=np.float64)
    figure, axes = _canvas(6.4, 2.6)
    axes.step(when, np.maximum.accumulate(scores), where="post", color=_ACCENT, label="best so far")
    axes.scatter(when, scores, s=16, color=_SECOND, zorder=3, label="trial")
    axes.set(xlabel=label, ylabel="Validation score")
    if not timed:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _front(report: Report) -> Figure | None:
    """Every trial whose network was timed: score against latency, the area of a dot telling the size of the file."""
    trials = (report.get("costs") or {}).get("trials")
    if not trials:
        return None
    figure, axes = _canvas(6.4, 3.4)
    sizes = [10 + 110 * each["size_mb"] / max(each["size_mb"] for each in trials) for each in trials]
    when, scores = _column(trials, "latency_ms"), _column(trials, "score")
    colours = [_SECOND if each["shipped"] else _ACCENT for each in trials]
    axes.scatter(when, scores, s=sizes, c=colours, alpha=0.55, linewidths=0)
    front = sorted((each for each in trials if each["front"]), key=lambda each: float(each["latency_ms"]))
    for each, size in ((each, size) for each, size in zip(trials, sizes, strict=True) if each["front"]):
        axes.scatter([each["latency_ms"]], [each["score"]], s=size + 50, facecolors="none", edgecolors=_INK, zorder=3)
    axes.step(_column(front, "latency_ms"), _column(front, "score"), where="post", color=_FAINT, linestyle=":")
    for each in front:
        label = f"{each['trial']}: {plain(str(each['backbone']))} {each['resolution']}"
        axes.annotate(label, (each["latency_ms"], each["score"]), (6, -12), textcoords="offset points", fontsize=7.5)
    axes.scatter([], [], s=30, color=_SECOND, label="trial of the shipped model")
    axes.scatter([], [], s=30, color=_ACCENT, label="trial")
    axes.set(xlabel="Milliseconds for one image", ylabel="Validation score")
    axes.margins(x=0.18, y=0.14)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8)
    return figure


def _settings_tried(report: Report) -> Figure | None:
    """What the sampler chose from, and what came of it: one panel per setting."""
    rows = [row for row in report["trials"]["table"] if row.get("kind") == "finetune" and row.get("score") is not None]
    if len(rows) < _FEWEST_DOTS:
        return None
    figure = Figure(figsize=(9.6, 2.8), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for axes, (setting, (scale, optimizers)) in zip(panels, _PANELS.items(), strict=True):
        for optimizer in optimizers:
            own = [row for row in rows if row["hyperparameters"].get("optimizer") == optimizer]
            values = [_number(row["hyperparameters"].get(setting)) for row in own]
            scores = [row["score"] for row in own]
            axes.scatter(values, scores, s=16, color=_COLOURS[optimizer], label=optimizer)
        axes.set(xlabel=setting.replace("_", " "), xscale=scale)
        axes.grid(visible=True)
    panels[0].set_ylabel("Validation score")
    panels[0].legend(fontsize=8)
    return figure


def _importance(report: Report) -> Figure | None:
    shares = report["trials"].get("importance")
    if not shares:
        return None
    names, rows = list(shares), np.arange(len(shares))
    figure, axes = _canvas(6.4, 0.8 + 0.26 * len(names))
    axes.barh(rows, list(shares.values()), color=_ACCENT, height=0.72)
    axes.set_yticks(rows, [plain(name.replace("_", " "), 30) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("Share of importance")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure


def _head_alpha(report: Report) -> Figure | None:
    epochs = _head_search(report).get("epochs")
    if not epochs:
        return None
    choices = report["head"]["search"]["choices"]
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    when = [each["epoch"] for each in epochs]
    for axes, choice in zip(figure.subplots(1, len(choices), sharey=True), choices, strict=True):
        for k, option in enumerate(choice["options"]):
            shares = [each["alpha"][choice["mixture"]][k] for each in epochs]
            axes.plot(when, shares, color=_OPTIONS[k % len(_OPTIONS)], label=plain(option))
        axes.set(xlabel="Epoch", ylim=(0, 1))
        axes.set_title(f"{choice['mixture']}: {plain(choice['chosen'])}", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True)
        axes.legend(fontsize=7)
    return figure


def _head_fit(report: Report) -> Figure | None:
    epochs = _head_search(report).get("epochs")
    if not epochs:
        return None
    choices = report["head"]["search"]["choices"]
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    loss, accuracy = figure.subplots(1, 2, width_ratios=(1, 1.6))
    when = [each["epoch"] for each in epochs]
    loss.plot(when, _column(epochs, "train_loss"), "-", color=_ACCENT, label="half that trains weights")
    loss.plot(when, _column(epochs, "val_loss"), "--", color=_SECOND, label="half that trains alpha")
    loss.set(xlabel="Epoch", ylabel="Loss")
    loss.legend(fontsize=8)
    bars = [(choice, option, k) for choice in choices for k, option in enumerate(choice["options"])]
    colours = [_ACCENT if option == choice["chosen"] else _FAINT for choice, option, _ in bars]
    accuracy.bar(range(len(bars)), [choice["accuracy"][k] for choice, _, k in bars], color=colours)
    accuracy.set_xticks(range(len(bars)), [plain(option) for _, option, _ in bars], rotation=90, fontsize=7.5)
    accuracy.set(ylabel="Accuracy with one option in place")
    return figure


def _head_search(report: Report) -> Mapping[str, Any]:
    """What the search of a head recorded; nothing where there was none."""
    return (report.get("head") or {}).get("search") or {}


def _abstention(report: Report) -> Figure | None:
    curve = (report.get("abstention") or {}).get("curve")
    if not curve:
        return None
    figure, axes = _canvas(6.4, 2.6)
    answered, right = [each["coverage"] for each in curve], [each["accuracy"] for each in curve]
    axes.plot(answered, right, "-", color=_ACCENT, marker="o", markersize=2.5)
    axes.set(xlabel="Share of images answered", ylabel="Accuracy", xlim=(1.02, 0))
    axes.grid(visible=True)
    return figure


def _reliability(report: Report) -> Figure | None:
    bins = report["test"]["calibration"]
    if not bins:
        return None
    figure, axes = _canvas(3.9, 3.7)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.9, linestyle=":")
    widths = [each["high"] - each["low"] for each in bins]
    axes.bar(
        [each["low"] for each in bins],
        [each["accuracy"] for each in bins],
        width=widths,
        align="edge",
        color=_ACCENT,
        alpha=0.35,
        edgecolor=_ACCENT,
        linewidth=0.6,
    )
    largest = max(each["n"] for each in bins)
    axes.scatter(
        [each["confidence"] for each in bins],
        [each["accuracy"] for each in bins],
        s=[8 + 60 * each["n"] / largest for each in bins],
        color=_SECOND,
        zorder=3,
    )
    axes.set(xlabel="Confidence", ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    return figure


def _column(curve: list[Mapping[str, Any]], key: str) -> list[float]:
    return [_number(point.get(key)) for point in curve]


def _number(value: Any, default: float = np.nan) -> float:
    return default if value is None else float(value)


PLOTS: dict[str, Plot] = {
    "confusion": Plot("Confusion matrix of the test set", _confusion),
    "class_counts": Plot("Images per class and set", _class_counts),
    "learning_curves": Plot("Learning curves", _learning_curves),
    "trial_scores": Plot("Validation score of the trials over time", _trial_scores),
    "front": Plot("Validation score, latency and size", _front),
    "settings_tried": Plot("Validation score by setting", _settings_tried),
    "importance": Plot("Which settings decided", _importance),
    "head_alpha": Plot("Weight of each operation and width while the head was searched", _head_alpha),
    "head_fit": Plot("Loss while the head was searched, and accuracy of each decision", _head_fit),
    "reliability": Plot("Confidence against accuracy on the test set", _reliability),
    "abstention": Plot("Accuracy of the answers by how many are given", _abstention),
}
