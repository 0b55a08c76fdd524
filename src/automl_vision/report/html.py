"""`report.html`: one file that opens offline, on a phone, in the dark and on paper."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from automl_vision.metrics import METRICS
from automl_vision.models.symmetry import symmetry_line
from automl_vision.report.checklist import checklist
from automl_vision.report.costs import cost_rows, cost_sentences, front_note, shipped_line
from automl_vision.report.finish import calibration_rows, finish_rows, refit_sentence, selection_sentences
from automl_vision.report.gallery import Gallery
from automl_vision.report.impact import impact_sentences
from automl_vision.report.parallel import parallel_coordinates
from automl_vision.report.plots import PLOTS
from automl_vision.report.resize import resize_sentence
from automl_vision.report.script import script, script_hash
from automl_vision.report.thresholds import fixed_rows, slider_start
from automl_vision.report.warnings import images, is_refitted, percent, points
from automl_vision.training.recipe import Recipe

Report = Mapping[str, Any]

#: Rows that a table of the page shows at most; report.json has the rest (trials.csv, audit.csv).
ROWS = {
    "classes": 200,
    "trials": 60,
    "findings": 40,
    "confused": 12,
    "facts": 80,
    "quarantine": 60,
    "bars": 60,
}

#: Settings of a trial that the page always shows, and those that it shows where they are not what they mostly are.
TRIAL_SETTINGS = (
    "optimizer",
    "learning_rate",
    "weight_decay",
    "layer_decay",
    "batch_size",
    "gradient_accumulation",
    "micro_batch",
    "augment",
    "label_smoothing",
    "strength",
    "trained_on",
)
_UNUSUAL = (
    "freeze_stages",
    "horizontal_flip",
    "vertical_flip",
    "quarter_turns",
    "erasing",
    "mix",
    "loss",
    "sampling",
    "drop_path",
    "head",
)
_USUALLY = {each.name: each.default for each in dataclasses.fields(Recipe) if each.name in _UNUSUAL}

#: Characters of one cell of free text.
CELL = 200


def render_html(report: Report, plots: Mapping[str, str], gallery: Gallery | None = None) -> str:
    """The page.

    Args:
        report: what `build_report` returned, or the same read from report.json.
        plots: what `draw_plots` returned; any of them may be missing.
        gallery: pictures of mistakes; None where there are none.
    """
    template = environment().get_template("report.html")
    table = report["trials"]["table"]
    per_class = sorted(report["test"]["per_class"], key=lambda row: (row["f1"]["value"], -row["support"]))
    return template.render(
        report=report,
        verdict=verdict(report),
        gallery=gallery,
        plots={name: _picture(name, plots[name]) for name in PLOTS if name in plots},
        titles={name: plot.title for name, plot in PLOTS.items()},
        metrics=METRICS,
        per_class=capped(per_class, "classes"),
        trials=capped(sorted(table, key=_rank), "trials"),
        findings=capped(report["data"].get("findings", []), "findings"),
        confused=capped(report["test"]["confused"], "confused"),
        sections=_sections(report),
        impact=impact_sentences(report["impact"]) if report.get("impact") else (),
        data_facts=[(label, report["data"][key]) for key, label in DATA_FACTS.items() if key in report["data"]],
        commands=_commands(report),
        resize=resize_sentence(report["data"].get("resize")),
        environment=capped(list(flattened(report["environment"])), "facts"),
        head=report.get("head"),
        symmetries=symmetry_line(report["trials"]["symmetries"]) if report["trials"].get("symmetries") else "",
        selection=selection_sentences(report),
        finish=finish_rows(report),
        refit=refit_sentence(report),
        refitted=is_refitted(report),
        calibration=calibration_rows(report),
        abstention=report.get("abstention"),
        **_costs(report),
        model=capped(list(flattened(report["model"])), "facts"),
        **_doubts(report),
    )


def _doubts(report: Report) -> dict[str, Any]:
    """What the sections on doubts and thresholds show."""
    counts = (report.get("abstention") or {}).get("by_threshold")
    return {
        "checklist": checklist(report),
        "parallel": parallel_coordinates(report),
        "by_threshold": counts,
        "fixed_thresholds": fixed_rows(counts),
        "slider_start": slider_start(report),
        "class_names": [shown(name) for name in report["test"]["classes"]] if counts else [],
        "script": script() if counts else None,
        "script_hash": script_hash() if counts else None,
    }


def verdict(report: Report) -> str:
    """The run in one paragraph of plain text: how good, how sure, measured on what, against what."""
    test = report["test"]
    accuracy, f1 = test["accuracy"], test["macro_f1"]
    sentences = [
        f"On {images(test['n'])} that had no part in training or choosing, the model is right in "
        f"{percent(accuracy['value'])} of cases (95 % interval {between(accuracy)}). "
        f"Averaged over {len(test['classes']):,} classes its F1 is {percent(f1['value'])} ({between(f1)})."
    ]
    sentences += [
        f"Always naming the largest class would be right in {percent(row['accuracy']['value'])}."
        for row in report["baselines"]
        if row["name"] == "majority class"
    ]
    count = len(report["warnings"])
    doubts = {
        0: "No check found a reason to doubt these figures.",
        1: "One thing to know before trusting them:",
    }
    sentences.append(doubts.get(count, f"{count} things to know before trusting them:"))
    return " ".join(sentences)


def between(figure: Mapping[str, float | None]) -> str:
    """An interval in per cent, "80.1 to 86.0 %", or an en dash."""
    if figure["low"] is None or figure["high"] is None:
        return "–"
    return f"{points(figure['low'])} to {points(figure['high'])} %"


def amount(name: str, value: float | None) -> str:
    """A metric as people read it: a share in per cent, anything else with three decimals."""
    if value is None:
        return "–"
    return percent(value) if METRICS[name].bounded else f"{value:.3f}"


def amount_between(name: str, figure: Mapping[str, float | None]) -> str:
    """The interval of a metric as people read it."""
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return "–"
    return between(figure) if METRICS[name].bounded else f"{low:.3f} to {high:.3f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"


def whisker(figure: Mapping[str, float | None]) -> Markup:
    """An interval in [0, 1] drawn as a line with a dot at the figure."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None or low is None or high is None:
        return Markup("")
    return Markup(
        '<svg class="whisker" viewBox="0 0 104 10" aria-hidden="true">'
        '<line class="rail" x1="2" x2="102" y1="5" y2="5"/>'
        '<line class="reach" x1="{:.1f}" x2="{:.1f}" y1="5" y2="5"/><circle cx="{:.1f}" cy="5" r="3"/></svg>'
    ).format(2 + 100 * low, 2 + 100 * high, 2 + 100 * value)


def typeset(text: str) -> str:
    """A sentence with true minus signs, and with numbers kept on the line of their unit."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text).replace(" %", "\u00a0%")


def settings_text(hyperparameters: Mapping[str, Any]) -> str:
    """The settings that tell trials apart, on one line; trials.csv has all of them."""
    always = {key: value for key, value in hyperparameters.items() if key in TRIAL_SETTINGS}
    unusual = {
        key: hyperparameters[key] for key in _UNUSUAL if hyperparameters.get(key, _USUALLY[key]) != _USUALLY[key]
    }
    kept = {**always, **unusual}
    return ", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in kept.items())


def shown(value: Any) -> str:
    """Any plain value as one short line."""
    text = FORMS.get(type(value), str)(value)
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"


def capped(rows: list[Any], table: str) -> dict[str, Any]:
    """The rows that the page shows, and how many it leaves out."""
    limit = ROWS[table]
    return {"rows": rows[:limit], "total": len(rows), "left_out": max(0, len(rows) - limit)}


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested mappings as (dotted name, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


FORMS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "–",
    bool: lambda value: "yes" if value else "no",
    int: lambda value: f"{value:,}",
    float: lambda value: f"{value:.4g}",
    list: lambda value: ", ".join(map(shown, value[:20])) + (" …" if len(value) > 20 else ""),
    dict: lambda value: ", ".join(f"{key} {shown(each)}" for key, each in value.items()),
}

#: What the data section names, where the run knows it.
DATA_FACTS: dict[str, str] = {
    "images": "files read",
    "quarantined": "could not be read",
    "copies": "copies of other images",
    "groups": "groups of images that belong together",
    "conflicts": "pictures under two labels",
    "leaks": "leaks found and removed",
    "aside": "set aside so that nothing leaks",
    "imbalance": "largest class over smallest (train)",
}

_SETS = {
    "validation": ("Validation", "chose between candidates"),
    "augmented_validation": ("Augmented validation", "copies of validation images"),
    "test": ("Test", "untouched originals"),
}


def _sections(report: Report) -> list[dict[str, Any]]:
    return [
        {"title": title, "note": note, "figures": report[key], "is_test": key == "test"}
        for key, (title, note) in _SETS.items()
        if report[key]
    ]


def _costs(report: Report) -> dict[str, Any]:
    """What the section on costs needs; nothing for a report of an earlier version."""
    if not report.get("costs"):
        return {}
    return {
        "cost_sentences": cost_sentences(report),
        "cost_rows": cost_rows(report),
        "front_note": front_note(report),
        "shipped_line": shipped_line(report),
    }


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    score = row.get("score")
    return score is None, -(score or 0.0)


def _picture(name: str, drawn: str) -> Markup:
    # Drawings are made by this package, and matplotlib escapes the text in them.
    if drawn.startswith("<svg"):
        return Markup(drawn)  # noqa: S704 # nosec B704
    return Markup('<img src="{}" alt="{}">').format(drawn, PLOTS[name].title)


def _commands(report: Report) -> tuple[str, ...]:
    """What makes and checks these figures again, to be typed in the folder of the run."""
    data = shlex.quote(str(report["data"].get("source", "DATA")))
    return f"automl-vision search --data {data} --config config.toml --out AGAIN", "automl-vision report . --verify"


def environment() -> Environment:
    """What pages are rendered in: everything is escaped, and a name that is missing is an error."""
    made = Environment(
        loader=PackageLoader("automl_vision.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "images": images,
        "percent": percent,
        "points": points,
        "between": between,
        "duration": duration,
        "whisker": whisker,
        "shown": shown,
        "settings": settings_text,
        "typeset": typeset,
    }
    made.globals |= {"amount": amount, "amount_between": amount_between}
    return made
