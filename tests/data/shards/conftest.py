"""One folder of pictures and its shards, which no test changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shard_sets import pictures, sharded


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures") / "images")


@pytest.fixture(scope="session")
def original(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharded(images, tmp_path_factory.mktemp("original") / "shards")


@pytest.fixture
def shards(original: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(original, tmp_path / "shards"))
