"""The table of runs: what is there is shown as it is, what is nowhere is left out."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import table_of_runs


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def figures(n: int, accuracy: float, **recalls: float) -> dict[str, Any]:
    classes = [{"class": name, "recall": share(value), "support": n // 2} for name, value in recalls.items()]
    return {"n": n, "accuracy": share(accuracy), "macro_f1": share(0.5), "log_loss": share(1.5), "per_class": classes}


REPORT: dict[str, Any] = {
    "test": figures(80, 0.75, cat=0.5, dog=1.0),
    "validation": figures(80, 0.8),
    "head": None,
    "model": {"backbone": "resnet18", "head": "linear", "parameters": 11_200_000},
    "seconds": {"search": 10.0, "test": 2.4},
}
COSTS = {
    "shipped": {"size_mb": 44.8, "latency": {"p50_ms": 3.21, "p95_ms": 4.5, "passes": 30}},
    "networks": [
        {"backbone": "resnet50", "training": {"peak_bytes": 1, "cpu_utilisation": 0.1}},
        {"backbone": "resnet18", "training": {"peak_bytes": 812_000_000, "cpu_utilisation": 0.87}},
    ],
}


def run(folder: Path, elsewhere: dict[str, Any] | None = None, **more: Any) -> Path:
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(copy.deepcopy(REPORT) | more))
    if elsewhere:
        (folder / "elsewhere.json").write_text(json.dumps(elsewhere))
    return folder


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *runs: Path) -> str:
    monkeypatch.setattr(sys, "argv", ["table_of_runs.py", *map(str, runs)])
    table_of_runs.main()
    return capsys.readouterr().out


def test_a_run_alone_has_no_column_that_it_has_nothing_for(tmp_path, capsys, monkeypatch) -> None:
    header, _, row = printed(capsys, monkeypatch, run(tmp_path / "a")).splitlines()
    assert [title for title in ("elsewhere", "points lost", "head", "MB", "CPU use") if title in header] == []
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["a", "resnet18", "80", "0.800", "0.750 (0.650 to 0.850)", "0.500", "1.50", "11.2", "12"]
    assert len(header) == len(row)


def test_what_was_lost_elsewhere_is_told_by_class(tmp_path, capsys, monkeypatch) -> None:
    asked = run(tmp_path / "asked", figures(200, 0.5, cat=0.1, dog=0.9))
    text = printed(capsys, monkeypatch, asked, run(tmp_path / "other"))
    assert "| -25.0 " in text
    first, second = text.strip().split("\n\n")
    assert "0.500 (0.400 to 0.600)" in first
    assert [line.split("|")[1:3] for line in second.splitlines()[2:]] == [
        [" cat    ", " 0.50 → 0.10 "],
        [" dog    ", " 1.00 → 0.90 "],
    ]
    assert "other" not in second


def test_costs_are_those_of_the_network_of_the_run(tmp_path, capsys, monkeypatch) -> None:
    text = printed(capsys, monkeypatch, run(tmp_path / "a", costs=COSTS))
    assert [cell for cell in ("44.8", "3.2 / 4.5", "812", "87 %") if f" {cell} " not in text] == []


def test_what_the_search_of_a_head_came_to_is_told(tmp_path, capsys, monkeypatch) -> None:
    text = printed(capsys, monkeypatch, run(tmp_path / "a", head={"reason": "mlp:64-tanh: +2.0 points"}))
    assert " mlp:64-tanh: +2.0 points " in text
