"""The only door to image decoding: bytes of unknown origin in, upright 8-bit RGB pixels or one error out.

What a decoder library does by itself is not what training needs: it clips 16-bit images to white, shows
the colours hidden under full transparency, ignores EXIF orientation, and warns about decompression bombs
instead of refusing them.
"""

from __future__ import annotations

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# Imported by name so that they are registered before the first file is opened: a registration triggered from
# several decoding threads at once would race, and would also register the forty formats nobody wants.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from automl_vision.data.files import Place, StoredImage, check_bytes, one_line, read_bytes, read_capped
from automl_vision.data.frames import count_frames
from automl_vision.data.pixel_room import MAX_PIXELS as MAX_PIXELS
from automl_vision.data.pixel_room import room_for
from automl_vision.data.webp_header import webp_size
from automl_vision.errors import ImageReadError

#: Formats that are opened, whatever a file is called. All others are refused: EPS would start Ghostscript.
FORMATS: dict[str, type[Any]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}

#: Pixels of a whole JPEG that is decoded at a fraction: all of it is read, and takes time.
MAX_READ_PIXELS = 4 * MAX_PIXELS

#: Fractions at which a JPEG can be decoded, the smallest first: 1/8, 1/4, 1/2.
_DRAFTS = (8, 4, 2)

# Pixels that are converted at once: a conversion takes several times the memory of what it is given.
_BAND_PIXELS = 2_000_000

#: Held while the file of an image that somebody else opened is read: the same one may be asked for in several threads.
_opened_by_others = threading.Lock()

_ORIENTATION_TAG = 0x0112
_CAMERA_TAGS = (0x010F, 0x0110)  # make, model
#: Optional parts of a file that one program always writes and another never.
_WRITER_MARKS = frozenset({"progressive", "jfif", "adobe", "dpi", "icc_profile", "gamma", "srgb", "interlace"})
_EXIF_BLOCK, _TAKEN_TAG, _FRACTION_TAG = 0x8769, 0x9003, 0x9291
_UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Orientations whose upright image has its sides the other way round.
_ON_ITS_SIDE = range(5, 9)

#: Markers of a JPEG: its scan, its frame (three in that range mean something else), and the kinds of frame that are
#: decoded block by block.
_SCAN, _FRAMES, _SEQUENTIAL = 0xDA, frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, (0xC0, 0xC1)

_Scaling = Callable[[NDArray[Any]], NDArray[np.uint8]]

# What the parsers of seven formats raise on damaged input. Interrupts and exits are not among them.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)

#: First bytes of files that are often found among images -> what to tell their owner.
_HINTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the files with `git lfs pull`"),
    (b"%pdf", "PDF: export its pages as PNG"),
    (b"<svg", "SVG: a drawing, not pixels; export it as PNG"),
    (b"<!doctype html", "an HTML page: a download that failed"),
    (b"<html", "an HTML page: a download that failed"),
    (b"<?xml", "XML or SVG: export it as PNG"),
    (b"{", "JSON or text"),
    (b"%!ps", "PostScript: export it as PNG"),
    (b"8bps", "Photoshop: export it as PNG"),
    (b"pk\x03\x04", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\x00\x00\x00\x0cjp", "JPEG 2000 or JPEG XL: convert it to JPEG or PNG"),
    (b"\xff\x0a", "JPEG XL: convert it to JPEG or PNG"),
    (b"\xff\x4f\xff\x51", "JPEG 2000: convert it to JPEG or PNG"),
    (b"\x00\x00\x01\x00", "an icon: convert it to PNG"),
)
_HINT_BY_BRAND: dict[bytes, str] = {
    b"avif": "AVIF: convert it to JPEG or PNG",
    b"avis": "AVIF: convert it to JPEG or PNG",
    b"mp42": "a video: extract its frames",
    b"isom": "a video: extract its frames",
    b"qt  ": "a video: extract its frames",
}
_JPEG_MAGIC = b"\xff\xd8"
_OWN_MAGIC = (_JPEG_MAGIC, b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF", b"P5\n", b"P6\n")


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One decoded image.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright, transparency composited on white; the sides are those of the image
            divided by `scale`, rounded up. At most `MAX_PIXELS`.
        width, height: of the image, upright.
        format: a key of `FORMATS`; empty for an image that was made in memory.
        mode: Pillow's mode as stored (L, RGB, RGBA, P, CMYK, I;16 ...).
        frames: frames or pages in the file; `pixels` is the first.
        exif_rotated: True where an EXIF orientation was applied.
        taken: when, in seconds since 1970 by the camera's clock, whatever its time zone; NaN where unknown.
        scale: 1 where it was decoded wholly; 2, 4 or 8 for a JPEG that was decoded at that fraction of its size.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    format: str
    mode: str
    frames: int
    exif_rotated: bool
    taken: float = math.nan
    scale: int = 1


def open_rgb(source: Place | str | bytes | Image.Image | IO[bytes], decode_side: int = 0) -> DecodedImage:
    """Decode one image.

    Args:
        source: a path, an image that is stored with others, the bytes of a file, a binary file object, or an image
            that Pillow opened. Of the last, pixels that are in memory already are taken as they are.
        decode_side: pixels that no side of a JPEG falls below when it is decoded at a fraction of its size, see
            `jpeg_scale`; 0 decodes wholly, or as much of a JPEG above `MAX_PIXELS` as fits.

    Raises:
        ImageReadError: the image cannot be used; `kind` says why. No other error comes out.
    """
    _quiet_pillow()
    _decoding.active = True
    try:
        return _open(source, decode_side)
    except MemoryError:
        raise ImageReadError("too_large", "not enough memory to decode it") from None
    finally:
        _decoding.active = False


def draft_scale(width: int, height: int, decode_side: int) -> int:
    """8, 4 or 2, the largest that leaves no side of a JPEG below `decode_side` when it is divided by it; else 1.

    The decoder then sums up fewer frequencies of each block of 8 x 8 pixels (libjpeg's scaled inverse transform), which
    takes less time than the blocks do and leaves less to resize.

    Args:
        width, height: of the whole image, in pixels.
        decode_side: in pixels; 0 gives 1, whatever the size.
    """
    if not decode_side:
        return 1
    return next((scale for scale in _DRAFTS if min(width, height) >= scale * decode_side), 1)


def jpeg_scale(width: int, height: int, decode_side: int) -> int:
    """What a JPEG is divided by: `draft_scale`, or more where only that leaves at most `MAX_PIXELS`; 8 at most."""
    scale = draft_scale(width, height, decode_side)
    while scale < _DRAFTS[0] and math.prod(_divided((width, height), scale)) > MAX_PIXELS:
        scale *= 2
    return scale


def jpeg_scales(widths: NDArray[np.int64], heights: NDArray[np.int64], decode_side: int) -> NDArray[np.int64]:
    """`jpeg_scale` of many images."""
    shorter = np.minimum(widths, heights)
    scales = np.ones(len(shorter), dtype=np.int64)
    for scale in reversed(_DRAFTS):
        half = scale // 2
        too_many = -(-widths // half) * -(-heights // half) > MAX_PIXELS
        scales[too_many | (decode_side > 0) & (shorter >= scale * decode_side)] = scale
    return scales


def shorter_side(path: Place) -> int | None:
    """The shorter side of an image in pixels, from its header alone; None where it cannot be read."""
    _quiet_pillow()
    _decoding.active = True
    try:
        with _identify(read_bytes(path)) as image:
            return min(image.size)
    except ImageReadError:
        return None  # decoding it later will say why
    finally:
        _decoding.active = False


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels as stored, from the header of an image file alone.

    Of a JPEG above `MAX_PIXELS` those at which it is decoded at most.

    Raises:
        ImageReadError: it is no image, or over the pixel limit. Damage behind the header is found by decoding only.
    """
    _quiet_pillow()
    check_bytes(data)
    _decoding.active = True
    try:
        with _identify(data) as image:
            width, height = _divided(image.size, _scale_of(image, data, 0))
            _check_pixels(width, height)
            return width, height
    finally:
        _decoding.active = False


@dataclass(frozen=True)
class FileSignature:
    """What tells which program wrote a file, without decoding it.

    Attributes:
        writer: equal for files that one program wrote with one set of options: format, mode, JPEG quantisation,
            chroma subsampling, progressive or not, resolution given or not.
        step: mean of the JPEG quantisation steps of the brightness, 1..255: the coarser, the larger; 0: no JPEG.
        camera: whether EXIF names the maker or the model of a camera.
    """

    writer: str
    step: float
    camera: bool


def signature_of(data: bytes) -> FileSignature:
    """The signature of an image file, from its header alone.

    Raises:
        ImageReadError: it cannot be read.
    """
    _quiet_pillow()
    _decoding.active = True
    try:
        with _identify(data) as image:
            return _signature(image)
    finally:
        _decoding.active = False


def _signature(image: Image.Image) -> FileSignature:
    camera = _names_camera(image)
    tables = getattr(image, "quantization", None) or {}
    marks = sorted(key for key in image.info if key in _WRITER_MARKS)
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or not tables:
        return FileSignature(f"{image.format} {image.mode} {marks}", 0.0, camera)
    layout = (JpegImagePlugin.get_sampling(image), sorted((key, list(each)) for key, each in tables.items()))
    step = float(np.mean(tables.get(0, next(iter(tables.values())))))
    return FileSignature(f"JPEG {image.mode} {marks} {layout}", step, camera)


def _names_camera(image: Image.Image) -> bool:
    try:
        exif = image.getexif()
        return any(exif.get(tag) for tag in _CAMERA_TAGS)
    except _DECODER_ERRORS:
        return False  # damaged EXIF names nobody


def _open(source: Place | str | bytes | Image.Image | IO[bytes], decode_side: int) -> DecodedImage:
    if isinstance(source, Image.Image):
        file = _file_behind(source) if decode_side or math.prod(source.size) > MAX_PIXELS else None
        if file is None:
            return _decode(source)
        source = file
    if isinstance(source, bytes):
        data = source
        check_bytes(data)
    elif isinstance(source, Path | str | StoredImage):
        data = read_bytes(source)
    elif hasattr(source, "read"):
        data = read_capped(source)
    else:  # a missing value in a table, for one
        raise ImageReadError("not_an_image", f"neither a path nor a picture, but a {type(source).__name__}")
    with _identify(data) as image:
        return _decode(image, _scale_of(image, data, decode_side))


def _file_behind(image: Image.Image) -> bytes | None:
    """The file of a JPEG that was opened and not decoded yet; None where there is none.

    A draft would shrink the caller's own image, and decoded wholly it would not be what its file is decoded to.
    """
    stream = getattr(image, "fp", None)
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or stream is None or not image.tile:
        return None
    if image.decoderconfig or image.tell():  # the caller asked for a draft of their own, or for another frame
        return None
    try:
        with _opened_by_others:
            at = stream.tell()
            stream.seek(0)
            data = read_capped(stream)
            stream.seek(at)
    except (OSError, ValueError):  # closed, or a stream that only goes forward
        return None
    return data


def _identify(data: bytes) -> Image.Image:
    if (size := webp_size(data)) is not None and math.prod(size) > MAX_PIXELS:
        raise _too_many(_shown(size))
    try:
        return Image.open(io.BytesIO(data), formats=tuple(FORMATS))
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Image.DecompressionBombError:
        return _beyond_pillow(data)
    except _DECODER_ERRORS as error:
        raise _damaged(error) from None


def _beyond_pillow(data: bytes) -> Image.Image:
    """A JPEG that Pillow finds too large to be opened: it may fit at a fraction.

    Pillow's own limit holds for the whole process, so it is left as it is.
    """
    if not data.startswith(_JPEG_MAGIC):
        raise _too_many("")
    try:
        return JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    except _DECODER_ERRORS as error:
        raise _damaged(error) from None


def _unidentified(data: bytes) -> ImageReadError:
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    hint = next((hint for magic, hint in _HINTS if start.startswith(magic)), "")
    if data[4:8] == b"ftyp":
        hint = _HINT_BY_BRAND.get(data[8:12], "HEIC: convert it to JPEG or PNG")
    if not hint and data.startswith(_OWN_MAGIC):
        return ImageReadError("truncated", f"the header is damaged, {len(data)} bytes in all")
    if not hint and not data[:4096].strip(b"\0"):
        hint = "zero bytes only: copy it again from its source"
    if not hint and data[:512].isascii() and b"\0" not in data[:512]:
        hint = "text"
    return ImageReadError("not_an_image", hint or "unknown content")


def _damaged(error: BaseException) -> ImageReadError:
    return ImageReadError("truncated", one_line(str(error)) or type(error).__name__)


def _scale_of(image: Image.Image, data: bytes, decode_side: int) -> int:
    """What an image is divided by when it is decoded.

    Args:
        image: as opened from `data`; nothing is decoded yet.
        data: the file.
        decode_side: as in `jpeg_scale`.

    Raises:
        ImageReadError: a JPEG is so large that no fraction of it will do.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):  # only JPEG knows how
        return 1
    pixels = math.prod(image.size)
    if pixels > MAX_READ_PIXELS:
        raise _too_many(_shown(image.size))
    if pixels > MAX_PIXELS and not _is_one_scan(data):
        # Its decoder holds two bytes for each sample of the whole, whatever the fraction.
        raise _too_many(f"{_shown(image.size)} in several scans, of which no fraction can be decoded by itself")
    return jpeg_scale(*image.size, decode_side)


def _is_one_scan(data: bytes) -> bool:
    """Whether a JPEG is sequential with all components in one scan, so that its decoder goes block by block."""
    at, components = len(_JPEG_MAGIC), 0
    while data[at : at + 1] == b"\xff" and at + 4 < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker == _SCAN:
            return data[at + 4] == components
        if marker in _FRAMES:
            components = data[at + 9] if marker in _SEQUENTIAL and at + 9 < len(data) else 0
        at += 2 + length
    return False


def _divided(size: tuple[int, int], scale: int) -> tuple[int, int]:
    width, height = size
    return -(-width // scale), -(-height // scale)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"


def _too_many(found: str) -> ImageReadError:
    over = f"over {MAX_PIXELS // 10**6} million"
    return ImageReadError("too_large", f"{found}, {over}" if found else f"{over} pixels")


def _decode(image: Image.Image, scale: int = 1) -> DecodedImage:
    whole = image.size
    if scale > 1:
        image.draft(image.mode, (whole[0] // scale, whole[1] // scale))
    width, height = image.size
    _check_pixels(width, height)
    if image.size == whole:
        scale = 1
    with room_for(width * height):
        return _decode_checked(image, whole, scale)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_many(_shown((width, height)))
    if width * height == 0:
        raise ImageReadError("truncated", _shown((width, height)))


def _decode_checked(image: Image.Image, whole: tuple[int, int], scale: int) -> DecodedImage:
    stored_as = "JPEG" if isinstance(image, MpoImagePlugin.MpoImageFile) else (image.format or "")
    mode = image.mode
    try:
        # Asked before load(): the TIFF reader turns the image by itself and then forgets the tag.
        orientation = _orientation(image)
        taken = _taken(image)
        frames = count_frames(image)
        image.load()
        pixels = _pixels(_upright(image), stored_as)
    except _DECODER_ERRORS as error:
        raise _damaged(error) from None
    # Only JPEGs are drafts, and what their reader opens is never turned yet.
    height, width = pixels.shape[:2] if scale == 1 else whole if orientation in _ON_ITS_SIDE else whole[::-1]
    return DecodedImage(
        pixels=pixels,
        width=width,
        height=height,
        format=stored_as,
        mode=mode,
        frames=frames,
        exif_rotated=orientation in _UPRIGHT,
        taken=taken,
        scale=scale,
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1
    return value if type(value) is int else 1


def _taken(image: Image.Image) -> float:
    """Seconds since 1970 by the camera's clock; NaN where the EXIF block does not tell, or is damaged."""
    try:
        block = image.getexif().get_ifd(_EXIF_BLOCK)
        moment = datetime.strptime(str(block[_TAKEN_TAG]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
        fraction = str(block.get(_FRACTION_TAG, "")).strip("\0 ")
        part = float(f"0.{fraction}") if fraction.isascii() and fraction.isdigit() else 0.0
    except _DECODER_ERRORS:
        return math.nan
    return moment.replace(tzinfo=UTC).timestamp() + part


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _pixels(image: Image.Image, stored_as: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image that is loaded, band by band."""
    width, height = image.size
    convert = _conversion(image, stored_as)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top, band in _bands(image):
        pixels[top : top + band.height] = np.asarray(convert(band))
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Row at which it begins, and some rows of the image; all of it where it is small."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _conversion(image: Image.Image, stored_as: str) -> Callable[[Image.Image], Image.Image]:
    """What makes RGB of the image, and of any part of it."""
    if image.mode.startswith("I;16"):
        return lambda part: _grey(_scaled_16_bit(np.asarray(part)))
    if image.mode in _DEEP:
        scaled = _DEEP[image.mode]((np.asarray(band) for _, band in _bands(image)), stored_as)
        return lambda part: _grey(scaled(np.asarray(part)))
    if image.has_transparency_data:
        return _on_white
    return lambda part: part if part.mode == "RGB" else part.convert("RGB")


def _grey(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.repeat(values[:, :, None], 3, axis=2))


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image if image.mode == "RGBA" else _as_rgba(image)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _as_rgba(image: Image.Image) -> Image.Image:
    return image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")


def _scaled_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    # (v + 128) // 257 is v / 257 to the nearest: 0 -> 0, 65535 -> 255.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _scale_of_integers(parts: Iterable[NDArray[Any]], stored_as: str) -> _Scaling:
    """8 and 16 bits keep their scale, so that dark images stay dark; anything wider is stretched."""
    low, high = _extremes(parts)
    if low < 0 or high > 65535:
        return lambda values: _stretched(values.astype(np.float64), low, high)
    # Pillow opens a 16-bit PGM as 32-bit integers over the 16-bit range, however dark it is.
    if high > 255 or stored_as == "PPM":
        return _scaled_16_bit
    return lambda values: values.astype(np.uint8)


def _scale_of_floats(parts: Iterable[NDArray[Any]], _stored_as: str) -> _Scaling:
    """0 to 1 is taken as such; anything else is stretched over its finite range. What is no number is black."""
    low, high = _extremes(part[np.isfinite(part)] for part in parts)
    if low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0

    def scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
        finite = np.isfinite(values)
        kept = np.where(finite, values, 0.0).astype(np.float64)
        return np.where(finite, _stretched(kept, low, high), np.uint8(0))

    return scaled


def _extremes(parts: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Least and largest value of all parts; 0 and 0 where there is none."""
    found = [(float(part.min()), float(part.max())) for part in parts if part.size]
    return min((low for low, _ in found), default=0.0), max((high for _, high in found), default=0.0)


def _stretched(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    share = (values / 2 - low / 2) / max(high / 2 - low / 2, np.finfo(np.float64).tiny)
    return np.asarray(np.rint(np.clip(share, 0.0, 1.0) * 255), dtype=np.uint8)


#: Pillow mode -> what makes 8 bits of its values, given all of them in parts and the format of the file.
_DEEP: dict[str, Callable[[Iterable[NDArray[Any]], str], _Scaling]] = {
    "I": _scale_of_integers,
    "F": _scale_of_floats,
}


# Pillow warns about damaged EXIF, odd palettes and large headers. Each of these is handled here, so the
# warnings are noise, and under `-W error` they would even decide whether an image decodes.
# `warnings.catch_warnings` swaps the filters of the whole process and is not safe in threads. So one filter
# is put in front, and it only matches in a thread that is inside `open_rgb`: a host program's own filters
# stay in force everywhere else.
class _Decoding(threading.local):
    active = False


_decoding = _Decoding()
_filter_lock = threading.Lock()


class _InsideDecoder(type):
    def __subclasscheck__(cls, _category: type) -> bool:
        return _decoding.active


class _WarningWhileDecoding(Warning, metaclass=_InsideDecoder):
    """Stands for any warning of a thread that is decoding."""


def _quiet_pillow() -> None:
    if warnings.filters and warnings.filters[0][2] is _WarningWhileDecoding:
        return
    with _filter_lock:
        # `simplefilter` asks issubclass(category, Warning), which the metaclass does not answer for.
        warnings.simplefilter("ignore", category=_WarningWhileDecoding)
