"""Files out of a multipart body: in memory, never on disk, and bounded while they come.

Starlette's own reader takes a body that ends in the middle of a file for a whole one, and writes files to disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from automl_vision.serving.answers import Refused
from automl_vision.serving.limits import Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_FORM = b"multipart/form-data"
#: Parts besides files: fields of a form, which are passed over.
_FIELDS = 32


@dataclass(frozen=True)
class Upload:
    """One file.

    Attributes:
        name: as it was sent.
        data: its bytes; none of a file over the limit.
        size: of all its bytes.
    """

    name: str
    data: bytes
    size: int


async def read_uploads(body: AsyncIterable[bytes], content_type: str, limits: Limits) -> list[Upload]:
    """All files of a body, in order.

    Args:
        body: its chunks.
        content_type: the header of that name.
        limits: `files` and `file_bytes` hold.

    Raises:
        Refused: it is no multipart body, is malformed or cut off, or has too many files or none.
    """
    kind, options = parse_options_header(content_type)
    if kind != _FORM:
        raise Refused("not_multipart", f"content type {content_type[:100]!r}")
    if not options.get(b"boundary"):
        raise Refused("bad_request", "the content type has no boundary")
    parts = _Parts(limits)
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise Refused("bad_request", f"malformed multipart body: {str(error)[:150]}") from None
    if not parts.ended:
        raise Refused("bad_request", "the multipart body ends early")
    if not parts.files:
        raise Refused("no_file", "no file among the parts of the request")
    return parts.files


@dataclass
class _Part:
    """A part of the body while it comes."""

    header_name: bytes = b""
    header_value: bytes = b""
    disposition: bytes = b""
    name: str | None = None  # of a file; a field has none
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class _Parts:
    """What the parser calls."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = _Part()
        self._fields = 0
        self.files: list[Upload] = []
        self.ended = False

    def callbacks(self) -> MultipartCallbacks:
        """By the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _header_end(self) -> None:
        if self._part.header_name.lower() == b"content-disposition":
            self._part.disposition = self._part.header_value
        self._part.header_name = self._part.header_value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        if b"filename" in options:
            self._part.name = _text(options[b"filename"])
            if len(self.files) == self._limits.files:
                raise Refused("too_large", f"over {self._limits.files} files")
            return
        self._fields += 1
        if self._fields > _FIELDS:
            raise Refused("too_large", f"over {_FIELDS} fields that are no files")

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.name is not None:
            part.size += end - start
            part.pieces.append(data[start:end])
            if part.size > self._limits.file_bytes:
                part.pieces.clear()

    def _end(self) -> None:
        if self._part.name is not None:
            self.files.append(Upload(self._part.name, b"".join(self._part.pieces), self._part.size))
            self._part = _Part()  # its pieces are held no longer

    def _all(self) -> None:
        self.ended = True


def _text(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")
