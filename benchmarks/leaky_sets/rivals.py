"""Other tools, each in an environment of its own: many of them cannot live in one.

Their environments are made by `uv run --isolated`, which needs a package index the first time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaky_sets import rival_programs
from leaky_sets.judging import Join, Verdict, groups_of

#: Seconds after which a tool is given up.
_PATIENCE = 3_600

_IMAGEDEDUP = ("imagededup==0.3.3.post2",)
#: Program -> packages that it is run with; none: the environment that runs this.
RIVALS: dict[str, tuple[str, ...]] = {
    "phash_8_turns": ("imagehash==4.3.2",),
    "dhash_8_turns": ("imagehash==4.3.2",),
    "pdq_8_turns": ("pdqhash==0.2.7", "numpy<2", "pillow"),
    "imagededup_phash": _IMAGEDEDUP,
    "imagededup_dhash": _IMAGEDEDUP,
    "imagededup_cnn": _IMAGEDEDUP,  # wants weights from a hub
    "cleanvision": ("cleanvision==0.3.7",),
    "embedding_cosine": (),
}


class RivalFailed(Exception):
    """A tool did not run; the text says why."""


def ask(name: str, files: Sequence[str], images: Path) -> tuple[Verdict, dict[str, Any]]:
    """What a tool joins, and its costs: seconds of its own work, without starting Python.

    Args:
        name: a row of `RIVALS`.
        files: all files of the set, below `images`.
        images: the folder of classes.

    Raises:
        RivalFailed: it did not end well.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "pairs.json"
        done = _run([*_python(RIVALS[name]), rival_programs.__file__, name, str(images), str(out)], name)
        if done.returncode or not out.is_file():
            raise RivalFailed(_last_line(done.stderr) or f"{name} ended with {done.returncode}")
        told = json.loads(out.read_text("utf-8"))
    joins = tuple(Join(first, second) for first, second in told["pairs"])
    seconds = float(told["seconds"])
    costs = {"files": len(files), "seconds": round(seconds, 2), "images_per_second": round(len(files) / seconds, 2)}
    return Verdict(groups_of(files, joins), joins), costs


def _python(packages: tuple[str, ...]) -> list[str]:
    if not packages:
        return [sys.executable]
    brought = [word for package in packages for word in ("--with", package)]
    return ["uv", "run", "--quiet", "--no-project", "--isolated", "--python", "3.11", *brought, "python"]


def _run(command: list[str], name: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired as late:
        raise RivalFailed(f"{name} took longer than {_PATIENCE} s") from late


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
