"""What a new user gets wrong: each mistake is told with what, the value and the fix, and the right exit code."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import BY_NAMES, QUICK, assert_mistake

from make_smoke_data import make_smoke_data


@pytest.fixture
def here(tmp_path, monkeypatch, smoke):
    """A working folder with data of many kinds of wrong."""
    monkeypatch.chdir(tmp_path)
    Path("smoke").symlink_to(smoke)
    Path("file").write_text("x")
    return tmp_path


# --- the data ---------------------------------------------------------------------------------------------------


def empty_folder() -> None:
    Path("data").mkdir()


def folder_of_texts() -> None:
    for name in ("cat", "dog"):
        (Path("data") / name).mkdir(parents=True)
        (Path("data") / name / "notes.txt").write_text("no image")


def images_without_class_folders() -> None:
    make_smoke_data(Path("deep"))
    shutil.copytree("deep/circle", "data")


def one_class() -> None:
    make_smoke_data(Path("data"), classes=1)


def one_image_in_a_class() -> None:
    make_smoke_data(Path("data"))
    for file in sorted(Path("data/circle").iterdir())[1:]:
        file.unlink()


def one_class_that_can_be_read() -> None:
    make_smoke_data(Path("data"), classes=2)
    for file in Path("data/circle").iterdir():
        file.write_bytes(b"")


DATA = {
    "wrong path": (lambda: None, ["no images at this path", "data", "--data"]),
    "name too long": (lambda: None, ["no images at this path", "too long"]),
    "empty folder": (empty_folder, ["the folder is empty", "data/cat/1.jpg"]),
    "texts": (folder_of_texts, ["no images in this folder", "2 .txt", "put each class into its own folder"]),
    "no class folders": (images_without_class_folders, ["not in class folders", "7 images"]),
    "one class": (one_class, ["at least two classes", "'circle' 7", "one folder per class"]),
    "one image": (one_image_in_a_class, ["too few originals", "'circle' 1", "--drop-small-classes"]),
    "unreadable class": (one_class_that_can_be_read, ["at least two classes", "'square' 7"]),
}


@pytest.mark.parametrize("mistake", DATA)
def test_data_that_cannot_be_used(command, here, quick, mistake):
    make, parts = DATA[mistake]
    make()
    name = "data" if mistake != "name too long" else "a" * 5000
    assert_mistake(command("search", "--data", name, *quick), 2, *parts)
    assert not Path("runs").exists() or not list(Path("runs").iterdir()), "a run that cannot start leaves nothing"
    assert_mistake(command("inspect", "--data", name, "--quiet", "--no-cache", *BY_NAMES), 2, *parts)


def test_every_bad_row_of_a_table_is_listed(command, here, quick):
    Path("table.csv").write_text(
        "image,label\nsmoke/circle/0000.png,circle\nsmoke/circle/gone.png,circle\nsmoke/square/0000.png,\n"
        "smoke/square/0001.png,a,b\nhttps://example.org/x.png,circle\n"
    )
    result = command("search", "--data", "table.csv", *quick)
    assert_mistake(result, 2, "4 problems", "line 3: missing file", "line 4: empty label", "line 5", "--skip-bad-rows")
    assert "an address: download it" in result.err


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["the table is empty"]),
        ("image,label\n", ["image"]),
        ("picture_file,kind\nx.png,y\n", ["there is no image column", "--image-column", "picture_file, kind"]),
        ("image\nx.png\n", ["there is no label column", "--label-column"]),
    ],
)
def test_tables_that_are_none(command, here, quick, content, parts):
    Path("table.csv").write_text(content)
    assert_mistake(command("search", "--data", "table.csv", *quick), 2, *parts)


def test_a_file_that_is_no_data(command, here, quick):
    assert_mistake(command("search", "--data", "file", *quick), 2, "no table of images: file", ".csv")
    assert_mistake(command("search", "--data", "smoke/circle/0000.png", *quick), 2, "a single image")


# --- settings and options -----------------------------------------------------------------------------------------

OPTIONS = {
    "nothing": ([], ["either --data or --resume"]),
    "both": (["--data", "smoke", "--resume", "runs/x"], ["either --data or --resume"]),
    "typo": (["--data", "smoke", "--bugdet", "1m"], ["no such option: --bugdet", "--budget", "--help"]),
    "budget": (["--data", "smoke", "--budget", "soon"], ["search.budget", "'soon'", "10m"]),
    "no time": (["--data", "smoke", "--budget", "0s"], ["search.budget", "'0s'"]),
    "trials": (["--data", "smoke", "--trials", "-1"], ["search.trials", "-1"]),
    "no number": (["--data", "smoke", "--trials", "many"], ["'--trials'", "integer"]),
    "device": (["--data", "smoke", "--device", "tpu"], ["machine.device", "'tpu'", "auto, cpu"]),
    "backbone": (
        ["--data", "smoke", "--backbones", "resnett18", "--offline"],
        ["'resnett18'", "did you mean resnet18"],
    ),
    "sides": (["--data", "smoke", "--resolutions", "big"], ["--resolutions", "'big'", "96,128"]),
    "weights": (["--data", "smoke", "--weights", "resnet18"], ["NAME=PATH", "'resnet18'"]),
    "no weights": (
        ["--data", "smoke", "--backbones", "resnet18", "--weights", "resnet18=gone.pth", "--offline"],
        ["gone.pth", "--weights"],
    ),
    "shares": (["--data", "smoke", "--test-share", "0.6", "--val-share", "0.5"], ["nothing to train on", "0.6 + 0.5"]),
    "regex": (["--data", "smoke", "--group-regex", "("], ["group_regex", "'('"]),
    "window": (["--data", "smoke", "--burst-window", "2 parsecs"], ["burst_window", "'2 parsecs'", "3,2s"]),
    "no window": (["--data", "smoke", "--burst-window=-1"], ["burst_window", "'-1'", "3,2s"]),
    "no config": (["--data", "smoke", "--config", "gone.toml"], ["gone.toml", "No such file"]),
    "label map": (["--data", "smoke", "--label-map", "gone.csv"], ["gone.csv"]),
    "resumed with options": (["--resume", "smoke", "--budget", "1m"], ["keeps its settings", "--resume alone"]),
    "resume nothing": (["--resume", "smoke"], ["no run in this folder", "smoke"]),
    "resume nowhere": (["--resume", "gone"], ["no run at this path", "gone"]),
}


@pytest.mark.parametrize("mistake", OPTIONS)
def test_wrong_options(command, here, mistake):
    options, parts = OPTIONS[mistake]
    assert_mistake(command("search", *options), 2, *parts)


def test_all_problems_of_a_settings_file_at_once(command, here):
    Path("my.toml").write_text('[search]\nbudgt = "1m"\n[training]\nepochs = "x"\n[serach]\ntrials = 1\n')
    result = command("search", "--data", "smoke", "--config", "my.toml")
    assert_mistake(result, 2, "3 problems in my.toml:\n", "did you mean 'search.budget'", "training.epochs", "'search'")


def test_a_settings_file_that_is_no_toml(command, here):
    Path("my.toml").write_text("budget: 1m\n")
    assert_mistake(command("search", "--data", "smoke", "--config", "my.toml"), 2, "not TOML", "my.toml")


def test_a_gpu_that_is_not_here(command, here, quick, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = command("search", "--data", "smoke", *quick, "--device", "cuda:3", "--out", "run")
    assert_mistake(result, 2, "not on this machine: 'cuda:3'", "--device auto")
    assert not Path("run").exists()


# --- where the results go -----------------------------------------------------------------------------------------


def test_an_output_folder_that_holds_something(command, here, quick, finished):
    Path("full").mkdir()
    Path("full/thesis.docx").write_text("x")
    result = command("search", "--data", "smoke", *quick, "--out", "full")
    assert_mistake(result, 2, "not empty: full", "--out")
    assert Path("full/thesis.docx").read_text() == "x"
    result = command("search", "--data", "smoke", *quick, "--out", finished.path)
    assert_mistake(result, 2, "holds a run", f"automl-vision search --resume {finished.path}")
    assert_mistake(command("search", "--data", "smoke", *quick, "--out", "file"), 2, "is a file: file")


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_an_output_folder_that_cannot_be_made(command, here, quick, place):
    result = command("search", "--data", "smoke", *quick, "--out", place)
    assert_mistake(result, 2, "output folder cannot be written", place, "--out")
    inspected = command("inspect", "--data", "smoke", "--no-cache", "--quiet", *BY_NAMES, "--out", place)
    assert_mistake(inspected, 2, "output cannot be written", place, "--out")


def test_predictions_that_cannot_be_written(command, here, copied):
    image = copied.data / "circle" / "0000.png"
    for line in (["predict", copied.model, image], ["evaluate", copied.model, "--data", "smoke", "--quiet"]):
        assert_mistake(command(*line, "--out", "file/x.csv"), 2, "file/x.csv", "Not a directory")


def in_mount(options: str, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python script in a mount namespace of its own, where `folder` is a small or read-only file system."""
    mount = f"mount -t tmpfs {options} tmpfs {folder} && exec {sys.executable} -c {script!r}"
    source = Path(__file__).parents[2] / "src"
    path = os.pathsep.join([str(source), str(Path(__file__).parent)])
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def may_mount(folder: Path) -> bool:
    return shutil.which("unshare") is not None and in_mount("-o size=1m", "pass", folder).returncode == 0


def test_a_read_only_folder(here, smoke):
    Path("disk").mkdir()
    if not may_mount(here / "disk"):
        pytest.skip("this machine lets nobody mount a file system")
    arguments = ["search", "--data", str(smoke), *QUICK, "--no-cache", "--out", str(here / "disk" / "run")]
    ended = in_mount("-o ro", f"from command import call_main; raise SystemExit(call_main({arguments}))", here / "disk")
    assert ended.returncode == 2, ended.stderr
    assert "Error: the output folder cannot be written" in ended.stderr
    assert "Read-only file system" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_full_disk_ends_with_code_5_and_can_be_resumed_with_room(start, command, here, cache, smoke, monkeypatch):
    """A limit on the size of files is a disk that is full for the model and has room for small files."""
    limit = 5_000_000
    out = here / "run"
    running = start("search", "--data", smoke, *QUICK, "--cache-dir", cache, "--out", out)
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (limit, limit))
    result = running.wait()
    assert_mistake(result, 5, "the disk is full", str(out), "free some space", f"--resume {out}")
    assert [file.name for file in out.rglob("*") if file.stat().st_size > limit or ".tmp" in file.name] == []
    resumed = command("search", "--resume", out)
    assert resumed.code == 0, resumed.err
    assert (out / "model.pt").exists()
    assert command("report", out, "--verify").code == 0
