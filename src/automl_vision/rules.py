"""What a setting accepts, in code and in words: the rules behind the settings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from automl_vision.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """What a setting accepts.

    Attributes:
        allowed: the accepted values in words, for the documentation ("from 0.01 to 0.8").
        check: value -> what is wrong with it, or "".
    """

    allowed: str
    check: Callable[[Any], str]


_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"\d+(?:\.\d+)?"
_PARTS = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{unit})?" for unit in _UNITS), re.ASCII)
_SECONDS = re.compile(_NUMBER, re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10m", "1h", "1h30m" (d, h, m, s in this order), or a bare number of seconds.

    Raises:
        ConfigError: the text is no duration, or it is not positive and finite.
    """
    compact = text.strip().lower()
    parts = _PARTS.fullmatch(compact)
    if _SECONDS.fullmatch(compact):
        seconds = float(compact)
    elif compact and parts:
        seconds = sum(float(number) * _UNITS[unit] for unit, number in parts.groupdict("0").items())
    else:
        raise ConfigError("not a duration", value=repr(text), fix="write it like 90s, 10m, 1h or 1h30m")
    if not 0 < seconds < math.inf:
        raise ConfigError(
            "a duration must be longer than nothing and have an end",
            value=repr(text),
            fix="write it like 90s, 10m, 1h or 1h30m",
        )
    return seconds


_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_HOW_TO_WRITE_BYTES = "write it like 500M, 4G or 1.5T"


def parse_bytes(text: str) -> int:
    """Bytes of "500M", "4G", "1.5T" (powers of a thousand), or a bare number of bytes.

    Raises:
        ConfigError: the text is none of these, or comes to nothing.
    """
    found = _BYTES.fullmatch(text.strip())
    size = float(found[1]) * 1000.0 ** _POWERS[found[2].lower()] if found else 0.0
    if not 1 <= size < 2**62:
        raise ConfigError("not a size in bytes", value=repr(text), fix=_HOW_TO_WRITE_BYTES)
    return int(size)


def _check_bytes(value: str) -> str:
    try:
        parse_bytes(value)
    except ConfigError:
        return f"must be a size in bytes: {_HOW_TO_WRITE_BYTES}"
    return ""


def _check_duration(value: str) -> str:
    try:
        parse_duration(value)
    except ConfigError:
        return "must be a duration longer than nothing, like 90s, 10m, 1h or 1h30m"
    return ""


@dataclass(frozen=True)
class BurstWindow:
    """How near two pictures are that belong to one burst.

    Attributes:
        numbers: largest difference of file numbers; 0 where numbers do not count.
        seconds: largest difference of camera times; 0.0 where times do not count.
    """

    numbers: int = 0
    seconds: float = 0.0


_HOW_TO_WRITE_A_WINDOW = "write it like 3 (file numbers), 2s (camera times) or 3,2s (both)"
_FILE_NUMBERS = re.compile(r"[1-9]\d{0,5}", re.ASCII)


def parse_burst_window(text: str) -> BurstWindow:
    """The window of "3" (file numbers), "2s" (a duration with its unit, of camera times) or "3,2s" (both).

    Raises:
        ConfigError: the text is neither, or names one of them twice.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if _FILE_NUMBERS.fullmatch(part)]
    times = [part for part in parts if not _FILE_NUMBERS.fullmatch(part)]
    told = [part for part in times if not _SECONDS.fullmatch(part) and not _check_duration(part)]
    if len(numbers) > 1 or len(times) > 1 or told != times:
        raise ConfigError("not a window of file numbers or times", value=repr(text), fix=_HOW_TO_WRITE_A_WINDOW)
    return BurstWindow(sum(numbers), parse_duration(times[0]) if times else 0.0)


def _check_burst_window(value: str) -> str:
    try:
        parse_burst_window(value)
    except ConfigError:
        return f"must be file numbers, a time, or both: {_HOW_TO_WRITE_A_WINDOW}"
    return ""


def _check_regex(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression ({error})"
    return ""


def _check_regex_with_key(value: str) -> str:
    wrong = _check_regex(value)
    if wrong or not value:
        return wrong
    has_key = re.compile(value).groups > 0
    return "" if has_key else "needs one group in round brackets: the part that names the group"


def must_be(allowed: str, accepts: Callable[[Any], bool]) -> Rule:
    """A rule from one yes-or-no question."""
    return Rule(allowed, lambda value: "" if accepts(value) else f"must be {allowed}")


def between(low: float, high: float) -> Rule:
    """low <= value <= high."""
    return must_be(f"from {low:g} to {high:g}", lambda value: low <= value <= high)


def below(low: float, high: float) -> Rule:
    """low <= value < high."""
    return must_be(f"from {low:g} to below {high:g}", lambda value: low <= value < high)


def at_least(low: float) -> Rule:
    """low <= value, and finite."""
    return must_be(f"at least {low:g}", lambda value: low <= value < math.inf)


def above(low: float) -> Rule:
    """low < value, and finite."""
    return must_be(f"above {low:g}", lambda value: low < value < math.inf)


def one_of(*names: str) -> Rule:
    """One of a few names."""
    return must_be(f"one of {', '.join(names)}", lambda value: value in names)


OPTIONAL_DURATION = Rule("a duration: 90s, 10m, 1h30m", lambda text: _check_duration(text) if text else "")
BYTES = Rule("a size: 500M, 4G, 1.5T", _check_bytes)
OPTIONAL_BURST_WINDOW = Rule(
    "file numbers, a time, or both: 3, 2s, 3,2s", lambda text: _check_burst_window(text) if text else ""
)
REGEX = Rule("a regular expression", _check_regex)
REGEX_WITH_KEY = Rule("a regular expression with a group", _check_regex_with_key)
SIDES = must_be("sides from 16 to 4096", lambda sides: all(16 <= side <= 4096 for side in sides))
NAMES = must_be("names that are not empty", all)
SEED = must_be("from 0 to 4294967295", lambda value: 0 <= value <= 4_294_967_295)  # what numpy takes
PATH = must_be("without a NUL character", lambda path: "\0" not in path)
DEVICE = must_be(
    "auto, cpu, cuda, cuda:N or mps",
    lambda name: re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", name, re.ASCII) is not None,
)
BATCH_SIZE = must_be(
    "auto, or from 1 to 65536",
    lambda size: size == "auto" if isinstance(size, str) else 1 <= size <= 65_536,
)
#: What can show a search; the keys of `tracking.trackers.TRACKERS`.
TRACKER_NAMES = ("tensorboard", "mlflow", "wandb")
TRACKED_BY = must_be(f"some of {', '.join(TRACKER_NAMES)}", lambda names: all(name in TRACKER_NAMES for name in names))
SETS_BY_NAME = must_be(
    "train, val, test or none for each name",
    lambda named: all(value in {"train", "val", "test", "none"} for value in named.values()),
)
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})", re.ASCII)


def _check_cluster_address(text: str) -> str:
    if text in ("", "auto"):
        return ""
    if text.startswith("ray://"):
        return (
            "must be HOST:PORT of the head: Ray's client (ray://) is not used, a search starts on a node of the cluster"
        )
    parts = _HOST_AND_PORT.fullmatch(text)
    return "" if parts and 0 < int(parts["port"]) < 65_536 else "must be HOST:PORT, like 10.0.0.1:6379, or auto"


CLUSTER_ADDRESS = Rule("HOST:PORT, or auto", _check_cluster_address)
#: Where trials may be kept besides folders. Nothing else: other schemes run programs (pipe:) or unpack (zip::).
ADDRESS_SCHEMES = ("file", "s3", "gs")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII | re.IGNORECASE)
_PLAIN_ADDRESS = re.compile(rf"(file:///|(?:{'|'.join(ADDRESS_SCHEMES[1:])})://[^/\s@?#:]+)[^\s@?#:]*", re.ASCII)


def is_address(text: str) -> bool:
    """Whether text names an object store or the like (s3://...), in contrast to a folder."""
    return "://" in text


def _check_trials_url(text: str) -> str:
    if not is_address(text) or PATH.check(text):
        return PATH.check(text)
    if _PLAIN_ADDRESS.fullmatch(text):
        return ""
    scheme = _ADDRESS.match(text)
    if scheme is None or scheme[1] not in ADDRESS_SCHEMES:
        return f"must be a folder or an address that begins with {', '.join(f'{each}://' for each in ADDRESS_SCHEMES)}"
    return "must be a plain address like s3://bucket/run: no user, no password, no query; those go in the environment"


TRIALS_URL = Rule("a folder, or file://, s3:// or gs:// with a plain path", _check_trials_url)
FOLDER_NAME = must_be(
    "the name of one folder, no slash in it",
    lambda name: name not in {".", ".."} and not set(name) & set("/\\\0"),
)
