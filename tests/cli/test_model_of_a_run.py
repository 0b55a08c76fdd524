"""A model, its run and its report: which belong together, and what is said of them once they do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import BY_NAMES, assert_harmless, run_command

from automl_vision.bundle import load_bundle
from automl_vision.config import load_settings
from automl_vision.events import Event, TrialChanged
from automl_vision.pipeline import resume_search, run_search
from automl_vision.stages import decode
from automl_vision.stop_request import StopRequest


@pytest.fixture(scope="module", params=["a class of one image was dropped", "the budget drew some"])
def smaller(request: Any, smoke: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that used fewer images than it found."""
    folder = tmp_path_factory.mktemp("fewer")
    data = Path(shutil.copytree(smoke, folder / "data"))
    settings = ("--config", Path(__file__).parents[1] / "golden" / "run.toml", "--cache-dir", cache, *BY_NAMES)
    dropped = request.param.startswith("a class")
    if dropped:
        (data / "rare").mkdir()
        shutil.copy(next(smoke.rglob("*.png")), data / "rare" / "one.png")
    with pytest.MonkeyPatch.context() as patched:
        if not dropped:
            patched.setattr(decode, "_affordable", lambda _context, manifest, *_: len(manifest) - 6)
        result = run_command("search", "--data", data, *settings, "--drop-small-classes", "--out", folder / "run")
    assert result.code == 0, result.err
    about = json.loads((folder / "run" / "run.json").read_text())
    assert (about["drawn"] < about["found"]) != dropped
    return folder / "run"


def test_a_look_is_in_the_ledger_of_a_run_that_used_fewer_images_than_it_found(smaller: Path, smoke: Path) -> None:
    before = len(json.loads((smaller / "looks.json").read_text()))
    result = run_command("evaluate", smaller / "model.pt", "--data", smoke, "--json")
    look = json.loads(result.out)["known"]["look"]
    assert (look["unwritten"], look["number"]) == ("", before + 1)
    assert len(json.loads((smaller / "looks.json").read_text())) == before + 1


def test_the_export_of_such_a_run_has_its_figures_and_its_images(smaller: Path, tmp_path: Path) -> None:
    order = ("export", smaller / "model.pt", "--format", "huggingface", "--out", tmp_path / "card")
    result = run_command(*order)
    assert result.code == 0, result.err
    assert_harmless(result)
    assert "No real images" not in result.out + result.err
    card = (tmp_path / "card" / "README.md").read_text()
    assert "Figures on the test set" in card


def test_what_killed_workers_left_unfinished_is_gone_when_the_run_is_complete(
    smoke: Path, cache: Path, tmp_path: Path
) -> None:
    settings = load_settings(
        Path(__file__).parents[1] / "golden" / "run.toml", {"search.trials": 1, "machine.cache_dir": str(cache)}
    )
    half = tmp_path / "run" / "trials" / "000000" / "checkpoint.pt.81cef162.tmp"

    def dying(event: Event) -> None:
        if isinstance(event, TrialChanged) and event.trial.state == "complete":
            half.parent.mkdir(exist_ok=True)
            half.write_bytes(b"PK")

    assert not run_search(smoke, settings, out=tmp_path / "run", tell=dying).interrupted
    assert half.parent.is_dir()
    assert not half.exists()


class Killed(BaseException):
    """What no code of ours catches."""


def test_a_run_that_went_on_and_was_killed_has_no_report_of_another_model(
    smoke: Path, cache: Path, tmp_path: Path
) -> None:
    settings = load_settings(
        Path(__file__).parents[1] / "golden" / "run.toml", {"search.trials": 3, "machine.cache_dir": str(cache)}
    )
    stop, run = StopRequest(), tmp_path / "run"

    def stopping(event: Event) -> None:
        stop.requested = (isinstance(event, TrialChanged) and event.trial.state == "complete") or stop.requested

    first = run_search(smoke, settings, out=run, tell=stopping, stop=stop)
    assert first.interrupted
    page = (run / "report.html").read_bytes()
    model = (run / "model.pt").read_bytes()

    def killing(_: Event) -> None:
        if (run / "model.pt").read_bytes() != model:
            raise Killed

    with pytest.raises(Killed):
        resume_search(run, tell=killing)
    assert "test" not in load_bundle(run / "model.pt").provenance
    assert not [name for name in ("report.json", "README.md", "predictions_test.csv") if (run / name).exists()]
    assert (run / "interrupted-1" / "report.html").read_bytes() == page
    assert (run / "interrupted-1" / "report.json").exists()
