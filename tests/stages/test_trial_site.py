"""Trials in other processes: what they are told, and that it makes no difference where they run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_jobs import wait_for
from site_scene import FIRST, HEADS, NAME, PROBED, TUNED, Elsewhere, Scene, elsewhere_of, here, same, settings_of

from automl_vision.data.store import SealedRowError
from automl_vision.errors import DataError, RunError
from automl_vision.executors.workplace import Beat, Orders
from automl_vision.pipeline import inspect
from automl_vision.search.run_trial import Assignment, TrialInterrupted
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialReplaced
from automl_vision.stages import trial_site
from automl_vision.stages.trial_site import SITE, open_site, write_site
from make_smoke_data import make_smoke_data


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    make_smoke_data(folder / "data", classes=3, images=15)
    prepared = inspect(folder / "data", settings_of(folder / "cache"))
    assert prepared.refused is None
    return Scene(prepared.sealed(), folder / "cache")


@pytest.fixture
def site(scene: Scene, tmp_path: Path) -> Path:
    write_site(tmp_path / "workers", scene.prepared, scene.runner(tmp_path / "trials"), scene.machine())
    return tmp_path / "workers"


# --- what is written down -------------------------------------------------------------------------------------------


def test_no_test_image_is_named_in_a_site(scene: Scene, site: Path) -> None:
    written = (site / SITE).read_text() + repr(json.loads((site / SITE).read_text()))
    names = {name: scene.prepared.split.rows(name) for name in ("train", "val", "test")}
    for row in names["test"]:
        assert os.fspath(scene.prepared.manifest.file(row)) not in written
        assert scene.prepared.facts.table["file_digest"].iloc[row] not in written
    assert len(json.loads((site / SITE).read_text())["paths"]) == len(names["train"]) + len(names["val"])


def test_a_worker_sees_what_the_driver_sees_and_no_test_image(scene: Scene, site: Path) -> None:
    ours, theirs = scene.runner(site / "own"), trial_site._runner(site, Orders())
    assert torch.equal(theirs.data.train_rows, ours.data.train_rows)
    assert torch.equal(theirs.data.val_labels, ours.data.val_labels)
    np.testing.assert_array_equal(theirs.train_groups, ours.train_groups)
    shown = torch.cat([ours.data.train_rows, ours.data.val_rows])
    for size in scene.prepared.store.sizes:
        assert torch.equal(theirs.data.source.fetch(shown, size), ours.data.source.fetch(shown, size))
    for row in scene.prepared.split.rows("test"):
        with pytest.raises(SealedRowError):
            theirs.data.source.fetch(torch.tensor([row]), 32)
    assert theirs.runtime.share == 0.5
    assert theirs.files.fenced
    assert (theirs.objective, theirs.decode_side, theirs.resize) == (ours.objective, ours.decode_side, ours.resize)


@pytest.mark.parametrize("gone", ["the folder", "all of the cache", "any cache"])
def test_another_machine_decodes_the_images_once_for_itself(
    scene: Scene, tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = dataclasses.replace(scene.machine(), cache_dir=None if gone == "any cache" else tmp_path / "there")
    write_site(tmp_path / "site", scene.prepared, scene.runner(tmp_path / "trials"), machine)
    values = json.loads((tmp_path / "site" / SITE).read_text())
    values["squares"] = None if gone == "all of the cache" else str(tmp_path / "nowhere")
    (tmp_path / "site" / SITE).write_text(json.dumps(values))
    theirs, ours = trial_site._runner(tmp_path / "site", Orders()), scene.runner(tmp_path / "own")
    rows = torch.cat([ours.data.train_rows, ours.data.val_rows])
    assert torch.equal(theirs.data.source.fetch(rows, 32), ours.data.source.fetch(rows, 32))
    assert bool(list((tmp_path / "there").glob("*/index.json"))) == (gone == "the folder")


def test_an_image_that_changed_meanwhile_is_an_error(scene: Scene, tmp_path: Path) -> None:
    write_site(tmp_path / "site", scene.prepared, scene.runner(tmp_path / "trials"), scene.machine())
    values = json.loads((tmp_path / "site" / SITE).read_text())
    values["squares"] = str(tmp_path / "nowhere")
    values["machine"]["cache_dir"] = str(tmp_path / "there")
    values["digests"][0] = "0" * len(values["digests"][0])
    (tmp_path / "site" / SITE).write_text(json.dumps(values))
    with pytest.raises(DataError):
        open_site(str(tmp_path / "site"), Orders())


@pytest.mark.parametrize("damage", ["missing", "half", "another version"])
def test_a_folder_without_a_site_is_said(site: Path, damage: str) -> None:
    text = (site / SITE).read_text()
    {
        "missing": lambda: (site / SITE).unlink(),
        "half": lambda: (site / SITE).write_text(text[: len(text) // 2]),
        "another version": lambda: (site / SITE).write_text(text.replace('"format": 1', '"format": 99')),
    }[damage]()
    with pytest.raises(RunError, match="a worker cannot read what its trials need"):
        open_site(str(site), Orders())


def test_orders_become_what_a_trial_asks_for_at_every_step(site: Path) -> None:
    orders = Orders(lambda: 0.0)
    ask = trial_site._runner(site, orders).seconds_left
    orders.hear(Beat(7.0, stopped=False))
    assert ask() == 7.0
    orders.hear(Beat(7.0, stopped=True))
    with pytest.raises(TrialInterrupted):
        ask()
    orders.begin(0, 1)
    orders.drop(0, 1)
    with pytest.raises(TrialReplaced):
        ask()


def test_an_assignment_comes_back_as_it_was() -> None:
    trial = Trial(3, FIRST, {"learning_rate_adamw": 1e-3}, "portfolio", notes={"rungs": [2, 4]})
    assignment = Assignment(trial, 4, ((NAME, "linear", 0),), tests_symmetries=False)
    assert Assignment.from_dict(json.loads(json.dumps(assignment.to_dict()))) == assignment


# --- where they run makes no difference -----------------------------------------------------------------------------


@pytest.fixture
def elsewhere(scene: Scene, tmp_path: Path) -> Iterator[Callable[..., Elsewhere]]:
    with elsewhere_of(scene, tmp_path) as make:
        yield make


@pytest.mark.slow
def test_trials_of_two_workers_are_those_of_one_process(
    scene: Scene, tmp_path: Path, elsewhere: Callable[..., Elsewhere]
) -> None:
    theirs = elsewhere(2)
    theirs.submit(PROBED, 0)
    probed = theirs.until_ended(1)[0].progress
    for trial in TUNED:  # both at once, and at least one of them in a worker that never saw the probe
        theirs.submit(trial, 4, HEADS)
    theirs.until_ended(2)
    ours = here(scene, tmp_path / "ours", (PROBED, 0), *((trial, 4) for trial in TUNED))
    for number in range(3):
        same(ours, theirs.files, number)
    known, expected = theirs.files.load_held_out(), ours.load_held_out()
    assert known is not None
    assert expected is not None
    np.testing.assert_array_equal(known.probabilities, expected.probabilities)
    assert probed is not None
    assert probed.notes["share"] == 0.5
    assert "symmetries" in probed.notes


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_ends_as_an_undisturbed_one(
    scene: Scene, tmp_path: Path, elsewhere: Callable[..., Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = elsewhere(1)
    trial, kills = theirs.submit(TUNED[0].replace(recipe=dataclasses.replace(FIRST, head_from_probe=False)), 4), 0
    while True:
        report = theirs.next()
        if report.lost:
            newest = theirs.files.record(1)
            assert newest is not None
            assert newest.state == "running"
            trial = theirs.submit(newest.replace(attempt=newest.attempt + 1), 4)
        elif report.ended:
            break
        elif report.progress is not None and report.progress.state == "running" and kills < 2:
            kills += 1
            os.kill(theirs.executor.processes[0], signal.SIGKILL)
    assert kills == 2
    assert trial.attempt == 3
    alone = Trial(1, dataclasses.replace(FIRST, head_from_probe=False), {}, "portfolio")
    same(here(scene, tmp_path / "ours", (alone, 4)), theirs.files, 1)
    record = theirs.files.record(1)
    assert record is not None
    assert [each.epoch for each in record.epochs] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_worker_that_wakes_up_does_not_touch_what_its_replacement_wrote(
    scene: Scene, tmp_path: Path, elsewhere: Callable[..., Elsewhere]
) -> None:
    recipe = dataclasses.replace(FIRST, epochs=40, head_from_probe=False)
    sleeper, replacement = elsewhere(1), elsewhere(1)
    sleeper.submit(Trial(1, recipe, {}, "portfolio"), 40)
    while (sleeper.next().progress or TUNED[0]).epochs_done < 1:
        pass
    (pid,) = sleeper.executor.processes
    os.kill(pid, signal.SIGSTOP)  # nobody polls its executor, so that nobody kills it
    newest = replacement.files.record(1)
    assert newest is not None
    replacement.submit(newest.replace(attempt=2), newest.epochs_done + 2)
    replacement.until_ended(1)
    before = {each: each.read_bytes() for each in (tmp_path / "trials").rglob("*") if each.is_file()}
    done = replacement.files.record(1)
    assert done is not None
    assert (done.attempt, done.state) == (2, "paused")
    os.kill(pid, signal.SIGCONT)
    assert wait_for(lambda: any(report.ended for report in sleeper.executor.poll()), 60)
    left = {each for each in (tmp_path / "trials").rglob("*") if each.is_file() and not each.name.endswith(".tmp")}
    assert {each: each.read_bytes() for each in left} == before
    assert replacement.files.record(1) == done
