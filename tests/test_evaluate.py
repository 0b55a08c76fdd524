"""Measuring a model on another set: what counts as one piece of evidence, and what the user is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.config import Settings
from automl_vision.data.preparation import read_manifest
from automl_vision.data.preprocess import Preprocessing
from automl_vision.events import Event, Note
from automl_vision.models.classifier import build_classifier
from automl_vision.pipeline import evaluate
from make_smoke_data import make_smoke_data

SETTINGS = replace(Settings(), machine=replace(Settings().machine, device="cpu"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_smoke_data(tmp_path / "data", images=3, copies=2)
    return tmp_path / "data"


def model_of(tmp_path: Path, fingerprint: str) -> Path:
    net = build_classifier("mobilenetv3_small_100", 3, resolution=32)
    bundle = Bundle(
        backbone="mobilenetv3_small_100",
        head="linear",
        class_names=("circle", "square", "triangle"),
        preprocessing=Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        temperature=1.0,
        state_dict=net.state_dict(),
        provenance={"data_fingerprint": fingerprint},
    )
    save_bundle(bundle, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_copies_of_one_original_are_one_piece_of_evidence(tmp_path: Path, data: Path) -> None:
    section, predictions, _ = evaluate(model_of(tmp_path, ""), data, SETTINGS)
    assert section["n"] == len(predictions) == 27
    assert section["groups"] == 9


@pytest.mark.parametrize("own", [True, False])
def test_the_set_that_the_model_was_made_from_is_called_so(tmp_path: Path, data: Path, own: bool) -> None:
    fingerprint = read_manifest(data, SETTINGS).fingerprint if own else "another"
    heard: list[Event] = []
    evaluate(model_of(tmp_path, fingerprint), data, SETTINGS, tell=heard.append)
    assert own == any(isinstance(each, Note) and "was made from" in each.text for each in heard)
