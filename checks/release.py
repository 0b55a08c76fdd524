"""What a release consists of: the files of the wheel, and whether two builds are the same to the last bit.

    uv run python checks/release.py --update    # write the list of the wheel's files, tests/checks/wheel_files.txt
    uv run python checks/release.py             # build twice with `uv build`, and compare

The two builds begin with copies of this folder in different places, under different masks of permissions, time zones
and seeds of hashes, and with files of another date. What differs then would differ between the machine that builds a
release and one on which somebody checks it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEEL_FILES = ROOT / "tests" / "checks" / "wheel_files.txt"
#: Seconds since 1970 that files in both archives are dated with; any number would do.
EPOCH = "1763856000"
#: What builds both archives into a folder, which is the last argument: in an environment of its own, or in this one.
UV = ("uv", "build", "--quiet", "--out-dir")
HATCHLING = (sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--target", "wheel", "--directory")
#: What a release is not made of, though it lies in this folder.
_NOT_COPIED = shutil.ignore_patterns(".venv", ".git", "runs", "dist", "build", "__pycache__", ".*_cache", ".hypothesis")
_HERE: dict[str, str] = {"TZ": "UTC", "PYTHONHASHSEED": "1"}
_ELSEWHERE: dict[str, str] = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2", "LC_ALL": "C"}


def copied(place: Path, *, mode: int, date: int | None = None) -> Path:
    """A copy of this folder whose files have these permissions, and this date in seconds since 1970 (None: as here)."""
    shutil.copytree(ROOT, place, ignore=_NOT_COPIED)
    for file in (each for each in place.rglob("*") if each.is_file()):
        file.chmod(mode | (file.stat().st_mode & 0o100))
        if date is not None:
            os.utime(file, (date, date))
    return place


def built(source: Path, out: Path, command: Sequence[str], setting: Mapping[str, str]) -> dict[str, Path]:
    """Build the package of a folder.

    Returns:
        name -> archive, of the wheel and of the sources.

    Raises:
        subprocess.CalledProcessError: it cannot be built.
    """
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **setting}
    subprocess.run([*command, str(out)], cwd=source, env=environment, check=True)
    return {file.name: file for file in sorted(out.iterdir()) if file.suffix in {".whl", ".gz"}}


def built_twice(command: Sequence[str], scratch: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> both archives of it, from copies of this folder that have nothing in common but their content."""
    here = copied(scratch / "here", mode=0o644)
    elsewhere = copied(scratch / "somewhere" / "else entirely", mode=0o600, date=1_000_000_000)
    first = built(here, scratch / "first", command, _HERE)
    second = built(elsewhere, scratch / "second", command, _ELSEWHERE)
    if set(first) != set(second):
        raise ValueError(f"one build made {sorted(first)}, the other {sorted(second)}")
    return {name: (file, second[name]) for name, file in first.items()}


def digest(file: Path) -> str:
    """sha256, hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def differing(first: Path, second: Path) -> list[str]:
    """What differs between two archives, for people: members by name, or else the archive itself."""
    if digest(first) == digest(second):
        return []
    here, there = members(first), members(second)
    names = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    return names or ["order, dates or permissions of the members"]


def members(archive: Path) -> dict[str, str]:
    """Name -> sha256 of the content, of the files in a wheel or in an archive of sources."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: hashlib.sha256(wheel.read(name)).hexdigest() for name in wheel.namelist()}
    with tarfile.open(archive) as sources:
        files = ((each.name, sources.extractfile(each)) for each in sources if each.isfile())
        return {name: hashlib.sha256(file.read()).hexdigest() for name, file in files if file is not None}


def wheel_files(wheel: Path) -> list[str]:
    """Names of a wheel's files, sorted, without the number of the version."""
    versioned = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    return sorted(name.replace(versioned, "automl_vision.dist-info/") for name in members(wheel))


def read_list() -> list[str]:
    """The files that a wheel is to have."""
    return WHEEL_FILES.read_text(encoding="utf-8").splitlines()


def _update() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        archives = built(ROOT, Path(scratch), HATCHLING, {})
        names = next(wheel_files(file) for file in archives.values() if file.suffix == ".whl")
    before = set(read_list()) if WHEEL_FILES.exists() else set()
    WHEEL_FILES.write_text("\n".join(names) + "\n", encoding="utf-8")
    for sign, changed in (("+", set(names) - before), ("-", before - set(names))):
        print("".join(f"{sign} {name}\n" for name in sorted(changed)), end="")
    print(f"wheel: {len(names)} files are in {WHEEL_FILES.relative_to(ROOT)}")
    return 0


def _compare() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        archives = built_twice(UV, Path(scratch))
        different = {name: differing(*both) for name, both in archives.items()}
        for name, (first, _) in archives.items():
            print(f"{digest(first)}  {name}")
    for name, parts in different.items():
        print("".join(f"{name}: {part} differs\n" for part in parts), end="")
    wrong = sum(map(bool, different.values()))
    print(f"build: {len(archives) - wrong} of {len(archives)} archives are the same in two builds")
    return int(wrong > 0)


def main() -> int:
    """Update the list, or build twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the list of the wheel's files")
    return _update() if parser.parse_args().update else _compare()


if __name__ == "__main__":
    sys.exit(main())
