"""What is odd about images and folders that people have: how to make each, and what has to be said of it."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trust.image_seeds import seeds

#: What may become of a file or folder.
USED, QUARANTINE, IGNORED, FINDING, DROPPED = "used", "quarantine", "ignored", "finding", "dropped class"
#: Sides of a photograph above the limit of pixels, which fits at half its size.
_LARGE = (9_000, 8_000)

Encode = Callable[[Image.Image], bytes]


@dataclass(frozen=True)
class Expected:
    """What has to be said.

    Attributes:
        oddity: its name.
        fate: one of the above.
        path: of the file, relative to the data; "" where it is about none.
        kind: of the fault or finding, the reason for which it is passed over, or the class; "" where nothing need be
            said.
    """

    oddity: str
    fate: str
    path: str = ""
    kind: str = ""


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=("PNG", "BMP"))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """The image as a file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


# --- files that hold a picture in an unusual way ---------------------------------------------------------------------


def _deep(kind: type[np.generic], scale: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.fromarray((np.asarray(image.convert("L"), dtype=np.float64) / 255 * scale).astype(kind))


def _with_alpha(image: Image.Image) -> Image.Image:
    made = image.convert("RGBA")
    made.putalpha(Image.new("L", image.size, 250))
    return made


def _with_a_clear_colour(image: Image.Image) -> bytes:
    """Its brightest colour is transparent, and so becomes white."""
    made = image.convert("RGB").quantize(8)
    colours = np.array(made.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
    return saved(made, "PNG", transparency=int(colours.sum(axis=1).argmax()))


def _pgm_of_16_bits(image: Image.Image) -> bytes:
    values = (np.asarray(image.convert("L"), dtype=np.uint32) * 257).astype(">u2")
    return b"P5 %d %d 65535\n" % image.size + values.tobytes()


def _turned(orientation: int) -> Encode:
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation

    def encode(image: Image.Image) -> bytes:
        stored = image if back is None else image.transpose(Image.Transpose(back))
        return saved(stored, "PNG", exif=exif)

    return encode


def _frames(form: str) -> Encode:
    def encode(image: Image.Image) -> bytes:
        others = [image.point(lambda value, by=by: (value + by) % 256) for by in range(1, 10)]
        return saved(image, form, save_all=True, append_images=others)

    return encode


#: Oddity -> file name ending, how the picture is stored, and what is found (file by file) where anything is.
STORED: Mapping[str, tuple[str, Encode, str]] = {
    "16-bit PNG": ("png", lambda image: saved(_deep(np.uint16, 65535)(image), "PNG"), ""),
    "16-bit TIFF": ("tif", lambda image: saved(_deep(np.uint16, 65535)(image), "TIFF"), ""),
    "16-bit PGM": ("pgm", _pgm_of_16_bits, ""),
    "32-bit TIFF": ("tiff", lambda image: saved(_deep(np.int32, 2**30)(image), "TIFF"), ""),
    "TIFF of floats": ("tif", lambda image: saved(_deep(np.float32, 1.0)(image), "TIFF"), ""),
    "CMYK JPEG": ("jpg", lambda image: saved(image.convert("CMYK"), "JPEG", quality=95), ""),
    "progressive JPEG": ("jpeg", lambda image: saved(image.convert("RGB"), "JPEG", progressive=True), ""),
    "palette GIF": ("gif", lambda image: saved(image.convert("P"), "GIF"), ""),
    "one bit": ("png", lambda image: saved(image.convert("1"), "PNG"), ""),
    "grey and alpha": ("png", lambda image: saved(_with_alpha(image).convert("LA"), "PNG"), ""),
    "colour and alpha": ("png", lambda image: saved(_with_alpha(image), "PNG"), ""),
    "palette with a clear colour": ("png", _with_a_clear_colour, ""),
    "lossless WebP": ("webp", lambda image: saved(image.convert("RGB"), "WEBP", lossless=True), ""),
    "BMP": ("bmp", lambda image: saved(image.convert("RGB"), "BMP"), ""),
    "ending in capitals": ("JPG", lambda image: saved(image.convert("RGB"), "JPEG"), ""),
    "PNG called .jpg": ("jpg", lambda image: saved(image, "PNG"), "wrong_extension"),
    "damaged EXIF": ("jpg", lambda image: saved(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), ""),
    "ICC profile": ("png", lambda image: saved(image.convert("RGB"), "PNG", icc_profile=b"no profile" * 9), ""),
    "one pixel": ("png", lambda image: saved(image.resize((1, 1)), "PNG"), ""),
    "a strip": ("png", lambda image: saved(image.resize((2000, 1)), "PNG"), ""),
    "a photograph over the limit": ("jpg", lambda image: saved(image.resize(_LARGE, 0), "JPEG", quality=40), ""),
    "animated GIF": ("gif", _frames("GIF"), "multi_frame"),
    "animated WebP": ("webp", _frames("WEBP"), "multi_frame"),
    "animated PNG": ("png", _frames("PNG"), "multi_frame"),
    "TIFF of ten pages": ("tif", _frames("TIFF"), "multi_frame"),
    **{f"EXIF orientation {number}": ("png", _turned(number), "") for number in range(1, 9)},
}


# --- files that hold none --------------------------------------------------------------------------------------------


def _png(width: int, height: int, more: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + _chunk(b"IDAT", zlib.compress(b"\0" * 64)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _tiff_cut() -> bytes:
    data = next(each.data for each in seeds() if each.ending == "tif")
    return data[: len(data) // 2]


_PACKED = zlib.compress(bytes(50_000_000))

#: Oddity -> file name, content, and the fault that is told.
NO_PICTURES: Mapping[str, tuple[str, Callable[[], bytes], str]] = {
    "no bytes": ("empty.jpg", lambda: b"", "empty"),
    "text": ("text.jpg", lambda: b"hello, world\n" * 9, "not_an_image"),
    "a page that was not found": ("page.png", lambda: b"<!DOCTYPE html><html>404</html>", "not_an_image"),
    "Git LFS pointer": ("lfs.jpg", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not_an_image"),
    "zeros": ("zeros.jpg", lambda: bytes(5000), "not_an_image"),
    "rubbish": ("rubbish.png", lambda: np.random.default_rng(0).bytes(3000), "not_an_image"),
    "cut JPEG": ("cut.jpg", lambda: seeds()[0].data[:900], "truncated"),
    "cut PNG": ("cut.png", lambda: seeds()[9].data[:900], "truncated"),
    "cut TIFF": ("cut.tif", _tiff_cut, "truncated"),
    "a start of a JPEG": ("start.jpg", lambda: b"\xff\xd8\xff\xe0", "truncated"),
    "HEIC called .jpg": ("phone.jpg", lambda: b"\0\0\0\x18ftypheic" + bytes(99), "not_an_image"),
    "AVIF called .png": ("avif.png", lambda: b"\0\0\0\x18ftypavif" + bytes(99), "not_an_image"),
    "SVG called .png": ("drawing.png", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "PDF called .jpg": ("scan.jpg", lambda: b"%PDF-1.7\n" + bytes(99), "not_an_image"),
    "PostScript called .jpg": (
        "page.jpg",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "not_an_image",
    ),
    "an icon called .bmp": ("icon.bmp", lambda: b"\0\0\x01\0\x01\0" + bytes(40), "not_an_image"),
    "gzip called .tif": ("packed.tif", lambda: gzip.compress(b"x" * 999), "not_an_image"),
    "bomb of 144 million pixels": ("bomb.png", lambda: _png(12_000, 12_000), "too_large"),
    "bomb of 4 thousand million": ("huge.png", lambda: _png(65_535, 65_535), "too_large"),
    "bomb in a text": ("ztxt.png", lambda: _png(4, 4, _chunk(b"zTXt", b"k\0\0" + _PACKED)), "truncated"),
    "bomb in a profile": ("iccp.png", lambda: _png(4, 4, _chunk(b"iCCP", b"p\0\0" + _PACKED)), "truncated"),
}


# --- folders, links, and what is no file -----------------------------------------------------------------------------


def _litter(root: Path, folder: Path, _good: bytes) -> Iterator[Expected]:
    for name, reason in ((".DS_Store", ".DS_Store"), ("Thumbs.db", "Thumbs.db"), ("desktop.ini", "desktop.ini")):
        (folder / name).write_bytes(b"x")
        yield Expected(name, IGNORED, kind=reason)
    (folder / "._1.jpg").write_bytes(b"x")
    yield Expected("AppleDouble", IGNORED, kind="AppleDouble")
    for name, reason in (("__MACOSX", "__MACOSX"), (".hidden", "hidden"), (".git", "hidden")):
        (root / name).mkdir()
        (root / name / "1.png").write_bytes(_good)
        yield Expected(f"{name} as a class", IGNORED, kind=reason)


def _other_files(root: Path, folder: Path, good: bytes) -> Iterator[Expected]:
    for name in ("notes.txt", "photos.zip", "phone.heic", "raw.dng", "drawing.svg", "none"):
        (folder / name).write_bytes(b"x")
        ending = Path(name).suffix or "no ending"
        yield Expected(f"a file {name}", IGNORED, kind=f"not an image: {ending}")
    (root / "beside.png").write_bytes(good)
    yield Expected("an image beside the classes", IGNORED, kind="image outside the class folders")


def _links(root: Path, folder: Path, _good: bytes) -> Iterator[Expected]:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "1.png").write_bytes(_good)
    (folder / "around").symlink_to(folder)
    (folder / "up").symlink_to(root)
    yield Expected("links in a circle", IGNORED, kind="link to a folder that is read already")
    (folder / "away").symlink_to(outside)
    yield Expected("a link to a folder outside", IGNORED, kind="link to a folder outside")
    real = folder / "0000.jpg"
    (folder / "link.jpg").symlink_to(real)
    yield Expected("a link to an image", FINDING, f"{folder.name}/link.jpg", "duplicate_file")
    os.link(real, folder / "twin.jpg")
    yield Expected("a hard link to an image", FINDING, f"{folder.name}/twin.jpg", "duplicate_file")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    yield Expected("a link to nothing", QUARANTINE, f"{folder.name}/gone.jpg", "missing")
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    yield Expected("a link to itself", QUARANTINE, f"{folder.name}/self.jpg", "unreadable")


def _no_files(_root: Path, folder: Path, _good: bytes) -> Iterator[Expected]:
    os.mkfifo(folder / "pipe.png")
    yield Expected("a pipe", QUARANTINE, f"{folder.name}/pipe.png", "not_a_file")
    (folder / "zero.png").symlink_to("/dev/zero")
    yield Expected("a link to /dev/zero", QUARANTINE, f"{folder.name}/zero.png", "not_a_file")
    os.mknod(folder / "socket.png", stat.S_IFSOCK | 0o600)
    yield Expected("a socket", QUARANTINE, f"{folder.name}/socket.png", "not_a_file")


def _folders(root: Path, folder: Path, good: bytes) -> Iterator[Expected]:
    (root / "nothing in it").mkdir()
    yield Expected("an empty class", FINDING, kind="empty_class")
    (root / "lonely").mkdir()
    (root / "lonely" / "1.png").write_bytes(good)
    yield Expected("a class of one image", DROPPED, kind="lonely")
    (root / "all broken").mkdir()
    for number in range(3):
        (root / "all broken" / f"{number}.jpg").write_bytes(b"broken %d" % number)
    yield Expected("a class without an image that can be read", DROPPED, kind="all broken")
    deep = folder / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "deep.png").write_bytes(saved(_opened(good).rotate(4), "PNG"))
    yield Expected("a folder in a folder", USED, f"{folder.name}/a/b/c/d/deep.png")
    (folder / "folder.png").mkdir()


def _two_labels(root: Path, folder: Path, good: bytes) -> Iterator[Expected]:
    other = next(each for each in sorted(root.iterdir()) if each != folder and len(list(each.glob("*.jpg"))) > 5)
    for place in (folder, other):
        (place / "both.png").write_bytes(saved(_opened(good).rotate(9), "PNG"))
        yield Expected("one picture under two labels", FINDING, f"{place.name}/both.png", "label_conflict")


def _closed(_root: Path, folder: Path, good: bytes) -> Iterator[Expected]:
    """Only for who may not read everything."""
    (folder / "locked.png").write_bytes(good)
    (folder / "locked.png").chmod(0)
    yield Expected("a file that may not be read", QUARANTINE, f"{folder.name}/locked.png", "unreadable")
    (folder / "locked").mkdir()
    (folder / "locked" / "1.png").write_bytes(good)
    (folder / "locked").chmod(0)
    yield Expected("a folder that may not be read", IGNORED, kind="folder that cannot be opened")


def _names(_root: Path, folder: Path, good: bytes) -> Iterator[Expected]:
    names = ("new\nline", "tab\t", "\x1b[31mred", "[bold]", "=cmd()", "-rf", "n" * 245, "a 'b' \"c\" & d", "\u202egnp")
    for number, name in enumerate((*names, "\udcff\udcfe", unicodedata.normalize("NFD", "caf\u00e9"))):
        path = folder / f"{name}.png"
        turned = _opened(good).rotate(number - 5)
        path.write_bytes(saved(turned.point(lambda value, by=number: min(255, value + by)), "PNG"))
        yield Expected(f"a file named {name[:20]!a}", USED, f"{folder.name}/{name}.png")


Make = Callable[[Path, Path, bytes], Iterator[Expected]]
#: Each is given the data, one class folder, and the bytes of a sound picture of that class.
FOLDERS: tuple[Make, ...] = (_litter, _other_files, _links, _no_files, _folders, _two_labels, _names)
CLOSED: Make = _closed


# --- what stops a search ---------------------------------------------------------------------------------------------


def _alike(root: Path, names: tuple[str, str], good: bytes) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(good)
    return root


def _table(root: Path, good: bytes) -> Path:
    root.mkdir()
    (root / "1.png").write_bytes(good)
    (root.parent / "beside.png").write_bytes(good)
    lines = ("image,label", "1.png,a", "1.png,b", "2.png,a", "1.png,", "../beside.png,a", "/etc/passwd,a")
    (root / "table.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    return root / "table.csv"


def _without_header(root: Path, good: bytes) -> Path:
    root.mkdir()
    (root / "1.png").write_bytes(good)
    (root / "table.csv").write_text("1.png;a\n1.png;b\n")
    return root / "table.csv"


def _one_class(root: Path, good: bytes) -> Path:
    for number in range(6):
        (root / "cat").mkdir(parents=True, exist_ok=True)
        (root / "cat" / f"{number}.png").write_bytes(saved(_opened(good).rotate(number * 5), "PNG"))
    return root


def _archive(root: Path, _good: bytes) -> Path:
    root.mkdir()
    (root / "images.tar.gz").write_bytes(gzip.compress(bytes(10_000)))
    return root / "images.tar.gz"


#: Oddity -> what makes it, and words of the refusal. All end with exit code 2, before anything is trained.
STOPS: Mapping[str, tuple[Callable[[Path, bytes], Path], tuple[str, ...]]] = {
    "Cat and cat": (lambda root, good: _alike(root, ("Cat", "cat"), good), ("differ only by case", "'Cat' and 'cat'")),
    "an accent in two forms": (
        lambda root, good: _alike(root, ("caf\u00e9", "cafe\u0301"), good),
        ("Unicode form", "caf\\xe9"),
    ),
    "a table with everything wrong": (
        _table,
        ("problems in the table", "line 3", "line 4: missing file", "line 5: empty label", "--allow-outside"),
    ),
    "a table without a header": (_without_header, ("the first line looks like data",)),
    "one class": (_one_class, ("at least two classes", "'cat' 6")),
    "an archive": (_archive, ("archives are not read",)),
    "nothing": (lambda root, _good: root, ("no images at this path",)),
}
