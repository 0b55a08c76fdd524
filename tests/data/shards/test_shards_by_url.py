"""Shards behind https, from a real server: ranges, a bounded window of whole shards, and hosts that are refused."""

from __future__ import annotations

import json
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Server, https_server, make_certificate
from shard_sets import looked_at, sets_of, settings

from automl_vision.config import Settings
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import decode, read_manifest
from automl_vision.data.shards import web_folder
from automl_vision.data.shards.address import parse_address
from automl_vision.data.shards.folder import FolderError
from automl_vision.data.shards.layout import INDEX
from automl_vision.data.shards.web_folder import WebFolder
from automl_vision.errors import DataError, UsageError
from automl_vision.pipeline import verify_shards


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(shards: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(web_folder, "_WAITS", (0.0, 0.01, 0.01))
    with https_server(shards, certificate) as served:
        yield served


@pytest.fixture
def allowed(tmp_path: Path) -> Callable[..., Settings]:
    def make(**overrides: Any) -> Settings:
        cache = str(tmp_path / "cache" / "images")
        return settings(**{"data__allow_private": True, "machine__cache_dir": cache, **overrides})

    return make


def window_of(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "images" / "fetched-shards").glob("*.tar"))


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def rows_of(manifest: Manifest, shard: int) -> list[int]:
    assert manifest.sharded is not None
    return np.flatnonzero(manifest.sharded.shard == shard).tolist()


def test_the_same_data_set_as_in_the_folder(server: Server, shards: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache" / "images")
    there = looked_at(server.url, data__allow_private=True, machine__cache_dir=cache, machine__decode_ahead=False)
    here = looked_at(shards)
    assert sets_of(there) == sets_of(here)
    everything = np.arange(len(here.manifest))
    size = here.store.sizes[0]
    assert (there.store.fetch(everything, size) == here.store.fetch(everything, size)).all()


def test_nothing_is_read_at_the_start_but_tables_and_sizes(server: Server, allowed: Callable[..., Settings]) -> None:
    chosen = allowed(machine__decode_ahead=False)
    decode(read_manifest(Path(server.url), chosen), chosen, (16,), 1)
    whole = {name for method, name, _ in server.asked if method == "GET"}
    assert whole == {INDEX, "samples.parquet", "facts.parquet"}
    read_manifest(Path(server.url), chosen)
    assert server.whole("samples.parquet") == 1  # it is kept


def test_a_few_samples_are_ranges_and_many_are_the_shard(
    server: Server, allowed: Callable[..., Settings], tmp_path: Path, images: Path
) -> None:
    manifest = read_manifest(Path(server.url), allowed())
    assert manifest.sharded is not None
    shard = int(np.bincount(manifest.sharded.shard).argmax())
    rows, name = rows_of(manifest, shard), manifest.sharded.names[shard]
    for row in rows[:3]:
        assert manifest.file(row).read_bytes() == (images / manifest.paths[row]).read_bytes()
    assert window_of(tmp_path) == [] and server.whole(name) == 0
    for row in [*rows, *rows]:
        manifest.file(row).read_bytes()
    wait_for(lambda: len(window_of(tmp_path)) == 1)
    asked = len(server.asked)
    for row in rows:
        assert manifest.file(row).read_bytes() == (images / manifest.paths[row]).read_bytes()
    assert len(server.asked) == asked and server.whole(name) == 1


def test_what_is_expected_is_fetched(server: Server, allowed: Callable[..., Settings], tmp_path: Path) -> None:
    chosen = allowed(machine__decode_ahead=False)
    manifest = read_manifest(Path(server.url), chosen)
    store = decode(manifest, chosen, (16,), 1)[0]
    assert manifest.sharded is not None
    store.expect(rows_of(manifest, 0)[:2] + rows_of(manifest, 1)[:1], 16)
    wait_for(lambda: len(window_of(tmp_path)) == 2)
    assert [server.whole(name) for name in manifest.sharded.names[:3]] == [1, 1, 0]


def test_the_window_stays_bounded(
    server: Server, allowed: Callable[..., Settings], shards: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(Path(server.url), allowed(data__shard_window="30k"))
    assert manifest.sharded is not None and len(manifest.sharded.names) > 4
    sizes = {each: (shards / each).stat().st_size for each in manifest.sharded.names}
    for shard, name in enumerate(manifest.sharded.names):
        manifest.file(rows_of(manifest, shard)[0]).expect()  # type: ignore[union-attr]
        wait_for(lambda name=name: server.whole(name) == 1)  # type: ignore[misc]
        wait_for(lambda: not list((tmp_path / "cache" / "images" / "fetched-shards").glob("*.tmp")))
        assert sum(each.stat().st_size for each in window_of(tmp_path)) <= 30_000
    last = manifest.sharded.names[-1]
    assert sizes[last] in {each.stat().st_size for each in window_of(tmp_path)}


def test_a_window_without_room_for_two_shards_is_refused(server: Server, allowed: Callable[..., Settings]) -> None:
    with pytest.raises(UsageError, match="window for fetched shards is too small"):
        read_manifest(Path(server.url), allowed(data__shard_window="15k"))


def test_another_process_reads_on(server: Server, allowed: Callable[..., Settings], images: Path) -> None:
    manifest = pickle.loads(pickle.dumps(read_manifest(Path(server.url), allowed())))
    assert manifest.file(0).read_bytes() == (images / manifest.paths[0]).read_bytes()


def test_a_torn_shard_is_told_by_its_size(server: Server, allowed: Callable[..., Settings], shards: Path) -> None:
    name = json.loads((shards / INDEX).read_text())["shards"][0]["name"]
    (shards / name).write_bytes((shards / name).read_bytes()[:2500])
    said: list[str] = []
    chosen = allowed(machine__decode_ahead=False)
    manifest = read_manifest(Path(server.url), chosen, said.append)
    assert len(said) == 1 and said[0].startswith(f"{name}: ") and "samples are missing, from" in said[0]
    missing = int(said[0].split()[1])
    assert (~decode(manifest, chosen, (16,), 1)[1].usable).sum() == missing
    assert verify_shards(parse_address(server.url), chosen).problems == tuple(said)


def test_a_shard_that_arrives_altered_is_asked_for_again_and_then_an_error(
    server: Server, allowed: Callable[..., Settings], shards: Path, tmp_path: Path
) -> None:
    chosen = allowed(machine__decode_ahead=False)
    manifest = read_manifest(Path(server.url), chosen)
    store = decode(manifest, chosen, (16,), 1)[0]
    assert manifest.sharded is not None
    name, row = manifest.sharded.names[0], rows_of(manifest, 0)[0]
    data = bytearray((shards / name).read_bytes())
    data[int(manifest.sharded.offset[row])] ^= 1
    (shards / name).write_bytes(bytes(data))
    store.expect([row], 16)
    wait_for(lambda: server.whole(name) == 2)
    with pytest.raises(DataError, match="not what was stored") as refused:
        wait_for(lambda: bool(store.fetch([row], 16).numel()) and False)
    assert name in str(refused.value) and window_of(tmp_path) == []
    checked = allowed(data__check_shards="all", machine__decode_ahead=False)
    facts = decode(read_manifest(Path(server.url), checked), checked, (16,), 1)[1]
    assert np.flatnonzero(~facts.usable).tolist() == [row]


def test_a_busy_server_is_asked_again_and_a_broken_one_is_told(
    server: Server, allowed: Callable[..., Settings], images: Path
) -> None:
    server.faults = [503, 500]
    manifest = read_manifest(Path(server.url), allowed())
    assert manifest.file(0).read_bytes() == (images / manifest.paths[0]).read_bytes()
    server.faults = [503] * 3
    with pytest.raises(DataError, match="cannot be reached") as refused:
        read_manifest(Path(server.url), allowed())
    assert "503" in str(refused.value)
    server.faults = [403]
    with pytest.raises(DataError, match="403"):
        read_manifest(Path(server.url), allowed())


def test_a_server_without_ranges_is_told(server: Server, allowed: Callable[..., Settings]) -> None:
    server.has_ranges = False
    manifest = read_manifest(Path(server.url), allowed())
    with pytest.raises(Exception, match="gives no ranges"):
        manifest.file(0).read_bytes()


def test_a_file_that_does_not_end_where_the_server_said_is_not_read_on(
    server: Server, allowed: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WebFolder, "size", lambda *_: 10)
    with pytest.raises(DataError, match="does not end after its 10 bytes"):
        read_manifest(Path(server.url), allowed())


@pytest.mark.parametrize("kind", ["table", "shard"])
def test_no_more_is_taken_than_the_index_says(
    server: Server, allowed: Callable[..., Settings], shards: Path, tmp_path: Path, kind: str
) -> None:
    told = json.loads((shards / INDEX).read_text())
    name = "facts.parquet" if kind == "table" else told["shards"][0]["name"]
    chosen = allowed(machine__decode_ahead=False)
    manifest = read_manifest(Path(server.url), chosen)
    with (shards / name).open("ab") as file:
        file.write(bytes(2**22))
    assert manifest.sharded is not None and manifest.sharded.load_facts is not None
    with pytest.raises((DataError, FolderError), match="does not end after its"):
        if kind == "table":
            manifest.sharded.load_facts()
        else:
            window = manifest.sharded.ranges._window  # type: ignore[attr-defined]
            window.fetch(manifest.sharded.ranges._records[0], WebFolder(server.url, True))  # type: ignore[attr-defined]
    kept = {each.name for each in (tmp_path / "cache" / "images" / "fetched-shards").iterdir()}
    assert not [each for each in kept if each.endswith((".tmp", ".tar", "facts.parquet"))]


def test_there_is_nothing_at_the_url(server: Server, allowed: Callable[..., Settings]) -> None:
    (server.folder / INDEX).unlink()
    with pytest.raises(DataError, match=r"no shards\.json"):
        read_manifest(Path(server.url), allowed())


# --- who may be asked -----------------------------------------------------------------------------------------------


def test_private_addresses_are_refused_unless_allowed(server: Server) -> None:
    with pytest.raises(UsageError, match="private network") as refused:
        looked_at(server.url)
    assert "--allow-private" in str(refused.value) and server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "::1",
        "fe80::1%eth0",
        "0.0.0.0",
        "fc00::1",
    ],
)
def test_a_name_that_leads_into_a_private_network_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(_host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("8.8.8.8", address)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(UsageError, match="private network"):
        WebFolder("https://example.org/set").size("a")


def test_the_address_that_was_checked_is_the_one_that_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers otherwise the second time leads nowhere else: it is looked up once."""
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def once(host: str, *more: Any, **named: Any) -> Any:
        asked.append(host)
        return look_up(host, *more, **named)

    monkeypatch.setattr("automl_vision.data.shards.web_folder.socket.getaddrinfo", once)
    assert WebFolder(server.url, allow_private=True).size(INDEX)
    assert asked.count("localhost") == 1


@pytest.mark.parametrize("target", ["http://localhost/x", "file:///etc/passwd", "ftp://localhost/x"])
def test_redirects_do_not_leave_https(server: Server, target: str) -> None:
    server.redirects[INDEX] = target
    with pytest.raises(UsageError, match="leads away from https"):
        WebFolder(server.url, allow_private=True).size(INDEX)


@pytest.mark.parametrize("target", ["https://a..b/x", "https://localhost:abc/x", "https://[::1/x"])
def test_a_redirect_to_nowhere_is_told(server: Server, target: str) -> None:
    server.redirects[INDEX] = target
    with pytest.raises(FolderError, match="which is no URL"):
        WebFolder(server.url, allow_private=True).size(INDEX)


def test_paths_that_are_not_ascii_are_asked_for_by_their_bytes(server: Server) -> None:
    size = (server.folder / INDEX).stat().st_size
    (server.folder / "sét").mkdir()
    (server.folder / "sét" / INDEX).write_bytes((server.folder / INDEX).read_bytes())
    assert WebFolder(f"{server.url}/sét", allow_private=True).size(INDEX) == size
    server.redirects["moved"] = f"/sét/{INDEX}".encode().decode("latin-1")
    assert WebFolder(server.url, allow_private=True).size("moved") == size


def test_an_address_that_no_request_can_hold_is_told(server: Server) -> None:
    with pytest.raises(FolderError, match="surrogates"):
        WebFolder(f"{server.url}/\udce9", allow_private=True).part(INDEX, 0, 1)


def test_redirects_are_followed_and_checked_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.redirects["moved"] = f"{server.url}/{INDEX}"
    folder = WebFolder(server.url, allow_private=True)
    assert folder.size("moved") == (server.folder / INDEX).stat().st_size
    server.redirects["round"] = f"{server.url}/round"
    with pytest.raises(FolderError, match="too many redirects"):
        folder.size("round")


def test_a_certificate_that_nobody_trusts_is_refused(
    server: Server, allowed: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DataError, match="certificate is not trusted"):
        read_manifest(Path(server.url), allowed())
    assert server.asked == []


def test_nobody_listens(allowed: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_folder, "_WAITS", (0.0,))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(DataError, match="cannot be reached"):
            read_manifest(Path(f"https://localhost:{held.getsockname()[1]}/set"), allowed())


def test_object_stores_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_vision.extras.find_spec", lambda name: None if name in ("s3fs", "gcsfs") else object())
    for url, package in (("s3://bucket/a", "s3fs"), ("gs://bucket/a", "gcsfs")):
        with pytest.raises(UsageError, match=package) as refused:
            read_manifest(Path(url), settings())
        assert "automl-vision[stream]" in str(refused.value)
