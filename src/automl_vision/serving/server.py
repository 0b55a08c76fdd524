"""The process: socket, signals, a tidy end."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from automl_vision.errors import UsageError
from automl_vision.main_memory import give_back, share_one_heap
from automl_vision.predictor import Model, Prediction
from automl_vision.serving.about import about
from automl_vision.serving.app import Batching, create_app
from automl_vision.serving.connections import bounded_protocol
from automl_vision.serving.decoder import Duty
from automl_vision.serving.decoders import AT_ONCE, CPU_SECONDS, MEMORY, Decoders, Picture
from automl_vision.serving.limits import Limits
from automl_vision.serving.token import Token

#: Until requests under way are given up, once the server was told to stop.
GRACE_SECONDS = 30
#: Longer side of a heat map in pixels.
HEAT_MAP_SIDE = 512
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Names of this machine for itself.
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def open_socket(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet.

    Args:
        host: a name or an address.
        port: 0 takes any that is free.

    Raises:
        UsageError: it cannot be had.
    """
    place = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UsageError("this is no address of a machine", value=place, fix="use --host 127.0.0.1") from None
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise _unavailable(error, place) from None
    return opened


def _unavailable(error: OSError, place: str) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError("another program uses this port", value=place, fix="choose another --port; 0 takes any")
    if error.errno == errno.EACCES:
        return UsageError("this port is for the system", value=place, fix="choose a --port from 1024 on; 0 takes any")
    value = f"{place} ({error.strerror or error})"
    return UsageError("the server cannot listen there", value=value, fix="use --host 127.0.0.1, and --port 0")


def url_of(opened: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host, port = opened.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_private(opened: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(opened.getsockname()[0].partition("%")[0]).is_loopback


def serve(
    model: Model,
    path: Path,
    opened: socket.socket,
    *,
    threshold: float,
    limits: Limits,
    batching: Batching,
    decoders: int,
    token: Token | None,
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered before it returns.

    Args:
        model: what answers.
        path: its file, for the name.
        opened: a bound socket; it is closed at the end.
        threshold: abstain below this probability.
        limits: what is accepted.
        batching: how images share forward passes.
        decoders: processes that decode, besides the one for large images, >= 1.
        token: what clients have to know; None: nothing.
        on_ready: called once, when clients can connect.
    """
    share_one_heap()
    give_back()  # what loading the model took
    one_at_a_time = threading.Lock()  # a network runs in one thread, whatever it is asked

    def answer(images: Sequence[Picture]) -> list[Prediction]:
        with one_at_a_time:
            return model.predict_squares([each.squares for each in images])

    def explain(image: Picture, label: str) -> bytes | None:
        if image.shown is None:
            raise ValueError("the image was decoded for no heat map, got shown=None")
        with one_at_a_time:
            explained = model.explain_squares(image.squares, image.shown, label)
        return None if explained.is_empty else explained.png()

    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each malformed body; clients are told
    hosts = _LOOPBACK_NAMES if is_private(opened) else None
    told = about(model.bundle, path, threshold, limits)
    decoding = Decoders(_duty(model, limits), decoders)
    app = create_app(told, decoding, answer, batching=batching, hosts=hosts, explain=explain, token=token)
    Server(app, on_ready, limits.connections_of_one).run(sockets=[opened])


def _duty(model: Model, limits: Limits) -> Duty:
    return Duty(
        sides=model.sides,
        resize=model.resize,
        decode_side=model.decode_side,
        pixels=limits.pixels,
        at_once=AT_ONCE,
        picture_side=HEAT_MAP_SIDE,
        memory=MEMORY + 2 * limits.file_bytes,
        cpu_seconds=CPU_SECONDS,
    )


def _config(app: FastAPI, connections_of_one: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(connections_of_one),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can write them
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class Server(uvicorn.Server):
    """uvicorn's server, which tells when it is ready, and for which obeying a signal is a success.

    Args:
        app: what is served.
        on_ready: called once, when clients can connect.
        connections_of_one: connections of one client that is not on this machine; 0: no limit.
    """

    def __init__(self, app: FastAPI, on_ready: Callable[[], None], connections_of_one: int = 0) -> None:
        super().__init__(_config(app, connections_of_one))
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As in the base class, but a signal that was obeyed is not raised once more at the end."""
        if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
