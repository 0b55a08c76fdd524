"""Importing the package starts nothing: no connection, no process, no file written. Nor does asking for help.

A whole search opens no connection either. What libraries do when they are imported is in a table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from make_smoke_data import make_smoke_data

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.toml"
SOURCE = Path(__file__).parents[1] / "src"
#: Calls a program under an audit hook that writes down what leaves the process, each with who was at work.
WATCH = """
import json, os, sys, threading

TOLD = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.", "urllib.",
        "http.", "ftplib.", "smtplib.", "webbrowser.", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link",
        "os.symlink", "os.truncate", "os.chmod", "shutil.", "tempfile.", "sqlite3.connect")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
told = []

def is_of_a_library(file):
    return file.startswith(os.environ["PYTHONPATH"]) or "site-packages" in file

def watch(event, arguments):
    opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
    if (event.startswith(TOLD) or opened) and arguments[:1] != (os.devnull,):
        frame = sys._getframe(1)
        while frame is not None and not is_of_a_library(frame.f_code.co_filename):
            frame = frame.f_back
        told.append([event, repr(arguments)[:200], frame.f_code.co_filename if frame else ""])

sys.addaudithook(watch)
try:
    exec(sys.argv[1])
finally:
    sys.stderr.flush()
    print("\\n" + json.dumps(told))
"""
#: Libraries that do more than define names when they are imported, and what.
KNOWN = {
    "cuda": "torch asks ldconfig where CUDA's libraries are",
    "dill": "torch imports it where it is installed; it makes the name of a temporary file",
    "filelock": "it tries in a temporary folder whether there are hard links",
    "matplotlib": "it keeps a list of fonts in the user's cache, which it asks fc-list for",
}
#: The same while a model is searched, and used.
KNOWN_IN_A_SEARCH = {
    "torch": "a folder for what it compiles, in the user's cache",
    "wandb": "timm imports it where it is installed; it makes temporary folders",
}
PROCESSES = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.")
CONNECTIONS = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.")
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


#: Calls commands one after the other in one process.
COMMANDS = """
import json, sys
from automl_vision.cli.app import main
for line in {lines!r}:
    sys.argv = ["automl-vision", *line]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (line, ended.code)
"""


def watched(program: str, home: Path) -> tuple[str, list[list[str]]]:
    """What a program prints, and what it did that others could notice: event, arguments, and the file that did it.

    Its home is an empty folder.
    """
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}
    # The last one torch writes into the environment of any process that compiles, as a test before may have.
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):
        environment.pop(name, None)
    line = [sys.executable, "-c", WATCH, program]
    ended = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=home, check=False)
    assert ended.returncode == 0, ended.stderr
    said, _, told = ended.stdout.rstrip("\n").rpartition("\n")
    return said, json.loads(told)


def test_importing_every_module_does_nothing_that_others_could_notice(tmp_path: Path) -> None:
    said, told = watched(EVERY_MODULE, tmp_path)
    assert int(said.split()[-1]) > 150
    assert [each for each in told if each[0].startswith(CONNECTIONS)] == []
    assert [each for each in told if library_of(each[2]) not in KNOWN] == []
    assert {file.name for folder in tmp_path.iterdir() for file in folder.iterdir()} <= {"matplotlib"}


def library_of(file: str) -> str:
    """The package of site-packages that a file belongs to; the file where it belongs to none."""
    _, found, inside = file.rpartition("/site-packages/")
    return inside.partition("/")[0] if found else file


def test_the_hook_sees_what_it_is_there_for(tmp_path: Path) -> None:
    program = "import socket, subprocess; open('a', 'w').close(); socket.socket(); subprocess.run(['true'])"
    _, told = watched(program, tmp_path)
    assert {"open", "socket.__new__", "subprocess.Popen"} <= {event for event, _, _ in told}


@pytest.mark.parametrize("line", [["--help"], ["search", "--help"], ["--version"]], ids=" ".join)
def test_help_does_nothing_that_others_could_notice(tmp_path: Path, line: list[str]) -> None:
    said, told = watched(HELP.format(line=line), tmp_path)
    assert told == []
    assert "automl-vision" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_search_and_what_follows_open_no_connection_and_write_where_they_were_told(tmp_path: Path) -> None:
    """Without `--offline`, so that nothing but the code itself keeps it from asking."""
    data, out = tmp_path / "data", tmp_path / "run"
    make_smoke_data(data)
    image = next(data.rglob("*.png"))
    lines = [
        ["search", "--data", str(data), "--config", str(SMOKE), "--online", "--out", str(out), "--device", "cpu"],
        ["predict", str(out / "model.pt"), str(image)],
        ["evaluate", str(out / "model.pt"), "--data", str(data), "--include-seen"],
        ["report", str(out), "--verify"],
        ["report", str(out)],
    ]
    _, told = watched(COMMANDS.format(lines=lines), tmp_path)
    assert (out / "report.html").is_file()
    woken = str(SOURCE / "automl_vision" / "cli" / "signals.py")
    told = [each for each in told if not (each[0] == "socket.__new__" and each[2] == woken)]  # a pair, to wake itself
    assert [each for each in told if each[0].startswith(CONNECTIONS)] == []
    ours = [each for each in told if each[2].startswith(str(SOURCE)) and each[0] != "sqlite3.connect/handle"]
    assert len(ours) > 50
    ours = [each for each in ours if each[:2] != ["sqlite3.connect", "(':memory:',)"]]  # an empty study to draw from
    assert [each for each in ours if str(tmp_path) not in each[1] or each[0].startswith(PROCESSES)] == []
    others = [each for each in told if not each[2].startswith(str(SOURCE))]
    assert [each for each in others if library_of(each[2]) not in {**KNOWN, **KNOWN_IN_A_SEARCH}] == []
    assert [each for each in others if "torchinductor_" in each[1]] == []
