from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.config import TrainingSettings
from automl_vision.training.sampling import SAMPLINGS

LABELS = torch.tensor([0] * 900 + [1] * 100)


def test_the_setting_offers_what_there_is() -> None:
    assert (
        TrainingSettings.__dataclass_fields__["sampling"].metadata["rule"].allowed == f"one of {', '.join(SAMPLINGS)}"
    )


@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_order_depends_on_seed_and_epoch_only(name: str) -> None:
    order = SAMPLINGS[name].order
    assert torch.equal(order(LABELS, 1, 2), order(LABELS, 1, 2))
    assert not torch.equal(order(LABELS, 1, 2), order(LABELS, 1, 3))
    assert not torch.equal(order(LABELS, 1, 2), order(LABELS, 2, 2))
    assert order(LABELS, 1, 2).shape == LABELS.shape and order(LABELS, 1, 2).dtype == torch.int64


def test_shuffled_shows_every_image_once() -> None:
    assert torch.equal(SAMPLINGS["shuffled"].order(LABELS, 0, 1).sort().values, torch.arange(1000))


@pytest.mark.parametrize(("name", "rare"), [("shuffled", 0.1), ("balanced", 0.25)])
def test_classes_are_shown_by_the_shares_that_are_told(name: str, rare: float) -> None:
    shares = SAMPLINGS[name].shares(LABELS, 2)
    assert shares.tolist() == pytest.approx([1 - rare, rare])
    shown = torch.stack([LABELS[SAMPLINGS[name].order(LABELS, 0, epoch)] for epoch in range(20)]).float().mean()
    assert float(shown) == pytest.approx(rare, abs=0.02)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_shares_add_up_and_none_is_zero(labels: list[int]) -> None:
    for sampling in SAMPLINGS.values():
        shares = sampling.shares(torch.tensor(labels), 8)
        assert shares.shape == (8,) and float(shares.min()) > 0 and float(shares.sum()) == pytest.approx(1.0)
        order = sampling.order(torch.tensor(labels), 0, 1)
        assert len(order) == len(labels) and int(order.min()) >= 0 and int(order.max()) < len(labels)
