"""Which places shards may be read from and written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_vision.config import load_settings
from automl_vision.data.shards.address import absolute_place, is_url, parse_address
from automl_vision.errors import ConfigError, UsageError
from automl_vision.rules import parse_bytes


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://host/a/b/", "https://host/a/b"),
        ("https:/host/a", "https://host/a"),  # what a path makes of it
        ("HTTPS://host:8443/a", "https://host:8443/a"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("gs:/bucket", "gs://bucket"),
        ("file:///a/b", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("./a", "a"),
        ("C:/a", "C:/a"),
    ],
)
def test_a_place_survives_being_a_path(written: str, read: str) -> None:
    assert str(parse_address(Path(written))) == read
    assert str(parse_address(Path(str(parse_address(written))))) == read


@pytest.mark.parametrize(
    "url",
    [
        *("pipe:cat /etc/passwd", "PIPE:x", "http://host/a", "ftp://host/a", "ssh://host/a", "memory://a"),
        *("simplecache::s3://bucket/a", "zip://a.zip::https://host/b", "javascript://a", "data:/x", "hdfs://a"),
    ],
)
def test_other_schemes_are_refused_by_name(url: str) -> None:
    for to_write in (False, True):
        with pytest.raises(UsageError, match="URL of this scheme") as refused:
            parse_address(Path(url), to_write=to_write)
        assert f"({url.partition(':')[0].lower()}:)" in str(refused.value)


def test_nothing_is_written_by_https() -> None:
    with pytest.raises(UsageError, match="not written to a URL of this scheme"):
        parse_address("https://host/a", to_write=True)


@pytest.mark.parametrize(
    "url",
    ["https://user:secret@host/a", "https://host/a?token=secret", "https://host/a#secret"],
)
def test_what_may_be_a_secret_is_neither_taken_nor_shown(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        *("https://", "https:///", "https://host/a/../b", "s3:///", "https://host:abc/a", "https://host:99999/a"),
        *("https://[::1/a", "https://a..b/set", f"https://{'a' * 70}.org/set", "https://host:0/a"),
    ],
)
def test_a_url_names_a_host_and_a_folder(url: str) -> None:
    with pytest.raises(UsageError, match="URL of the shards"):
        parse_address(url)


def test_a_path_that_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipe:x").mkdir()
    assert not is_url("pipe:x") and parse_address("pipe:x").is_local
    assert not is_url("hf:user/name") and not is_url("imgs") and is_url("s3://a/b")
    assert absolute_place(Path("imgs")) == tmp_path / "imgs"
    assert absolute_place(Path("s3://a/b")) == Path("s3://a/b")


@pytest.mark.parametrize(("text", "size"), [("4G", 4e9), ("500 MB", 5e8), ("1.5t", 1.5e12), ("7", 7), ("2kb", 2000)])
def test_sizes_are_written_as_people_write_them(text: str, size: float) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "0", "-1G", "4 gigs", "1e3", "inf", "9" * 30])
def test_what_is_no_size_is_a_wrong_setting(text: str) -> None:
    with pytest.raises(ConfigError):
        load_settings(overrides={"data.shard_window": text})
