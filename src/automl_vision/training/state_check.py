"""Whether a checkpoint can be gone on from: a file may be whole and still be of another network, or crafted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

#: Parts of a state that earlier versions did not write.
_LATER = frozenset({"so_far", "highest"})
#: What a group of parameters has whatever the version of torch.
_ALWAYS = ("params", "lr", "lr_scale", "weight_decay")
#: Parts of which a state has another shape than that of a training that has just begun.
_GROWS = frozenset({"recipe", "optimizer", "best", "validation_seconds", "finished"})


def misfit(
    state: Mapping[str, Any],
    own: Mapping[str, Any],
    parameters: Sequence[torch.Tensor],
    images: int,
    classes: int,
    endings: Sequence[str],
) -> str:
    """What of a state does not fit a training that has just begun; empty where all does.

    What is asked of a value that is not even of its type may raise what such a value raises.

    Args:
        state: as it was read from a file.
        own: what that training gives as its own state.
        parameters: those that are trained, in the order of the optimizer.
        images, classes: of the validation rows: shape of the probabilities of the best epoch.
        endings: what "finished" may say.
    """
    return next(_misfits(state, own, parameters, (images, classes), endings), "")


def _misfits(
    state: Mapping[str, Any],
    own: Mapping[str, Any],
    parameters: Sequence[torch.Tensor],
    shape: tuple[int, int],
    endings: Sequence[str],
) -> Iterator[str]:
    for name, value in own.items():
        if name not in state and name not in _LATER:
            yield f"{name} is missing"
        elif name in state and name not in _GROWS:
            yield from _unlike(state[name], value, name)
    yield from _of_optimizer(state["optimizer"], own["optimizer"], parameters)
    if state["best"] is not None:
        yield from _of_best(state["best"], own["classifier"], shape)
    if not (state["validation_seconds"] is None or _is_number(state["validation_seconds"])):
        yield "validation_seconds is no number"
    if state["finished"] not in endings:
        yield "finished is no ending"
    if not (state["epoch"] >= 0 and state["micro_batch"] >= 1):
        yield "epoch or micro_batch is out of range"


def _unlike(found: object, own: object, name: str) -> Iterator[str]:
    """Where something is not of the type and shape of what this program would write."""
    if isinstance(own, torch.Tensor):
        yield from _unlike_tensor(found, own, name)
    elif isinstance(own, Mapping):
        if not isinstance(found, Mapping):
            yield f"{name} holds no names"
            return
        if _are_tensors(own) and set(found) != set(own):
            yield f"{name} has other tensors"
            return
        for key, value in own.items():
            if key not in found:
                yield f"{key} is missing in {name}"
                return
            yield from _unlike(found[key], value, f"{name}.{key}")
    elif isinstance(own, list | tuple):
        if type(found) is not type(own) or len(found) != len(own):
            yield f"{name} is of another length"
            return
        for place, (each, value) in enumerate(zip(found, own, strict=True)):
            yield from _unlike(each, value, f"{name}.{place}")
    elif type(own) in (int, float):
        if not _is_number(found) or (type(own) is int and type(found) is not int):
            yield f"{name} is no number"
    elif type(found) is not type(own):
        yield f"{name} is of another type"


def _are_tensors(values: Mapping[str, Any]) -> bool:
    return bool(values) and all(isinstance(each, torch.Tensor) for each in values.values())


def _unlike_tensor(found: object, own: torch.Tensor, name: str) -> Iterator[str]:
    plain = isinstance(found, torch.Tensor) and found.layout == torch.strided and found.shape == own.shape
    if not plain or found.is_floating_point() != own.is_floating_point():  # type: ignore[attr-defined] # a tensor
        yield f"{name} is no tensor of {tuple(own.shape)}"


def _of_optimizer(
    found: Mapping[str, Any], own: Mapping[str, Any], parameters: Sequence[torch.Tensor]
) -> Iterator[str]:
    for group, ours in zip(found["param_groups"], own["param_groups"], strict=True):
        known = {name: value for name, value in ours.items() if name in group or name in _ALWAYS}
        yield from _unlike(group, known, "optimizer")  # other versions of torch have other options
    if [group["params"] for group in found["param_groups"]] != [group["params"] for group in own["param_groups"]]:
        yield "the optimizer is of other parameters"
    for place, kept in found["state"].items():
        if type(place) is not int or not 0 <= place < len(parameters):
            yield "the optimizer keeps something of a parameter that is not there"
            return
        for name, value in kept.items():
            if value is None or _is_number(value):
                continue
            wanted = (torch.Size(()), parameters[place].shape)
            if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.shape not in wanted:
                yield f"{name} of the optimizer does not fit parameter {place}"


def _of_best(found: Mapping[str, Any], weights: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> Iterator[str]:
    example = {"epoch": 1, "score": 0.0, "val_loss": 0.0, "weights": dict(weights), "probabilities": torch.zeros(shape)}
    if set(found) != set(example):
        yield "best is of other names"
        return
    yield from _unlike(found, example, "best")
    if not bool(torch.isfinite(found["probabilities"]).all()):
        yield "best.probabilities are not finite"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
