"""What `GET /about` tells of the model, from its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automl_vision import __version__
from automl_vision.bundle import Bundle, Network
from automl_vision.serving.limits import Limits
from automl_vision.visible import visible

_INTERVAL = ("value", "low", "high")


@dataclass(frozen=True)
class About:
    """The model in words and figures.

    Attributes:
        name: of the run that made it, or of the file.
        class_names: (C) classes.
        threshold: abstain below it.
        test: `n` and `accuracy`, `macro_f1` as {value, low, high}; None where the file carries none in order.
        networks: backbone, head, preprocessing, flip and share of each.
        created: when the model was made, as the file has it; None where it has not.
        limits: what is accepted.
    """

    name: str
    class_names: tuple[str, ...]
    threshold: float
    test: Mapping[str, Any] | None
    networks: tuple[Mapping[str, Any], ...]
    created: str | None
    limits: Limits

    def as_json(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "name": self.name,
            "classes": list(self.class_names),
            "threshold": self.threshold,
            "test": self.test,
            "networks": list(self.networks),
            "created": self.created,
            "limits": asdict(self.limits),
            "version": __version__,
        }


def about(bundle: Bundle, path: Path, threshold: float, limits: Limits) -> About:
    """What is known of a model file.

    Args:
        bundle: what it holds; its provenance is of unknown origin.
        path: where it is.
        threshold: abstain below it.
        limits: what is accepted.
    """
    created = bundle.provenance.get("created")
    return About(
        name=visible(_name(path)),
        class_names=bundle.class_names,
        threshold=threshold,
        test=_test(bundle.provenance.get("test")),
        networks=tuple(_network(each) for each in bundle.networks),
        created=created if isinstance(created, str) else None,
        limits=limits,
    )


def _name(path: Path) -> str:
    """A run leaves `runs/NAME/model.pt`; any other file goes by its own name."""
    whole = path.absolute()
    return whole.parent.name if whole.name == "model.pt" and whole.parent.name else whole.stem


def _network(network: Network) -> dict[str, Any]:
    return {
        "backbone": network.backbone,
        "head": network.head,
        "preprocessing": network.preprocessing.to_dict(),
        "flip": network.flip,
        "share": network.share,
    }


def _test(figures: object) -> dict[str, Any] | None:
    if not isinstance(figures, Mapping) or type(figures.get("n")) is not int or figures["n"] < 1:
        return None
    measured = {name: _interval(figures.get(name)) for name in ("accuracy", "macro_f1")}
    return {"n": figures["n"], **measured} if measured["accuracy"] else None


def _interval(figure: object) -> dict[str, float] | None:
    if not isinstance(figure, Mapping):
        return None
    values = [figure.get(key) for key in _INTERVAL]
    if not all(isinstance(each, float | int) and 0 <= each <= 1 for each in values):
        return None
    return {key: float(value) for key, value in zip(_INTERVAL, values, strict=True) if value is not None}
