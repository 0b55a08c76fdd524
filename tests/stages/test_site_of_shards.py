"""Trials in other processes whose images lie in shards: opened again there, in the same order, without a test image."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loopback import Server, https_server, make_certificate
from site_scene import FIRST, HEADS, PROBED, TUNED, Scene, elsewhere_of, here, same, settings_of

from automl_vision.data.shards.address import parse_address
from automl_vision.data.shards.layout import INDEX
from automl_vision.data.shards.plan import ShardSize
from automl_vision.data.store import SealedRowError
from automl_vision.errors import DataError
from automl_vision.executors.workplace import Orders
from automl_vision.pipeline import inspect, shard
from automl_vision.search import retrain
from automl_vision.search.run_trial import TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.stages import trial_site
from automl_vision.stages.cluster import data_to_see
from automl_vision.stages.trial_site import ROWS, SITE, write_site
from automl_vision.tensor_file import load_tensors
from automl_vision.training.ranks import ALONE
from make_smoke_data import make_smoke_data


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 15 images, five to a shard."""
    folder = tmp_path_factory.mktemp("shards")
    make_smoke_data(folder / "data", classes=3, images=15)
    shard(folder / "data", settings_of(folder / "cache"), parse_address(folder / "set", to_write=True), ShardSize(0, 5))
    return folder / "set"


def scene_of(data: Path | str, folder: Path, **settings: Any) -> Scene:
    prepared = inspect(Path(data), settings_of(folder / "cache" / "images", **settings))
    assert prepared.refused is None
    return Scene(prepared.sealed(), folder / "cache" / "images")


@pytest.fixture(params=[True, False], ids=["ahead", "on demand"])
def scene(request: pytest.FixtureRequest, shards: Path, tmp_path: Path) -> Scene:
    return scene_of(shards, tmp_path, machine__decode_ahead=request.param)


@pytest.fixture
def on_demand(shards: Path, tmp_path: Path) -> Scene:
    return scene_of(shards, tmp_path, machine__decode_ahead=False)


@pytest.fixture
def server(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with https_server(shards, certificate) as served:
        yield served


def both(scene: Scene, tmp_path: Path) -> tuple[TrialRunner, TrialRunner]:
    """What runs trials here, and what a worker makes of its site."""
    ours = scene.runner(tmp_path / "own")
    write_site(tmp_path / "site", scene.prepared, ours, scene.machine())
    return ours, trial_site._runner(tmp_path / "site", Orders())


def shown(runner: TrialRunner) -> torch.Tensor:
    return torch.cat([runner.data.train_rows, runner.data.val_rows])


def see_the_same(ours: TrialRunner, theirs: TrialRunner) -> None:
    assert torch.equal(theirs.data.source.fetch(shown(ours), 32), ours.data.source.fetch(shown(ours), 32))


# --- what is written down -------------------------------------------------------------------------------------------


def test_no_test_image_and_no_shard_of_test_images_is_told_of(scene: Scene, tmp_path: Path) -> None:
    ours, theirs = both(scene, tmp_path)
    written, tensors = (tmp_path / "site" / SITE).read_text(), load_tensors(tmp_path / "site" / ROWS)
    sharded, test = scene.prepared.manifest.sharded, scene.prepared.split.rows("test")
    assert sharded is not None
    assert len(test)
    for row in test:
        assert sharded.names[sharded.shard[row]] not in written
        assert sharded.image(row).digest not in written
    told = json.loads(written)["shards"]
    shown_shards = {sharded.names[sharded.shard[row]] for row in shown(ours).tolist()}
    assert set(told["whereabouts"]["names"]) == shown_shards
    assert {len(each) for name, each in tensors.items() if name.startswith("in_shards.")} == {len(shown(ours))}
    for row in test:
        with pytest.raises(SealedRowError):
            theirs.data.source.fetch(torch.tensor([row]), 32)
        assert theirs.data.blocks is None or theirs.data.blocks[row] == -1


def test_a_worker_sees_what_the_driver_sees(scene: Scene, tmp_path: Path) -> None:
    ours, theirs = both(scene, tmp_path)
    see_the_same(ours, theirs)
    assert theirs.data.source.is_on_demand == scene.prepared.store.is_on_demand
    assert (theirs.data.blocks is None) == (ours.data.blocks is None) == (not scene.prepared.store.is_on_demand)


def test_relative_folders_are_found_from_any_other(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards.parent)
    scene = scene_of("set", tmp_path, machine__decode_ahead=False)
    ours = scene.runner(tmp_path / "own")
    write_site(tmp_path / "site", scene.prepared, ours, scene.machine())
    expected = ours.data.source.fetch(shown(ours), 32)
    monkeypatch.chdir(tmp_path)
    theirs = trial_site._runner(tmp_path / "site", Orders())
    assert torch.equal(theirs.data.source.fetch(shown(ours), 32), expected)


def test_another_machine_decodes_the_shards_once_for_itself(shards: Path, tmp_path: Path) -> None:
    scene = scene_of(shards, tmp_path)
    ours = scene.runner(tmp_path / "own")
    machine = dataclasses.replace(scene.machine(), cache_dir=tmp_path / "there")
    write_site(tmp_path / "site", scene.prepared, ours, machine)
    values = json.loads((tmp_path / "site" / SITE).read_text())
    assert values["squares"] is not None
    (tmp_path / "site" / SITE).write_text(json.dumps({**values, "squares": str(tmp_path / "nowhere")}))
    see_the_same(ours, trial_site._runner(tmp_path / "site", Orders()))
    assert list((tmp_path / "there").glob("*/index.json"))


def test_shards_of_others_are_opened_as_well(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    for each in shards.glob("*.tar"):
        shutil.copy(each, tmp_path / "foreign")
    scene = scene_of(tmp_path / "foreign", tmp_path, machine__decode_ahead=False)
    see_the_same(*both(scene, tmp_path))


def test_a_shard_that_changed_meanwhile_is_an_error(shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    scene = scene_of(copy, tmp_path, machine__decode_ahead=False)
    ours, theirs = both(scene, tmp_path)
    for each in copy.glob("train-*.tar"):
        each.write_bytes(bytes(each.stat().st_size))
    with pytest.raises(DataError):
        theirs.data.source.fetch(ours.data.train_rows, 32)


# --- by URL ---------------------------------------------------------------------------------------------------------


def test_shards_behind_a_url_are_fetched_into_the_window_of_the_machine(server: Server, tmp_path: Path) -> None:
    scene = scene_of(
        server.url, tmp_path, machine__decode_ahead=False, data__allow_private=True, data__shard_window="3M"
    )
    ours, theirs = both(scene, tmp_path)
    fetched = json.loads((tmp_path / "site" / SITE).read_text())["shards"]["whereabouts"]["fetched"]
    assert fetched["window"] == str(tmp_path / "cache" / "images" / "fetched-shards")
    assert (fetched["most_bytes"], fetched["allow_private"]) == (3 * 10**6, True)
    server.asked.clear()
    see_the_same(ours, theirs)
    assert {name for _, name, _ in server.asked}.isdisjoint({INDEX, "samples.parquet"}), "tables are not read again"
    assert not any(name.startswith("test-") for _, name, _ in server.asked)


def test_squares_that_are_here_need_no_server(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with https_server(shards, certificate) as served:
        scene = scene_of(served.url, tmp_path, data__allow_private=True)
        see_the_same(*both(scene, tmp_path))
    see_the_same(*both(scene, tmp_path))


# --- where they run makes no difference -----------------------------------------------------------------------------


def test_ranks_take_the_batches_of_the_first_one(on_demand: Scene, tmp_path: Path) -> None:
    ours, theirs = both(on_demand, tmp_path)
    trial = Trial(1, FIRST, {}, "portfolio")
    everything = trial_site._train_and_val(theirs)
    np.testing.assert_array_equal(everything.rows, shown(ours).numpy())
    alone = dataclasses.replace(ours, data=dataclasses.replace(ours.data, blocks=None))
    for epoch in (1, 2):
        expected, got = (each._trainer(trial)[1]._batches(epoch) for each in (ours, theirs))
        assert all(map(torch.equal, expected, got))
        assert not all(map(torch.equal, expected, alone._trainer(trial)[1]._batches(epoch)))
        again = [retrain._trainer(each, trial, everything)._batches(epoch) for each in (ours, theirs)]
        assert all(map(torch.equal, *again))


def test_a_rank_opens_its_work(on_demand: Scene, tmp_path: Path) -> None:
    write_site(tmp_path / "site", on_demand.prepared, on_demand.runner(tmp_path / "own"), on_demand.machine())
    take_part = trial_site.open_site_together(str(tmp_path / "site"), ALONE)
    take_part({"trial": PROBED.to_dict(), "until": 0, "heads": [], "tests_symmetries": False})  # the first one's alone


@pytest.mark.slow
@pytest.mark.parametrize("by_url", [False, True], ids=["folder", "url"])
def test_trials_of_two_workers_are_those_of_one_process(
    server: Server, shards: Path, tmp_path: Path, by_url: bool
) -> None:
    data = server.url if by_url else shards
    scene = scene_of(data, tmp_path, machine__decode_ahead=False, data__allow_private=True)
    with elsewhere_of(scene, tmp_path) as make:
        theirs = make(2)
        theirs.submit(PROBED, 0)
        theirs.until_ended(1)
        for trial in TUNED:
            theirs.submit(trial, 4, HEADS)
        theirs.until_ended(2)
    ours = here(scene, tmp_path / "ours", (PROBED, 0), *((trial, 4) for trial in TUNED))
    for number in range(3):
        same(ours, theirs.files, number)
    assert bool(list((tmp_path / "cache" / "images" / "fetched-shards").glob("*.tar"))) == by_url


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ("https:/host/set", ""),
        ("s3:/bucket/set", ""),
        ("hf:name/set", ""),
        ("file:///data/set", "/data/set"),
        ("/data/set", "/data/set"),
    ],
)
def test_machines_of_a_cluster_must_see_folders_and_no_urls(data: str, seen: str) -> None:
    assert data_to_see(Path(data)) == seen
