"""What a release holds, and that anybody who builds it gets the same bits."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

import release

UPDATE = "uv run python checks/release.py --update"
#: What has no place in a release, wherever it lies.
UNWANTED = ("__pycache__", ".pyc", ".pyo", ".env", ".git/", ".DS_Store", ".tmp", "uv.lock", "/runs/", ".venv")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Both archives, each built twice."""
    return release.built_twice(release.HATCHLING, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def wheel(archives: dict[str, tuple[Path, Path]]) -> Path:
    return next(first for name, (first, _) in archives.items() if name.endswith(".whl"))


@pytest.fixture(scope="module")
def sources(archives: dict[str, tuple[Path, Path]]) -> Path:
    return next(first for name, (first, _) in archives.items() if name.endswith(".tar.gz"))


def test_two_builds_are_the_same_to_the_last_bit(archives: dict[str, tuple[Path, Path]]) -> None:
    assert [release.differing(*both) for both in archives.values()] == [[], []]


def test_the_wheel_holds_the_files_of_the_list_and_no_others(wheel: Path) -> None:
    assert release.wheel_files(wheel) == release.read_list(), f"if that is meant: {UPDATE}"


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = release.wheel_files(wheel)
    assert {name.partition("/")[0] for name in names} == {"automl_vision", "automl_vision.dist-info"}
    assert not [
        name
        for name in names
        if any(each in name for each in UNWANTED) or Path(name).name.startswith(("test_", "conftest"))
    ]
    kinds = {Path(name).suffix for name in names if name.startswith("automl_vision/")}
    assert kinds == {".py", ".typed", ".json", ".npz", ".html", ".css", ".js", ".svg"}


def test_every_module_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    source = release.ROOT / "src"
    here = {file.relative_to(source).as_posix() for file in source.rglob("*.py")}
    assert here == {name for name in release.wheel_files(wheel) if name.endswith(".py")}


def test_the_sources_hold_neither_caches_nor_runs(sources: Path) -> None:
    names = list(release.members(sources))
    assert not [name for name in names if any(each in f"/{name}" for each in UNWANTED if each != ".git/")]
    assert any(name.endswith("tests/checks/wheel_files.txt") for name in names)


def test_nobody_may_write_to_what_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = {each.external_attr >> 16 & 0o777 for each in archive.infolist()}
    assert not [oct(mode) for mode in modes if mode & 0o022]


def test_a_difference_is_told_by_the_name_of_the_file(tmp_path: Path) -> None:
    for folder, text in (("a", "1"), ("b", "2")):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / "p-1-py3-none-any.whl", "w") as archive:
            archive.writestr(zipfile.ZipInfo("same.py"), "0")
            archive.writestr(zipfile.ZipInfo("other.py"), text)
    assert release.differing(*sorted(tmp_path.rglob("*.whl"))) == ["other.py"]


def test_a_difference_of_dates_alone_is_told(tmp_path: Path) -> None:
    for name, date in (("a", 1.0), ("b", 2.0)):
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w") as archive:
            member = tarfile.TarInfo("same.py")
            member.mtime = date
            archive.addfile(member)
    first, second = sorted(tmp_path.iterdir())
    assert release.differing(first, second) == ["order, dates or permissions of the members"]
