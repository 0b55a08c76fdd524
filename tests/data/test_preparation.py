"""The data stages together: what is refused before anything is decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from automl_vision.config import DataSettings, Settings
from automl_vision.data.preparation import read_manifest
from automl_vision.errors import DataError
from make_smoke_data import make_smoke_data


@pytest.mark.parametrize("name", ["group_regex", "original_regex"])
def test_a_pattern_that_matches_nothing_is_refused_with_a_path_to_look_at(tmp_path: Path, name: str) -> None:
    make_smoke_data(tmp_path)

    def settings(pattern: str) -> Settings:
        return replace(Settings(), data=replace(DataSettings(), **{name: pattern}))

    assert len(read_manifest(tmp_path, settings("([0-9]{4})"))) == 21
    with pytest.raises(DataError, match="matches no image") as caught:
        read_manifest(tmp_path, settings("patient([0-9]+)"))
    assert "circle/0000.png" in str(caught.value.fix)
