from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models import memory
from automl_vision.models.classifier import Classifier, build_classifier
from automl_vision.models.device_images import DeviceImages
from automl_vision.models.image_source import ImageSource
from automl_vision.runtime import Runtime
from automl_vision.training import memory_fit
from automl_vision.training.batch_size import LearnedMemory
from automl_vision.training.loop import EpochResult, TooLittleMemory, Trainer, TrainingData, TrialFailed
from automl_vision.training.optimizers import OPTIMIZERS, make_optimizer, parameter_groups
from automl_vision.training.recipe import Recipe
from automl_vision.training.sampling import in_blocks
from automl_vision.training.schedule import SCHEDULES

PREPROCESSING = Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
RECIPE = Recipe(
    kind="finetune",
    backbone="test_efficientnet",
    resolution=32,
    epochs=3,
    batch_size=8,
    learning_rate=1e-3,
    layer_decay=1.0,
)


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


class Stripes:
    """Classes that differ in the direction of their stripes."""

    sizes = (32, 40)

    def plane_for(self, size: int) -> int:
        return next((each for each in self.sizes if each >= size), 40)

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        wave = ((torch.arange(size) // 4) % 2 * 200).to(torch.uint8)
        upright, lying = wave.expand(3, size, size), wave.view(-1, 1).expand(3, size, size)
        noise = torch.randint(0, 50, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
        images = [(lying if row % 2 else upright) + noise.roll(int(row), 2) for row in rows]
        return torch.stack(images).contiguous(memory_format=torch.channels_last)


class Blank(Stripes):
    """Images that are all alike."""

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        images = torch.full((len(rows), 3, size, size), 90, dtype=torch.uint8)
        return images.contiguous(memory_format=torch.channels_last)


def stripes(train: int = 21, val: int = 10) -> TrainingData:
    rows = torch.arange(train + val)
    return TrainingData(Stripes(), rows[:train], rows[:train] % 2, rows[train:], rows[train:] % 2, 2)


def trainer(
    cpu: Runtime,
    data: TrainingData | None = None,
    objective: Callable[..., float] = accuracy,
    **changes: Any,
) -> Trainer:
    recipe = dataclasses.replace(RECIPE, **changes)
    net = build_classifier(recipe.backbone, 2, resolution=32, drop_path=recipe.drop_path, seed=recipe.seed)
    return Trainer(recipe, data or stripes(), net, PREPROCESSING, cpu, objective)


def run(trainer: Trainer) -> list[EpochResult]:
    results = []
    while not trainer.finished:
        results.append(trainer.run_epoch())
    return results


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def timeless(result: EpochResult) -> EpochResult:
    return dataclasses.replace(result, seconds=0, cpu_seconds=0)


def test_it_learns(cpu: Runtime) -> None:
    trained = trainer(cpu, stripes(64, 16), freeze_norm=False, epochs=6, learning_rate=3e-3)
    results = run(trained)
    assert results[-1].train_loss < results[0].train_loss
    assert trained.best_score == results[trained.best_epoch - 1].score >= 0.9
    assert results[-1].finished == "horizon"
    assert [result.epoch for result in results] == list(range(1, 7))
    assert trained.best_probabilities().shape == (16, 2)
    assert accuracy(trained.data.val_labels.numpy(), trained.best_probabilities()) == trained.best_score


VARIANTS = {
    "adamw": {},
    "sgd": {"optimizer": "sgd", "momentum": 0.8, "augment": "trivial"},
    "batch norm": {"freeze_norm": False, "ema": False, "clip_norm": 0.0},
    "drop path": {"backbone": "test_vit", "drop_path": 0.5, "layer_decay": 0.7, "schedule": "one_cycle"},
    "frozen": {"freeze_stages": 2, "freeze_norm": False, "layer_decay": 0.7, "augment": "geometric", "mix": "mixup"},
    "frozen transformer": {"backbone": "test_vit", "freeze_stages": 1, "drop_path": 0.5, "vertical_flip": True},
    "rare classes": {"loss": "weighted", "sampling": "balanced", "mix": "cutmix", "quarter_turns": True},
    "adjusted": {"loss": "logit_adjusted", "augment": "randaugment", "erasing": 0.5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_trial_is_the_undisturbed_one_to_the_last_bit(cpu: Runtime, variant: str) -> None:
    changes = VARIANTS[variant]
    straight = trainer(cpu, **changes)
    expected = run(straight)

    torch.manual_seed(99)
    first = trainer(cpu, **changes)
    got = [first.run_epoch()]
    file = io.BytesIO()
    torch.save(first.state(), file)
    torch.rand(17)  # whatever else the process draws must not matter
    first.run_epoch()  # nor what the first trainer does later
    second = trainer(cpu, **changes)
    file.seek(0)
    second.load_state(torch.load(file, weights_only=True))
    got += run(second)

    for mine, theirs in zip(got, expected, strict=True):
        assert timeless(mine) == timeless(theirs)
    assert same(second.classifier.state_dict(), straight.classifier.state_dict())
    assert same(second.best_weights(), straight.best_weights())
    assert np.array_equal(second.probabilities, straight.probabilities)
    assert np.array_equal(second.best_probabilities(), straight.best_probabilities())


def test_the_global_generator_is_left_alone(cpu: Runtime) -> None:
    torch.manual_seed(3)
    trained = trainer(cpu, backbone="test_vit", drop_path=0.5)
    before = torch.get_rng_state()
    trained.run_epoch()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_is_a_copy(cpu: Runtime) -> None:
    trained = trainer(cpu)
    trained.run_epoch()
    state = trained.state()
    kept = {key: tensor.clone() for key, tensor in state["classifier"].items()}
    trained.run_epoch()
    assert same(state["classifier"], kept)


def test_a_state_of_another_recipe_is_refused(cpu: Runtime) -> None:
    state = trainer(cpu).state()
    with pytest.raises(ValueError, match="another recipe"):
        trainer(cpu, learning_rate=1e-2).load_state(state)


def first_of(tensors: dict[str, torch.Tensor], change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    name = next(iter(tensors))
    return {**tensors, name: change(tensors[name])}


#: What a checkpoint may hold that is sound, and is not what a trainer writes: the part -> what it is made to be.
CRAFTED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a part that is missing": ("so_far", lambda part: {"loss": part["loss"]}),
    "text for an epoch": ("epoch", lambda _: "1"),
    "a negative epoch": ("epoch", lambda _: -1),
    "no images at once": ("micro_batch", lambda _: 0),
    "an ending that there is not": ("finished", lambda _: "soon"),
    "text for seconds": ("validation_seconds", lambda _: "long"),
    "no classifier": ("classifier", lambda _: []),
    "fewer tensors": ("classifier", lambda part: dict(list(part.items())[1:])),
    "more tensors": ("classifier", lambda part: {**part, "more": torch.zeros(1)}),
    "another shape": ("classifier", lambda part: first_of(part, lambda tensor: torch.zeros(3, 3))),
    "another type": ("classifier", lambda part: first_of(part, lambda tensor: tensor.to(torch.int64))),
    "an average of something else": ("average", lambda part: {**part, "net": {}}),
    "text for patience": ("patience", lambda part: {**part, "stale": "x"}),
    "no optimizer": ("optimizer", lambda _: {}),
    "a rate of text": (
        "optimizer",
        lambda part: {**part, "param_groups": [{**each, "lr": "x"} for each in part["param_groups"]]},
    ),
    "momenta of text": (
        "optimizer",
        lambda part: {**part, "param_groups": [{**each, "betas": "xy"} for each in part["param_groups"]]},
    ),
    "fewer groups": ("optimizer", lambda part: {**part, "param_groups": part["param_groups"][1:]}),
    "averages of another shape": (
        "optimizer",
        lambda part: {**part, "state": {0: {**part["state"][0], "exp_avg": torch.zeros(2, 2)}}},
    ),
    "averages of no parameter": ("optimizer", lambda part: {**part, "state": {10**6: part["state"][0]}}),
    "the best of other images": ("best", lambda part: {**part, "probabilities": torch.zeros(1, 2)}),
    "the best of nothing": ("best", lambda part: {"epoch": 1}),
    "a best score of text": ("best", lambda part: {**part, "score": "high"}),
    "weights of the best of another shape": (
        "best",
        lambda part: {**part, "weights": first_of(part["weights"], lambda tensor: torch.zeros(1))},
    ),
}


def test_a_crafted_state_is_refused_and_nothing_is_taken_from_it(cpu: Runtime) -> None:
    """Else it would fail in the middle of a step, as if this program had a fault."""
    trained = trainer(cpu)
    trained.run_epoch()
    state, other = trained.state(), trainer(cpu)
    before = other.state()
    for case, (part, change) in CRAFTED.items():
        with pytest.raises(ValueError, match="does not fit"):
            other.load_state({**state, part: change(state[part])})
            pytest.fail(case)
        assert same(other.state()["classifier"], before["classifier"]), case
        assert (other.epoch, other.state()["optimizer"]["state"]) == (0, {}), case
    for part in ("classifier", "optimizer", "best", "epoch"):
        with pytest.raises(ValueError, match="does not fit"):
            other.load_state({name: value for name, value in state.items() if name != part})
    other.load_state(state)
    assert same(other.state()["classifier"], state["classifier"])


@pytest.mark.parametrize("changes", [{}, {"loss": "weighted", "mix": "mixup", "sampling": "balanced"}], ids=str)
def test_the_micro_batch_halves_and_the_result_stays(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(memory_fit, "available_bytes", lambda device: None)
    straight = trainer(cpu, epochs=1, **changes)
    run(straight)
    tight = trainer(cpu, epochs=1, **changes)
    forward, sizes = tight.classifier.forward, []

    def limited(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return forward(images)

    tight.classifier.forward = limited  # type: ignore[method-assign]
    run(tight)
    assert sizes[:3] == [8, 4, 2] and max(sizes[3:]) == 2
    assert tight.state()["micro_batch"] == 2
    ours, theirs = tight.classifier.state_dict(), straight.classifier.state_dict()
    assert all(torch.allclose(ours[key], theirs[key], atol=2e-3) for key in ours)


@pytest.mark.parametrize(
    ("free", "share", "takes"),
    [
        (600, 1.0, 600),
        (900, 0.5, 400),  # of 1000 it may have 500, and has 100
        (300, 0.5, 300),  # a neighbour took more than its share: there is no more
        (500, 0.1, 0),
    ],
)
def test_a_process_beside_others_takes_what_is_free_within_its_share_of_all_memory(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch, free: int, share: float, takes: int
) -> None:
    monkeypatch.setattr(memory_fit, "available_bytes", lambda device: free)
    monkeypatch.setattr(memory, "total_memory", lambda: 1000)
    monkeypatch.setattr(memory, "own_memory", lambda: 100)
    assert trainer(dataclasses.replace(cpu, share=share), epochs=1)._memory._available() == takes


def test_images_that_are_kept_on_the_device_give_way_before_batches_get_smaller(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_fit, "available_bytes", lambda device: None)
    tight = trainer(cpu, epochs=1)
    released, forward, sizes = [True, False, False], tight.classifier.forward, []
    monkeypatch.setattr(tight.micro_batch, "release", lambda: released.pop(0))

    def limited(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(sizes) <= 2 or len(images) > 4:
            raise torch.OutOfMemoryError("full")
        return forward(images)

    tight.classifier.forward = limited  # type: ignore[method-assign]
    run(tight)
    assert sizes[:3] == [8, 8, 4]
    assert released == [False]


def test_a_trainer_gives_up_images_that_its_source_keeps(cpu: Runtime) -> None:
    mine = trainer(cpu)
    assert not mine.micro_batch.release()
    kept = DeviceImages(mine.data.source, mine.data.train_rows, cpu.device, 10**9)
    mine.data = dataclasses.replace(mine.data, source=kept)
    kept.fetch(mine.data.train_rows[:2], kept.sizes[0])
    assert mine.micro_batch.release()


def test_other_errors_are_not_swallowed(cpu: Runtime) -> None:
    broken = trainer(cpu)

    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a mistake")

    broken.classifier.forward = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a mistake"):
        broken.run_epoch()


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30, "clip_norm": 0.0, "warmup_fraction": 0.0}])
def test_a_loss_that_is_not_finite_fails_the_trial(cpu: Runtime, changes: dict[str, Any]) -> None:
    with pytest.raises(TrialFailed, match="not finite"):
        run(trainer(cpu, optimizer="sgd", **changes))


def test_weights_that_are_not_finite_fail_the_trial(cpu: Runtime) -> None:
    broken = trainer(cpu)
    with torch.no_grad():
        broken.classifier.head.weight.fill_(math.nan)
    with pytest.raises(TrialFailed, match="loss is not finite in epoch 1"):
        broken.run_epoch()


def test_patience_ends_a_trial(cpu: Runtime) -> None:
    scores = iter([0.5, 0.7, 0.71, 0.6, 0.65, 0.9])
    trained = trainer(cpu, objective=lambda *_: next(scores), epochs=6, patience=2, min_improvement=0.05)
    results = run(trained)
    assert [result.finished for result in results] == ["", "", "", "patience"]
    with pytest.raises(RuntimeError, match="finished"):
        trained.run_epoch()


def test_the_best_weights_are_of_the_best_epoch(cpu: Runtime) -> None:
    scores = iter([0.2, 0.9, 0.3])
    trained = trainer(cpu, objective=lambda *_: next(scores))
    trained.run_epoch()
    trained.run_epoch()
    best = {key: tensor.clone() for key, tensor in trained.best_weights().items()}
    probabilities = trained.probabilities
    trained.run_epoch()
    assert same(trained.best_weights(), best)
    assert np.array_equal(trained.best_probabilities(), probabilities)


@pytest.mark.parametrize(
    ("scores", "images", "kept"),
    [
        ((0.5, 0.8, 0.7, 0.71), 10, 4),  # one error of .8 on 10 images is .13
        ((0.5, 0.8, 0.7, 0.71), 1_000, 2),  # on 1,000 it is .013
        ((0.9, 0.8, 0.7, 0.6), 10, 1),  # the highest counts, not the one that is kept: .8 is an error below .9
        ((0.9, 0.82, 0.74, 0.7), 10, 2),
        ((0.5, 0.6, 0.6, 0.6), 1_000, 4),
        ((1.0, 0.99, 1.0, 0.99), 10, 3),  # all right: no error
    ],
)
def test_the_newest_epoch_within_an_error_of_the_best_is_kept(
    cpu: Runtime, scores: tuple[float, ...], images: int, kept: int
) -> None:
    given = iter(scores)
    trained = trainer(cpu, objective=lambda *_: next(given), epochs=len(scores))
    data = stripes()
    rows = data.val_rows.repeat(images // len(data.val_rows))
    trained.data = dataclasses.replace(data, val_rows=rows, val_labels=rows % 2)
    run(trained)
    assert trained.best_epoch == kept
    assert trained.best_score == scores[kept - 1]


def test_what_is_kept_survives_a_resume(cpu: Runtime) -> None:
    given = iter((0.9, 0.82, 0.82, 0.74))
    first = trainer(cpu, objective=lambda *_: next(given), epochs=4)
    for _ in range(3):
        first.run_epoch()
    assert first.best_epoch == 3
    second = trainer(cpu, objective=lambda *_: next(given), epochs=4)
    second.load_state(first.state())
    second.run_epoch()
    assert second.best_epoch == 3  # .74 is within an error of .82, but not of .9


def test_the_deadline_cuts_an_epoch_that_is_still_validated(cpu: Runtime) -> None:
    left = iter([100.0, 100.0, 0.0])
    trained = trainer(cpu)
    result = trained.run_epoch(lambda: next(left))
    assert (result.finished, result.images) == ("deadline", 16)
    assert math.isfinite(result.train_loss) and math.isfinite(result.score)
    assert trained.best_probabilities().shape == (10, 2)


def test_time_for_validation_is_kept(cpu: Runtime) -> None:
    trained = trainer(cpu)
    trained.run_epoch()
    trained._validation_seconds = 5.0
    result = trained.run_epoch(lambda: 4.0)
    assert (result.finished, result.images) == ("deadline", 0)
    assert math.isnan(result.train_loss)


def test_frozen_norms_keep_their_statistics(cpu: Runtime) -> None:
    for freeze in (True, False):
        trained = trainer(cpu, freeze_norm=freeze, ema=False)
        before = trained.classifier.backbone.bn1.running_mean.clone()
        trained.run_epoch()
        assert torch.equal(before, trained.classifier.backbone.bn1.running_mean) == freeze


def test_a_last_batch_of_one_image_is_left_out(cpu: Runtime) -> None:
    assert trainer(cpu, stripes(train=17)).run_epoch().images == 16
    assert trainer(cpu, stripes(train=18)).run_epoch().images == 18
    assert trainer(cpu, stripes(train=1)).run_epoch().images == 1


@pytest.mark.parametrize("ema", [True, False])
def test_what_is_validated_is_what_is_kept(cpu: Runtime, ema: bool) -> None:
    trained = trainer(cpu, ema=ema, epochs=20)
    trained.run_epoch()
    assert same(trained.best_weights(), trained.classifier.state_dict()) != ema


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimizer_follows_every_schedule(cpu: Runtime, optimizer: str, schedule: str) -> None:
    trained = trainer(cpu, stripes(8, 2), optimizer=optimizer, schedule=schedule, epochs=2, layer_decay=0.5)
    results = run(trained)
    for result in results:
        assert result.learning_rate == pytest.approx(
            1e-3 * SCHEDULES[schedule]((result.epoch - 0.5) / 2, RECIPE.warmup_fraction)
        )


def test_parameter_groups_hold_everything_once(cpu: Runtime) -> None:
    recipe = dataclasses.replace(RECIPE, backbone="test_vit", layer_decay=0.5, weight_decay=0.1)
    classifier: Classifier = build_classifier("test_vit", 2, resolution=32)
    groups = parameter_groups(classifier, recipe)
    where = {id(p): group for group in groups for p in group["params"]}
    assert len(where) == sum(len(group["params"]) for group in groups) == len(list(classifier.parameters()))
    head, position = where[id(classifier.head.weight)], where[id(classifier.backbone.pos_embed)]
    assert (head["lr_scale"], head["weight_decay"]) == (1.0, 0.1)
    assert position["lr_scale"] < 0.1 and position["weight_decay"] == 0.0
    assert where[id(classifier.head.bias)]["weight_decay"] == 0.0
    make_optimizer(classifier, recipe)


def test_frozen_stages_stay_as_they_were_and_the_rest_is_trained(cpu: Runtime) -> None:
    trained = trainer(cpu, freeze_stages=2, freeze_norm=False, weight_decay=0.1, ema=False)
    before = {name: tensor.clone() for name, tensor in trained.classifier.state_dict().items()}
    run(trained)
    changed = {
        name for name, tensor in trained.classifier.state_dict().items() if not torch.equal(before[name], tensor)
    }
    frozen = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")
    assert not {name for name in changed if name.startswith(tuple(f"backbone.{part}." for part in frozen))}
    kinds = ("blocks.3", "blocks.4", "running_mean", "running_var")
    assert all(any(kind in name for name in changed) for kind in kinds)
    assert {"head.weight", "head.bias"} <= changed


def test_no_gradient_reaches_a_frozen_stage(cpu: Runtime) -> None:
    trained = trainer(cpu, freeze_stages=3, freeze_norm=False)
    seen = []
    trained.classifier.backbone.blocks[0].register_forward_hook(lambda *given: seen.append(given[2].requires_grad))
    trained.classifier.backbone.blocks[4].register_forward_hook(lambda *given: seen.append(given[2].requires_grad))
    trained.run_epoch()
    assert seen[:2] == [False, True]
    ours = {id(each) for group in trained.optimizer.param_groups for each in group["params"]}
    assert ours == {id(each) for each in trained.classifier.parameters() if each.requires_grad}


def test_the_average_of_frozen_weights_is_frozen(cpu: Runtime) -> None:
    trained = trainer(cpu, freeze_stages=1, ema=True)
    stem = trained.classifier.backbone.conv_stem.weight.clone()
    run(trained)
    assert torch.equal(trained.best_weights()["backbone.conv_stem.weight"], stem)


@pytest.mark.parametrize("loss", ["weighted", "logit_adjusted"])
def test_what_corrects_frequencies_finds_more_of_a_rare_class(cpu: Runtime, loss: str) -> None:
    """Images that tell nothing: only the loss decides between the classes."""
    rows = torch.arange(40)
    labels = (rows % 8 == 0).long()
    data = TrainingData(Blank(), rows, labels, rows, labels, 2)
    rare = {}
    for name in ("cross_entropy", loss):
        trained = trainer(cpu, data, loss=name, epochs=8, label_smoothing=0.0, learning_rate=3e-3, ema=False)
        run(trained)
        rare[name] = float(trained.probabilities[:, 1].mean())
    assert rare[loss] > rare["cross_entropy"] + 0.05


def test_a_state_of_a_version_without_these_fields_goes_on(cpu: Runtime) -> None:
    first = trainer(cpu)
    first.run_epoch()
    state = first.state()
    new = ("horizontal_flip", "vertical_flip", "quarter_turns", "erasing", "mix", "loss", "sampling", "freeze_stages")
    state["recipe"] = {name: value for name, value in state["recipe"].items() if name not in new}
    second = trainer(cpu)
    second.load_state(state)
    assert second.epoch == 1


def test_sources_are_interchangeable(cpu: Runtime, source: ImageSource) -> None:
    data = TrainingData(source, torch.arange(8), torch.arange(8) % 3, torch.arange(8, 12), torch.arange(4) % 3, 3)
    net = build_classifier("test_resnet", 3, resolution=32)
    recipe = dataclasses.replace(RECIPE, backbone="test_resnet", epochs=1)
    assert Trainer(recipe, data, net, PREPROCESSING, cpu, accuracy).run_epoch().finished == "horizon"


# --- memory ---------------------------------------------------------------------------------------------------------


def with_free(monkeypatch: pytest.MonkeyPatch, *free: int | None) -> None:
    """A device with so many free bytes, the last of them for good."""
    left = list(free)
    monkeypatch.setattr(memory_fit, "available_bytes", lambda device: left.pop(0) if len(left) > 1 else left[0])


def needs(fresh: Trainer, images: int) -> int:
    fresh._training_mode()
    return fresh._memory.step_memory(10**12, fresh.micro_batch)(images)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "freeze_stages": 2, "ema": False}], ids=str)
def test_as_many_images_as_fit_go_through_the_network_at_once(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    need = needs(trainer(cpu, **changes), 4)
    straight = trainer(cpu, epochs=1, **changes)
    with_free(monkeypatch, None)
    assert run(straight)[0].micro_batch == 8
    for free, at_once in ((need / 0.85 + 2, 4), (need / 0.85 - 2, 3)):
        with_free(monkeypatch, int(free))
        tight = trainer(cpu, epochs=1, **changes)
        sizes: list[int] = []
        tight.classifier.register_forward_pre_hook(lambda module, given, sizes=sizes: sizes.append(len(given[0])))
        assert run(tight)[0].micro_batch == at_once
        assert sizes[:3] == [1, 2, at_once]
        ours, theirs = tight.classifier.state_dict(), straight.classifier.state_dict()
        assert all(torch.allclose(ours[key], theirs[key], atol=2e-3) for key in ours)


def test_a_trial_of_which_no_image_fits_fails_before_its_first_step(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = needs(trainer(cpu), 1)
    for free, said in ((need, "needs about .* GB of memory, and .* GB are free"), (10, "needs more than the .* GB")):
        with_free(monkeypatch, free)
        hopeless = trainer(cpu)
        monkeypatch.setattr(hopeless, "_gradients", lambda *_: pytest.fail("a step was tried"))
        with pytest.raises(TooLittleMemory, match=f"training test_efficientnet at 32 px on one image at a time {said}"):
            hopeless.run_epoch()


def test_images_that_are_kept_give_way_before_a_trial_fails(cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 10, 10**12)
    kept = trainer(cpu, epochs=1)
    released: list[int] = []
    monkeypatch.setattr(kept.micro_batch, "release", lambda: bool(released.append(1)) or len(released) == 1)
    assert run(kept)[0].micro_batch == 8
    assert released


@pytest.mark.parametrize(
    "changes",
    [{"freeze_norm": False}, {"backbone": "test_vit", "drop_path": 0.5}, {"freeze_stages": 2, "ema": False}],
    ids=str,
)
def test_looking_at_memory_leaves_no_trace(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    looked, blind = trainer(cpu, **changes), trainer(cpu, **changes)
    before, state = {k: v.clone() for k, v in looked.classifier.state_dict().items()}, torch.get_rng_state()
    with_free(monkeypatch, 10**12)
    looked._training_mode()
    looked._fit_micro_batch()
    assert same(looked.classifier.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in looked.classifier.parameters())
    ours = [result.val_loss for result in run(looked)]
    with_free(monkeypatch, None)
    assert ours == [result.val_loss for result in run(blind)]
    assert same(looked.classifier.state_dict(), blind.classifier.state_dict())


def test_memory_is_looked_at_once_in_a_trial_and_measured_once_in_a_run(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 10**12)
    learned, passes = LearnedMemory(), []
    real = memory_fit.saved_bytes
    monkeypatch.setattr(memory_fit, "saved_bytes", lambda *given: (passes.append(1), real(*given))[1])
    for rate in (1e-3, 1e-4):
        net = build_classifier("test_efficientnet", 2, resolution=32)
        recipe = dataclasses.replace(RECIPE, learning_rate=rate)
        run(Trainer(recipe, stripes(), net, PREPROCESSING, cpu, accuracy, learned))
    assert len(passes) == 2  # one image, and two


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_tensors_that_an_optimizer_keeps_are_counted(cpu: Runtime, name: str) -> None:
    fresh = trainer(cpu, optimizer=name, freeze_stages=1)
    fresh._training_mode()
    before = fresh._memory.step_memory(10**12, fresh.micro_batch)
    fresh.run_epoch()
    kept = [value for state in fresh.optimizer.state.values() for value in state.values()]
    tensors = [value for value in kept if isinstance(value, torch.Tensor) and value.ndim]
    assert (
        before.fixed - fresh._memory.step_memory(10**12, fresh.micro_batch).fixed
        == sum(tensor.nbytes for tensor in tensors)
        > 0
    )


def test_fewer_images_are_validated_at_once_where_fewer_are_trained_on(
    cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, None)
    small, sizes = trainer(cpu, epochs=1), []
    small.micro_batch.size = 2
    small.run_epoch()
    net = small._validated
    net.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    small._validate(lambda: math.inf)
    assert sizes == [4, 4, 2]


def test_a_state_is_gone_on_from_with_no_more_images_at_once_than_fit_by_now(cpu: Runtime) -> None:
    state = trainer(cpu).state()
    learned = LearnedMemory()
    learned.ran_out(RECIPE, 2)
    net = build_classifier("test_efficientnet", 2, resolution=32)
    later = Trainer(RECIPE, stripes(), net, PREPROCESSING, cpu, accuracy, learned)
    later.load_state(state)
    assert later.micro_batch.size == 2
    later.load_state(state | {"micro_batch": 1})
    assert later.micro_batch.size == 1


def test_a_trainer_goes_by_the_shards_of_its_rows(cpu: Runtime) -> None:
    """Rows 8 to 31 lie in six shards of four; the first two shards hold other rows of the source."""
    rows = torch.arange(8, 32)
    data = TrainingData(
        Stripes(), rows, rows % 2, rows[:2], rows[:2] % 2, 2, blocks=torch.arange(32).div(4, rounding_mode="floor")
    )
    by_shards = trainer(cpu, data)
    plain = trainer(cpu, dataclasses.replace(data, blocks=None))
    for epoch in (1, 2):
        order = torch.cat(by_shards._batches(epoch))
        assert torch.equal(order.sort().values, torch.arange(24))
        assert not torch.equal(order, torch.cat(plain._batches(epoch)))
        drawn = torch.cat(plain._batches(epoch))
        assert torch.equal(order, in_blocks(drawn, (rows // 4), by_shards.recipe.seed, epoch))


def test_a_trial_that_goes_by_shards_is_resumed_to_the_last_bit(cpu: Runtime) -> None:
    data = dataclasses.replace(stripes(), blocks=torch.arange(31) // 6)
    whole = trainer(cpu, data, epochs=2)
    for _ in range(2):
        whole.run_epoch()
    first, second = trainer(cpu, data, epochs=2), trainer(cpu, data, epochs=2)
    first.run_epoch()
    second.load_state(first.state())
    second.run_epoch()
    assert all(torch.equal(each, second.last_weights()[name]) for name, each in whole.last_weights().items())


@pytest.mark.parametrize(
    ("batch", "micro"), [(1, None), (4, 2), (4, 1)], ids=["batches of 1", "2 and 1", "pieces of 1"]
)
def test_batch_norm_that_learns_goes_by_what_it_knows_where_there_is_one_image(
    cpu: Runtime, batch: int, micro: int | None
) -> None:
    # It normalises after pooling, where one image is one value.
    net = build_classifier("mobilenetv4_conv_small", 2, resolution=32)
    recipe = dataclasses.replace(
        RECIPE, backbone="mobilenetv4_conv_small", epochs=1, batch_size=batch, freeze_norm=False
    )
    working = Trainer(recipe, stripes(train=7, val=4), net, PREPROCESSING, cpu, accuracy)
    working.micro_batch.size = micro or working.micro_batch.size
    assert working.run_epoch().images == 7 - (batch == 1)
    norms = [each for each in net.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert all(each.training for each in norms), "they learn again from the next piece"
    changed = any(float(each.running_mean.abs().sum()) > 0 for each in norms if each.running_mean is not None)
    assert changed is (batch > 1 and micro != 1)
