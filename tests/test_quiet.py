"""Importing the package starts nothing: no connection, no process, no file written. Nor does asking for help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
#: Calls a program under an audit hook that writes down what leaves the process, each with who was at work.
WATCH = """
import json, os, sys, threading

TOLD = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.", "urllib.",
        "http.", "ftplib.", "smtplib.", "webbrowser.", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link",
        "os.symlink", "os.truncate", "os.chmod", "shutil.", "tempfile.", "sqlite3.connect")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
told = []

def watch(event, arguments):
    opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
    if (event.startswith(TOLD) or opened) and arguments[:1] != (os.devnull,):
        frame, at = sys._getframe(1), []
        while frame is not None:
            at.append(frame.f_code.co_filename)
            frame = frame.f_back
        told.append([event, repr(arguments)[:200], at[:6]])

sys.addaudithook(watch)
try:
    exec(sys.argv[1])
finally:
    sys.stderr.flush()
    print("\\n" + json.dumps(told))
"""
EVERY_MODULE = """
import importlib, pkgutil, automl_vision
for found in pkgutil.walk_packages(automl_vision.__path__, "automl_vision."):
    if found.name != "automl_vision.__main__":
        importlib.import_module(found.name)
print(sum(name.startswith("automl_vision.") for name in sys.modules))
"""
HELP = """
from automl_vision.cli.app import main
sys.argv = ["automl-vision", *{line!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
"""


def watched(program: str, home: Path) -> tuple[str, list[list[object]]]:
    """What a program prints, and what it did that others could notice; its home is empty and its caches are there."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        environment.pop(name, None)
    line = [sys.executable, "-c", WATCH, program]
    ended = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=home, check=False)
    assert ended.returncode == 0, ended.stderr
    said, _, told = ended.stdout.rstrip("\n").rpartition("\n")
    return said, json.loads(told)


def test_importing_every_module_does_nothing_that_others_could_notice(tmp_path: Path) -> None:
    said, told = watched(EVERY_MODULE, tmp_path)
    assert told == []
    assert int(said.split()[-1]) > 150
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", [["--help"], ["search", "--help"], ["--version"]], ids=" ".join)
def test_help_does_nothing_that_others_could_notice(tmp_path: Path, line: list[str]) -> None:
    said, told = watched(HELP.format(line=line), tmp_path)
    assert told == []
    assert "automl-vision" in said
    assert list(tmp_path.iterdir()) == []
