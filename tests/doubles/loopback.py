"""A server on this machine that gives files and ranges of them by https, with a certificate of its own."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class Server:
    """Where it is, and what it was asked.

    Attributes:
        url: of its folder.
        folder: what it gives.
        asked: method, name and range of every request.
        redirects: name -> where it leads.
        faults: status codes that the next requests are answered with.
        has_ranges: whether it knows ranges.
    """

    url: str
    folder: Path
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: list[int] = field(default_factory=list)
    has_ranges: bool = True

    def whole(self, name: str) -> int:
        """How often all of a file was asked for."""
        return self.asked.count(("GET", name, ""))


@contextmanager
def https_server(folder: Path, certificate: Path) -> Iterator[Server]:
    """Serve a folder."""
    served = Server("", folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self, *, with_body: bool) -> None:
            name, wanted = self.path.rpartition("/")[2], self.headers.get("Range", "")
            served.asked.append((self.command, name, wanted))
            file = served.folder / name
            if served.faults:
                return self._send(served.faults.pop(0), b"", with_body)
            if name in served.redirects:
                return self._send(302, b"", with_body, Location=served.redirects[name])
            if not file.is_file():
                return self._send(404, b"", with_body)
            data = file.read_bytes()
            if not wanted or not served.has_ranges:
                return self._send(200, data, with_body)
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            if first >= len(data):
                return self._send(416, b"", with_body)
            return self._send(206, data[first : last + 1], with_body)

        def _send(self, status: int, data: bytes, with_body: bool, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that leaves is no error."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        served.url = f"https://localhost:{server.server_address[1]}/set"
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def make_certificate(folder: Path) -> Path:
    """For localhost, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate of the test, is not here")
    file = folder / "localhost.pem"
    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    places = ("-keyout", str(file.with_suffix(".key")), "-out", str(file))
    subprocess.run([openssl, *made, *named, *places], check=True, capture_output=True)
    return file
