"""Files that earlier versions wrote, in tests/golden: they load for ever, and say what they said."""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_vision import load
from automl_vision.bundle import VERSION, load_bundle, save_bundle
from automl_vision.config import Settings
from automl_vision.data.preparation import read_manifest
from automl_vision.data.shards.address import parse_address
from automl_vision.errors import RunError
from automl_vision.events import Event, Note
from automl_vision.exporting import trial_model
from automl_vision.exporting.export import Order, export
from automl_vision.exporting.pictures import find_material
from automl_vision.exporting.trial_model import write_trial_model
from automl_vision.onnx_predictor import load_onnx
from automl_vision.pipeline import evaluate, render_again, resume_search, verify_run, verify_shards
from automl_vision.report.predictions import Predictions
from automl_vision.run_dir import RunDir
from automl_vision.search.history_file import read_history
from automl_vision.stages import rendering
from make_smoke_data import make_smoke_data

GOLDEN = Path(__file__).parent / "golden"
RECORDED: dict[str, Any] = json.loads((GOLDEN / "recorded.json").read_text(encoding="utf-8"))
VERSIONS = range(1, VERSION + 1)
#: Picture -> by how much a probability may differ from what was recorded. Decoders of JPEG may differ by a step.
CLOSE = {"picture.png": 1e-5, "picture.jpg": 1e-3}


@pytest.fixture(params=VERSIONS, ids=lambda number: f"version {number}")
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def model(version: int, tmp_path: Path) -> Path:
    """The file as that version wrote it."""
    file = tmp_path / "model.pt"
    file.write_bytes(lzma.decompress((GOLDEN / f"version-{version}.pt.xz").read_bytes()))
    return file


def test_every_format_is_here_and_no_other() -> None:
    """Whoever makes a new format writes its file, as the README here says."""
    names = {file.name for file in GOLDEN.glob("version-*")}
    assert names == {f"version-{number}.pt.xz" for number in VERSIONS}
    assert set(RECORDED) == {str(number) for number in VERSIONS}


def test_a_file_is_what_that_version_wrote(model: Path, version: int) -> None:
    assert hashlib.sha256(model.read_bytes()).hexdigest() == RECORDED[str(version)]["sha256"]


@pytest.mark.parametrize("picture", CLOSE)
def test_it_says_what_it_said(model: Path, version: int, picture: str) -> None:
    said = load(model, device="cpu").predict_proba([GOLDEN / picture])[0]
    recorded = RECORDED[str(version)]["probabilities"][picture]
    assert np.abs(said - recorded).max() < CLOSE[picture]


def test_what_the_file_tells_of_itself_is_all_there(model: Path, version: int) -> None:
    bundle = load_bundle(model)
    assert bundle.class_names == ("cat", "dog [/]", "Ätna\n")
    assert bundle.temperature == 1.25
    assert bundle.provenance["looks"] == [None]
    assert bundle.head == ("linear" if version < 3 else "mlp:8-gelu")
    assert (bundle.fingerprint is not None) == (version >= 2)
    assert len(bundle.networks) == (2 if version >= 4 else 1)
    assert bundle.class_bias == ((0.0, 0.25, -0.125) if version >= 4 else ())
    assert bundle.preprocessing.decode_side == (256 if version >= 5 else 0)
    assert bundle.preprocessing.resize == ("middle" if version >= 6 else "squash")


def test_the_records_differ_where_a_version_sees_pictures_differently() -> None:
    """Else a file that is read without what is new in it would pass."""
    said = {number: RECORDED[str(number)]["probabilities"] for number in VERSIONS}
    for before, after, picture in ((2, 3, "picture.png"), (3, 4, "picture.png"), (4, 5, "picture.jpg")):
        assert np.abs(np.subtract(said[before][picture], said[after][picture])).max() > 1e-4
    assert np.abs(np.subtract(said[5]["picture.png"], said[6]["picture.png"])).max() > 1e-2


def test_all_of_them_are_small() -> None:
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 2_000_000


# --- what else later versions will have to read --------------------------------------------------------------------


def test_an_exported_file_says_what_its_model_said(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    file.write_bytes(lzma.decompress((GOLDEN / "model.onnx.xz").read_bytes()))
    for picture, close in CLOSE.items():
        said = load_onnx(file).predict_proba([GOLDEN / picture])[0]
        assert np.abs(said - RECORDED["6"]["probabilities"][picture]).max() < max(close, 1e-5)


def test_shards_are_read_with_their_sets(tmp_path: Path) -> None:
    shards = Path(shutil.copytree(GOLDEN / "shards", tmp_path / "shards"))
    told = json.loads((shards / "shards.json").read_text(encoding="utf-8"))
    verified = verify_shards(parse_address(shards), Settings())
    assert (verified.samples, verified.problems) == (21, ())
    manifest = read_manifest(shards, Settings(), lambda _: None)
    assert (len(manifest), list(manifest.class_names)) == (21, ["circle", "square", "triangle"])
    assert {name: told["counts"][name] for name in ("train", "val", "test")} == {"train": 11, "val": 5, "test": 5}


def test_the_history_is_read() -> None:
    (record,) = read_history(GOLDEN / "history.jsonl")
    assert (record.kind, record.state, record.format) == ("finetune", "complete", 1)
    assert record.recipe["backbone"] == "test_efficientnet"


# --- a run folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run folder that version 0.1.0 left."""
    return Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))


@contextmanager
def unchanged(run: Path) -> Iterator[None]:
    """Nothing that was recorded is written anew."""
    before = {name: (run / name).read_bytes() for name in ("model.pt", "report.json", "split.csv", "looks.json")}
    yield
    assert {name: (run / name).read_bytes() for name in before} == before


def test_its_report_is_rendered(run: Path) -> None:
    with unchanged(run):
        page = render_again(run).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert all(name in page for name in report["test"]["classes"])


def test_its_figures_follow_from_its_predictions(run: Path) -> None:
    assert verify_run(run) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("head",), "<script>"),
        (("trials",), 1),
        (("validation", "micro_f1", "high"), []),
        (("test",), {}),
        (("test", "per_class"), None),
        (("data",), None),
        (("warnings",), 7),
        (("environment",), {}),
    ],
    ids=lambda each: ".".join(each) if isinstance(each, tuple) else "",
)
def test_a_report_that_somebody_changed_is_told_so_or_rendered(run: Path, place: tuple[str, ...], value: Any) -> None:
    """It is data of foreign origin, like every other file of a run."""
    file = run / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    inner = report
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    file.write_text(json.dumps(report), encoding="utf-8")
    for act in (render_again, verify_run):
        with suppress(RunError):
            act(run)


COSTS = {
    "shipped": {"parameters": 1e6, "size_mb": 1.0, "latency": {"p50_ms": 1.0, "p95_ms": 2.0, "passes": 3}},
    "device": "cpu</p><script>alert(2)</script>",
    "threads": "[click](javascript:alert(1))",
}
ACTS = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def test_no_text_of_a_foreign_report_acts_in_the_page(run: Path) -> None:
    file = run / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    report["name"] = report["stop_reason"] = report["data"]["source"] = report["environment"]["device"] = ACTS
    report["test"]["classes"][0] = report["test"]["per_class"][0]["class"] = ACTS
    report["environment"][ACTS] = ACTS
    file.write_text(json.dumps(report), encoding="utf-8")
    page = render_again(run).read_text(encoding="utf-8")
    assert "onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page
    assert "<script>alert" not in page


def test_it_is_complete_and_not_gone_on_with(run: Path) -> None:
    """Not even its images are wanted, which are nowhere."""
    told: list[object] = []
    with unchanged(run):
        ended = resume_search(run, tell=told.append)
    assert "complete" in str(told)
    assert ended.report["test"]["n"] == json.loads((run / "report.json").read_text(encoding="utf-8"))["test"]["n"]


def test_one_of_its_trials_is_exported(run: Path) -> None:
    (number,) = (int(file.parent.name) for file in run.glob("trials/*/best.pt"))
    with unchanged(run):
        written = write_trial_model(run, number)
    said = load(written.path, device="cpu").predict_proba([GOLDEN / "picture.png"])
    assert said.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "[" * 100_000),
        ("run.json", '{"fingerprint": FINGERPRINT}'),
        ("run.json", '{"fingerprint": FINGERPRINT, "data": 7}'),
        ("run.json", '{"fingerprint": FINGERPRINT, "data": "a\\u0000b"}'),
        ("config.toml", "[data]\nlineage = 3\n"),
        ("split.csv", "a,b\n1,2\n"),
        ("split.csv", "path\n"),
    ],
    ids=["deep", "no data", "a number", "no path", "no setting", "no path in the split", "no rows"],
)
def test_an_export_from_a_run_that_somebody_changed_is_checked_with_noise(
    run: Path, tmp_path: Path, name: str, content: str
) -> None:
    make_smoke_data(tmp_path / "shapes")
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**about, "data": str(tmp_path / "shapes")}), encoding="utf-8")
    bundle = load_bundle(run / "model.pt")
    assert find_material(run / "model.pt", bundle, None).checked.origin == "training images of the run"
    (run / name).write_text(content.replace("FINGERPRINT", json.dumps(about["fingerprint"])), encoding="utf-8")
    assert "noise" in find_material(run / "model.pt", bundle, None).checked.origin


def test_its_model_says_of_its_test_images_what_it_said(run: Path, tmp_path: Path) -> None:
    make_smoke_data(tmp_path / "shapes")
    recorded = Predictions.from_csv(run / "predictions_test.csv")
    said = load(run / "model.pt", device="cpu").predict_proba([tmp_path / "shapes" / path for path in recorded.paths])
    assert len(said) == 6
    assert np.abs(said - recorded.probabilities).max() < 1e-5


FORGED: dict[tuple[str | int, ...], Any] = {
    ("test", "accuracy", "high"): 0.99,
    ("validation", "accuracy", "value"): 0.99,
    ("gap", "test"): 0.99,
    ("calibration", "test", "after", "ece"): 0.001,
    ("abstention", "by_threshold", "test", "right", 0): 6,
    ("abstention", "curve", 0, "accuracy"): 1.0,
    ("baselines", 0, "accuracy", "value"): 0.01,
    ("baselines", 2, "accuracy", "value"): 0.99,
    ("gap",): None,
    ("calibration",): None,
    ("abstention",): None,
    ("warnings",): [],
    ("checklist", 0, "why"): "all is well",
}


@pytest.mark.parametrize("place", FORGED, ids=lambda each: ".".join(map(str, each)))
def test_whatever_follows_from_its_predictions_is_verified(run: Path, place: tuple[str | int, ...]) -> None:
    changed(run, place, FORGED[place])
    found = verify_run(run)
    assert any(line.startswith(str(place[0])) for line in found), found


def test_a_baseline_that_was_taken_out_is_missed(run: Path) -> None:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    changed(run, ("baselines",), [row for row in report["baselines"] if row["name"] != "majority class"])
    assert any(line.startswith("baselines") for line in verify_run(run))


def changed(run: Path, place: tuple[str | int, ...], value: Any) -> None:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    inner = report
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (run / "report.json").write_text(json.dumps(report), encoding="utf-8")


def of_another(run: Path) -> None:
    """The model file is that of another trial, as a run leaves it that went on and was killed."""
    bundle = load_bundle(run / "model.pt")
    kept = {name: value for name, value in bundle.provenance.items() if name != "test"}
    save_bundle(replace(bundle, provenance=kept), run / "model.pt")


def test_a_model_that_its_report_is_not_of_has_none_of_its_figures(run: Path) -> None:
    card = export(Order(run / "model.pt", "huggingface")).path / "README.md"
    assert "Figures on the test set" in card.read_text(encoding="utf-8")
    of_another(run)
    assert verify_run(run) == ["model.pt: the report is not of this model"]
    export(Order(run / "model.pt", "huggingface", force=True))
    text = card.read_text(encoding="utf-8")
    assert "no figures here" in text
    assert "model-index" not in text


def test_every_look_of_the_ledger_is_in_the_page_and_the_cards(run: Path, tmp_path: Path) -> None:
    make_smoke_data(tmp_path / "shapes")
    for number in (2, 3):
        look = evaluate(run / "model.pt", tmp_path / "shapes", Settings()).known["look"]
        assert (look["number"], look["unwritten"]) == (number, "")
    export(Order(run / "model.pt", "huggingface"))
    for card in ("README.md", "huggingface/README.md"):
        assert "The set was opened 3 times." in (run / card).read_text(encoding="utf-8")
    assert "looked at 3 times" in (run / "report.html").read_text(encoding="utf-8")
    (run / "README.md").unlink()
    render_again(run)
    assert "The set was opened 3 times." in (run / "README.md").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_rendered_costs_no_entry_in_the_ledger(run: Path, tmp_path: Path) -> None:
    make_smoke_data(tmp_path / "shapes")
    changed(run, ("data",), None)
    told: list[Event] = []
    look = evaluate(run / "model.pt", tmp_path / "shapes", Settings(), tell=told.append).known["look"]
    assert look["unwritten"] == ""
    assert len(json.loads((run / "looks.json").read_text(encoding="utf-8"))) == 2
    assert any(isinstance(each, Note) and "do not tell of this look" in each.text for each in told)


def test_no_text_of_a_foreign_report_acts_in_an_exported_card(run: Path) -> None:
    changed(run, ("created",), f"now\n\n{ACTS} [click](javascript:alert(1)) https://a.b www.a.b @octocat")
    changed(run, ("costs",), COSTS)
    changed(run, ("model", "resolution"), ACTS)
    text = (export(Order(run / "model.pt", "huggingface")).path / "README.md").read_text(encoding="utf-8")
    body = text.split("---\n", 2)[2]
    assert "alert" in body
    for sign in ("<img", "<script", "[click](", "https://a.b", "www.a.b", "@octocat", "\n\n<"):
        assert sign not in body.replace("\\<", "").replace("\\[", ""), sign
    changed(run, ("model", "temperature"), None)
    with pytest.raises(RunError, match="not as a search leaves it"):
        export(Order(run / "model.pt", "huggingface", force=True))


def test_a_run_that_cannot_be_written_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _text: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(run / "report.html"))

    monkeypatch.setattr(rendering, "write_text", full)
    with pytest.raises(RunError, match="cannot be written"):
        render_again(run)


def test_a_trial_is_written_while_nobody_sweeps_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (number,) = (int(file.parent.name) for file in run.glob("trials/*/best.pt"))
    seen: list[str] = []

    def save(bundle: Any, path: Path) -> None:
        with pytest.raises(RunError, match="another process"):
            RunDir.open(run)
        seen.append(path.name)
        save_bundle(bundle, path)

    monkeypatch.setattr(trial_model, "save_bundle", save)
    write_trial_model(run, number)
    assert seen == [f"model-trial-{number}.pt"]
