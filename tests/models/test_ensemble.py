"""Networks that vote: a mean of probabilities, over views and networks, and which of them are worth it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import Classifier, build_classifier
from automl_vision.models.ensemble import MOST_NETWORKS, MOST_PICKS, Ensemble, Voter, greedy_shares, mixed
from automl_vision.models.inference import logits
from automl_vision.runtime import Runtime

SMALL = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)
LARGE = Preprocessing(48, (0.4,) * 3, (0.2,) * 3)
IMAGES = {
    side: torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(side))
    for side in (32, 48)
}


def network(seed: int, side: int = 32) -> Classifier:
    net = build_classifier("mobilenetv3_small_100", 3, resolution=side, seed=seed)
    torch.nn.init.normal_(net.head.weight, std=300.0, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type] # a linear head
    return net


def batches(side: int) -> list[torch.Tensor]:
    return list(IMAGES[side].split(2))


def softmax(net: Classifier, preprocessing: Preprocessing, images: torch.Tensor, runtime: Runtime) -> Any:
    scores = logits(net, images.split(2), preprocessing, runtime)  # in the same batches: their sums round alike
    return torch.from_numpy(scores).double().softmax(dim=1).numpy()


def test_one_network_says_its_softmax(cpu: Runtime) -> None:
    net = network(0)
    ensemble = Ensemble([Voter(net, SMALL)], cpu)
    expected = softmax(net, SMALL, IMAGES[32], cpu)
    assert np.ptp(expected, axis=0).max() > 0.01
    assert np.exp(ensemble.log_probabilities(batches)) == pytest.approx(expected, abs=1e-6)
    assert ensemble.passes == 1
    assert ensemble.parameters == sum(parameter.numel() for parameter in net.parameters())


def test_the_mirror_image_has_half_of_the_vote(cpu: Runtime) -> None:
    net = network(0)
    both = [softmax(net, SMALL, images, cpu) for images in (IMAGES[32], IMAGES[32].flip(3))]
    assert not np.allclose(*both, atol=1e-3)
    said = Ensemble([Voter(net, SMALL, flip=True)], cpu).log_probabilities(batches)
    assert np.exp(said) == pytest.approx(np.mean(both, axis=0), abs=1e-6)


def test_networks_of_different_sides_vote_by_their_shares(cpu: Runtime) -> None:
    small, large = network(0), network(1, 48)
    ensemble = Ensemble([Voter(small, SMALL, share=0.25), Voter(large, LARGE, flip=True, share=0.75)], cpu)
    views = [softmax(large, LARGE, images, cpu) for images in (IMAGES[48], IMAGES[48].flip(3))]
    expected = 0.25 * softmax(small, SMALL, IMAGES[32], cpu) + 0.75 * np.mean(views, axis=0)
    assert np.exp(ensemble.log_probabilities(batches)) == pytest.approx(expected, abs=1e-6)
    assert ensemble.passes == 3


def test_no_images_are_no_rows(cpu: Runtime) -> None:
    assert len(Ensemble([Voter(network(0), SMALL, flip=True)], cpu).log_probabilities(lambda side: [])) == 0


VOTES = st.lists(st.lists(st.floats(-50, 0), min_size=3, max_size=3), min_size=4, max_size=4)


@given(first=VOTES, second=VOTES, share=st.floats(0.01, 0.99))
def test_a_mixture_is_a_distribution_between_its_parts(first: list[Any], second: list[Any], share: float) -> None:
    parts = [torch.tensor(votes, dtype=torch.float64).log_softmax(dim=1).numpy() for votes in (first, second)]
    mixture = np.exp(mixed(parts, [share, 1 - share]))
    assert mixture.sum(axis=1) == pytest.approx(1)
    low, high = np.exp(parts).min(axis=0), np.exp(parts).max(axis=0)
    assert (mixture >= low - 1e-9).all()
    assert (mixture <= high + 1e-9).all()


# --- which votes ----------------------------------------------------------------------------------------------------


def votes_of(right: list[float]) -> Any:
    """Log-probabilities of two classes that give class 0, the true one, these chances."""
    own = np.array(right)
    return np.log(np.stack([own, 1 - own], axis=1))


LABELS = np.zeros(4, dtype=np.int64)


def test_networks_that_are_wrong_in_different_places_vote_together() -> None:
    shares = greedy_shares([votes_of([0.9, 0.9, 0.1, 0.9]), votes_of([0.1, 0.9, 0.9, 0.9])], LABELS)
    assert shares == {0: 0.5, 1: 0.5}


def test_one_that_only_agrees_or_is_worse_gets_no_vote() -> None:
    best = votes_of([0.9, 0.8, 0.9, 0.9])
    assert greedy_shares([best, best, votes_of([0.6, 0.5, 0.6, 0.6])], LABELS) == {0: 1.0}


def test_no_more_networks_vote_than_can_be_shipped() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    votes = []
    for _ in range(8):  # each is right in its own places
        own = np.where(random.random(300) < 0.7, 0.95, 0.05)
        chances = np.stack([own, 1 - own], axis=1)
        chances[labels == 1] = chances[labels == 1, ::-1]
        votes.append(np.log(chances))
    shares = greedy_shares(votes, labels)
    assert len(shares) == MOST_NETWORKS
    assert 0 in shares
    assert sum(shares.values()) == pytest.approx(1)


@given(
    chances=st.lists(st.lists(st.floats(0.001, 0.999), min_size=4, max_size=4), min_size=1, max_size=6),
)
def test_the_ensemble_never_loses_on_the_images_it_was_picked_on(chances: list[list[float]]) -> None:
    votes = [votes_of(each) for each in chances]
    shares = greedy_shares(votes, LABELS)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share >= 1 / MOST_PICKS - 1e-9 for share in shares.values())
    assert len(shares) <= MOST_NETWORKS
    mixture = mixed([votes[k] for k in shares], list(shares.values()))
    assert -mixture[:, 0].mean() <= -votes[0][:, 0].mean() + 1e-9
