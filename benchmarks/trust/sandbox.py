"""One command of the real command line in a process of its own that may touch nothing but what it was given.

The process is forked from one that has imported everything, so that a command takes its own time only. It has no
network, its home, temporary folder, cache and state lie in a folder of their own, and it is watched: which files it
writes, makes, moves and removes, and whether it connects or starts anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import selectors
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from trust.watched import FORBIDDEN, Watch, bound, leave_network

#: What a payload leaves where it runs: no file of this name may ever be there.
MARKER = "automl-vision-was-here"
#: Imported before anything is forked.
SERVED = (
    *("automl_vision.cli.app", "automl_vision.cli.progress", "automl_vision.cli.result", "automl_vision.pipeline"),
    *(
        f"automl_vision.cli.{name}"
        for name in ("search", "predict", "inspect", "report", "evaluate", "export", "shard")
    ),
    *("automl_vision.onnx_predictor", "automl_vision.predictor", "automl_vision.data.listing", "onnxruntime", "timm"),
    *("pyarrow.parquet", "matplotlib.backends.backend_svg", "automl_vision.data.lineage.comparison"),
)
#: Folders of the sandbox that a command may write to.
OWN = ("out", "home", "tmp")
#: Events that say which path is changed, and where among their arguments.
_CHANGES = {"open": 0, "os.mkdir": 0, "os.remove": 0, "os.rename": 1, "os.rmdir": 0, "os.symlink": 1, "os.link": 1,
            "os.truncate": 0, "shutil.copyfile": 1, "shutil.rmtree": 0}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: What a terminal acts on, but for the line feed; and what turns the direction of writing.
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
#: Other programs' files that every process opens for writing.
_HARMLESS = ("/dev/null", "/dev/tty", "/proc/self/")


@dataclass(frozen=True)
class Ended:
    """What a command left.

    Attributes:
        code: exit code; negative for a signal.
        out, err: what it printed.
        events: connections, processes, and changes outside of what is its own.
        seconds: of the clock.
    """

    code: int
    out: str
    err: str
    events: tuple[str, ...]
    seconds: float

    def faults(self, codes: Sequence[int]) -> list[str]:
        """What is not as promised, where the command may end with one of `codes`."""
        errors = len(re.findall(r"^(?:Error|Stopped):", self.err, re.MULTILINE))
        found = {
            f"exit code {self.code}, not one of {list(codes)}: {self.err.strip()[-300:]}": self.code not in codes,
            "a traceback": "Traceback" in self.err,
            f"an internal error: {self.err[-300:]}": "Internal error" in self.err,
            f"{errors} error lines": self.code not in (0, 3) and errors != 1,
            "no fix": self.code not in (0, 130) and "Fix: " not in self.err,
            f"control characters {CONTROLS.findall(self.out + self.err)[:5]}": bool(
                CONTROLS.search(self.out + self.err)
            ),
            f"did {'; '.join(self.events)[:400]}": bool(self.events),
        }
        return [what for what, is_so in found.items() if is_so]


class Sandbox:
    """A folder, and commands in it.

    Args:
        folder: made by the caller; what lies in it before a command, beside `OWN`, must be the same after it.
        seconds: after which a command is called hung, and killed.
        network: leave the network where it is.
    """

    def __init__(self, folder: Path, seconds: float = 600.0, *, network: bool = False) -> None:
        self.folder = folder
        self._seconds, self._network = seconds, network
        for name in OWN:
            (folder / name).mkdir(exist_ok=True)

    def run(self, arguments: Sequence[str | Path | bytes], also: Sequence[Path] = ()) -> Ended:
        """One command.

        Args:
            arguments: of the command line.
            also: folders that it may write to, such as that of a run that it goes on with.
        """
        before = self._seen(also)
        read, write = os.pipe()
        streams = [tempfile.TemporaryFile(dir=self.folder.parent) for _ in range(2)]  # noqa: SIM115 - closed by _text
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._become(list(map(os.fsdecode, arguments)), also, write, [stream.fileno() for stream in streams])
        os.close(write)
        told, code = self._wait(child, read)
        out, err = (_text(stream) for stream in streams)
        changed = sorted(name for name in self._changed(before, also))
        events = (*told, *(f"changed {name}" for name in changed))
        return Ended(code, out, err, events, time.monotonic() - began)

    def _become(self, arguments: list[str], also: Sequence[Path], tell: int, streams: Sequence[int]) -> None:
        """What the child does; it never returns."""
        code = 1
        seen: list[str] = []
        try:
            os.setsid()
            if not self._network and not leave_network():
                raise RuntimeError("this process cannot be taken off the network")
            bound(data=6 << 30, file=256 << 20)
            _environment(self.folder)
            for stream, target in zip(streams, (1, 2), strict=True):
                os.dup2(stream, target)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            allowed = tuple(os.path.realpath(each) + os.sep for each in (*(self.folder / name for name in OWN), *also))
            watch, changes = Watch(FORBIDDEN), _changes_outside(allowed, seen)
            sys.addaudithook(changes)
            with watch.on() as events:
                code = _call(arguments)
            seen += events
        except BaseException as error:  # noqa: BLE001 - the parent has to hear of it
            seen.append(f"the sandbox itself: {type(error).__name__}: {error}")
        finally:
            os.write(tell, json.dumps(seen[:20]).encode("ascii", "backslashreplace"))
            os._exit(code)

    def _wait(self, child: int, read: int) -> tuple[list[str], int]:
        waiting = selectors.DefaultSelector()
        waiting.register(read, selectors.EVENT_READ)
        told: list[str] = []
        parts = []
        end = time.monotonic() + self._seconds
        while waiting.select(max(0.0, end - time.monotonic())):
            parts.append(os.read(read, 1 << 16))
            if not parts[-1]:
                break
        else:
            os.killpg(child, signal.SIGKILL)
            told.append(f"hung for {self._seconds:.0f} s")
        waiting.close()
        os.close(read)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return [*told, *(json.loads(b"".join(parts)) if any(parts) else ["it told nothing: it crashed"])], code

    def _seen(self, also: Sequence[Path]) -> Mapping[str, str]:
        """Everything in the folder that is not a command's own: name -> what it is."""
        own = {self.folder / name for name in OWN} | set(also)
        there = (Path(place, name) for place, folders, files in os.walk(self.folder) for name in (*folders, *files))
        return {
            str(path.relative_to(self.folder)): _state(path)
            for path in there
            if not any(path.is_relative_to(each) for each in own)
        }

    def _changed(self, before: Mapping[str, str], also: Sequence[Path]) -> set[str]:
        after = self._seen(also)
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        ran = {str(path.relative_to(self.folder)) for path in self.folder.rglob(MARKER)}
        return changed | ran


def serve_imports() -> None:
    """Import in this process what commands import, so that it need not be done in each."""
    for name in SERVED:
        import_module(name)


def _call(arguments: list[str]) -> int:
    from automl_vision.cli import search
    from automl_vision.cli.app import main

    sys.argv = ["automl-vision", *arguments]
    vars(search)["PROCESS_START"] = time.monotonic()
    try:
        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _environment(folder: Path) -> None:
    home = folder / "home"
    places = {
        "HOME": home,
        "TMPDIR": folder / "tmp",
        "XDG_STATE_HOME": home / "state",
        "XDG_CACHE_HOME": home / "cache",
    }
    os.environ.update({name: str(place) for name, place in places.items()})
    os.environ.update({"COLUMNS": "200", "HF_HUB_CACHE": str(home / "hub"), "OMP_NUM_THREADS": "1"})
    tempfile.tempdir = None
    os.chdir(folder / "out")


def _changes_outside(allowed: tuple[str, ...], seen: list[str]) -> Any:
    def take(event: str, arguments: tuple[Any, ...]) -> None:
        place = _CHANGES.get(event)
        if place is None or (event == "open" and not (arguments[2] or 0) & _WRITES):
            return
        path = arguments[place]
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor: who opened it was seen
        named = Path(os.fsdecode(path))
        real = str(named.parent.resolve() / named.name)
        if event == "open" and named.is_symlink():
            real = str(named.resolve())
        if not f"{real}{os.sep}".startswith(allowed) and not real.startswith(_HARMLESS):
            seen.append(f"{event} {real[:200]!r}")

    return take


def _state(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else "no file"


def _text(stream: Any) -> str:
    stream.seek(0)
    text: str = stream.read().decode("utf-8", "backslashreplace")
    stream.close()
    return text
