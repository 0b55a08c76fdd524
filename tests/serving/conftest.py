from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from served import NAMES, Client, call_in_process

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import build_classifier


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, as a run leaves it."""
    net = build_classifier("mobilenetv3_small_100", 3, resolution=32, seed=0)
    torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type] # a linear head
    figures = {"value": 0.875, "low": 0.8, "high": 0.92}
    bundle = Bundle(
        "mobilenetv3_small_100",
        "linear",
        NAMES,
        Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        temperature=0.005,  # what a network of random weights says differs little
        state_dict=net.state_dict(),
        provenance={
            "test": {"n": 1234, "accuracy": figures, "macro_f1": figures},
            "created": "2026-01-02T03:04:05+00:00",
        },
    )
    path = tmp_path_factory.mktemp("runs") / "pets" / "model.pt"
    path.parent.mkdir()
    save_bundle(bundle, path)
    return path


class Process:
    """The command, in a process of its own, forked from one that has imported everything and done nothing."""

    def __init__(self, context: Any, folder: Path, *arguments: str | Path) -> None:
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        line = ["serve", *map(str, arguments), "--device", "cpu"]
        self._process = context.Process(target=call_in_process, args=(line, str(self._out), str(self._err)))
        self._process.start()
        end = time.monotonic() + 120
        while not (said := _text(self._out)).endswith("\n"):
            assert self._process.is_alive(), _text(self._err)
            assert time.monotonic() < end, "it does not start"
            time.sleep(0.01)
        self.url = said.strip()

    @property
    def client(self) -> Client:
        return Client(int(self.url.rpartition(":")[2]))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "it does not end"
        return int(self._process.exitcode), _text(self._out), _text(self._err)

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


@pytest.fixture(scope="session")
def forking() -> Any:
    """What starts processes in no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["automl_vision.cli.app", "automl_vision.serving.server", "timm"])
    return context


@pytest.fixture(scope="session")
def process(forking: Any, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One that all tests may ask, and none may end."""
    folder = tmp_path_factory.mktemp("server")
    options = ("--port", "0", "--abstain", "0.4", "--rate", "0", "--batch-wait", "100")
    running = Process(forking, folder, model_file, *options)
    yield running
    running.close()


@pytest.fixture
def begin(forking: Any, model_file: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start one: `begin("--port", "0")`."""
    begun: list[Process] = []

    def start(*options: str) -> Process:
        begun.append(Process(forking, tmp_path, model_file, "--port", "0", *options))
        return begun[-1]

    yield start
    for each in begun:
        each.close()
