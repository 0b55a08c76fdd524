"""Differentiable architecture search (DARTS: Liu, Simonyan, Yang 2019) for the head, on frozen features.

A head of two hidden layers is relaxed: each layer applies a mixture of activations and keeps a mixture of widths, all
weighted by softmax(alpha). One half of the images trains the weights, the other half trains alpha, in turn (first
order). The identity among the activations makes its layer fold into the next one, so a head of identities alone is the
linear one.

DARTS is known to collapse to operations without parameters, and to overfit. Four guards: a penalty on the entropy of
alpha that grows over the second half, so that alpha decides in time; the search stops where identity has taken more
than half of the weight; it stops where the loss of the second half no longer falls, and goes back to where it was
least; and the operations are chosen by what the head loses on held-out images with each of them in place, not by alpha
(Wang et al., "Rethinking Architecture Selection in Differentiable NAS", 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from automl_vision.models.features import OutOfTime
from automl_vision.models.heads import ACTIVATIONS, Layer
from automl_vision.models.probe import deal_folds

IDENTITY = "identity"
OPERATIONS: tuple[str, ...] = (IDENTITY, *ACTIVATIONS)
WIDTHS: tuple[int, ...] = (64, 128, 256, 512)
LAYERS = 2

BATCH = 64
#: Steps of the search at least and epochs at most: few images need more epochs.
STEPS, MOST_EPOCHS = 400, 60
WEIGHT_STEP, WEIGHT_DECAY = 3e-3, 1e-2
ALPHA_STEP, ALPHA_DECAY = 2e-2, 1e-3
#: Weight of the entropy of alpha (nats per mixture) in its loss, at the end.
ENTROPY = 0.1
#: The search stops where the weight of identity, averaged over layers, exceeds this.
COLLAPSE = 0.5
#: The search stops after this many epochs without a smaller loss on the second half, and what it decides with is the
#: state of the least loss: overfitted weights would speak for narrow layers.
PATIENCE = 10
#: Share of the hidden units that are dropped in a training step.
DROPOUT = 0.3


@dataclass(frozen=True)
class Mixture:
    """One decision of the search: which operation, or which width, a layer has.

    Attributes:
        layer: 0-based.
        kind: "operation" or "width".
        options: names.
    """

    layer: int
    kind: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people: "layer 1 operation"."""
        return f"layer {self.layer + 1} {self.kind}"


MIXTURES: tuple[Mixture, ...] = tuple(
    Mixture(layer, kind, options)
    for layer in range(LAYERS)
    for kind, options in (("operation", OPERATIONS), ("width", tuple(map(str, WIDTHS))))
)

#: Weight of each option, by the name of its mixture.
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class SearchedHead:
    """What a search found.

    Attributes:
        layers: hidden layers of the head; none where every layer came out as identity.
        epochs: one record per epoch: epoch, train_loss and val_loss (mean cross-entropy on either half), val_accuracy,
            entropy (mean, in nats) and alpha (mixture -> weight of each option).
        choices: one record per mixture: mixture, options, alpha, and loss and accuracy on the second half with each
            option in place; `chosen` is the option of the least loss.
        collapsed: the epoch after which identity had taken over; 0 where it did not.
    """

    layers: tuple[Layer, ...]
    epochs: tuple[dict[str, Any], ...]
    choices: tuple[dict[str, Any], ...]
    collapsed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {"epochs": list(self.epochs), "choices": list(self.choices), "collapsed": self.collapsed}


class MixedHead(nn.Module):
    """The relaxed head: (B, D) to (B, C).

    Attributes:
        alpha: name of a mixture -> (options) logits of their weights.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        widest = WIDTHS[-1]
        self.linears = nn.ModuleList(nn.Linear(features if k == 0 else widest, widest) for k in range(LAYERS))
        self.classifier = nn.Linear(widest, classes)
        self.alpha = {each.name: torch.zeros(len(each.options), requires_grad=True) for each in MIXTURES}
        self.register_buffer("masks", torch.stack([torch.arange(widest) < width for width in WIDTHS]).float())
        self._activations = nn.ModuleList([nn.Identity(), *(make() for make in ACTIVATIONS.values())])

    def weights(self) -> dict[str, torch.Tensor]:
        """Softmax of alpha."""
        return {name: alpha.softmax(dim=0) for name, alpha in self.alpha.items()}

    def forward(self, features: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Scores under these weights of the options."""
        for layer, linear in enumerate(self.linears):
            before = linear(features)
            operation, width = (weights[f"layer {layer + 1} {kind}"] for kind in ("operation", "width"))
            mixed = sum(w * f(before) for w, f in zip(operation, self._activations, strict=True))
            features = F.dropout(mixed * (width @ self.get_buffer("masks")), DROPOUT, self.training)
        scores: torch.Tensor = self.classifier(features)
        return scores


@dataclass(frozen=True)
class _Halves:
    """Images that train the weights, and images that train alpha."""

    weights: NDArray[np.int64]
    alpha: NDArray[np.int64]


def search_head(
    features: torch.Tensor,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    num_classes: int,
    *,
    seed: int,
    should_stop: Callable[[], bool],
) -> SearchedHead:
    """Search the hidden layers of a head.

    Args:
        features: (n, D) float32, about standardised.
        labels: (n) class indices below `num_classes`.
        groups: (n) rows of one group stay in one half.
        num_classes: C >= 2.
        seed: decides weights, order and halves; torch's global generator is left as it is.
        should_stop: asked before every epoch.

    Raises:
        OutOfTime: `should_stop` said so.
        ValueError: fewer than two groups.
    """
    fold = deal_folds(labels, groups, 2, seed)
    halves = _Halves(np.flatnonzero(fold == 0), np.flatnonzero(fold == 1))
    targets = torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MixedHead(features.shape[1], num_classes)
        epochs = _relaxed_search(net, features, targets, halves, should_stop)
    held_out = torch.from_numpy(halves.alpha)
    choices = _decide(net, features[held_out], targets[held_out])
    return SearchedHead(
        layers=chosen_layers({each["mixture"]: each["chosen"] for each in choices}),
        epochs=tuple(epochs),
        choices=tuple(choices),
        collapsed=len(epochs) if has_collapsed(epochs[-1]["alpha"]) else 0,
    )


def chosen_layers(chosen: Mapping[str, str]) -> tuple[Layer, ...]:
    """The hidden layers of these decisions; a layer of identity is none."""
    decided = [(chosen[f"layer {k + 1} operation"], int(chosen[f"layer {k + 1} width"])) for k in range(LAYERS)]
    return tuple(Layer(width, operation) for operation, width in decided if operation != IDENTITY)


def has_collapsed(alpha: Mapping[str, Sequence[float]]) -> bool:
    """Whether identity, averaged over layers, has more than half of the weight."""
    shares = [alpha[each.name][each.options.index(IDENTITY)] for each in MIXTURES if each.kind == "operation"]
    return sum(shares) / len(shares) > COLLAPSE


def _relaxed_search(
    net: MixedHead,
    features: torch.Tensor,
    targets: torch.Tensor,
    halves: _Halves,
    should_stop: Callable[[], bool],
) -> list[dict[str, Any]]:
    """Train weights and alpha in turn; one record per epoch."""
    steps = math.ceil(len(halves.weights) / BATCH)
    count = min(math.ceil(STEPS / steps), MOST_EPOCHS)
    weight_solver = torch.optim.AdamW(net.parameters(), lr=WEIGHT_STEP, weight_decay=WEIGHT_DECAY)
    alpha_solver = torch.optim.Adam(net.alpha.values(), lr=ALPHA_STEP, betas=(0.5, 0.999), weight_decay=ALPHA_DECAY)
    records: list[dict[str, Any]] = []
    best, best_epoch, best_state = math.inf, 0, _state(net)
    for epoch in range(1, count + 1):
        if should_stop():
            raise OutOfTime(f"the search of the head was in epoch {epoch} of {count}")
        pressure = ENTROPY * max(0.0, 2 * epoch / count - 1)
        losses = []
        for own, other in zip(_batches(halves.weights, steps), _batches(halves.alpha, steps), strict=True):
            _step(alpha_solver, _loss(net, features[other], targets[other]) + pressure * _entropy(net.weights()))
            loss = _loss(net, features[own], targets[own])
            _step(weight_solver, loss)
            losses.append(float(loss.detach()))
        records.append(_record(net, epoch, losses, features[halves.alpha], targets[halves.alpha]))
        if records[-1]["val_loss"] < best:
            best, best_epoch, best_state = records[-1]["val_loss"], epoch, _state(net)
        if has_collapsed(records[-1]["alpha"]) or epoch - best_epoch >= PATIENCE:
            break
    _restore(net, best_state)
    return records


def _state(net: MixedHead) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Copies of weights and alpha."""
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return weights, {name: alpha.detach().clone() for name, alpha in net.alpha.items()}


def _restore(net: MixedHead, state: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> None:
    weights, alphas = state
    net.load_state_dict(weights)
    net.alpha = {name: alpha.requires_grad_() for name, alpha in alphas.items()}


def _step(solver: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    solver.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
    solver.step()


def _batches(rows: NDArray[np.int64], count: int) -> list[torch.Tensor]:
    """`count` batches that together hold each row once, in random order."""
    order = torch.from_numpy(rows)[torch.randperm(len(rows))]
    return [order[k::count] if len(order) >= count else order for k in range(count)]


def _loss(net: MixedHead, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(net(features, net.weights()), targets)


def _entropy(weights: Weights) -> torch.Tensor:
    """Mean entropy of the mixtures, in nats."""
    return torch.stack([torch.special.entr(each).sum() for each in weights.values()]).mean()


@torch.no_grad()
def _record(
    net: MixedHead, epoch: int, losses: Sequence[float], features: torch.Tensor, targets: torch.Tensor
) -> dict[str, Any]:
    weights = net.weights()
    val_loss, val_accuracy = _figures(net, weights, features, targets)
    return {
        "epoch": epoch,
        "train_loss": float(np.mean(losses)),
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "entropy": float(_entropy(weights)),
        "alpha": {name: each.tolist() for name, each in weights.items()},
    }


@torch.no_grad()
def _decide(net: MixedHead, features: torch.Tensor, targets: torch.Tensor) -> list[dict[str, Any]]:
    """Decide the mixtures one after another, each by the least loss with one of its options in place."""
    weights = net.weights()
    decisions = []
    for mixture in MIXTURES:
        alpha = weights[mixture.name].tolist()
        pure = torch.eye(len(mixture.options))
        figures = [_figures(net, {**weights, mixture.name: each}, features, targets) for each in pure]
        best = min(range(len(figures)), key=lambda k: figures[k][0])
        weights = {**weights, mixture.name: pure[best]}
        decisions.append(
            {
                "mixture": mixture.name,
                "options": list(mixture.options),
                "alpha": alpha,
                "loss": [loss for loss, _ in figures],
                "accuracy": [accuracy for _, accuracy in figures],
                "chosen": mixture.options[best],
            }
        )
    return decisions


def _figures(net: MixedHead, weights: Weights, features: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy."""
    scores = net.eval()(features, weights)
    net.train()
    return float(F.cross_entropy(scores, targets)), float((scores.argmax(dim=1) == targets).float().mean())
