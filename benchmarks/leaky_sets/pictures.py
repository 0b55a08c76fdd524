"""A pool of different pictures, from packages that anybody can fetch.

    mkdir debs && cd debs && apt-get download tuxpaint-stamps-default openclipart-png stellarium-data opencv-doc \\
        python3-skimage mate-backgrounds plasma-workspace-wallpapers tuxpaint-data wesnoth-1.16-data gcompris-qt-data
    for deb in *.deb; do dpkg-deb -x "$deb" "unpacked/${deb%%_*}"; done
    python -m leaky_sets.pictures debs/unpacked pool    # in the folder benchmarks

writes `pool/fit/<source>/...` and `pool/test/<source>/...`: what is fitted sees the one half, what is reported comes
from the other. Which half a picture is in follows from its path, or from the photograph that it was cut from.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

#: Sides in pixels of the pictures in the pool: smaller ones are left out, larger ones are shrunk.
SMALLEST, LARGEST = 90, 480
#: Pixels of a picture above which it is left out: it takes seconds to read.
_HUGE = 60_000_000
#: Side of the tiles that are cut from photographs for the desktop; they share no pixel.
TILE = 480


@dataclass(frozen=True)
class Source:
    """Pictures of one kind.

    Attributes:
        package: of Debian.
        folder: in it.
        skipped: parts of paths that are left out.
        tiles: cut from each picture, at most; 0: it is taken as a whole.
        per_folder: pictures taken from each folder, at most; of wallpapers the largest alone.
    """

    package: str
    folder: str
    skipped: tuple[str, ...] = ()
    tiles: int = 0
    per_folder: int = 0


SOURCES: dict[str, Source] = {
    # Symbols, icons and flags are drawn in series: is one star a copy of another?
    "clipart": Source(
        "openclipart-png",
        "usr/share/openclipart/png",
        tuple(
            f"/{kind}/"
            for kind in (
                *("shapes", "signs_and_symbols", "computer", "special", "geography", "recreation", "logos", "office"),
                *("people", "tools", "unsorted", "education", "electronics", "roadsigns"),
            )
        ),
    ),
    "stamps": Source("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps", ("/symbols/", "_mirror", "_flip")),
    "sky": Source("stellarium-data", "usr/share/stellarium/nebulae/default"),
    "vision": Source("opencv-doc", "usr/share/doc/opencv-doc/examples/data"),
    "science": Source("python3-skimage", "usr/lib/python3/dist-packages/skimage/data", ("_ref", "_truth", "diff")),
    "nature": Source("mate-backgrounds", "usr/share/backgrounds/mate", ("/desktop/", "/abstract/"), tiles=12),
    "plasma": Source(
        "plasma-workspace-wallpapers", "usr/share/wallpapers", ("images_dark", "screenshot"), per_folder=1
    ),
    "starters": Source("tuxpaint-data", "usr/share/tuxpaint/templates"),
    "portraits": Source("wesnoth-1.16-data", "usr/share/games/wesnoth/1.16/data/core/images/portraits"),
    **{
        name: Source("gcompris-qt-data", f"usr/share/gcompris-qt/rcc/{name}.rcc")
        for name in ("categorization", "lang", "explore_monuments", "explore_world_animals", "erase")
    },
}


def write_pool(packages: Path, pool: Path) -> dict[str, int]:
    """Write the pictures of all packages that are there; how many of each source."""
    return {name: _write_source(name, source, packages, pool) for name, source in SOURCES.items()}


def read_pool(half: Path, count: int = 0, seed: int = 0, sources: tuple[str, ...] = ()) -> list[Path]:
    """Pictures of one half in random order: `count` of them (0: all), every source in proportion."""
    files = sorted(file for file in half.rglob("*.*") if not sources or file.relative_to(half).parts[0] in sources)
    ranked = sorted(files, key=lambda file: _hash(f"{seed}/{file.relative_to(half)}"))
    return ranked[: count or len(ranked)]


def half_of(key: str) -> str:
    """Fit or test, for good."""
    return "fit" if _hash(key) % 2 else "test"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _write_source(name: str, source: Source, packages: Path, pool: Path) -> int:
    root = packages / source.package / source.folder
    written: set[bytes] = set()
    for file in _files(root, source):
        key = file.name if file == root else str(file.relative_to(root))
        for number, picture in enumerate(_pictures(file, source)):
            pixels = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
            if min(picture.size) < SMALLEST or pixels in written:
                continue
            written.add(pixels)
            stem = key.replace("/", "--").rsplit(".", 1)[0]
            half = half_of(f"{name}/{key}" if source.tiles else f"{name}/{key}/{number}")
            target = pool / half / name / (f"{stem}--{number}.png" if number else f"{stem}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.save(target, compress_level=1)
    return len(written)


def _files(root: Path, source: Source) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    found = [f for f in root.rglob("*") if f.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") and f.is_file()]
    kept = [f for f in sorted(found) if not f.is_symlink() and not any(part in str(f) for part in source.skipped)]
    taken: dict[Path, int] = {}
    for file in sorted(kept, key=lambda f: (str(f.parent), -f.stat().st_size, f.name)):
        taken[file.parent] = taken.get(file.parent, 0) + 1
        if not source.per_folder or taken[file.parent] <= source.per_folder:
            yield file


def _pictures(file: Path, source: Source) -> Iterator[Image.Image]:
    """RGB pictures on white."""
    streams = _webp_in(file.read_bytes()) if file.suffix == ".rcc" else iter([io.BytesIO(file.read_bytes())])
    for stream in streams:
        yield from _pieces(stream, source)


def _webp_in(archive: bytes) -> Iterator[io.BytesIO]:
    """Qt resources hold their files as they are; WebP says its length."""
    for found in re.finditer(rb"RIFF(....)WEBP", archive, re.DOTALL):
        length = int.from_bytes(found[1], "little") + 8
        yield io.BytesIO(archive[found.start() : found.start() + length])


def _pieces(stream: io.BytesIO, source: Source) -> Iterator[Image.Image]:
    try:
        with Image.open(stream, formats=("JPEG", "PNG", "WEBP")) as opened:
            if opened.width * opened.height > _HUGE:
                return
            image = opened.convert("RGBA")
    except OSError:  # some of the packages' test data are broken on purpose
        return
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    picture = Image.alpha_composite(white, image).convert("RGB")
    if not source.tiles:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        yield picture
        return
    picture.thumbnail((4 * TILE, 4 * TILE), Image.Resampling.LANCZOS)
    corners = [
        (left, top)
        for top in range(0, picture.height - TILE + 1, TILE)
        for left in range(0, picture.width - TILE + 1, TILE)
    ]
    for left, top in corners[: source.tiles]:
        tile = picture.crop((left, top, left + TILE, top + TILE))
        if _shows_something(tile):
            yield tile


def _shows_something(tile: Image.Image) -> bool:
    """A tile of plain sky is no picture that anybody could tell from another."""
    small = np.asarray(tile.convert("L").resize((32, 32), Image.Resampling.BOX))
    return int(np.ptp(small)) > 60


def main() -> None:
    """Write the pool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder with one folder per unpacked package")
    parser.add_argument("pool", type=Path, help="folder to write")
    args = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None  # the packages are trusted, and huge pictures left out
    for name, count in write_pool(args.packages, args.pool).items():
        print(f"{count:6,} {name}")


if __name__ == "__main__":
    main()
