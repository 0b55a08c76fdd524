"""Above a share of unreadable images nothing is trained; below it they are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from automl_vision.config import DataSettings, Settings, load_settings
from automl_vision.data.facts import FACT_COLUMNS, Facts
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import Prepared, decode, prepare, prepare_to_look, read_manifest
from automl_vision.data.readable import said_of_unreadable, too_many_unreadable
from automl_vision.data.survey import NOTHING_KNOWN
from automl_vision.errors import ConfigError, DataError
from make_smoke_data import make_smoke_data


def scene(faults: list[str]) -> tuple[Manifest, Facts]:
    """Files with the given faults, "" for none."""
    count = len(faults)
    paths = tuple(f"a/{number:02d}.jpg" for number in range(count))
    labels = np.arange(count)[::-1] % 2  # the last two are of two classes
    manifest = Manifest(Path("/data"), paths, labels, ("a", "b"))
    rows = [{**NOTHING_KNOWN, "fault": fault, "detail": fault and "why"} for fault in faults]
    return manifest, Facts(pd.DataFrame(rows, columns=list(FACT_COLUMNS)))


@pytest.mark.parametrize(
    ("bad", "most", "refused"), [(2, 0.2, False), (3, 0.2, True), (8, 0.79, True), (8, 0.8, False), (1, 0.0, True)]
)
def test_the_share_decides(bad: int, most: float, refused: bool) -> None:
    manifest, facts = scene(["truncated"] * bad + [""] * (10 - bad))
    assert (too_many_unreadable(manifest, facts, DataSettings(max_unreadable=most)) is not None) is refused


def test_it_says_how_many_why_which_and_what_to_do() -> None:
    manifest, facts = scene(["not_an_image"] * 4 + ["empty"] * 2 + [""] * 4)
    error = too_many_unreadable(manifest, facts, DataSettings())
    assert error is not None
    assert error.what == "too many images cannot be read"
    for words in ("6 of 10 (60%; at most 20%)", "4 not_an_image, 2 empty", "- 'a/00.jpg': not_an_image, why"):
        assert words in str(error.value)
    assert "convert or remove it" in error.fix
    assert "--max-unreadable 0.6" in error.fix
    assert too_many_unreadable(manifest, facts, DataSettings(max_unreadable=0.6)) is None, "what it says helps"


def test_where_one_class_is_left_dealing_them_says_so() -> None:
    manifest, facts = scene(["empty"] * 9 + [""])
    assert too_many_unreadable(manifest, facts, DataSettings()) is None


def test_rows_that_were_accepted_as_missing_do_not_count() -> None:
    manifest, facts = scene(["missing"] * 5 + ["empty"] * 2 + [""] * 3)
    assert too_many_unreadable(manifest, facts, DataSettings(skip_bad_rows=True)) is None
    assert too_many_unreadable(manifest, facts, DataSettings()) is not None
    assert too_many_unreadable(manifest, facts, DataSettings(skip_bad_rows=True, max_unreadable=0.1)) is not None


def test_many_are_said_while_the_run_goes_on() -> None:
    assert said_of_unreadable(scene(["empty"] + [""] * 19)[1]) == ""
    assert "2 of 20 images (10%)" in said_of_unreadable(scene(["empty"] * 2 + [""] * 18)[1])


def looked_at(folder: Path, most: float) -> tuple[Prepared, DataError | None]:
    """What inspecting shows, and what a search would be refused with."""
    settings = replace(
        Settings(),
        data=DataSettings(max_unreadable=most, lineage="names"),
        machine=replace(Settings().machine, cache=False),
    )
    manifest = read_manifest(folder, settings)
    store, facts = decode(manifest, settings, [16], 1)
    try:
        found = prepare_to_look(manifest, facts, store, settings)
        try:
            prepare(manifest, facts, store, settings)
        except DataError as error:
            return found, error
        return found, None
    finally:
        store.close()


def test_a_page_is_made_of_what_no_search_takes(tmp_path: Path) -> None:
    make_smoke_data(tmp_path)
    for number in range(7):
        (tmp_path / "circle" / f"broken_{number}.png").write_bytes(b"\x89PNG")
    found, error = looked_at(tmp_path, 0.2)
    assert error is not None
    assert "7 of 28" in str(error)
    assert str(found.refused) == str(error)
    assert (found.split.name == "quarantine").sum() == 7
    assert sum(each.kind == "truncated" for each in found.audit.findings) == 7, "each is named"
    found, error = looked_at(tmp_path, 0.25)
    assert error is found.refused is None


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="max_unreadable"):
        load_settings(overrides={"data.max_unreadable": value})
