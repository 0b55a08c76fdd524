"""A comparison of runs on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from automl_vision.cli.terminal import safe, stdout
from automl_vision.report.comparison import COMPARED
from automl_vision.report.comparison_page import chance, signed, signed_between, verdict

#: Pairs that are shown; comparison.json has all of them.
PAIR_ROWS = 30


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """The figures of each run, the pairs, the baseline, and what to know."""
    stdout.print(safe(verdict(comparison)), highlight=False)
    stdout.print(_figures(comparison["runs"]))
    for each in comparison["test_sets"]:
        if each["pairs"]:
            stdout.print(
                f"\nTest set {each['number']} ({safe(each['data_set'])}), points of the first over the second:"
            )
            stdout.print(_pairs(each["pairs"]))
    if comparison["baseline"]:
        stdout.print(f"\nPoints over {safe(comparison['baseline']['file'])}:", highlight=False)
        stdout.print(_baseline(comparison["runs"]))
    for note in comparison["notes"]:
        stdout.print(f"[yellow]![/yellow] {safe(note)}", highlight=False)


def _table(*columns: str, texts: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < texts else "right", overflow="fold")
    return table


def _figures(rows: list[dict[str, Any]]) -> Table:
    table = _table("run", "data set", "test set", "images", *(m.words for m in COMPARED.values()), texts=2)
    for row in rows:
        figures = (_share(row[name]) for name in COMPARED)
        table.add_row(safe(row["run"]), safe(row["data_set"]), str(row["test_set"]), f"{row['images']:,}", *figures)
    return table


def _share(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None or figure["low"] is None:
        return "-"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _pairs(pairs: list[dict[str, Any]]) -> Table:
    table = _table("first", "second", "only one right", "accuracy", "macro F1", "p", "corrected", "", texts=2)
    for pair in pairs[:PAIR_ROWS]:
        table.add_row(
            safe(pair["first"]),
            safe(pair["second"]),
            f"{pair['only_first_right']}:{pair['only_second_right']}",
            _difference(pair["accuracy"]),
            _difference(pair["macro_f1"]),
            chance(pair["p_value"]),
            chance(pair["p_holm"]),
            "differ" if pair["distinguishable"] else "not told apart",
        )
    if len(pairs) > PAIR_ROWS:
        table.add_row(f"... {len(pairs) - PAIR_ROWS} more (--json, --out)", *[""] * 7, style="dim")
    return table


def _difference(figure: Mapping[str, Any]) -> str:
    return f"{signed(figure['value'])} ({signed_between(figure)})"


def _baseline(rows: list[dict[str, Any]]) -> Table:
    table = _table("data set", "run", *(metric.words for metric in COMPARED.values()), texts=2)
    for row in rows:
        if row["baseline"]:
            cells = (_beside(row["baseline"][name]) for name in COMPARED)
            table.add_row(safe(row["data_set"]), safe(row["run"]), *cells)
    return table


def _beside(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['value']:.3f}: {signed(figure['difference'])} ({signed_between(figure)})"
