"""What models cost, limits to it, and trials as model files, as a user meets them."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from command import BY_NAMES, assert_harmless, assert_mistake, run_command

from automl_vision.bundle import load_bundle, save_bundle
from automl_vision.exporting.trial_model import trial_bundle
from automl_vision.report.predictions import Predictions
from automl_vision.search.trial_files import TrialFiles


@pytest.fixture(scope="module")
def finished(smoke, quick, tmp_path_factory):
    """A search without a budget, so that there is time to measure however busy the machine is, within wide limits."""
    path = tmp_path_factory.mktemp("costs") / "run"
    limits = ("--max-latency-ms", "100000", "--max-size-mb", "14.5", "--max-params-m", "4")
    result = run_command("search", "--data", smoke, *quick, *BY_NAMES, "--out", path, *limits)
    report = json.loads((path / "report.json").read_text()) if result.code == 0 else {}
    return SimpleNamespace(path=path, data=smoke, result=result, model=path / "model.pt", report=report)


@pytest.fixture(scope="module")
def kept(finished):
    """Numbers of the trials of the finished run whose weights are there."""
    return TrialFiles(finished.path / "trials").with_weights()


def test_the_run_tells_what_its_networks_cost(finished):
    costs = finished.report["costs"]
    assert costs["measured"], costs["detail"]
    (network, *_) = costs["networks"]
    timing = network["on"]["cpu"]
    assert 0 < timing["p50_ms"] <= timing["p95_ms"]
    assert timing["passes"] >= 30
    assert timing["batch"]["images_per_second"] > 0
    assert network["parameters"] > 1e6
    assert network["size_mb"] == pytest.approx(finished.model.stat().st_size / 1e6, rel=0.02)
    assert costs["shipped"]["size_mb"] == pytest.approx(finished.model.stat().st_size / 1e6, rel=1e-3)
    tuned = [row for row in finished.report["trials"]["table"] if row["kind"] == "finetune" and row["score"]]
    if tuned:
        assert 0 < network["training"]["cpu_utilisation"] < 1.5
    assert costs["front"]
    assert set(costs["front"]) <= {row["number"] for row in finished.report["trials"]["table"]}
    assert "costs" in finished.report["seconds"]
    assert "Backbones with what they cost" in (finished.path / "report.html").read_text()


def test_weights_of_the_front_are_kept(finished, kept):
    assert set(finished.report["costs"]["front"]) <= set(kept)


def test_no_network_that_fits_ends_at_once_and_leaves_nothing(smoke, quick, command, tmp_path):
    out = tmp_path / "run"
    result = command("search", "--data", smoke, *quick, *BY_NAMES, "--out", out, "--max-params-m", "1")
    assert_mistake(result, 2, "efficientnet_lite0 at 224 px with 3.37 million parameters (limit 1)", "--max-params-m")
    assert not out.exists()
    result = command("search", "--data", smoke, *quick, *BY_NAMES, "--out", out, "--max-latency-ms", "0.001")
    assert_mistake(result, 2, "efficientnet_lite0 at 32 px", "for one image (limit 0.001)", "--max-latency-ms")
    assert not out.exists()


def test_limits_must_be_above_nothing(smoke, quick, command):
    result = command("search", "--data", smoke, *quick, "--max-size-mb", "0")
    assert_mistake(result, 2, "limits.max_size_mb must be above 0")


def test_a_run_within_limits_says_so_and_keeps_what_it_found_first(finished):
    assert finished.result.code == 0, finished.result.err
    costs = finished.report["costs"]
    assert costs["limits"] == {"latency_ms": 100000.0, "size_mb": 14.5, "params_m": 4.0}
    assert costs["shipped"]["excess"] == ""
    assert "The shipped model keeps to that." in (finished.path / "report.html").read_text()
    found = json.loads((finished.path / "run.json").read_text())["limits"]
    assert found["sides"] == {"efficientnet_lite0": [32]}
    assert found["latencies"][0][2] > 0


def test_a_trial_becomes_a_model_file_that_is_calibrated_and_says_it_was_not_tested(finished, command, kept, tmp_path):
    number = kept[0]
    out = tmp_path / "trial.pt"
    result = command("export", finished.path, "--trial", str(number), "--format", "pt", "--out", out)
    assert result.code == 0, result.err
    assert_harmless(result)
    assert "It was not tested." in result.out
    bundle, shipped = load_bundle(out), load_bundle(finished.model)
    about = bundle.provenance
    assert (about["trial"], about["tested"]) == (number, False)
    assert "test" not in about
    assert about["looks"] == json.loads((finished.path / "looks.json").read_text())
    assert bundle.class_names == shipped.class_names
    card = (tmp_path / "trial.pt.md").read_text()
    assert "This model has not been tested" in card
    row = next(each for each in finished.report["trials"]["table"] if each["number"] == number)
    assert f"{row['score']:.3f}" in card

    val = Predictions.from_csv(finished.path / "predictions_val.csv")
    paths = [finished.data / path for path in val.paths]
    said = command("predict", out, *paths, "--format", "json")
    assert said.code == 0, said.err
    right = [json.loads(line)["label"] for line in said.lines()]
    names = [val.class_names[label] for label in val.labels]
    score = sum(a == b for a, b in zip(right, names, strict=True)) / len(names)
    if finished.report["objective"] == "accuracy":
        assert score == pytest.approx(row["score"], abs=1e-6)


def test_nothing_is_written_over_and_the_model_of_the_run_never_is(copied, command, kept):
    form = ("--trial", str(kept[0]), "--format", "pt")
    assert command("export", copied.path, *form).code == 0
    assert (copied.path / f"model-trial-{kept[0]}.pt").is_file()
    assert_mistake(command("export", copied.path, *form), 2, "something at this place", "--force")
    assert command("export", copied.path, *form, "--force").code == 0
    before = copied.model.read_bytes()
    result = command("export", copied.path, *form, "--force", "--out", copied.model)
    assert_mistake(result, 2, "something at this place")
    assert copied.model.read_bytes() == before


def test_a_trial_goes_into_other_formats_with_a_card_that_has_no_test_figure(copied, command, kept):
    result = command("export", copied.path, "--trial", str(kept[0]), "--format", "huggingface")
    assert result.code == 0, result.err
    card = (copied.path / f"huggingface-trial-{kept[0]}" / "README.md").read_text()
    assert "This model has not been tested" in card
    assert "Figures on the test set" not in card
    assert "training images of the run" in result.out
    assert not list(copied.path.glob("*.tmp"))


def test_a_trial_sees_images_as_the_run_saw_them(copied, kept):
    shipped = load_bundle(copied.model)
    others = tuple(replace(each, preprocessing=replace(each.preprocessing, resize="middle")) for each in shipped.others)
    seen = replace(shipped.preprocessing, resize="middle")
    save_bundle(replace(shipped, preprocessing=seen, others=others), copied.model)
    assert trial_bundle(copied.path, kept[0]).preprocessing.resize == "middle"


def test_a_trial_does_not_replace_the_model(copied, command, kept):
    before = copied.model.read_bytes()
    form = ("--trial", str(kept[0]), "--format", "torchscript")
    assert_mistake(command("export", copied.path, *form, "--out", copied.model, "--force"), 2, "replace the model")
    assert copied.model.read_bytes() == before


def test_mistakes_with_trials(finished, copied, command, kept, tmp_path):
    form = ("--format", "pt")
    assert_mistake(command("export", finished.path, "--trial", "999", *form), 2, "no such trial", str(kept[0]))
    assert_mistake(command("export", finished.model, *form), 2, "--trial")
    assert_mistake(command("export", finished.model, "--trial", "0", *form), 2, "folder of a run")
    assert_mistake(command("export", tmp_path / "no", "--trial", "0", *form), 2, "no run at this path")
    assert_mistake(command("export", finished.data, "--trial", "0", *form), 2, "no finished run")
    assert_mistake(command("export", finished.path, "--trial", "0", *form, "--int8"), 2, "8 bits")
    (copied.path / "trials" / f"{kept[0]:06d}" / "best.pt").unlink()
    assert_mistake(command("export", copied.path, "--trial", str(kept[0]), *form), 2, "weights of this trial")
