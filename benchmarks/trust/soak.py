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

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cluster.runs import start, this_program
from trust.figure import Figure, conclude, parser
from trust.growth import Growth, Sample, growths, look
from trust.soak_faults import (
    ENDINGS,
    LONG,
    PASSING,
    SHORT,
    AtWork,
    Place,
    Tally,
    completed,
    end_all,
    end_of,
    exit_code,
    keep_asking,
    sizes_in,
    suffer,
    wait_until,
)

SAMPLED_EVERY = 3.0
#: Bytes that caches, temporary files and the history may end above what they were after the first short search.
DISK_ALLOWED = 4_000_000
#: Files of weights and checkpoints that a search may keep at once, in units of the largest.
MOST_WEIGHTS = 24.0
#: Of the file system that runs full.
SMALL_DISK = "400m"
_OWN_MOUNTS = "SOAK_HAS_ITS_OWN_MOUNTS"


def draw_pictures(folder: Path, seed: int, classes: int = 3, each: int = 20) -> None:
    """Noise of 32 pixels in class folders: nothing to be learned, so no search ends for having learned it all."""
    rng = np.random.default_rng(seed)
    for number in range(classes):
        (folder / f"class {number}").mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class {number}" / f"{index:03d}.png")


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
        stack.callback(end_all, first)
        if exit_code(first) != 0:
            raise SystemExit(f"the first search failed: {end_of(place.root / 'first.log')}")
        server, port = _serve(place, model)
        stack.callback(end_all, server)
        budget = f"--budget {int(seconds)}s"
        search = start(place.search(place.root / "long", f"{LONG} {budget}"), place.root / "long.log")
        stack.callback(end_all, search)
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
    if not wait_until(lambda: b"http://127.0.0.1:" in log.read_bytes() or process.poll() is not None):
        raise SystemExit("the server does not start")
    told = log.read_text("utf-8", "replace")
    if "http://127.0.0.1:" not in told:
        raise SystemExit(f"the server did not start: {told[-300:]}")
    return process, int(told.partition("http://127.0.0.1:")[2].split()[0].split("/")[0])


def _endings_of(
    search: subprocess.Popen[bytes], server: subprocess.Popen[bytes], place: Place, seconds: float
) -> list[str]:
    wrong = []
    code = exit_code(search)
    if code != 0:
        wrong.append(f"the long search ended with {code}: {end_of(place.root / 'long.log')}")
    report = place.root / "long" / "report.json"
    if code == 0 and json.loads(report.read_text("utf-8"))["stop_reason"] != "budget":
        wrong.append(f"the long search ended before its {seconds:g} s were over")
    if server.poll() is not None:
        wrong.append(f"the server ended with {server.returncode}: {end_of(place.root / 'server.log')}")
        return wrong
    server.terminate()
    code = exit_code(server)
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
