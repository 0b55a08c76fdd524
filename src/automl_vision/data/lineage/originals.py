"""Which image of a group is the original: cues of its members, weighed by a conditional logit.

Every member has a utility, and so has the answer that none of them is the original, which may be missing from the
folder or have been overlooked; the softmax of the utilities is the probability of each answer (McFadden, "Conditional
logit analysis of qualitative choice behavior", 1973). The weights are fitted on copies of known making by
`fitting/original_picker.py`. Where no member reaches `SURE`, the group stays unsure: an exact mirror image, for one,
has no trace of which came first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Probability from which a member is named the original.
SURE = 0.99
#: Members that each member is compared with on either side of it, in the order of their pixels.
REACH = 5

#: Cues of one image alone.
SINGLE: tuple[str, ...] = (
    "log pixels",
    "finest details",
    "fine details",
    "noise",
    "blocks",
    "histogram gaps",
    "clipped",
    "specks",
    "colourfulness",
    "brightness",
    "contrast",
    "flat rim",
    "quantisation step",
    "no JPEG",
    "bits per pixel",
    "camera",
)

#: Directed cues of a pair: the first laid under the second.
PAIR: tuple[str, ...] = (
    "shows more",
    "filled flat",
    "filled by its own",
    "erased",
    "colours unexplained",
    "sharper",
    "correlation",
    "score",
    "mirrored",
    "turned",
    "inverted",
    "not aligned",
    "distorted",
    "colour differs",
)

#: Cues of a pair that say something else about the first than about the second; of the others both say the same.
_DIRECTED = 6
#: Cues of single images whose distance from the median of the group counts, too.
_CENTRAL = tuple(SINGLE.index(name) for name in ("colourfulness", "brightness", "contrast"))
#: Added to counts of the folder, so that what was never seen has odds.
_PRIOR = 1.0


@dataclass(frozen=True)
class Group:
    """What is known of the members of one group.

    Attributes:
        single: (n, S) cues of each, see `SINGLE`.
        pairs: (n, n, P) cues of each laid under each other, see `PAIR`; NaN where they were not compared.
        writers: signature of the program that wrote each.
        sizes: sides of each, in any order that makes turned ones equal.
    """

    single: Floats
    pairs: Floats
    writers: tuple[str, ...]
    sizes: tuple[str, ...]


@dataclass(frozen=True)
class Folder:
    """How often signatures and sizes occur in all of the data.

    Attributes:
        alone: of images that nothing resembles: most of them are originals.
        grouped: of images in groups: most of them are copies.
    """

    alone: Mapping[str, int]
    grouped: Mapping[str, int]

    def odds(self, key: str) -> float:
        """Logarithm of how much more common a signature or a size is among lone images."""
        one = (self.alone.get(key, 0) + _PRIOR) / (sum(self.alone.values()) / 2 + 2 * _PRIOR)
        other = (self.grouped.get(key, 0) + _PRIOR) / (sum(self.grouped.values()) / 2 + 2 * _PRIOR)
        return float(np.log(one / other))


def folder_of(alone: Sequence[tuple[str, str]], grouped: Sequence[tuple[str, str]]) -> Folder:
    """Counts of (signature, size) of all images."""
    flat = ([key for pair in pairs for key in pair] for pairs in (alone, grouped))
    return Folder(*(Counter(keys) for keys in flat))


MEMBER_CUES: tuple[str, ...] = (
    *(f"{name}, against the others" for name in SINGLE),
    *(f"{SINGLE[at]}, from the middle" for at in _CENTRAL),
    *(f"{what} {how}" for what in ("writer", "size") for how in ("shared", "odd one out", "of lone images")),
    *(f"{name}, {how}" for name in PAIR[:_DIRECTED] for how in ("mean", "most", "of the others, mean", "least, net")),
    *(f"{name}, mean" for name in PAIR[_DIRECTED:]),
    "compared with",
)

NONE_CUES: tuple[str, ...] = ("constant", "log members", "shows all", "unfilled", "aligned", "mirrored", "likeness")


def member_cues(group: Group, folder: Folder) -> Floats:
    """(n, M) cues of each member, in the order of `MEMBER_CUES`."""
    n = len(group.single)
    return np.stack([np.array(_member(group, folder, at, n)) for at in range(n)])


def none_cues(group: Group) -> Floats:
    """(Z) cues of the answer that none of them is the original, in the order of `NONE_CUES`."""
    names = {name: at for at, name in enumerate(PAIR)}
    compared = ~np.isnan(group.pairs[:, :, 0])
    some = np.where(compared[:, :, None], group.pairs, 0.0)
    count = np.maximum(compared.sum(axis=1), 1)

    def of(name: str) -> Floats:
        return np.asarray(some[:, :, names[name]], dtype=np.float64)

    return np.array(
        [
            1.0,
            np.log(len(group.single)),
            of("shows more").max(axis=0).min(),
            of("filled flat").max(axis=1).min(),
            (of("not aligned").sum(axis=1) / count).min(),
            (of("mirrored").sum(axis=1) / count).min(),
            (of("correlation").sum(axis=1) / count).max(),
        ]
    )


def _member(group: Group, folder: Folder, at: int, n: int) -> list[float]:
    others = [each for each in range(n) if each != at]
    single = group.single[at] - group.single[others].mean(axis=0)
    middle = np.median(group.single, axis=0)
    central = np.abs(group.single - middle)[:, _CENTRAL]
    values = [*single.tolist(), *(central[at] - central.mean(axis=0)).tolist()]
    for keys in (group.writers, group.sizes):
        rest = [keys[each] for each in others]
        shared = rest.count(keys[at]) / len(rest)
        odd = float(len(rest) > 1 and shared == 0 and len(set(rest)) == 1)
        values += [shared, odd, folder.odds(keys[at])]
    seen = [each for each in others if not np.isnan(group.pairs[at, each, 0])]
    if not seen:
        return [*values, *[0.0] * (4 * _DIRECTED + len(PAIR) - _DIRECTED + 1)]
    mine, theirs = group.pairs[at, seen], group.pairs[seen, at]
    for cue in range(_DIRECTED):
        net = theirs[:, cue] - mine[:, cue]
        values += [mine[:, cue].mean(), mine[:, cue].max(), theirs[:, cue].mean(), net.min()]
    return [*values, *mine[:, _DIRECTED:].mean(axis=0).tolist(), len(seen) / len(others)]


@dataclass(frozen=True)
class Picker:
    """Fitted weights.

    Attributes:
        fitted: by which program and when.
        mean, scale: (M) of the cues of members.
        linear: (M) weights of the scaled cues.
        hidden: (H, M + 1) weights and bias of tanh units of the scaled cues; H may be 0.
        output: (H) weights of the units.
        none: (Z) weights of the cues of the answer "none".
        temperature: what the utilities are divided by, for honest probabilities.
    """

    fitted: str
    mean: Floats
    scale: Floats
    linear: Floats
    hidden: Floats
    output: Floats
    none: Floats
    temperature: float

    def probabilities(self, group: Group, folder: Folder) -> Floats:
        """(n) that each member is the original; the rest to 1 is that none of them is."""
        if len(group.single) < 2:
            return np.zeros(len(group.single))
        scaled = np.clip((member_cues(group, folder) - self.mean) / self.scale, -6.0, 6.0)
        units = np.tanh(scaled @ self.hidden[:, :-1].T + self.hidden[:, -1])
        utilities = np.append(scaled @ self.linear + units @ self.output, none_cues(group) @ self.none)
        weights = np.exp((utilities - utilities.max()) / self.temperature)
        return np.asarray(weights[:-1] / weights.sum(), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "fitted": self.fitted,
            "cues": {
                name: [round(float(value), 6) for value in row]
                for name, *row in zip(MEMBER_CUES, self.mean, self.scale, self.linear, strict=True)
            },
            "hidden": np.round(self.hidden, 5).tolist(),
            "output": np.round(self.output, 5).tolist(),
            "none": dict(zip(NONE_CUES, np.round(self.none, 6).tolist(), strict=True)),
            "temperature": round(self.temperature, 6),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Picker:
        """The inverse of `to_dict`; cues are found by their names."""
        cues = np.array([values["cues"][name] for name in MEMBER_CUES], dtype=np.float64)
        return cls(
            fitted=str(values["fitted"]),
            mean=cues[:, 0],
            scale=cues[:, 1],
            linear=cues[:, 2],
            hidden=np.array(values["hidden"], dtype=np.float64).reshape(-1, len(MEMBER_CUES) + 1),
            output=np.array(values["output"], dtype=np.float64),
            none=np.array([values["none"][name] for name in NONE_CUES], dtype=np.float64),
            temperature=float(values["temperature"]),
        )


@lru_cache(maxsize=1)
def load_picker() -> Picker:
    """The weights that are shipped."""
    file = resources.files(__package__).joinpath("original_picker.json")
    return Picker.from_dict(json.loads(file.read_text("utf-8")))
