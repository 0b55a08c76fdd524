"""What a frozen backbone says about each image: the input of the linear probe."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.image_source import ImageSource, resized_batches
from automl_vision.models.inference import outputs
from automl_vision.runtime import Runtime


class OutOfTime(Exception):
    """`should_stop` said so before every row had its features."""


def extract_features(
    net: nn.Module,
    source: ImageSource,
    rows: torch.Tensor,
    preprocessing: Preprocessing,
    runtime: Runtime,
    *,
    batch_size: int = 64,
    should_stop: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Features of plain resized images, without augmentation.

    Args:
        net: a backbone without a head, on `runtime.device`.
        source: where the images are.
        rows: (n) int64.
        preprocessing: input size, mean and std.
        runtime: device and precision.
        batch_size: images at once; halved where memory does not allow it.
        should_stop: asked after every batch.
        progress: told the number of images that are done, after every batch.

    Returns:
        (n, D) float32, in the order of `rows`.

    Raises:
        OutOfTime: `should_stop` returned True before the end.
    """
    parts: list[NDArray[np.float32]] = []
    done = 0
    for part in outputs(net, resized_batches(source, rows, preprocessing.size, batch_size), preprocessing, runtime):
        parts.append(part.numpy())
        done += len(part)
        if progress:
            progress(done)
        if done < len(rows) and should_stop and should_stop():
            raise OutOfTime(f"{done} of {len(rows)} images have features")
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
