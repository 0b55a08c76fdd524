"""The page and the table of a comparison, with names that mean harm."""

import csv
import io
import re

import pytest
from test_run_comparison import answers, quick, run, wrong_at  # noqa: F401 - quick is a fixture

from automl_vision.report.baseline_figures import Baseline
from automl_vision.report.comparison import build_comparison
from automl_vision.report.comparison_page import chance, comparison_csv, render_comparison, signed
from automl_vision.visible import visible

HOSTILE = '=cmd|"<img src=x onerror=alert(1)>\u202e\r\x1b[31m'


@pytest.fixture
def hostile():
    baseline = Baseline(f"{HOSTILE}.csv", "percent", {HOSTILE: {"accuracy": 0.5}, f"x{HOSTILE}": {}}, (HOSTILE,))
    runs = [
        run(HOSTILE, answers(wrong_at(30, 1)), source=f"/d/{HOSTILE}"),
        run("plain", answers(wrong_at(30, 2, 3)), source=f"/d/{HOSTILE}"),
    ]
    return build_comparison(runs, baseline) | {"created": "2026-01-02T03:04:05Z"}


def test_names_are_text_on_the_page(hostile):
    page = render_comparison(hostile)
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_the_page_needs_nothing_from_elsewhere(hostile):
    page = render_comparison(hostile)
    assert "default-src 'none'" in page
    assert not re.search(r"<[^>]*(src|href)=\"(?!data:|#)", page)
    assert "Pairs on the same images" in page
    assert "Against the baseline" in page


def test_a_page_without_pairs_and_baseline():
    page = render_comparison(build_comparison([run("a", answers(wrong_at(9)))]) | {"created": ""})
    assert "Pairs on the same images" not in page
    assert "Against the baseline" not in page


def test_the_table_is_whole_and_disarmed(hostile):
    rows = list(csv.DictReader(io.StringIO(comparison_csv(hostile))))
    assert rows[0]["run"] == rows[0]["data_set"] == f"'{visible(HOSTILE)}"
    assert float(rows[1]["accuracy"]) == pytest.approx(28 / 30)
    assert float(rows[1]["accuracy_over_baseline"]) == pytest.approx(28 / 30 - 0.5)
    assert rows[1]["baseline_macro_f1"] == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0.012, "+1.2"), (-0.012, "-1.2"), (0.0001, "0.0"), (-0.0001, "0.0"), (None, "–")]
)
def test_a_difference_has_its_sign(value, text):
    assert signed(value) == text


def test_a_tiny_p_value_is_not_zero():
    assert (chance(1e-9), chance(0.034)) == ("< 0.001", "0.034")
