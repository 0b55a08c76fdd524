"""A server on loopback around any answering function, and a client that speaks plain HTTP."""

from __future__ import annotations

import http.client
import io
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from automl_vision.cli.app import main
from automl_vision.data.decode import dimensions
from automl_vision.errors import ImageReadError
from automl_vision.predictor import Prediction
from automl_vision.serving.about import About
from automl_vision.serving.app import Batching, create_app
from automl_vision.serving.limits import Limits
from automl_vision.serving.server import Server, open_socket, url_of
from automl_vision.serving.token import Token

NAMES = ("cat", "dog", "emu")
File = tuple[str, bytes]


def picture(seed: int = 0, side: int = 24) -> bytes:
    """The bytes of a PNG."""
    random = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def by_length(images: Sequence[bytes]) -> list[Prediction]:
    """A model whose class is the length of the file, modulo 3, with probability 0.7."""
    return [_predicted(len(image) % 3) for image in images]


def _predicted(best: int) -> Prediction:
    probabilities = np.full(3, 0.1)
    probabilities[best], probabilities[(best + 1) % 3] = 0.7, 0.2
    return Prediction("", "ok", NAMES[best], 0.7, probabilities)


class Unchanged:
    """Stands in for the decoders: looks at the header alone, and gives the file to the model."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def __aenter__(self) -> Unchanged:
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Nothing was opened."""

    async def decode(self, data: bytes, *, shown: bool) -> bytes:
        width, height = dimensions(data)
        if width * height > self._limits.pixels:
            raise ImageReadError("too_large", f"{width} x {height} pixels, over {self._limits.pixels}")
        return data


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rows(self) -> list[Any]:
        return list(self.json["results"])


def multipart(files: Sequence[File], field: str = "files") -> tuple[bytes, str]:
    """Body and content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@dataclass(frozen=True)
class Client:
    """Speaks to a server at a port of this machine."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, None, headers)

    def predict(self, *files: File, query: str = "") -> Reply:
        body, kind = multipart(files)
        return self.send("POST", f"/predict{query}", body, {"Content-Type": kind})

    def send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            fields = {key.lower(): value for key, value in response.getheaders()}
            return Reply(response.status, fields, response.read())
        finally:
            connection.close()

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Return as soon as /healthz tells so."""
        end = time.monotonic() + 60
        while not condition(self.get("/healthz").json):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)


def told(limits: Limits, **other: Any) -> About:
    """What such a server knows of its model."""
    facts: dict[str, Any] = {"name": "zoo", "class_names": NAMES, "threshold": 0.0, "test": None, "networks": ()}
    return About(**(facts | other), created=None, limits=limits)


@contextmanager
def serving(
    answer: Callable[[Sequence[Any]], Sequence[Prediction]] = by_length,
    *,
    limits: Limits = Limits(requests_per_minute=0),  # noqa: B008 - immutable
    batching: Batching = Batching(),  # noqa: B008 - immutable
    hosts: Sequence[str] | None = ("127.0.0.1", "localhost"),
    explain: Callable[[Any, str], bytes | None] | None = None,
    decoding: Any = None,
    token: Token | None = None,
    **facts: Any,
) -> Iterator[Client]:
    """A server in a thread of this process; it ends tidily."""
    ready = threading.Event()
    with open_socket("127.0.0.1", 0) as opened:
        port = int(url_of(opened).rpartition(":")[2])
        app = create_app(
            told(limits, **facts),
            decoding or Unchanged(limits),
            answer,
            batching=batching,
            hosts=hosts,
            explain=explain,
            token=token,
        )
        server = Server(app, ready.set, limits.connections_of_one)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            assert ready.wait(60)
            yield Client(port)
        finally:
            server.should_exit = True
            thread.join(60)
        assert not thread.is_alive()


def call_in_process(arguments: Sequence[str], out: str, err: str) -> None:
    """The command line in a process of its own: streams to files, exit code to the kernel."""
    for stream, file in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    sys.argv = ["automl-vision", *arguments]
    try:
        main()
    except SystemExit as left:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(left.code or 0))
