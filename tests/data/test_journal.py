"""The journal of a build: wherever it is torn or altered, what it gives is what was written before that place."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.data.fact_table import PLANE_ROW
from automl_vision.data.journal import JournaledRow, MadeOtherwise, first_line, group_line, read_journal
from automl_vision.data.survey import NOTHING_KNOWN

MADE: dict[str, Any] = {"format": 2, "pillow": "13", "sides": [8, 16]}


def row(number: int) -> JournaledRow:
    """The row of a file; every third is quarantined."""
    if number % 3 == 2:
        known = {"file_digest": f"{number:032x}", "fault": "truncated", "detail": "cut\n\\ off", PLANE_ROW: -1}
        return JournaledRow(NOTHING_KNOWN | known, ())
    known = {"file_digest": f"{number:032x}", "taken": number / 7, "exif_rotated": True, PLANE_ROW: number}
    return JournaledRow(NOTHING_KNOWN | known, (number, 2**32 - 1 - number))


def same(found: list[JournaledRow], expected: list[JournaledRow]) -> bool:
    """Equal, with NaN equal to itself."""

    def plain(each: JournaledRow) -> tuple[Any, ...]:
        return ({name: str(value) for name, value in each.fact.items()}, each.crcs, each.place)

    return list(map(plain, found)) == list(map(plain, expected))


@pytest.fixture(scope="module")
def groups() -> list[list[JournaledRow]]:
    return [[row(number) for number in range(start, start + 3)] for start in range(0, 12, 3)]


@pytest.fixture(scope="module")
def lines(groups: list[list[JournaledRow]]) -> list[bytes]:
    return [first_line(MADE), *map(group_line, groups)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "rows.journal"


def whole_groups(lines: list[bytes], length: int) -> int:
    """Groups that end within the first bytes."""
    ends = [sum(map(len, lines[: count + 2])) for count in range(len(lines) - 1)]
    return sum(end <= length for end in ends)


def test_all_that_was_written_comes_back(lines: list[bytes], groups: list[list[JournaledRow]], file: Path) -> None:
    file.write_bytes(b"".join(lines))
    found = list(read_journal(file, MADE))
    assert same(found, [*chain.from_iterable(groups)])
    assert math.isnan(found[2].fact["taken"])
    assert [type(value) for value in found[0].fact.values()] == [type(value) for value in row(0).fact.values()]


@given(st.integers(0, 10_000))
def test_torn_at_any_byte_it_gives_the_groups_before(
    lines: list[bytes], groups: list[list[JournaledRow]], file: Path, place: int
) -> None:
    data = b"".join(lines)
    length = place % (len(data) + 1)
    file.write_bytes(data[:length])
    assert same(list(read_journal(file, MADE)), [*chain.from_iterable(groups[: whole_groups(lines, length)])])


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_altered_at_any_byte_it_gives_the_groups_before(
    lines: list[bytes], groups: list[list[JournaledRow]], file: Path, place: int, change: int
) -> None:
    data = bytearray(b"".join(lines))
    data[place % len(data)] ^= change
    file.write_bytes(data)
    assert same(
        list(read_journal(file, MADE)), [*chain.from_iterable(groups[: whole_groups(lines, place % len(data))])]
    )


@pytest.mark.parametrize("other", [{"format": 3}, {"pillow": "14"}, {"sides": [8]}])
def test_rows_that_were_made_in_another_way_are_refused(lines: list[bytes], file: Path, other: dict[str, Any]) -> None:
    file.write_bytes(b"".join(lines))
    with pytest.raises(MadeOtherwise):
        list(read_journal(file, {**MADE, **other}))


def test_a_file_that_cannot_be_read_is_not_taken_for_one_without_rows(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        list(read_journal(tmp_path, MADE))


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "rows.journal", MADE)) == []
