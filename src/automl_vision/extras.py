"""Packages that come with an extra, and what to install where they are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import MappingProxyType

from automl_vision.errors import UsageError

#: Extra of this package -> the packages that it brings, by the names under which they are installed.
EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "export": ("onnx", "onnxruntime", "onnxscript"),
        "hub": ("datasets",),
        "ray": ("ray", "universal-pathlib"),
        "serve": ("fastapi", "python-multipart", "uvicorn"),
        "stream": ("datasets", "fsspec", "gcsfs", "s3fs"),
        "track": ("mlflow-skinny", "tensorboard", "wandb"),
    }
)


def installed(extra: str) -> str:
    """What of an extra is on this machine, for people: each package with its version, or what to install.

    Raises:
        KeyError: there is no such extra.
    """
    versions = {name: version_of(name) for name in EXTRAS[extra]}
    missing = [name for name, found in versions.items() if not found]
    here = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    if not missing:
        return here
    asked = f"pip install 'automl-vision[{extra}]'"
    return f"{here}; {', '.join(missing)} missing: {asked}" if here else f"not installed: {asked}"


def version_of(package: str) -> str:
    """The version of an installed package, "" where it is not on this machine."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def require(packages: Sequence[str], extra: str, purpose: str) -> None:
    """Raise UsageError, with the command that installs them, where one of `packages` is not on this machine.

    Args:
        packages: names as they are imported.
        extra: of this package that brings them.
        purpose: what they are needed for, as in "exporting to ONNX".
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{purpose} needs packages that are not installed",
            value=", ".join(missing),
            fix=f"pip install 'automl-vision[{extra}]'",
        )
