"""`model.pt`: one file with everything a prediction needs, and nothing that could run.

    {magic, version, meta: JSON text, state_dict, others: {name: state_dict} (may be missing),
     fingerprint: tensors (may be missing)}

`meta` says what the networks are, how images are prepared, what the outputs mean and where the model came from. The
loader believes none of it: types and ranges are checked, the architecture must be one that timm knows, names, shapes
and dtypes of the tensors must be those of that architecture, and a digest over the tensors catches flipped bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.calibration import apply_temperature
from automl_vision.data.fingerprint import Fingerprint, Marks
from automl_vision.data.manifest import is_class_name
from automl_vision.data.preprocess import Preprocessing
from automl_vision.errors import ModelFileError, UsageError
from automl_vision.models.classifier import Classifier, build_classifier, empty_classifier, fill, placed
from automl_vision.models.ensemble import MOST_NETWORKS, Ensemble, Voter
from automl_vision.models.heads import is_head
from automl_vision.runtime import Runtime
from automl_vision.tensor_file import load_tensors, save_tensors

MAGIC = "automl-vision model"
#: 1 had no fingerprint, 2 no head but the linear one, 3 one network, one view and no class bias, 4 no images that were
#: decoded at a fraction, 5 no networks that see the middles of images.
VERSION = 6
_NAME = re.compile(r"[a-zA-Z0-9_.]{1,100}")
_DTYPES = {torch.float32, torch.float16, torch.bfloat16, torch.int64}
#: What a description that makes no sense, or an architecture built from one, can raise.
_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,  # RecursionError and what torch raises
    MemoryError,
    UsageError,
)
_KEYS = {"magic", "version", "meta", "state_dict"}
_MAY_BE_MISSING = {"fingerprint", "others"}
#: Logit adjustment adds less than this to a class, whatever its frequency.
_LARGEST_BIAS = 100.0
#: What the arithmetic of floats may add to shares that sum to 1.
_ROUNDING = 1e-6
#: Tensors of a fingerprint: 64-bit numbers, sorted as unsigned ones, each once.
_MARKS = {f"{name}_{kind}" for name in ("seen", "test") for kind in ("digests", "hashes")}
_DAMAGED = "copy the file again from where it was made"


@dataclass(frozen=True)
class Network:
    """One network of a model file.

    Attributes:
        backbone: name of the architecture (a name of `models.backbones.BACKBONES` or of timm).
        head: a description of `models.heads`, from which it is rebuilt.
        preprocessing: how an image becomes its input.
        state_dict: the weights.
        flip: whether it also sees every image mirrored; its vote is the mean of both.
        share: of the votes, in (0, 1].
    """

    backbone: str
    head: str
    preprocessing: Preprocessing
    state_dict: Mapping[str, torch.Tensor]
    flip: bool = False
    share: float = 1.0

    def classifier(self, num_classes: int) -> Classifier:
        """The network with its weights, on the CPU, in evaluation mode."""
        size = self.preprocessing.size
        net = empty_classifier(self.backbone, num_classes, resolution=size, head=self.head, state=self.state_dict)
        if not fill(net, self.state_dict):
            net = build_classifier(self.backbone, num_classes, resolution=size, head=self.head)
            net.load_state_dict(dict(self.state_dict))
        return net.eval()


@dataclass(frozen=True)
class Bundle:
    """A classifier ready to use. The mean vote of its networks, as log-probabilities, gets the class bias added and is
    divided by the temperature; the softmax of that are the probabilities.

    Attributes:
        backbone, head, preprocessing, state_dict, flip, share: of the first network, see `Network`.
        class_names: (C) what the outputs mean, in order.
        temperature: > 0.
        provenance: where the model came from: data fingerprint, validation and test figures, versions, looks at the
            test set. Plain types only.
        fingerprint: digests of the images it was made with; None where they were left out, and in files of version 1.
        others: the other networks of an ensemble; the shares of all sum to 1.
        class_bias: (C) what logit adjustment adds; empty where there is none.
    """

    backbone: str
    head: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    state_dict: Mapping[str, torch.Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None
    flip: bool = False
    share: float = 1.0
    others: tuple[Network, ...] = ()
    class_bias: tuple[float, ...] = ()

    @property
    def networks(self) -> tuple[Network, ...]:
        """All networks, the first one first."""
        first = Network(self.backbone, self.head, self.preprocessing, self.state_dict, self.flip, self.share)
        return (first, *self.others)

    def ensemble(self, runtime: Runtime) -> Ensemble:
        """The networks with their weights, on the device of `runtime`."""
        return voting(self.networks, len(self.class_names), runtime)

    def probabilities(self, log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, C) what the model says, from the mean vote of its networks."""
        if not len(log_probabilities):
            return np.empty((0, len(self.class_names)))
        biased = log_probabilities + np.array(self.class_bias) if self.class_bias else log_probabilities
        return apply_temperature(biased, self.temperature)


def voting(networks: Sequence[Network], num_classes: int, runtime: Runtime) -> Ensemble:
    """Networks with their weights, on the device of `runtime`."""
    voters = (
        Voter(placed(each.classifier(num_classes), runtime.device), each.preprocessing, each.flip, each.share)
        for each in networks
    )
    return Ensemble(tuple(voters), runtime)


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write `bundle` as one file, atomically.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    states = [_plain(network.state_dict) for network in bundle.networks]
    described = [_description(*pair) for pair in zip(bundle.networks, states, strict=True)]
    meta = {
        **described[0],
        "class_names": list(bundle.class_names),
        "temperature": bundle.temperature,
        "class_bias": list(bundle.class_bias),
        "provenance": dict(bundle.provenance),
        "others": described[1:],
    }
    tensors: dict[str, Any] = {"state_dict": states[0]}
    if bundle.others:
        tensors["others"] = {str(place): state for place, state in enumerate(states[1:])}
    if bundle.fingerprint is not None:
        tensors["fingerprint"] = _as_tensors(bundle.fingerprint)
        meta["fingerprint_digest"] = digest(tensors["fingerprint"])
    text = json.dumps(meta, ensure_ascii=True, allow_nan=False)
    save_tensors(path, {"magic": MAGIC, "version": VERSION, "meta": text, **tensors})


def _plain(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}


def _description(network: Network, state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "backbone": network.backbone,
        "head": network.head,
        "preprocessing": network.preprocessing.to_dict(),
        "flip": network.flip,
        "share": network.share,
        "digest": digest(state_dict),
    }


def load_bundle(path: Path) -> Bundle:
    """Read a model file, believing nothing in it.

    Raises:
        ModelFileError: the file is missing, damaged, foreign, newer than this version, or its weights do not belong
            to the architecture it names.
    """
    if _is_missing(path):
        raise ModelFileError(
            "there is no model file", value=str(path), fix="check the path; a run leaves it as model.pt"
        )
    content = load_tensors(path)
    if set(content) - _MAY_BE_MISSING != _KEYS or not _equals(content["magic"], MAGIC):
        raise ModelFileError("this is no automl-vision model", value=str(path), fix="use the model.pt of a run")
    _check_version(content["version"], path)
    try:
        meta = json.loads(_checked(content["meta"], str, lambda _: True, "meta"))
        bundle = _bundle(_checked(meta, dict, lambda _: True, "meta"), content["state_dict"], content.get("others", {}))
        return replace(bundle, fingerprint=_fingerprint(content.get("fingerprint"), meta.get("fingerprint_digest")))
    except _FAULTS as error:
        raise ModelFileError(f"the model file is damaged ({_brief(error)})", value=str(path), fix=_DAMAGED) from error


def _as_tensors(fingerprint: Fingerprint) -> dict[str, torch.Tensor]:
    """torch can store signed 64-bit numbers only: the same bits."""
    marks = {"seen": fingerprint.seen, "test": fingerprint.test}
    numbers = {f"{name}_{kind}": getattr(each, kind) for name, each in marks.items() for kind in ("digests", "hashes")}
    return {name: torch.from_numpy(each.view(np.int64).copy()) for name, each in numbers.items()}


def _fingerprint(tensors: Any, expected_digest: object) -> Fingerprint | None:
    """The fingerprint of a file; None where it has none. Anything out of order raises."""
    if tensors is None and expected_digest is None:
        return None
    _checked(tensors, dict, lambda each: set(each) == _MARKS, "fingerprint")
    numbers = {name: _numbers(name, tensor) for name, tensor in tensors.items()}
    if digest(tensors) != expected_digest:
        raise ValueError("the fingerprint was changed after it was written")
    seen, test = (Marks(numbers[f"{name}_digests"], numbers[f"{name}_hashes"]) for name in ("seen", "test"))
    return Fingerprint(seen, test)


def _numbers(name: str, tensor: object) -> NDArray[np.uint64]:
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.dtype != torch.int64:
        raise ValueError(f"{name} of the fingerprint is no plain tensor of whole numbers")
    if tensor.device.type != "cpu" or tensor.ndim != 1 or not tensor.is_contiguous():
        raise ValueError(f"{name} of the fingerprint is no plain list")
    numbers = tensor.numpy().view(np.uint64)
    if (numbers[1:] <= numbers[:-1]).any():
        raise ValueError(f"{name} of the fingerprint is not sorted")
    return numbers


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except (OSError, ValueError):
        return False  # it cannot be reached; reading it says why


def _equals(value: object, text: str) -> bool:
    return isinstance(value, str) and value == text


def _brief(error: BaseException) -> str:
    """The first line of an error, of bounded length: a hostile file decides what stands in it."""
    return " ".join(str(error).split("\n", 1)[0][:200].split())


def digest(state_dict: Mapping[str, torch.Tensor]) -> str:
    """blake2b-256 over names, dtypes, shapes and bytes of all tensors, in sorted order of names; hex."""
    total = hashlib.blake2b(digest_size=32)
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():  # torch takes no empty tensor for bytes
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _check_version(version: object, path: Path) -> None:
    if type(version) is not int or version < 1:
        raise ModelFileError("the model file names no version", value=str(path), fix=_DAMAGED)
    if version > VERSION:
        raise ModelFileError(
            "the model file is of a newer format",
            value=f"{path} (format {version}, this version reads up to {VERSION})",
            fix="upgrade automl-vision",
        )


def _bundle(meta: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor], others: Any) -> Bundle:
    """The bundle that `meta` describes; anything out of order raises."""
    class_names = _class_names(meta["class_names"])
    described = _checked(meta.get("others", []), list, lambda each: len(each) < MOST_NETWORKS, "others")
    names = [str(place) for place in range(len(described))]
    _checked(others, dict, lambda each: list(each) == names, "weights of the others")
    first, *rest = (
        _network(_checked(each, dict, lambda _: True, "network"), state, len(class_names))
        for each, state in zip([meta, *described], [state_dict, *(others[name] for name in names)], strict=True)
    )
    if abs(sum(network.share for network in (first, *rest)) - 1) > _ROUNDING:
        raise ValueError("the shares of the networks do not sum to 1")
    made = {(network.preprocessing.decode_side, network.preprocessing.resize) for network in (first, *rest)}
    if len(made) > 1:
        raise ValueError("the networks want images that are decoded or resized in different ways")
    return Bundle(
        **vars(first),
        class_names=class_names,
        temperature=float(_checked(meta["temperature"], float, _is_positive, "temperature")),
        provenance=_checked(meta["provenance"], dict, lambda _: True, "provenance"),
        others=tuple(rest),
        class_bias=_class_bias(meta.get("class_bias", []), len(class_names)),
    )


def _network(meta: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor], num_classes: int) -> Network:
    network = Network(
        backbone=_checked(meta["backbone"], str, lambda name: bool(_NAME.fullmatch(name)), "backbone"),
        head=_checked(meta["head"], str, is_head, "head"),
        preprocessing=Preprocessing.from_dict(meta["preprocessing"]),
        state_dict=state_dict,
        flip=_checked(meta.get("flip", False), bool, lambda _: True, "flip"),
        share=_checked(meta.get("share", 1.0), float, lambda share: 0 < share <= 1, "share"),
    )
    _check_tensors(network, num_classes, meta["digest"])
    return network


def _class_bias(values: Any, num_classes: int) -> tuple[float, ...]:
    _checked(values, list, lambda each: len(each) in (0, num_classes), "class_bias")
    return tuple(_checked(value, float, lambda bias: abs(bias) < _LARGEST_BIAS, "class bias") for value in values)


def _checked(value: Any, kind: type, holds: Any, name: str) -> Any:
    if type(value) is not kind or not holds(value):
        raise ValueError(f"{name} is out of order, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A plain value as it is; of what holds others its type alone, since it may take for ever to write out."""
    plain = value is None or isinstance(value, str | int | float)
    return repr(str(value)[:80]) if plain else f"a {type(value).__name__}"


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _class_names(names: Any) -> tuple[str, ...]:
    _checked(names, list, lambda each: len(each) >= 2 and len(set(each)) == len(each), "class_names")
    return tuple(_checked(name, str, is_class_name, "class name") for name in names)


def _check_tensors(network: Network, num_classes: int, expected_digest: object) -> None:
    """Names, shapes and dtypes must be those of the architecture, built without memory before any weight is used."""
    size = network.preprocessing.size
    net = empty_classifier(network.backbone, num_classes, resolution=size, head=network.head, state=network.state_dict)
    wanted = net.state_dict()
    if set(wanted) != set(network.state_dict):
        raise ValueError("the weights are not those of the architecture")
    for name, tensor in network.state_dict.items():
        _check_tensor(name, tensor, wanted[name])
    if digest(network.state_dict) != expected_digest:
        raise ValueError("the weights were changed after they were written")


def _check_tensor(name: str, tensor: object, wanted: torch.Tensor) -> None:
    dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.dtype not in _DTYPES or not tensor.is_contiguous():  # type: ignore[attr-defined] # a tensor
        raise ValueError(f"tensor {name[:80]!r} is not a plain one")
    if tensor.shape != wanted.shape or tensor.is_floating_point() != wanted.is_floating_point():  # type: ignore[attr-defined] # a tensor
        raise ValueError(f"tensor {name[:80]!r} does not fit the architecture")
