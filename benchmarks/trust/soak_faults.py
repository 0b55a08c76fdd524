"""What goes wrong in a soak, with whom, and how a search that it ended is mended, resumed and checked."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cluster.loopback_cluster import descendants
from cluster.runs import records, start

#: Seconds that anything may take before it counts as hanging, on a machine that others use too.
PATIENCE = 600.0
#: Options of a search, of one that never is done, and of one that soon is.
_PLAIN = (
    "--resolutions 32 --backbones efficientnet_lite0 --offline --device cpu --threads 1 --lineage names --refit off"
)
LONG = f"{_PLAIN} --trials 100000 --epochs 4 --batch-size 8 --max-parallel 2"
SHORT = f"{_PLAIN} --trials 3 --epochs 3 --batch-size 8"
_BOUNDARY = b"x-soak"


@dataclass
class Tally:
    """What was seen.

    Attributes:
        faults_made: kind of fault -> how often.
        left_out: what could not be made here, and why.
        resumed: short searches that were mended and came to their end.
        ended_first: short searches that were done before their fault came.
        answers: HTTP status -> how often.
        completed: when a trial of the long search was complete, seconds since the beginning.
        disk: bytes outside of run folders after each short search.
        weights: most that the weights and checkpoints of the long search took at once, in units of the largest of them.
        weights_bytes: the same in bytes.
        wrong: everything that is not as it should be.
    """

    faults_made: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    resumed: int = 0
    ended_first: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    completed: list[float] = field(default_factory=list)
    disk: list[int] = field(default_factory=list)
    weights: float = 0.0
    weights_bytes: int = 0
    wrong: list[str] = field(default_factory=list)


# --- what is at work --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Folders of the measurement, all in one.

    Attributes:
        root: of all of them.
        small: a file system that can be filled; None where none could be made.
        command: the program to measure.
    """

    root: Path
    small: Path | None
    command: tuple[str, ...]

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def environment(self) -> dict[str, str]:
        """Whatever a process keeps lies here, where it is counted."""
        return {
            "TMPDIR": str(self.root / "tmp"),
            "XDG_CACHE_HOME": str(self.root / "user-cache"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def kept_bytes(self) -> int:
        """Bytes of caches, temporary files and the history."""
        return sum(sum(sizes_in(self.root / name)) for name in ("cache", "tmp", "user-cache", "state"))

    def search(self, out: Path, options: str) -> list[str]:
        """The command line of a new search."""
        where = ["--data", str(self.images), "--cache-dir", str(self.cache), "--out", str(out)]
        return [*self.command, "search", *where, *options.split(), "--quiet"]

    def resume(self, out: Path) -> list[str]:
        """The command line of one that goes on."""
        return [*self.command, "search", "--resume", str(out), "--quiet"]


def sizes_in(folder: Path, pattern: str = "*") -> list[int]:
    """Bytes of each file in it that stays long enough to be asked."""
    sizes = []
    for file in folder.rglob(pattern):
        with suppress(OSError):
            sizes += [] if file.is_dir() else [file.lstat().st_size]
    return sizes


def workers_of(pid: int) -> list[int]:
    """Processes below this one that train."""
    found = []
    for each in descendants(pid):
        with suppress(OSError):
            if b"executors.worker" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return found


def ask(port: int, data: bytes, seconds: float) -> int:
    """The HTTP status for one file.

    Raises:
        OSError, http.client.HTTPException: no answer.
    """
    head = b'--%b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' % _BOUNDARY
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
        connection.request("POST", "/predict", head + data + b"\r\n--%b--\r\n" % _BOUNDARY, kind)
        return connection.getresponse().status
    finally:
        connection.close()


def keep_asking(port: int, image: bytes, ended: threading.Event, tally: Tally) -> None:
    """Ask twice a second until it is over; every tenth file is cut short."""
    turn = 0
    while not ended.wait(0.5):
        turn += 1
        damaged = turn % 10 == 0
        try:
            status = ask(port, image[: len(image) // 2] if damaged else image, PATIENCE)
        except (OSError, http.client.HTTPException) as error:
            tally.wrong.append(f"the server did not answer: {type(error).__name__}: {error}")
            continue
        tally.answers[status] += 1
        if status != (422 if damaged else 200):
            tally.wrong.append(f"the server answered {status} to a {'damaged' if damaged else 'good'} file")


# --- faults of what goes on -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AtWork:
    """The two that are to live for the whole time."""

    place: Place
    search: subprocess.Popen[bytes]
    server: subprocess.Popen[bytes]
    chance: random.Random


def _pause(pid: int, seconds: float) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)


def _stop_search(work: AtWork) -> None:
    _pause(work.search.pid, work.chance.uniform(3, 12))


def _stop_server(work: AtWork) -> None:
    _pause(work.server.pid, work.chance.uniform(3, 12))


def _stop_worker(work: AtWork) -> None:
    workers = workers_of(work.search.pid)
    if workers:
        _pause(work.chance.choice(workers), work.chance.uniform(3, 12))


def _kill_worker(work: AtWork) -> None:
    workers = workers_of(work.search.pid)
    if workers:
        with suppress(ProcessLookupError):
            os.kill(work.chance.choice(workers), signal.SIGKILL)


def _remove_cache(work: AtWork) -> None:
    shutil.rmtree(work.place.cache, ignore_errors=True)


#: Faults that nobody needs to mend.
PASSING: dict[str, Callable[[AtWork], None]] = {
    "the search is stopped for seconds": _stop_search,
    "the server is stopped for seconds": _stop_server,
    "a worker is stopped for seconds": _stop_worker,
    "a worker is killed": _kill_worker,
    "the cache is removed": _remove_cache,
}


# --- faults that end a search -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """A fault that ends a search, which then is mended and resumed.

    Attributes:
        strike: does it; what it returns mends it.
        code: with which the search has to end.
        damages: a completed record, by its number; None where all have to be there afterwards.
    """

    strike: Callable[[subprocess.Popen[bytes], Path, Place], Callable[[], None]]
    code: int
    damages: Callable[[Path, random.Random], int] | None = None


def _nothing() -> None:
    return None


def _signal(number: int) -> Callable[[subprocess.Popen[bytes], Path, Place], Callable[[], None]]:
    def strike(process: subprocess.Popen[bytes], out: Path, place: Place) -> Callable[[], None]:  # noqa: ARG001
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        return _nothing

    return strike


def _fill(process: subprocess.Popen[bytes], out: Path, place: Place) -> Callable[[], None]:  # noqa: ARG001
    assert place.small is not None
    ballast = place.small / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    return lambda: ballast.unlink()


def damage_one(out: Path, chance: random.Random) -> int:
    """Cut, empty, blank or garble one completed record; its number."""
    done = [number for number, record in records(out).items() if record["state"] == "complete"]
    number = chance.choice(done)
    file = out / "trials" / f"{number:06d}.json"
    whole = file.read_bytes()
    garbled = bytearray(whole)
    garbled[len(whole) // 2] ^= 0x55
    file.write_bytes(chance.choice([whole[: len(whole) // 2], b"", bytes(len(whole)), bytes(garbled)]))
    return number


ENDINGS: dict[str, Ending] = {
    "kill -9": Ending(_signal(signal.SIGKILL), -signal.SIGKILL),
    "SIGTERM": Ending(_signal(signal.SIGTERM), 75),
    "Ctrl-C": Ending(_signal(signal.SIGINT), 130),
    "a full disk": Ending(_fill, 5),
    "a damaged record": Ending(_signal(signal.SIGKILL), -signal.SIGKILL, damage_one),
}


def suffer(kind: str, place: Place, number: int, chance: random.Random, tally: Tally) -> None:
    """One short search that is ended by a fault, mended, resumed to its end, checked and removed."""
    ending = ENDINGS[kind]
    parent = place.small if ending.strike is _fill and place.small else place.root
    out = parent / f"short-{number}"
    log = place.root / f"short-{number}.log"
    process = start(place.search(out, SHORT), log)
    try:
        tally.wrong += _suffered(kind, ending, process, place, out, log, chance, tally)
    finally:
        end_all(process)
        shutil.rmtree(out, ignore_errors=True)
        log.unlink(missing_ok=True)
    tally.disk.append(place.kept_bytes())


def _suffered(
    kind: str, ending: Ending, process: subprocess.Popen[bytes], place: Place, out: Path, log: Path,
    chance: random.Random, tally: Tally,
) -> list[str]:  # fmt: skip
    if not wait_until(lambda: bool(completed(out)) or process.poll() is not None):
        return [f"{kind}: no trial was completed in {PATIENCE:g} s"]
    time.sleep(chance.uniform(0, 2))
    mend = ending.strike(process, out, place)
    try:
        code = exit_code(process)
    finally:
        mend()
    if code == 0:
        tally.ended_first += 1
        return []
    if code != ending.code:
        return [f"{kind}: it ended with {code} instead of {ending.code}: {end_of(log)}"]
    before = completed(out)
    if ending.damages is not None:
        before.pop(ending.damages(out, chance))
    resumed = start(place.resume(out), log)
    try:
        code = exit_code(resumed)
    finally:
        end_all(resumed)
    if code != 0:
        return [f"{kind}: --resume ended with {code}: {end_of(log)}"]
    wrong = [f"{kind}: {each}" for each in held_against(before, completed(out))]
    checked = start([*place.command, "report", str(out), "--verify"], log)
    if exit_code(checked) != 0:
        wrong.append(f"{kind}: the report does not follow from the predictions: {end_of(log)}")
    tally.resumed += not wrong
    return wrong


def completed(out: Path) -> dict[int, Mapping[str, Any]]:
    """Number -> record, of trials that are complete; records that are being replaced or damaged count as none."""
    try:
        return {number: record for number, record in records(out).items() if record["state"] == "complete"}
    except (OSError, ValueError):
        return {}


def held_against(before: Mapping[int, Any], after: Mapping[int, Any]) -> list[str]:
    """Trials that were complete and are missing or different."""
    return [
        f"trial {number} was complete and is {'another' if number in after else 'missing'}"
        for number, record in before.items()
        if after.get(number) != record
    ]


def exit_code(process: subprocess.Popen[bytes]) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE)
    return None


def wait_until(happened: Callable[[], bool]) -> bool:
    ends = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


def end_all(process: subprocess.Popen[bytes]) -> None:
    """Kill it with all that it started, whatever group that is in."""
    for pid in [*descendants(process.pid), process.pid]:
        if process.poll() is None or pid != process.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def end_of(log: Path) -> str:
    return " ".join(log.read_text("utf-8", "replace").split())[-300:] if log.exists() else ""
