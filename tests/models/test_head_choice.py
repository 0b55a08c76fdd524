from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from feature_sets import gaussians, xor
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.config import SearchSettings
from automl_vision.models import head_choice
from automl_vision.models.head_choice import HEAD_KINDS, HeadChoice, choose_head, paired_gain
from automl_vision.models.heads import Layer, read_head
from automl_vision.models.probe import fit_probe

every_kind = pytest.mark.parametrize("kind", HEAD_KINDS)


def choose(kind: str, features: Any, labels: Any, **changes: Any) -> HeadChoice:
    groups = changes.pop("groups", np.arange(len(labels)))
    return choose_head(kind, features, labels, groups, int(labels.max()) + 1, **{"strength": 0.1, **changes})


@pytest.fixture(scope="module", autouse=True)
def short_training() -> Iterator[None]:
    """These features need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_choice, "STEPS", 80)
        yield


def test_the_setting_offers_what_there_is() -> None:
    rule = SearchSettings.__dataclass_fields__["head"].metadata["rule"]
    assert not any(rule.check(name) for name in (*HEAD_KINDS, "linear"))
    assert rule.check("transformer")


@pytest.fixture(scope="module")
def on_xor() -> dict[str, HeadChoice]:
    features, labels = xor(160, dims=4, noise=0.2)
    return {kind: choose(kind, features, labels) for kind in HEAD_KINDS}


@every_kind
def test_what_no_linear_head_can_tell_is_won_by_another(kind: str, on_xor: dict[str, HeadChoice]) -> None:
    choice = on_xor[kind]
    assert choice.adopted
    assert choice.candidate.startswith("mlp:")
    assert f"{choice.candidate} adopted" in choice.reason
    assert choice.comparison is not None
    assert choice.comparison["candidate"] > 0.75 > 0.6 > choice.comparison["linear"]
    assert choice.comparison["gain"] > choice.comparison["standard_error"] > 0


@every_kind
def test_an_adopted_head_takes_raw_features(kind: str, on_xor: dict[str, HeadChoice]) -> None:
    module = on_xor[kind].module
    assert module is not None
    features, labels = xor(500, dims=4, noise=0.2, seed=9)
    with torch.no_grad():
        said = module(torch.from_numpy(features)).argmax(dim=1).numpy()
    assert (said == labels).mean() > 0.8


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_scale_and_offset_of_features_do_not_matter(scale: float) -> None:
    features, labels = xor(160, dims=4, noise=0.2)
    moved = choose("mlp", features * scale + 7 * scale, labels)
    assert moved.adopted
    assert moved.module is not None
    new, truth = xor(300, dims=4, noise=0.2, seed=3)
    with torch.no_grad():
        said = moved.module(torch.from_numpy(new * scale + 7 * scale)).argmax(dim=1).numpy()
    assert (said == truth).mean() > 0.8


@every_kind
def test_where_a_linear_head_is_the_right_one_it_stays(kind: str) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(120, 24)).astype(np.float32)
    labels = np.asarray(features @ random.normal(size=24) > 0, dtype=np.int64)
    probe = fit_probe(features, labels, np.arange(120), 2)
    choice = choose(kind, features, labels, strength=probe.strength)
    assert not choice.adopted
    assert choice.module is None
    assert choice.reason.startswith("linear kept")
    if choice.comparison is not None:  # or the search itself ended at the linear head
        assert f"{choice.comparison['linear']:.4f}" in choice.reason
        assert f"{choice.comparison['candidate']:.4f}" in choice.reason


def test_a_search_that_ends_at_the_linear_head_needs_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head_choice.HEAD_KINDS, "darts", lambda task: ((), None))
    choice = choose("darts", *gaussians(60))
    assert (choice.candidate, choice.adopted, choice.comparison) == ("linear", False, None)


def test_a_head_that_loses_the_first_round_gets_no_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head_choice.HEAD_KINDS, "mlp", lambda task: ((Layer(1, "relu"),), None))
    choice = choose("mlp", *gaussians(90, classes=6, spread=1.0))
    assert choice.comparison is not None
    assert choice.comparison["repeats"] == 1
    assert choice.comparison["gain"] < 0
    assert not choice.adopted


@every_kind
def test_copies_of_one_group_are_held_out_together(kind: str) -> None:
    """Labels are chance: whoever sees a copy of a held-out image knows it by heart, and nobody else knows anything."""
    random = np.random.default_rng(1)
    features = np.repeat(random.normal(size=(60, 60)), 4, axis=0).astype(np.float32)
    labels = np.repeat(random.integers(0, 2, 60), 4)
    choice = choose(kind, features, labels, groups=np.repeat(np.arange(60), 4))
    if choice.comparison is not None:
        assert max(choice.comparison["candidate"], choice.comparison["linear"]) < 0.75


@every_kind
def test_where_time_is_over_the_linear_head_stays(kind: str) -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    choice = choose(kind, *gaussians(90), should_stop=stop)
    assert len(asked) == 6, "it is asked before every epoch, and once it says so nothing more is begun"
    assert (choice.adopted, choice.module, choice.comparison) == (False, None, None)
    assert choice.reason.startswith("linear kept: time was over")


def test_what_the_user_stops_is_left_at_once() -> None:
    class Stopped(Exception):
        pass

    def stop() -> bool:
        raise Stopped

    with pytest.raises(Stopped):
        choose("mlp", *gaussians(60), should_stop=stop)


def test_too_few_groups_to_compare_on() -> None:
    features, labels = gaussians(12)
    choice = choose("darts", features, labels, groups=np.arange(12) % 4)
    assert not choice.adopted
    assert "too few groups" in choice.reason


def test_equal_seeds_give_equal_choices(on_xor: dict[str, HeadChoice]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again = choose("mlp", *xor(160, dims=4, noise=0.2))
    assert torch.equal(torch.get_rng_state(), before)
    assert again.to_dict() == on_xor["mlp"].to_dict()
    first, second = on_xor["mlp"].module, again.module
    assert first is not None and second is not None
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_what_is_recorded_is_plain(on_xor: dict[str, HeadChoice]) -> None:
    for choice in on_xor.values():
        assert json.loads(json.dumps(choice.to_dict(), allow_nan=False)) == choice.to_dict()
        assert read_head(choice.candidate)
    assert on_xor["darts"].search is not None
    assert on_xor["mlp"].search is None


def test_balanced_comparisons_count_classes_alike() -> None:
    """The candidate wins a large class and loses a small one: a gain by images, a loss by classes."""
    differences = np.array([0.1] * 90 + [-0.5] * 10)
    labels = np.array([0] * 90 + [1] * 10)
    by_image, _ = paired_gain(differences, np.ones(100), np.arange(100))
    by_class, _ = paired_gain(differences, 1 / np.bincount(labels)[labels], np.arange(100))
    assert by_image > 0 > by_class


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=30), st.integers(2, 5))
def test_copies_of_images_make_nobody_surer(differences: list[float], times: int) -> None:
    one = np.array(differences)
    gain, error = paired_gain(one, np.ones(len(one)), np.arange(len(one)))
    many = np.repeat(one, times)
    copied_gain, copied_error = paired_gain(many, np.ones(len(many)), np.repeat(np.arange(len(one)), times))
    assert copied_gain == pytest.approx(gain)
    assert copied_error == pytest.approx(error)
    assert error == pytest.approx(one.std(ddof=1) / np.sqrt(len(one)))
