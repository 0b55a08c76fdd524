"""Stages `decode` and `audit`: what a resumed run may find, and what a short budget leaves."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automl_vision.config import Settings
from automl_vision.data import survey
from automl_vision.data.decode import open_rgb
from automl_vision.data.preparation import Prepared, decode, read_manifest
from automl_vision.data.store import SealedRowError
from automl_vision.errors import BudgetExhausted, ImageReadError, RunError
from automl_vision.events import silent
from automl_vision.run_dir import RunDir
from automl_vision.runtime import Clock, Runtime
from automl_vision.search.planner import stored_sizes
from automl_vision.stages.context import RunContext, StopRequest
from automl_vision.stages.decode import decode_and_check, within_budget
from automl_vision.stages.plan import Plan
from automl_vision.stages.search import objective_of
from make_smoke_data import make_smoke_data

PLAN = Plan(("efficientnet_lite0",), {}, (32,))
RUNTIME = Runtime(torch.device("cpu"), None, threads=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    make_smoke_data(folder)
    return folder


def context_of(
    tmp_path: Path, data: Path, *, budget: float = 1e6, resume: bool = False, lineage: str = "names"
) -> RunContext:
    chosen = replace(Settings().data, lineage=lineage)
    settings = replace(Settings(), data=chosen, machine=replace(Settings().machine, cache=False))
    run = RunDir.open(tmp_path / "run") if resume else RunDir.create(tmp_path / "run", settings, {"data": str(data)})
    return RunContext(run, data, settings, silent, StopRequest(), Clock(time.monotonic(), budget))


def decoded(context: RunContext) -> Prepared:
    try:
        return decode_and_check(context, read_manifest(context.data, context.settings), PLAN, RUNTIME)
    finally:
        context.run.close()


def test_a_resumed_run_finds_the_same_sets(tmp_path: Path, data: Path) -> None:
    first = decoded(context_of(tmp_path, data))
    again = decoded(context_of(tmp_path, data, resume=True))
    assert first.split.name.tolist() == again.split.name.tolist()


@pytest.fixture
def photographs(data: Path) -> Path:
    """The same data, every picture as a large JPEG."""
    for file in data.rglob("*.png"):
        Image.open(file).convert("RGB").resize((520, 520)).save(file.with_suffix(".jpg"), quality=85)
        file.unlink()
    return data


def test_what_images_are_decoded_with_is_planned_once(tmp_path: Path, photographs: Path) -> None:
    first = decoded(context_of(tmp_path, photographs))
    assert first.store.decode_side == 256
    assert set(first.facts.table["scale"]) == {2}
    context = context_of(tmp_path, photographs, resume=True)
    assert context.run.about["decode_side"] == 256
    without = replace(context.settings, data=replace(context.settings.data, draft=False))
    again = decoded(replace(context, settings=without))
    assert again.store.decode_side == 256


def test_a_run_that_began_with_whole_images_goes_on_with_them(tmp_path: Path, photographs: Path) -> None:
    decoded(context_of(tmp_path, photographs))
    record = tmp_path / "run" / "run.json"
    about = json.loads(record.read_text())
    del about["decode_side"]  # as before images were decoded at a fraction
    record.write_text(json.dumps(about))
    again = decoded(context_of(tmp_path, photographs, resume=True))
    assert again.store.decode_side == 0
    assert set(again.facts.table["scale"]) == {1}


def test_the_split_does_not_follow_the_fraction(tmp_path: Path, photographs: Path) -> None:
    def sets(name: str, draft: bool, resolution: int) -> list[str]:
        (tmp_path / name).mkdir()
        context = context_of(tmp_path / name, photographs)
        settings = replace(context.settings, data=replace(context.settings.data, draft=draft))
        manifest = read_manifest(photographs, settings)
        prepared = decode_and_check(replace(context, settings=settings), manifest, plan_at(resolution), RUNTIME)
        context.run.close()
        assert (prepared.facts.table["scale"] > 1).all() == (draft and resolution < 128)
        return [*prepared.split.name.tolist(), *prepared.audit.lineage.group.astype(str).tolist()]

    expected = sets("whole", False, 32)
    assert sets("fraction", True, 32) == sets("larger", True, 160) == expected


def test_an_image_that_was_replaced_under_its_name_stops_a_resumed_run(tmp_path: Path, data: Path) -> None:
    decoded(context_of(tmp_path, data))
    before = (tmp_path / "run" / "split.csv").read_text()
    changed = next(data.rglob("*.png"))
    Image.new("RGB", (32, 32), "white").save(changed)
    with pytest.raises(RunError, match="images changed since the run began"):
        decoded(context_of(tmp_path, data, resume=True))
    assert (tmp_path / "run" / "split.csv").read_text() == before


def test_copies_do_not_hide_that_classes_are_imbalanced(tmp_path: Path, data: Path) -> None:
    folder = data / "circle"
    make_smoke_data(tmp_path / "more", classes=1, images=40)
    for file in sorted((tmp_path / "more" / "circle").iterdir()):
        file.rename(folder / f"more{file.name}")
    for name in ("square", "triangle"):
        for file in sorted((data / name).glob("*.png")):
            for number in range(5):
                shifted = Image.open(file).convert("RGB").rotate(number + 1)
                shifted.save(file.with_name(f"{file.stem}_aug_{number}.png"))
    context = context_of(tmp_path, data)
    assert objective_of(context, decoded(context)) == "macro_f1"


# --- the seal ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_copies(tmp_path: Path, data: Path) -> Prepared:
    for file in sorted(data.rglob("*.png")):
        Image.open(file).rotate(9).save(file.with_name(f"{file.stem}_aug_1.png"))
    return decoded(context_of(tmp_path, data))


def test_what_the_later_stages_get_shows_training_and_validation_only(with_copies: Prepared) -> None:
    split, store = with_copies.split, with_copies.store
    shown = [*split.rows("train"), *split.rows("val"), *split.augmented_val]
    assert len(store.fetch(shown, store.sizes[0])) == len(shown)
    hidden = sorted({*range(len(with_copies.manifest))} - set(shown))
    assert set(split.rows("test")) < set(hidden), "copies of test images must be among them"
    for row in hidden:
        with pytest.raises(SealedRowError):
            store.fetch([row], store.sizes[0])


def test_the_test_set_opens_for_the_look_that_is_in_the_ledger(with_copies: Prepared) -> None:
    test = with_copies.split.rows("test")
    opened = with_copies.open_test([{"number": 1, "images": len(test)}]).store
    assert len(opened.fetch(test, opened.sizes[0])) == len(test)
    copies = np.setdiff1d(with_copies.split.rows("aside"), with_copies.split.augmented_val)
    with pytest.raises(SealedRowError):
        opened.fetch(copies, opened.sizes[0])
    with pytest.raises(SealedRowError):
        with_copies.store.fetch(test, opened.sizes[0])


@pytest.mark.parametrize("ledger", [[], [{"number": 1, "images": 0}]])
def test_the_test_set_opens_for_nothing_else(with_copies: Prepared, ledger: list[dict[str, int]]) -> None:
    with pytest.raises(SealedRowError, match="ledger"):
        with_copies.open_test(ledger)


def plan_at(resolution: int) -> Plan:
    return Plan(("efficientnet_lite0",), {}, (resolution,))


def test_only_as_many_images_are_drawn_as_can_be_judged_in_time(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_vision.stages.decode.decode_seconds", lambda *_: 0.0)
    context = context_of(tmp_path, data, budget=1.5)
    manifest = read_manifest(data, context.settings)
    drawn = within_budget(context, manifest, plan_at(224), RUNTIME)
    assert 9 <= len(drawn) < len(manifest)
    assert set(drawn.labels.tolist()) == {0, 1, 2}
    assert len(within_budget(context, manifest, plan_at(32), RUNTIME)) == len(drawn)  # a resumed run keeps the number
    context.run.close()


@pytest.mark.parametrize(("lineage", "afforded"), [("names", 20), ("full", 15)])
def test_time_to_compare_is_left_when_images_are_drawn(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, lineage: str, afforded: int
) -> None:
    monkeypatch.setattr("automl_vision.stages.decode.decode_seconds", lambda *_: 0.0)
    monkeypatch.setattr("automl_vision.stages.decode._judging_seconds", lambda *_: 2.0)
    context = context_of(tmp_path, data, budget=102.0, lineage=lineage)
    within_budget(context, read_manifest(data, context.settings), PLAN, RUNTIME)
    assert context.run.about["drawn"] == afforded
    context.run.close()


@pytest.mark.parametrize(("decoded_before", "share"), [(0, 0.5), (1 / 3, 0.75), (2 / 3, 1.0)])
def test_only_what_was_not_decoded_before_is_paid_for(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, decoded_before: float, share: float
) -> None:
    """There is time to decode half of the images."""
    context = context_of(tmp_path, data, budget=1000.0)
    machine = replace(context.settings.machine, cache=True, cache_dir=str(tmp_path / "cache"))
    context = replace(context, settings=replace(context.settings, machine=machine))
    manifest = read_manifest(data, context.settings)
    before = manifest.subset(np.arange(round(decoded_before * len(manifest))))
    decode(before, context.settings, stored_sizes(PLAN.resolutions), 1)
    monkeypatch.setattr("automl_vision.stages.decode._judging_seconds", lambda *_: 0.0001)
    monkeypatch.setattr("automl_vision.stages.decode.decode_seconds", lambda *_: 500.0 / (len(manifest) / 2))
    drawn = within_budget(context, manifest, PLAN, RUNTIME)
    assert len(drawn) == pytest.approx(share * len(manifest), abs=3)
    context.run.close()


@pytest.mark.parametrize("budget", [0.1, -5.0])
def test_a_budget_that_is_too_short_is_named_as_the_reason(tmp_path: Path, data: Path, budget: float) -> None:
    context = context_of(tmp_path, data, budget=budget)
    with pytest.raises(BudgetExhausted, match="too short for these images"):
        within_budget(context, read_manifest(data, context.settings), plan_at(224), RUNTIME)
    context.run.close()


def test_a_resumed_run_goes_on_without_what_memory_was_too_short_for(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sets were dealt without that image; that it can be read by now is no reason to refuse them."""
    file = sorted(data.rglob("*.png"))[0] if any(data.rglob("*.png")) else sorted(data.rglob("*.jpg"))[0]
    victim = file.read_bytes()

    def short(source: object, decode_side: int = 0) -> object:
        if source == victim:
            raise ImageReadError("too_large", "not enough memory to decode it")
        return open_rgb(source, decode_side)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(survey, "open_rgb", short)
        first = decoded(context_of(tmp_path, data))
    assert (first.split.name == "quarantine").sum() == 1
    again = decoded(context_of(tmp_path, data, resume=True))
    assert first.split.name.tolist() == again.split.name.tolist()
    assert again.facts.table["fault"].tolist() == first.facts.table["fault"].tolist()
