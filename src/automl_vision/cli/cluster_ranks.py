"""`search --cluster ADDRESS --ddp N`: processes on machines of a cluster that train one model together.

This process stays in front: it prints what the first rank prints, passes Ctrl-C and SIGTERM on to it, and ends with its
exit code.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from automl_vision.cli.process import loading
from automl_vision.cli.terminal import safe_lines, stderr
from automl_vision.config import MachineSettings
from automl_vision.errors import Interrupted, ProcessLost, TakenAway
from automl_vision.run_dir import how_to_resume

#: Seconds that the first rank has to leave after SIGTERM.
_TAKEN = 9.5


@dataclass
class _Asked:
    """What was asked for meanwhile, and not told to the first rank yet."""

    signals: deque[int] = field(default_factory=deque)
    interrupts: int = 0
    taken_at: float | None = None

    @property
    def at_once(self) -> bool:
        late = self.taken_at is not None and time.monotonic() - self.taken_at > _TAKEN
        return late or self.interrupts > 1


def run_ranks_on_cluster(machine: MachineSettings, arguments: Sequence[str], *, data: Path | None, run: Path) -> int:
    """Start the ranks, and wait for them.

    Args:
        machine: the settings.
        arguments: of the command line of each; it names the folder of the run.
        data: the images, None where the run knows.
        run: its folder.

    Returns:
        the exit code of the first rank.

    Raises:
        ProcessLost: ranks died more often than they are started again.
        RunError: the cluster cannot be used.
    """
    with _heard() as asked:
        with loading():
            from automl_vision.stages.cluster_ranks import search_on_cluster
        told = search_on_cluster(machine, arguments, data=data, run=run, asked=asked, write=_write, warn=_warn)
    if told is not None:
        return told
    if asked.taken_at is not None:
        return TakenAway.exit_code
    if asked.interrupts:
        return Interrupted.exit_code
    raise ProcessLost(
        "the processes that train each model together died too often",
        value=str(run),
        fix=f"look at what they say above, and into workers/ of the run; {how_to_resume(run)}",
    )


@contextmanager
def _heard() -> Iterator[_Asked]:
    asked = _Asked()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        asked.interrupts += 1
        asked.signals.append(signal.SIGINT)

    def take_away(_number: int, _frame: FrameType | None) -> None:
        if asked.taken_at is None:
            asked.taken_at = time.monotonic()
            asked.signals.append(signal.SIGTERM)

    former = {signal.SIGINT: signal.signal(signal.SIGINT, interrupt)}
    former[signal.SIGTERM] = signal.signal(signal.SIGTERM, take_away)
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _write(stream: int, text: str) -> None:
    to = {1: sys.stdout, 2: sys.stderr}[stream]
    to.write(text)
    to.flush()


def _warn(text: str) -> None:
    stderr.print(f"[yellow]{safe_lines(text)}[/yellow]", highlight=False, soft_wrap=True)
