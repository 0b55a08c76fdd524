"""How an image becomes the input of a network: one spec for training, validation, test and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an upright RGB image before the network sees it.

    Attributes:
        size: side of the square input in pixels.
        mean: per channel, on a scale of 0 to 1.
        std: per channel, on a scale of 0 to 1, > 0.
        resize: "squash" (the whole image into the square).
        interpolation: "bilinear", with antialiasing.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = "squash"
    interpolation: str = "bilinear"


def normalize(
    batch: torch.Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> torch.Tensor:
    """(B, 3, S, S) uint8 to (B, 3, S, S) float32, channels_last: (value / 255 - mean) / std."""
    count, channels, height, width = batch.shape
    # Rows of W x 3 values with mean and std repeated along them: the broadcast that vectorises best.
    rows = batch.permute(0, 2, 3, 1).reshape(count, height, width * channels).float()
    shift = torch.tensor(mean, device=batch.device).repeat(width) * 255
    scale = 1 / (torch.tensor(std, device=batch.device).repeat(width) * 255)
    return rows.sub_(shift).mul_(scale).view(count, height, width, channels).permute(0, 3, 1, 2)
