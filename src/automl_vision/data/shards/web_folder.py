"""Shards behind https: ranges and whole files, from public addresses unless private ones are allowed.

A name is looked up once, its addresses are checked, and the connection goes to the one that was checked, so that a name
which answers differently the second time leads nowhere else. Redirects are followed within https, each checked anew.
"""

from __future__ import annotations

import http.client
import ipaddress
import queue
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from automl_vision.data.shards.folder import FolderError, at_most
from automl_vision.errors import UsageError

_SECONDS = 30.0
#: Seconds before each try.
_WAITS = (0.0, 0.1, 1.0)
_REDIRECTS = 5
#: Bytes of what a redirect says besides where it leads; one that says more costs its connection.
_MOST_OF_A_REDIRECT = 2**16
_PART = 2**20
#: Connections that are kept for the next request.
_KEPT = 32
#: Answers after which trying again may help.
_BUSY = frozenset((408, 429, 500, 502, 503, 504))
_MOVED = frozenset((301, 302, 303, 307, 308))
#: ValueError: a name that no host can have, or an address that no request can hold.
_TROUBLE = (OSError, http.client.HTTPException, ValueError)
#: What stands in a URL as it is; all else goes as `%` and its bytes.
_IN_A_URL = "%:/?#[]@!$&'()*+,;=~"


class _Connection(http.client.HTTPSConnection):
    """To an address that was checked, with the certificate of the name."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_SECONDS, context=context)
        self._address = address
        self._checked_context = context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), _SECONDS)
        try:
            self.sock = self._checked_context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


class WebFolder:
    """A folder behind https, which can only be read.

    Args:
        url: `https://HOST/FOLDER`.
        allow_private: whether the host may be in a private network, or be this machine.
    """

    def __init__(self, url: str, allow_private: bool = False) -> None:
        self._url = url.rstrip("/")
        self._allow_private = allow_private
        self._context = ssl.create_default_context()
        self._idle: dict[tuple[str, int], queue.LifoQueue[_Connection]] = {}
        weakref.finalize(self, _close, self._idle)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process has connections of its own."""
        return WebFolder, (self._url, self._allow_private)

    def __str__(self) -> str:
        return self._url

    def size(self, name: str) -> int | None:
        """Bytes of a file as the server says; None where it has none."""
        with self._answer("HEAD", name, {}) as answer:
            answer.read()
            if answer.status in (404, 410):
                return None
            _require(answer, 200, name)
            length = answer.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise FolderError(f"{self._url}/{name}: the server does not say how long it is")
        return int(length)

    def fetch(self, name: str, take: Callable[[bytes], object], most: int) -> None:
        """Hand over a file in parts."""
        bounded = at_most(most, take, f"{self._url}/{name}")
        with self._answer("GET", name, {}) as answer:
            _require(answer, 200, name)
            wanted = answer.headers.get("Content-Length", "")
            got = 0
            while part := answer.read(_PART):
                got += len(part)
                bounded(part)
        if wanted.isdecimal() and got != int(wanted):
            raise FolderError(f"{self._url}/{name}: the server stopped after {got:,} of {int(wanted):,} bytes")

    def part(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of a file; fewer where it ends."""
        if size <= 0:
            return b""
        with self._answer("GET", name, {"Range": f"bytes={offset}-{offset + size - 1}"}) as answer:
            if answer.status == 416:  # it ends before
                return b""
            _require(answer, 206, name)
            return answer.read(size)

    @contextmanager
    def _answer(self, method: str, name: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, its redirects followed; the connection is kept where all of it was read."""
        url = f"{self._url}/{quote(name)}"
        for _ in range(_REDIRECTS):
            connection, answer = self._asked(method, url, headers)
            if answer.status not in _MOVED:
                break
            self._pass_over(connection, answer)
            url = self._led_to(url, answer.headers.get("Location", ""))
        else:
            raise FolderError(f"{self._url}/{name}: too many redirects")
        try:
            yield answer
        except _TROUBLE as error:
            raise FolderError(f"{self._url}/{name}: {_words(error)}") from None
        finally:
            self._keep_or_close(connection, answer)

    def _led_to(self, url: str, location: str) -> str:
        """Where a redirect leads; the address that the user gave was checked when it was read."""
        try:
            # Headers arrive as Latin-1, whatever bytes they had.
            target = urljoin(url, quote(location.encode("latin-1"), safe=_IN_A_URL))
            parts = urlsplit(target)
            _ = (parts.hostname or "").encode("idna"), parts.port
        except ValueError as error:
            raise FolderError(
                f"{self._url}: the server leads to {location[:200]!a}, which is no URL ({error})"
            ) from None
        return target

    def _asked(self, method: str, url: str, headers: dict[str, str]) -> tuple[_Connection, http.client.HTTPResponse]:
        """A connection and its answer; asked again after a while where that may help."""
        said = ""
        for wait in _WAITS:
            time.sleep(wait)
            try:
                # A connection that was kept may have been closed by the server: after the first try, a new one.
                connection = self._connected(url, kept=not wait)
                connection.request(method, _target(url), headers={"Accept-Encoding": "identity", **headers})
                answer = connection.getresponse()
            except ssl.SSLCertVerificationError as error:
                raise FolderError(f"{_host(url)}: its certificate is not trusted ({error.verify_message})") from None
            except _TROUBLE as error:
                said = _words(error)
                continue
            if answer.status not in _BUSY:
                return connection, answer
            said = f"{answer.status} {answer.reason}"
            connection.close()
        raise FolderError(f"{_host(url)}: {said}")

    def _connected(self, url: str, *, kept: bool) -> _Connection:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise UsageError(
                "a server of shards leads away from https",
                value=ascii(f"{parts.scheme}://{parts.hostname}"),
                fix="give the address that it leads to, where that is trusted",
            )
        place = (parts.hostname, parts.port or 443)
        try:
            idle = self._idle.setdefault(place, queue.LifoQueue(_KEPT)).get_nowait() if kept else None
        except queue.Empty:
            idle = None
        return idle or _Connection(*place, self._address(*place), self._context)

    def _address(self, host: str, port: int) -> str:
        """The first address of a name.

        Raises:
            UsageError: one of its addresses is in a private network, and these are not allowed.
        """
        found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        private = [each for each in found if not ipaddress.ip_address(each.partition("%")[0]).is_global]
        if private and not self._allow_private:
            raise UsageError(
                "this host is in a private network, or is this machine",
                value=f"{host} ({private[0]})",
                fix="give --allow-private where shards are to be read from it",
            )
        return found[0]

    def _pass_over(self, connection: _Connection, answer: http.client.HTTPResponse) -> None:
        try:
            answer.read(_MOST_OF_A_REDIRECT)
        except _TROUBLE:
            connection.close()  # where it leads was in the headers
        else:
            self._keep_or_close(connection, answer)

    def _keep_or_close(self, connection: _Connection, answer: http.client.HTTPResponse) -> None:
        if answer.isclosed():  # all of it was read
            self._keep(connection)
        else:
            connection.close()

    def _keep(self, connection: _Connection) -> None:
        idle = self._idle.setdefault((connection.host, connection.port), queue.LifoQueue(_KEPT))
        try:
            idle.put_nowait(connection)
        except queue.Full:
            connection.close()


def _close(idle: dict[tuple[str, int], queue.LifoQueue[_Connection]]) -> None:
    for each in idle.values():
        while not each.empty():
            each.get_nowait().close()


def _require(answer: http.client.HTTPResponse, status: int, name: str) -> None:
    if answer.status == status:
        return
    if status == 206 and answer.status == 200:
        raise FolderError(f"{name}: the server gives no ranges of bytes")
    raise FolderError(f"{name}: the server answers {answer.status} {answer.reason}")


def _target(url: str) -> str:
    parts = urlsplit(url)
    return quote(parts.path + (f"?{parts.query}" if parts.query else ""), safe=_IN_A_URL)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _words(error: Exception) -> str:
    return ascii(str(error) or type(error).__name__)[:200].strip("'")
