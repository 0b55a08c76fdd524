"""Names of files and classes are data: whatever is in them, the run goes through and the terminal stays sound."""

from __future__ import annotations

import csv
import json
import os
import sys

import pytest
from command import assert_harmless

from automl_vision.spreadsheet import rearmed
from make_smoke_data import make_smoke_data

#: File name -> class folder; both are spliced into otherwise sound data.
ODD = {
    "circle": "a 'b' \"c\" & d.png",
    "square": "new\nline.png",
    "triangle": "\x1b[31m\x1b]0;owned\x07red[bold][\\].png",
    "cross": "📷 смайл <b>&amp;.png",
    "ring": "‮gnp.exe|`rm`$(x);.png",
    "diamond": "=cmd()\t,;.png",
}
CLASSES = {
    "circle": 'it\'s "round"',
    "square": "two\nlines",
    "triangle": "\x1b[2J[bold]clear[red]",
    "cross": "<script>alert(1)<script>",
    "ring": "=SUM(A1)",
    "diamond": "{{ 7*7 }} 📷",
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """6 classes of 5 images, one of each under an odd name; and one file name that is no text."""
    folder = tmp_path_factory.mktemp("odd [data] 'x'") / "ünï code"
    make_smoke_data(folder, classes=6, images=5)
    for shape, name in CLASSES.items():
        (folder / shape / "0000.png").rename(folder / shape / ODD[shape])
        (folder / shape).rename(folder / name)
    if sys.platform == "linux":
        undecodable = os.fsencode(folder / CLASSES["circle"]) + b"/\xff\xfe.png"
        (folder / CLASSES["circle"] / "0001.png").rename(os.fsdecode(undecodable))
    return folder


@pytest.fixture(scope="module")
def run(odd, quick, tmp_path_factory):
    from command import run_command

    out = tmp_path_factory.mktemp("runs") / "odd 'run' [" / "]"
    return out, run_command("search", "--data", odd, *quick, "--out", out)


def test_the_search_goes_through(run):
    out, result = run
    assert result.code == 0, result.err
    assert_harmless(result)
    report = json.loads((out / "report.json").read_text())
    assert report["test"]["classes"] == sorted(CLASSES.values())


def test_every_image_is_in_the_split_under_its_label(run, odd):
    out, _ = run
    with (out / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert {rearmed(row["label"]) for row in rows} == set(CLASSES.values())
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for shape, name in CLASSES.items():
        assert f"{name}/{ODD[shape]}" in {rearmed(row["path"]) for row in rows}


def test_the_saved_predictions_give_the_report(run, command):
    out, _ = run
    result = command("report", out, "--verify")
    assert (result.code, result.err) == (0, "")


def test_nothing_of_a_name_acts_in_the_page_or_the_card(run):
    out, _ = run
    page = (out / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "{{ 7*7 }}" in page
    card = (out / "README.md").read_text()
    assert "<script>" not in card
    assert "\x1b" not in card


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_predict(run, odd, command, form):
    out, _ = run
    result = command("predict", out / "model.pt", odd, "--format", form)
    assert result.code == 0, result.err
    if form == "csv":
        rows = list(csv.reader(result.out.splitlines(keepends=True)))
        assert len(rows) == 31
        assert not [cell for row in rows for cell in row if cell[:1] == "="]
        return  # the file is for programs: its cells are what the names are
    assert_harmless(result)
    if form == "json":
        assert len(result.lines()) == 30
        assert {json.loads(line)["status"] for line in result.lines()} == {"ok"}


def test_predict_a_broken_image_of_an_odd_name(run, command, tmp_path):
    out, _ = run
    broken = tmp_path / "\x1b[31m[" / "]\nbroken.png"  # "[/]" in the path
    broken.parent.mkdir()
    broken.write_bytes(b"nothing")
    result = command("predict", out / "model.pt", broken)
    assert result.code == 3
    assert_harmless(result)
    assert len(result.lines()) == 1


def test_inspect_and_evaluate(run, odd, command, cache, tmp_path):
    out, _ = run
    seen = command("inspect", "--data", odd, "--cache-dir", cache, "--out", tmp_path / "\x1b[31m[/] out")
    assert seen.code == 0, seen.err
    assert_harmless(seen)
    measured = command("evaluate", out / "model.pt", "--data", odd)
    assert measured.code == 0, measured.err
    assert_harmless(measured)
    known = json.loads(command("evaluate", out / "model.pt", "--data", odd, "--json").out)["known"]
    assert known["all"]["n"] == 30  # its own images, all of which it knows
    assert len(known["images"]) == 30


def test_a_mistake_with_an_odd_name(command, tmp_path):
    for data in ("\x1b[2Jx", "[/bold]", "two\nlines", os.fsdecode(b"\xff")):
        result = command("search", "--data", tmp_path / data)
        assert result.code == 2
        assert_harmless(result)
        assert "Fix: " in result.err
