"""Drawn pictures for tests of what lays pictures over each other; (side, side, 3) RGB each."""

from __future__ import annotations

import cv2
import numpy as np


def scene(seed: int, side: int = 160) -> np.ndarray:
    """Blobs, boxes and strokes at random places on a shaded ground."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side, 3), np.uint8)
    image[:] = np.linspace(60, 180, side)[:, None, None]
    for _ in range(45):
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        (x, y), (w, h) = rng.integers(0, side, 2).tolist(), rng.integers(4, side // 4, 2).tolist()
        if rng.random() < 0.5:
            cv2.ellipse(image, (x, y), (w, h), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


def clouds(seed: int, side: int = 200, sigma: float = 16.0) -> np.ndarray:
    """Soft light and shade without an edge: hardly any key points."""
    grain = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    smooth = cv2.normalize(cv2.GaussianBlur(grain, (0, 0), sigma), None, 20, 235, cv2.NORM_MINMAX)
    return np.repeat(smooth.astype(np.uint8)[:, :, None], 3, axis=2)


def drawing(seed: int, side: int = 160, strokes: int = 8) -> np.ndarray:
    """Thin strokes on white: line art."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 255, np.uint8)
    for _ in range(strokes):
        points = rng.integers(10, side - 10, (5, 1, 2)).astype(np.int32)
        cv2.polylines(image, [points], isClosed=False, color=(0, 0, 0), thickness=2, lineType=cv2.LINE_AA)
    return image


def warped(image: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The picture seen through `onto` (3, 3), from its pixels to pixels of what is returned; its rim is repeated."""
    size = (image.shape[1], image.shape[0])
    return cv2.warpPerspective(image, onto, size, borderMode=cv2.BORDER_REPLICATE)


def turning(degrees: float, side: int = 200) -> np.ndarray:
    """(3, 3) map that turns a square picture about its middle."""
    middle = (side - 1) / 2
    return np.vstack([cv2.getRotationMatrix2D((middle, middle), degrees, 1.0), [0.0, 0.0, 1.0]])


def tilting(side: int = 200) -> np.ndarray:
    """(3, 3) map that shows a square picture from its side."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
    seen = np.array([[0.1, 0.05], [0.95, 0], [1, 1], [0, 0.9]], dtype=np.float32)
    return cv2.getPerspectiveTransform(corners * side, seen * side)
