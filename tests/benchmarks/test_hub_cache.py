"""What is laid out for programs that know only the hub is what those programs load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hub_cache
from automl_vision.models.backbones import backbone
from automl_vision.models.weights import load_weights, require_weights


def test_timm_without_a_network_loads_the_weights_that_a_search_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from huggingface_hub import constants

    hub_cache.main([str(tmp_path)])
    # Read from the environment when the library is imported, which other tests have done.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    row = backbone("efficientnet_lite0")
    loaded = timm.create_model(row.timm_name, pretrained=True).state_dict()
    expected = load_weights(require_weights(row, offline=True), row)
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert set(loaded) == set(expected)
