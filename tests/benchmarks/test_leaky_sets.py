"""The sets that the benchmark of copies makes: the same each time, and the truth about them is true."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leaky_sets.folder import FILES, IMAGES, TRUTH, Original, Plan, read_truth, write_set
from leaky_sets.naming import NAMINGS
from leaky_sets.pipeline import Picture, Pipeline
from leaky_sets.pipelines import LIBRARIES, PIPELINES, chosen_pipelines

#: Those that the project needs anyway.
AT_HAND = ("torchvision", "Roboflow-like")


def drawing(seed: int, size: tuple[int, int] = (96, 72)) -> Picture:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def originals(count: int) -> list[Original]:
    return [Original(f"clipart/a--{n}.png", "ab"[n % 2], partial(drawing, n)) for n in range(count)]


@pytest.mark.parametrize("pipeline", chosen_pipelines(AT_HAND), ids=lambda each: each.name)
@pytest.mark.parametrize("size", [(96, 72), (28, 28)], ids=str)
def test_a_pipeline_follows_its_generator_alone(pipeline: Pipeline, size: tuple[int, int]) -> None:
    picture = drawing(0, size)
    before = picture.tobytes()
    once = pipeline.change(picture, np.random.default_rng(7))
    np.random.rand(3)  # somebody else draws
    again = pipeline.change(picture, np.random.default_rng(7))
    assert once.mode == "RGB"
    assert (once.size, once.tobytes()) == (again.size, again.tobytes())
    assert picture.tobytes() == before


def test_every_library_has_single_operations_and_chains() -> None:
    kinds = Counter((each.library, each.kind) for each in PIPELINES.values())
    assert set(kinds) == {(library, kind) for library in LIBRARIES for kind in ("single", "chain")}
    assert len(PIPELINES) == sum(kinds.values())  # no name twice


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("files", FILES)
def test_the_truth_tells_every_file(tmp_path: Path, naming: str, files: str) -> None:
    made = write_set(originals(5), tmp_path / "set", Plan(naming=naming, files=files, libraries=AT_HAND[1:]))
    images = tmp_path / "set" / IMAGES
    truth = read_truth(tmp_path / "set" / TRUTH)
    assert sorted(truth) == sorted(str(file.relative_to(images)) for file in images.rglob("*.*"))
    assert sorted(truth.values(), key=lambda m: m.file) == sorted(made, key=lambda m: m.file)
    copies = Counter(each.source for each in made if each.is_copy)
    assert sorted(copies.values()) == [4, 4, 4]
    firsts = {each.source: each.file for each in made if not each.is_copy}
    assert len(firsts) == 5
    shown = Image.open(images / firsts["clipart/a--3.png"])
    assert np.abs(np.asarray(shown, dtype=float) - np.asarray(drawing(3))).mean() < 5


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("once", "again"):
        write_set(originals(4), tmp_path / name, Plan(libraries=AT_HAND, seed=3))
    write_set(originals(4), tmp_path / "other", Plan(libraries=AT_HAND, seed=4))
    once, again, other = (
        {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in ("once", "again", "other")
    )
    assert once == again
    assert set(once) != set(other)


def test_a_set_without_copies_needs_no_library(tmp_path: Path) -> None:
    made = write_set(originals(3), tmp_path / "set", Plan(copies=0, libraries=("no such library",)))
    assert [each.is_copy for each in made] == [False] * 3


def test_a_missing_library_is_no_smaller_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIBRARIES, "Augmentor", "no_such_module")
    with pytest.raises(ModuleNotFoundError, match="Augmentor not installed"):
        chosen_pipelines()
