"""`report` with several runs: the table, the files, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from command import assert_harmless, assert_mistake


@pytest.fixture
def both(finished, tmp_path):
    """The finished run and a copy of it under a hostile name."""
    other = tmp_path / "=other\x1b[31m"
    shutil.copytree(finished.path, other)
    return [finished.path, other]


def test_two_runs_of_one_test_set_are_a_pair(command, both, tmp_path):
    result = command("report", *both, "--out", tmp_path / "compared")
    assert result.code == 0, result.err
    assert_harmless(result)
    assert "2 runs on 1 data set" in result.out
    assert "not told apart" in result.out
    assert "looked at 2 times by these 2 runs" in result.out.replace("\n", " ")
    with (tmp_path / "compared" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["test_set"] for row in rows] == ["1", "1"]
    said = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert said["test_sets"][0]["pairs"][0]["p_value"] == 1.0
    assert "Pairs on the same images" in (tmp_path / "compared" / "comparison.html").read_text()


def test_a_baseline_beside_one_run_as_json(command, finished, tmp_path):
    (tmp_path / "published.csv").write_text("dataset,accuracy,f1\nSMOKE,12.5 %,10 %\nothers,1 %,1 %\n")
    result = command("report", finished.path, "--baseline", tmp_path / "published.csv", "--json")
    assert (result.code, result.err) == (0, "")
    said = json.loads(result.out)
    accuracy = finished.report["test"]["accuracy"]["value"]
    assert said["runs"][0]["baseline"]["accuracy"]["difference"] == pytest.approx(accuracy - 0.125)
    assert said["baseline"]["without_run"] == ["others"]
    shown = command("report", finished.path, "--baseline", tmp_path / "published.csv")
    assert "Points over" in shown.out


def test_one_run_alone_is_rendered_again(command, copied):
    (copied.path / "report.html").unlink()
    result = command("report", copied.path)
    assert (result.code, result.out) == (0, f"Wrote {copied.path / 'report.html'}\n")
    assert (copied.path / "report.html").exists()


def test_several_runs_are_verified(command, both):
    result = command("report", *both, "--verify")
    assert (result.code, len(result.lines())) == (0, 2)


def test_what_was_not_compared_is_said(command, copied):
    """Another version has other words in its warnings; whoever changed the version is found to have done so, too."""
    assert "Warnings and checklist are what follows" in command("report", copied.path, "--verify").out
    report = copied.report
    report["environment"]["automl-vision"] = "0.0.1"
    report["warnings"] = []
    report["trials"]["table"][0]["score"] = 0.999
    (copied.path / "report.json").write_text(json.dumps(report))
    result = command("report", copied.path, "--verify")
    assert (result.code, "Warnings and checklist are what follows" in result.out) == (0, False)
    assert "Not compared: its warnings and checklist" in result.out
    assert "version 0.0.1" in result.out
    assert "scores of trials" in result.out


def test_mistakes_of_a_comparison(command, finished, tmp_path):
    run = finished.path
    assert_mistake(command("report", run, run), 2, "named twice")
    assert_mistake(command("report", run, tmp_path / "no"), 2, "no run at this path")
    assert_mistake(command("report", run, tmp_path), 2, "no report in this folder")
    assert_mistake(command("report", run, "--baseline", tmp_path / "no.csv"), 2, "no baseline at this path")
    (tmp_path / "wrong.csv").write_text("dataset,accuracy\nsmoke,much\n")
    assert_mistake(command("report", run, "--baseline", tmp_path / "wrong.csv"), 2, "line 2", "much")
    assert_mistake(command("report", run, "--verify", "--json"), 2, "--verify")
    baseline = tmp_path / "comparison.csv"
    baseline.write_text("dataset,accuracy\nsmoke,50 %\n")
    refused = command("report", run, "--baseline", baseline, "--out", tmp_path)
    assert_mistake(refused, 2, "this would replace", str(baseline))
    (tmp_path / "file").write_text("")
    assert_mistake(command("report", run, "--out", tmp_path / "file" / "x"), 2, "cannot be written")
