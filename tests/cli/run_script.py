"""The commands of an example's `run.sh`, called in this process as its shell would call them."""

from __future__ import annotations

import contextlib
import io
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from command import Result, run_command

ROOT = Path(__file__).parents[2]
#: Lines that set the shell up; everything else has to be a command that is known here.
_SETUP = ("set -eu", "OUT=")


def commands(script: Path, out: Path, *options: str) -> list[list[str]]:
    """The words of each command, with `$OUT` and `"$@"` in place.

    Args:
        script: a `run.sh`.
        out: what `$OUT` is.
        options: what follows the name of the script on the command line.
    """
    joined = script.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith(("#", *_SETUP))]
    return [_words(line, out, options) for line in lines]


def _words(line: str, out: Path, options: Sequence[str]) -> list[str]:
    found: list[str] = []
    for word in shlex.split(line):
        found += options if word == "$@" else [word.replace("$OUT", str(out))]
    return found


def run_script(script: Path, out: Path, *options: str) -> list[Result]:
    """What each command left; the first that fails ends it, as `set -e` does."""
    left: list[Result] = []
    with contextlib.chdir(ROOT):
        for words in commands(script, out, *options):
            call, file = _redirected(words)
            left.append(_CALLS[call[0]](call[1:]))
            assert left[-1].code == 0, (call, left[-1].err)
            if file:
                Path(file).write_text(left[-1].out, encoding="utf-8")
    return left


def _redirected(words: list[str]) -> tuple[list[str], str]:
    """A command, and the file that its output goes to; empty where it goes nowhere."""
    if ">" not in words:
        return words, ""
    place = words.index(">")
    (file,) = words[place + 1 :]
    return words[:place], file


def _python(words: list[str]) -> Result:
    out = io.StringIO()
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(out):
        runpy.run_path(words[0], run_name="__main__")
    return Result(0, out.getvalue(), "")


_CALLS = {"automl-vision": lambda words: run_command(*words), "python": _python}
