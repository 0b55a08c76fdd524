"""Trials that are kept elsewhere: the run folder has copies of their records, and everything finds the rest."""

from __future__ import annotations

import json
from pathlib import Path

from command import assert_mistake


def test_trials_may_be_kept_in_another_folder(command, smoke, quick, tmp_path: Path) -> None:
    run, shared = tmp_path / "run", tmp_path / "shared"
    result = command("search", "--data", smoke, "--out", run, "--trials-url", shared.as_uri(), *quick)
    assert result.code == 0, result.err
    (own,) = shared.iterdir()
    assert own.name.startswith("run-")
    assert json.loads((run / "run.json").read_text())["trials"] == f"{shared.as_uri()}/{own.name}"
    assert {each.name for each in (run / "trials").iterdir()} == {each.name for each in own.glob("*.json")}
    for record in own.glob("*.json"):
        assert json.loads(record.read_text()) == json.loads((run / "trials" / record.name).read_text())
    assert list(own.glob("*/best.pt"))
    assert command("report", run, "--verify").code == 0
    exported = command("export", run, "--trial", "0", "--format", "pt", "--out", tmp_path / "trial.pt")
    assert exported.code == 0, exported.err


def test_a_resumed_run_may_say_where_it_works_and_nothing_else(command, finished) -> None:
    assert_mistake(command("search", "--resume", finished.path, "--epochs", "3"), 2, "keeps its settings")
    assert command("search", "--resume", finished.path, "--cluster", "127.0.0.1:1").code == 0  # nothing is left to do


def test_an_address_that_is_none_is_a_mistake(command, smoke, tmp_path: Path) -> None:
    for option, value in (("--trials-url", "http://host/a"), ("--cluster", "ray://head:10001")):
        result = command("search", "--data", smoke, "--out", tmp_path / "run", option, value)
        assert_mistake(result, 2, "must be")
        assert not (tmp_path / "run").exists()
