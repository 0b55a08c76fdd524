"""`predict --explain DIR`: one PNG per image, under a name of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from glob import has_magic
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.cli.terminal import safe, stderr
from automl_vision.errors import ImageReadError, UsageError

if TYPE_CHECKING:
    from automl_vision.prediction import Prediction
    from automl_vision.predictor import Model

#: Characters of a file's name that its heat map takes over.
LONGEST = 60


def require_explainable(model: Path, folder: Path, images: Sequence[str]) -> None:
    """Raise UsageError where this model cannot explain itself, or where its heat maps would lie among the images."""
    if model.suffix.lower() == ".onnx":
        raise UsageError(
            "an exported model has no gradients, which heat maps are made of",
            value=str(model),
            fix="give --explain with the model.pt that it was exported from",
        )
    inside = [name for name in images if Path(name).is_dir() and folder.resolve().is_relative_to(Path(name).resolve())]
    if inside:
        raise _among_images(folder, inside[0])


def require_apart(folder: Path, named: Sequence[str], images: Iterable[Path]) -> None:
    """Raise UsageError where heat maps would lie beside an image, or where a pattern would find them.

    Args:
        folder: of the heat maps.
        named: as the user named the images.
        images: what was found by that.
    """
    own = folder.resolve()
    patterns = [name for name in named if has_magic(name) and not Path(name).exists()]
    parents = set()
    for name in _matching(patterns, own):
        raise _among_images(folder, name)
    for each in images:
        parents.add(each.parent)
        for name in _matching(patterns, own / f"{safe_name(each.stem)}.png"):
            raise _among_images(folder, name)
    for parent in parents:
        if parent.resolve() == own:
            raise _among_images(folder, str(parent))


def _matching(patterns: Iterable[str], place: Path) -> Iterator[str]:
    """Those of the patterns that would find this place, were it there; hidden names are no exception here."""
    for pattern in patterns:
        parts = Path(pattern).parts
        plain = tuple(takewhile(lambda part: not has_magic(part), parts))
        start = Path(*plain).resolve()
        if place.is_relative_to(start) and _leads_to(parts[len(plain) :], place.relative_to(start).parts):
            yield pattern


def _leads_to(pattern: Sequence[str], place: Sequence[str]) -> bool:
    """Whether a pattern finds a place, both part by part."""
    if not pattern or not place:
        return not place and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _leads_to(pattern[1:], place) or _leads_to(pattern, place[1:])
    return fnmatch(place[0], pattern[0]) and _leads_to(pattern[1:], place[1:])


def _among_images(folder: Path, place: str) -> UsageError:
    return UsageError(
        "heat maps in a folder of images would be taken for images next time",
        value=f"--explain {folder} in {place}",
        fix="choose a folder beside it",
    )


class HeatMapFolder:
    """Heat maps of a model's predictions, as files. What is in the folder already is never overwritten.

    Args:
        model: what predicted.
        folder: where they go; made where it is missing.

    Attributes:
        empty: images for whose class nothing in them speaks; they have no file.
        gone: images that could be predicted, and could not be read again.

    Raises:
        UsageError: the folder cannot be made.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._used: Counter[str] = Counter()
        self.empty = 0
        self.gone = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from None

    def drawn(self, prediction: Prediction) -> Prediction:
        """The prediction with the path of its heat map; as it is where there is none.

        Raises:
            UsageError: the file cannot be written.
        """
        if prediction.probabilities is None:
            return prediction
        label = self._model.class_names[int(prediction.probabilities.argmax())]
        try:
            explained = self._model.explain(prediction.path, label)
        except ImageReadError:
            self.gone += 1
            return prediction
        if explained.is_empty:
            self.empty += 1
            return prediction
        return replace(prediction, heat_map=str(self._write(Path(prediction.path).stem, explained.png())))

    def tell(self) -> None:
        """Say how many images have no heat map, and why."""
        if self.empty:
            stderr.print(f"No heat map for {self.empty}: nothing in these images speaks for their class.")

    def _write(self, stem: str, data: bytes) -> Path:
        name = safe_name(stem)
        for number in count(self._used[name] + 1):
            path = self._folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
            self._used[name] = number
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                continue
            except OSError as error:
                raise _cannot_write(path, error) from None
            return path
        raise AssertionError("there are numbers without end")


def safe_name(stem: str) -> str:
    """A file name that every system takes: letters, digits, dots, dashes and underscores."""
    plain = "".join(each if each.isalnum() or each in "-_." else "_" for each in stem[:LONGEST])
    return plain.strip(".") or "image"


def _cannot_write(path: Path, error: OSError) -> UsageError:
    value = safe(f"{path} ({error.strerror or error})")
    return UsageError("the heat maps cannot be written", value=value, fix="choose another --explain")
