"""Give it a folder of labelled images and a time budget; get a classifier and a test number you can believe.

>>> from automl_vision import load, search
>>> run = search("./imgs", budget="10m")
>>> load(run.model).predict(["img.jpg"])
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from automl_vision.runtime import PROCESS_START as PROCESS_START  # the budget's clock starts with this import

if TYPE_CHECKING:
    from automl_vision.bundle import Bundle as Bundle
    from automl_vision.pipeline import load as load
    from automl_vision.pipeline import search as search

__version__ = "0.1.0"
__all__ = ["load", "search"]

#: Public names and where they live; loaded on first use so that `--help` imports neither torch nor timm.
_PUBLIC = {"search": "automl_vision.pipeline", "load": "automl_vision.pipeline"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'automl_vision' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


class _Package(ModuleType):
    """This package, whose `search` is the function whichever of its parts were imported before."""

    @property
    def search(self) -> Any:
        """The function; `import automl_vision.search.space` and the like find the subpackage all the same."""
        return __getattr__("search")

    @search.setter
    def search(self, subpackage: ModuleType) -> None:
        """What the import system would bind here once the subpackage of this name is imported."""


sys.modules[__name__].__class__ = _Package
