"""One image through the doors that images come in by: what scanning, predicting and serving make of it.

    python benchmarks/trust/image_doors.py SEED FIRST LAST FOLDER      # a child of mutated_images.py

`scan` is what `inspect` and `search` do with a file, `predict` what that command and `Model.predict` do, `serve` what
the server does with an upload before and after its queue. The network behind them is left out: it sees squares of
8-bit pixels, whatever the file was; so are the threads that all of them decode in. All have to say the same, and to see
the same pixels to the last bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from automl_vision.data.preprocess import SQUASH
from automl_vision.data.survey import _find, look_into
from automl_vision.errors import IMAGE_FAULTS, ImageReadError
from automl_vision.prediction import ImageModel
from automl_vision.serving.decoder import Duty, decode
from automl_vision.serving.limits import Limits
from trust.bounded_child import Bounds, work_through
from trust.image_seeds import seeds
from trust.mutations import mutated

_SIDE = 24
#: Half of the files are decoded as large photographs are: JPEGs at a fraction of their size.
_DECODE_SIDES = (0, 20)
OK = "ok"

Seen = tuple[str, NDArray[np.uint8] | None]


class SquaresOnly(ImageModel):
    """A model without a network."""

    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Even ones."""
        return np.full((len(squares[_SIDE]), len(self.class_names)), 1 / len(self.class_names))


def scan(path: Path, decode_side: int) -> Seen:
    """What the survey of a data set says of a file, and its square."""
    found = _find(path)
    if not found.digest:
        return found.kind, None
    fact, made = look_into(path, found.digest, (_SIDE,), decode_side)
    if "memory" in fact["detail"]:
        return "no memory", None
    return fact["fault"] or OK, made[0] if made else None


def predict(path: Path, decode_side: int) -> Seen:
    """What a model says of a file."""
    return _predicted(path, decode_side)


def serve(path: Path, decode_side: int) -> Seen:
    """What a decoder of the server makes of an upload; only an image that is large goes back to the server itself."""
    duty = Duty((_SIDE,), SQUASH, decode_side, Limits().pixels, sys.maxsize, picture_side=1, memory=0, cpu_seconds=0)
    try:
        decoded = decode(path.read_bytes(), duty, picture=False)
    except ImageReadError as error:
        return "no memory" if "memory" in error.detail else error.kind, None
    return OK, decoded.squares[0]


def _predicted(source: Path | bytes, decode_side: int) -> Seen:
    """What a thread of a model makes of a source, as `predict`, `evaluate` and `serve` have it."""
    opened = SquaresOnly(("a", "b"), (_SIDE,), 1, decode_side)._prepare(source, marked=True)
    if isinstance(opened, ImageReadError):
        return "no memory" if "memory" in opened.detail else opened.kind, None
    return OK, opened.squares[_SIDE]


DOORS: dict[str, Callable[[Path, int], Seen]] = {"scan": scan, "predict": predict, "serve": serve}


def looked_at(path: Path, decode_side: int, begins: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """What the first door said of a file, and `wrong`: where others differ, or it is nothing that may be said.

    Args:
        path: of the file.
        decode_side: as the doors take it.
        begins: called before each door.
    """
    seen: dict[str, Seen] = {}
    for name, door in DOORS.items():
        begins()
        seen[name] = door(path, decode_side)
    said, squares = next(iter(seen.values()))
    wrong = [] if said == OK or said in IMAGE_FAULTS else [said]
    for name, (other, pixels) in seen.items():
        if other != said:
            wrong.append(f"{name} says {other}, not {said}")
        elif not _alike(pixels, squares):
            wrong.append(f"{name} sees other pixels")
    return {"said": said, "wrong": wrong}


def _alike(one: NDArray[np.uint8] | None, other: NDArray[np.uint8] | None) -> bool:
    return one is other if one is None or other is None else bool(np.array_equal(one, other))


def main(arguments: list[str]) -> None:
    """Command line of the child."""
    seed, first, last = map(int, arguments[:3])
    folder = Path(arguments[3])
    all_seeds = seeds()

    def work(number: int, begins: Callable[[], None]) -> dict[str, Any]:
        image = mutated(all_seeds, seed, number)
        path = folder / f"image.{image.ending}"
        path.write_bytes(image.data)
        told = {"seed": image.name}
        return {**told, **looked_at(path, _DECODE_SIDES[number // len(all_seeds) % len(_DECODE_SIDES)], begins)}

    work_through(range(first, last), folder, Bounds(), work)


if __name__ == "__main__":
    main(sys.argv[1:])
