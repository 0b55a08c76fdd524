"""`comparison.html` and `comparison.csv`: several runs beside each other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from automl_vision.report.comparison import COMPARED
from automl_vision.report.html import environment
from automl_vision.report.warnings import points
from automl_vision.spreadsheet import disarmed
from automl_vision.visible import visible

Comparison = Mapping[str, Any]


def render_comparison(comparison: Comparison) -> str:
    """The page.

    Args:
        comparison: what `build_comparison` returned with the time it was `created`, or the same read from
            comparison.json.
    """
    jinja = environment()
    jinja.filters |= {"visible": visible, "signed": signed, "signed_between": signed_between, "chance": chance}
    return jinja.get_template("comparison.html").render(
        comparison=comparison,
        compared=COMPARED,
        verdict=verdict(comparison),
        paired=[each for each in comparison["test_sets"] if each["pairs"]],
        has_baseline=comparison["baseline"] is not None,
    )


def verdict(comparison: Comparison) -> str:
    """What the comparison comes to, in plain text."""
    runs, sets = comparison["runs"], comparison["test_sets"]
    data_sets = len({row["data_set"] for row in runs})
    sentences = [
        f"{_many(len(runs), 'run')} on {_many(data_sets, 'data set')} and {_many(len(sets), 'set')} of test images."
    ]
    pairs = [pair for each in sets for pair in each["pairs"]]
    apart = sum(pair["distinguishable"] for pair in pairs)
    if pairs:
        sentences.append(
            f"Of {_many(len(pairs), 'pair')} that {'was' if len(pairs) == 1 else 'were'} tested on the same images, "
            f"{apart if apart else 'none'} can be told apart by accuracy"
            + (", corrected for the number of pairs." if len(pairs) > 1 else ".")
        )
    elif len(runs) > 1:
        sentences.append("No two of them were tested on the same images, so that no pair can be tested.")
    return " ".join(sentences)


def comparison_csv(comparison: Comparison) -> str:
    """One row per run, for spreadsheets: text that one would run as a formula has a `'` before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for name, _ in _cells(comparison["runs"][0])])
    for row in comparison["runs"]:
        writer.writerow([_cell(value) for _, value in _cells(row)])
    return text.getvalue()


def _cells(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("run", "path", "data_set", "test_set", "images", "classes", "backbone", "looks"):
        yield name, row[name]
    for name in COMPARED:
        for part in ("value", "low", "high"):
            yield name if part == "value" else f"{name}_{part}", row[name][part]
    for name in COMPARED:
        beside = (row["baseline"] or {}).get(name) or {}
        yield f"baseline_{name}", beside.get("value")
        for part in ("difference", "low", "high"):
            yield f"{name}_{'over_baseline' if part == 'difference' else f'over_baseline_{part}'}", beside.get(part)


def _cell(value: Any) -> Any:
    return disarmed(visible(value)) if isinstance(value, str) else value


def signed(value: float | None) -> str:
    """A difference of shares in percentage points with its sign: +1.2, -0.4; an en dash where there is none."""
    if value is None:
        return "–"
    text = points(value)
    return "0.0" if text in ("0.0", "-0.0") else text if value < 0 else f"+{text}"


def signed_between(figure: Mapping[str, float | None]) -> str:
    """An interval of a difference in points."""
    low, high = figure["low"], figure["high"]
    return "–" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def chance(p_value: float) -> str:
    """A p-value as people write it: 0.034, or < 0.001."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
