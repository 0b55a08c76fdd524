"""Clients that are slow, greedy, or speak HTTP as nobody should: each gets what it deserves, and disturbs nobody."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from served import Client, multipart, picture, serving

from automl_vision.serving import connections, limits
from automl_vision.serving.limits import Limits
from automl_vision.serving.uploads import read_uploads

FREE = Limits(requests_per_minute=0)
BODY, KIND = multipart([("a.png", picture())])
HEAD = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving() as served:
        yield served


def opened(client: Client, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", client.port), timeout=60, source_address=(source, 0))


def answers(client: Client, raw: bytes) -> bytes:
    """All that comes back until the server closes."""
    with opened(client) as made:
        with suppress(ConnectionError):
            made.sendall(raw)
        got = b""
        with suppress(ConnectionError):
            while more := made.recv(65536):
                got += more
        return got


def in_pieces(data: bytes, size: int) -> bytes:
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


def test_a_body_with_two_lengths_is_refused_and_nothing_behind_it_is_read(client: Client) -> None:
    smuggled = b"GET /about HTTP/1.1\r\nHost: localhost\r\n\r\n"
    raw = f"{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode() + smuggled
    got = answers(client, raw)
    assert got.startswith(b"HTTP/1.1 400 ")
    assert got.count(b"HTTP/1.1") == 1
    assert b"two_lengths" in got


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        f"Content-Length: {'9' * 5000}\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Host: other\r\n",
        "X: a\0b\r\n",
    ],
)
def test_headers_that_two_readers_could_read_in_two_ways_are_refused(client: Client, fields: str) -> None:
    got = answers(client, f"{HEAD}{fields}\r\nhello".encode())
    assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), got[:100]
    assert got.count(b"HTTP/1.1") == 1


def test_a_body_in_crumbs_is_refused_and_one_in_pieces_is_not(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    large, kind = multipart([("a.png", picture(side=120))])
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    with caplog.at_level(logging.ERROR):
        assert answers(client, head.encode() + in_pieces(large, 200)).startswith(b"HTTP/1.1 200 ")
        assert answers(client, head.encode() + in_pieces(large, 1)).startswith(b"HTTP/1.1 400 ")
        assert client.predict(("a.png", picture())).status == 200
    assert caplog.text == ""


def test_rubbish_behind_an_answer_is_no_fault_of_the_server(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".replace("/predict", "/nothing")
    with caplog.at_level(logging.ERROR), opened(client) as made:
        made.sendall(head.encode())
        assert made.recv(65536).startswith(b"HTTP/1.1 404 ")  # before the body, of which nobody wants any
        with suppress(ConnectionError):
            made.sendall(b"no chunk\r\n")
            while made.recv(65536):
                pass
    assert client.get("/healthz").status == 200
    assert caplog.text == ""


def test_a_header_of_many_fields_is_refused(client: Client) -> None:
    fields = "".join(f"X-{number}: y\r\n" for number in range(200))
    got = answers(client, f"GET /about HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n{fields}\r\n".encode())
    assert got.startswith(b"HTTP/1.1 431 ")
    assert b"long_header" in got


def test_no_connection_becomes_a_web_socket(client: Client) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    with opened(client) as made:
        made.sendall(f"GET /predict HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n".encode())
        assert made.recv(65536).startswith(b"HTTP/1.1 405 ")


def test_requests_that_are_sent_ahead_are_answered_in_order(client: Client) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    got = answers(client, one * 50 + last)
    assert got.count(b"HTTP/1.1 200 ") == 50
    assert got.rpartition(b"HTTP/1.1 ")[2].startswith(b"404 ")


def test_who_reads_no_answers_is_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    with opened(client) as made:
        made.setblocking(False)
        end = time.monotonic() + 60
        asked = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
        with pytest.raises(ConnectionError):
            while time.monotonic() < end:
                with suppress(BlockingIOError):
                    made.send(asked)
                time.sleep(0.01)
    assert client.predict(("a.png", picture())).status == 200


def test_who_reads_slowly_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 30.0)
    names = tuple(f"class {number}" for number in range(15_000))
    with serving(class_names=names) as served, opened(served) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.sendall(b"GET /about HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = b""
        while more := made.recv(10_000):
            got += more
            time.sleep(0.002)
    assert got.endswith(b"}")
    assert b"class 14999" in got


def test_bytes_that_are_only_announced_keep_nobody_out() -> None:
    with serving(limits=replace(FREE, held_bytes=64 * 2**20)) as served:
        waiting = [opened(served) for _ in range(20)]
        for each in waiting:
            each.sendall(f"{HEAD}Content-Length: 60000000\r\n\r\n--x".encode())
        assert served.predict(("a.png", picture())).status == 200
        for each in waiting:
            each.close()


def test_a_body_that_comes_too_slowly_is_given_up_before_its_time() -> None:
    slow = replace(FREE, upload_seconds=60.0, upload_grace=0.3, upload_bytes_per_second=1000)
    with serving(limits=slow) as served, opened(served) as made:
        began = time.monotonic()
        made.sendall(f"{HEAD}Content-Length: 5000\r\n\r\n".encode() + BODY[:500])
        assert made.recv(100).startswith(b"HTTP/1.1 408 ")
        assert 0.7 < time.monotonic() - began < 30
        assert served.predict(("a.png", picture())).status == 200


def test_one_address_has_a_share_of_the_connections_and_others_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "is_this_machine", lambda client: client == "127.0.0.1")
    with serving(limits=replace(FREE, connections_of_one=3)) as served:
        greedy = [opened(served, "127.0.0.2") for _ in range(3)]
        for each in greedy:  # so that the server has seen them
            each.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert each.recv(100).startswith(b"HTTP/1.1 200 ")
        with opened(served, "127.0.0.2") as fourth, suppress(ConnectionResetError):
            assert fourth.recv(10) == b""
        with opened(served, "127.0.0.3") as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 200 ")
        own = [opened(served) for _ in range(10)]  # a proxy on this machine may have everybody behind it
        assert served.get("/healthz").status == 200
        for each in (*greedy, *own):
            each.close()
        end = time.monotonic() + 60
        while time.monotonic() < end:  # who left makes room
            with opened(served, "127.0.0.2") as again, suppress(ConnectionResetError):
                again.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if again.recv(100).startswith(b"HTTP/1.1 200 "):
                    return
        raise AssertionError("there is no room for who left")


def test_one_address_has_half_of_the_room_for_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "is_this_machine", lambda client: client == "127.0.0.1")
    with serving(limits=replace(FREE, held_bytes=20_000)) as served:
        greedy = opened(served, "127.0.0.2")
        greedy.sendall(f"{HEAD}Content-Length: 12000\r\n\r\n".encode() + BODY[:-60] + b"x" * (9_900 - len(BODY)))
        end = time.monotonic() + 60
        while True:
            with opened(served, "127.0.0.2") as again:
                again.sendall(f"{HEAD}Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n".encode() + BODY)
                if again.recv(100).startswith(b"HTTP/1.1 503 "):
                    break
            assert time.monotonic() < end
        with opened(served, "127.0.0.3") as other:
            other.sendall(f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
            assert other.recv(100).startswith(b"HTTP/1.1 200 ")
        assert served.predict(("a.png", picture())).status == 200
        greedy.close()


def test_of_a_file_over_the_limit_nothing_is_kept() -> None:
    """Whatever its size: it is refused, and its bytes are given back as they come."""
    body, kind = multipart([("fat", b"x" * 3_000_000), ("a.png", picture())])

    async def coming() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50_000):
            yield body[at : at + 50_000]

    fat, good = asyncio.run(read_uploads(coming(), kind, replace(FREE, file_bytes=100_000)))
    assert (fat.size, fat.data) == (3_000_000, b"")
    assert good.data == picture()
