"""Optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from automl_vision.models.backbones import layer_scales, undecayed
from automl_vision.models.classifier import Classifier
from automl_vision.training.recipe import Recipe

Groups = list[dict[str, Any]]


def _adamw(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, lr=recipe.learning_rate, betas=(recipe.momentum, 0.999), weight_decay=0.0, fused=True
    )


def _adam(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay is a part of the gradient here (L2), and shrinks with it."""
    return torch.optim.Adam(
        groups, lr=recipe.learning_rate, betas=(recipe.momentum, 0.999), weight_decay=0.0, fused=True
    )


def _sgd(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=0.0,
        fused=True,
    )


#: name -> (parameter groups with their own `weight_decay`, recipe) -> optimizer.
OPTIMIZERS: dict[str, Callable[[Groups, Recipe], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
}


#: name -> tensors of the size of a weight that the optimizer keeps for it.
KEPT_PER_WEIGHT = {"adamw": 2, "adam": 2, "sgd": 1}


def make_optimizer(classifier: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; every group carries `lr_scale`, its factor on the scheduled learning rate."""
    return OPTIMIZERS[recipe.optimizer](parameter_groups(classifier, recipe), recipe)


def parameter_groups(classifier: Classifier, recipe: Recipe) -> Groups:
    """Parameters that are trained, by (learning-rate factor, weight decay).

    The head has factor 1, each layer below it `layer_decay` times that of the one above. Biases, norm layers
    and what the backbone itself exempts have no weight decay.
    """
    scales = layer_scales(classifier.backbone, recipe.layer_decay)
    exempt = undecayed(classifier.backbone)
    members: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    trained = [(name, each) for name, each in classifier.named_parameters() if each.requires_grad]
    for name, parameter in trained:
        inner = name.removeprefix("backbone.")
        scale = scales[inner] if name.startswith("backbone.") else 1.0
        decays = parameter.ndim > 1 and inner not in exempt
        members.setdefault((scale, recipe.weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in members.items()
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
