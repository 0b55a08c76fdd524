"""The API over real HTTP: answers, limits, broken and hostile requests."""

from __future__ import annotations

import base64
import functools
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from served import NAMES, Client, by_length, multipart, picture, serving

from automl_vision.predictor import Prediction
from automl_vision.serving import connections
from automl_vision.serving.app import Batching
from automl_vision.serving.limits import Limits

FREE = Limits(requests_per_minute=0)
#: Small enough to be reached at once.
SMALL = replace(FREE, file_bytes=4000, files=3, request_bytes=20_000, pixels=600, upload_seconds=1.0)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(threshold=0.5) as served:
        yield served


@pytest.fixture(scope="module")
def strict() -> Iterator[Client]:
    with serving(limits=SMALL) as served:
        yield served


# --- answers --------------------------------------------------------------------------------------------------------


def test_one_file_is_one_row(client: Client) -> None:
    reply = client.predict(("a.png", picture()))
    assert reply.status == 200
    (row,) = reply.rows
    best = NAMES[len(picture()) % 3]
    assert (row["name"], row["status"], row["label"], row["probability"]) == ("a.png", "ok", best, 0.7)
    assert next(iter(row["probabilities"])) == best
    assert sorted(row["probabilities"]) == sorted(NAMES)
    assert row["error"] is None
    assert reply.json["threshold"] == 0.5


def test_rows_come_in_the_order_of_the_files_with_errors_in_their_place(client: Client) -> None:
    good = [(f"{seed}.png", picture(seed, side=20 + seed)) for seed in range(3)]
    files = [good[0], ("text.png", b"hello"), good[1], ("none.png", b""), ("cut.png", picture()[:20]), good[2]]
    reply = client.predict(*files)
    assert reply.status == 200
    assert [row["name"] for row in reply.rows] == [name for name, _ in files]
    assert [row["status"] for row in reply.rows] == ["ok", "error", "ok", "error", "error", "ok"]
    assert [row["label"] for row in reply.rows if row["status"] == "ok"] == [NAMES[len(data) % 3] for _, data in good]
    faults = [row["error"] for row in reply.rows if row["error"]]
    assert [fault["kind"] for fault in faults] == ["not_an_image", "empty", "truncated"]
    assert [fault["http_status"] for fault in faults] == [415, 422, 422]
    assert all(fault["detail"] and fault["fix"] for fault in faults)


@pytest.mark.parametrize(("data", "status"), [(b"hello", 415), (b"", 422), (picture()[:20], 422)])
def test_where_no_file_is_good_the_first_one_decides_the_status(client: Client, data: bytes, status: int) -> None:
    reply = client.predict(("bad.png", data), ("text.txt", b"hello"))
    assert reply.status == status
    assert [row["status"] for row in reply.rows] == ["error", "error"]


def test_top_gives_the_most_probable_classes(client: Client) -> None:
    row = client.predict(("a.png", picture()), query="?top=2").rows[0]
    assert list(row["probabilities"].values()) == [0.7, 0.2]
    assert client.predict(("a.png", picture()), query="?top=99").rows[0]["probabilities"].keys() == set(NAMES)
    for wrong in ("0", "-1", "x", ""):
        refused = client.predict(("a.png", picture()), query=f"?top={wrong}")
        assert (refused.status, refused.json["error"]["kind"]) == (400, "bad_request")


def test_below_the_threshold_there_is_no_label() -> None:
    with serving(threshold=0.71) as unsure:
        row = unsure.predict(("a.png", picture())).rows[0]
        assert (row["status"], row["label"], row["probability"]) == ("abstained", None, 0.7)
        assert row["probabilities"]


def test_names_that_are_no_text_are_served_all_the_same() -> None:
    odd = ("caf\udce9", "<b>", "雪")
    with serving(class_names=odd, name="run \\udce9") as served:
        row = served.predict(("é<script>.png", picture())).rows[0]
        assert set(row["probabilities"]) == set(odd)
        assert row["name"] == "é<script>.png"
        assert served.get("/about").json["classes"] == list(odd)
        page = served.get("/").body.decode()
        assert "caf\\xe9" in page
        assert "<b>" not in page.partition('<ul class="classes">')[2]


def test_a_decoding_error_of_the_model_is_the_row_of_that_image() -> None:
    def broken(images: Sequence[bytes]) -> list[Prediction]:
        return [Prediction("", "error", error="truncated: image file is truncated") for _ in images]

    with serving(broken) as served:
        reply = served.predict(("a.png", picture()))
        assert reply.status == 422
        assert reply.rows[0]["error"]["detail"] == "image file is truncated"


def test_a_fault_of_the_model_fails_its_image_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    poison = picture(5, side=31)

    def model(images: Sequence[bytes]) -> list[Prediction]:
        if poison in images:
            raise FloatingPointError("a secret of the house")
        return by_length(images)

    with serving(model) as served, caplog.at_level(logging.ERROR):
        reply = served.predict(("a.png", picture(1)), ("bad.png", poison), ("b.png", picture(2)))
        assert [row["status"] for row in reply.rows] == ["ok", "error", "ok"]
        assert reply.rows[1]["error"]["kind"] == "internal"
        assert b"secret" not in reply.body
        assert served.predict(("bad.png", poison)).status == 500
        assert served.predict(("a.png", picture(1))).status == 200
    assert "FloatingPointError: a secret of the house" in caplog.text


# --- facts ----------------------------------------------------------------------------------------------------------


def test_health_and_about(client: Client) -> None:
    health = client.get("/healthz").json
    assert health["status"] == "ok"
    assert health["waiting"] == 0
    about = client.get("/about").json
    assert about["classes"] == list(NAMES)
    assert about["name"] == "zoo"
    assert about["test"] is None
    assert about["limits"]["files"] == FREE.files


def test_every_page_and_answer_has_the_headers(client: Client) -> None:
    for reply in (
        *(client.get(path) for path in ("/", "/docs", "/style.css", "/page.js", "/icon.svg", "/about", "/nothing")),
        client.predict(("a.png", picture())),
        client.get("/", Host="evil.example"),
    ):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in reply.headers
        assert "server" not in reply.headers


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(client: Client, path: str) -> None:
    page = client.get(path).body.decode()
    assert "http" not in page.replace(client.url, "").replace("HTTP", "").replace("http_status", "")
    assert "<script>" not in page
    assert " style=" not in page
    assert " on" + "click" not in page


def test_the_docs_tell_every_path_and_field(client: Client) -> None:
    page = client.get("/docs").body.decode()
    schema = client.get("/openapi.json").json
    assert sorted(schema["paths"]) == ["/about", "/healthz", "/predict"]
    for path in schema["paths"]:
        assert f"<code>{path}</code>" in page
    for field in ("threshold", "results[].status", "results[].probabilities", "results[].error.kind", "waiting"):
        assert f"<code>{field}</code>" in page
    row = client.predict(("a.png", picture())).rows[0]
    assert sorted(schema["components"]["schemas"]["Row"]["properties"]) == sorted(row)


def test_what_is_not_there_has_the_shape_of_all_errors(client: Client) -> None:
    for reply, status, kind in (
        (client.get("/nothing"), 404, "not_found"),
        (client.get("/../../etc/passwd"), 404, "not_found"),
        (client.get("/predict"), 405, "wrong_method"),
        (client.send("DELETE", "/about", None, {}), 405, "wrong_method"),
    ):
        assert (reply.status, reply.json["error"]["kind"]) == (status, kind)


# --- whose requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[", "127.0.0.2"])
def test_a_foreign_host_name_is_refused(client: Client, host: str) -> None:
    reply = client.get("/about", Host=host)
    assert (reply.status, reply.json["error"]["kind"]) == (400, "foreign_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1"])
def test_own_names_are_known(client: Client, host: str) -> None:
    assert client.get("/about", Host=host).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", ""])
def test_a_foreign_page_cannot_post(client: Client, origin: str) -> None:
    body, kind = multipart([("a.png", picture())])
    reply = client.send("POST", "/predict", body, {"Content-Type": kind, "Origin": origin})
    assert (reply.status, reply.json["error"]["kind"]) == (403, "foreign_page")


def test_the_own_page_can_post(client: Client) -> None:
    body, kind = multipart([("a.png", picture())])
    assert client.send("POST", "/predict", body, {"Content-Type": kind, "Origin": client.url}).status == 200


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_file_over_a_limit_has_a_row_that_says_so(strict: Client) -> None:
    reply = strict.predict(("fat.png", b"x" * 4001), ("wide.png", picture(side=30)), ("good.png", picture()))
    assert reply.status == 200
    assert [row["status"] for row in reply.rows] == ["error", "error", "ok"]
    assert [row["error"]["kind"] for row in reply.rows[:2]] == ["too_large", "too_large"]
    assert "30 x 30 pixels, over 600" in reply.rows[1]["error"]["detail"]
    assert strict.predict(("fat.png", b"x" * 4001)).status == 413


def test_too_many_files_are_refused(strict: Client) -> None:
    assert strict.predict(*[("a.png", picture())] * 3).status == 200
    reply = strict.predict(*[("a.png", picture())] * 4)
    assert (reply.status, reply.json["error"]["detail"]) == (413, "over 3 files")


def test_a_body_over_the_limit_is_refused_by_its_length(strict: Client) -> None:
    reply = strict.predict(("a.png", b"x" * 20_000))
    assert (reply.status, reply.json["error"]["kind"]) == (413, "too_large")


def test_a_body_without_a_length_is_counted(strict: Client) -> None:
    body, kind = multipart([("a.png", b"x" * 50_000)])
    pieces = iter([body[start : start + 1000] for start in range(0, len(body), 1000)])
    reply = strict.send("POST", "/predict", pieces, {"Content-Type": kind})
    assert (reply.status, reply.json["error"]["kind"]) == (413, "too_large")
    body, kind = multipart([("a.png", picture())])
    assert strict.send("POST", "/predict", iter([body[:100], body[100:]]), {"Content-Type": kind}).status == 200


def test_a_body_that_does_not_come_is_given_up(strict: Client) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", strict.port), timeout=60) as slow:
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began > 0.9


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    with serving(limits=replace(FREE, requests_per_minute=1, burst=3)) as served:
        replies = [served.predict(("a.png", picture())) for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
        assert 55 <= int(replies[-1].headers["retry-after"]) <= 60
        assert served.get("/").status == 200


def test_a_full_queue_is_busy_and_recovers() -> None:
    go = threading.Event()

    def patient(images: Sequence[bytes]) -> list[Prediction]:
        assert go.wait(60)
        return by_length(images)

    limits = replace(FREE, waiting=2)
    with serving(patient, limits=limits, batching=Batching(1, 0.0)) as served, ThreadPoolExecutor(8) as pool:
        running = [pool.submit(served.predict, ("a.png", picture()))]
        served.wait_until(lambda health: health["waiting"] == 0)
        running += [pool.submit(served.predict, ("a.png", picture())) for _ in range(6)]
        served.wait_until(lambda health: health["waiting"] == 2)
        refused = served.predict(("a.png", picture()))
        go.set()
        assert (refused.status, refused.json["error"]["kind"]) == (503, "busy")
        assert refused.headers["retry-after"] == "1"
        assert {each.result().status for each in running} == {200, 503}
        assert served.predict(("a.png", picture())).status == 200


def test_bodies_under_way_are_bounded_together() -> None:
    with serving(limits=replace(FREE, held_bytes=10_000, request_bytes=8000)) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7900\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
                b'Content-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"x" * 7500
            )
            end = time.monotonic() + 60
            while (refused := served.predict(("a.png", picture(side=30)))).status != 503:
                assert time.monotonic() < end
        assert refused.json["error"]["kind"] == "busy"
        while served.predict(("a.png", picture(side=30))).status != 200:  # who left gives back what they held
            assert time.monotonic() < end


def test_half_open_connections_do_not_lock_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with serving() as served:
        opened = [socket.create_connection(("127.0.0.1", served.port), timeout=60) for _ in range(100)]
        for number, each in enumerate(opened):
            each.sendall(b"POST /predict HTTP/1.1\r\nHost: x"[: number % 32])
        assert served.predict(("a.png", picture())).status == 200
        assert [each.recv(10) for each in opened] == [b""] * 100  # given up, one and all
        for each in opened:
            each.close()
        assert served.predict(("a.png", picture())).status == 200


def test_more_connections_than_the_bound_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    with serving() as served:
        opened = [socket.create_connection(("127.0.0.1", served.port), timeout=60) for _ in range(5)]
        with pytest.raises(OSError):
            served.get("/healthz")
        for each in opened:
            each.close()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                assert served.get("/healthz").status == 200
            except OSError:
                continue
            return
        raise AssertionError("the server does not come back")


# --- batching -------------------------------------------------------------------------------------------------------


def test_concurrent_requests_share_passes() -> None:
    sizes: list[int] = []

    def slow(images: Sequence[bytes]) -> list[Prediction]:
        sizes.append(len(images))
        time.sleep(0.1)
        return by_length(images)

    files = [(f"{seed}.png", picture(seed, side=12 + seed)) for seed in range(24)]
    with serving(slow, batching=Batching(8, 0.02)) as served, ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(served.predict, files))
        health = served.get("/healthz").json
    assert [reply.status for reply in replies] == [200] * 24
    assert [reply.rows[0]["label"] for reply in replies] == [NAMES[len(data) % 3] for _, data in files]
    assert health["passes"] == len(sizes) <= 12
    assert sum(sizes) == health["answered"] == 24
    assert max(sizes) <= 8


# --- malformed requests ---------------------------------------------------------------------------------------------


def test_what_is_no_multipart_or_has_no_file_is_refused(client: Client) -> None:
    body, kind = multipart([("a.png", picture())])
    text = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nphoto.jpg\r\n--x--\r\n'
    form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
    cases = [
        (body, "image/png", 415),
        (body, "", 415),
        (b"{}", "application/json", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (body, "multipart/form-data", 400),
        (body, "multipart/form-data; boundary=", 400),
        (body, "multipart/form-data; boundary=other", 400),
        (body, "multipart/form-data; charset=nonsense; boundary=other", 400),
        (body, "multipart/form-data; boundary=" + "x" * 5000, 400),
        (b"", kind, 400),
        (text, "multipart/form-data; boundary=x", 400),
        (b"--x\r\n" + b"a: b\r\n" * 100 + b"\r\n--x--", "multipart/form-data; boundary=x", 400),
        (b"--x\r\na: " + b"b" * 100_000 + b"\r\n\r\n--x--", "multipart/form-data; boundary=x", 400),
        (form * 33 + b"--x--", "multipart/form-data; boundary=x", 413),
    ]
    for sent, content_type, status in cases:
        reply = client.send("POST", "/predict", sent, {"Content-Type": content_type})
        assert reply.status == status, (sent[:50], content_type, reply.body)
        assert reply.json["error"]["fix"]


def test_a_body_that_ends_in_the_middle_of_a_file_is_no_whole_one(client: Client) -> None:
    body, kind = multipart([("a.png", picture()), ("b.png", picture(1))])
    for kept in (len(body) - 6, len(body) // 2, 50, 1):
        reply = client.send("POST", "/predict", body[:kept], {"Content-Type": kind})
        assert (reply.status, reply.json["error"]["kind"]) == (400, "bad_request"), kept


def fuzzed(seed: int) -> tuple[bytes, str]:
    """A body that no image can be read from: garbage in a form that was damaged at random."""
    chance = random.Random(seed)
    files = [(chance.choice(["a.png", "", "x" * 3000, "é\\", 'a"b']), chance.randbytes(chance.randrange(300)))]
    body, kind = multipart(files * chance.randrange(1, 4), chance.choice(["files", "", "x\r\n", "\0"]))
    mutable = bytearray(body)
    for _ in range(chance.choice([0, 1, 3, 30])):
        mutable[chance.randrange(len(mutable))] = chance.randrange(256)
    for _ in range(chance.choice([0, 1, 2])):
        start = chance.randrange(len(mutable))
        piece = mutable[start : start + chance.randrange(60)]
        mutable[start : start + len(piece)] = chance.choice([b"", bytes(piece) * 2, b"\r\n", b"--", b"\r\n\r\n"])
        mutable = mutable or bytearray(b"-")
    kind = chance.choice([kind] * 6 + [kind[:-3], kind + '"', kind + "; boundary=a", kind.replace("=", "")])
    return bytes(mutable), kind


def is_refused(client: Client, seed: int) -> bool:
    body, kind = fuzzed(seed)
    reply = client.send("POST", "/predict", body, {"Content-Type": kind})
    told = json.loads(reply.body)
    return 400 <= reply.status < 500 and ("error" in told or all(row["error"] for row in told["results"]))


def test_damaged_uploads_are_the_sender_s_fault(client: Client) -> None:
    assert [seed for seed in range(60) if not is_refused(client, seed)] == []
    assert client.predict(("a.png", picture())).status == 200


@pytest.mark.slow
def test_a_thousand_damaged_uploads(client: Client) -> None:
    assert [seed for seed in range(100, 1100) if not is_refused(client, seed)] == []
    assert client.predict(("a.png", picture())).status == 200


def test_what_is_no_http_is_refused_and_the_server_goes_on(client: Client) -> None:
    chance = np.random.default_rng(0)
    for data in (
        b"\r\n" * 10,
        b"GET / HTTP/9.9\r\n\r\n",
        chance.bytes(2000),
        b"GET /" + b"a" * 100_000,
        b"\x16\x03\x01\n\n",
    ):
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as hostile:
            hostile.sendall(data)
            hostile.shutdown(socket.SHUT_WR)
            try:
                answer = hostile.recv(100)
            except ConnectionResetError:
                answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), data[:20]
    assert client.predict(("a.png", picture())).status == 200


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(client: Client) -> None:
    body, kind = multipart([("a.png", picture())])
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    for kept in (0, 10, len(body) // 2, len(body)):
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as leaving:
            leaving.sendall(head.encode() + body[:kept])
    assert client.predict(("a.png", picture())).status == 200


# --- heat maps ------------------------------------------------------------------------------------------------------


def drawn(image: bytes, label: str) -> bytes | None:
    return None if label == "cat" else f"{label} {len(image)}".encode()


def test_heat_maps_come_when_they_are_asked_for() -> None:
    files = [(f"{k}.png", picture(k, side=20 + k)) for k in range(3)]
    with serving(explain=drawn) as client:
        plain = client.predict(*files)
        explained = client.predict(*files, ("x.txt", b"hello"), query="?explain=1&top=1")
    assert [row["heat_map"] for row in plain.rows] == [None] * 3
    *rows, broken = explained.rows
    for (_, data), row in zip(files, rows, strict=True):
        told = drawn(data, row["label"])
        assert row["heat_map"] == (told and f"data:image/png;base64,{base64.b64encode(told).decode()}")
    assert {row["heat_map"] is None for row in rows} == {True, False}
    assert (broken["status"], broken["heat_map"]) == ("error", None)
    assert {**rows[0], "heat_map": None, "probabilities": 0} == {**plain.rows[0], "probabilities": 0}


def test_heat_maps_of_many_images_are_refused_before_any_is_predicted() -> None:
    files = [(f"{k}.png", picture(k)) for k in range(5)]
    with serving(explain=drawn) as client:
        refused = client.predict(*files, query="?explain=1")
        assert (refused.status, refused.json["error"]["kind"]) == (413, "too_large")
        assert client.get("/healthz").json["answered"] == 0
        assert client.predict(*files).status == 200


def test_a_heat_map_that_fails_is_our_fault_and_nobody_elses() -> None:
    def fails(image: bytes, label: str) -> bytes | None:
        raise RuntimeError("no")

    with serving(explain=fails) as client:
        (row,) = client.predict(("a.png", picture()), query="?explain=1").rows
        assert (row["status"], row["error"]["kind"]) == ("error", "internal")
        assert client.predict(("a.png", picture())).status == 200


def test_where_there_is_no_room_for_heat_maps_predictions_go_on() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(image: bytes, label: str) -> bytes | None:
        begun.set()
        assert go_on.wait(60)
        return b"x"

    limits = Limits(requests_per_minute=0, waiting_explained=1)
    with serving(explain=slow, limits=limits) as client, ThreadPoolExecutor(2) as pool:
        ask = functools.partial(client.predict, ("a.png", picture()), query="?explain=1")
        first = pool.submit(ask)
        assert begun.wait(60)
        second = pool.submit(ask)
        try:
            client.wait_until(lambda health: health["answered"] == 2)
            end = time.monotonic() + 60
            while (
                refused := client.predict(("a.png", picture()), ("b.png", picture()), query="?explain=1")
            ).status != 503:
                assert time.monotonic() < end
            assert "retry-after" in refused.headers
            assert client.predict(("a.png", picture())).status == 200
        finally:
            go_on.set()
        assert first.result().rows[0]["heat_map"] == second.result().rows[0]["heat_map"] == "data:image/png;base64,eA=="


def test_a_model_without_heat_maps_says_so() -> None:
    with serving() as client:
        refused = client.predict(("a.png", picture()), query="?explain=1")
        assert (refused.status, refused.json["error"]["kind"]) == (400, "bad_request")
        assert b"data-explains" not in client.get("/").body
