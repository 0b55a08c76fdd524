"""What is written is read by any tar reader, and archives that were made to do harm are refused."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.data.shards.tar_members import BLOCK, END, TornArchive, header, members, padding, room
from automl_vision.errors import DataError

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=90).filter(lambda n: n.strip("."))
FILES = st.dictionaries(NAMES, st.binary(max_size=1500), max_size=8)


def archive(files: dict[str, bytes]) -> bytes:
    return b"".join(header(name, len(data)) + data + padding(len(data)) for name, data in files.items()) + END


@settings(max_examples=60, deadline=None)
@given(FILES)
def test_tarfile_reads_what_is_written(files: dict[str, bytes]) -> None:
    written = archive(files)
    assert len(written) == sum(room(len(data)) for data in files.values()) + len(END)
    with tarfile.open(fileobj=io.BytesIO(written)) as opened:
        found = {info.name: (opened.extractfile(info) or io.BytesIO()).read() for info in opened}
        assert {(info.mtime, info.uid, info.gid, info.uname) for info in opened} <= {(0, 0, 0, "")}
    assert found == files


@settings(max_examples=60, deadline=None)
@given(FILES)
def test_members_are_found_where_they_lie(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    file = tmp_path_factory.mktemp("tar") / "a.tar"
    written = archive(files)
    file.write_bytes(written)
    assert {each.name: written[each.offset : each.offset + each.size] for each in members(file)} == files


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_archive_that_is_cut_anywhere_gives_whole_members_and_says_so(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    files = {f"{number}.jpg": bytes([number]) * (300 * number) for number in range(1, 6)}
    written = archive(files)
    cut = data.draw(st.integers(0, len(written) - 1))
    file = tmp_path_factory.mktemp("tar") / "cut.tar"
    file.write_bytes(written[:cut])
    found = []
    with pytest.raises(TornArchive):
        for each in members(file):
            found.append(each)  # noqa: PERF402 - what came before the error stays
    for each in found:
        assert written[each.offset : each.offset + each.size] == files[each.name]
        assert each.offset + each.size <= cut


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        (tarfile.SYMTYPE, "a.jpg", "a link to '/etc/passwd'"),
        (tarfile.LNKTYPE, "a.jpg", "a link to '/etc/passwd'"),
        (tarfile.FIFOTYPE, "a.jpg", "a device or a pipe"),
        (tarfile.CHRTYPE, "a.jpg", "a device or a pipe"),
        (tarfile.REGTYPE, "../a.jpg", "a name that leads out"),
        (tarfile.REGTYPE, "/a.jpg", "a name that leads out"),
        (tarfile.REGTYPE, "b/../../a.jpg", "a name that leads out"),
        (tarfile.REGTYPE, "..\\a.jpg", "a name that leads out"),
    ],
)
def test_members_that_do_harm_where_they_are_unpacked_are_refused(
    tmp_path: Path, kind: bytes, name: str, told: str
) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as opened:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        opened.addfile(info)
    with pytest.raises(DataError, match="a member that is refused") as refused:
        list(members(tmp_path / "evil.tar"))
    assert told in str(refused.value) and "evil.tar" in str(refused.value)


def test_long_names_of_others_are_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "long.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        info = tarfile.TarInfo("ä" * 150 + ".jpg")
        info.size = 3
        opened.addfile(info, io.BytesIO(b"abc"))
    (found,) = members(tmp_path / "long.tar")
    assert found.name == "ä" * 150 + ".jpg" and found.size == 3 and found.offset % BLOCK == 0


def test_what_is_no_archive_is_torn(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no archive " * 100)
    with pytest.raises(TornArchive):
        list(members(tmp_path / "text.tar"))


def test_names_without_end_are_refused_or_torn(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "long.tar", "w", format=tarfile.GNU_FORMAT) as opened:
        opened.addfile(tarfile.TarInfo("a" * 5_000 + ".jpg"))
    with pytest.raises(DataError, match="a name of 5,004 characters") as refused:
        list(members(tmp_path / "long.tar"))
    assert len(str(refused.value)) < 1_000
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    one = info.tobuf(tarfile.GNU_FORMAT) + b"a\0" + padding(2)
    (tmp_path / "names.tar").write_bytes(one * 2_000)
    with pytest.raises(TornArchive):
        list(members(tmp_path / "names.tar"))


def with_size(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of a file of so many bytes, which may be below zero, as GNU writes it."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (256**12 + size if size < 0 else size).to_bytes(12, "big")
    block[124] = 0xFF if size < 0 else 0x80
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *((tarfile.REGTYPE, size) for size in (-1, -512, -1024, -1536, -(1 << 20), -(1 << 70))),
        *((tarfile.GNUTYPE_SPARSE, size) for size in (-512, -(1 << 20), -(1 << 70))),
    ],
)
def test_a_size_below_zero_is_a_damaged_header(tmp_path: Path, kind: bytes, size: int) -> None:
    """It leads back to where reading comes by again, or to before the beginning."""
    file = tmp_path / "back.tar"
    file.write_bytes(archive({"a.txt": b"text"})[: -len(END)] + with_size("b.txt", size, kind) + END)
    with pytest.raises(TornArchive):
        list(itertools.islice(members(file), 100))
