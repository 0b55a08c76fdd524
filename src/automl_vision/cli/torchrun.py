"""`search --ddp N`: several processes that train one model together, started and started again by torchrun.

The process that the user started stays in front: it passes Ctrl-C and SIGTERM on to the first rank, and ends with the
exit code of that. torchrun starts all ranks again when one has died, and knows one kind of end besides: all ranks
ended with 0. So a first rank that has come to an end, whichever, tells it in a file, and ends with 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from automl_vision.errors import Interrupted, ProcessLost, TakenAway

#: How often torchrun starts all ranks again.
RESTARTS = 3
#: The folder in which the first rank tells how it ended, and which process it is.
_TALK = "AUTOML_VISION_TALK"
#: Seconds that torchrun has to end once the first rank has, and after SIGTERM.
_END, _TAKEN = 5.0, 9.5
_GROUP = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PR_SET_PDEATHSIG = 1


def is_rank() -> bool:
    """Whether this process is one of several that torchrun, or what sets the same variables, has started."""
    return all(name in os.environ for name in _GROUP)


def rank() -> int:
    """Which of them; 0 decides and writes."""
    return int(os.environ["RANK"])


def is_restart() -> bool:
    """Whether torchrun has started this process again, after one of them died."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def run_ranks(count: int, arguments: Sequence[str]) -> int:
    """Start `count` ranks with these arguments, and wait for them.

    Args:
        count: processes on this machine; 0 for one per GPU.
        arguments: what the command line of each is.

    Returns:
        the exit code of the first rank.

    Raises:
        ProcessLost: ranks died more often than torchrun starts them again.
    """
    with tempfile.TemporaryDirectory(prefix="automl-vision-") as talk:
        started = subprocess.Popen(  # noqa: S603 - the own interpreter, with arguments that were checked
            _torchrun(count, arguments),
            env=_environment(count, talk),
            start_new_session=True,  # Ctrl-C in a terminal is for this process, which passes it on to one of them
            preexec_fn=_end_with_parent,
        )
        with _passing_on(started, Path(talk)) as taken_away:
            code = _wait(started, Path(talk), taken_away)
    if code is None:
        raise ProcessLost(
            "the processes that train each model together died too often",
            value=f"{RESTARTS} times started again",
            fix="look for what they say above, and into workers/ of the run; --resume goes on",
        )
    return code


def _torchrun(count: int, arguments: Sequence[str]) -> list[str]:
    own = ["--standalone", "--local-addr=127.0.0.1", f"--max-restarts={RESTARTS}", f"--nproc-per-node={count or 'gpu'}"]
    return [sys.executable, "-m", "torch.distributed.run", *own, "-m", "automl_vision", *arguments]


def _environment(count: int, talk: str) -> dict[str, str]:
    """OpenMP has its threads from here: torchrun would set one, and say so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    threads = str(max(1, cores // max(count, 1)))
    return {"OMP_NUM_THREADS": threads, **os.environ, _TALK: talk}


def _end_with_parent() -> None:
    """Have this process told to end when the one that started it has: nobody would pass signals on any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


# --- the process in front -------------------------------------------------------------------------------------------


class _Asked:
    """What the user or the system asked for meanwhile."""

    interrupts = 0
    taken_at: float | None = None


@contextmanager
def _passing_on(started: subprocess.Popen[bytes], talk: Path) -> Iterator[_Asked]:
    asked = _Asked()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        asked.interrupts += 1
        _to_first(started, talk, signal.SIGINT)

    def take_away(_number: int, _frame: FrameType | None) -> None:
        asked.taken_at = asked.taken_at or time.monotonic()
        _to_first(started, talk, signal.SIGTERM)

    former = {signal.SIGINT: signal.signal(signal.SIGINT, interrupt)}
    former[signal.SIGTERM] = signal.signal(signal.SIGTERM, take_away)
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        _kill(started, talk)


def _wait(started: subprocess.Popen[bytes], talk: Path, asked: _Asked) -> int | None:
    """The exit code; None where the first rank told none."""
    told_at: float | None = None
    while started.poll() is None and asked.interrupts <= 1:
        time.sleep(0.05)
        now = time.monotonic()
        told_at = (told_at or now) if _is_last_word(_told(talk), asked) else None
        if told_at is not None and now - told_at > _END:
            break
        if asked.taken_at is not None and now - asked.taken_at > _TAKEN:
            break
    code = _told(talk)
    if code is None and asked.taken_at is not None:
        return TakenAway.exit_code
    return Interrupted.exit_code if code is None and asked.interrupts else code


def _is_last_word(code: int | None, asked: _Asked) -> bool:
    """When a rank has died, torchrun sends SIGTERM to the others before it starts all of them again."""
    return code is not None and (code != TakenAway.exit_code or asked.taken_at is not None)


def _to_first(started: subprocess.Popen[bytes], talk: Path, number: signal.Signals) -> None:
    """To the first rank; before there is one, nothing was begun, and all may end."""
    first = _number_in(talk / "process-0")
    try:
        if first is not None:
            os.kill(first, number)
            return
    except ProcessLookupError:
        pass  # it has died, and was not started again yet
    started.terminate()


def _kill(started: subprocess.Popen[bytes], talk: Path) -> None:
    """End whatever is left of it; ranks are no part of the group of torchrun."""
    if started.poll() is None:
        started.kill()
        started.wait()
        for file in talk.glob("process-*"):
            process = _number_in(file)
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def _told(talk: Path) -> int | None:
    return _number_in(talk / "code")


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):
        return None


# --- a rank ---------------------------------------------------------------------------------------------------------

_expects_restart = False


def introduce() -> None:
    """Tell the process in front which one this rank is; it is not to outlive torchrun."""
    _end_with_parent()
    if _TALK in os.environ:
        if rank() == 0:
            (Path(os.environ[_TALK]) / "code").unlink(missing_ok=True)  # of an end that was none
        _write(f"process-{rank()}", os.getpid())


def expect_restart() -> None:
    """This process ends so that torchrun starts all of them again: its exit code is not the last word."""
    global _expects_restart
    _expects_restart = True


def told_in_front(code: int) -> int:
    """Tell the process in front, if there is one, how the run ended; the code to end with."""
    if _TALK not in os.environ or not is_rank() or rank() != 0 or _expects_restart:
        return code
    _write("code", code)
    return 0


def _write(name: str, value: int) -> None:
    """Whole or not at all: the process in front may read at any time."""
    folder = Path(os.environ[_TALK])
    if folder.is_dir():  # else nobody waits any more
        (folder / f"{name}.new").write_text(str(value), "ascii")
        (folder / f"{name}.new").rename(folder / name)
