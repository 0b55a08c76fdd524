"""Figures of others: percent or shares, and every wrong line named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.errors import DataError
from automl_vision.report.baseline_figures import read_baseline


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "baseline.csv").write_text(text, encoding="utf-8")
        return tmp_path / "baseline.csv"

    return write


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("dataset,accuracy,f1\npets,83.4,80\ndogs,100,0\n", "percent"),
        ("dataset,accuracy,f1\npets,.834,0.8\ndogs,1,0\n", "share"),
        ("dataset;accuracy;f1\npets;83.4 %;80%\ndogs;100 %;0 %\n", "percent"),
        ("\ufeffF1\tData Set\tAccuracy\n80\tpets\t83.4\n0\tdogs\t100\n", "percent"),
    ],
)
def test_percent_and_shares_say_the_same(written, text, scale):
    found = read_baseline(written(text))
    assert found.scale == scale
    assert found.figures == {
        "pets": pytest.approx({"accuracy": 0.834, "macro_f1": 0.8}),
        "dogs": pytest.approx({"accuracy": 1.0, "macro_f1": 0.0}),
    }


def test_a_per_cent_sign_is_stronger_than_its_neighbours(written):
    found = read_baseline(written("dataset,accuracy,precision\na,0.9 %,0.5\n"))
    assert found.figures["a"] == pytest.approx({"accuracy": 0.009, "macro_precision": 0.5})


def test_a_missing_figure_is_not_zero(written):
    assert read_baseline(written("dataset,accuracy,f1\na,,50\n")).figures == {"a": {"macro_f1": 0.5}}


def test_names_are_found_whatever_their_case_and_form(written):
    found = read_baseline(written("dataset,accuracy\nOxford Pets,50\nCafe\u0301,60\n"))
    assert found.find("oxford pets ") == "Oxford Pets"
    assert found.find("nothing", "caf\u00e9") == "Cafe\u0301"
    assert found.find("pets") is None


def test_columns_that_mean_nothing_are_named(written):
    assert read_baseline(written("dataset,accuracy,year\na,50,2020\n")).passed_over == ("year",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset,accuracy\n", ["has no rows"]),
        ("name,accuracy\na,50\n", ["lacks a column", "line 1", "name, accuracy"]),
        ("dataset,acuracy\na,50\n", ["lacks a column", "did you mean accuracy?"]),
        ("dataset,f1,macro_f1\na,50,50\n", ["two columns", "'f1' and 'macro_f1'"]),
        ("dataset,accuracy\na,50\nb,0.6\n", ["1 problem ", "line 3", "line 2 is in percent (50)"]),
        ("dataset,accuracy\na,high\nb,101\nc,-1\nd,nan\n", ["4 problems", "line 2: accuracy is no number: 'high'"]),
        ("dataset,accuracy\na,50\n\nA,60\n", ["line 4: 'A' is in line 2 already"]),
        ("dataset,accuracy\n,50\n", ["line 2: no data set"]),
        ("dataset,accuracy\na,83,4\n", ["line 2: 3 fields, the header has 2"]),
    ],
)
def test_what_is_wrong_is_said_with_its_line(written, text, words):
    with pytest.raises(DataError) as caught:
        read_baseline(written(text))
    for each in words:
        assert each in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "b.csv").write_bytes(b"dataset\0,accuracy\n")
    with pytest.raises(DataError, match="no text"):
        read_baseline(tmp_path / "b.csv")


@given(st.lists(st.integers(min_value=2, max_value=100), min_size=1, max_size=5))
def test_a_share_is_a_hundredth_of_its_percent(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("pair")
    for name, by in (("percent", 1), ("share", 100)):
        rows = "".join(f"d{i},{value / by}\n" for i, value in enumerate(values))
        (folder / f"{name}.csv").write_text("dataset,accuracy\n" + rows)
    percent, share = (read_baseline(folder / f"{name}.csv") for name in ("percent", "share"))
    for name, figures in percent.figures.items():
        assert share.figures[name] == pytest.approx(figures)
