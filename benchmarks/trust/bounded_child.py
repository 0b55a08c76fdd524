"""Many small pieces of work in a child process with bounds: what crashes it, or holds it up, is known by its number.

The child writes the number of each piece before it begins, and that of each of its steps, and a line of JSON when it is
done. Where the child dies, or spends too long on one step, that piece is named and another child goes on with the next.
"""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

#: Seconds between two looks at a child.
_LOOK = 0.05
_AT, _TOLD, _SAID = "at", "told.jsonl", "stderr.txt"
#: Where a child is: the piece, and its step.
_Place = tuple[int, int]
_PLACE = struct.Struct("<qq")
_NOTHING_YET = (-1, 0)


@dataclass(frozen=True)
class Bounds:
    """What one step of a piece of work may take.

    Attributes:
        cpu_seconds: of the child's processor time: other work on the machine does not count.
        wall_seconds: for what waits and computes nothing.
        bytes: of address space beside what the child has when it begins.
    """

    cpu_seconds: float = 5.0
    wall_seconds: float = 120.0
    bytes: int = 1_000_000_000


@dataclass(frozen=True)
class Lost:
    """A piece of work that ended its child, or was ended with it.

    Attributes:
        number: of the piece.
        kind: "crash" or "hang".
        detail: the signal or exit code, or the seconds.
    """

    number: int
    kind: str
    detail: str


# --- in the child ---------------------------------------------------------------------------------------------------


class _Steps:
    """The steps of a piece, as they begin.

    Attributes:
        slowest: seconds of processor time of the one that took longest so far.
    """

    def __init__(self, at: IO[bytes], number: int) -> None:
        self.slowest = 0.0
        self._at, self._number, self._step = at, number, 0
        self._before = time.process_time()
        self._write()

    def next(self) -> None:
        """One is done, another one begins."""
        self.end()
        self._step += 1
        self._write()

    def end(self) -> None:
        """One is done."""
        now = time.process_time()
        self.slowest, self._before = max(self.slowest, now - self._before), now

    def _write(self) -> None:
        self._at.seek(0)
        self._at.write(_PLACE.pack(self._number, self._step))


def work_through(
    numbers: Iterable[int], folder: Path, bounds: Bounds, work: Callable[[int, Callable[[], None]], dict[str, Any]]
) -> None:
    """Do every piece, and tell what became of it; to be called by the child.

    A line has `number`, `cpu` (seconds of its slowest step), `peak_mb` (of the process so far) and what `work` gave; or
    `foreign`, the error that came out of it.

    Args:
        work: gets the number, and what it calls where another step begins: bounds of time hold for each.
    """
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_status_bytes("VmSize:") + bounds.bytes, hard))
    with (folder / _AT).open("r+b", buffering=0) as at, (folder / _TOLD).open("a", encoding="utf-8") as told:
        for number in numbers:
            steps = _Steps(at, number)
            try:
                said = work(number, steps.next)
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                said = {"foreign": f"{type(error).__name__}: {error}"[:300], "where": _place_of(error)}
            steps.end()
            spent = {"cpu": round(steps.slowest, 4), "peak_mb": round(_status_bytes("VmHWM:") / 1e6)}
            told.write(json.dumps({"number": number, **spent, **said}) + "\n")
            told.flush()


def _place_of(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


# --- beside it ------------------------------------------------------------------------------------------------------


def told_by_children(
    line: Sequence[str], numbers: range, folder: Path, bounds: Bounds, until: float = math.inf
) -> tuple[list[dict[str, Any]], list[Lost]]:
    """Have all pieces done; what the children told of those that came to an end, and those that were lost.

    Args:
        line: the child's command; the first number and the one behind the last, and the folder, are put behind it.
        numbers: of the pieces, one after the other.
        folder: where the child writes; it is there and empty.
        bounds: for each step of a piece.
        until: monotonic seconds at which the rest is left.

    Raises:
        SystemExit: a child ends before it begins, so that nothing is measured.
    """
    lost: list[Lost] = []
    first = numbers.start
    (folder / _TOLD).touch()
    while first < numbers.stop and time.monotonic() < until:
        culprit = _run_one(line, range(first, numbers.stop), folder, bounds, until)
        if culprit is None:
            break
        lost.append(culprit)
        print(f"  {culprit.kind} of {culprit.number}: {culprit.detail}", file=sys.stderr, flush=True)
        first = culprit.number + 1
    lines = (folder / _TOLD).read_text("utf-8").splitlines(keepends=True)
    return [json.loads(each) for each in lines if each.endswith("\n")], lost


def _run_one(line: Sequence[str], numbers: range, folder: Path, bounds: Bounds, until: float) -> Lost | None:
    """The piece at which the child was lost; None where it came to its end, or its time was over."""
    (folder / _AT).write_bytes(_PLACE.pack(*_NOTHING_YET))
    words = [*line, str(numbers.start), str(numbers.stop), str(folder)]
    with (folder / _SAID).open("wb") as said:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        hang = _watch(child, folder / _AT, bounds, until)
    finally:
        child.kill()
        child.wait()
    at = _place_in(folder / _AT)
    if hang is not None:
        return hang
    if child.returncode == 0 or time.monotonic() >= until:
        return None
    if at == _NOTHING_YET:
        text = (folder / _SAID).read_text("utf-8", "replace")[-2000:]
        raise SystemExit(f"the child did not begin (exit code {child.returncode}): {text}")
    return Lost(at[0], "crash", f"exit code {child.returncode}")


def _watch(child: subprocess.Popen[bytes], at: Path, bounds: Bounds, until: float) -> Lost | None:
    """Return when the child ended, spent too much on one step, or its time is over."""
    place, cpu, wall = _NOTHING_YET, 0.0, time.monotonic()
    while child.poll() is None and time.monotonic() < until:
        now = _place_in(at)
        if now != place:
            place, cpu, wall = now, _cpu_seconds(child.pid), time.monotonic()
        spent, waited = _cpu_seconds(child.pid) - cpu, time.monotonic() - wall
        if place != _NOTHING_YET and (spent > bounds.cpu_seconds or waited > bounds.wall_seconds):
            return Lost(place[0], "hang", f"{spent:.1f} s of processor time, {waited:.0f} s by the clock")
        time.sleep(_LOOK)
    return None


def _place_in(at: Path) -> _Place:
    data = at.read_bytes()
    if len(data) != _PLACE.size:
        return _NOTHING_YET
    number, step = _PLACE.unpack(data)
    return number, step


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
