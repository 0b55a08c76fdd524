"""What run.json may say of a run: its folder may come from anybody, and a run that is resumed does what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from automl_vision.data.preprocess import RESIZES
from automl_vision.errors import IMAGE_FAULTS
from automl_vision.rules import NAMES, PATH, SIDES

#: No data set has as many images, and no image as many pixels to a side.
_MOST = 2**53


def wrong_fact(facts: Mapping[str, Any]) -> str:
    """What is wrong with the first fact that is not as a run writes it, in words; empty where all are."""
    for name, is_right in _RIGHT.items():
        if name in facts and not is_right(facts[name]):
            return f"{name} is {type(facts[name]).__name__}: {str(facts[name])[:100]!r}"
    return ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not PATH.check(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and not NAMES.check(value)


def _are_sides(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value)) and not SIDES.check(value)


def _is_plan(value: Any) -> bool:
    kinds = {"backbones": _are_names, "resolutions": _are_sides}
    return isinstance(value, dict) and all(name in kinds and kinds[name](each) for name, each in value.items())


def _are_limits(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(sides := value.get("sides"), dict):
        return False
    timed = value.get("latencies")
    return all(map(_are_sides, sides.values())) and isinstance(timed, list) and all(map(_is_latency, timed))


def _is_latency(value: Any) -> bool:
    """[backbone, side, milliseconds]"""
    if not isinstance(value, list) or len(value) != 3:
        return False
    name, side, milliseconds = value
    is_number = isinstance(milliseconds, float) or _is_count(milliseconds)
    return _are_names([name]) and _are_sides([side]) and is_number and 0 <= milliseconds < math.inf


def _is_resize(value: Any) -> bool:
    """An empty choice is left to validation."""
    return isinstance(value, dict) and value.get("chosen") in ("", *RESIZES) and _is_text(value.get("reason"))


def _are_faults(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) and each in IMAGE_FAULTS for each in value.values())


#: Fact -> whether a value is one that a run writes.
_RIGHT: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        **dict.fromkeys(("data", "trials", "fingerprint", "content", "history"), _is_text),
        **dict.fromkeys(("found", "drawn", "decode_side"), _is_count),
        **dict.fromkeys(("by_shards", "fail_on_leak"), _is_switch),
        "plan": _is_plan,
        "limits": _are_limits,
        "resize": _is_resize,
        "unsettled": _are_faults,
    }
)
