"""How the files of an original and of its copies are called, as tools and people call them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from leaky_sets.pipeline import Pipeline, Rng


@dataclass(frozen=True)
class Naming:
    """A habit.

    Attributes:
        original: (folder of the class, stem, suffix with its dot, generator) -> path of an original.
        copy: (path of its original, number of the copy from 1, pipeline, suffix, generator) -> path of a copy.
        keeps_stems: False where nothing of the picture's own name is left.
    """

    original: Callable[[str, str, str, Rng], str]
    copy: Callable[[PurePosixPath, int, Pipeline, str, Rng], str]
    keeps_stems: bool = True


def _hex(rng: Rng, digits: int) -> str:
    return rng.bytes(digits // 2).hex()


def _plain(folder: str, stem: str, suffix: str, _rng: Rng) -> str:
    return f"{folder}/{stem}{suffix}"


def _random(folder: str, _stem: str, suffix: str, rng: Rng) -> str:
    return f"{folder}/{_hex(rng, 12)}{suffix}"


def _random_copy(original: PurePosixPath, _number: int, _pipeline: Pipeline, suffix: str, rng: Rng) -> str:
    return f"{original.parent}/{_hex(rng, 12)}{suffix}"


def _aug_copy(original: PurePosixPath, number: int, _pipeline: Pipeline, suffix: str, _rng: Rng) -> str:
    return f"{original.parent}/{original.stem}_aug_{number}{suffix}"


def _operation_copy(original: PurePosixPath, number: int, pipeline: Pipeline, suffix: str, _rng: Rng) -> str:
    return f"{original.parent}/{original.stem}_{pipeline.operation}_{number}{suffix}"


def _augmentor_copy(original: PurePosixPath, _number: int, _pipeline: Pipeline, suffix: str, rng: Rng) -> str:
    number = uuid.UUID(bytes=rng.bytes(16), version=4)
    return f"{original.parent}/output/{original.parent.name}_original_{original.name}_{number}{suffix}"


def _keras_copy(original: PurePosixPath, number: int, _pipeline: Pipeline, suffix: str, rng: Rng) -> str:
    """A generator over one picture at a time counts from 0 each time; the second number is drawn, here never twice."""
    drawn = 2_000 * number + int(rng.integers(2_000))
    return f"{original.parent}/{original.stem}_0_{drawn}{suffix.replace('.jpg', '.jpeg')}"


def _numbered_copy(original: PurePosixPath, number: int, _pipeline: Pipeline, suffix: str, _rng: Rng) -> str:
    return f"{original.parent}/{original.stem}_{number}{suffix}"


def _folder_copy(original: PurePosixPath, number: int, _pipeline: Pipeline, suffix: str, rng: Rng) -> str:
    return f"{original.parent}/augmented/{_hex(rng, 8)}{number}{suffix}"


def _roboflow(folder: str, stem: str, suffix: str, rng: Rng) -> str:
    return f"{folder}/{stem}_{suffix[1:]}.rf.{_hex(rng, 32)}{suffix}"


def _roboflow_copy(original: PurePosixPath, _number: int, _pipeline: Pipeline, suffix: str, rng: Rng) -> str:
    return f"{original.parent}/{original.name.rsplit('.rf.', 1)[0]}.rf.{_hex(rng, 32)}{suffix}"


NAMINGS: dict[str, Naming] = {
    "random": Naming(_random, _random_copy, keeps_stems=False),
    "aug": Naming(_plain, _aug_copy),
    "operation": Naming(_plain, _operation_copy),
    "augmentor": Naming(_plain, _augmentor_copy),
    "keras": Naming(_plain, _keras_copy),
    "numbered": Naming(_plain, _numbered_copy),
    "folder": Naming(_plain, _folder_copy),
    "roboflow": Naming(_roboflow, _roboflow_copy),
}
