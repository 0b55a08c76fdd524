"""A search by several processes that train each model together, as one of them sees it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.cli import torchrun
from automl_vision.config import Settings
from automl_vision.errors import ProcessLost

if TYPE_CHECKING:
    from automl_vision.training.ranks import Ranks


@contextmanager
def joined(settings: Settings) -> Iterator[Ranks]:
    """All ranks of this search, alone where there is one process; the others are told when this is left.

    Raises:
        ProcessLost: the others are not there in time.
    """
    from automl_vision.executors.ranks import end
    from automl_vision.training.ranks import ALONE, RankLost, Ranks, own_device

    if settings.machine.ddp == 1 or not torchrun.is_rank():
        yield ALONE
        return
    try:
        ranks = Ranks.join(own_device(settings.machine.device))
    except RankLost as error:
        torchrun.expect_restart()
        raise _lost(error) from error
    try:
        yield ranks
    except ProcessLost:
        torchrun.expect_restart()
        raise
    finally:
        if ranks.first:
            with suppress(RankLost):  # then there is nobody left to be told
                end(ranks)


def follow_first(ranks: Ranks) -> None:
    """Take part in the work of the first rank until it ends; what is printed goes to a file of the run.

    Raises:
        ProcessLost: the others are gone.
    """
    from automl_vision.executors.ranks import follow
    from automl_vision.training.ranks import RankLost, RanksDiffer

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        follow(ranks, lambda logs: _print_to(Path(logs) / f"rank-{ranks.rank}.log"))
    except (RankLost, RanksDiffer) as error:
        torchrun.expect_restart()
        raise _lost(error) from error


def _print_to(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _lost(error: Exception) -> ProcessLost:
    return ProcessLost(
        "another process that trains the same model is gone, or does not do the same",
        value=str(error),
        fix="torchrun starts all of them again; else go on with --resume",
    )
