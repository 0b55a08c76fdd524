"""A heat map drawn over its image.

The image is shown in grey and darkened, so that every colour that is seen is the map's and the brightest places are the
hottest ones: that is told apart by people who do not see colours, and on paper without any.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.preprocess import MIDDLE, SQUASH, middle_box, stretched

#: Heat from 0 to 1 in even steps -> RGB: matplotlib's inferno from a quarter on, where it can be told from black. Its
#: lightness grows all the way.
COLOURS = np.array(
    [
        (87, 16, 110),
        (120, 28, 109),
        (154, 40, 101),
        (188, 55, 84),
        (216, 76, 62),
        (237, 105, 37),
        (249, 142, 9),
        (251, 182, 26),
        (244, 223, 83),
        (252, 255, 164),
    ],
    dtype=np.float32,
)
#: Share of the map's colour where the heat is 1; it falls with the heat, so that what is cold shows the image.
DENSEST = 0.75
#: Brightness of the image under the map.
DIMMED = 0.6
_GREY = np.array((0.299, 0.587, 0.114), dtype=np.float32)


def overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float32], resize: str = SQUASH) -> NDArray[np.uint8]:
    """The image with its map, which lies where the network looked.

    Args:
        pixels: (H, W, 3) uint8.
        heat: (S, S) float32 in 0..1, of the square that the image was made to.
        resize: how: see `preprocess.Preprocessing`. What a network does not see has no heat.

    Returns:
        (H, W, 3) uint8. A map that is 0 everywhere leaves the grey image.
    """
    height, width, _ = pixels.shape
    hot = np.clip(_laid(heat, height, width, resize), 0.0, 1.0)[..., None]
    grey = DIMMED * (pixels @ _GREY)[..., None]
    share = DENSEST * np.sqrt(hot)
    return np.rint((1 - share) * grey + share * _colour(hot[..., 0])).astype(np.uint8)


def _laid(heat: NDArray[np.float32], height: int, width: int, resize: str) -> NDArray[np.float32]:
    """(H, W) the map over the whole image, or over the square in its middle."""
    if resize != MIDDLE:
        return stretched(heat, height, width)
    left, top, side = middle_box(width, height)
    laid = np.zeros((height, width), dtype=np.float32)
    laid[top : top + side, left : left + side] = stretched(heat, side, side)
    return laid


def _colour(hot: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) in 0..1 to (H, W, 3) in 0..255."""
    steps = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(hot, steps, COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)
