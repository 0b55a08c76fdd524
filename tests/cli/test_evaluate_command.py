"""`evaluate` as a command: the page, and what may not be written over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import assert_harmless, assert_mistake

from make_smoke_data import make_smoke_data

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_drop_is_told_and_the_page_is_written(finished, command, tmp_path):
    make_smoke_data(tmp_path / "other", images=4, seed=9)
    page = tmp_path / "page.html"
    arguments = ("evaluate", finished.model, "--data", tmp_path / "other", "--quiet")
    result = command(*arguments, "--page", page)
    assert result.code == 0, result.err
    assert_harmless(result)
    assert "drop in points" in result.out
    text = page.read_text()
    assert "Recall, own test" in text
    said = json.loads(command(*arguments, "--json").out)
    assert said["drop"]["source"] == "the model file"
    assert said["drop"]["accuracy"]["before"] == finished.report["test"]["accuracy"]["value"]
    assert {row["class"] for row in said["drop"]["classes"]} == {"circle", "square", "triangle"}
    assert said["missing_classes"] == []


def test_what_is_no_file_is_not_replaced(command, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    for option in ("--out", "--page"):
        refused = command("evaluate", tmp_path / "model.pt", "--data", tmp_path, option, "/dev/null")
        assert_mistake(refused, 2, "must be a file", "/dev/null")


@pytest.fixture
def data(tmp_path):
    """A set, a table of it, a map of its classes, and a model that need not be one."""
    make_smoke_data(tmp_path / "data", images=1)
    images = sorted((tmp_path / "data").rglob("*.png"))
    rows = "".join(f"{image.relative_to(tmp_path / 'data')},{image.parent.name}\n" for image in images)
    (tmp_path / "data" / "split.csv").write_text(f"file,label\n{rows}")
    (tmp_path / "data" / "test-000000.tar").write_bytes(b"a shard")
    (tmp_path / "map.csv").write_text("circle,circle\n")
    (tmp_path / "model.pt").write_bytes(b"")
    return tmp_path / "data"


def contents(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("option", ["--out", "--page"])
def test_nothing_that_is_read_is_replaced(command, tmp_path, data, option):
    (tmp_path / "link.html").symlink_to(data / "split.csv")
    before = contents(tmp_path)
    for given, file in (
        (data, data / "test-000000.tar"),
        (data, data / "split.csv"),
        (data, tmp_path / "link.html"),
        (data / "split.csv", data / "split.csv"),
        (data, tmp_path / "map.csv"),
    ):
        arguments = ("--data", given, "--label-map", tmp_path / "map.csv", option, file)
        assert_mistake(command("evaluate", tmp_path / "model.pt", *arguments), 2, "this would replace", str(file))
    assert contents(tmp_path) == before


def test_the_page_does_not_replace_the_predictions(command, tmp_path, data):
    both = ("--out", tmp_path / "new", "--page", data / ".." / "new")
    refused = command("evaluate", tmp_path / "model.pt", "--data", data, *both)
    assert_mistake(refused, 2, "the page would replace the predictions")


@pytest.mark.parametrize("given", ["", "split.csv"])
def test_an_inspection_replaces_nothing_of_the_data(command, data, given):
    before = contents(data)
    refused = command("inspect", "--data", data / given, "--out", data)
    assert_mistake(refused, 2, "this would replace", str(data / "split.csv"))
    assert contents(data) == before


def test_an_inspection_replaces_no_map_of_classes(command, data, tmp_path):
    audit = (tmp_path / "map.csv").rename(tmp_path / "audit.csv")
    refused = command("inspect", "--data", data, "--label-map", audit, "--out", tmp_path)
    assert_mistake(refused, 2, "this would replace", str(audit))


def test_a_gate_whose_output_nobody_reads_does_not_pass(tmp_path):
    """As in `evaluate ... --fail-on-leak | head -c 1` of a shell that looks at what every command of a pipe said."""
    model = Path(shutil.copy(GOLDEN / "run" / "model.pt", tmp_path / "model.pt"))
    make_smoke_data(tmp_path / "shapes")
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "automl_vision", "evaluate", model, "--data", tmp_path / "shapes", "--fail-on-leak"]
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode not in (0, 3), done.stderr
