from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.config import TrainingSettings
from automl_vision.training.sampling import SAMPLINGS, SHARDS_AT_ONCE, in_blocks

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


# --- by shards ------------------------------------------------------------------------------------------------------

BLOCKS = torch.arange(20).repeat_interleave(50)


@given(
    blocks=st.lists(st.integers(0, 9), min_size=1, max_size=80), seed=st.integers(0, 2**31), epoch=st.integers(1, 1000)
)
def test_going_by_shards_shows_what_the_sampling_drew(blocks: list[int], seed: int, epoch: int) -> None:
    for name in SAMPLINGS:
        drawn = SAMPLINGS[name].order(torch.tensor(blocks) % 2, seed, epoch)
        order = in_blocks(drawn, torch.tensor(blocks), seed, epoch)
        assert torch.equal(order.sort().values, drawn.sort().values)
        assert torch.equal(order, in_blocks(drawn, torch.tensor(blocks), seed, epoch))


def test_a_few_shards_are_in_use_at_a_time() -> None:
    order = in_blocks(SAMPLINGS["shuffled"].order(LABELS, 0, 1), BLOCKS, 0, 1)
    shown = BLOCKS[order]
    assert all(len(part.unique()) <= SHARDS_AT_ONCE + 1 for part in shown.split(25))
    assert all(len(part.unique()) > 1 for part in shown.split(25)[2:-2])  # and never one alone, but at the ends
    first = {int(block): int((shown == block).nonzero()[0]) for block in shown.unique()}
    last = {int(block): int((shown == block).nonzero()[-1]) for block in shown.unique()}
    assert max(last[block] - first[block] for block in first) < 50 * (SHARDS_AT_ONCE + 2)


def test_every_epoch_has_another_order_of_shards_and_within_them() -> None:
    drawn = torch.arange(1000)
    one, two = (in_blocks(drawn, BLOCKS, 0, epoch) for epoch in (1, 2))
    assert not torch.equal(one, two)
    assert not torch.equal(BLOCKS[one], BLOCKS[two])
    inside = one[BLOCKS[one] == 3]
    assert not torch.equal(inside, inside.sort().values) and not torch.equal(inside, two[BLOCKS[two] == 3])


def test_one_shard_is_a_plain_shuffle_and_classes_stay_mixed() -> None:
    drawn = SAMPLINGS["shuffled"].order(LABELS, 0, 1)
    order = in_blocks(drawn, torch.zeros(1000, dtype=torch.int64), 0, 1)
    shares = torch.stack([LABELS[part].float().mean() for part in order.split(250)])
    assert float((shares - 0.1).abs().max()) < 0.06
