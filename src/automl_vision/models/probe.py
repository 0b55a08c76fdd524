"""Linear probe: multinomial logistic regression on frozen features, penalty chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.main_memory import available_memory

#: L2 penalties that are tried: the objective is mean cross-entropy + strength / 2 * |weight|^2, with the
#: weight on standardised features (see `Rotated`).
STRENGTHS: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

#: Bytes that fitting takes: per row, class and problem (a fold, or the fit on all rows); and per direction of the
#: features, class and problem, which the solver keeps some thirty times over. Measured: 28 to 40, and 16 to 27 times.
ROW_BYTES, DIRECTION_BYTES = 40, 30 * 4
#: As many problems are solved at once as fit into this share of the memory that is free, or one at a time; where not
#: even one fits into the second share, there is no probe.
MEMORY, MOST_MEMORY = 0.5, 0.8
#: Iterations per penalty at most, in rounds between which the time is looked at.
_ROUNDS, _ITERATIONS = 6, 10
#: No feature is divided by less than the standard deviation that this share of them stays below. Nearly constant ones
#: would else get weights a thousand times as large, which fit noise, and which a fine-tune that starts with them cannot
#: follow: the first step of the backbone moves the scores by more than they are worth (docs/LOG.md).
_SPREAD_OF_MOST = 0.75
#: Directions with less than this share of the largest variance are noise of the arithmetic.
_RANK_TOLERANCE = 1e-8


class NoRoom(MemoryError):
    """Not even one problem fits into the memory that is free."""


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier on raw (not standardised) features.

    Attributes:
        weight: (C, D) float32.
        bias: (C) float32.
        strength: the chosen penalty, one of `strengths`.
        strengths: the penalties that were tried, ascending.
        cv_log_loss: mean held-out log loss of each.
        cv_accuracy: held-out accuracy of each.
        out_of_fold: (n, C) float32, probabilities from models that did not see the row's group.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    strengths: tuple[float, ...]
    cv_log_loss: tuple[float, ...]
    cv_accuracy: tuple[float, ...]
    out_of_fold: NDArray[np.float32]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(m, D) features to (m, C) probabilities."""
        scores = torch.from_numpy(features @ self.weight.T + self.bias)
        return scores.softmax(dim=1).numpy()


@dataclass(frozen=True)
class Rotated:
    """Standardised features in the basis of their principal directions; exact under an L2 penalty.

    scores (n, r) = (features - mean) / std @ basis; basis (D, r) has orthonormal columns, r <= min(n - 1, D).
    Features that hardly vary have the std (D) of those that do.
    """

    scores: torch.Tensor
    basis: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def fold_in(self, solution: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A linear map of scores, (r + 1, C) with the bias last, as weight (C, D) and bias (C) on raw features."""
        weight = (self.basis @ solution[:-1].double()).T / self.std
        bias = solution[-1].double() - weight @ self.mean
        return weight.float().numpy(), bias.float().numpy()


@dataclass(frozen=True)
class _Fit:
    """One penalty: held-out figures, solution (r + 1, C) on all rows, held-out log probabilities (n, C)."""

    strength: float
    log_loss: float
    accuracy: float
    solution: torch.Tensor
    held_out: torch.Tensor


def fit_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    num_classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
) -> Probe:
    """Fit one linear classifier; among the penalties, the least held-out log loss wins.

    Penalties are tried from strong to weak until one is worse than the one before: the loss has one minimum, and
    the weakest penalties take longest.

    Args:
        features: (n, D) finite.
        labels: (n) class indices below `num_classes`.
        groups: (n) rows of one group are held out together; where all are one group, rows are held out singly.
        num_classes: C >= 2; classes may be absent.
        strengths: penalties > 0.
        folds: of the cross-validation; fewer where there are fewer groups.
        repeats: how often groups are dealt to folds; held-out probabilities are the mean over them. On few rows one
            deal is a matter of luck.
        seed: deals the groups to folds.
        should_stop: asked every few iterations; where it says so, what there is by then is the probe.

    Raises:
        ValueError: features that are not finite, or fewer than two rows.
        NoRoom: there is no memory for it.
    """
    if not np.isfinite(features).all():
        raise ValueError("features must be finite")
    one_group = len(np.unique(groups)) == 1  # the penalty is then chosen too weak, but there is a probe
    kept_together = np.arange(len(labels)) if one_group else groups
    dealt = [deal_folds(labels, kept_together, folds, seed + repeat) for repeat in range(repeats)]
    rotated = rotate(features)
    targets, folded = torch.from_numpy(labels), torch.from_numpy(np.stack(dealt))
    fits = _sweep(rotated.scores, targets, folded, strengths, num_classes, should_stop or _never)
    best = min(fits.values(), key=lambda fit: fit.log_loss)
    weight, bias = rotated.fold_in(best.solution)
    return Probe(
        weight=weight,
        bias=bias,
        strength=best.strength,
        strengths=tuple(sorted(fits)),
        cv_log_loss=tuple(fits[each].log_loss for each in sorted(fits)),
        cv_accuracy=tuple(fits[each].accuracy for each in sorted(fits)),
        out_of_fold=best.held_out.exp().numpy(),
    )


def _sweep(
    scores: torch.Tensor,
    targets: torch.Tensor,
    folds: torch.Tensor,
    strengths: Sequence[float],
    num_classes: int,
    should_stop: Callable[[], bool],
) -> dict[float, _Fit]:
    """One fit per penalty, from strong to weak, each starting from the one before; ends after the least loss.

    `folds` is (R, n): the fold of each row in each of R deals.
    """
    held_out = torch.stack([fold == k for fold in folds for k in range(int(fold.max()) + 1)])
    # One problem per fold and one on all rows, solved together: they share every matrix product.
    seen = torch.cat([~held_out, torch.ones(1, len(targets), dtype=torch.bool)]).float()
    solution = torch.zeros(len(seen), scores.shape[1] + 1, num_classes)
    fits: dict[float, _Fit] = {}
    for strength in sorted(strengths, reverse=True):
        before = min((fit.log_loss for fit in fits.values()), default=math.inf)
        solution = _solve_in_parts(scores, targets, seen, strength, start=solution, should_stop=should_stop)
        predicted = _held_out_log_probabilities(scores, solution, held_out, len(folds))
        fits[strength] = _Fit(strength, *_figures(predicted, targets), solution[-1], predicted)
        if fits[strength].log_loss > before or should_stop():
            break
    return fits


def fit_linear(
    features: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int, strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (C, D) and bias (C) of one probe with a given penalty, for raw features.

    Args:
        features: (n, D) finite.
        labels: (n) class indices below `num_classes`.
        num_classes: C.
        strength: penalty > 0.

    Raises:
        NoRoom: there is no memory for it.
    """
    rotated = rotate(features)
    seen = torch.ones(1, len(labels))
    start = torch.zeros(1, rotated.scores.shape[1] + 1, num_classes)
    targets = torch.from_numpy(labels)
    return rotated.fold_in(_solve_in_parts(rotated.scores, targets, seen, strength, start=start, should_stop=_never)[0])


def held_out_probabilities(
    rotated: Rotated, labels: NDArray[np.int64], fold: NDArray[np.int64], num_classes: int, strength: float
) -> NDArray[np.float32]:
    """(n, C): what a probe of this penalty says of each row, fitted to the other folds.

    Args:
        rotated: all n rows.
        labels: (n) class indices below `num_classes`.
        fold: (n) as `deal_folds` gives it.
        num_classes: C.
        strength: penalty > 0.

    Raises:
        NoRoom: there is no memory for it.
    """
    targets, folded = torch.from_numpy(labels), torch.from_numpy(fold)
    fits = _sweep(rotated.scores, targets, folded[None], [strength], num_classes, _never)
    return fits[strength].held_out.exp().numpy()


def _never() -> bool:
    return False


def deal_folds(labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """(n) fold of each row: no group straddles, and every class is spread as evenly as groups allow.

    Raises:
        ValueError: fewer than two groups.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((group_of.max(initial=-1) + 1, labels.max(initial=0) + 1), dtype=np.int64)
    np.add.at(counts, (group_of, labels), 1)
    if len(counts) < 2:
        raise ValueError(f"cross-validation needs at least two groups, got {len(counts)}")
    dealt = np.zeros((min(folds, len(counts)), counts.shape[1]), dtype=np.int64)
    fold_of_group = np.zeros(len(counts), dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    # Large groups first: small ones can still even out what they leave uneven.
    for group in shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]:
        own = counts[group] > 0
        crowding = dealt[:, own].sum(axis=1) + dealt.sum(axis=1) / (dealt.sum() + 1)
        fold_of_group[group] = np.argmin(crowding)
        dealt[fold_of_group[group]] += counts[group]
    return _without_gaps(fold_of_group)[group_of]


def _without_gaps(folds: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(folds, return_inverse=True)[1].astype(np.int64)


def rotate(features: NDArray[np.float32]) -> Rotated:
    """(n, D) features, standardised, in the basis of their principal directions, least variance first."""
    raw = torch.from_numpy(features).double()
    mean, std = raw.mean(dim=0), raw.std(dim=0, correction=0)
    std = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.zeros_like(std))
    std = std.clamp_min(float(torch.quantile(std, _SPREAD_OF_MOST)))
    std = torch.where(std > 0, std, torch.ones_like(std))
    standard = (raw - mean) / std
    wide = standard.shape[0] <= standard.shape[1]
    gram = standard @ standard.T if wide else standard.T @ standard
    variances, directions = torch.linalg.eigh(gram)
    kept = variances > _RANK_TOLERANCE * variances.max().clamp_min(1e-300)
    directions = directions[:, kept]
    basis = standard.T @ directions / variances[kept].sqrt() if wide else directions
    return Rotated((standard @ basis).float(), basis, mean, std)


def most_rows(dims: int, num_classes: int, problems: int) -> float:
    """Rows of which so many problems can be solved at once; infinity where nobody tells what memory is free.

    Args:
        dims: of their features.
        num_classes: C.
        problems: folds, and the fit on all rows.
    """
    free = available_memory()
    if free is None:
        return math.inf
    each = MEMORY * free / (num_classes * problems)
    rows = (each - DIRECTION_BYTES * (dims + 1)) / ROW_BYTES
    if rows >= dims:
        return rows
    # Of fewer rows than features there are no more directions than rows.
    return max((each - DIRECTION_BYTES) / (ROW_BYTES + DIRECTION_BYTES), 0.0)


def _at_once(rows: int, directions: int, num_classes: int, problems: int) -> int:
    """How many of these problems can be solved at once.

    Raises:
        NoRoom: not even one.
    """
    free, one = available_memory(), num_classes * (ROW_BYTES * rows + DIRECTION_BYTES * (directions + 1))
    if free is None:
        return problems
    if one > MOST_MEMORY * free:
        raise NoRoom(
            f"a linear head of {num_classes:,} classes on {rows:,} images takes {one / 1e9:.1f} GB of memory, "
            f"and {free / 1e9:.1f} GB are free"
        )
    return min(problems, max(int(MEMORY * free / one), 1))


def _solve_in_parts(
    scores: torch.Tensor,
    targets: torch.Tensor,
    seen: torch.Tensor,
    strength: float,
    *,
    start: torch.Tensor,
    should_stop: Callable[[], bool],
) -> torch.Tensor:
    """As `_solve`, as many problems at once as there is memory for: all of them as a rule.

    Raises:
        NoRoom: not even one fits.
    """
    rows, directions = scores.shape
    at_once = _at_once(rows, directions, start.shape[2], len(seen))
    firsts = range(0, len(seen), at_once)
    parts = ((seen[first : first + at_once], start[first : first + at_once]) for first in firsts)
    solved = [_solve(scores, targets, own, strength, start=begun, should_stop=should_stop) for own, begun in parts]
    return torch.cat(solved)


def _solve(
    scores: torch.Tensor,
    targets: torch.Tensor,
    seen: torch.Tensor,
    strength: float,
    *,
    start: torch.Tensor,
    should_stop: Callable[[], bool],
) -> torch.Tensor:
    """Minimise P logistic regressions at once with L-BFGS.

    Args:
        scores: (n, r) uncorrelated columns.
        targets: (n) class indices.
        seen: (P, n) weight of each row in each problem.
        strength: penalty on all but the last row of a solution, which is the bias.
        start: (P, r + 1, C).
        should_stop: asked between rounds of iterations.

    Returns:
        (P, r + 1, C).
    """
    n, rank = scores.shape
    inputs = torch.cat([scores, torch.ones(n, 1)], dim=1)
    penalty = torch.full((rank + 1, 1), strength)
    penalty[-1] = 0.0
    # Columns are uncorrelated, so that Boehning's bound on the curvature, 1/2 X'X, is a diagonal: scaled by
    # it, all directions are about equally steep.
    scale = (0.5 * inputs.square().mean(dim=0).unsqueeze(1) + penalty).rsqrt()
    shares = seen / seen.sum(dim=1, keepdim=True)
    scaled = (start / scale).requires_grad_()
    solver = torch.optim.LBFGS(
        [scaled],
        max_iter=_ITERATIONS,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        solution = scaled * scale
        losses = -_log_probabilities(inputs, solution).gather(2, targets.view(1, -1, 1).expand(len(seen), -1, 1))
        total = (losses.squeeze(2) * shares).sum() + 0.5 * (penalty * solution.square()).sum()
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return total

    for done in range(1, _ROUNDS + 1):
        solver.step(loss)  # type: ignore[no-untyped-call]  # as above
        converged = solver.state[scaled]["n_iter"] < done * _ITERATIONS
        if converged or should_stop():
            break
    return (scaled * scale).detach()


def _log_probabilities(inputs: torch.Tensor, solution: torch.Tensor) -> torch.Tensor:
    """(n, r + 1) inputs and (P, r + 1, C) solutions to (P, n, C)."""
    problems, rank, classes = solution.shape
    flat = inputs @ solution.permute(1, 0, 2).reshape(rank, problems * classes)
    return flat.view(-1, problems, classes).permute(1, 0, 2).log_softmax(dim=2)


def _held_out_log_probabilities(
    scores: torch.Tensor, solution: torch.Tensor, held_out: torch.Tensor, repeats: int
) -> torch.Tensor:
    """(n, C): each row from the problems that did not see it, one per repeat; the mean of their probabilities."""
    inputs = torch.cat([scores, torch.ones(len(scores), 1)], dim=1)
    total = torch.full((len(scores), solution.shape[2]), -math.inf)
    for own, rows in zip(solution[:-1], held_out, strict=True):  # one after the other, for the memory
        total[rows] = total[rows].logaddexp(_log_probabilities(inputs[rows], own[None])[0])
    return total - math.log(repeats)


def _figures(predicted: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    log_loss = -predicted.gather(1, targets.unsqueeze(1)).mean()
    return float(log_loss), float((predicted.argmax(dim=1) == targets).float().mean())
