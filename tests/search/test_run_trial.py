"""The work of a trial, with a stand-in for the network and its training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_sets import gaussians, xor
from histories import finetune
from memory_source import MemorySource
from torch import nn

from automl_vision import tensor_file
from automl_vision.errors import FileTooLarge, ResolutionError
from automl_vision.models import head_choice, probe
from automl_vision.models.classifier import Classifier
from automl_vision.models.features import OutOfTime
from automl_vision.models.heads import build_head
from automl_vision.models.probe import DIRECTION_BYTES, MEMORY, ROW_BYTES
from automl_vision.models.symmetry import FEWEST_IMAGES, UNTESTED
from automl_vision.runtime import Runtime
from automl_vision.search import run_trial, trial_saver
from automl_vision.search.run_trial import HEAD_TIME, SYMMETRY_TIME, Assignment, TrialInterrupted, TrialRunner
from automl_vision.search.trial import Trial, is_too_large
from automl_vision.search.trial_files import TrialFiles
from automl_vision.training.loop import EpochResult, TooLittleMemory, TrainingData, TrialFailed
from automl_vision.training.recipe import Recipe

RECIPE = Recipe("finetune", "resnet18", 32, epochs=6, head_from_probe=False)
LABELS = torch.tensor([0, 1] * 4)
DATA = TrainingData(
    source=None,  # type: ignore[arg-type] # nothing is fetched
    train_rows=torch.arange(8),
    train_labels=LABELS,
    val_rows=torch.arange(8),
    val_labels=LABELS,
    num_classes=2,
)


class StandIn:
    """Trains nothing: epoch n scores n/10; `fault` may raise in an epoch."""

    fault: Callable[[int], None] = staticmethod(lambda epoch: None)
    val_loss: Callable[[int], float] = staticmethod(lambda epoch: 1.0 / epoch)
    best: int = 10**9  # the epoch that is kept, once it is reached

    def __init__(self, recipe: Recipe, *_: Any) -> None:
        self.recipe = recipe
        self.epoch = 0

    def run_epoch(self, seconds_left: Callable[[], float]) -> EpochResult:
        seconds_left()
        self.epoch += 1
        StandIn.fault(self.epoch)
        ended = "horizon" if self.epoch == self.recipe.epochs else ""
        return EpochResult(self.epoch, 1.0, StandIn.val_loss(self.epoch), self.epoch / 10, 1e-3, 2.0, 8, ended)

    @property
    def has_begun(self) -> bool:
        return self.epoch > 0

    @property
    def best_epoch(self) -> int:
        return min(self.epoch, StandIn.best)

    @property
    def best_score(self) -> float:
        return self.best_epoch / 10

    @property
    def best_loss(self) -> float:
        return StandIn.val_loss(self.best_epoch)

    def best_weights(self) -> dict[str, torch.Tensor]:
        return {"epoch": torch.tensor(self.best_epoch)}

    def best_probabilities(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.full((8, 2), 0.5, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "recipe": self.recipe.to_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        if state["recipe"] != self.recipe.to_dict():
            raise ValueError("this state belongs to another recipe")
        self.epoch = state["epoch"]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRunner:
    monkeypatch.setattr(run_trial, "Trainer", StandIn)
    monkeypatch.setattr(TrialRunner, "classifier", lambda self, recipe: None)
    monkeypatch.setattr(StandIn, "fault", staticmethod(lambda epoch: None))
    monkeypatch.setattr(trial_saver, "SAVING_SHARE", math.inf)
    return TrialRunner(
        data=DATA,
        train_groups=np.arange(8),
        objective="accuracy",
        runtime=Runtime(torch.device("cpu"), None, 1),
        files=TrialFiles(tmp_path / "trials"),
        weights={},
        seconds_left=lambda: math.inf,
    )


def fresh(number: int = 0, recipe: Recipe = RECIPE) -> Trial:
    return Trial(number, recipe, {}, "portfolio")


def interrupted() -> float:
    raise TrialInterrupted


def states(trials: list[Trial]) -> list[tuple[int, str]]:
    return [(trial.epochs_done, trial.state) for trial in trials]


def on_disk(runner: TrialRunner) -> list[Trial]:
    trials, damaged = runner.files.read()
    assert not damaged
    return trials


def test_each_epoch_is_on_disk_before_it_is_told(runner: TrialRunner) -> None:
    told = []
    for trial in runner(Assignment(fresh(), until=3)):
        assert on_disk(runner) == [trial]
        told.append(trial)
    assert states(told) == [(1, "running"), (2, "running"), (3, "paused")]
    assert told[-1].score == 0.3
    assert told[-1].seconds == 6.0


def test_a_paused_trial_goes_on_from_its_checkpoint(runner: TrialRunner) -> None:
    *_, paused = runner(Assignment(fresh(), until=2))
    rest = list(runner(Assignment(paused, until=6)))
    assert states(rest) == [(3, "running"), (4, "running"), (5, "running"), (6, "complete")]
    assert rest[-1].epochs[:2] == paused.epochs


def test_seconds_and_the_share_of_the_machine_that_they_were_timed_with_are_of_one_moment(runner: TrialRunner) -> None:
    alone, beside = runner.runtime, dataclasses.replace(runner.runtime, share=0.125)
    runner.runtime = beside
    *_, paused = runner(Assignment(fresh(), until=2))
    assert paused.notes["share"] == 0.125
    assert paused.seconds_per_image_alone == paused.seconds_per_image / 8
    runner.runtime = alone
    *_, paused = runner(Assignment(paused, until=4))
    assert "share" not in paused.notes
    assert paused.seconds_per_image_alone == paused.seconds_per_image
    runner.runtime = beside
    *_, complete = runner(Assignment(paused, until=6))
    assert complete.notes["share"] == 0.125


def test_a_trial_that_was_stopped_before_it_was_timed_anew_keeps_its_earlier_share(runner: TrialRunner) -> None:
    timed = dataclasses.replace(runner.runtime, share=0.125)
    alone, runner.runtime = runner.runtime, timed
    *_, paused = runner(Assignment(fresh(), until=2))
    runner.runtime = alone
    runner.seconds_left = interrupted
    (left,) = runner(Assignment(paused, until=4))
    assert (left.state, left.notes["share"]) == ("paused", 0.125)
    assert left.seconds_per_image == paused.seconds_per_image


def test_a_user_who_stops_leaves_the_trial_as_of_its_last_epoch(runner: TrialRunner) -> None:
    asked = 0

    def seconds_left() -> float:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise TrialInterrupted
        return 1.0

    runner.seconds_left = seconds_left
    told = list(runner(Assignment(fresh(), until=6)))
    assert states(told) == [(1, "running"), (2, "running"), (2, "paused")]
    runner.seconds_left = lambda: math.inf
    assert states(list(runner(Assignment(told[-1], until=3)))) == [(3, "paused")]


def test_a_kill_between_two_writes_costs_the_epochs_since_the_first(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_saver, "SAVING_SHARE", 1e-9)
    working = runner(Assignment(fresh(), until=6))
    third = [next(working) for _ in range(3)][-1]
    result = runner.files.load_result(0)
    assert result is not None
    assert (third.epochs_done, third.score, int(result.weights["epoch"])) == (3, 0.1, 1)
    (adopted,) = on_disk(runner)
    assert (adopted.epochs_done, adopted.score) == (1, 0.1)  # no record is ahead of its checkpoint
    rest = list(runner(Assignment(adopted.replace(state="paused"), until=6)))
    assert [trial.epochs_done for trial in rest] == [2, 3, 4, 5, 6]
    assert (rest[-1].score, rest[-1].state) == (0.6, "complete")


def test_a_user_who_stops_loses_nothing_that_was_not_written_yet(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter([1.0, 1.0, 1.0])

    def seconds_left() -> float:
        for seconds in left:
            return seconds
        raise TrialInterrupted

    monkeypatch.setattr(trial_saver, "SAVING_SHARE", 1e-9)
    runner.seconds_left = seconds_left
    *_, paused = runner(Assignment(fresh(), until=6))
    assert (paused.epochs_done, paused.state, paused.score) == (3, "paused", 0.3)
    runner.seconds_left = lambda: math.inf
    assert states(list(runner(Assignment(paused, until=4)))) == [(4, "paused")]


def test_a_checkpoint_ahead_of_its_record_counts(runner: TrialRunner) -> None:
    """The process died after the checkpoint of the last epoch, before its record."""
    first, last = runner(Assignment(fresh(), until=2))
    runner.files.commit(first)
    adopted = first.replace(state="paused", attempt=2)
    told = list(runner(Assignment(adopted, until=2)))
    assert states(told) == [(2, "paused")]
    assert told[0] == last.replace(attempt=2)
    assert on_disk(runner) == told


def test_a_lost_checkpoint_costs_the_epochs_and_nothing_else(runner: TrialRunner) -> None:
    *_, paused = runner(Assignment(fresh(), until=3))
    runner.files.discard(0)
    told = list(runner(Assignment(paused, until=4)))
    assert states(told) == [(1, "running"), (2, "running"), (3, "running"), (4, "paused")]
    assert runner.files.load_result(0) is not None


def test_memory_that_is_too_short_for_a_checkpoint_fails_the_trial_and_loses_nothing(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, paused = runner(Assignment(fresh(), until=3))
    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "available_memory", lambda: 100)
        (failed,) = runner(Assignment(paused, until=4))
    assert (failed.state, failed.epochs_done, failed.notes["out_of_memory"]) == ("failed", 3, True)
    assert "100 bytes of memory are left" in failed.error
    assert states(list(runner(Assignment(paused, until=4)))) == [(4, "paused")]


def test_a_checkpoint_that_cannot_be_read_is_told_and_its_epochs_are_trained_again(runner: TrialRunner) -> None:
    *_, paused = runner(Assignment(fresh(), until=2))
    file = runner.files.name_of_checkpoint(0)
    file.write_bytes(file.read_bytes()[:100])
    told = list(runner(Assignment(paused, until=3)))
    assert states(told) == [(1, "running"), (2, "running"), (3, "paused")]
    assert told[-1].notes["unread"] == [str(file)]
    (later,) = runner(Assignment(told[-1], until=4))
    assert later.notes["unread"] == [str(file)]


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(runner: TrialRunner) -> None:
    """A trial whose record was lost leaves its files to the next one of its number."""
    list(runner(Assignment(fresh(), until=3)))
    other = dataclasses.replace(RECIPE, epochs=4, learning_rate=0.5)
    told = list(runner(Assignment(fresh(recipe=other), until=2)))
    assert states(told) == [(1, "running"), (2, "paused")]
    assert told[-1].recipe == other


def not_finite(epoch: int) -> None:
    if epoch == 2:
        raise TrialFailed("loss is not finite in epoch 2")


def no_memory(epoch: int) -> None:
    if epoch == 2:
        raise torch.OutOfMemoryError("CUDA out of memory")


def no_memory_on_the_cpu(epoch: int) -> None:
    if epoch == 2:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


def no_room(epoch: int) -> None:
    if epoch == 2:
        raise TooLittleMemory("one image needs about 2.00 GB")


@pytest.mark.parametrize("fault", [no_memory, no_memory_on_the_cpu, no_room])
def test_a_trial_that_did_not_fit_says_so(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None]
) -> None:
    monkeypatch.setattr(StandIn, "fault", staticmethod(fault))
    *_, failed = runner(Assignment(fresh(), until=6))
    assert failed.notes["out_of_memory"] is True
    assert is_too_large(RECIPE, on_disk(runner))


@pytest.mark.parametrize("fault", [not_finite, no_memory, no_memory_on_the_cpu])
def test_a_failure_ends_the_trial_and_not_the_run(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None]
) -> None:
    monkeypatch.setattr(StandIn, "fault", staticmethod(fault))
    told = list(runner(Assignment(fresh(), until=6)))
    assert states(told) == [(1, "running"), (1, "failed")]
    assert told[-1].error
    assert told[-1].score == 0.1
    assert ("out_of_memory" in told[-1].notes) == (fault is not not_finite)
    assert on_disk(runner) == [told[-1]]


def test_figures_that_are_not_finite_fail_the_trial(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "val_loss", staticmethod(lambda epoch: math.inf if epoch == 2 else 1.0))
    assert states(list(runner(Assignment(fresh(), until=6)))) == [(1, "running"), (1, "failed")]


def test_a_network_that_cannot_take_so_small_images_is_one_candidate_less(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TrialRunner, recipe: Recipe) -> None:
        raise ResolutionError("it cannot take images of so few pixels", value=16)

    monkeypatch.setattr(TrialRunner, "classifier", refuse)
    (failed,) = runner(Assignment(fresh(), until=6))
    assert failed.state == "failed"
    assert "so few pixels: 16" in failed.error


def test_a_network_whose_checkpoint_could_not_be_read_again_is_one_candidate_less(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TrialFiles, number: int, state: object, *, attempt: int = 1) -> None:
        raise FileTooLarge("the tensors have 70 bytes, over the limit of 64 for a file", fix="choose a smaller network")

    monkeypatch.setattr(TrialFiles, "save_checkpoint", refuse)
    *_, failed = runner(Assignment(fresh(), until=6))
    assert failed.state == "failed"
    assert "over the limit of 64" in failed.error


def test_a_mistake_in_the_program_is_not_hidden(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(epoch: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(StandIn, "fault", staticmethod(mistake))
    with pytest.raises(RuntimeError, match="multiplied"):
        list(runner(Assignment(fresh(), until=6)))


def test_the_weights_kept_are_those_of_the_best_epoch(runner: TrialRunner) -> None:
    list(runner(Assignment(fresh(), until=4)))
    result = runner.files.load_result(0)
    assert result is not None
    assert int(result.weights["epoch"]) == 4


def test_score_and_loss_are_those_of_the_epoch_that_is_kept(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "best", 3)
    *_, last = runner(Assignment(fresh(), until=4))
    result = runner.files.load_result(0)
    assert result is not None
    assert (int(result.weights["epoch"]), last.score, last.loss) == (3, 0.3, 1 / 3)


# --- heads on frozen features ---------------------------------------------------------------------------------------

DIMS, N_TRAIN, N_VAL = 4, 160, 60
PROBE = Recipe("probe", "resnet18", 32, head_from_probe=False)


class Images:
    """Frozen features in place of images: which of them, by row."""

    def __init__(self, features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self.features, self.labels, self.extracted = features, torch.from_numpy(labels), 0

    def look(self, _net: Any, _recipe: Recipe, rows: torch.Tensor) -> tuple[Any, float]:
        self.extracted += len(rows)
        return self.features[rows.numpy()], 0.001


def small_network(_runner: TrialRunner, recipe: Recipe) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Classifier(nn.Identity(), build_head(recipe.head, DIMS, 2))


@pytest.fixture
def on_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[TrialRunner, Images]]:
    """A runner whose network passes features on; `on_features(features, labels)`."""
    monkeypatch.setattr(head_choice, "STEPS", 80)

    def make(features: Any, labels: Any, **changes: Any) -> tuple[TrialRunner, Images]:
        images = Images(features, labels)
        monkeypatch.setattr(TrialRunner, "classifier", small_network)
        monkeypatch.setattr(TrialRunner, "_features", lambda _, *given: images.look(*given))
        train, val = torch.arange(N_TRAIN), torch.arange(N_TRAIN, N_TRAIN + N_VAL)
        data = TrainingData(
            source=None,  # type: ignore[arg-type] # nothing is fetched
            train_rows=train,
            train_labels=images.labels[train],
            val_rows=val,
            val_labels=images.labels[val],
            num_classes=2,
        )
        given: dict[str, Any] = {"seconds_left": lambda: math.inf, "keeps_features": True, **changes}
        return (
            TrialRunner(
                data=data,
                train_groups=np.arange(N_TRAIN),
                objective="accuracy",
                runtime=Runtime(torch.device("cpu"), None, 1),
                files=TrialFiles(tmp_path / "trials"),
                weights={},
                **given,
            ),
            images,
        )

    return make


def probed(runner: TrialRunner) -> Trial:
    (done,) = runner(Assignment(Trial(0, PROBE, {}, "probe"), until=0))
    return done


def another_head(probe: Trial, kind: str = "mlp") -> Assignment:
    recipe = dataclasses.replace(probe.recipe, kind="head")
    return Assignment(Trial(1, recipe, {}, kind, notes=dict(probe.notes)), until=0)


def test_folds_are_dealt_twice_on_few_images_and_where_there_is_time(on_features: Any, monkeypatch: Any) -> None:
    runner, _ = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS))
    assert probed(runner).notes["repeats"] == 2
    monkeypatch.setattr(run_trial, "REPEATED_ROWS", N_TRAIN - 1)
    assert probed(runner).notes["repeats"] == 1
    late, images = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS), seconds_left=lambda: 7e-4)
    monkeypatch.setattr(run_trial, "REPEATED_ROWS", N_TRAIN)
    assert late._thoroughness(images.features[:N_TRAIN])[:2] == (5, 1)


def bytes_free(rows: int, problems: int) -> int:
    """So much that so many problems of two classes on so many rows can be solved at once."""
    return math.ceil(2 * problems * (ROW_BYTES * rows + DIRECTION_BYTES * (min(rows, DIMS) + 1)) / MEMORY)


@pytest.mark.parametrize(
    ("free", "folds", "rows"),
    [
        (None, 5, N_TRAIN),
        (bytes_free(N_TRAIN, 11), 5, N_TRAIN),
        (bytes_free(N_TRAIN, 4), 3, N_TRAIN),
        (bytes_free(8, 3), 2, 8),
        (bytes_free(2, 1), 2, 2),  # one fold after the other
    ],
)
def test_a_probe_keeps_to_the_memory_that_there_is(
    on_features: Any, monkeypatch: Any, free: int | None, folds: int, rows: int
) -> None:
    """Rows times classes: ten of each of ten thousand classes would take more than a hundred gigabytes."""
    monkeypatch.setattr(probe, "available_memory", lambda: free)
    runner, _ = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS))
    notes = probed(runner).notes
    assert (notes["folds"], notes["trained_on"]) == (folds, rows)


def test_a_probe_that_has_no_room_at_all_fails_and_says_what_it_takes(on_features: Any, monkeypatch: Any) -> None:
    """Not even one image of each class: before, it was fitted all the same, and the kernel ended the process."""
    monkeypatch.setattr(probe, "available_memory", lambda: 400)
    runner, _ = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS))
    failed = probed(runner)
    assert (failed.state, failed.notes["out_of_memory"]) == ("failed", True)
    assert failed.error.startswith("a linear head of 2 classes on 2 images takes")


def test_a_probe_is_kept_where_symmetries_have_no_room(on_features: Any, monkeypatch: Any) -> None:
    def no_room(*_: Any, **__: Any) -> None:
        raise probe.NoRoom("none")

    monkeypatch.setattr(TrialRunner, "_changed_features", shifted)
    monkeypatch.setattr(run_trial, "compare_symmetries", no_room)
    runner, _ = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS), tests_symmetries=True)
    done = probed(runner)
    assert (done.state, done.notes["symmetries"]["reason"]) == ("complete", "too little memory")


def test_an_adopted_head_is_a_model_of_its_own(on_features: Any) -> None:
    runner, images = on_features(*xor(N_TRAIN + N_VAL, dims=DIMS, noise=0.2))
    probe = probed(runner)
    (done,) = runner(another_head(probe))
    assert images.extracted == N_TRAIN + N_VAL, "the features of the probe are used again"
    assert (done.state, done.recipe.head, done.recipe.kind) == ("complete", "mlp:256-gelu", "head")
    assert done.score > probe.score + 0.2
    assert done.notes["head_search"]["adopted"]
    assert on_disk(runner) == [probe, done]
    result = runner.files.load_result(1)
    assert result is not None
    net = runner.classifier(done.recipe)
    net.load_state_dict(result.weights)
    with torch.inference_mode():
        again = net.eval()(torch.from_numpy(images.features[N_TRAIN:])).softmax(dim=1).numpy()
    assert np.array_equal(again, result.probabilities)


def test_a_head_that_is_not_adopted_has_no_score(on_features: Any) -> None:
    runner, _ = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS))
    probe = probed(runner)
    (done,) = runner(another_head(probe))
    assert (done.state, done.score, done.recipe.head) == ("stopped", None, "linear")
    assert done.notes["head_search"]["reason"].startswith("linear kept")
    assert runner.files.load_result(1) is None
    best = runner.files.best([probe, done])
    assert best is not None
    assert best[0].number == probe.number


def test_a_later_session_looks_at_the_images_again(on_features: Any) -> None:
    runner, images = on_features(*xor(N_TRAIN + N_VAL, dims=DIMS, noise=0.2))
    probe = probed(runner)
    runner, images = on_features(images.features, images.labels.numpy(), history=[probe])
    (done,) = runner(another_head(probe))
    assert done.state == "complete"
    assert images.extracted == N_TRAIN + N_VAL


def test_another_head_gets_a_share_of_the_time_and_no_more(on_features: Any) -> None:
    clock = iter(range(1000, 0, -50))
    runner, _ = on_features(*xor(N_TRAIN + N_VAL, dims=DIMS), seconds_left=lambda: math.inf)
    probe = probed(runner)
    runner.seconds_left = lambda: next(clock)
    (done,) = runner(another_head(probe))
    assert done.state == "stopped"
    assert done.notes["head_search"]["reason"].startswith("linear kept: time was over")
    assert next(clock) >= (1 - HEAD_TIME) * 1000 - 100, "it was left as soon as its share was used"


def test_a_run_that_is_stopped_leaves_the_head_to_a_later_session(on_features: Any) -> None:
    runner, _ = on_features(*xor(N_TRAIN + N_VAL, dims=DIMS))
    probe = probed(runner)

    def stopped() -> float:
        raise TrialInterrupted

    runner.seconds_left = stopped
    (left,) = runner(another_head(probe))
    assert left.state == "paused"
    assert "head_search" not in left.notes


def test_a_fine_tune_starts_with_the_head_that_was_adopted(on_features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _ = on_features(*xor(N_TRAIN + N_VAL, dims=DIMS, noise=0.2))
    (adopted,) = runner(another_head(probed(runner)))
    started: list[Classifier] = []

    class Watched(StandIn):
        def __init__(self, recipe: Recipe, data: Any, net: Classifier, *rest: Any) -> None:
            super().__init__(recipe)
            started.append(net)

    monkeypatch.setattr(run_trial, "Trainer", Watched)
    for number, head in ((2, adopted.recipe.head), (3, "linear")):
        recipe = dataclasses.replace(RECIPE, head=head, head_from_probe=True)
        list(runner(Assignment(fresh(number, recipe), until=1)))
    for net, number in zip(started, (1, 0), strict=True):
        result = runner.files.load_result(number)
        assert result is not None
        assert all(torch.equal(result.weights[f"head.{name}"], own) for name, own in net.head.state_dict().items())


def test_an_earlier_session_s_probes_are_known(runner: TrialRunner) -> None:
    done = Trial(4, Recipe("probe", "resnet18", 32), {}, "probe", state="complete", score=0.5)
    failed = Trial(5, Recipe("probe", "resnet34", 32), {}, "probe", state="failed")
    again = dataclasses.replace(runner, history=[done, failed, finetune(6, [0.5])])
    assert again._heads == {("resnet18", "linear"): 4}


# --- symmetries -----------------------------------------------------------------------------------------------------


def shifted(_runner: TrialRunner, _net: Any, _recipe: Recipe, rows: torch.Tensor, *_: Any) -> Any:
    """Features of changed images that say nothing of their class."""
    return np.random.default_rng(0).normal(size=(len(rows), DIMS)).astype(np.float32)


def test_the_first_probe_alone_tells_of_symmetries(on_features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialRunner, "_changed_features", shifted)
    runner, images = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS, spread=2.0), tests_symmetries=True)
    first, second = probed(runner), probed(runner)
    assert first.notes["symmetries"]["tested"]
    assert not any(first.notes["symmetries"]["allowed"].values())
    assert "symmetries" not in second.notes
    later, _ = on_features(images.features, images.labels.numpy(), tests_symmetries=True, history=[first])
    assert "symmetries" not in probed(later).notes


def test_symmetries_are_left_untested_where_time_is_short(on_features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialRunner, "_changed_features", lambda *_: pytest.fail("nothing is looked at"))
    data = gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS, spread=2.0)
    needed = 3 * FEWEST_IMAGES * 0.001 / SYMMETRY_TIME  # `Images` takes a millisecond each
    runner, _ = on_features(*data, tests_symmetries=True, seconds_left=lambda: 0.9 * needed)
    found = probed(runner).notes["symmetries"]
    assert (found["tested"], found["allowed"]) == (False, UNTESTED)
    monkeypatch.setattr(TrialRunner, "_changed_features", shifted)
    runner, _ = on_features(*data, tests_symmetries=True, seconds_left=lambda: 1.5 * needed)
    assert FEWEST_IMAGES <= probed(runner).notes["symmetries"]["images"] < N_TRAIN / 2


def test_a_user_who_stops_during_the_test_keeps_the_probe(on_features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _ = on_features(*gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS, spread=2.0), tests_symmetries=True)

    def stop(*_: Any) -> Any:
        def stopped() -> float:
            raise TrialInterrupted

        runner.seconds_left = stopped
        assert runner._seconds_unless_stopped() == 0
        raise OutOfTime

    monkeypatch.setattr(TrialRunner, "_changed_features", stop)
    done = probed(runner)
    assert done.state == "complete" and done.score is not None
    assert not done.notes["symmetries"]["tested"]


def test_stripes_may_be_mirrored_and_not_turned(tmp_path: Path) -> None:
    """From pixels, with a network of random weights: upright against lying stripes."""
    rows = torch.arange(160)
    labels = rows % 2
    random = torch.Generator().manual_seed(0)
    wave = (torch.arange(32).view(1, 1, 32) // 4 + torch.randint(0, 8, (160, 1, 1), generator=random)) % 2 * 180
    upright = wave.expand(160, 32, 32)
    images = torch.where(labels.view(-1, 1, 1) == 1, upright.transpose(1, 2), upright)
    noisy = images.unsqueeze(1) + torch.randint(0, 60, (160, 3, 32, 32), generator=random)
    runner = TrialRunner(
        data=TrainingData(
            MemorySource(noisy.to(torch.uint8), (32,)), rows[:120], labels[:120], rows[120:], labels[120:], 2
        ),
        train_groups=np.arange(120),
        objective="accuracy",
        runtime=Runtime(torch.device("cpu"), None, 1),
        files=TrialFiles(tmp_path / "trials"),
        weights={},
        seconds_left=lambda: math.inf,
        tests_symmetries=True,
    )
    recipe = Recipe("probe", "test_resnet", 32, head_from_probe=False, pretrained=False)
    (done,) = runner(Assignment(Trial(0, recipe, {}, "probe"), until=0))
    found = done.notes["symmetries"]
    assert found["accuracy"] > 0.9
    assert found["allowed"] == {"horizontal_flip": True, "vertical_flip": True, "quarter_turns": False}
    assert on_disk(runner) == [done]


def test_compiling_is_told_and_is_no_part_of_what_a_step_takes(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def epoch(self: StandIn, _seconds_left: Callable[[], float]) -> EpochResult:
        self.epoch += 1
        compiled = {"compile_seconds": 60.0, "compiling": "compiled"} if self.epoch == 1 else {}
        return EpochResult(self.epoch, 1.0, 1.0, 0.5, 1e-3, 2.0 + 60.0 * (self.epoch == 1), 8, "", **compiled)

    monkeypatch.setattr(StandIn, "run_epoch", epoch)
    first, second = runner(Assignment(fresh(), until=2))
    assert first.seconds_per_image == pytest.approx(second.seconds_per_image)
    assert (first.seconds, second.seconds) == (62.0, 64.0)
    assert first.notes["compiling"] == second.notes["compiling"] == "compiled"


def test_a_probe_leaves_what_it_says_of_images_that_it_was_not_fitted_to(on_features: Any) -> None:
    """A planted wrong label: the fit on all rows may believe it, the one without its group does not."""
    features, labels = gaussians(N_TRAIN + N_VAL, classes=2, dims=DIMS, spread=2.0)
    labels[5] = 1 - labels[5]
    runner, _ = on_features(features, labels)
    trial = probed(runner)
    kept = runner.files.load_held_out()
    assert kept is not None
    assert (kept.trial, kept.score) == (trial.number, trial.score)
    np.testing.assert_array_equal(kept.rows, np.arange(N_TRAIN))
    assert kept.probabilities.shape == (N_TRAIN, 2)
    np.testing.assert_allclose(kept.probabilities.sum(axis=1), 1, atol=1e-5)
    assert kept.probabilities[5].argmax() != labels[5]
