"""The crowd notices what it is there for: rubbish that is answered, images that are refused, connections that break."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

import serve_load

GOOD = b"\xff\xd8" + b"x" * 3000


@contextmanager
def answering(status_of: Callable[[bytes], int]) -> Iterator[Any]:
    """Stands in for the server: a status for each body; 0 breaks the connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status = status_of(self.rfile.read(int(self.headers["Content-Length"])))
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield SimpleNamespace(port=server.server_address[1])
        server.shutdown()
        thread.join()


def truly(body: bytes) -> int:
    return 200 if GOOD in body else 422


def test_right_answers_are_counted_and_timed() -> None:
    with answering(truly) as server:
        counted = serve_load._load(server, [GOOD], clients=3, seconds=0.5)
    assert counted.wrong == []
    assert counted.statuses[200] == len(counted.seconds) > 0
    assert counted.statuses[422] > 0
    assert sum(counted.statuses.values()) / counted.statuses[422] == pytest.approx(serve_load.DAMAGED, rel=0.8)


@pytest.mark.parametrize(
    ("wrong", "told"), [(lambda _body: 200, "200"), (lambda _body: 500, "500"), (lambda _body: 0, "")]
)
def test_wrong_answers_are_told(wrong: Callable[[bytes], int], told: str) -> None:
    with answering(wrong) as server:
        counted = serve_load._load(server, [GOOD], clients=2, seconds=0.3)
    assert counted.wrong
    assert all(each.startswith(told) for each in counted.wrong)


def test_figures_of_quarters_add_up() -> None:
    whole = serve_load.Counted()
    for seconds in ([0.1, 0.2], [0.3]):
        part = serve_load.Counted(seconds=seconds, wrong=["x"])
        part.statuses[200] = len(seconds)
        whole.add(part)
    assert (whole.seconds, whole.wrong, whole.statuses) == ([0.1, 0.2, 0.3], ["x", "x"], {200: 3})


def test_latencies_are_in_milliseconds_and_need_two_requests() -> None:
    told = serve_load.latencies([number / 1000 for number in range(1, 101)])
    assert told["p50_ms"] == pytest.approx(50.5)
    assert told["slowest_ms"] == 100
    assert math.isnan(serve_load.latencies([])["p95_ms"])
    assert json.dumps(told)


@pytest.mark.parametrize("options", [["--clients", "201"], ["--seconds", "601"], ["--clients", "0"]])
def test_a_load_without_bounds_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        serve_load.main(options)
    assert left.value.code == 2
