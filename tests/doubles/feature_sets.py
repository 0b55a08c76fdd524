"""Features of made-up images: what heads are judged on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Features = tuple[NDArray[np.float32], NDArray[np.int64]]


def gaussians(n: int, *, classes: int = 3, dims: int = 16, spread: float = 0.5, seed: int = 0) -> Features:
    """Classes that differ in their mean alone: no head is better than the right linear one."""
    random = np.random.default_rng(seed)
    labels = (np.arange(n) % classes).astype(np.int64)
    centres = random.normal(size=(classes, dims)) * spread
    return (centres[labels] + random.normal(size=(n, dims))).astype(np.float32), labels


def xor(n: int, *, dims: int = 8, noise: float = 0.35, seed: int = 0) -> Features:
    """Two classes that no linear head can tell apart: the first two features have equal signs, or opposite ones."""
    random = np.random.default_rng(seed)
    signs = random.integers(0, 2, (n, 2))
    features = random.normal(size=(n, dims))
    features[:, :2] = 2 * signs - 1 + noise * random.normal(size=(n, 2))
    return features.astype(np.float32), np.asarray(signs[:, 0] ^ signs[:, 1], dtype=np.int64)
