"""Help and wrong command lines answer at once: nothing heavy is imported for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from automl_vision.cli.app import COMMANDS

HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "optuna",
    "matplotlib",
    "sklearn",
    "pandas",
    "numpy",
    "PIL",
    "scipy",
    "pyarrow",
    "fastapi",
    "onnxruntime",
    "uvicorn",
}
LIGHT = [
    [],
    ["--help"],
    ["--version"],
    *([name, "--help"] for name in COMMANDS),
    ["serch"],
    ["search"],
    ["search", "--bugdet", "1m"],
    ["search", "--data", "x", "--budget", "soon"],
    ["search", "--data", "nowhere"],
    ["search", "--resume", "nowhere"],
    ["search", "--data", "x", "--config", "nowhere.toml"],
    ["inspect", "--data", "nowhere"],
    ["inspect", "--data", "pipe:cat"],
    ["search", "--data", "http://host/shards"],
    ["shard"],
    ["shard", "--data", "nowhere", "--out", "x"],
    ["shard", "--verify", "ftp://host/shards"],
    ["predict"],
    ["predict", "nowhere.pt", "x.jpg"],
    ["evaluate", "nowhere.pt", "--data", "nowhere"],
    ["report", "nowhere"],
    ["export"],
    ["export", "nowhere.pt", "--format", "onnx"],
    ["export", "nowhere.pt", "--format", "other"],
    ["predict", "nowhere.onnx", "x.jpg"],
    ["serve"],
    ["serve", "nowhere.pt"],
    ["serve", "nowhere.pt", "--port", "70000"],
    ["cache", "clear"],
]
#: Calls `main` once per command line in one process, and says after each what was imported by then.
SCRIPT = """
import contextlib, io, json, sys
from automl_vision.cli.app import main
heavy, lines = json.loads(sys.argv[1])
for line in lines:
    sys.argv = ["automl-vision", *line]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit as left:
            code = left.code
    print(json.dumps([code, sorted(set(heavy) & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit code and heavy modules imported so far, for each line of `LIGHT`."""
    given = json.dumps([sorted(HEAVY), LIGHT])
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, given],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("empty"),
        env=environment(),
    )
    return [json.loads(line) for line in ended.stdout.splitlines()]


def environment():
    source = Path(__file__).parents[2] / "src"
    return {**os.environ, "PYTHONPATH": str(source)}


@pytest.mark.parametrize("place", range(len(LIGHT)), ids=[" ".join(line) or "nothing" for line in LIGHT])
def test_nothing_heavy_is_imported(answers, place):
    code, heavy = answers[place]
    assert heavy == []
    assert code == (0 if {"--help", "--version"} & set(LIGHT[place]) else 2)


def test_predicting_starts_without_what_only_a_search_needs(finished):
    """Seconds of a cold start that a bare script with torch and timm does not pay either."""
    commands = {f"automl_vision.cli.{name}" for name in COMMANDS if name != "predict"}
    unneeded = sorted(
        (HEAVY - {"torch", "torchvision", "timm", "numpy", "PIL"}) | commands | {"automl_vision.config", "rich.table"}
    )
    image = next(finished.data.rglob("*.png"))
    script = (
        "import sys\nfrom automl_vision.cli.app import main\n"
        f"sys.argv = ['automl-vision', 'predict', {str(finished.path / 'model.pt')!r}, {str(image)!r}]\n"
        f"try:\n    main()\nfinally:\n    print('loaded:', sorted(set({unneeded!r}) & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert ended.stdout.endswith("loaded: []\n")


def test_the_package_alone_imports_nothing_heavy():
    script = (
        f"import sys, automl_vision; print({sorted(HEAVY)!r} and sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert ended.stdout == "[]\n"


def test_the_module_is_the_command():
    ended = subprocess.run(
        [sys.executable, "-m", "automl_vision", "--version"], capture_output=True, text=True, env=environment()
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("automl-vision ")


def test_every_command_is_in_the_help_and_has_an_example(command):
    help_page = command("--help").out
    assert all(name in help_page for name in COMMANDS)
    for name in ("search", "predict", "inspect", "evaluate", "report", "serve"):
        assert f"automl-vision {name} " in command(name, "--help").out


def test_every_setting_is_an_option_of_search_with_its_help(command):
    from automl_vision.cli.options import FLAGS
    from automl_vision.config import list_settings

    page = command("search", "--help").out
    for setting in list_settings():
        name = setting.name.split(".")[1].replace("_", "-")
        option = FLAGS.get(setting.name, (f"--{name}",))[0].split("/")[0]
        assert option in page, option
        assert setting.help.split()[0] in page


def test_a_reader_that_leaves_is_no_fault():
    """Like `automl-vision search --help | head -1`."""
    line = [sys.executable, "-m", "automl_vision", "search", "--help"]
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment())
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, ""), "as of other programs; 0 would say that all was done"


def test_a_search_does_not_load_the_compiler_of_torch() -> None:
    """It takes as long as torch itself, and most searches compile nothing."""
    program = "import sys, automl_vision.pipeline; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
