"""EXECUTORS: where trials run. Each is loaded when it is asked for: what it needs is not paid for by the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from automl_vision.executors.executor import Executor, Report, Work
from automl_vision.executors.local import LocalExecutor
from automl_vision.executors.workplace import Slot, Workplace


def _local(workplace: Workplace[Any, Any]) -> Executor[Any, Any]:
    if workplace.here is None:
        raise ValueError(f"this workplace has no work for this process, got {workplace.opening=}")
    return LocalExecutor(workplace.here)


def _workers(workplace: Workplace[Any, Any]) -> Executor[Any, Any]:
    from automl_vision.executors.workers import WorkersExecutor

    return WorkersExecutor(workplace)


#: name -> what makes the executor of a workplace.
EXECUTORS: dict[str, Callable[[Workplace[Any, Any]], Executor[Any, Any]]] = {
    "local": _local,
    "workers": _workers,
}

__all__ = ["EXECUTORS", "Executor", "LocalExecutor", "Report", "Slot", "Work", "Workplace"]
