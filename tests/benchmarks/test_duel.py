"""The duel is fair where it can be checked: same images, budgets that are kept, paired differences, nothing twice."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import duel
import rival_recipes
import run_rival
from ablations import ABLATIONS
from automl_vision.executors import LocalExecutor
from automl_vision.runtime import make_runtime
from automl_vision.search.run_trial import Assignment
from automl_vision.search.search import Search, SearchTask
from automl_vision.search.trial import EpochRecord, Trial
from duel import ARMS, Arm, Cell, Result, paired, read_results, tables
from duel_sets import POOLS, Pool, write_folders
from rival_recipes import RECIPES, Task, bit_stairs, cosine_after, one_cycle

# --- images ----------------------------------------------------------------------------------------------------------


def pool(images: int = 60, for_test: int = 0) -> Pool:
    rows = np.arange(images)
    pixels = np.broadcast_to(rows[:, None, None], (images, 4, 4)).astype(np.uint8)
    return Pool(pixels, rows % 2, ("even", "odd"), rows >= images - for_test)


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*.png")}


@pytest.mark.parametrize("for_test", [0, 20])
def test_folders_share_no_image_and_are_even(tmp_path: Path, for_test: int) -> None:
    folders = write_folders(pool(for_test=for_test), tmp_path, size=11, test=10, seed=0)
    train, own, others = files(folders.data / "train"), files(folders.data / "test"), files(folders.others)
    assert (len(train), len(own), len(others)) == (11, 4, 10)
    assert len(train | own | others) == 25
    assert len(files(folders.data / "train" / "even")) == 6
    if for_test:
        assert min(others) >= "000040.png" > max(train | own)


def test_another_seed_draws_other_images_and_the_same_one_the_same(tmp_path: Path) -> None:
    drawn = [
        files(write_folders(pool(), tmp_path / str(n), size=20, test=10, seed=seed).data / "train")
        for n, seed in enumerate([0, 0, 1])
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_pool_that_is_too_small_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class even has 5 images, 7 are wanted"):
        write_folders(pool(10), tmp_path, size=10, test=1, seed=0)


def test_digits_are_large_enough_for_every_size() -> None:
    digits = POOLS["digits"]()
    assert digits.pixels.shape[0] == len(digits.labels) == 1797
    assert np.bincount(digits.labels).min() >= max(duel.SIZES) / 10 + 50


# --- recipes ---------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "one cycle": one_cycle(0.3, 5.0),
    "frozen epoch": one_cycle(0.99, 25.0),
    "cosine": cosine_after(0.1),
    "bit": bit_stairs,
}


@given(st.sampled_from(sorted(SCHEDULES)), st.floats(0.0, 0.999))
def test_a_schedule_never_exceeds_the_rate(name: str, done: float) -> None:
    assert 0.0 <= SCHEDULES[name](done) <= 1.0 + 1e-12


def test_bits_stairs_are_a_fifth_wide() -> None:
    assert [bit_stairs(done) for done in (0.1, 0.3, 0.5, 0.7, 0.9)] == pytest.approx([0.5, 1.0, 0.1, 0.01, 0.001])


def tiny_task(seconds: float) -> Task:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    images = torch.randint(0, 60, (24, 3, 40, 40), generator=generator, dtype=torch.uint8)
    images[labels == 1] += 150
    return Task(images, labels, ("dark", "light"), 32, make_runtime("cpu"), time.monotonic() + seconds, seed=0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ships_weights_when_the_time_is_over_before_it_begins(name: str) -> None:
    shipped = RECIPES[name](tiny_task(-1.0))
    assert shipped.weights
    assert all(torch.isfinite(tensor).all() for tensor in shipped.weights.values() if tensor.is_floating_point())
    json.dumps(shipped.about)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_batch_norm_stay_where_that_is_asked_for(frozen: bool) -> None:
    task = replace(tiny_task(60.0), freeze_norm=frozen)
    name = "backbone.bn1.running_mean"
    before = rival_recipes.network(task).state_dict()[name]
    fit = rival_recipes.Fit(
        task, net := rival_recipes.network(task), torch.optim.SGD(net.parameters()), 1e-3, bit_stairs, 2
    )
    for group in fit.optimizer.param_groups:
        group["lr_scale"] = 1.0
    fit.epoch()
    assert torch.equal(net.state_dict()[name], before) == frozen


def test_training_stops_where_validation_would_pass_the_deadline() -> None:
    task = tiny_task(60.0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
    optimizer = torch.optim.SGD([{"params": list(net.parameters()), "lr_scale": 1.0}], lr=1e-3)
    fit = rival_recipes.Fit(task, net, optimizer, 1e-3, cosine_after(0.1), steps=100)
    assert fit.epoch()
    assert fit.done == 1
    late = replace(fit, task=replace(task, deadline=time.monotonic() + 30.0), reserve=31.0)
    assert not late.epoch()
    assert late.done == 1


def test_a_soup_takes_only_what_does_not_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation likes weights near 2: the mean of 1 and 3 joins, and -9 does not."""
    net = torch.nn.Linear(1, 1, bias=False)
    monkeypatch.setattr(rival_recipes, "accuracy", lambda net, _task: 1 - abs(float(net.weight.detach()) - 2))
    ranked = [(0.0, 0, {"weight": torch.tensor([[value]])}) for value in (1.0, 3.0, -9.0)]
    weights, members, score = rival_recipes._greedy_soup(net, tiny_task(60.0), ranked)
    assert (float(weights["weight"]), members, score) == (2.0, 2, 1.0)


def test_a_rival_as_a_program_trains_within_its_budget_and_is_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = write_folders(pool(), tmp_path / "set", size=20, test=20, seed=0)
    monkeypatch.setattr(run_rival, "PROCESS_START", time.monotonic())
    model = str(tmp_path / "model.pt")
    train = ["--data", str(folders.data / "train"), "--out", model, "--budget", "3", "--size", "32", "--device", "cpu"]
    run_rival.main(["train", "bit", *train])
    run_rival.main(["test", model, "--data", str(folders.others), "--device", "cpu"])
    trained, tested = map(json.loads, capsys.readouterr().out.splitlines())
    assert trained["recipe"] == "bit"
    assert trained["classes"] == ["even", "odd"]
    assert tested["n"] == 20
    assert 0.0 <= tested["accuracy"] <= 1.0


# --- ours without a part ---------------------------------------------------------------------------------------------

TASK = SearchTask(
    backbones=("efficientnet_lite0",),
    pretrained=True,
    resolutions=(96,),
    fixed={},
    n_train=1_000,
    n_val=200,
    gmacs=lambda _name: 0.4,
    max_trials=5,
)


def trained(assignment: Assignment) -> Iterator[Trial]:
    """As if it were trained: later trials are worse."""
    trial = assignment.trial
    if trial.recipe.kind == "probe":
        yield trial.replace(state="complete", score=0.5, loss=1.0, seconds_per_image=0.01)
        return
    while trial.epochs_done < assignment.until:
        done = trial.epochs_done + 1
        score = 0.9 - 0.01 * trial.number
        record = EpochRecord(done, 1.0, 1.0, score, 1e-4, 1.0)
        state = "complete" if done == trial.recipe.epochs else "paused" if done == assignment.until else "running"
        trial = trial.replace(
            epochs=(*trial.epochs, record), state=state, score=score, loss=1.0, seconds_per_image=0.001
        )
        yield trial


@pytest.fixture
def search_without(request: pytest.FixtureRequest) -> Iterator[list[Trial]]:
    try:
        if request.param:
            ABLATIONS[request.param]()
        search = Search(TASK, LocalExecutor(trained), (), seconds_left=lambda: math.inf)
        list(search)
        yield search.trials
    finally:
        mock.patch.stopall()


@pytest.mark.parametrize("search_without", [""], indirect=True)
def test_the_whole_search_has_all_parts(search_without: list[Trial]) -> None:
    assert [trial.origin for trial in search_without[:3]] == ["probe", "portfolio", "portfolio"]
    assert [trial.state for trial in search_without] == ["complete"] * 6


@pytest.mark.parametrize("search_without", ["no_probe"], indirect=True)
def test_without_probe_none_is_fitted(search_without: list[Trial]) -> None:
    assert {trial.recipe.kind for trial in search_without} == {"finetune"}


@pytest.mark.parametrize("search_without", ["no_portfolio"], indirect=True)
def test_without_portfolio_the_sampler_proposes_all(search_without: list[Trial]) -> None:
    assert [trial.origin for trial in search_without] == ["probe", *["tpe"] * 5]


@pytest.mark.parametrize("search_without", ["prune_only"], indirect=True)
def test_prune_only_never_goes_back(search_without: list[Trial]) -> None:
    """Nothing limits the time, in which the whole search trains all five to their end."""
    assert [trial.state for trial in search_without] == ["complete", "complete", *["stopped"] * 4]


# --- what it comes to ------------------------------------------------------------------------------------------------


def result(
    arm: str, accuracy: float, *, images: str = "digits", seed: int = 0, size: int = 60, **more: object
) -> Result:
    values = {
        "budget": 20.0,
        "n": 500,
        "seconds": 19.0,
        "wall_seconds": 19.0,
        "cpu_seconds": 30.0,
        "load": 1.0,
        "about": {},
        **more,
    }
    return Result(images=images, size=size, seed=seed, arm=arm, accuracy=accuracy, **values)  # type: ignore[arg-type]


def test_differences_are_paired_and_ties_are_within_one_standard_error() -> None:
    ours = [result("ours", value, seed=seed) for seed, value in enumerate((0.8, 0.8, 0.8, 0.9))]
    theirs = [result("bit", value, seed=seed) for seed, value in enumerate((0.7, 0.79, 0.85))]
    found = paired([*ours, *theirs], "bit")
    assert found is not None
    assert found.mean == pytest.approx((0.1 + 0.01 - 0.05) / 3)
    assert (found.better, found.equal, found.worse) == (1, 1, 1)
    assert found.low <= found.mean <= found.high
    assert paired(ours, "bit") is None


def test_sizes_of_one_draw_are_no_further_evidence() -> None:
    """One (data set, seed) is one unit, however many sizes and budgets were measured on it."""
    gaps = {0: 0.2, 1: -0.1}
    few = [result(arm, 0.5 + gaps[s] * (arm == "ours"), seed=s) for arm in ("ours", "bit") for s in gaps]
    many = [replace(each, size=size) for each in few for size in (60, 200, 600, 1_000)]
    one, four = paired(few, "bit"), paired(many, "bit")
    assert one is not None
    assert four is not None
    assert (one.low, one.high) == pytest.approx((-0.1, 0.2))
    assert (four.low, four.high) == pytest.approx((-0.1, 0.2))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_an_interval_holds_its_mean_and_turns_round(pairs: list[tuple[float, float]]) -> None:
    results = [
        result(arm, value, seed=seed)
        for seed, both in enumerate(pairs)
        for arm, value in zip(("ours", "bit"), both, strict=True)
    ]
    one, other = paired(results, "bit"), paired(results, "ours", arm="bit")
    assert one is not None
    assert other is not None
    assert one.low - 1e-9 <= one.mean <= one.high + 1e-9
    assert one.mean == pytest.approx(-other.mean)


def test_the_tables_name_every_arm_and_who_was_late() -> None:
    late = result("bit", 0.1, seconds=27.0, about={"error": "out of luck"})
    text = tables([result("ours", 0.8), late])
    assert "| digits 60, 20 s (1) | 0.800 | 0.100 |" in text
    assert "| bit | +0.700 [+0.700, +0.700]; 1 better, 0 equal, 0 worse |" in text
    assert "| bit | 1 | +7.0 | 1 |" in text


# --- measuring -------------------------------------------------------------------------------------------------------


def stand_in(accuracy: float, code: int = 0) -> Arm:
    """Prints what it is told to, and leaves the images that it saw beside its model."""
    program = f"import json, sys; print(json.dumps({{'accuracy': {accuracy}, 'n': 4}})); sys.exit({code})"
    tested = f"import json; print(json.dumps({{'accuracy': {accuracy}, 'n': 4}}))"
    return Arm(
        train=lambda _job: [sys.executable, "-c", program],
        test=lambda _job: [sys.executable, "-c", tested],
        figures=lambda said: (said["accuracy"], said["n"]),
        about=lambda job, _ended: {"files": len(files(job.folders.data / "train"))},
    )


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARMS, "ours", stand_in(0.75))
    monkeypatch.setitem(ARMS, "bit", stand_in(0.5))
    monkeypatch.setitem(ARMS, "fastai", stand_in(0.9, code=5))
    monkeypatch.setitem(POOLS, "digits", lambda: pool(60))


OPTIONS = ["--cells", "digits:10", "--budgets", "20", "--seeds", "2", "--test", "8"]


@pytest.mark.usefixtures("arms")
def test_everything_is_measured_once_and_a_second_call_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "duel.json"
    duel.main([*OPTIONS, "--arms", "ours", "bit", "--json", str(file)])
    results = read_results(file)
    assert sorted((each.arm, each.seed, each.accuracy) for each in results) == [
        ("bit", 0, 0.5),
        ("bit", 1, 0.5),
        ("ours", 0, 0.75),
        ("ours", 1, 0.75),
    ]
    assert all(each.about == {"files": 10} for each in results)
    assert results[0].arm != results[2].arm, "the arms take turns"
    assert "| bit | +0.250" in capsys.readouterr().out
    before = file.read_bytes()
    duel.main([*OPTIONS, "--arms", "ours", "bit", "--json", str(file)])
    assert file.read_bytes() == before


@pytest.mark.usefixtures("arms")
def test_an_arm_without_a_model_counts_as_guessing(tmp_path: Path) -> None:
    file = tmp_path / "duel.json"
    duel.main([*OPTIONS, "--arms", "fastai", "--json", str(file)])
    first, _ = read_results(file)
    assert (first.accuracy, first.n) == (0.5, 8)
    assert first.about == {"error": "exit code 5"}


@pytest.mark.usefixtures("arms")
def test_on_the_clock_of_cpu_seconds_the_program_says_how_many_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; print('a warning', file=sys.stderr); print('12.50', file=sys.stderr)"
    monkeypatch.setitem(ARMS, "ours", replace(ARMS["ours"], train=lambda _job: [sys.executable, "-c", program]))
    file = tmp_path / "duel.json"
    duel.main([*OPTIONS, "--arms", "ours", "--clock", "cpu", "--json", str(file)])
    assert {each.seconds for each in read_results(file)} == {12.5}
    assert all(each.wall_seconds < 12.5 for each in read_results(file))
    assert json.loads(file.read_text())["machine"]["clock"] == "cpu"


def test_every_arm_is_told_the_same_images_budget_seed_and_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(duel.AUTOGLUON_PYTHON, "/its/own/python")
    folders = write_folders(pool(), tmp_path / "set", size=10, test=8, seed=0)
    job = duel.Job(folders, Cell("digits", 10, 45.0, 7), "cpu", tmp_path)
    for name, arm in ARMS.items():
        line = arm.train(job)
        if name == duel.INSTALLED:
            assert line[0] == arm.test(job)[0] == "/its/own/python"
        else:
            assert arm.train(replace(job, clock="cpu")) == [line[0], str(duel.HERE / "cpu_clock.py"), *line[1:]]
        told = dict(pairwise(line))
        data = Path(told["--data"])
        assert (data if data.name == "train" else data / "train") == folders.data / "train", name
        assert told["--budget"].rstrip("s") in ("45", "45.0"), name
        assert (told["--seed"], told["--device"]) == ("7", "cpu"), name
        tested = arm.test(job)
        assert dict(pairwise(tested))["--data"] == str(folders.others), name


def test_the_installed_program_gets_the_weights_as_the_hub_would_give_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(duel.AUTOGLUON_PYTHON, "python")
    folders = write_folders(pool(), tmp_path / "set", size=10, test=8, seed=0)
    line = ARMS[duel.INSTALLED].train(duel.Job(folders, Cell("digits", 10, 45.0, 7), "cpu", tmp_path))
    hub = Path(dict(pairwise(line))["--hub"])
    assert [file.name for file in hub.rglob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize(("clock", "python"), [("wall", ""), ("cpu", "python")])
def test_the_installed_program_runs_only_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: str, python: str
) -> None:
    if python:
        monkeypatch.setenv(duel.AUTOGLUON_PYTHON, python)
    else:
        monkeypatch.delenv(duel.AUTOGLUON_PYTHON, raising=False)
    options = ["--clock", clock, "--arms", duel.INSTALLED, "--json", str(tmp_path / "duel.json")]
    with pytest.raises(SystemExit):
        duel.main(options)
    assert "AUTOGLUON_PYTHON" in capsys.readouterr().err


def test_ours_with_a_cosine_says_so_by_a_setting_that_users_have(tmp_path: Path) -> None:
    from automl_vision.config import load_settings

    folders = write_folders(pool(), tmp_path / "set", size=10, test=8, seed=0)
    job = duel.Job(folders, Cell("digits", 10, 45.0, 7), "cpu", tmp_path)
    ARMS["ours_cosine_no_ema"].train(job)
    training = load_settings(tmp_path / "settings.toml").training
    assert (training.schedule, training.ema) == ("cosine", False)
    ARMS["ours"].train(job)
    assert load_settings(tmp_path / "settings.toml") == load_settings()
