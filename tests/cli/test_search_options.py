"""What of the search can be chosen: the sampler and the head, the whole way from the command line to predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import BY_NAMES

from automl_vision.models import head_choice


def search(command: Any, smoke: Path, out: Path, quick: tuple[str, ...], *options: str) -> dict[str, Any]:
    result = command("search", "--data", smoke, "--out", out, *quick, "--json", *options)
    assert result.code == 0, result.err
    assert result.err == ""
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_a_searched_head_and_a_gaussian_process(command: Any, smoke: Path, quick: Any, tmp_path: Path) -> None:
    options = ("--head", "darts", "--sampler", "gp", "--trials", "4")
    report = search(command, smoke, tmp_path / "run", quick, *options)
    head = report["head"]
    assert head["kind"] == "darts"
    assert head["adopted"] == head["reason"].startswith("mlp:")
    assert head["search"]["epochs"][0]["alpha"] and head["search"]["choices"]
    assert report["trials"]["sampler"] == "gp"
    kinds = [(row["kind"], row["origin"]) for row in report["trials"]["table"]]
    assert kinds[:2] == [("probe", "probe"), ("head", "darts")]
    page = (tmp_path / "run" / "report.html").read_text()
    assert head["reason"] in page.replace("&#39;", "'")
    assert 'class="plot head_alpha' in page and 'class="plot settings_tried' in page
    (record,) = (file for file in (tmp_path / "run" / "trials").glob("*.json") if '"darts"' in file.read_text())
    assert json.loads(record.read_text())["notes"]["head_search"]["reason"] == head["reason"]
    again = command("report", tmp_path / "run")
    assert again.code == 0, again.err


def test_one_recipe_is_trained_tested_and_reported_as_it_was_given(
    command: Any, smoke: Path, quick: Any, tmp_path: Path
) -> None:
    given = {
        "epochs": 2,
        "optimizer": "adam",
        "learning_rate": 0.5,
        "weight_decay": 0.5,
        "momentum": 0.3,
        "schedule": "constant",
        "warmup_fraction": 0.6,
        "label_smoothing": 0.6,
        "clip_norm": 0.25,
        "gradient_accumulation": 2,
        "patience": 7,
        "min_improvement": 0.5,
        "layer_decay": 0.2,
    }
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    options = (*flags, "--batch-size", "auto", "--no-head-from-probe", "--no-ema", "--seed", "9", *BY_NAMES)
    report = search(command, smoke, tmp_path / "run", quick, *options, "--precision", "bfloat16")
    (row,) = report["trials"]["table"]
    asked = given | {"batch_size": 16, "head_from_probe": False, "ema": False, "seed": 9}
    assert asked.items() <= row["hyperparameters"].items()
    assert asked.items() <= report["model"]["recipe"].items()
    assert (report["model"]["kind"], row["epochs"], report["budget_seconds"]) == ("finetune", 2, None)
    assert report["environment"]["precision"] == "bfloat16"
    assert "head_from_probe = false" in (tmp_path / "run" / "config.toml").read_text()


def test_backbones_side_by_side_share_one_split_and_one_look_at_the_test_set(
    command: Any, smoke: Path, quick: Any, tmp_path: Path
) -> None:
    names = ["test_efficientnet", "test_resnet"]
    options = ("--budget-per-backbone", "60s", "--backbones", ",".join(names), "--no-pretrained", *BY_NAMES)
    result = command("search", "--data", smoke, "--out", tmp_path / "run", *quick, *options)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["backbones"]["seconds_each"] == 60
    table = report["backbones"]["table"]
    assert {row["backbone"] for row in table} == set(names)
    assert [row["winner"] for row in table] == [True, False]
    assert table[0]["score"] >= table[1]["score"]
    assert table[0]["backbone"] == report["model"]["backbone"]
    assert all(row["trials"] == 2 and row["stop_reason"] == "trials" and row["seconds"] > 0 for row in table)
    assert len(report["looks"]) == 1
    assert "2 backbones, one after the other, each with 1 min: 2 min of search to come" in result.err
    assert [line for line in result.err.splitlines() if line.startswith("Turn ")] == [
        "Turn 1 of 2: test_efficientnet has 1 min.",
        "Turn 2 of 2: test_resnet has 1 min.",
    ]
    (loser,) = (line for line in result.lines() if line.startswith(table[1]["backbone"]))
    assert "not opened" in loser
    assert "the test set was opened once, for the winner alone" in result.out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Backbones side by side" in page and page.count("not opened") == 1
    assert set(json.loads((tmp_path / "run" / "spent.json").read_text())["by_backbone"]) == set(names)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_run_leaves_its_rungs_in_the_history_of_the_machine_and_nothing_private(
    command: Any, smoke: Path, quick: Any, tmp_path: Path, state: Path
) -> None:
    from automl_vision.bundle import load_bundle

    for name in ("one", "two"):
        report = search(command, smoke, tmp_path / name, quick, *BY_NAMES)
    text = (state / "automl-vision" / "history.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["kind"], line["epoch"]) for line in lines] == [("probe", 0), ("finetune", 1)] * 2
    assert len({line["run"] for line in lines}) == 2
    rows = report["trials"]["table"]
    assert [line["score"] for line in lines[2:]] == [row["score"] for row in rows]
    assert lines[3]["recipe"] == rows[1]["hyperparameters"]
    shipped = load_bundle(tmp_path / "two" / "model.pt").provenance
    assert (report["model"]["kind"], shipped["trial"]) == ("finetune", 1)  # one recipe was asked for: it is the model
    counts = report["data"]["class_counts"]
    assert lines[0]["data"]["n_train"] == sum(counts["train"])
    assert lines[0]["backbone"] == {"parameters_m": 4.65, "gmacs": 0.39, "imagenet_top1": 74.8}
    private = [str(tmp_path), str(smoke), smoke.name, "circle", "square", "triangle"]
    assert [word for word in private if word in text] == []


def test_without_a_history_none_is_written(command: Any, smoke: Path, quick: Any, tmp_path: Path, state: Path) -> None:
    search(command, smoke, tmp_path / "run", quick, *BY_NAMES, "--no-history")
    assert [file.name for file in state.rglob("*") if file.is_file()] == ["key"]  # what tells its own runs


def test_a_history_that_cannot_be_written_is_said_once_and_costs_nothing(
    command: Any, smoke: Path, quick: Any, tmp_path: Path, state: Path
) -> None:
    state.write_text("a file where the folder should be")
    result = command("search", "--data", smoke, "--out", tmp_path / "run", *quick, *BY_NAMES)
    assert result.code == 0
    assert result.err.count("history.jsonl is not written on") == 1


def probabilities(file: Path) -> dict[str, list[float]]:
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["path"]: [float(v) for k, v in row.items() if k.startswith("p:")] for row in rows}


def test_an_adopted_head_is_shipped_and_predicts(
    command: Any, smoke: Path, quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six images cannot show that a head is better, so that is said here; everything after it is real."""
    from automl_vision.bundle import load_bundle

    said = {"linear": 0.5, "candidate": 0.9, "gain": 0.4, "standard_error": 0.1, "folds": 5, "repeats": 2}
    monkeypatch.setattr(head_choice, "compare_with_linear", lambda task, layers: said)
    monkeypatch.setitem(head_choice.HEAD_KINDS, "mlp", lambda task: ((head_choice.Layer(32, "tanh"),), None))
    report = search(command, smoke, tmp_path / "run", quick, "--head", "mlp")
    assert report["head"]["adopted"]
    rows = {row["kind"]: row for row in report["trials"]["table"]}
    assert rows["head"]["state"] == "complete"
    assert rows["finetune"]["hyperparameters"]["head"] == "mlp:32-tanh"
    bundle = load_bundle(tmp_path / "run" / "model.pt")
    shipped = report["model"]["head"]
    assert bundle.head == shipped == ("linear" if report["model"]["kind"] == "probe" else "mlp:32-tanh")
    paths = [smoke / name for name in probabilities(tmp_path / "run" / "predictions_test.csv")]
    result = command("predict", tmp_path / "run" / "model.pt", *paths, "--format", "json", "--device", "cpu")
    assert result.code == 0, result.err
    predicted = [json.loads(line)["probabilities"] for line in result.lines()]
    tested = list(probabilities(tmp_path / "run" / "predictions_test.csv").values())
    assert np.allclose([list(each.values()) for each in predicted], tested, atol=1e-6)
