from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from feature_sets import gaussians, xor

from automl_vision.models import darts
from automl_vision.models.darts import (
    IDENTITY,
    LAYERS,
    MIXTURES,
    OPERATIONS,
    WIDTHS,
    MixedHead,
    SearchedHead,
    chosen_layers,
    has_collapsed,
    search_head,
)
from automl_vision.models.features import OutOfTime
from automl_vision.models.heads import Layer


def searched(features: Any, labels: Any, **changes: Any) -> SearchedHead:
    given: dict[str, Any] = {"seed": 0, "should_stop": lambda: False, **changes}
    return search_head(torch.from_numpy(features), labels, np.arange(len(labels)), int(labels.max()) + 1, **given)


@pytest.fixture(scope="module")
def found() -> SearchedHead:
    return searched(*xor(200))


def test_alpha_starts_even_changes_and_is_recorded(found: SearchedHead) -> None:
    first, last = found.epochs[0]["alpha"], found.epochs[-1]["alpha"]
    assert set(first) == {each.name for each in MIXTURES}
    for mixture in MIXTURES:
        for record in found.epochs:
            assert sum(record["alpha"][mixture.name]) == pytest.approx(1.0)
        even = np.full(len(mixture.options), 1 / len(mixture.options))
        moved = [np.abs(np.array(each[mixture.name]) - even).max() for each in (first, last)]
        assert 0 < moved[0] < 0.1
        assert moved[1] > moved[0]
    assert max(last["layer 1 operation"]) > 0.4
    assert [record["epoch"] for record in found.epochs] == list(range(1, len(found.epochs) + 1))


def test_entropy_falls_and_losses_are_recorded(found: SearchedHead) -> None:
    assert found.epochs[-1]["entropy"] < found.epochs[0]["entropy"] <= np.log(len(OPERATIONS)) + 1e-6
    assert found.epochs[-1]["train_loss"] < found.epochs[0]["train_loss"]
    assert found.epochs[-1]["val_loss"] < found.epochs[0]["val_loss"]


def test_each_decision_takes_the_option_of_the_least_loss(found: SearchedHead) -> None:
    assert [choice["mixture"] for choice in found.choices] == [each.name for each in MIXTURES]
    for choice in found.choices:
        assert choice["chosen"] == choice["options"][int(np.argmin(choice["loss"]))]
        assert len(choice["accuracy"]) == len(choice["alpha"]) == len(choice["options"])
    chosen = {choice["mixture"]: choice["chosen"] for choice in found.choices}
    assert found.layers == chosen_layers(chosen)


def test_what_only_a_hidden_layer_can_tell_gets_one(found: SearchedHead) -> None:
    assert found.layers
    assert max(found.choices[0]["accuracy"]) > 0.9
    assert found.collapsed == 0


def test_equal_seeds_give_equal_searches_and_the_global_generator_stays() -> None:
    features, labels = gaussians(60)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (searched(features, labels, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert first.epochs != other.epochs


def weights_with(share: float) -> dict[str, list[float]]:
    """Identity has this share in every layer."""
    return {each.name: [share if option == IDENTITY else 0.1 for option in each.options] for each in MIXTURES}


def test_more_than_half_of_identity_is_a_collapse() -> None:
    assert not has_collapsed(weights_with(0.5))
    assert has_collapsed(weights_with(0.51))
    one_layer = {**weights_with(0.1), "layer 1 operation": [0.95, 0.02, 0.02, 0.01]}
    assert has_collapsed(one_layer)  # over .5 on average


def start_at(monkeypatch: pytest.MonkeyPatch, identity: float) -> None:
    """Let alpha start with this logit of identity; 0 for all others."""
    before = MixedHead.__init__

    def biased(self: MixedHead, *given: Any) -> None:
        before(self, *given)
        for mixture in MIXTURES:
            if mixture.kind == "operation":
                self.alpha[mixture.name] = torch.tensor([identity, 0.0, 0.0, 0.0], requires_grad=True)

    monkeypatch.setattr(MixedHead, "__init__", biased)


def test_a_search_that_collapses_stops_there(monkeypatch: pytest.MonkeyPatch) -> None:
    start_at(monkeypatch, 1.3)
    found = searched(*xor(200))
    assert found.collapsed == len(found.epochs) == 1
    assert has_collapsed(found.epochs[-1]["alpha"])
    assert {choice["chosen"] for choice in found.choices} <= {*OPERATIONS, *map(str, WIDTHS)}


def test_alpha_finds_its_way_back_where_identity_is_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    start_at(monkeypatch, 1.05)  # a little short of a collapse
    found = searched(*xor(200))
    shares = [record["alpha"]["layer 1 operation"][OPERATIONS.index(IDENTITY)] for record in found.epochs]
    assert found.collapsed == 0
    assert shares[-1] < shares[0] - 0.1
    assert found.layers


def test_a_search_without_progress_stops_and_goes_back() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(64, 30)).astype(np.float32)
    labels = random.integers(0, 2, 64)
    found = searched(features, labels)  # noise: what is learned by heart does not hold on the other half
    losses = [record["val_loss"] for record in found.epochs]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + darts.PATIENCE < darts.MOST_EPOCHS
    assert found.choices[0]["alpha"] == pytest.approx(found.epochs[best]["alpha"]["layer 1 operation"])


def test_the_deadline_is_asked_before_every_epoch() -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(OutOfTime, match="epoch 4"):
        searched(*gaussians(60), should_stop=stop)
    assert len(asked) == 4


def test_layers_of_identity_fold_away() -> None:
    chosen = {"layer 1 operation": IDENTITY, "layer 1 width": "64", "layer 2 operation": "tanh", "layer 2 width": "128"}
    assert chosen_layers(chosen) == (Layer(128, "tanh"),)
    assert chosen_layers({**chosen, "layer 2 operation": IDENTITY}) == ()


def test_masks_keep_as_many_units_as_they_say() -> None:
    net = MixedHead(5, 2)
    assert net.get_buffer("masks").sum(dim=1).tolist() == list(WIDTHS)
    assert len(MIXTURES) == 2 * LAYERS
