"""Finished runs as one Markdown table, and what each class lost on other images as a second one.

    python examples/table_of_runs.py runs/a runs/b

Everything is read from what the runs left: `report.json`, and `elsewhere.json` where the output of
`automl-vision evaluate RUN/model.pt --data OTHER --json` was put beside it. A column that no run has is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Found = Mapping[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """What a run left.

    Attributes:
        name: of its folder.
        report: report.json.
        elsewhere: what `evaluate --json` printed of other images; empty where nobody asked.
    """

    name: str
    report: Found
    elsewhere: Found

    @property
    def network(self) -> Found:
        """Costs of the network that was trained; empty where the report has none."""
        rows = (self.report.get("costs") or {}).get("networks") or [{}]
        backbone = self.report["model"]["backbone"]
        return next((row for row in rows if row.get("backbone") == backbone), {})

    @property
    def shipped(self) -> Found:
        """Costs of the model file; empty where the report has none."""
        return (self.report.get("costs") or {}).get("shipped") or {}


def read_run(folder: Path) -> FinishedRun:
    """What is in the folder of a finished run."""
    elsewhere = folder / "elsewhere.json"
    return FinishedRun(
        folder.name,
        json.loads((folder / "report.json").read_text(encoding="utf-8")),
        json.loads(elsewhere.read_text(encoding="utf-8")) if elsewhere.is_file() else {},
    )


def _share(figure: Found | None) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})" if figure else ""


def _lost(run: FinishedRun) -> str:
    if not run.elsewhere:
        return ""
    return f"{100 * (run.elsewhere['accuracy']['value'] - run.report['test']['accuracy']['value']):+.1f}"


def _latency(run: FinishedRun) -> str:
    timing = run.shipped.get("latency")
    return f"{timing['p50_ms']:.1f} / {timing['p95_ms']:.1f}" if timing else ""


def _memory(run: FinishedRun) -> str:
    peak = (run.network.get("training") or {}).get("peak_bytes")
    return f"{peak / 1e6:,.0f}" if peak else ""


def _cpu(run: FinishedRun) -> str:
    used = (run.network.get("training") or {}).get("cpu_utilisation")
    return f"{100 * used:.0f} %" if used is not None else ""


def _head(run: FinishedRun) -> str:
    head = run.report["head"]
    return str(head["reason"]) if head else ""


#: Title -> what a run has there, empty where it has nothing.
COLUMNS: dict[str, Callable[[FinishedRun], str]] = {
    "run": lambda run: run.name,
    "network": lambda run: run.report["model"]["backbone"],
    "test images": lambda run: f"{run.report['test']['n']:,}",
    "validation": lambda run: f"{run.report['validation']['accuracy']['value']:.3f}",
    "test accuracy": lambda run: _share(run.report["test"]["accuracy"]),
    "macro F1": lambda run: f"{run.report['test']['macro_f1']['value']:.3f}",
    "log loss": lambda run: f"{run.report['test']['log_loss']['value']:.2f}",
    "elsewhere": lambda run: _share(run.elsewhere.get("accuracy")),
    "points lost": _lost,
    "head": _head,
    "million parameters": lambda run: f"{run.report['model']['parameters'] / 1e6:.1f}",
    "MB": lambda run: f"{run.shipped['size_mb']:.1f}" if run.shipped else "",
    "ms an image (median / 95th)": _latency,
    "MB in training": _memory,
    "CPU use in training": _cpu,
    "seconds": lambda run: f"{sum(run.report['seconds'].values()):,.0f}",
}


def table(runs: Sequence[FinishedRun]) -> list[list[str]]:
    """Header and one row per run."""
    cells = {title: [column(run) for run in runs] for title, column in COLUMNS.items()}
    kept = {title: column for title, column in cells.items() if any(column)}
    return [list(kept), *(list(row) for row in zip(*kept.values(), strict=True))]


def recall_table(runs: Sequence[FinishedRun]) -> list[list[str]]:
    """Header and one row per class: recall on the test set and elsewhere, of each run that was asked elsewhere."""
    asked = [run for run in runs if run.elsewhere]
    if not asked:
        return []
    by_run = [(_recall(run.report["test"]), _recall(run.elsewhere)) for run in asked]
    rows = [
        [name, *(f"{here[name]:.2f} → {away[name]:.2f}" if name in away else "" for here, away in by_run)]
        for name in by_run[0][0]
    ]
    return [["recall", *(run.name for run in asked)], *rows]


def _recall(figures: Found) -> dict[str, float]:
    return {row["class"]: row["recall"]["value"] for row in figures["per_class"] if row["support"]}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in plain text, too."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    runs = [read_run(folder) for folder in parser.parse_args().runs]
    print("\n\n".join(markdown(each) for each in (table(runs), recall_table(runs)) if each))


if __name__ == "__main__":
    main()
