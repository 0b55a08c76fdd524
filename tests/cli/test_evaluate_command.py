"""`evaluate` as a command: the page, and what may not be written over."""

from __future__ import annotations

import json

from command import assert_harmless, assert_mistake

from make_smoke_data import make_smoke_data


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
