"""The exported study opens in Optuna and in optuna-dashboard."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
from test_samplers import SPACE, tried

from automl_vision.search.samplers import export_study

SCORES = [0.5, 0.7, 0.6]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    points = [SPACE.complete({"label_smoothing": n / 100}) for n in range(len(SCORES))]
    file = tmp_path / "study.db"
    export_study(file, SPACE, [tried(n, point, SCORES[n]) for n, point in enumerate(points)], name="a run")
    return file


def test_optuna_loads_it_with_every_epoch(study: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{study}")
    loaded = optuna.load_study(study_name="a run", storage=storage)
    assert [each.value for each in loaded.trials] == SCORES
    assert loaded.best_trial.params["label_smoothing"] == pytest.approx(0.01)
    assert [each.intermediate_values for each in loaded.trials] == [{1: score, 2: score} for score in SCORES]
    storage.remove_session()
    storage.engine.dispose()


def answer(address: str, within: float) -> bytes:
    """What is there as soon as the server answers."""
    until = time.monotonic() + within
    while True:
        try:
            with urllib.request.urlopen(address, timeout=within) as response:
                assert response.status == 200
                content: bytes = response.read()
                return content
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@pytest.mark.skipif(
    importlib.util.find_spec("optuna_dashboard") is None, reason="the package optuna-dashboard is not installed"
)
def test_optuna_dashboard_shows_its_trials(study: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = "from optuna_dashboard._cli import main; main()"
    line = [sys.executable, "-c", program, f"sqlite:///{study}", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        assert b"<!doctype html>" in answer(f"{address}/dashboard/", 120).lower()
        (shown,) = json.loads(answer(f"{address}/api/studies", 30))["study_summaries"]
        assert shown["study_name"] == "a run"
        detail: dict[str, Any] = json.loads(answer(f"{address}/api/studies/{shown['study_id']}?after=0", 30))
        assert [each["values"] for each in detail["trials"]] == [[score] for score in SCORES]
        assert {each["state"] for each in detail["trials"]} == {"Complete"}
    finally:
        server.terminate()
        server.wait(30)
