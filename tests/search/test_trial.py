from __future__ import annotations

import dataclasses
import math

import pytest
from histories import finetune, probe

from automl_vision.search.trial import STATES, Trial, best_trial, is_too_large
from automl_vision.training.recipe import Recipe


def test_rank_by_looks_no_further_than_asked() -> None:
    trial = finetune(0, [0.2, 0.5, 0.4, 0.9])
    assert [trial.rank_by(epoch)[0] for epoch in (0, 1, 2, 3, 4, 99)] == [float("-inf"), 0.2, 0.5, 0.5, 0.9, 0.9]


def test_rank_by_tells_equal_scores_apart_by_their_loss() -> None:
    losses = [1.0, 0.7, 0.9]
    trial = finetune(0, [0.5, 0.5, 0.5])
    epochs = tuple(dataclasses.replace(each, val_loss=loss) for each, loss in zip(trial.epochs, losses, strict=True))
    assert trial.replace(epochs=epochs).rank_by(3) == (0.5, -0.7)


def test_the_best_has_the_highest_score_then_the_least_loss_then_the_lowest_number() -> None:
    low, high = probe(0, 0.6), probe(1, 0.7)
    assert best_trial([low, high]) is high
    better_loss = high.replace(number=2, loss=0.1)
    assert best_trial([high, better_loss]) is better_loss
    assert best_trial([better_loss.replace(number=3), better_loss]) is better_loss
    assert best_trial([high, high.replace(number=4, loss=None)]) is high


def test_without_a_score_there_is_no_best() -> None:
    assert best_trial([]) is None
    assert best_trial([finetune(0, state="failed"), finetune(1, state="running")]) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "unheard-of"},
        {"recipe": {"kind": "probe"}},
        {"recipe": None},
        {"epochs": [{"epoch": 1}]},
        {"epochs": 3},
        {"colour": "red"},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_values_of_another_shape_are_refused(damage: dict[str, object]) -> None:
    with pytest.raises((TypeError, KeyError)):
        Trial.from_dict({**finetune(0, [0.5]).to_dict(), **damage})


def test_every_state_is_explained() -> None:
    assert all(STATES.values())


@pytest.mark.parametrize(
    "notes",
    [{"head_search": "x"}, {"symmetries": []}, {"lost": "2"}, {"micro_batch": True}, {"share": None}, {"lost_why": 5}],
    ids=str,
)
def test_notes_of_other_types_are_refused(notes: dict[str, object]) -> None:
    """A record may come from anybody, and they are looked into while the search is told of."""
    with pytest.raises(TypeError, match=rf"notes\.{next(iter(notes))} must be"):
        Trial.from_dict(finetune(0).replace(notes=notes).to_dict())


FAILED = finetune(
    0, recipe=Recipe("finetune", "net_a", 160, freeze_stages=2), state="failed", notes={"out_of_memory": True}
)


@pytest.mark.parametrize(
    ("changes", "too_large"),
    [
        ({}, True),
        ({"resolution": 224}, True),
        ({"freeze_stages": 0}, True),
        ({"batch_size": 8, "optimizer": "sgd"}, True),
        ({"resolution": 128}, False),
        ({"freeze_stages": 3}, False),
        ({"backbone": "net_b"}, False),
        ({"kind": "probe"}, False),
    ],
    ids=str,
)
def test_what_needs_no_less_memory_than_what_did_not_fit_is_too_large(
    changes: dict[str, object], too_large: bool
) -> None:
    recipe = dataclasses.replace(FAILED.recipe, **changes)  # type: ignore[arg-type] # fields of a recipe
    assert is_too_large(recipe, [finetune(1, [0.5]), FAILED]) == too_large
    assert not is_too_large(recipe, [FAILED.replace(notes={}, error="loss is not finite")])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", "x"),
        ("epochs", 1.5),
        ("epochs", True),
        ("resolution", None),
        ("learning_rate", "fast"),
        ("learning_rate", math.nan),
        ("weight_decay", 10**400),
        ("backbone", 7),
        ("ema", 1),
        ("kind", "guess"),
        ("kind", []),
    ],
)
def test_a_recipe_of_other_types_is_none(field: str, value: object) -> None:
    told = finetune(0, [0.5]).to_dict()
    with pytest.raises(TypeError, match=field):
        Trial.from_dict({**told, "recipe": {**told["recipe"], field: value}})


@pytest.mark.parametrize("note", [{"share": "x"}, {"share": 10**400}, {"strength": []}, {"lost": "y"}])
def test_notes_that_nothing_can_be_calculated_with_are_refused(note: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=next(iter(note))):
        Trial.from_dict({**finetune(0, [0.5]).to_dict(), "notes": note})


@pytest.mark.parametrize("field", ["seconds", "seconds_per_image", "score", "loss", "peak_bytes"])
@pytest.mark.parametrize("value", [10**400, math.inf, math.nan])
def test_figures_that_are_not_finite_are_none(field: str, value: float) -> None:
    with pytest.raises(TypeError, match=field):
        Trial.from_dict({**finetune(0, [0.5]).to_dict(), field: value})
