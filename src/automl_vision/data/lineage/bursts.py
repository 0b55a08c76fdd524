"""Bursts and frames of videos: pictures taken one right after the other, told by running numbers and camera times.

They are no copies of each other, but a test image whose neighbour was trained on measures memory. Off unless the user
gives a window, because running numbers alone say nothing: most cameras number everything.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.lineage import Link
from automl_vision.data.manifest import SET_NAMES, Manifest
from automl_vision.rules import BurstWindow

#: A folder and what stands before and after the running number; and the number's width where numbers are padded.
SeriesKey = tuple[str, str, str, int]

_LAST_NUMBER = re.compile(r"(?P<before>.*?)(?P<number>\d{1,18})(?P<after>\D*)", re.ASCII | re.DOTALL)


def burst_links(manifest: Manifest, taken: NDArray[np.float64] | None, window: BurstWindow) -> tuple[Link, ...]:
    """Pictures of one folder whose numbers or times lie within the window; windows chain.

    Args:
        manifest: N rows.
        taken: (N) seconds by the camera's clock, NaN where unknown; None before any file was opened.
        window: how near is near.
    """
    links: list[Link] = []
    if window.numbers:
        links += _numbered(numbered_series(manifest), window.numbers)
    if window.seconds and taken is not None:
        links += _timed(manifest, taken, window.seconds)
    return tuple(links)


def numbered_series(manifest: Manifest) -> dict[SeriesKey, list[tuple[int, int]]]:
    """(number, row) of the files of each naming pattern, rising; the last number in a name is the running one.

    Folders that differ only in the set they name (`train/cat`, `test/cat`) count as one: whoever dealt frames to sets
    did so from one series. Where some numbers of a pattern are padded with zeros, those of another width are another
    series.
    """
    found: defaultdict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
    for row, path in enumerate(manifest.paths):
        folder, _, file = path.rpartition("/")
        stem = file.rpartition(".")[0] or file
        if match := _LAST_NUMBER.fullmatch(stem):
            found[home_folder(folder), match["before"], match["after"]].append((match["number"], row))
    return {key: sorted(members) for key, members in _by_width(found)}


def home_folder(folder: str) -> str:
    """The folder without the parts that name a set."""
    return "/".join(part for part in folder.split("/") if part.lower() not in SET_NAMES)


def _by_width(
    found: Mapping[tuple[str, str, str], Sequence[tuple[str, int]]],
) -> Iterable[tuple[SeriesKey, list[tuple[int, int]]]]:
    for (folder, before, after), members in found.items():
        padded = any(number.startswith("0") and len(number) > 1 for number, _ in members)
        series: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, row in members:
            series[len(number) if padded else 0].append((int(number), row))
        for width, numbered in series.items():
            yield (folder, before, after, width), numbered


def _numbered(series: Mapping[SeriesKey, Sequence[tuple[int, int]]], window: int) -> Iterable[Link]:
    for members in series.values():
        for (number, row), (following, other) in pairwise(members):
            if following - number <= window:
                yield _link(row, other, f"numbers {number} and {following}")


def _timed(manifest: Manifest, taken: NDArray[np.float64], window: float) -> Iterable[Link]:
    folders: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for row in np.flatnonzero(np.isfinite(taken)).tolist():
        folder = manifest.paths[row].rpartition("/")[0]
        folders[home_folder(folder)].append((float(taken[row]), row))
    for members in folders.values():
        for (seconds, row), (following, other) in pairwise(sorted(members)):
            if following - seconds <= window:
                yield _link(row, other, f"taken {following - seconds:.2f} s apart")


def _link(row: int, other: int, detail: str) -> Link:
    return Link(min(row, other), max(row, other), "bursts", detail)
