"""A disk that is full, at many sizes: does a search end with one clear line, keep all it had, and go on with room?

    python benchmarks/trust/full_disk.py --sizes 30      # the whole target
    python benchmarks/trust/full_disk.py --sizes 3       # a smoke test

Each time a search writes into a file system of its own (tmpfs, in a mount namespace of this script), which is small
from the start, or shrinks to what is in use, as where another program fills the disk, at a moment that is drawn. Asked
of each search that meets its end there: exit code 5; one line that says so and one with what to do, and no traceback;
nothing left behind of what it was writing. Then the file system grows, and the search is resumed (or started again,
where it had not even written what it works on): it has to end with 0, with every trial that was on record as it was,
no epoch trained again, one look at the test set, figures that follow from the predictions and a model that predicts.

Where the system lets nobody mount, a limit on the size of a file takes the place of the disk: then only large files
meet their end, and the last line says so.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trust.figure import Figure, conclude, parser
from trust.run_state import clear_faults, lost_and_repeated, records
from trust.sessions import LOOK, PATIENCE, Session
from trust.tiny_search import TinySearch, faults_of_end, is_begun, looked_before, tiny_search

#: Set where this script is in a mount namespace of its own.
_INSIDE = "FULL_DISK_INSIDE"
FULL = 5
MB = 1_000_000
#: What the file system has where there is to be room.
_ROOM = 2_000 * MB
#: How often a file system that grows is asked to be as large as it is.
_TRIES = 200
#: Room for not even what says that there is a run.
_NEXT_TO_NOTHING = 8192
#: Trials of a search, and their epochs: enough for records and checkpoints to be lost.
OPTIONS = (
    "--trials 1 --epochs 2 --batch-size 8 --resolutions 32 --backbones efficientnet_lite0 --offline --device cpu "
    "--lineage names --threads 1 --no-history"
)
#: Of the sizes, this share is small from the start; of the others, room runs out while the search is at work.
_SMALL_FROM_THE_START = 0.4
#: Searches that meet no full disk, as because they needed less than was drawn, are drawn again; this often at most.
_DRAWS = 3


@dataclass
class Tally:
    """What was found.

    Attributes:
        full: searches that met a full disk.
        sizes: what the disk held, in MB, of each.
        said: what they said -> how often.
        lost: trials that were on record and are not, or are others.
        repeated: epochs that were on record and were trained again.
        again: searches that had to be started anew, as nothing was on disk yet that could be resumed.
        faults: everything else that was not as promised.
    """

    full: int = 0
    sizes: list[float] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    repeated: int = 0
    again: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LoggedElsewhere(TinySearch):
    """A search whose output goes to a disk that is not full."""

    logs: Path = Path()

    def _started(self, arguments: Sequence[str], log: Path, *more: Any, **options: Any) -> Session:
        return super()._started(arguments, self.logs / log.name, *more, **options)


class Disk:
    """Where the run folder of a search lies."""

    #: What the last line calls it.
    name = "a full tmpfs"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        if not _mount(folder, _ROOM):
            raise RuntimeError(f"nothing can be mounted at {folder}")

    @property
    def used(self) -> int:
        """Bytes in use."""
        state = os.statvfs(self.folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def hold(self, size: int) -> None:
        """Have room for so many bytes, and never for less than there are; somebody may be writing meanwhile."""
        for _ in range(_TRIES):
            if _mount(self.folder, max(size, self.used + os.sysconf("SC_PAGE_SIZE")), again=True):
                return
        raise RuntimeError(f"{self.folder} cannot be made smaller while it grows")

    def limits(self, _size: int) -> tuple[Callable[..., object] | None, tuple[Any, ...]]:
        """What a session does first: nothing, since the disk itself is small."""
        return None, ()

    def empty(self) -> None:
        """Remove what is in it, and have room."""
        self.hold(_ROOM)
        for each in self.folder.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()

    def close(self) -> None:
        """Unmount it, also where somebody still has a file of it open."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Limit(Disk):
    """In place of a disk: no file of a session may be larger than a limit."""

    name = "a limit on the size of files, as nobody may mount here"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def used(self) -> int:
        """Bytes of the largest file."""
        return max((each.stat().st_size for each in self.folder.rglob("*") if each.is_file()), default=0)

    def hold(self, size: int) -> None:
        """A limit is of a process, and given to it at its start."""

    def limits(self, _size: int) -> tuple[Callable[..., object] | None, tuple[Any, ...]]:
        """Limit the session."""
        return limit_files, (_size,)

    def close(self) -> None:
        """Nothing was mounted."""


def limit_files(size: int) -> None:
    """No file of this process grows beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _mount(folder: Path, size: int, *, again: bool = False) -> bool:
    """Whether the system does it: it makes no file system smaller than what is in it."""
    options = f"{'remount,' if again else ''}size={size}"
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def in_own_namespace() -> bool:
    """Whether this process may mount what nobody else sees; where it might, it begins again in a place where it may."""
    if os.environ.get(_INSIDE):
        return os.environ[_INSIDE] != "no"
    for way in (["unshare", "-m"], ["unshare", "-rm"]):
        probe = [*way, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0:
            os.environ[_INSIDE] = "yes"
            os.execvp(way[0], [*way, sys.executable, *sys.argv])
    return False


def peak_of(search: TinySearch, disk: Disk, run: Path) -> int:
    """Bytes that a search takes at its peak, which has all the room it wants.

    Raises:
        RuntimeError: it failed.
    """
    peak = 0
    session = search.begin(run)
    while session.code is None and session.seconds < PATIENCE:
        peak = max(peak, disk.used)
        time.sleep(LOOK)
    if session.code != 0:
        raise RuntimeError(f"a search with room ended with {session.code}: {session.said[-500:]}")
    return peak


def meet(search: TinySearch, disk: Disk, run: Path, size: int, begins_small: bool) -> tuple[Session, int]:
    """A search whose disk holds `size` bytes from the start, or as soon as so many are in use; and what it held."""
    first, of = disk.limits(size) if begins_small or isinstance(disk, Limit) else (None, ())
    if begins_small:
        disk.hold(size)
        session = search.begin(run, first=first, of=of)
    else:
        session = search.begin(run, first=first, of=of)
        if session.runs_until(lambda _: disk.used >= size):
            disk.hold(0)
            size = disk.used
    session.wait(PATIENCE)
    return session, size


def one(search: TinySearch, disk: Disk, run: Path, size: int, begins_small: bool, tally: Tally) -> None:
    """One search that meets a full disk, if it does, and what becomes of it with room."""
    session, held = meet(search, disk, run, size, begins_small)
    if session.code == 0:
        return
    tally.full += 1
    tally.sizes.append(round(held / MB, 2))
    about = f"{held / MB:.2f} MB{'' if begins_small else ' in use'}"
    tally.said[_first_words(session.said)] += 1
    tally.faults += [f"{about}: {fault}" for fault in clear_faults(session.code, session.said, FULL)]
    left = [file.name for file in run.rglob("*.tmp")]
    tally.faults += [f"{about}: left behind {', '.join(left)}"] * bool(left)
    seen, looked = records(run), looked_before(run)
    tally.again += not is_begun(run)
    disk.hold(_ROOM)
    resumed = search.begin(run)
    if resumed.wait(PATIENCE) != 0:
        tally.faults.append(f"{about}: with room it ended with {resumed.code}: {resumed.said[-300:]}")
        return
    lost, repeated = lost_and_repeated(seen, records(run))
    tally.lost += lost
    tally.repeated += repeated
    tally.faults += [f"{about}: {fault}" for fault in faults_of_end(search, run, looked)]


def _first_words(said: str) -> str:
    return said.partition("Error:")[2].strip().partition("\n")[0].partition(":")[0][:60] or "nothing"


def sizes(count: int, peak: int, chance: random.Random) -> Iterator[tuple[int, bool]]:
    """Bytes, and whether the disk is as small as that from the start: evenly over all that a search may take."""
    small = max(1, round(_SMALL_FROM_THE_START * count))
    yield _NEXT_TO_NOTHING, True
    for place in range(small):
        yield int(peak * (place + chance.random()) / small) + 4096, True
    for place in range(_DRAWS * count):
        yield int(peak * ((place % count) + chance.random()) / count), False


def measure(search: TinySearch, disk: Disk, count: int, seed: int) -> Tally:
    """Searches that meet a full disk, `count` of them."""
    tally, run = Tally(), disk.folder / "run"
    peak = peak_of(search, disk, run)
    print(f"a search with room takes {peak / MB:.1f} MB at its peak", file=sys.stderr, flush=True)
    for size, begins_small in sizes(count, peak, random.Random(seed)):
        if tally.full >= count:
            break
        disk.empty()
        one(search, disk, run, size, begins_small, tally)
        print(f"{tally.full} of {count}: {size / MB:.2f} MB, {len(tally.faults)} faults", file=sys.stderr, flush=True)
    disk.empty()
    return tally


def figure_of(tally: Tally, count: int, disk: Disk) -> Figure:
    """The line, and what is behind it."""
    faults = list(tally.faults)
    if tally.full < count:
        faults.append(f"only {tally.full} of {count} searches met a full disk")
    said = ", ".join(f"{times} times '{words}'" for words, times in tally.said.most_common())
    span = f"{min(tally.sizes)} to {max(tally.sizes)} MB" if tally.sizes else "none"
    return Figure(
        target="R6",
        held=not (faults or tally.lost or tally.repeated),
        text=f"{tally.full} searches met {disk.name} ({span}; {said}): {tally.lost} trials lost, {tally.repeated} "
        f"epochs trained again, {len(faults)} other faults; {tally.again} had nothing yet that could be resumed",
        figures={**vars(tally), "said": dict(tally.said), "how": disk.name},
        faults=tuple(faults),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where the promise was missed."""
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, default=30, help="searches that have to meet a full disk")
    options.add_argument("--data", type=Path, help="images (default: sixty that are drawn)")
    options.add_argument("--command", help="the program to measure (default: this package)")
    options.add_argument("--no-mount", action="store_true", help="limit the size of files instead")
    given = options.parse_args(arguments)
    mounts = not given.no_mount and (arguments is not None or in_own_namespace())
    with tempfile.TemporaryDirectory() as scratch:
        found = tiny_search(Path(scratch), OPTIONS, given.command, given.data)
        search = LoggedElsewhere(found.options, found.command, Path(scratch))
        disk = (Disk if mounts else Limit)(Path(scratch) / "disk")
        try:
            tally = measure(search, disk, given.sizes, given.seed)
        finally:
            disk.close()
    return conclude(figure_of(tally, given.sizes, disk), given.json)


if __name__ == "__main__":
    sys.exit(main())
