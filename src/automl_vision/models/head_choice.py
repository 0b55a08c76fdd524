"""Whether another head than the linear one pays, on frozen features: found, trained, compared, and kept only then.

The comparison is paired: linear head and candidate predict the same held-out images, in repeated stratified folds that
keep groups whole. The candidate is adopted where it is right more often by more than one standard error; the error
treats groups, not images, as independent, and allows for training sets that overlap. What the candidate is was decided
on the same images, a few decisions in all, which makes the comparison a little kind to it; docs/LOG.md has how often it
was adopted where nothing was to be gained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from automl_vision.models.darts import SearchedHead, search_head
from automl_vision.models.features import OutOfTime
from automl_vision.models.heads import LINEAR, Layer, build_mlp, describe_head
from automl_vision.models.probe import Rotated, deal_folds, held_out_probabilities, rotate

#: The head that "mlp" tries.
MLP: tuple[Layer, ...] = (Layer(256, "gelu"),)
FOLDS, REPEATS = 5, 2
#: Folds share most of what they are trained on, so their errors are not independent: the variance of their mean is not
#: 1 / k but 1 / k + 1 / (k - 1) of theirs (Nadeau and Bengio, "Inference for the Generalization Error", 2003).
OVERLAP = math.sqrt(1 + FOLDS / (FOLDS - 1))

#: Principal directions that a head sees: what holds this share of the variance, and no more than so many.
VARIANCE, MOST_DIRECTIONS = 0.995, 512
BATCH = 64
STEPS, MOST_EPOCHS = 400, 100
#: Chosen on features of two data sets, see docs/LOG.md.
STEP, DECAY, DROPOUT = 1e-3, 0.5, 0.5


@dataclass(frozen=True)
class HeadChoice:
    """The outcome for one set of features.

    Attributes:
        candidate: description of the head that was tried; "linear" where the search itself ended there, "" where it
            was cut short.
        adopted: whether it replaces the linear head.
        reason: one sentence.
        module: (B, D) raw features to (B, C); None where it was not adopted.
        comparison: linear, candidate (accuracy on held-out images; balanced over classes where that is the objective),
            gain, standard_error, folds, repeats; None where it did not come to one.
        search: what DARTS recorded; None without a search.
    """

    candidate: str
    adopted: bool
    reason: str
    module: nn.Module | None = None
    comparison: dict[str, Any] | None = None
    search: SearchedHead | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; without the weights."""
        return {
            "candidate": self.candidate,
            "adopted": self.adopted,
            "reason": self.reason,
            "comparison": self.comparison,
            "search": self.search.to_dict() if self.search else None,
        }


@dataclass(frozen=True)
class _Task:
    """What every step works on: scores (n, r), targets (n), and the rest of the arguments of `choose_head`."""

    rotated: Rotated
    targets: torch.Tensor
    groups: NDArray[np.int64]
    num_classes: int
    strength: float
    balanced: bool
    seed: int
    should_stop: Callable[[], bool]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.targets.numpy()


def choose_head(
    kind: str,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    num_classes: int,
    *,
    strength: float,
    balanced: bool = False,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> HeadChoice:
    """Try another head on these features.

    Args:
        kind: a name of `HEAD_KINDS`.
        features: (n, D) finite, raw.
        labels: (n) class indices below `num_classes`.
        groups: (n) rows of one group are held out together.
        num_classes: C >= 2.
        strength: penalty of the linear head, as `fit_probe` chose it.
        balanced: every class counts the same, whatever its number of images.
        seed: decides every random draw.
        should_stop: asked before every epoch; where it says so, the linear head stays.
    """
    rotated = _leading(rotate(features))
    task = _Task(rotated, torch.from_numpy(labels), groups, num_classes, strength, balanced, seed, should_stop)
    if len(np.unique(groups)) < FOLDS:
        return HeadChoice("", adopted=False, reason="linear kept: there are too few groups to compare heads on")
    candidate, search = "", None
    try:
        layers, search = HEAD_KINDS[kind](task)
        candidate = describe_head(layers)
        return _judged(task, layers, search)
    except OutOfTime as error:
        return HeadChoice(candidate, adopted=False, reason=f"linear kept: time was over ({error})", search=search)


def _fixed(_task: _Task) -> tuple[tuple[Layer, ...], None]:
    return MLP, None


def _searched(task: _Task) -> tuple[tuple[Layer, ...], SearchedHead]:
    found = search_head(
        task.rotated.scores,
        task.labels,
        task.groups,
        task.num_classes,
        seed=task.seed,
        should_stop=task.should_stop,
    )
    return found.layers, found


#: What `search.head` may try besides the linear head.
HEAD_KINDS: dict[str, Callable[[_Task], tuple[tuple[Layer, ...], SearchedHead | None]]] = {
    "mlp": _fixed,
    "darts": _searched,
}


def _judged(task: _Task, layers: tuple[Layer, ...], search: SearchedHead | None) -> HeadChoice:
    candidate = describe_head(layers)
    if candidate == LINEAR:
        return HeadChoice(LINEAR, adopted=False, reason="linear kept: the search ended at it", search=search)
    comparison = compare_with_linear(task, layers)
    adopted = comparison["gain"] > comparison["standard_error"]
    figures = (
        f"{candidate} {comparison['candidate']:.4f} against linear {comparison['linear']:.4f} on held-out images, "
        f"standard error of the difference {comparison['standard_error']:.4f}"
    )
    return HeadChoice(
        candidate,
        adopted=adopted,
        reason=f"{candidate if adopted else 'linear'} {'adopted' if adopted else 'kept'}: {figures}",
        module=_final(task, layers) if adopted else None,
        comparison=comparison,
        search=search,
    )


def compare_with_linear(task: _Task, layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Both heads on the same held-out images; a first round that the candidate loses is the last."""
    rows = len(task.targets)
    linear, candidate = np.zeros(rows), np.zeros(rows)
    for repeat in range(1, REPEATS + 1):
        fold = deal_folds(task.labels, task.groups, FOLDS, task.seed + repeat)
        held_out = held_out_probabilities(task.rotated, task.labels, fold, task.num_classes, task.strength)
        linear += held_out.argmax(axis=1) == task.labels
        candidate += _held_out_predictions(task, layers, fold) == task.labels
        gain, independent = paired_gain((candidate - linear) / repeat, _row_weights(task), task.groups)
        if gain <= 0:
            break
    weights = _row_weights(task)
    return {
        "linear": float(np.average(linear / repeat, weights=weights)),
        "candidate": float(np.average(candidate / repeat, weights=weights)),
        "gain": gain,
        "standard_error": OVERLAP * independent,
        "folds": int(fold.max()) + 1,
        "repeats": repeat,
    }


def paired_gain(
    differences: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Weighted mean of (n) differences, and its standard error: groups are independent, rows of one are not."""
    gain = float(np.average(differences, weights=weights))
    _, group_of = np.unique(groups, return_inverse=True)
    sums = np.bincount(group_of, weights=weights * (differences - gain))
    count = len(sums)
    return gain, float(np.sqrt((sums**2).sum() * count / max(count - 1, 1)) / weights.sum())


def _row_weights(task: _Task) -> NDArray[np.float64]:
    if not task.balanced:
        return np.ones(len(task.targets))
    counts = np.bincount(task.labels, minlength=task.num_classes)
    return np.asarray(1.0 / counts[task.labels], dtype=np.float64)


def _held_out_predictions(task: _Task, layers: tuple[Layer, ...], fold: NDArray[np.int64]) -> NDArray[np.int64]:
    predicted = np.zeros(len(fold), dtype=np.int64)
    for k in range(int(fold.max()) + 1):
        net = _trained(task, layers, np.flatnonzero(fold != k), task.seed + k)
        with torch.no_grad():
            predicted[fold == k] = net(task.rotated.scores[fold == k]).argmax(dim=1).numpy()
    return predicted


def _trained(task: _Task, layers: tuple[Layer, ...], rows: NDArray[np.int64], seed: int) -> nn.Sequential:
    """A head on scores, trained on these rows, in evaluation mode.

    Raises:
        OutOfTime: `should_stop` said so.
    """
    steps = math.ceil(len(rows) / BATCH)
    epochs = min(math.ceil(STEPS / steps), MOST_EPOCHS)
    features, targets = task.rotated.scores[rows], task.targets[rows]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_mlp(layers, features.shape[1], task.num_classes)
        solver = torch.optim.AdamW(net.parameters(), lr=STEP, weight_decay=DECAY)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(solver, epochs * steps)
        for epoch in range(1, epochs + 1):
            if task.should_stop():
                raise OutOfTime(f"a head was in epoch {epoch} of {epochs}")
            for batch in torch.randperm(len(rows)).tensor_split(steps):
                loss = F.cross_entropy(_with_dropout(net, features[batch]), targets[batch])
                solver.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
                solver.step()
                rate.step()
    return net.eval()


def _with_dropout(net: nn.Sequential, features: torch.Tensor) -> torch.Tensor:
    """Scores with dropout after every hidden layer, which a trained head does without."""
    for module in net[:-1]:
        features = module(features)
        if not isinstance(module, nn.Linear):
            features = F.dropout(features, DROPOUT)
    scores: torch.Tensor = net[len(net) - 1](features)
    return scores


def _final(task: _Task, layers: tuple[Layer, ...]) -> nn.Sequential:
    """The head trained on all rows, its first layer folded so that it takes raw features."""
    net = _trained(task, layers, np.arange(len(task.targets)), task.seed)
    weights = net.state_dict()
    weight, bias = task.rotated.fold_in(torch.cat([weights["0.weight"].T, weights["0.bias"][None]]))
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced at once
        whole = build_mlp(layers, weight.shape[1], task.num_classes)
    whole.load_state_dict({**weights, "0.weight": torch.from_numpy(weight), "0.bias": torch.from_numpy(bias)})
    return whole.eval()


def _leading(rotated: Rotated) -> Rotated:
    """The principal directions that hold `VARIANCE`, at most `MOST_DIRECTIONS`; the last columns have the most."""
    variances = rotated.scores.double().square().sum(dim=0)
    needed = int((variances.flip(0).cumsum(0) < VARIANCE * variances.sum()).sum()) + 1
    kept = min(needed, MOST_DIRECTIONS, len(variances))
    return Rotated(rotated.scores[:, -kept:], rotated.basis[:, -kept:], rotated.mean, rotated.std)
