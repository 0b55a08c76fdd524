"""Default recipes that are tried first, so that no search ends worse than its defaults."""

from __future__ import annotations

from typing import Any

from automl_vision.search.space import Space

_ADAMW = {"optimizer": "adamw", "learning_rate_adamw": 5e-4, "layer_decay": 1.0}
_SMOOTH = {"label_smoothing": 0.1}
#: What the first stages see of an image suits other images too: left as they are, training is as accurate and takes
#: about two thirds of the time (measured in docs/LOG.md).
FROZEN_STAGES = 2
_LATE = {**_ADAMW, **_SMOOTH, "freeze_stages": FROZEN_STAGES}
_WHOLE = {**_ADAMW, **_SMOOTH, "freeze_stages": 0}

#: Rows of (which backbone by rank, which resolution by rank, the recipe), best expected first, for pretrained
#: networks. Ranks beyond what is searched are left out. Learning rates are for a batch of 32.
FINE_TUNES: tuple[tuple[int, int, dict[str, Any]], ...] = (
    (0, 0, {**_LATE, "augment": "light"}),
    (1, 0, {**_LATE, "augment": "light"}),
    (0, 0, {**_WHOLE, "augment": "light", "layer_decay": 0.9}),
    (0, 0, {**_LATE, "augment": "none"}),
    (0, 0, {**_WHOLE, "augment": "trivial", "layer_decay": 0.75}),
    (0, 0, {**_WHOLE, "augment": "light", "label_smoothing": 0.0, "learning_rate_adamw": 1e-4}),
    (0, 0, {"optimizer": "sgd", "learning_rate_sgd": 1e-2, "momentum": 0.9, "layer_decay": 0.9, "augment": "light"}),
    (2, 0, {**_LATE, "augment": "light"}),
    (0, 1, {**_LATE, "augment": "light"}),
)
#: The same for few steps, where augmentation slows down what there is no time to catch up on.
SHORT_FINE_TUNES: tuple[tuple[int, int, dict[str, Any]], ...] = (
    (0, 0, {**_LATE, "augment": "none"}),
    (0, 0, {**_LATE, "augment": "light"}),
    (0, 0, {**_WHOLE, "augment": "none"}),
    (1, 0, {**_LATE, "augment": "none"}),
    (0, 0, {**_LATE, "augment": "none", "learning_rate_adamw": 2.5e-4}),
    (2, 0, {**_LATE, "augment": "none"}),
)
SHORT_STEPS = 100
COMMON = {
    "weight_decay_adamw": 1e-4,
    "weight_decay_sgd": 1e-4,
    "label_smoothing": 0.0,
    "freeze_norm": True,
    "freeze_stages": 0,
}

#: The same for networks from scratch.
FROM_SCRATCH: tuple[tuple[int, int, dict[str, Any]], ...] = (
    (0, 0, {"optimizer": "adamw", "learning_rate_adamw": 1e-3, "augment": "light"}),
    (1, 0, {"optimizer": "adamw", "learning_rate_adamw": 1e-3, "augment": "light"}),
    (0, 0, {"optimizer": "sgd", "learning_rate_sgd": 5e-2, "momentum": 0.9, "augment": "light"}),
    (0, 0, {"optimizer": "adamw", "learning_rate_adamw": 3e-3, "augment": "trivial"}),
)


def portfolio(
    space: Space, *, backbones: tuple[str, ...], resolutions: tuple[int, ...], pretrained: bool, steps: int
) -> tuple[dict[str, Any], ...]:
    """Points of `space` to try first, in this order; without repetitions.

    Args:
        space: the space that the points belong to.
        backbones: the shortlist, best first.
        resolutions: best first.
        pretrained: whether training starts from pretrained weights.
        steps: of a full schedule.
    """
    points: list[dict[str, Any]] = []
    tuned = SHORT_FINE_TUNES if steps <= SHORT_STEPS else FINE_TUNES
    for backbone, resolution, values in tuned if pretrained else FROM_SCRATCH:
        if backbone >= len(backbones) or resolution >= len(resolutions):
            continue
        own = {"backbone": backbones[backbone], "resolution": resolutions[resolution]}
        point = space.complete({**COMMON, **own, **values})
        if point not in points:
            points.append(point)
    return tuple(points)
