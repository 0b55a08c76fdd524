"""What the benchmarks of interrupted runs share: starting one, its processes, and whether two runs came to the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from automl_vision.tensor_file import load_tensors

Record = dict[str, Any]
#: What two trainings of the same steps may differ in: how long they took, what memory they met, how often they began.
_OF_THE_MACHINE = ("seconds", "cpu_seconds", "seconds_per_image", "peak_bytes", "attempt", "checksum", "notes")


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A program in a process group of its own, which prints to a file."""
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
        )


def this_program() -> list[str]:
    """The command line of this very package."""
    return [sys.executable, "-m", "automl_vision"]


def records(run: Path) -> dict[int, Record]:
    """Trial number -> its record."""
    files = sorted((run / "trials").glob("[0-9]*.json"))
    return {int(file.name[:6]): json.loads(file.read_text("utf-8")) for file in files}


def outcome(run: Path) -> str:
    """A checksum of all that does not depend on the machine: recipes, figures of every epoch, kept weights."""
    digest = hashlib.blake2b(digest_size=8)
    for number, record in records(run).items():
        digest.update(json.dumps([number, timeless(record)], sort_keys=True).encode())
        best = run / "trials" / f"{number:06d}" / "best.pt"
        if best.is_file():
            weights = load_tensors(best)["weights"]
            for name in sorted(weights):
                digest.update(name.encode())
                digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def timeless(value: Any) -> Any:
    """A record, or a part of it, without what depends on the machine."""
    if isinstance(value, Mapping):
        return {key: timeless(each) for key, each in value.items() if key not in _OF_THE_MACHINE}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def ranks_of(run: Path) -> dict[int, int]:
    """Rank -> process, of those that train in the run of this folder."""
    found = {}
    for process in _processes():
        environment = _environment(process)
        if environment.get("RANK") and str(run) in _arguments(process):
            found[int(environment["RANK"])] = process
    return found


def _processes() -> Iterator[int]:
    return (int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal())


def _environment(process: int) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in _read(process, "environ"))


def _arguments(process: int) -> list[str]:
    return _read(process, "cmdline")


def _read(process: int, name: str) -> list[str]:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []  # it has ended, or belongs to somebody else
