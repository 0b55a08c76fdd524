"""Where shards lie: a folder, or a URL of one of a few schemes. Nothing heavy is imported: the command line asks here.

Paths of the command line have lost one of the two slashes of a URL (`https:/host/set`); it is given back here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from automl_vision.data.hub_name import absolute, is_hub_name
from automl_vision.errors import UsageError

#: Schemes that shards are read from and written to. All others are refused, whatever a library would do with them:
#: `pipe:` runs a command.
READ_FROM = ("file", "https", "s3", "gs")
WRITTEN_TO = ("file", "s3", "gs")

#: At least two letters: `C:/` is a disk. A path that is there is a path, whatever it looks like.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<rest>/.*|:.*|)", re.DOTALL)
_COMMAND = re.compile(r"(?P<scheme>[Pp][Ii][Pp][Ee]):(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """A folder on this machine or elsewhere.

    Attributes:
        scheme: one of `READ_FROM`.
        rest: a path for "file"; else what follows the two slashes, without one at its end.
    """

    scheme: str
    rest: str

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return self.scheme == "file"

    @property
    def folder(self) -> Path:
        """The folder, of one on this machine."""
        return Path(self.rest)

    def __str__(self) -> str:
        return self.rest if self.is_local else f"{self.scheme}://{self.rest}"


def is_url(data: Path | str) -> bool:
    """Whether this is a URL, of whatever scheme, and neither a path that is there nor a name of the hub."""
    text = str(data)
    if is_hub_name(Path(text)) or not (_URL.fullmatch(text) or _COMMAND.fullmatch(text)):
        return False
    return not _is_there(text)


def parse_address(data: Path | str, *, to_write: bool = False) -> Address:
    """The place that a path or a URL names.

    Args:
        data: as the user wrote it, or as a path.
        to_write: whether something is to be written there.

    Raises:
        UsageError: a scheme that is not allowed, or a URL with parts that are not understood.
    """
    text = str(data)
    if not is_url(text):
        return Address("file", text)
    found = _COMMAND.fullmatch(text) or _URL.fullmatch(text)
    scheme, rest = ("", "") if found is None else (found["scheme"].lower(), found["rest"])
    allowed = WRITTEN_TO if to_write else READ_FROM
    if scheme not in allowed or rest.startswith(":"):
        does = "written to" if to_write else "read from"
        raise UsageError(
            f"shards are not {does} a URL of this scheme",
            value=f"{_shown(text)} ({scheme}:)",
            fix=f"give a folder, or a URL of {', '.join(f'{each}://' for each in allowed)}",
        )
    return _checked(scheme, rest, text)


def absolute_place(data: Path) -> Path:
    """The same from any folder; URLs and names of the hub stay as they are."""
    return data if is_url(data) else absolute(data)


def _checked(scheme: str, rest: str, text: str) -> Address:
    plain = rest.strip("/")
    if scheme == "file":
        return Address("file", f"/{plain}")
    try:
        parts = urlsplit(f"{scheme}://{plain}")
        (parts.hostname or "").encode("idna")
        port = parts.port
    except ValueError as error:  # a port that is none, brackets, labels of a name
        raise UsageError(
            "the URL of the shards is none",
            value=f"{_shown(text)} ({ascii(str(error))[1:200]})",
            fix=f"write it like {scheme}://HOST/FOLDER",
        ) from None
    if port == 0 or not parts.hostname or parts.username is not None or parts.password is not None:
        raise UsageError(
            "the URL of the shards names no host, or a user with it",
            value=_shown(text),
            fix=f"write it like {scheme}://HOST/FOLDER; credentials come from the environment",
        )
    if parts.query or parts.fragment or ".." in parts.path.split("/"):
        raise UsageError(
            "the URL of the shards has more than a host and a folder",
            value=_shown(text),
            fix=f"write it like {scheme}://HOST/FOLDER, without ?, # and ..",
        )
    return Address(scheme, plain)


def _shown(text: str) -> str:
    """Without what may be a password or a token."""
    hidden = re.sub(r"//?[^/@]*@", "//***@", text)
    return ascii(re.split("[?#]", hidden)[0][:200]).strip("'")


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
