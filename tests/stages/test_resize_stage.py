"""Stage `resize`: whether whole images or their middles are seen, decided without a look at a test image."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from automl_vision.config import Settings
from automl_vision.data.preparation import Prepared, read_manifest
from automl_vision.data.preprocess import MIDDLE, SQUASH, square
from automl_vision.data.store import SealedRowError
from automl_vision.errors import BudgetExhausted, Interrupted, WeightsError
from automl_vision.events import Note, StageStarted, silent
from automl_vision.models.backbones import backbone
from automl_vision.models.weights import require_weights
from automl_vision.report.resize import resize_sentence
from automl_vision.run_dir import RunDir
from automl_vision.runtime import Clock, Runtime
from automl_vision.stages import resize as stage
from automl_vision.stages.context import RunContext, StopRequest
from automl_vision.stages.decode import decode_and_check
from automl_vision.stages.plan import Plan
from automl_vision.stages.resize import choose_resize
from make_smoke_data import SHAPES, draw

NAME = "efficientnet_lite0"
PLAN = Plan((NAME,), {NAME: require_weights(backbone(NAME), offline=True)}, (64,))
RUNTIME = Runtime(torch.device("cpu"), None, threads=1)
SHOWN = list(SHAPES)[:3]
SIDE = 48


def drawn(shape: str, chance: np.random.Generator, size: int = SIDE) -> NDArray[np.uint8]:
    return draw(shape, hue=chance.uniform(), size=size, chance=chance)


def in_the_middle(label: str, chance: np.random.Generator) -> NDArray[np.uint8]:
    """The shape of the class between two of any class."""
    left, right = chance.choice(SHOWN, 2)
    return np.concatenate([drawn(left, chance), drawn(label, chance), drawn(right, chance)], axis=1)


def at_the_sides(label: str, chance: np.random.Generator) -> NDArray[np.uint8]:
    """One of any class between two of the class."""
    middle = drawn(chance.choice(SHOWN), chance)
    return np.concatenate([drawn(label, chance), middle, drawn(label, chance)], axis=1)


def square_one(label: str, chance: np.random.Generator) -> NDArray[np.uint8]:
    return drawn(label, chance)


def make(folder: Path, picture_of: Any, images: int = 100) -> Path:
    for number, label in enumerate(SHOWN):
        (folder / label).mkdir(parents=True)
        for index in range(images):
            pixels = picture_of(label, np.random.default_rng((number, index)))
            Image.fromarray(pixels).save(folder / label / f"{index * 7}.png")
    return folder


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("objects") / "data", in_the_middle)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("scenes") / "data", at_the_sides)


class Listener:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def stages(self) -> list[str]:
        return [event.name for event in self.events if isinstance(event, StageStarted)]

    @property
    def notes(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Note))


def context_of(
    path: Path, data: Path, *, budget: float = 1e6, resize: str = "auto", resume: bool = False, tell: Any = silent
) -> RunContext:
    chosen = replace(Settings().data, lineage="names", resize=resize)
    settings = replace(Settings(), data=chosen, machine=replace(Settings().machine, cache=False, threads=1))
    run = RunDir.open(path / "run") if resume else RunDir.create(path / "run", settings, {"data": str(data)})
    return RunContext(run, data, settings, tell, StopRequest(), Clock(time.monotonic(), budget))


def decoded(context: RunContext, plan: Plan = PLAN) -> Prepared:
    return decode_and_check(context, read_manifest(context.data, context.settings), plan, RUNTIME)


def record_of(context: RunContext) -> dict[str, Any]:
    record: dict[str, Any] = context.run.about["resize"]
    return record


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("both ways were compared")

    monkeypatch.setattr(stage, "_compared", refuse)


# --- what validation says ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chosen(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunContext, Prepared]]:
    """The middle wins; run and data as they are then."""
    context = context_of(tmp_path_factory.mktemp("chosen"), objects, tell=Listener())
    prepared = choose_resize(context, decoded(context), PLAN, RUNTIME)
    yield context, prepared
    prepared.store.close()
    context.run.close()


def test_objects_in_the_middle_of_wide_pictures_are_seen_alone(chosen: tuple[RunContext, Prepared]) -> None:
    context, prepared = chosen
    record = record_of(context)
    assert prepared.store.resize == record["chosen"] == MIDDLE
    found = record["compared"]
    assert found["better"] and found[MIDDLE] > found[SQUASH] + found["standard_error"]
    assert found["gain"] == pytest.approx(found[MIDDLE] - found[SQUASH])
    split = prepared.split
    assert (found["train"], found["val"]) == (len(split.rows("train")), len(split.rows("val")))
    assert (found["backbone"], found["resolution"], found["objective"]) == (NAME, 64, "accuracy")
    assert "resize" in context.tell.stages  # type: ignore[attr-defined] # a listener
    assert "largest square in the middle" in context.tell.notes  # type: ignore[attr-defined] # a listener


def test_the_new_store_shows_middles_and_hides_the_test_set(chosen: tuple[RunContext, Prepared]) -> None:
    _, prepared = chosen
    split, store = prepared.split, prepared.store
    shown = np.concatenate([split.rows("train"), split.rows("val"), split.augmented_val])
    for size in store.sizes:
        made = store.fetch(shown, size).permute(0, 2, 3, 1).numpy()
        for row, pixels in zip(shown[:20], made, strict=False):
            whole = np.asarray(Image.open(prepared.manifest.file(row)))
            np.testing.assert_array_equal(pixels, square(whole[:, SIDE : 2 * SIDE], size))
    for row in np.setdiff1d(np.arange(len(prepared.manifest)), shown):
        with pytest.raises(SealedRowError):
            store.fetch([row], store.sizes[0])
    test = split.rows("test")
    opened = prepared.open_test([{"number": 1, "images": len(test)}]).store
    assert len(opened.fetch(test, opened.sizes[0])) == len(test)
    with pytest.raises(SealedRowError):
        prepared.open_test([])


def test_a_resumed_run_begins_with_what_was_chosen(
    chosen: tuple[RunContext, Prepared], tmp_path: Path, untried: None
) -> None:
    context, prepared = chosen
    (tmp_path / "run").mkdir()
    for name in ("run.json", "config.toml"):
        (tmp_path / "run" / name).write_bytes((context.run.path / name).read_bytes())
    again = context_of(tmp_path, context.data, resume=True)
    resumed = decoded(again)
    assert resumed.store.resize == MIDDLE
    assert choose_resize(again, resumed, PLAN, RUNTIME) is resumed
    rows = prepared.split.rows("val")
    assert resumed.split.name.tolist() == prepared.split.name.tolist()
    assert (tmp_path / "run" / "split.csv").read_bytes() == (context.run.path / "split.csv").read_bytes()
    assert (tmp_path / "run" / "audit.csv").read_bytes() == (context.run.path / "audit.csv").read_bytes()
    assert torch.equal(resumed.store.fetch(rows, 64), prepared.store.fetch(rows, 64))
    resumed.store.close()
    again.run.close()


def test_it_decides_alike_again_and_again(scenes: Path, tmp_path: Path) -> None:
    """Also where it was killed before it had written what it chose."""
    context = context_of(tmp_path, scenes)
    first = choose_resize(context, decoded(context), PLAN, RUNTIME)
    record = record_of(context)
    first.store.close()
    context.run.add_about(resize={"chosen": "", "reason": ""})
    again = choose_resize(context, decoded(context), PLAN, RUNTIME)
    figures = [{**each["compared"], "seconds": 0} for each in (record, record_of(context))]
    assert figures[0] == figures[1]
    again.store.close()
    context.run.close()


def test_where_the_sides_tell_the_class_whole_pictures_are_seen_and_no_test_image_is_opened(
    scenes: Path, tmp_path: Path
) -> None:
    """The files of the test set, and whatever else is sealed, are not there any more while it decides."""
    make(tmp_path / "data", at_the_sides)
    context = context_of(tmp_path, tmp_path / "data")
    prepared = decoded(context)
    split = prepared.split
    shown = np.concatenate([split.rows("train"), split.rows("val")])
    for row in np.setdiff1d(np.arange(len(prepared.manifest)), shown):
        prepared.manifest.file(row).unlink()
    assert choose_resize(context, prepared, PLAN, RUNTIME) is prepared
    record = record_of(context)
    assert prepared.store.resize == record["chosen"] == SQUASH
    assert not record["compared"]["better"] and record["compared"]["gain"] < 0
    prepared.store.close()
    context.run.close()


def test_the_store_of_the_middles_is_sealed_while_it_decides(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def probe(scene: Any, _net: Any, store: Any, rows: Any, late: Any) -> Any:
        seen.append(store)
        return scene.prepared.labels(rows["val"])

    monkeypatch.setattr(stage, "_probe", probe)
    context = context_of(tmp_path, scenes)
    prepared = choose_resize(context, decoded(context), PLAN, RUNTIME)
    assert [store.resize for store in seen] == [SQUASH, MIDDLE]
    for store in seen:
        for row in prepared.split.rows("test"):
            with pytest.raises(SealedRowError):
                store.fetch([row], store.sizes[0])
    assert record_of(context)["chosen"] == SQUASH, "equal is not better"
    prepared.store.close()
    context.run.close()


# --- where it is not asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", [SQUASH, MIDDLE])
def test_what_the_settings_ask_for_is_done(scenes: Path, tmp_path: Path, untried: None, resize: str) -> None:
    context = context_of(tmp_path, scenes, resize=resize)
    prepared = decoded(context)
    assert choose_resize(context, prepared, PLAN, RUNTIME) is prepared
    assert prepared.store.resize == record_of(context)["chosen"] == resize
    prepared.store.close()
    context.run.close()


def test_the_sets_do_not_follow_it(scenes: Path, tmp_path: Path) -> None:
    tables = []
    for resize in (SQUASH, MIDDLE):
        (tmp_path / resize).mkdir()
        context = context_of(tmp_path / resize, scenes, resize=resize)
        decoded(context).store.close()
        tables.append([(context.run.path / name).read_bytes() for name in ("split.csv", "audit.csv")])
        context.run.close()
    assert tables[0] == tables[1]


def test_a_run_that_began_without_a_choice_goes_on_with_whole_images(
    objects: Path, tmp_path: Path, untried: None
) -> None:
    context = context_of(tmp_path, objects)
    decoded(context).store.close()
    file = context.run.path / "run.json"
    about = json.loads(file.read_text())
    del about["resize"]
    file.write_text(json.dumps(about))
    prepared = decoded(context)
    assert choose_resize(context, prepared, PLAN, RUNTIME).store.resize == SQUASH
    assert record_of(context)["chosen"] == SQUASH
    prepared.store.close()
    context.run.close()


def test_square_pictures_are_squashed_without_a_word(tmp_path: Path, untried: None) -> None:
    heard = Listener()
    context = context_of(tmp_path, make(tmp_path / "data", square_one, images=20), tell=heard)
    prepared = choose_resize(context, decoded(context), PLAN, RUNTIME)
    assert record_of(context)["chosen"] == SQUASH
    assert "100% of the images are nearly square" in record_of(context)["reason"]
    assert "resize" not in heard.stages and not heard.notes
    assert resize_sentence(record_of(context)) == ""
    prepared.store.close()
    context.run.close()


@pytest.fixture(scope="module")
def wide(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunContext, Prepared]]:
    context = context_of(tmp_path_factory.mktemp("wide"), scenes)
    prepared = decoded(context)
    yield context, prepared
    prepared.store.close()
    context.run.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"plan": replace(PLAN, weights={})}, "without pretrained weights"),
        ({"notes": ("held in memory",)}, "no folder has room"),
        ({"fewest": 1000}, "train and val have too few images"),
        ({"budget": 3.0}, "the budget has time to look at"),
        ({"decoding": 1e4}, "decoding them once more would take about"),
    ],
)
def test_what_is_not_tried_says_why(
    wide: tuple[RunContext, Prepared],
    monkeypatch: pytest.MonkeyPatch,
    untried: None,
    change: dict[str, Any],
    reason: str,
) -> None:
    context, prepared = wide
    monkeypatch.setattr(stage, "FEWEST_IMAGES", dict.fromkeys(("train", "val"), change.get("fewest", 30)))
    monkeypatch.setattr(prepared.store, "notes", change.get("notes", ()))
    monkeypatch.setattr(stage, "_seconds_to_decode", lambda _: change.get("decoding", 0.1))
    context.run.add_about(resize={"chosen": "", "reason": ""})
    clock = Clock(time.monotonic(), change.get("budget", 1e4))
    found = choose_resize(replace(context, clock=clock), prepared, change.get("plan", PLAN), RUNTIME)
    assert found is prepared
    assert reason in record_of(context)["reason"]
    assert "were not tried" in resize_sentence(record_of(context))


def test_a_minute_is_too_short_for_it_and_an_hour_is_not(wide: tuple[RunContext, Prepared]) -> None:
    context, prepared = wide

    def afforded(budget: float) -> dict[str, int]:
        clock = Clock(time.monotonic(), budget)
        found = stage._Scene(replace(context, clock=clock), prepared, replace(PLAN, resolutions=(128,)), RUNTIME)
        return dict(found.affordable)

    assert afforded(3600.0) == afforded(math.inf) == {"train": 180, "val": 60}
    assert afforded(60.0)["train"] < stage.FEWEST_IMAGES["train"]
    assert afforded(-1.0) == {"train": 0, "val": 0}


def test_images_are_drawn_from_all_classes_in_proportion(
    wide: tuple[RunContext, Prepared],
) -> None:
    context, prepared = wide
    scene = stage._Scene(context, prepared, PLAN, RUNTIME)
    rows = stage._drawn(scene, "train", 60)
    assert len(np.unique(rows)) == 60 and set(rows) <= set(prepared.split.rows("train"))
    assert np.bincount(prepared.labels(rows)).tolist() == [20, 20, 20]
    np.testing.assert_array_equal(rows, stage._drawn(scene, "train", 60))


# --- where it comes to an end -----------------------------------------------------------------------------------------


def won(*_: object) -> dict[str, Any]:
    figures = {"better": True, "gain": 0.1, "standard_error": 0.01, "objective": "accuracy", SQUASH: 0.6, MIDDLE: 0.7}
    return {**figures, "train": 9, "val": 9, "backbone": NAME, "resolution": 64, "seconds": 0.0}


def raising(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("compared", "decode", "reason"),
    [
        (raising(stage.OutOfTime()), None, "took longer than its share"),
        (raising(WeightsError("the file is damaged")), None, "cannot be used (the file is damaged)"),
        (raising(stage._CannotTell("features of the network are not finite")), None, "are not finite"),
        (raising(torch.OutOfMemoryError("out of memory")), None, "no memory to compare"),
        (won, raising(BudgetExhausted("no time")), "no time or room to decode"),
    ],
)
def test_whole_images_are_kept_where_it_cannot_be_done(
    wide: tuple[RunContext, Prepared], monkeypatch: pytest.MonkeyPatch, compared: Any, decode: Any, reason: str
) -> None:
    context, prepared = wide
    monkeypatch.setattr(stage, "_compared", compared)
    if decode is not None:
        monkeypatch.setattr(stage, "decode", decode)
    context.run.add_about(resize={"chosen": "", "reason": ""})
    assert choose_resize(context, prepared, PLAN, RUNTIME) is prepared
    assert record_of(context)["chosen"] == SQUASH and reason in record_of(context)["reason"]
    rows = prepared.split.rows("train")
    assert len(prepared.store.fetch(rows, 64)) == len(rows), "it is open"


def test_features_that_are_not_finite_tell_nothing(
    wide: tuple[RunContext, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, prepared = wide
    monkeypatch.setattr(stage, "extract_features", lambda _net, _store, rows, *_, **__: np.full((len(rows), 8), np.inf))
    context.run.add_about(resize={"chosen": "", "reason": ""})
    assert choose_resize(context, prepared, PLAN, RUNTIME) is prepared
    assert "not finite" in record_of(context)["reason"]


def test_both_ways_are_compared_at_a_side_that_the_network_may_have(wide: tuple[RunContext, Prepared]) -> None:
    """Limits may leave a network some of the sides only."""
    context, prepared = wide
    plan = replace(PLAN, resolutions=(96, 64), sides={NAME: (96,)})
    assert stage._Scene(context, prepared, plan, RUNTIME).size == 96


def test_decoding_once_more_ends_with_its_share_of_the_time(
    wide: tuple[RunContext, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, prepared = wide
    monkeypatch.setattr(stage, "_compared", won)
    monkeypatch.setattr(stage, "DECODING_SHARE", 1e-9)
    monkeypatch.setattr(stage, "_seconds_to_decode", lambda _: 0.0)
    context.run.add_about(resize={"chosen": "", "reason": ""})
    assert choose_resize(context, prepared, PLAN, RUNTIME) is prepared
    assert "no time or room" in record_of(context)["reason"]


def test_middles_that_find_no_room_are_given_up(
    wide: tuple[RunContext, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, prepared = wide
    made = []

    def decode(*given: Any, **named: Any) -> Any:
        store, facts = original(*given, **named)
        store.notes = ("images are decoded whenever they are asked for",)
        made.append(store)
        return store, facts

    original = stage.decode
    monkeypatch.setattr(stage, "_compared", won)
    monkeypatch.setattr(stage, "decode", decode)
    context.run.add_about(resize={"chosen": "", "reason": ""})
    assert choose_resize(context, prepared, PLAN, RUNTIME) is prepared
    with pytest.raises(ValueError, match="no squares"):
        made[0].fetch([0], 64)


def test_who_stops_it_decides_nothing(wide: tuple[RunContext, Prepared]) -> None:
    context, prepared = wide
    context.run.add_about(resize={"chosen": "", "reason": ""})
    with pytest.raises(Interrupted):
        choose_resize(replace(context, stop=StopRequest(True)), prepared, PLAN, RUNTIME)
    assert record_of(context)["chosen"] == ""
