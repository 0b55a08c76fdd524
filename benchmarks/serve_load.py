"""How does the server stand a crowd? Many clients at once, on loopback, for some seconds; some of them send rubbish.

    python benchmarks/serve_load.py --seconds 60 --json load.json
    python benchmarks/serve_load.py --model runs/imgs/model.pt --clients 10

Without `--model` it is efficientnet_lite0 at 224 px with random weights, which cost as much as trained ones. Each
client sends one generated photograph after the other over a connection of its own; every tenth request is a damaged
file, which has to be refused. The clients share the machine with the server and take CPU from it. Exit code 1 where an
answer is not the one that the file deserves.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import build_classifier
from photographs import jpeg, photograph
from stages import find_command, machine

MOST_CLIENTS, MOST_SECONDS = 200, 600.0
#: Every so many requests a client sends a damaged file.
DAMAGED = 10
#: Seconds before anything is counted: the first passes are slower.
WARM_UP = 3.0
_BOUNDARY = b"x-serve-load"
CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY.decode()}"
_HALF = (0.5, 0.5, 0.5)


@dataclass
class Counted:
    """What all clients saw.

    Attributes:
        statuses: how often each HTTP status came.
        wrong: answers that are not those the file deserves, and connections that broke.
        seconds: of each good image, from the first byte sent to the last received.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, other: Counted) -> None:
        """Count what others saw too."""
        self.statuses += other.statuses
        self.wrong += other.wrong
        self.seconds += other.seconds


@dataclass(frozen=True)
class Load:
    """One measurement.

    Attributes:
        clients, seconds: that were asked for.
        answered_per_second: good images.
        p50_ms, p95_ms, p99_ms, slowest_ms: of good images.
        statuses: how often each HTTP status came.
        wrong: answers that were not right; broken connections among them.
        images_per_pass: mean size of a batch.
        memory_mb: resident memory of the server, after the warm-up and after each quarter of the time.
        server_cpu_seconds: user and system time of the server while it was measured.
        code: its exit code after SIGTERM.
    """

    clients: int
    seconds: float
    answered_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    slowest_ms: float
    statuses: dict[str, int]
    wrong: int
    images_per_pass: float
    memory_mb: list[float]
    server_cpu_seconds: float
    code: int


class Server:
    """The command in a process of its own, on a free port of this machine.

    Args:
        model: what it serves.
        log: where its messages go; None: to those of this process.
    """

    def __init__(self, model: Path, log: IO[bytes] | None = None) -> None:
        line = [find_command(), "serve", str(model), "--port", "0", "--rate", "0", "--device", "cpu"]
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self._process.stdout is not None
        url = self._process.stdout.readline().strip()
        if not url:
            raise SystemExit(f"the server did not start (exit code {self._process.wait()})")
        self.port = int(url.rpartition(":")[2])

    @property
    def number(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def memory_mb(self) -> float:
        """Resident memory, with that of its decoders."""
        return sum(self.memories_mb().values())

    def memories_mb(self, kind: str = "VmRSS") -> dict[int, float]:
        """Memory of the server and of each process that it started, by their numbers.

        Args:
            kind: resident, or a part of it by the name that Linux has for it.
        """
        return {number: _memory_mb(number, kind) for number in (self.number, *_children(self.number))}

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def passes(self) -> tuple[int, int]:
        """Images answered and batches run so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/healthz")
        told = json.loads(connection.getresponse().read())
        connection.close()
        return told["answered"], told["passes"]

    def end(self) -> int:
        """Its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()


def _children(parent: int) -> list[int]:
    lists = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(each) for file in lists for each in file.read_text("ascii").split()]


def _memory_mb(number: int, kind: str) -> float:
    """0 where the process has ended."""
    try:
        lines = Path(f"/proc/{number}/status").read_text("utf-8", "replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:")), 0.0)


def measure(model: Path, clients: int, seconds: float, width: int, height: int) -> tuple[Load, Counted]:
    """Start a server, load it, stop it."""
    with running(model) as server:
        files = photographs(width, height)
        _load(server, files, clients, WARM_UP)
        memory, cpu, (answered, passes) = [server.memory_mb()], server.cpu_seconds(), server.passes()
        counted = Counted()
        began = time.monotonic()
        for _ in range(4):
            counted.add(_load(server, files, clients, seconds / 4))
            memory.append(server.memory_mb())
        took = time.monotonic() - began
        now_answered, now_passes = server.passes()
        used = server.cpu_seconds() - cpu
        load = Load(
            clients=clients,
            seconds=seconds,
            answered_per_second=len(counted.seconds) / took,
            **latencies(counted.seconds),
            statuses={str(status): number for status, number in sorted(counted.statuses.items())},
            wrong=len(counted.wrong),
            images_per_pass=(now_answered - answered) / max(now_passes - passes, 1),
            memory_mb=memory,
            server_cpu_seconds=used,
            code=server.end(),
        )
    return load, counted


@contextmanager
def running(model: Path, log: IO[bytes] | None = None) -> Iterator[Server]:
    """A server, which is killed at the end where it still lives."""
    server = Server(model, log)
    try:
        yield server
    finally:
        server.kill()


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """The figures of `Load` about how long good images took."""
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else [float("nan")] * 99
    named = {
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "p99_ms": cuts[98],
        "slowest_ms": max(seconds, default=float("nan")),
    }
    return {name: 1000 * value for name, value in named.items()}


def photographs(width: int, height: int) -> list[bytes]:
    """Eight JPEG files."""
    rng = np.random.default_rng(0)
    return [jpeg(photograph(width, height, rng)) for _ in range(8)]


def _load(server: Server, files: Sequence[bytes], clients: int, seconds: float) -> Counted:
    counted, lock = Counted(), threading.Lock()
    end = time.monotonic() + seconds
    crowd = [
        threading.Thread(target=_client, args=(server.port, files, number, end, counted, lock))
        for number in range(clients)
    ]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    return counted


def _client(port: int, files: Sequence[bytes], number: int, end: float, counted: Counted, lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for turn in count(number):
        if time.monotonic() >= end:
            break
        damaged = turn % DAMAGED == 0
        data = files[turn % len(files)]
        began = time.monotonic()
        try:
            status, answer = ask(connection, data[: len(data) // 3] if damaged else data)
        except (OSError, http.client.HTTPException) as error:
            with lock:
                counted.wrong.append(f"{type(error).__name__}: {error}")
            connection.close()
            continue
        took = time.monotonic() - began
        with lock:
            counted.statuses[status] += 1
            if status != (422 if damaged else 200):
                counted.wrong.append(f"{status}: {answer[:200]!r}")
            elif not damaged:
                counted.seconds.append(took)
    connection.close()


def ask(connection: http.client.HTTPConnection, data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to one file."""
    connection.request("POST", "/predict", form(data), {"Content-Type": CONTENT_TYPE})
    response = connection.getresponse()
    return response.status, response.read()


def form(*files: bytes) -> bytes:
    """The body of a request."""
    head = b'--%b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' % _BOUNDARY
    return b"".join(head + each + b"\r\n" for each in files) + b"--%b--\r\n" % _BOUNDARY


def make_model(path: Path) -> Path:
    """efficientnet_lite0 at 224 px for ten classes, with random weights."""
    net = build_classifier("efficientnet_lite0", 10, resolution=224, seed=0)
    names = tuple(f"class {number}" for number in range(10))
    save_bundle(
        Bundle("efficientnet_lite0", "linear", names, Preprocessing(224, _HALF, _HALF), 1.0, net.state_dict()), path
    )
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    given = parser.parse_args(arguments)
    if not 1 <= given.clients <= MOST_CLIENTS or not 0 < given.seconds <= MOST_SECONDS:
        parser.error(f"at most {MOST_CLIENTS} clients and {MOST_SECONDS:g} seconds")
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or make_model(Path(folder) / "model.pt")
        load, counted = measure(model, given.clients, given.seconds, given.width, given.height)
    figures = {"machine": machine(), **asdict(load)}
    print(json.dumps(figures, indent=2))
    for each, number in Counter(counted.wrong).most_common(5):
        print(f"{number} x {each}", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(load.wrong > 0 or load.code != 0)


if __name__ == "__main__":
    main()
