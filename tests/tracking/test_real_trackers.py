"""Each tracker against its real library, on this machine alone."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_tracking import REPORT, changed, trial

from automl_vision.config import load_settings
from automl_vision.tracking.tracking import Tracking

TRIALS = (trial(0, 0, "complete"), trial(3, 1), trial(3, 2, "paused"), trial(3, 4, "complete"))
SCORES = [0.5, 0.51, 0.52, 0.53]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_vision.tracking.tracking.MOST_SECONDS", 300.0)  # a machine may be busy


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "my run"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<p>the report</p>")
    (folder / "README.md").write_text("# The model card\n")
    return folder


def track(run: Path, name: str) -> list[str]:
    """Send two trials and the figures; what was told."""
    told: list[str] = []
    settings = load_settings(overrides={"output.track": [name], "search.budget": "7m"})
    with Tracking(run, settings, lambda _: None, pytest.fail, told.append) as tracking:
        for each in TRIALS:
            tracking.tell(changed(each))
        tracking.finish(REPORT, 300.0)
    return told


def test_tensorboard_reads_back_what_was_sent(run: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard (extra track) is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = track(run, "tensorboard")
    assert "tensorboard --logdir" in place and "my run" in place
    curves = EventAccumulator(str(run / "tensorboard" / "trial-003")).Reload()
    assert [(each.step, round(each.value, 4)) for each in curves.Scalars("score")] == list(enumerate(SCORES, 1))
    assert {"val_loss", "train_loss", "learning_rate"} <= set(curves.Tags()["scalars"])
    assert b"resnet18" in curves.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]
    own = EventAccumulator(str(run / "tensorboard" / "run")).Reload()
    assert own.Scalars("test/accuracy")[0].value == 0.75
    assert b"search.budget | 7m" in own.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    assert b"The model card" in own.Tensors("README.md/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # of its own queries
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
def test_mlflow_has_a_run_with_one_below_it_per_trial(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the package mlflow (extra track) is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (place,) = track(run, "mlflow")
    database = f"sqlite:///{run.parent / 'mlflow.db'}"
    assert database in place
    client = MlflowClient(database)
    (experiment,) = [each for each in client.search_experiments() if each.name == "automl-vision"]
    runs = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"my run", "trial-000", "trial-003"}
    parent, child = runs["my run"], runs["trial-003"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params["search.budget"] == "7m"
    assert parent.data.metrics["test/accuracy"] == 0.75
    assert {each.info.status for each in runs.values()} == {"FINISHED"}
    assert child.data.params["backbone"] == "resnet18"
    history = client.get_metric_history(child.info.run_id, "score")
    assert [(each.step, each.value) for each in sorted(history, key=lambda each: each.step)] == list(
        enumerate(SCORES, 1)
    )
    kept = {each.path for each in client.list_artifacts(parent.info.run_id)}
    assert kept == {"report.html", "README.md"}
    track(run, "mlflow")  # goes on with the same runs
    assert len(client.search_runs([experiment.experiment_id])) == 3


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A server that all requests would come to, whatever their address; who called."""
    calls: list[Any] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                caller, _ = listening.accept()
            except OSError:
                return
            calls.append(caller.recv(200))
            caller.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    yield calls
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


def logged(data: bytes) -> Iterator[bytes]:
    """The records of a file in the log format of LevelDB, which begins with seven bytes of its own."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def test_wandb_without_an_account_stays_on_this_machine(
    run: Path, monkeypatch: pytest.MonkeyPatch, trap: list[Any], tmp_path: Path
) -> None:
    pytest.importorskip("wandb", reason="the package wandb (extra track) is not installed")
    from wandb.proto import wandb_internal_pb2

    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    (place,) = track(run, "wandb")
    assert "wandb sync" in place
    assert trap == [], "nobody was called"
    with pytest.raises(OSError):
        urllib.request.build_opener().open("http://somewhere.invalid", timeout=5)
    assert len(trap) == 1, "but whoever calls is caught"
    (file,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    records = [wandb_internal_pb2.Record.FromString(data) for data in logged(file.read_bytes())]
    points = [
        {item.key or item.nested_key[0]: item.value_json for item in each.history.item}
        for each in records
        if each.WhichOneof("record_type") == "history"
    ]
    curve = [point for point in points if "trial-003/score" in point]
    assert [float(point["trial-003/score"]) for point in curve] == SCORES
    assert [int(point["trial-003/epoch"]) for point in curve] == [1, 2, 3, 4]
    assert {"run", "summary", "exit"} <= {each.WhichOneof("record_type") for each in records}
    said = b"".join(each.SerializeToString() for each in records)
    assert b"test/accuracy" in said and b"search.budget" in said and b"report.html" in said
    assert [each.run.host for each in records if each.WhichOneof("record_type") == "run"] == ["-"], "nor is it named"
