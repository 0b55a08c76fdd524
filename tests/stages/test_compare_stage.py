"""Stage `compare`: copies under names of their own, once and again on resuming."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from automl_vision.config import Settings
from automl_vision.data.cache_entries import COMPARISONS
from automl_vision.data.facts import METHOD
from automl_vision.data.lineage import sight
from automl_vision.data.preparation import Prepared, read_manifest
from automl_vision.errors import Interrupted
from automl_vision.events import Event, Note, silent
from automl_vision.pipeline import inspect
from automl_vision.run_dir import COMPARED, RunDir
from automl_vision.runtime import Clock, Runtime
from automl_vision.stages import compare as stage
from automl_vision.stages.context import RunContext, StopRequest
from automl_vision.stages.decode import decode_and_check
from automl_vision.stages.plan import Plan

PLAN = Plan(("efficientnet_lite0",), {}, (32,))
RUNTIME = Runtime(torch.device("cpu"), None, threads=1)
SETTINGS = replace(
    Settings(), data=replace(Settings().data, lineage="full"), machine=replace(Settings().machine, cache=False)
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of five pictures; `b/zebra.png` is the first of class b, mirrored and darker."""
    rng = np.random.default_rng(0)
    for name in (f"{label}/{word}.png" for label in "ab" for word in ("elk", "fox", "gnu", "hen", "owl")):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).resize((120, 120))
        image.save(file)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda value: value * 0.7)
    mirrored.save(tmp_path / "data" / "b" / "zebra.png")
    return tmp_path / "data"


def prepared(tmp_path: Path, data: Path, *, resume: bool = False) -> Prepared:
    run = RunDir.open(tmp_path / "run") if resume else RunDir.create(tmp_path / "run", SETTINGS, {"data": str(data)})
    context = RunContext(run, data, SETTINGS, silent, StopRequest(), Clock(time.monotonic(), 1e6))
    try:
        return decode_and_check(context, read_manifest(data, SETTINGS), PLAN, RUNTIME)
    finally:
        run.close()


def joined(found: Prepared) -> set[tuple[str, str]]:
    paths = found.manifest.paths
    return {(paths[link.first], paths[link.second]) for link in found.audit.lineage.links}


def test_a_copy_under_a_name_of_its_own_trains_with_its_original(tmp_path: Path, data: Path) -> None:
    found = prepared(tmp_path, data)
    assert joined(found) == {("b/owl.png", "b/zebra.png")}
    pair = [found.manifest.paths.index(f"b/{name}.png") for name in ("owl", "zebra")]
    assert found.split.name[pair].tolist() == ["train", "train"]
    assert found.audit.lineage.role[pair].tolist() == ["unsure", "unsure"]


def test_a_resumed_run_compares_nothing_again(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path, data)
    monkeypatch.setattr(stage, "compare_pictures", lambda *_: pytest.fail("compared again"))
    again = prepared(tmp_path, data, resume=True)
    assert again.split.name.tolist() == first.split.name.tolist()


def test_comparisons_of_other_files_are_not_believed(tmp_path: Path, data: Path) -> None:
    prepared(tmp_path, data)
    kept = tmp_path / "run" / COMPARED
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "files": "other", "pairs": [[0, 99]], "same": [True], "score": [9.0]}))
    assert joined(prepared(tmp_path, data, resume=True)) == {("b/owl.png", "b/zebra.png")}


@pytest.mark.parametrize(
    "crafted",
    [
        {"pairs": [[10**6, -5]], "same": [True], "score": [9.0], "detail": ["x"]},
        {"pairs": [], "same": [True], "score": [], "detail": []},
        {"plain": [99999]},
        {"resembling": [-1]},
        {"strangers": [[0, 99]]},
        {"unseen": [10**6]},
        {"original": {"77": 0.5}},
        {"marked": {"-3": ["x"]}},
    ],
)
def test_rows_that_there_are_not_are_compared_again(tmp_path: Path, data: Path, crafted: dict[str, Any]) -> None:
    prepared(tmp_path, data)
    kept = tmp_path / "run" / COMPARED
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, **crafted}))
    assert joined(prepared(tmp_path, data, resume=True)) == {("b/owl.png", "b/zebra.png")}
    assert json.loads(kept.read_text()) == content


@pytest.mark.parametrize("method", [None, METHOD - 1, METHOD + 1])
def test_what_another_method_found_is_compared_again(tmp_path: Path, data: Path, method: int | None) -> None:
    prepared(tmp_path, data)
    kept = tmp_path / "run" / COMPARED
    content = json.loads(kept.read_text())
    assert content.pop("method") == METHOD
    stale = {"files": content["files"], "pairs": [[0, 1]]} | ({} if method is None else {"method": method})
    kept.write_text(json.dumps(stale))
    assert joined(prepared(tmp_path, data, resume=True)) == {("b/owl.png", "b/zebra.png")}
    assert json.loads(kept.read_text()) == {**content, "method": METHOD}


def test_no_time_is_said(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "COMPARE_SHARE", -1.0)
    found = prepared(tmp_path, data)
    assert joined(found) == set()
    assert "not_compared" in {finding.kind for finding in found.audit.findings}


def test_inspect_finds_the_same(data: Path) -> None:
    found = inspect(data, SETTINGS)
    assert joined(found) == {("b/owl.png", "b/zebra.png")}
    found.store.close()


def test_a_stop_request_ends_it(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = StopRequest()
    monkeypatch.setattr(stage, "describer", lambda *_: request.__setattr__("requested", True))
    run = RunDir.create(tmp_path / "run", SETTINGS, {"data": str(data)})
    context = RunContext(run, data, SETTINGS, silent, request, Clock(time.monotonic(), 1e6))
    with pytest.raises(Interrupted, match="comparing"):
        decode_and_check(context, read_manifest(data, SETTINGS), PLAN, RUNTIME)
    run.close()


def cached(folder: Path) -> Settings:
    return replace(SETTINGS, machine=replace(SETTINGS.machine, cache=True, cache_dir=str(folder)))


def test_a_second_look_compares_nothing_again(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = inspect(data, cached(tmp_path / "cache"))
    for name in ("describe_picture", "register", "lay_over", "look_again"):
        monkeypatch.setattr(sight, name, lambda *_: pytest.fail("looked again"))
    for name in ("extract_features", "load_weights"):
        monkeypatch.setattr(f"automl_vision.models.copy_descriptor.{name}", lambda *_, **__: pytest.fail("again"))
    again = inspect(data, cached(tmp_path / "cache"))
    assert joined(again) == joined(first) == {("b/owl.png", "b/zebra.png")}
    assert again.facts.compared is not None
    assert first.facts.compared is not None
    assert again.facts.compared.to_dict() == first.facts.compared.to_dict()


def test_a_cache_that_cannot_be_used_is_said(tmp_path: Path, data: Path) -> None:
    (tmp_path / "cache" / COMPARISONS).mkdir(parents=True)
    told: list[Event] = []
    found = inspect(data, cached(tmp_path / "cache"), tell=told.append)
    assert joined(found) == {("b/owl.png", "b/zebra.png")}
    assert [str(tmp_path / "cache" / COMPARISONS) in each.text for each in told if isinstance(each, Note)] == [True]
