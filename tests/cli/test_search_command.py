"""The whole way: a folder of images to a run folder in which everything is as docs/files.md says."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import tomllib
from pathlib import Path

import pytest
from command import BY_NAMES, assert_harmless

from automl_vision.config import load_settings
from make_smoke_data import make_smoke_data

FILES = {
    *("report.html", "report.json", "model.pt", "README.md", "config.toml", "split.csv", "audit.csv"),
    *("predictions_test.csv", "predictions_val.csv", "trials.csv", "trials", "study.db", "events.log"),
    *("looks.json", "run.json", "spent.json", "compared.json", "gallery.json", "label_suspects.csv"),
}
GOLDEN = Path(__file__).parents[1] / "golden"
FINE_TUNES = load_settings(Path(__file__).parents[2] / "configs" / "smoke.toml").search.trials
SPLITS = {"train", "val", "test", "aside", "quarantine"}
ROLES = {"original", "copy", "unsure"}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_search_exits_0_and_says_nothing_on_stderr_with_json(finished):
    assert finished.result.code == 0, finished.result.err
    assert finished.result.err == ""


def test_json_is_one_object_with_the_report_in_it(finished):
    (line,) = finished.result.out.splitlines()
    said = json.loads(line)
    assert said.pop("run") == str(finished.path)
    assert said.pop("model_file") == str(finished.model)
    assert said == finished.report


def test_every_file_is_there_and_no_other(finished):
    here = {each.name for each in finished.path.iterdir() if not each.name.startswith(".")}
    assert here == FILES
    assert all(each.stat().st_size for each in finished.path.iterdir() if each.name != ".lock")


def test_every_file_of_a_run_is_on_the_page_of_files(finished):
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
    assert [name for name in FILES if f"`{name}" not in page] == []


def test_split_csv_has_one_row_per_image(finished):
    with (finished.path / "split.csv").open() as file:
        assert file.readline() == "path,label,split,group,role,eligible\n"
    table = rows(finished.path / "split.csv")
    images = {str(path.relative_to(finished.data)) for path in finished.data.rglob("*.png")}
    assert {row["path"] for row in table} == images
    assert len(table) == len(images)
    for row in table:
        assert row["label"] == row["path"].split("/")[0]
        assert row["split"] in SPLITS
        assert row["role"] in ROLES
        assert row["eligible"] in {"0", "1"}
        assert row["group"].isdecimal()
        assert row["eligible"] == "1" or row["split"] != "test"


def test_every_class_is_in_every_set(finished):
    table = rows(finished.path / "split.csv")
    assert {(row["label"], row["split"]) for row in table} == {
        (label, name) for label in ("circle", "square", "triangle") for name in ("train", "val", "test")
    }


def test_report_json_has_the_keys_that_scripts_rely_on(finished):
    report = finished.report
    assert report["format"] == 1
    assert {
        *("test", "validation", "augmented_validation", "baselines", "looks", "stop_reason", "budget_seconds"),
        *("seconds", "trials", "environment"),
    } <= set(report)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "micro_f1", "roc_auc"):
        assert set(report["test"][name]) == {"value", "low", "high"}
        assert report["test"][name]["low"] <= report["test"][name]["value"] <= report["test"][name]["high"]
    assert [row["class"] for row in report["test"]["per_class"]] == ["circle", "square", "triangle"]
    assert [len(row) for row in report["test"]["confusion"]] == [3, 3, 3]
    assert report["augmented_validation"] is None  # there are no copies
    assert len(report["looks"]) == 1
    assert report["stop_reason"] == "trials"
    assert report["budget_seconds"] == 60
    assert report["trials"]["total"] == report["trials"]["complete"] == 1 + FINE_TUNES  # a probe comes first
    assert set(report["seconds"]) >= {"read", "decode", "search", "report"}
    assert 0 < sum(report["seconds"].values()) < 600
    assert {"python", "torch", "device", "threads"} <= set(report["environment"])


def test_the_test_set_of_the_report_is_that_of_the_split(finished):
    tested = [row for row in rows(finished.path / "split.csv") if row["split"] == "test"]
    predictions = rows(finished.path / "predictions_test.csv")
    assert {row["path"] for row in predictions} == {row["path"] for row in tested}
    assert finished.report["test"]["n"] == len(tested)
    right = sum(row["label"] == row["predicted"] for row in predictions)
    assert finished.report["test"]["accuracy"]["value"] == right / len(predictions)
    assert [int(row["correct"]) for row in predictions] == [row["label"] == row["predicted"] for row in predictions]


def test_trial_records_and_their_table_agree(finished):
    records = [json.loads(file.read_text()) for file in sorted((finished.path / "trials").glob("*.json"))]
    table = rows(finished.path / "trials.csv")
    assert (
        [str(record["number"]) for record in records]
        == [row["number"] for row in table]
        == [str(n) for n in range(1 + FINE_TUNES)]
    )
    assert [record["state"] for record in records] == [row["state"] for row in table] == ["complete"] * (1 + FINE_TUNES)
    assert [float(row["score"]) for row in table] == [record["score"] for record in records]


def test_the_study_opens(finished):
    with sqlite3.connect(finished.path / "study.db") as study:
        assert study.execute("select count(*) from trials").fetchone() == (FINE_TUNES,)
    study.close()


def test_the_written_settings_are_taken_again(finished, command, tmp_path):
    settings = tomllib.loads((finished.path / "config.toml").read_text())
    assert settings["search"]["trials"] == FINE_TUNES
    assert settings["training"] == {"epochs": 1, "batch_size": 8}
    result = command("inspect", "--data", finished.data, "--config", finished.path / "config.toml", "--json")
    assert result.code == 0, result.err


def test_the_page_and_the_card_speak_of_this_run(finished):
    page = (finished.path / "report.html").read_text()
    card = (finished.path / "README.md").read_text()
    accuracy = finished.report["test"]["accuracy"]["value"]
    assert f"{100 * accuracy:.1f} %" in page
    assert f"| accuracy | {accuracy:.3f} |" in card
    assert card.startswith("---\nlibrary_name: automl-vision\n")
    assert f"value: {round(accuracy, 6)}\n" in card
    assert all(name in page and name in card for name in ("circle", "square", "triangle"))
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


def test_the_log_names_every_stage(finished):
    log = (finished.path / "events.log").read_text()
    stages = [line.split()[2] for line in log.splitlines() if line.split()[1] == "stage"]
    before, after = ["read", "plan", "decode", "compare", "audit", "search"], ["finish", "checks", "test", "report"]
    assert stages == [*before, "costs", *after]


def test_report_verify_passes(finished, command):
    result = command("report", finished.path, "--verify")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Bit for bit what the saved predictions give: test, validation, ")


def test_report_verify_sees_a_changed_figure(copied, command):
    report = copied.report
    report["test"]["accuracy"]["value"] = 0.987654321
    (copied.path / "report.json").write_text(json.dumps(report))
    result = command("report", copied.path, "--verify")
    assert result.code == 1
    assert "0.987654321" in result.out
    assert "trust neither" in result.err


def test_report_renders_again(copied, command):
    before = (copied.path / "report.html").read_text()
    (copied.path / "report.html").unlink()
    result = command("report", copied.path)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"Wrote {copied.path / 'report.html'}\n"
    assert (copied.path / "report.html").read_text() == before


def test_settings_of_a_run_that_were_emptied_are_told_also_where_it_is_complete(copied, command):
    (copied.path / "config.toml").write_text("")
    result = command("search", "--resume", copied.path)
    assert result.code == 2
    assert "config.toml ([output] is missing: it was cut off)" in " ".join(result.err.split())


def test_a_run_that_is_complete_is_not_done_again(copied, command):
    before = {file: file.read_bytes() for file in copied.path.rglob("*") if file.is_file()}
    result = command("search", "--resume", copied.path)
    assert result.code == 0
    assert "nothing is left to do" in result.err
    assert "Test accuracy" in result.out
    after = {file: file.read_bytes() for file in copied.path.rglob("*") if file.is_file()}
    changed = {file.name for file in after if before.get(file) != after[file]}
    assert changed <= {".lock.owner"}


def test_broken_images_are_named_and_left_out(quick, command, tmp_path):
    make_smoke_data(tmp_path / "data")
    (tmp_path / "data" / "circle" / "empty.png").write_bytes(b"")
    (tmp_path / "data" / "square" / "text.jpg").write_text("no image")
    out = tmp_path / "run"
    result = command("search", "--data", tmp_path / "data", *quick, *BY_NAMES, "--out", out)
    assert result.code == 0, result.err
    assert "2 unreadable" in result.out
    table = {row["path"]: row["split"] for row in rows(out / "split.csv")}
    assert {path for path, split in table.items() if split == "quarantine"} == {"circle/empty.png", "square/text.jpg"}
    findings = {row["path"]: row["kind"] for row in rows(out / "audit.csv") if row["path"]}
    assert findings == {"circle/empty.png": "empty", "square/text.jpg": "not_an_image"}


def test_a_search_of_mostly_broken_images_stops_with_the_list(quick, command, tmp_path):
    make_smoke_data(tmp_path / "data")
    for number in range(20):
        (tmp_path / "data" / "circle" / f"broken_{number}.jpg").write_bytes(b"<html>404</html>")
    out = tmp_path / "run"
    result = command("search", "--data", tmp_path / "data", *quick, *BY_NAMES, "--out", out)
    assert result.code == 2
    assert_harmless(result)
    for words in (
        "20 of 41 (49%; at most 20%)",
        "20 not_an_image",
        "an HTML page",
        "and 10 more",
        "--max-unreadable 0.49",
    ):
        assert words in " ".join(result.err.split())
    assert not out.exists(), "a run that could not start leaves nothing behind"
    shown = command("inspect", "--data", tmp_path / "data", *BY_NAMES, "--no-cache", "--out", tmp_path / "shown")
    assert shown.code == 2
    assert sum(row["kind"] == "not_an_image" for row in rows(tmp_path / "shown" / "audit.csv")) == 20


def test_plain_lines_tell_what_happens_and_what_to_type_next(smoke, quick, command, tmp_path):
    out = tmp_path / "it's my run"
    result = command("search", "--data", smoke, *quick, "--out", out)
    assert result.code == 0, result.err
    assert_harmless(result)
    for words in ("Reading the list", "Decoding every image once (21 images)", "trial 0", "trial 1", "best so far"):
        assert words in result.err
    assert "Comparing images that look alike" in result.err
    for words in ("Test accuracy", "95 % interval", "macro F1", "circle", "majority class", "predict", "evaluate"):
        assert words in result.out
    assert f"automl-vision predict '{tmp_path}/it'\"'\"'s my run/model.pt' IMAGE" in result.out


@pytest.mark.parametrize(
    "changed",
    [
        *({"stop_reason": each} for each in (None, [], float("inf"))),
        *({name: "x"} for name in ("seconds", "budget_seconds", "trials", "test")),
        {"seconds": {"a": float("nan")}},
    ],
    ids=str,
)
def test_a_complete_run_whose_report_somebody_changed_is_told_so(command, tmp_path, changed):
    run = Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))
    report = json.loads((run / "report.json").read_text()) | changed
    (run / "report.json").write_text(json.dumps(report))
    for form in ((), ("--json",)):
        result = command("search", "--resume", run, *form)
        assert result.code in (0, 2)
        assert_harmless(result)
        assert result.code == 0 or (
            "report.json is not as a search leaves it" in result.err and "\nFix: " in result.err
        )
