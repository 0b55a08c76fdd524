"""Report and model card of a finished run, rendered again from what it left, with looks that came after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automl_vision import run_dir
from automl_vision.errors import RunError
from automl_vision.files import write_text
from automl_vision.report.card_front import card_front
from automl_vision.report.damage import told_as_damage
from automl_vision.report.html import render_html
from automl_vision.report.model_card import model_card
from automl_vision.report.plots import draw_plots
from automl_vision.report.report import with_ledger


def card_of_run(report: Mapping[str, Any]) -> str:
    """README.md from the content of report.json."""
    return card_front("automl-vision", report=report) + model_card(report)


def report_of(path: Path) -> dict[str, Any]:
    """The content of report.json of the run in `path`.

    Raises:
        RunError: there is none, or it is damaged.
    """
    report = run_dir.read_report(path)
    if report is None:
        raise RunError("there is no report in this folder", value=str(path), fix="give the folder of a finished run")
    return report


def render_run(path: Path) -> dict[str, str]:
    """Name -> content of the files that tell people of the run; takes no lock, and writes nothing.

    Raises:
        RunError: there is no run with a report in this folder, or a file of it is not as a search leaves it.
    """
    report, gallery, looks = report_of(path), run_dir.read_gallery(path), run_dir.read_looks(path)
    with told_as_damage(path / run_dir.REPORT_JSON):
        told = with_ledger(report, looks)
        page = render_html(told, draw_plots(told), gallery)
        return {run_dir.MODEL_CARD: card_of_run(told), run_dir.REPORT_HTML: page}


def write_rendered(path: Path, files: Mapping[str, str]) -> None:
    """Write what `render_run` gave.

    Raises:
        OSError: the folder cannot be written.
    """
    for name, text in files.items():
        write_text(path / name, text)
