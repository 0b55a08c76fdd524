"""Searches and a server that go on for an hour, and every minute something goes wrong with one of them.

    python benchmarks/trust/soak.py --minutes 60 --every 60 --json soak.json

Three things are at work, on noise of 32 pixels in classes that mean nothing, so that no search ever has learned it all:

- one search with two workers, for the whole time: it is stopped for seconds, its workers are killed or stopped for
  seconds, its cache is removed;
- a server, asked twice a second, every tenth time with a damaged file: it is stopped for seconds;
- one short search after the other, each ended by a fault (`kill -9` of all its processes, SIGTERM, Ctrl-C, a disk
  without room, a damaged record), mended, resumed to its end, checked and removed.

Held means: every fault ended as the table says, with its exit code; every resumed search came to its end with the
trials that were complete before, and a report that follows from its predictions; the long search completed trials in
every tenth of the time, but for the first, in which all of this starts, and came to its end; the server gave every file
the answer that it deserves; neither of the two grew (growth.py has the rule); the weights and checkpoints of the long
search never took more than 24 of the largest of them would (twelve trials may wait, the best are kept, a few are being
written); and what lies outside of run folders (caches, temporary files, the history) ends no more than 4 MB above what
it was after the first short search.

The full disk is a file system of its own in memory, which takes root; elsewhere that fault is left out, which is said.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cluster.loopback_cluster import descendants
from cluster.runs import records, start, this_program
from trust.figure import Figure, conclude, parser
from trust.growth import Growth, Sample, growths, look

#: Seconds that anything may take before it counts as hanging, on a machine that others use too.
PATIENCE = 600.0
SAMPLED_EVERY = 3.0
#: Bytes that caches, temporary files and the history may end above what they were after the first short search.
DISK_ALLOWED = 4_000_000
#: Files of weights and checkpoints that a search may keep at once, in units of the largest.
MOST_WEIGHTS = 24.0
#: Of the file system that runs full.
SMALL_DISK = "400m"
_PLAIN = (
    "--resolutions 32 --backbones efficientnet_lite0 --offline --device cpu --threads 1 --lineage names --refit off"
)
LONG = f"{_PLAIN} --trials 100000 --epochs 4 --batch-size 8 --max-parallel 2"
SHORT = f"{_PLAIN} --trials 3 --epochs 3 --batch-size 8"
_BOUNDARY = b"x-soak"
_OWN_MOUNTS = "SOAK_HAS_ITS_OWN_MOUNTS"


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


def draw_pictures(folder: Path, seed: int, classes: int = 3, each: int = 20) -> None:
    """Noise of 32 pixels in class folders: nothing to be learned, so no search ends for having learned it all."""
    rng = np.random.default_rng(seed)
    for number in range(classes):
        (folder / f"class {number}").mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class {number}" / f"{index:03d}.png")


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
        _end(process)
        shutil.rmtree(out, ignore_errors=True)
        log.unlink(missing_ok=True)
    tally.disk.append(place.kept_bytes())


def _suffered(
    kind: str, ending: Ending, process: subprocess.Popen[bytes], place: Place, out: Path, log: Path,
    chance: random.Random, tally: Tally,
) -> list[str]:  # fmt: skip
    if not _wait_until(lambda: bool(completed(out)) or process.poll() is not None):
        return [f"{kind}: no trial was completed in {PATIENCE:g} s"]
    time.sleep(chance.uniform(0, 2))
    mend = ending.strike(process, out, place)
    try:
        code = _exit_code(process)
    finally:
        mend()
    if code == 0:
        tally.ended_first += 1
        return []
    if code != ending.code:
        return [f"{kind}: it ended with {code} instead of {ending.code}: {_end_of(log)}"]
    before = completed(out)
    if ending.damages is not None:
        before.pop(ending.damages(out, chance))
    resumed = start(place.resume(out), log)
    try:
        code = _exit_code(resumed)
    finally:
        _end(resumed)
    if code != 0:
        return [f"{kind}: --resume ended with {code}: {_end_of(log)}"]
    wrong = [f"{kind}: {each}" for each in held_against(before, completed(out))]
    checked = start([*place.command, "report", str(out), "--verify"], log)
    if _exit_code(checked) != 0:
        wrong.append(f"{kind}: the report does not follow from the predictions: {_end_of(log)}")
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


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE)
    return None


def _wait_until(happened: Callable[[], bool]) -> bool:
    ends = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with all that it started, whatever group that is in."""
    for pid in [*descendants(process.pid), process.pid]:
        if process.poll() is None or pid != process.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _end_of(log: Path) -> str:
    return " ".join(log.read_text("utf-8", "replace").split())[-300:] if log.exists() else ""


# --- an hour of it ----------------------------------------------------------------------------------------------------


def faults_in_order(chance: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    """Each kind once in a drawn order, again and again in others."""
    while True:
        yield from chance.sample(list(kinds), len(kinds))


class Soak:
    """The measurement: two that live long, one after the other that do not, and what is seen of them."""

    def __init__(self, work: AtWork, tally: Tally, seconds: float, every: float, seed: int) -> None:
        self.work, self.tally = work, tally
        self._seconds, self._every = seconds, every
        self._chance = random.Random(seed)
        self._samples: dict[str, list[Sample]] = {"search": [], "server": []}
        self._short: threading.Thread | None = None
        self._begun = time.monotonic()

    def run(self) -> None:
        """Until the time is over; the long search is then left to end by itself."""
        kinds = [*PASSING, *(kind for kind in ENDINGS if kind != "a full disk" or self.work.place.small)]
        faults = faults_in_order(self._chance, kinds)
        next_fault, next_look, number = self._every, 0.0, 0
        while (now := time.monotonic() - self._begun) < self._seconds:
            if now >= next_look:
                next_look = now + SAMPLED_EVERY
                self._look(now)
            if now >= next_fault:
                next_fault += self._every
                number += 1
                self._make(next(faults), number)
            if self.work.search.poll() is not None or self.work.server.poll() is not None:
                break
            time.sleep(0.2)
        if self._short is not None:
            self._short.join()

    def _look(self, now: float) -> None:
        for name, process in (("search", self.work.search), ("server", self.work.server)):
            sample = look(process.pid, now)
            if sample is not None:
                self._samples[name].append(sample)
        long, tally = self.work.place.root / "long", self.tally
        tally.completed += [now] * (len(completed(long)) - len(tally.completed))
        sizes = sizes_in(long / "trials", "*.pt")
        if sizes:
            tally.weights = max(tally.weights, sum(sizes) / max(sizes))
            tally.weights_bytes = max(tally.weights_bytes, sum(sizes))

    def _make(self, kind: str, number: int) -> None:
        if kind in ENDINGS and self._short is not None and self._short.is_alive():
            kind = self._chance.choice(list(PASSING))  # on a busy machine the last short search may still be at work
        self.tally.faults_made[kind] += 1
        print(f"{time.monotonic() - self._begun:6.0f} s: {kind}", file=sys.stderr, flush=True)
        if kind in PASSING:
            threading.Thread(target=PASSING[kind], args=(self.work,), daemon=True).start()
            return
        chance = random.Random(self._chance.random())
        arguments = (kind, self.work.place, number, chance, self.tally)
        self._short = threading.Thread(target=suffer, args=arguments, daemon=True)
        self._short.start()

    def growths(self) -> list[Growth]:
        """Of both, without the first fifth of the time."""
        return [each for name, samples in self._samples.items() for each in growths(name, samples, self._seconds / 5)]


def tenths_without(completed_at: Sequence[float], seconds: float) -> list[int]:
    """Tenths of the time, from 2 on, in which no trial was completed; in the first one all of this starts."""
    seen = {min(int(at / seconds * 10), 9) for at in completed_at}
    return [number + 1 for number in range(1, 10) if number not in seen]


def verdict(tally: Tally, grown: Sequence[Growth], seconds: float) -> list[str]:
    """Everything that was promised and not kept."""
    wrong = list(tally.wrong)
    empty = tenths_without(tally.completed, seconds)
    if empty:
        wrong.append(f"no trial was completed in these tenths of the time: {', '.join(map(str, empty))}")
    if not grown:
        wrong.append("too few samples to tell whether anything grew")
    wrong += [f"grew: {each}" for each in grown if each.too_much]
    if tally.weights > MOST_WEIGHTS:
        wrong.append(f"weights and checkpoints took {tally.weights:.1f} times the largest of them at once")
    if tally.disk and tally.disk[-1] - tally.disk[0] > DISK_ALLOWED:
        wrong.append(f"grew: caches, temporary files and the history, from {tally.disk[0]} to {tally.disk[-1]} bytes")
    return wrong


def figure_of(tally: Tally, grown: Sequence[Growth], seconds: float) -> Figure:
    """The line, the figures and the faults."""
    wrong = verdict(tally, grown, seconds)
    growth = ", ".join(f"{each.measure} of the {each.process} {each.grown:+.1f}" for each in grown)
    disk = f"{(tally.disk[-1] - tally.disk[0]) / 1e6:+.1f} MB on disk" if tally.disk else "disk not seen"
    text = (
        f"{sum(tally.faults_made.values())} faults of {len(tally.faults_made)} kinds in {seconds / 60:.0f} minutes, "
        f"{tally.resumed} searches mended and resumed, {len(tally.completed)} trials of the long search, "
        f"{sum(tally.answers.values())} answers of the server; {growth}; {disk}, checkpoints at most "
        f"{tally.weights_bytes / 1e6:.0f} MB; {len(wrong)} not as promised"
    )
    seen = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(tally).items()}
    seen["completed"] = len(tally.completed)
    figures = {**seen, "growth": [asdict(each) for each in grown], "seconds": seconds}
    return Figure("R15", not wrong, text, figures, tuple(wrong))


def measure(place: Place, seconds: float, every: float, seed: int) -> Figure:
    """Start what lives long, run the soak, end it."""
    draw_pictures(place.images, seed)
    (place.root / "tmp").mkdir()
    os.environ.update(place.environment)
    tally = Tally()
    if place.small is None:
        tally.left_out.append("a full disk: no file system of its own can be mounted here")
    with ExitStack() as stack:
        model = place.root / "first" / "model.pt"
        first = start(place.search(model.parent, SHORT), place.root / "first.log")
        stack.callback(_end, first)
        if _exit_code(first) != 0:
            raise SystemExit(f"the first search failed: {_end_of(place.root / 'first.log')}")
        server, port = _serve(place, model)
        stack.callback(_end, server)
        budget = f"--budget {int(seconds)}s"
        search = start(place.search(place.root / "long", f"{LONG} {budget}"), place.root / "long.log")
        stack.callback(_end, search)
        ended = threading.Event()
        image = next(iter(sorted(place.images.rglob("*.png")))).read_bytes()
        client = threading.Thread(target=keep_asking, args=(port, image, ended, tally), daemon=True)
        client.start()
        soak = Soak(AtWork(place, search, server, random.Random(seed)), tally, seconds, every, seed)
        soak.run()
        ended.set()
        client.join()
        tally.wrong += _endings_of(search, server, place, seconds)
    return figure_of(tally, soak.growths(), seconds)


def _serve(place: Place, model: Path) -> tuple[subprocess.Popen[bytes], int]:
    log = place.root / "server.log"
    process = start([*place.command, "serve", str(model), "--port", "0", "--device", "cpu"], log)
    if not _wait_until(lambda: b"http://127.0.0.1:" in log.read_bytes() or process.poll() is not None):
        raise SystemExit("the server does not start")
    told = log.read_text("utf-8", "replace")
    if "http://127.0.0.1:" not in told:
        raise SystemExit(f"the server did not start: {told[-300:]}")
    return process, int(told.partition("http://127.0.0.1:")[2].split()[0].split("/")[0])


def _endings_of(
    search: subprocess.Popen[bytes], server: subprocess.Popen[bytes], place: Place, seconds: float
) -> list[str]:
    wrong = []
    code = _exit_code(search)
    if code != 0:
        wrong.append(f"the long search ended with {code}: {_end_of(place.root / 'long.log')}")
    report = place.root / "long" / "report.json"
    if code == 0 and json.loads(report.read_text("utf-8"))["stop_reason"] != "budget":
        wrong.append(f"the long search ended before its {seconds:g} s were over")
    if server.poll() is not None:
        wrong.append(f"the server ended with {server.returncode}: {_end_of(place.root / 'server.log')}")
        return wrong
    server.terminate()
    code = _exit_code(server)
    return wrong if code == 0 else [*wrong, f"the server ended with {code} when it was told to"]


# --- a disk that can be filled ----------------------------------------------------------------------------------------


def with_own_mounts(arguments: Sequence[str]) -> None:
    """Begin again where file systems can be mounted that nobody else sees; returns where that cannot be had."""
    if _OWN_MOUNTS in os.environ or not shutil.which("unshare"):
        return
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return
    os.environ[_OWN_MOUNTS] = "1"
    os.execvp("unshare", ["unshare", "--mount", sys.executable, __file__, *arguments])


def small_disk(folder: Path) -> Path | None:
    """A file system in memory at this place; None where none can be mounted."""
    if _OWN_MOUNTS not in os.environ:
        return None
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    return None if subprocess.run(mount, capture_output=True, check=False).returncode else folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where it missed."""
    made = parser(__doc__)
    made.add_argument("--minutes", type=float, default=60.0)
    made.add_argument("--every", type=float, default=60.0, help="seconds from one fault to the next")
    options = made.parse_args(arguments)
    if arguments is None:
        with_own_mounts(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        place = Place(Path(scratch), small_disk(Path(scratch) / "small"), tuple(this_program()))
        try:
            figure = measure(place, options.minutes * 60, options.every, options.seed)
        finally:
            if place.small is not None:
                subprocess.run(["umount", str(place.small)], capture_output=True, check=False)
    return conclude(figure, options.json)


if __name__ == "__main__":
    sys.exit(main())
