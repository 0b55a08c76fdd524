"""The speed benchmark compares what it says: arms in turns, the same step, ratios by both clocks."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import speed_ratios
from automl_vision.runtime import Runtime
from automl_vision.training.loop import Trainer
from photographs import BITS_PER_PIXEL, jpeg, photograph, write_photographs
from speed_parts import PEERS_PYTHON, folder_arms
from speed_ratios import RATIOS, cpu_seconds, measure, ratios, table
from speed_steps import Resident, Scene, loader_epochs, store_of, trainer_of

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed.py"
CPU = Runtime(torch.device("cpu"), None, 1)
SCENE = Scene("mobilenetv3_small_100", 32, batch=4, images=8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_photographs(folder / "small", 12, 50, 38, classes=3)
    write_photographs(folder / "large", 12, 200, 150, classes=3)
    return folder


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_photograph_costs_a_decoder_what_a_camera_s_does() -> None:
    data = jpeg(photograph(500, 375, np.random.default_rng(0)))
    bits = 8 * len(data) / (500 * 375)
    assert 0.6 * BITS_PER_PIXEL <= bits <= BITS_PER_PIXEL


def test_pictures_are_dealt_evenly_made_once_and_differ(pictures: Path) -> None:
    files = sorted((pictures / "small").rglob("*.jpg"))
    assert [len(list(folder.iterdir())) for folder in (pictures / "small").iterdir()] == [4, 4, 4]
    assert len({file.read_bytes() for file in files}) == 12
    with Image.open(files[0]) as image:
        assert image.size == (50, 38)
    files[0].touch()
    before = files[0].stat().st_mtime_ns
    write_photographs(pictures / "small", 12, 50, 38)
    assert files[0].stat().st_mtime_ns == before


# --- arms ------------------------------------------------------------------------------------------------------------


def test_all_training_arms_take_the_same_steps(pictures: Path) -> None:
    store = store_of(pictures / "small", SCENE, 1)
    trainers = [trainer_of(kind, SCENE, store, CPU) for kind in (Trainer, Resident)]
    assert [trainer.run_epoch().images for trainer in trainers] == [8, 8]
    assert {trainer.steps_per_epoch for trainer in trainers} == {2}
    assert loader_epochs(SCENE, pictures / "small", store, CPU, 8)() == 8


def test_the_resident_arm_loads_once_and_its_batch_is_in_the_layout_of_the_network(pictures: Path) -> None:
    trainer = trainer_of(Resident, SCENE, store_of(pictures / "small", SCENE, 1), CPU)
    trainer.run_epoch()
    assert isinstance(trainer, Resident)
    assert trainer._held is not None
    images, _ = trainer._held
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    held = images
    trainer.run_epoch()
    assert trainer._held[0] is held


def test_predicting_a_folder_decoding_and_the_network_see_the_same_images(pictures: Path) -> None:
    arms = folder_arms(SCENE, pictures / "small", CPU)
    assert {name: block() for name, block in arms.items()} == {"folder": 8, "decoding": 8, "network": 8}


def test_a_folder_is_compared_with_the_larger_and_with_the_sum() -> None:
    costs = {
        name: {"wall": cost, "cpu": cost} for name, cost in {"folder": 3.0, "decoding": 2.0, "network": 1.0}.items()
    }
    larger, both = ratios("folder", "", [costs], 2)
    assert (larger["wall"]["median"], both["cpu"]["median"]) == (1.5, 1.0)


def test_arms_take_turns_and_the_first_call_is_not_timed() -> None:
    called: list[str] = []

    def arm(name: str) -> speed_ratios.Block:
        def block() -> int:
            called.append(name)
            return 2

        return block

    rounds = measure({name: arm(name) for name in "abc"}, 3)
    assert "".join(called) == "abc" + "abc" + "bca" + "cab"
    assert [set(each) for each in rounds] == [set("abc")] * 3


def test_cpu_seconds_are_those_of_children_too() -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("the CPU time of a running child cannot be read here")
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint('burnt', flush=True)\ninput()"
    before = cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = cpu_seconds() - before
        child.communicate(b"\n")
    assert running >= 0.45
    assert cpu_seconds() - before == pytest.approx(running, abs=0.3)


# --- ratios ----------------------------------------------------------------------------------------------------------


def test_a_ratio_is_taken_in_each_round_and_by_both_clocks() -> None:
    names = ("ours", "ours, statistics trained", "resident", "timm", "loader, 500 px", "loader, 3 megapixels")
    rounds = [
        {name: {"wall": wall, "cpu": 1.0} for name, wall in zip(names, walls, strict=True)}
        for walls in ([1, 4, 0.9, 2, 3, 4], [2, 4, 1.9, 2, 3, 4], [1, 4, 0.5, 2, 3, 4])
    ]
    rows = {row["ratio"]: row for row in ratios("steps", "resnet18@128", rounds, 2)}
    assert rows["E"]["wall"] == {"median": 0.9, "low": 0.5, "high": 0.95}
    assert rows["E"]["cpu"]["median"] == 1.0
    assert (rows["L"]["wall"]["median"], rows["LT"]["wall"]["median"]) == (2.0, 0.5)
    assert (rows["E"]["bar"], rows["L"]["bar"], rows["D"]["bar"]) == (0.97, 1.5, None)
    assert "| E | step on resident data / step | resnet18@128 | >= 0.97 | 0.9 [0.5, 0.95] |" in table(
        list(rows.values())
    )


def test_all_cores_decode_at_once_by_the_wall_clock() -> None:
    arms = {"first epoch": 3.0, "decoding on one core": 4.0, "resident": 1.0}
    rows = ratios("first epoch", "", [{name: {"wall": cost, "cpu": cost} for name, cost in arms.items()}], 2)
    assert [(row["ratio"], row["wall"]["median"], row["cpu"]["median"]) for row in rows] == [
        ("F", 1.5, 0.75),
        ("FS", 1.0, 0.6),
    ]


def test_letters_are_unique_and_every_ratio_has_its_part() -> None:
    letters = [ratio.letter for ratio in RATIOS]
    assert len(set(letters)) == len(letters)
    assert {ratio.part for ratio in RATIOS} == set(speed_ratios.PARTS)


@pytest.mark.slow
def test_the_cheap_columns_run(pictures: Path, tmp_path: Path) -> None:
    """They must run; how fast is no test's business."""
    line = [sys.executable, str(SPEED), "--device", "cpu", "--rounds", "1", "--images", "8"]
    line += ["--pictures", str(pictures), "--scenes", "mobilenetv3_small_100@128", "--json", str(tmp_path / "s.json")]
    environment = {
        **{key: value for key, value in os.environ.items() if key != PEERS_PYTHON},
        "PYTHONPATH": str(SPEED.parents[1] / "src"),
    }
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "s.json").read_text())["ratios"]
    assert {row["ratio"] for row in rows} == {ratio.letter for ratio in RATIOS if ratio.part != "peers"}
    assert all(math.isfinite(row[clock]["median"]) for row in rows for clock in ("wall", "cpu"))
    assert len(done.stdout.splitlines()) == 2 + len(rows)
