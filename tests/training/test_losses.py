from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from automl_vision.config import TrainingSettings
from automl_vision.training.losses import LOSSES

EVEN = torch.tensor([0.5, 0.5])
RARE = torch.tensor([0.9, 0.1])


def targets(*labels: int) -> torch.Tensor:
    return F.one_hot(torch.tensor(labels), 2).float()


def test_the_setting_offers_what_there_is() -> None:
    assert TrainingSettings.__dataclass_fields__["loss"].metadata["rule"].allowed == f"one of {', '.join(LOSSES)}"


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_prefer_the_right_class(loss: str) -> None:
    right, wrong = torch.tensor([[5.0, 0], [0, 5]]), torch.tensor([[0.0, 5], [5, 0]])
    given = (targets(0, 1), 0.1, RARE)
    assert LOSSES[loss](right, *given) < LOSSES[loss](wrong, *given)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", LOSSES)
def test_where_classes_are_even_all_losses_are_cross_entropy(loss: str, smoothing: float) -> None:
    scores, labels = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), [0, 1] * 4
    got = LOSSES[loss](scores, targets(*labels), smoothing, EVEN)
    expected = F.cross_entropy(scores, torch.tensor(labels), label_smoothing=smoothing)
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(loss: str) -> None:
    """Micro-batches gather gradients part by part: no loss may depend on what else is in a part."""
    scores = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    labels = targets(0, 0, 0, 0, 1, 1)
    whole = LOSSES[loss](scores, labels, 0.1, RARE)
    parts = [
        LOSSES[loss](scores[rows], labels[rows], 0.1, RARE) * len(scores[rows]) for rows in (slice(4), slice(4, 6))
    ]
    assert float(sum(parts)) / 6 == pytest.approx(float(whole), rel=1e-6)


def test_weights_favour_rare_classes_and_are_one_on_average() -> None:
    indifferent = torch.zeros(1, 2)
    common, rare = (float(LOSSES["weighted"](indifferent, targets(label), 0.0, RARE)) for label in (0, 1))
    assert rare / common == pytest.approx(3.0)  # the root of 9
    assert 0.9 * common + 0.1 * rare == pytest.approx(
        float(LOSSES["cross_entropy"](indifferent, targets(0), 0.0, EVEN))
    )


def test_logit_adjustment_asks_scores_to_leave_frequencies_out() -> None:
    """Where inputs tell nothing, the best scores of cross-entropy are the log shares; adjusted, they are even."""
    labels = targets(*[0] * 9, 1)
    learned = {}
    for loss in ("cross_entropy", "logit_adjusted"):
        scores = torch.zeros(2, requires_grad=True)
        solver = torch.optim.LBFGS([scores], max_iter=100)

        def total(loss: str = loss, scores: torch.Tensor = scores) -> torch.Tensor:
            scores.grad = None
            value = LOSSES[loss](scores.expand(10, 2), labels, 0.0, RARE)
            value.backward()
            return value

        solver.step(total)
        learned[loss] = scores.detach().softmax(dim=0)
    assert torch.allclose(learned["cross_entropy"], RARE, atol=1e-3)
    assert torch.allclose(learned["logit_adjusted"], EVEN, atol=1e-3)
