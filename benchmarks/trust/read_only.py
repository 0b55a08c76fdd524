"""Output, cache or a run that may not be written: is it said at once, and does what needs no writing work?

    python benchmarks/trust/read_only.py                          # all scenes
    python benchmarks/trust/read_only.py --scenes output,run      # a smoke test

As a user without rights; root may write anywhere, so sessions of root's give up its rights first (capset):

- output: a search whose folder cannot be made, and one whose folder is somebody else's, end with 2 before any work.
- run: of a finished run that may only be read, `predict`, `evaluate`, `report --verify` and `export --out` elsewhere
  work; `report`, `search --resume` of one that is not complete, and what else writes there end with 2.
- hidden: a run that may not even be read is named, with 2.
- cache: a search whose cache folder may not be written comes to its end, and says that images are not kept.
- midway: the folder of a search is closed while it is at work: exit code 2. Opened again, the search goes on, with all
  that it had.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trust.figure import Figure, conclude, parser
from trust.run_state import clear_faults, lost_and_repeated, records
from trust.sessions import PATIENCE, Session
from trust.tiny_search import TinySearch, faults_of_end, looked_before, tiny_search

REFUSED = 2
#: Of the header of `capset`.
_THIRD_VERSION = 0x20080522
OPTIONS = (
    "--trials 1 --epochs 4 --batch-size 8 --resolutions 32 --backbones efficientnet_lite0 --offline --device cpu "
    "--lineage names --threads 1 --no-history"
)
_CLOSED, _OPEN = 0o555, 0o755


@dataclass
class Told:
    """What was found in one scene.

    Attributes:
        name: of the scene.
        calls: of commands.
        refused: of them.
        faults: what was not as promised.
    """

    name: str
    calls: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    def take(self, what: str, session: Session, code: int, *words: str) -> None:
        """A command that has ended, and how it had to."""
        self.calls += 1
        self.refused += session.code == REFUSED
        self.faults += [f"{what}: {each}" for each in clear_faults(session.code, session.said, code)]
        missing = [word for word in words if word not in session.said]
        self.faults += [f"{what}: it does not say {word!r}: {session.said[-300:]!r}" for word in missing]


@dataclass(frozen=True)
class Unprivileged(TinySearch):
    """A search, and other commands, of a user without rights.

    Attributes:
        home: of that user.
    """

    home: str = ""

    def call(self, log: Path, *arguments: str) -> Session:
        """A command that has ended; `log` is where nobody minds."""
        session = self.start(log, *arguments)
        session.wait(PATIENCE)
        return session

    def start(self, log: Path, *arguments: str) -> Session:
        """A command."""
        return self._started(arguments, log, False, give_up_rights, (self.home,))


class _Rights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


def give_up_rights(home: str) -> None:
    """This process goes on as one whom modes of files bind: it may be root's, and has none of its rights.

    Raises:
        OSError: the system does not let it.
    """
    os.environ.update(HOME=home, XDG_CACHE_HOME=f"{home}/cache", XDG_STATE_HOME=f"{home}/state", TMPDIR=home)
    tempfile.tempdir = None
    if os.geteuid() != 0:
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.capset(ctypes.byref(_Header(_THIRD_VERSION, 0)), (_Rights * 2)()) != 0:
        raise OSError(ctypes.get_errno(), "this process cannot give up the rights of root")


@dataclass(frozen=True)
class Scene:
    """What happens where.

    Attributes:
        search: of the user without rights.
        own: a folder of that user.
        finished: a run that came to its end, of somebody else, which may be read.
        image: one that can be predicted.
        data: the images.
        log: where commands print to.
    """

    search: Unprivileged
    own: Path
    finished: Path
    image: Path
    data: Path
    log: Path

    def call(self, *arguments: str) -> Session:
        """A command of that user, which has ended."""
        return self.search.call(self.log, *arguments)

    def begun(self, run: Path) -> list[str]:
        """The arguments of a search that makes a run."""
        return ["search", *self.search.options, "--out", str(run), "--quiet"]


@contextmanager
def _closed(folder: Path) -> Iterator[Path]:
    folder.chmod(_CLOSED)
    try:
        yield folder
    finally:
        folder.chmod(_OPEN)


def output(scene: Scene, told: Told) -> None:
    """Where nothing can be made."""
    shut = scene.own / "shut"
    shut.mkdir()
    with _closed(shut):
        told.take("a folder below", scene.call(*scene.begun(shut / "run")), REFUSED, str(shut / "run"), "--out")
        told.take("the folder itself", scene.call(*scene.begun(shut)), REFUSED, str(shut), "--out")
        if list(shut.iterdir()):
            told.faults.append(f"something was written: {[each.name for each in shut.iterdir()]}")


def run(scene: Scene, told: Told) -> None:
    """A run that may be read."""
    model = str(scene.finished / "model.pt")
    place = str(scene.own / "model.ts")
    works = {
        "predict": ["predict", model, str(scene.image), "--format", "json"],
        "evaluate": ["evaluate", model, "--data", str(scene.data), "--quiet"],
        "verify": ["report", str(scene.finished), "--verify"],
        "export elsewhere": ["export", model, "--format", "torchscript", "--out", place],
    }
    for what, line in works.items():
        told.take(what, scene.call(*line), 0)
    refused = {
        "report": ["report", str(scene.finished)],
        "export": ["export", model, "--format", "torchscript"],
        "predict --out": ["predict", model, str(scene.image), "--out", str(scene.finished / "p.csv")],
        "resume": ["search", "--resume", str(scene.finished), "--quiet"],
    }
    before = sorted(each.name for each in scene.finished.iterdir())
    for what, line in refused.items():
        told.take(what, scene.call(*line), REFUSED, str(scene.finished))
    if sorted(each.name for each in scene.finished.iterdir()) != before:
        told.faults.append("something was written")


def hidden(scene: Scene, told: Told) -> None:
    """A run that may not be read."""
    secret = scene.finished.parent / "secret"
    shutil.copytree(scene.finished, secret)
    secret.chmod(0)
    try:
        for line in (
            ["search", "--resume", str(secret), "--quiet"],
            ["report", str(secret)],
            ["predict", str(secret / "model.pt"), str(scene.image)],
            ["evaluate", str(secret / "model.pt"), "--data", str(scene.data), "--quiet"],
        ):
            told.take(line[0], scene.call(*line), REFUSED, str(secret))
    finally:
        secret.chmod(_OPEN)


def cache(scene: Scene, told: Told) -> None:
    """A cache that may not be written."""
    shut = scene.own / "cache"
    shut.mkdir()
    place = scene.own / "without-cache"
    options = list(scene.search.options)
    options[options.index("--cache-dir") + 1] = str(shut)
    with _closed(shut):
        session = scene.call("search", *options, "--out", str(place))
        told.take("search", session, 0, "not kept")
        told.faults += faults_of_end(scene.search, place, 0) if session.code == 0 else []
        if list(shut.iterdir()):
            told.faults.append("something was written")


def midway(scene: Scene, told: Told) -> None:
    """A folder that is closed meanwhile."""
    place = scene.own / "midway"
    session = scene.search.start(scene.log, *scene.begun(place))
    if not session.runs_until(lambda _: len(records(place)) > 1):
        told.faults.append(f"the search ended too early: {session.said[-300:]!r}")
        return
    shut = [place, *(each for each in place.rglob("*") if each.is_dir())]
    for each in shut:
        each.chmod(_CLOSED)
    session.wait(PATIENCE)
    told.take("search", session, REFUSED, str(place))
    for each in shut:
        each.chmod(_OPEN)
    seen, looked = records(place), looked_before(place)
    told.take("resume", scene.call("search", "--resume", str(place), "--quiet"), 0)
    lost, repeated = lost_and_repeated(seen, records(place))
    if lost or repeated:
        told.faults.append(f"{lost} trials lost, {repeated} epochs trained again")
    told.faults += faults_of_end(scene.search, place, looked)


SCENES: dict[str, Callable[[Scene, Told], None]] = {
    "output": output,
    "run": run,
    "hidden": hidden,
    "cache": cache,
    "midway": midway,
}


def prepared(scratch: Path, command: str | None, data: Path | None) -> Scene:
    """A finished run of root's, or of whoever this is, that may be read, and a user without rights.

    Raises:
        RuntimeError: the search failed.
    """
    scratch.chmod(_OPEN)
    search = tiny_search(scratch, OPTIONS, command, data)
    finished = scratch / "finished"
    first = search.begin(finished)
    if first.wait(PATIENCE) != 0:
        raise RuntimeError(f"the search failed: {first.said[-500:]}")
    for each in [finished, *finished.rglob("*"), *(scratch / "cache").rglob("*"), scratch / "cache"]:
        each.chmod(_CLOSED if each.is_dir() else 0o444)
    own = scratch / "own"
    own.mkdir()
    images = Path(search.options[search.options.index("--data") + 1])
    image = min(each for each in images.rglob("*.png"))
    user = Unprivileged(search.options, search.command, str(own))
    return Scene(user, own, finished, image, images, scratch / "log.txt")


def figure_of(found: Sequence[Told]) -> Figure:
    """The line, and what is behind it."""
    faults = [f"{told.name}: {fault}" for told in found for fault in told.faults]
    calls, refused = sum(told.calls for told in found), sum(told.refused for told in found)
    return Figure(
        target="read only",
        held=not faults and calls > 0,
        text=f"{calls} calls by a user without rights ({', '.join(told.name for told in found)}): {refused} refused, "
        f"{len(faults)} faults",
        figures={told.name: vars(told) for told in found},
        faults=tuple(faults),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where the promise was missed."""
    options = parser(__doc__)
    options.add_argument("--scenes", default=",".join(SCENES), help=f"of {', '.join(SCENES)}")
    options.add_argument("--data", type=Path, help="images (default: sixty that are drawn)")
    options.add_argument("--command", help="the program to measure (default: this package)")
    given = options.parse_args(arguments)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        scene = prepared(Path(scratch), given.command, given.data)
        for name in given.scenes.split(","):
            told = Told(name)
            SCENES[name](scene, told)
            found.append(told)
            print(f"{name}: {told.calls} calls, {len(told.faults)} faults", file=sys.stderr, flush=True)
    return conclude(figure_of(found), given.json)


if __name__ == "__main__":
    sys.exit(main())
