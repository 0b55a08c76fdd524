"""Packages that come with an extra, and what to install where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from automl_vision.errors import UsageError


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
