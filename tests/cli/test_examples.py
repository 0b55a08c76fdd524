"""The examples, run as their scripts say, and whether they keep what their pages promise."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Result
from run_script import ROOT, commands, run_script

from automl_vision.config import TrainingSettings, load_settings

#: A path from the root of a machine; not an address, not a path inside the repository.
WHOLE_PATH = re.compile(r"(?<![\w.~:/*`\])-])/[a-z]+/")
EXAMPLES = ("compare_cnns", "darts", "duo", "finetune_vit", "pets")


def script(name: str) -> Path:
    return ROOT / "examples" / name / "run.sh"


def config(name: str) -> Path:
    return ROOT / "configs" / f"{name}.toml"


def report_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report.json").read_text()))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


#: What keeps each script short beyond the one epoch of them all: fewer pictures, in larger batches.
SMALLER = {
    "compare_cnns": ("--max-samples", "200", "--batch-size", "32"),
    "darts": ("--max-samples", "100", "--batch-size", "32", "--resolutions", "32", "--refit", "off"),
    "duo": ("--max-samples", "240", "--batch-size", "32"),
    "finetune_vit": ("--max-samples", "200"),
    "pets": ("--max-samples", "450", "--resolutions", "32"),
}
Run = Callable[[str], list[Result]]


@pytest.fixture
def run(cache: Path, tmp_path: Path) -> Run:
    """Run a script in little; what the tests look at does not depend on how little."""
    shared = ("--epochs", "1", "--device", "cpu", "--cache-dir", str(cache))
    return lambda name: run_script(script(name), tmp_path, *shared, *SMALLER[name])


# --- scripts, configurations and pages belong together ----------------------------------------------------------------


def test_there_is_a_page_a_configuration_and_a_script_for_each() -> None:
    assert tuple(sorted(file.parent.name for file in ROOT.glob("examples/*/run.sh"))) == EXAMPLES
    assert [name for name in EXAMPLES if not config(name).is_file()] == []
    assert tuple(sorted(file.stem for file in ROOT.glob("docs/examples/*.md"))) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_script_has_known_commands_alone_and_uses_its_configuration(name: str, tmp_path: Path) -> None:
    found = commands(script(name), tmp_path, "--quiet")
    assert {words[0] for words in found} <= {"python", "automl-vision"}
    searches = [words for words in found if words[1] == "search"]
    assert searches
    for words in searches:
        assert words[words.index("--config") + 1] == f"configs/{name}.toml"
        assert words[-1] == "--quiet"
    assert [words[1] for words in found if words[0] == "python" and not (ROOT / words[1]).is_file()] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_names_its_script_and_its_configuration_and_shows_no_path_of_a_machine(name: str) -> None:
    page = (ROOT / "docs" / "examples" / f"{name}.md").read_text()
    assert f"sh examples/{name}/run.sh" in page
    assert f"configs/{name}.toml" in page
    assert WHOLE_PATH.search(f"in {ROOT}/docs") is not None
    assert WHOLE_PATH.findall(page) == []


# --- the examples themselves ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_duo_compares_four_backbones_and_no_copy_is_on_the_other_side(tmp_path: Path, run: Run) -> None:
    *_, searched = run("duo")
    report = report_of(tmp_path / "run")
    table = rows(tmp_path / "run" / "split.csv")
    by_set = defaultdict(set)
    for row in table:
        by_set[row["split"]].add(source(row["path"]))
    tested = [row for row in table if row["split"] == "test"]
    assert {row["role"] for row in tested} == {"original"}
    assert report["test"]["n"] == len(tested) == len(by_set["test"]) == 16
    assert by_set["test"] & (by_set["train"] | by_set["val"]) == set()
    assert by_set["val"] & by_set["train"] == set()
    trained = Counter(row["role"] for row in table if row["split"] == "train")
    assert trained["copy"] == 2 * trained["original"] > 0
    side_by_side = report["backbones"]["table"]
    assert {row["backbone"] for row in side_by_side} == set(load_settings(config("duo")).search.backbones)
    assert [row["winner"] for row in side_by_side] == [True, False, False, False]
    assert all(row["trials"] for row in side_by_side)
    assert len(report["looks"]) == 1
    assert report["impact"]["measured"]
    assert "opened once, for the winner alone" in " ".join(searched.out.split())


def source(path: str) -> tuple[str, str]:
    """The original that a file of `make_duo` goes back to: its class and its number."""
    label, _, name = path.partition("/")
    return label, name.removeprefix(f"{label}_original_")[:6]


@pytest.mark.slow
def test_pets_merges_labels_and_shows_what_accuracy_hides(tmp_path: Path, run: Run) -> None:
    results = run("pets")
    reports = {name: report_of(tmp_path / name) for name in ("pretrained", "scratch")}
    for name, report in reports.items():
        test = report["test"]
        assert report["objective"] == "macro_f1"
        assert {row["class"]: row["support"] for row in test["per_class"]} == {"other": 48, "shirt": 12}
        assert report["model"]["recipe"]["pretrained"] == (name == "pretrained")
        (majority,) = (row for row in report["baselines"] if row["name"] == "majority class")
        assert majority["accuracy"]["value"] == pytest.approx(0.8)
        recalls = [row["recall"]["value"] for row in test["per_class"]]
        assert test["balanced_accuracy"]["value"] == pytest.approx(sum(recalls) / 2)
        assert test["balanced_accuracy"]["value"] != pytest.approx(test["accuracy"]["value"], abs=0.005)
        f1 = [row["f1"]["value"] for row in test["per_class"]]
        assert test["macro_f1"]["value"] == pytest.approx(sum(f1) / 2)
    for result in results:
        assert [
            words for words in ("balanced accuracy", "accuracy of the majority class") if words not in result.out
        ] == []
    splits = [(tmp_path / name / "split.csv").read_bytes() for name in reports]
    assert splits[0] == splits[1]


@pytest.mark.slow
def test_finetune_vit_trains_the_one_recipe_that_was_written_down(tmp_path: Path, run: Run) -> None:
    run("finetune_vit")
    report = report_of(tmp_path / "run")
    written = dataclasses.asdict(load_settings(config("finetune_vit")).training)
    asked = written | {"epochs": 1, "backbone": "vit_small", "head": "linear", "pretrained": False, "seed": 7}
    (trial,) = report["trials"]["table"]
    assert asked.items() <= report["model"]["recipe"].items()
    assert asked.items() <= trial["hyperparameters"].items()
    assert report["trials"]["one_recipe"]
    assert (report["head"], report["trials"]["symmetries"], report["finish"]["refit"]) == (None, None, None)


def test_finetune_vit_leaves_no_parameter_of_the_training_to_a_rule() -> None:
    training = load_settings(config("finetune_vit")).training
    assert [each.name for each in dataclasses.fields(TrainingSettings) if getattr(training, each.name) is None] == []


@pytest.mark.slow
def test_darts_searches_heads_and_asks_a_gaussian_process_on_each_data_set(tmp_path: Path, run: Run) -> None:
    *_, printed = run("darts")
    names = ("fashion", "digits", "fashion-pretrained")
    for name in names:
        report = report_of(tmp_path / name)
        head = report["head"]
        assert head["kind"] == "darts"
        assert head["search"]["epochs"][0]["alpha"] and head["search"]["choices"]
        assert head["adopted"] == head["reason"].startswith("mlp:")
        assert report["trials"]["sampler"] == "gp"
        origins = [row["origin"] for row in report["trials"]["table"] if row["kind"] == "finetune"]
        assert origins == ["portfolio"] * 3 + ["gp"]
        tuned = [row["hyperparameters"] for row in report["trials"]["table"] if row["kind"] == "finetune"]
        assert {recipe["augment"] for recipe in tuned} == {"geometric"}
        assert {recipe["horizontal_flip"] for recipe in tuned} == {name != "digits"}
    assert report_of(tmp_path / "digits")["model"]["backbone"] == "resnet34"
    lines = printed.out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(names)
    for name, line in zip(names, lines[2:], strict=True):
        assert f" {report_of(tmp_path / name)['test']['accuracy']['value']:.3f} (" in line
        assert report_of(tmp_path / name)["head"]["reason"] in line


@pytest.mark.slow
def test_compare_cnns_differ_in_the_network_alone_and_are_asked_elsewhere(tmp_path: Path, run: Run) -> None:
    *_, printed = run("compare_cnns")
    names = load_settings(config("compare_cnns")).search.backbones
    assert names == ["mobilenetv2_100", "resnet50", "efficientnet_b0", "densenet121"]
    reports = [report_of(tmp_path / name) for name in names]
    assert [report["model"]["backbone"] for report in reports] == names
    recipes = [report["model"]["recipe"] | {"backbone": ""} for report in reports]
    assert recipes == recipes[:1] * 4
    assert len({(tmp_path / name / "split.csv").read_bytes() for name in names}) == 1
    for name, report in zip(names, reports, strict=True):
        elsewhere = json.loads((tmp_path / name / "elsewhere.json").read_text())
        assert (elsewhere["n"], elsewhere["known"]["seen"]) == (200, {"exactly": 0, "nearly": 0})
        assert report["test"]["n"] == 40
        line = next(line for line in printed.out.splitlines() if line.startswith(f"| {name} "))
        assert f" {elsewhere['accuracy']['value']:.3f} (" in line
    assert [line.split("|")[1].strip() for line in printed.out.partition("| recall")[2].splitlines()[2:]] == [
        row["class"] for row in reports[0]["test"]["per_class"]
    ]
