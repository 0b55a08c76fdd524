from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from feature_sets import gaussians
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_source import MemorySource

from automl_vision.config import TrainingSettings
from automl_vision.models.symmetry import (
    SYMMETRIES,
    UNTESTED,
    Changed,
    SymmetryTest,
    compare_symmetries,
    not_tested,
    shown_rows,
    symmetry_line,
)
from automl_vision.training.recipe import Recipe

CLASSES = 3


def test_every_symmetry_is_a_field_of_a_recipe_and_a_setting() -> None:
    assert set(SYMMETRIES) == set(UNTESTED) <= set(vars(TrainingSettings()))
    recipe = Recipe("finetune", "net", 32)
    assert {name: getattr(recipe, name) for name in SYMMETRIES} == UNTESTED, "what is not tested stays as it was"


def found(images: int = 100, accuracy: float = 0.9, after: float = 0.9, largest: float = 0.3) -> SymmetryTest:
    return SymmetryTest(images, accuracy, largest, dict.fromkeys(SYMMETRIES, after))


def test_a_fall_of_a_standard_error_is_refused() -> None:
    error = found().standard_error
    assert error == pytest.approx(0.03, abs=0.002)
    assert all(found(after=0.9 - 0.9 * error).allowed.values())
    assert not any(found(after=0.9 - 1.1 * error).allowed.values())
    assert all(found(after=1.0).allowed.values())


def test_a_perfect_probe_may_lose_an_image() -> None:
    assert all(found(300, 1.0, 1.0 - 0.5 / 300).allowed.values())
    assert not any(found(300, 1.0, 1.0 - 3 / 300).allowed.values())


def test_a_probe_that_knows_nothing_refuses_nothing_and_allows_nothing() -> None:
    ignorant = found(accuracy=0.4, after=0.0, largest=0.35)
    assert not ignorant.can_tell
    assert ignorant.allowed == UNTESTED
    assert "not tested" in symmetry_line(ignorant.to_dict())


def test_the_line_says_each_verdict() -> None:
    mixed = SymmetryTest(200, 0.9, 0.3, {"horizontal_flip": 0.9, "vertical_flip": 0.5, "quarter_turns": 0.2})
    assert symmetry_line(mixed.to_dict()) == "mirror images: left-right yes, upside-down no, quarter turns no"
    skipped = not_tested("too little time")
    assert skipped["allowed"] == UNTESTED
    assert symmetry_line(skipped) == "mirror images: not tested (too little time); left-right as usual"
    assert json.loads(json.dumps(mixed.to_dict())) == mixed.to_dict()


@given(st.integers(1, 5), st.integers(1, 60), st.integers(1, 60))
@settings(deadline=None)
def test_no_two_images_of_a_group_are_shown(copies: int, groups: int, most: int) -> None:
    of = np.repeat(np.arange(groups), copies)
    shown = shown_rows(of, most, seed=1)
    assert len(shown) == min(groups, most) == len(np.unique(of[shown]))
    assert np.array_equal(shown, shown_rows(of, most, seed=1))


def compared(features: Any, labels: Any, changed: dict[str, Any], **fields: Any) -> SymmetryTest:
    groups = fields.pop("groups", np.arange(len(labels)))
    shown = shown_rows(groups, 200, seed=0)
    own = {name: change(features)[shown] for name, change in changed.items()}
    return compare_symmetries(features, labels, groups, CLASSES, shown, own, strength=0.1, **fields)


def test_what_moves_images_into_another_class_is_found() -> None:
    features, labels = gaussians(400, classes=CLASSES, dims=6)
    other = features[labels == 1].mean(axis=0) - features[labels == 0].mean(axis=0)
    changed = {
        "horizontal_flip": lambda x: x + np.random.default_rng(0).normal(0, 0.05, x.shape).astype(np.float32),
        "vertical_flip": lambda x: x + (labels == 0)[:, None].astype(np.float32) * other,
        "quarter_turns": lambda x: x[::-1].copy(),
    }
    got = compared(features, labels, changed)
    assert got.images == 200
    assert got.allowed == {"horizontal_flip": True, "vertical_flip": False, "quarter_turns": False}
    assert got.changed["vertical_flip"] < got.accuracy - 0.05


def test_the_probe_never_saw_what_it_is_asked() -> None:
    """Pure noise: a probe that had seen the images would be right nearly always."""
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(300, 200)).astype(np.float32), rng.integers(CLASSES, size=300)
    got = compared(features, labels, {"horizontal_flip": lambda x: x})
    assert got.accuracy < 0.5
    assert got.changed["horizontal_flip"] == got.accuracy
    assert not got.can_tell


def test_groups_are_held_out_together() -> None:
    rng = np.random.default_rng(2)
    features = np.repeat(rng.normal(size=(150, 100)), 3, axis=0).astype(np.float32)
    labels = np.repeat(rng.integers(CLASSES, size=150), 3)
    assert compared(features, labels, {}, groups=np.repeat(np.arange(150), 3)).accuracy < 0.5


@pytest.mark.parametrize("dims", [5, 600])
def test_an_unchanged_image_is_judged_as_it_was(dims: int) -> None:
    features, labels = gaussians(240, classes=CLASSES, dims=dims)
    got = compared(features, labels, {"horizontal_flip": lambda x: x.copy()}, seed=3)
    assert got.changed["horizontal_flip"] == got.accuracy > 0.5


def test_images_as_they_are_have_no_advantage_over_others_of_their_kind() -> None:
    """More features than images and a weak penalty: what a probe makes of others must not depend on where they lie."""
    features, labels = gaussians(600, classes=CLASSES, dims=600, spread=0.35)
    first, twin = slice(0, 300), slice(300, 600)  # row for row of one class
    assert np.array_equal(labels[first], labels[twin])
    shown = np.arange(300)
    got = compare_symmetries(
        features[first],
        labels[first],
        shown,
        CLASSES,
        shown,
        {"horizontal_flip": features[twin]},
        strength=0.001,
    )
    assert got.accuracy > 0.8
    assert got.changed["horizontal_flip"] == pytest.approx(got.accuracy, abs=0.04)


@pytest.mark.parametrize("name", SYMMETRIES)
def test_a_changed_source_shows_the_same_images_changed(name: str) -> None:
    images = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = MemorySource(images, (24, 32))
    changed = Changed(source, SYMMETRIES[name])
    assert (changed.sizes, changed.plane_for(25)) == (source.sizes, 32)
    rows = torch.tensor([2, 0])
    got = changed.fetch(rows, 24)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(source.fetch(rows, 24), images[rows]), "the store stays as it is"
    assert not torch.equal(got, images[rows])
    turned = [images[row].flatten(1).sort().values for row in rows]
    assert all(torch.equal(one.flatten(1).sort().values, own) for one, own in zip(got, turned, strict=True))


def test_quarter_turns_go_both_ways() -> None:
    images = torch.arange(2 * 3 * 16).view(2, 3, 4, 4)
    got = SYMMETRIES["quarter_turns"](images)
    assert torch.equal(got[0], images[0].rot90(1, (1, 2))) and torch.equal(got[1], images[1].rot90(3, (1, 2)))
