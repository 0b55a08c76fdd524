"""Rows of predictions: one schema for good and broken images, the order kept, and the most probable classes."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from command import assert_mistake
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.cli import prediction_rows
from automl_vision.cli.prediction_rows import Columns, best_places, json_rows, more_cells, more_titles, write_parquet
from automl_vision.errors import UsageError
from automl_vision.prediction import Prediction

KEYS = ["path", "status", "label", "probability", "probabilities", "error"]


def said(path, *chances, status="ok"):
    best = int(np.argmax(chances))
    label = "abc"[best] if status == "ok" else None
    return Prediction(path, status, label, chances[best], np.array(chances, dtype=np.float64))


def broken(path):
    return Prediction(path, "error", error="truncated: ends early")


ROWS = [said("x.png", 0.2, 0.5, 0.3), broken("y\udcff.png"), said("z.png", 0.4, 0.4, 0.2, status="abstained")]


def test_lines_of_json_have_the_same_keys():
    rows = [json.loads(line) for line in json_rows(ROWS, Columns("abc"))]
    assert [list(row) for row in rows] == [KEYS] * 3
    assert [row["status"] for row in rows] == ["ok", "error", "abstained"]
    assert rows[1] == dict.fromkeys(KEYS) | {"path": "y\udcff.png", "status": "error", "error": "truncated: ends early"}
    assert (rows[0]["error"], rows[2]["label"]) == (None, None)


def test_lines_come_one_by_one():
    def endless():
        while True:
            yield ROWS[0]

    lines = json_rows(endless(), Columns("abc"))
    assert next(lines) == next(lines)


def test_the_most_probable_classes_are_best_first_and_the_label_is_the_first():
    rows = [json.loads(line) for line in json_rows(ROWS, Columns("abc", 2))]
    assert [list(row) for row in rows] == [[*KEYS, "top"]] * 3
    assert rows[0]["top"] == [{"label": "b", "probability": 0.5}, {"label": "c", "probability": 0.3}]
    assert rows[1]["top"] is None
    assert [each["label"] for each in rows[2]["top"]] == ["a", "b"]  # equal: the first


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6), st.integers(1, 9))
def test_the_best_place_is_that_of_argmax(chances, top):
    array = np.array(chances)
    places = best_places(array, top)
    assert places[0] == array.argmax()
    assert len(places) == min(top, len(chances))
    assert sorted(array[places], reverse=True) == list(array[places])


@pytest.mark.parametrize("top", [1, 2, 3, 50])
def test_there_are_as_many_cells_as_titles(top):
    for heat_map in (False, True):
        columns = Columns("abc", top, heat_map)
        titles = more_titles(columns)
        assert len(titles) == (0 if top == 1 else 2 * min(top, 3)) + heat_map
        assert {len(more_cells(row, columns)) for row in ROWS} == {len(titles)}


def test_every_form_tells_where_a_heat_map_is(tmp_path):
    columns, drawn = Columns("abc", heat_map=True), replace(ROWS[0], heat_map="maps/x.png")
    rows = [json.loads(line) for line in json_rows([drawn, ROWS[1]], columns)]
    assert [row["heat_map"] for row in rows] == ["maps/x.png", None]
    write_parquet(iter([drawn, ROWS[1]]), columns, tmp_path / "p.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    assert table.column("heat_map").to_pylist() == ["maps/x.png", None]


@pytest.mark.parametrize("ahead", [1, 2, 4096])
def test_parquet_holds_every_row_in_order(tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(prediction_rows, "ROWS_AHEAD", ahead)
    write_parquet(iter(ROWS), Columns(["a", "b", "c\udcff"], 2), tmp_path / "p.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["path"] for row in rows] == ["x.png", "y\\udcff.png", "z.png"]
    assert rows[0]["p:c\\udcff"] == 0.3
    assert (rows[0]["top_1"], rows[0]["top_2_probability"]) == ("b", 0.3)
    nothing = {"path", "status", "error"}
    assert {key for key, value in rows[1].items() if value is not None} == nothing
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_parquet_of_errors_alone_has_the_same_columns(tmp_path):
    for name, rows in (("good", ROWS[:1]), ("bad", ROWS[1:2]), ("none", [])):
        write_parquet(iter(rows), Columns("abc", 2), tmp_path / name)
    schemas = [pyarrow.parquet.read_schema(tmp_path / name) for name in ("good", "bad", "none")]
    assert schemas[0] == schemas[1] == schemas[2]


def test_what_breaks_half_way_leaves_the_former_file(tmp_path):
    file = tmp_path / "p.parquet"
    write_parquet(iter(ROWS), Columns("abc"), file)
    before = file.read_bytes()

    def breaking():
        yield ROWS[0]
        raise UsageError("no more")

    with pytest.raises(UsageError):
        write_parquet(breaking(), Columns("abc"), file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def images(finished, tmp_path):
    """A good image, a broken one and one with an odd name."""
    good = finished.data / "circle" / "0001.png"
    bad, odd = tmp_path / "bad.png", tmp_path / "=1+1.png"
    bad.write_bytes(good.read_bytes()[:60])
    odd.write_bytes(good.read_bytes())
    return [good, bad, odd]


def test_all_formats_say_the_same(command, finished, images, tmp_path):
    options = ("--top", "2", "--abstain", "0.01")
    lines = command("predict", finished.model, *images, "--format", "jsonl", *options)
    assert lines.code == 3
    rows = [json.loads(line) for line in lines.lines()]
    assert [row["path"] for row in rows] == [str(image) for image in images]
    file = tmp_path / "p.parquet"
    result = command("predict", finished.model, *images, "--format", "parquet", "--output", file, *options)
    assert (result.code, result.out) == (3, "")
    table = pyarrow.parquet.read_table(file).to_pylist()
    text = command("predict", finished.model, *images, "--format", "csv", *options)
    cells = list(csv.DictReader(io.StringIO(text.out)))
    objects = [json.loads(each) for each in command("predict", finished.model, *images, "--format", "json").lines()]
    for row, flat, cell, plain in zip(rows, table, cells, objects, strict=True):
        assert flat["path"] == row["path"] == cell["path"].removeprefix("'") == plain["path"]
        assert flat["status"] == row["status"] == cell["status"] == plain["status"]
        assert flat["probability"] == row["probability"] == plain["probability"]
        assert flat["error"] == row["error"] == plain.get("error")
        assert (cell["top_2"] or None) == flat["top_2"]
        assert cell.keys() == flat.keys()
        if row["top"]:
            assert row["top"][1]["label"] == flat["top_2"]
            assert row["probabilities"] == {key[2:]: value for key, value in flat.items() if key.startswith("p:")}


def test_parquet_needs_a_file_before_anything_is_loaded(command, finished, images, tmp_path):
    assert_mistake(command("predict", finished.model, *images, "--format", "parquet"), 2, "Parquet needs a file")
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path / "pipe", tmp_path, "/dev/null"):
        refused = command("predict", finished.model, *images, "--format", "parquet", "--out", out)
        assert_mistake(refused, 2, "must be a file", str(out))
    refused = command(
        "predict", finished.model, images[0], "--format", "parquet", "--out", tmp_path / "no" / "p.parquet"
    )
    assert_mistake(refused, 2, "cannot be written")


@pytest.mark.skipif(sys.platform == "win32", reason="file names are text there")
def test_a_name_that_is_no_text_gets_its_row(command, finished, images, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    images[2].rename(odd)
    file = tmp_path / "p.parquet"
    assert command("predict", finished.model, odd, "--format", "parquet", "--out", file).code == 0
    (row,) = pyarrow.parquet.read_table(file).to_pylist()
    assert row["path"].endswith("\\udcff.png")
