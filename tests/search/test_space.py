from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.config import TrainingSettings
from automl_vision.models.symmetry import UNTESTED
from automl_vision.search.portfolio import FINE_TUNES, FROM_SCRATCH, portfolio
from automl_vision.search.prior import REFERENCE_BATCH
from automl_vision.search.space import STEPS_PER_EPOCH, Choice, Dimension, Range, Space, fine_tuning_space
from automl_vision.training.augment import AUGMENTATIONS
from automl_vision.training.losses import LOSSES
from automl_vision.training.mix import MIXES
from automl_vision.training.recipe import Recipe
from automl_vision.training.sampling import SAMPLINGS

BACKBONES = ("net_a", "net_b", "net_c")
SIDES = (160, 128)
PINS: tuple[dict[str, Any], ...] = (
    {},
    {"optimizer": "sgd"},
    {"optimizer": "adamw", "learning_rate": 3e-4},
    {"learning_rate": 1e-3, "weight_decay": 0.0, "momentum": 0.5},
    {"layer_decay": 0.9, "freeze_norm": True, "augment": "none", "label_smoothing": 0.0},
    {"batch_size": 8, "ema": False, "patience": 3, "schedule": "one_cycle", "clip_norm": 0.0},
    {"freeze_stages": 2, "mix": "mixup", "loss": "weighted", "sampling": "balanced", "drop_path": 0.2, "erasing": 0.1},
    {"augment": "geometric", "horizontal_flip": False, "vertical_flip": True, "quarter_turns": True},
)
COMBINATIONS = list(itertools.product((1, 2, 3), (1, 2), (True, False), (500, 50_000), PINS))


def make_space(
    backbones: int = 3,
    sides: int = 2,
    pretrained: bool = True,
    n_train: int = 500,
    pins: dict[str, Any] | None = None,
    **facts: Any,
) -> Space:
    return fine_tuning_space(
        backbones=BACKBONES[:backbones],
        resolutions=SIDES[:sides],
        pretrained=pretrained,
        n_train=n_train,
        fixed=pins or {},
        **facts,
    )


#: What brings every dimension into the space.
ALL_FACTS: dict[str, Any] = {
    "n_train": 5_000,
    "horizon": 30,
    "imbalance": 10.0,
    "symmetries": dict.fromkeys(UNTESTED, True),
    "stochastic_depth": ("net_b",),
}


@pytest.mark.parametrize(("backbones", "sides", "pretrained", "n_train", "pins"), COMBINATIONS)
def test_the_portfolio_lies_inside_the_space_whatever_is_pinned(
    backbones: int, sides: int, pretrained: bool, n_train: int, pins: dict[str, Any]
) -> None:
    facts = ALL_FACTS if n_train > 2_000 else {"n_train": n_train}
    space = make_space(backbones, sides, pretrained, pins=pins, **facts)
    points = portfolio(
        space, backbones=BACKBONES[:backbones], resolutions=SIDES[:sides], pretrained=pretrained, steps=500
    )
    assert points
    assert all(space.contains(point) for point in points)
    assert all(points.count(point) == 1 for point in points)
    for point in points:
        recipe = space.recipe(point, epochs=7)
        assert {name: getattr(recipe, name) for name in pins} == pins
        assert recipe.epochs == 7
        assert (recipe.kind, recipe.backbone, recipe.resolution) == ("finetune", point["backbone"], point["resolution"])


@pytest.mark.parametrize("facts", [{}, ALL_FACTS], ids=["few", "all"])
@pytest.mark.parametrize("pins", PINS)
def test_what_is_pinned_is_no_dimension(pins: dict[str, Any], facts: dict[str, Any]) -> None:
    searched = {each.sets or each.name for each in make_space(pins=pins, **facts).dimensions}
    assert searched & set(pins) <= {"optimizer"}
    optimizers = next(each for each in make_space(pins=pins).dimensions if each.name == "optimizer")
    assert isinstance(optimizers, Choice)
    assert optimizers.options == ((pins["optimizer"],) if "optimizer" in pins else ("adamw", "sgd"))


def test_every_training_setting_can_be_pinned() -> None:
    names = set(vars(TrainingSettings()))
    assert names <= set(vars(Recipe("finetune", "net", 96)))


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_first_recipe_is_of_the_best_backbone_and_side(pretrained: bool) -> None:
    first = portfolio(make_space(), backbones=BACKBONES, resolutions=SIDES, pretrained=pretrained, steps=500)[0]
    assert (first["backbone"], first["resolution"]) == (BACKBONES[0], SIDES[0])


def test_the_portfolio_follows_the_ranking_of_the_backbones() -> None:
    shortlist = ("net_c", "net_a", "net_b")
    points = portfolio(make_space(), backbones=shortlist, resolutions=SIDES, pretrained=True, steps=500)
    assert [point["backbone"] for point in points] == [shortlist[row[0]] for row in FINE_TUNES]


@pytest.mark.parametrize("table", [FINE_TUNES, FROM_SCRATCH])
def test_the_portfolio_names_only_what_can_be_searched(table: tuple[tuple[int, int, dict[str, Any]], ...]) -> None:
    known = {each.name for each in make_space(pretrained=table is FINE_TUNES).dimensions}
    assert all(set(values) <= known for _, _, values in table)


@pytest.mark.parametrize("n_train", [100, 50_000])
def test_networks_from_scratch_train_all_layers_and_their_norms(n_train: int) -> None:
    space = make_space(pretrained=False, n_train=n_train)
    recipe = space.recipe(space.complete({}))
    assert recipe.layer_decay == 1.0
    assert recipe.freeze_norm is False


def test_on_many_images_pretrained_norms_adapt() -> None:
    space = make_space(n_train=50_000)
    assert space.recipe(space.complete({})).freeze_norm is False
    assert space.recipe(space.complete({"layer_decay": 0.6})).layer_decay == 0.6


def names(**facts: Any) -> set[str]:
    return {each.name for each in make_space(**facts).dimensions}


@pytest.mark.parametrize(
    ("facts", "without", "dimensions"),
    [
        ({}, {"n_train": 1_999}, {"mix"}),
        ({}, {"horizon": 14}, {"mix"}),
        ({}, {"imbalance": 5.0}, {"loss", "sampling"}),
        ({}, {"stochastic_depth": ()}, {"drop_path"}),
        ({}, {"symmetries": UNTESTED}, {"vertical_flip", "quarter_turns"}),
        ({}, {"pins": {"augment": "none"}}, {"augment", "vertical_flip", "quarter_turns", "erasing"}),
        ({"n_train": 5_000}, {"pretrained": False}, {"layer_decay", "freeze_norm", "freeze_stages"}),
    ],
    ids=lambda value: str(sorted(value)),  # the order of a set is another in each process
)
def test_a_dimension_exists_under_its_condition_alone(
    facts: dict[str, Any], without: dict[str, Any], dimensions: set[str]
) -> None:
    everything = {**ALL_FACTS, **facts}
    assert names(**everything) - names(**{**everything, **without}) == dimensions


@pytest.mark.parametrize(
    ("n_train", "accumulation", "sizes"),
    [
        (10, 1, (32, 16)),
        (1_279, 1, (32, 16)),
        (1_280, 1, (32, 16, 64)),
        (2_560, 1, (32, 16, 64, 128)),
        (10**6, 1, (32, 16, 64, 128)),
        (2_560, 4, (32, 16)),
    ],
)
def test_larger_batches_are_offered_where_they_leave_enough_steps(
    n_train: int, accumulation: int, sizes: tuple[int, ...]
) -> None:
    space = make_space(n_train=n_train, pins={"gradient_accumulation": accumulation})
    (batch,) = (each for each in space.dimensions if each.name == "batch_size")
    assert isinstance(batch, Choice)
    assert batch.options == sizes
    assert all(n_train / (size * accumulation) >= STEPS_PER_EPOCH for size in sizes if size > Recipe.batch_size)


@pytest.mark.parametrize(("pretrained", "n_train"), [(True, 500), (True, 50_000), (False, 50_000)])
def test_default_recipes_have_the_usual_batch(pretrained: bool, n_train: int) -> None:
    space = make_space(pretrained=pretrained, n_train=n_train)
    points = portfolio(space, backbones=BACKBONES, resolutions=SIDES, pretrained=pretrained, steps=1_000)
    assert {space.recipe(point).batch_size for point in points} == {REFERENCE_BATCH}


def test_the_options_are_all_that_there_is() -> None:
    tables = {"augment": AUGMENTATIONS, "mix": MIXES, "loss": LOSSES, "sampling": SAMPLINGS}
    options = {each.name: each.options for each in make_space(**ALL_FACTS).dimensions if isinstance(each, Choice)}
    assert {name: options[name] for name in tables} == {name: tuple(table) for name, table in tables.items()}


def test_what_is_left_out_of_a_point_is_as_it_was_before_there_was_a_choice() -> None:
    """So that a default recipe means the same wherever it is tried."""
    new = ("freeze_stages", "mix", "loss", "sampling", "drop_path", "erasing", "vertical_flip", "quarter_turns")
    space, usual = make_space(**ALL_FACTS), Recipe("finetune", "net", 32)
    recipe = space.recipe(space.complete({"backbone": "net_b", "augment": "light"}))
    assert {name: getattr(recipe, name) for name in new} == {name: getattr(usual, name) for name in new}


@pytest.mark.parametrize("allowed", [True, False])
def test_a_left_right_flip_is_a_rule_that_the_user_may_overrule(allowed: bool) -> None:
    symmetries = {**UNTESTED, "horizontal_flip": allowed}
    space = make_space(symmetries=symmetries)
    assert space.recipe(space.complete({})).horizontal_flip is allowed
    overruled = make_space(symmetries=symmetries, pins={"horizontal_flip": not allowed})
    assert overruled.recipe(overruled.complete({})).horizontal_flip is not allowed


def test_flips_and_erasing_come_with_an_augmentation_and_stochastic_depth_with_its_backbones() -> None:
    space = make_space(**ALL_FACTS)
    varied, plain = space.complete({"augment": "light"}), space.complete({"augment": "none"})
    assert set(varied) - set(plain) == {"vertical_flip", "quarter_turns", "erasing"}
    assert {"erasing", "vertical_flip"} <= set(make_space(pins={"augment": "trivial"}, **ALL_FACTS).complete({}))
    assert "drop_path" in space.complete({"backbone": "net_b"})
    assert "drop_path" not in space.complete({"backbone": "net_a"})


# --- points ---------------------------------------------------------------------------------------------------------

SPACE = make_space(**ALL_FACTS)


def drawn(data: st.DataObject, space: Space) -> dict[str, Any]:
    def ask(dimension: Dimension) -> Any:
        if isinstance(dimension, Choice):
            return data.draw(st.sampled_from(dimension.options))
        return data.draw(st.floats(dimension.low, dimension.high))

    return space.suggest(ask)


@given(st.data())
def test_a_suggested_point_lies_inside_and_only_its_own_conditions_hold(data: st.DataObject) -> None:
    point = drawn(data, SPACE)
    assert SPACE.contains(point)
    other = {"adamw": "sgd", "sgd": "adamw"}[point["optimizer"]]
    assert not any(name.endswith(f"_{other}") for name in point)
    assert ("momentum" in point) == (point["optimizer"] == "sgd")
    recipe = SPACE.recipe(point)
    assert recipe.learning_rate == point[f"learning_rate_{recipe.optimizer}"]
    assert recipe.weight_decay == point[f"weight_decay_{recipe.optimizer}"]


@given(st.data())
def test_completing_moves_any_values_inside_and_leaves_a_point_alone(data: st.DataObject) -> None:
    point = drawn(data, SPACE)
    assert SPACE.complete(point) == point
    names = [each.name for each in SPACE.dimensions if isinstance(each, Range)]
    wild = {name: data.draw(st.floats(allow_nan=False) | st.none()) for name in names}
    assert SPACE.contains(SPACE.complete({**wild, "optimizer": "no such", "colour": "red"}))


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "net_z"},
        {"resolution": 96},
        {"learning_rate_adamw": 1.0},
        {"learning_rate_adamw": float("nan")},
        {"learning_rate_adamw": "fast"},
        {"learning_rate_adamw": None},
        {"learning_rate_adamw": [1e-3]},
        {"label_smoothing": True},
        {"momentum": 0.9},
        {"unknown": 1},
        {"optimizer": "sgd"},
    ],
    ids=str,
)
def test_a_point_of_another_space_lies_outside(change: dict[str, Any]) -> None:
    point = SPACE.complete({"optimizer": "adamw"})
    assert SPACE.contains(point)
    assert not SPACE.contains({**point, **change})


def test_a_point_with_a_gap_lies_outside() -> None:
    point = SPACE.complete({})
    assert not any(SPACE.contains({name: point[name] for name in point if name != left_out}) for left_out in point)


def test_an_adopted_head_is_a_choice_for_its_backbone_alone() -> None:
    space = fine_tuning_space(
        backbones=BACKBONES,
        resolutions=SIDES,
        pretrained=True,
        n_train=500,
        fixed={},
        heads={"net_b": "mlp:64-relu"},
    )
    with_it, without = (space.complete({"backbone": name}) for name in ("net_b", "net_a"))
    assert space.recipe(with_it).head == "mlp:64-relu"
    assert space.recipe(space.complete({**with_it, "head_net_b": "linear"})).head == "linear"
    assert "head_net_b" not in without
    assert space.recipe(without).head == "linear"
