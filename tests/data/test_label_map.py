"""Fine labels merged into coarse ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from automl_vision.data.label_map import apply_label_map
from automl_vision.data.manifest import Manifest
from automl_vision.errors import DataError

FINE = Manifest(
    root=Path("/data"),
    paths=("a", "b", "c", "d"),
    labels=np.array([2, 0, 1, 2]),
    class_names=("beagle", "caf\u00e9 cat", "persian"),
    empty_classes=("poodle", "fox"),
)


def mapped(tmp_path: Path, text: str, manifest: Manifest = FINE) -> Manifest:
    (tmp_path / "map.csv").write_text(text, encoding="utf-8")
    return apply_label_map(manifest, tmp_path / "map.csv")


@pytest.mark.parametrize("header", ["", "fine,coarse\n", "\ufeffbreed,species\n"])
def test_labels_follow_their_names(header: str, tmp_path: Path) -> None:
    coarse = mapped(tmp_path, header + "persian,cat\nbeagle, dog\ncafe\u0301 cat,cat\npoodle,dog\nunused,x\n")
    assert coarse.class_names == ("cat", "dog")
    assert [coarse.class_names[label] for label in coarse.labels] == ["cat", "dog", "cat", "cat"]
    assert coarse.paths == FINE.paths
    assert coarse.empty_classes == ("fox",)


def test_other_delimiters(tmp_path: Path) -> None:
    assert mapped(tmp_path, "persian;cat\nbeagle;dog\ncaf\u00e9 cat;cat\n").class_names == ("cat", "dog")


def test_all_classes_without_an_entry_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 3 classes.*'beagle', 'persian'"):
        mapped(tmp_path, "caf\u00e9 cat,cat\n")


def test_contradictions_and_incomplete_lines_are_listed_at_once(tmp_path: Path) -> None:
    text = "persian,cat\nbeagle\npersian,dog\nbeagle,\na,b,c\npersian,cat\n"
    with pytest.raises(DataError, match="4 problems") as caught:
        mapped(tmp_path, text)
    assert all(f"line {line}: " in str(caught.value) for line in (2, 3, 4, 5))


def test_coarse_names_must_not_look_alike(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'Cat' and 'cat'"):
        mapped(tmp_path, "persian,cat\nbeagle,dog\ncaf\u00e9 cat,Cat\n")


def test_a_missing_map(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        apply_label_map(FINE, tmp_path / "absent.csv")
