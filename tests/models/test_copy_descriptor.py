from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from automl_vision.models.copy_descriptor import MATRICES, PARTS, CopyDescriptor, copy_features, describer
from automl_vision.models.weights import WeightSource, load_weights
from automl_vision.runtime import Runtime

RUNTIME = Runtime(torch.device("cpu"), None, threads=1)
SIDE = 96


def photographs() -> list[np.ndarray]:
    """Twelve fields of two photographs that do not overlap, (SIDE, SIDE, 3) each."""
    fields = [
        photo[y : y + 200, x : x + 200]
        for photo in load_sample_images().images
        for y in (0, 210)
        for x in (0, 210, 420)
    ]
    return [cv2.resize(field, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for field in fields]


def noisy(image: np.ndarray) -> np.ndarray:
    return np.clip(image + np.random.default_rng(1).normal(0, 12, image.shape), 0, 255).astype(np.uint8)


COPIES = {
    "mirrored": lambda image: image[:, ::-1],
    "turned": np.rot90,
    "darker": lambda image: (image * 0.6).astype(np.uint8),
    "grey": lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
    "cropped": lambda image: cv2.resize(image[10:80, 15:90], (SIDE, SIDE)),
    "noisy": noisy,
}


class Pictures:
    """Pictures of one size in memory."""

    sizes = (SIDE,)

    def __init__(self, images: list[np.ndarray]) -> None:
        self._pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def plane_for(self, size: int) -> int:
        return SIDE

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        return self._pixels[rows]


def described(images: list[np.ndarray], told: list[int] | None = None) -> np.ndarray:
    describe = describer(Pictures(images), RUNTIME, told.append if told is not None else None)
    assert describe is not None
    features = describe(np.arange(len(images)), math.inf)
    assert features is not None
    return features


def test_copies_are_nearer_than_strangers() -> None:
    originals = photographs()
    n = len(originals)
    made = [np.ascontiguousarray(make(image)) for make in COPIES.values() for image in originals]
    told: list[int] = []
    features = described([*originals, *made], told)
    assert told[-1] == len(features) == n + n * len(COPIES)
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.sqrt(len(PARTS)), rel=1e-4)
    features = features - features.mean(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    alike = features[n:] @ features[:n].T
    own = np.tile(np.arange(n), len(COPIES))
    nearer = (alike > alike[np.arange(len(own)), own][:, None]).sum(axis=1)
    assert nearer.max() <= 1, "fields of one sky are alike; but the original is always among the first"
    assert (nearer > 0).mean() <= 0.03


def test_time_is_kept() -> None:
    describe = describer(Pictures(photographs()), RUNTIME)
    assert describe is not None
    assert describe(np.arange(12), -math.inf) is None


def test_neither_the_order_of_memory_nor_the_company_changes_a_vector() -> None:
    features = copy_features()
    assert features is not None
    net = CopyDescriptor(features).eval()
    images = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = net(images)
        alone = torch.cat([net(image[None]) for image in images])
        last = net.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    assert together.shape[1] == sum(matrix.shape[1] for matrix in _stored().values())
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=0)
    torch.testing.assert_close(last, together, atol=1e-4, rtol=0)


def _stored() -> dict[str, np.ndarray]:
    with np.load(MATRICES, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def test_the_matrices_are_plain_small_and_finite() -> None:
    assert MATRICES.stat().st_size < 1_000_000
    stored = _stored()
    assert set(stored) == set(PARTS)
    for name, columns in PARTS.items():
        assert stored[name].dtype == np.float16
        assert len(stored[name]) == columns.stop - columns.start + 1
        assert np.isfinite(stored[name]).all()


def test_no_weights_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_vision.models.copy_descriptor.find_weights", lambda *_, **__: None)
    assert describer(Pictures(photographs()), RUNTIME) is None


def test_what_an_image_is_described_by_does_not_depend_on_the_others() -> None:
    describe = describer(Pictures(photographs()), RUNTIME)
    assert describe is not None
    rows = np.array([0, 1, 2] * 4)
    together, alone = describe(rows, math.inf), describe(rows[2:3], math.inf)
    assert together is not None
    assert alone is not None
    assert alone.shape == (1, together.shape[1])
    assert np.array_equal(together[[2, 5, 11]], alone[[0, 0, 0]])


def test_the_name_tells_what_changes_a_descriptor(tmp_path: Path) -> None:
    first, again = describer(Pictures(photographs()), RUNTIME), describer(Pictures(photographs()), RUNTIME)
    assert first is not None
    assert again is not None
    assert first.name == again.name
    content = bytearray(Path(first.weights.location).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "weights.pth").write_bytes(content)
    changed = replace(first, weights=replace(first.weights, location=str(tmp_path / "weights.pth")))
    other = replace(RUNTIME, threads=2), replace(RUNTIME, amp_dtype="bfloat16")
    names = {first.name, changed.name, *(replace(first, runtime=each).name for each in other)}
    names.add(replace(first, preprocessing=replace(first.preprocessing, size=32)).name)
    assert len(names) == 5


def test_the_network_is_made_once_and_only_where_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WeightSource] = []
    monkeypatch.setattr(
        "automl_vision.models.copy_descriptor.load_weights",
        lambda source, row: (made.append(source), load_weights(source, row))[1],
    )
    describe = describer(Pictures(photographs()), RUNTIME)
    assert describe is not None
    assert describe.name
    assert made == []
    for _ in range(2):
        assert describe(np.arange(2), math.inf) is not None
    assert made == [describe.weights]
