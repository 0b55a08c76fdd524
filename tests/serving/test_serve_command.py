"""`automl-vision serve` as a process: the answers of `predict`, a tidy end, and what is refused before it starts."""

from __future__ import annotations

import contextlib
import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from served import multipart, picture

from automl_vision.cli.app import main
from automl_vision.predictor import load

Begin = Callable[..., Any]


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code and both streams of the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["automl-vision", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        main()
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def test_it_says_what_predict_says(process: Any, model_file: Path) -> None:
    files = [(f"{seed}.png", picture(seed, side=20 + 3 * seed)) for seed in range(5)]
    expected = load(model_file, device="cpu").predict_proba([data for _, data in files])
    rows = process.client.predict(*files).rows
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["probability"] == pytest.approx(probabilities.max(), abs=1e-5)
        assert row["status"] == ("ok" if probabilities.max() >= 0.4 else "abstained")
        assert list(row["probabilities"].values()) == pytest.approx(sorted(probabilities, reverse=True), abs=1e-5)


def test_about_tells_the_figures_of_the_model_file(process: Any) -> None:
    about = process.client.get("/about").json
    assert about["name"] == "pets"
    assert about["test"]["accuracy"] == {"value": 0.875, "low": 0.8, "high": 0.92}
    assert about["networks"][0]["preprocessing"]["size"] == 32
    page = process.client.get("/").body.decode()
    assert "87.5 %" in page
    assert "1,234 test images" in page


def test_concurrent_requests_share_forward_passes(process: Any) -> None:
    before = process.client.get("/healthz").json
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda seed: process.client.predict((f"{seed}.png", picture(seed))), range(32)))
    after = process.client.get("/healthz").json
    assert [reply.status for reply in replies] == [200] * 32
    assert after["answered"] - before["answered"] == 32
    assert 1 <= after["passes"] - before["passes"] <= 16


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_requests_under_way_are_answered_before_it_ends(begin: Begin, number: signal.Signals) -> None:
    running = begin()
    port = running.client.port
    body, kind = multipart([("a.png", picture())])
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as asking,
        socket.create_connection(("127.0.0.1", port), timeout=60) as idle,
    ):
        asking.sendall(head.encode() + body[: len(body) // 2])
        assert running.client.get("/healthz").status == 200  # by now the server has read the header above
        running.signal(number)
        assert idle.recv(1) == b""  # who has asked nothing is sent away
        wait_until_closed(port)
        asking.sendall(body[len(body) // 2 :])
        answer = b"".join(iter(lambda: asking.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"name":"a.png"' in answer
    code, out, err = running.end()
    assert (code, out) == (0, f"{running.url}\n")
    assert err == "Open it in a browser; Ctrl-C ends the server.\n"


def wait_until_closed(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("the server still takes connections")


def test_a_port_in_use_is_told_before_the_model_is_loaded(model_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with mock.patch("automl_vision.predictor.load", side_effect=AssertionError("loaded")):
            code, out, err = command("serve", model_file, "--port", str(port))
    assert (code, out) == (2, "")
    assert f"another program uses this port: 127.0.0.1:{port}" in err
    assert "--port" in err.partition("Fix: ")[2]


@pytest.mark.parametrize("host", ["no such host", "256.1.1.1", "x" * 300, "192.0.2.1"])
def test_an_address_that_is_not_here_is_refused(model_file: Path, host: str) -> None:
    code, out, err = command("serve", model_file, "--host", host, "--port", "0")
    assert (code, out) == (2, "")
    assert "Fix: " in err
    assert "Internal error" not in err


def test_a_queue_that_no_full_request_fits_is_refused(model_file: Path) -> None:
    code, _, err = command("serve", model_file, "--max-files", "9", "--max-waiting", "8")
    assert code == 2
    assert "--max-files 9, --max-waiting 8" in err


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"nothing")
    code, _, err = command("serve", tmp_path / "model.pt", "--port", "0")
    assert code == 2
    assert "Error: " in err


def test_without_the_extra_it_says_what_to_install(model_file: Path) -> None:
    script = (
        "import sys\nsys.modules['fastapi'] = None\n"
        f"sys.argv = ['automl-vision', 'serve', {str(model_file)!r}]\n"
        "from automl_vision.cli.app import main\nmain()"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "packages that are not installed: fastapi" in ended.stderr
    assert "pip install 'automl-vision[serve]'" in ended.stderr


def test_only_this_machine_can_reach_it_unless_told(process: Any) -> None:
    port = process.client.port
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=5):
        raise AssertionError("it listens elsewhere too")
