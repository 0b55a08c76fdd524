from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import QUICK, Result, call_in_process, run_command

from make_smoke_data import make_smoke_data

Command = Callable[..., Result]

#: What a search imports: the command, and what it imports only when it needs it, which takes seconds.
SERVED = [
    *("command", "automl_vision.cli.app", "automl_vision.cli.progress", "automl_vision.cli.result"),
    *("automl_vision.pipeline", "automl_vision.data.lineage.comparison"),
    *("timm", "optuna.storages._rdb.storage", "alembic.migration", "sqlalchemy.dialects.sqlite"),
    *("matplotlib.backends.backend_svg", "pyarrow.parquet"),
]


@pytest.fixture
def command() -> Command:
    """Call the command line in this process: `command("search", "--data", folder)`."""
    return run_command


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded images, shared by all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def quick(cache: Path) -> tuple[str, ...]:
    """Options of a search that takes seconds."""
    return (*QUICK, "--cache-dir", str(cache))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes of 7 images of 32 pixels; not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "smoke"
    make_smoke_data(folder)
    return folder


@dataclass(frozen=True)
class Finished:
    """A finished search: its folder, its data and what the command left."""

    path: Path
    data: Path
    result: Result

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "report.json").read_text()))


@pytest.fixture(scope="session")
def finished(smoke: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The smoke run as docs/ci.md has it, with `--json`; not to be changed."""
    path = tmp_path_factory.mktemp("runs") / "smoke"
    config = Path(__file__).parents[2] / "configs" / "smoke.toml"
    options = ("--config", config, "--cache-dir", cache, "--device", "cpu", "--out", path, "--json")
    return Finished(path, smoke, run_command("search", "--data", smoke, *options))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Finished:
    """A copy of the finished run that may be changed."""
    path = tmp_path / "copied"
    shutil.copytree(finished.path, path)
    return Finished(path, finished.data, finished.result)


class Running:
    """A command in a process of its own, which can be signalled and killed."""

    def __init__(self, process: Any, out: Path, err: Path) -> None:
        self._process, self._out, self._err = process, out, err

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def wait(self, seconds: float = 120) -> Result:
        """The result; a killed process has the negative number of the signal as its code."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "the command does not end"
        return Result(self._process.exitcode, self._out.read_text(), self._err.read_text())

    def wait_until(self, happened: Callable[[], bool], seconds: float = 120) -> None:
        """Return as soon as it happened, while the command is still at work."""
        end = time.monotonic() + seconds
        while not happened():
            assert self._process.is_alive(), f"it ended too early:\n{self._err.read_text()}"
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    def said(self) -> str:
        """What is on stderr so far."""
        return self._err.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


@pytest.fixture(scope="session")
def server() -> Any:
    """Processes are forked from one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SERVED)
    return context


@pytest.fixture
def start(server: Any, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start the command line in a process of its own: `start("search", "--data", folder)`."""
    begun: list[Running] = []

    def begin(*arguments: str | Path) -> Running:
        out, err = (tmp_path / f"{name}-{len(begun)}.txt" for name in ("stdout", "stderr"))
        process = server.Process(target=call_in_process, args=([str(a) for a in arguments], str(out), str(err)))
        process.start()
        begun.append(Running(process, out, err))
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()
