"""EXECUTORS: where trials run."""

from __future__ import annotations

from typing import Any

from automl_vision.executors.executor import Executor, Report, Work
from automl_vision.executors.local import LocalExecutor

#: name -> executor class, called with the work function.
EXECUTORS: dict[str, type[LocalExecutor[Any, Any]]] = {"local": LocalExecutor}

__all__ = ["EXECUTORS", "Executor", "LocalExecutor", "Report", "Work"]
