"""What an exported model says of itself: how an image becomes its input, and what its outputs mean.

It travels inside the file as JSON. Whoever reads it believes none of it: types and ranges are checked.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from automl_vision.data.manifest import LONGEST_CLASS_NAME, is_class_name
from automl_vision.data.preprocess import Preprocessing

FORMAT = 1
#: Under this name the description lies in the metadata of an ONNX file and among the extra files of a .pt2.
KEY = "automl_vision"
OUTPUT = "probabilities"
#: An image becomes at most so many squares: one per network of an ensemble.
_MOST_INPUTS = 3
_LARGEST = 64 << 20  # characters of JSON


@dataclass(frozen=True)
class Input:
    """One input of the graph: (batch, 3, size, size) uint8, RGB.

    Attributes:
        name: of the input.
        size: side of the square in pixels.
        resize: "squash": the whole upright image is resized to the square, whatever its aspect; "middle": the largest
            square in its middle is, see `data.preprocess.middle_box`.
        interpolation: "bilinear", as Pillow does it: antialiased.
        decode_side: pixels that no side of a JPEG falls below when it is decoded at a fraction of its size (the least
            of 1/8, 1/4, 1/2 that keeps to it); 0: images are decoded wholly.
    """

    name: str
    size: int
    resize: str = "squash"
    interpolation: str = "bilinear"
    decode_side: int = 0


@dataclass(frozen=True)
class ModelDescription:
    """What an exported file needs beside its graph.

    Attributes:
        class_names: (C) what the outputs mean, in order.
        inputs: one per side in pixels, ascending. Normalisation happens in the graph.
        temperature: that the graph divides by, > 0; for information.
        class_bias: (C) that the graph adds to log-probabilities; empty where there is none.
        networks: what votes in the graph, plain types: backbone, head, size, mean, std, flip, share.
        made_by: program and version.
        details: what else is worth knowing, plain types: opset, parity, quantisation, provenance.
    """

    class_names: tuple[str, ...]
    inputs: tuple[Input, ...]
    temperature: float
    class_bias: tuple[float, ...] = ()
    networks: tuple[Mapping[str, Any], ...] = ()
    made_by: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def decode_side(self) -> int:
        """That of all inputs."""
        return self.inputs[0].decode_side

    @property
    def resize(self) -> str:
        """That of all inputs."""
        return self.inputs[0].resize

    def with_details(self, **more: Any) -> ModelDescription:
        """The same with more to know."""
        return replace(self, details={**self.details, **more})

    def to_json(self) -> str:
        """One line of ASCII."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelDescription:
        """The inverse, for text of unknown origin; keys that are not known are passed over.

        Raises:
            ValueError: it is no description, of a newer format, or a value is of the wrong type or out of range.
        """
        if len(text) > _LARGEST:
            raise ValueError(f"the description has {len(text)} characters")
        try:
            values = json.loads(text)
        except RecursionError:
            raise ValueError("the description is nested too deeply") from None
        table = _table("description", values)
        if table.get("format") != FORMAT:
            raise ValueError(f"format {table.get('format')!r} of the description is not {FORMAT}")
        names = _class_names(table.get("class_names"))
        return cls(
            class_names=names,
            inputs=_inputs(table.get("inputs")),
            temperature=_number("temperature", table.get("temperature"), 0.0),
            class_bias=_class_bias(table.get("class_bias"), len(names)),
            networks=tuple(_table("network", each) for each in _sequence("networks", table.get("networks"))),
            made_by=_text("made_by", table.get("made_by")),
            details=_table("details", table.get("details")),
        )


def _class_names(value: object) -> tuple[str, ...]:
    names = tuple(_text("class name", each) for each in _sequence("class_names", value))
    if odd := [name for name in names if not is_class_name(name)]:
        raise ValueError(f"a class name must be text, got {odd[0]!a:.80}")
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"class_names must be two or more different names, got {len(names)}")
    return names


def _inputs(value: object) -> tuple[Input, ...]:
    inputs = tuple(_input(_table("input", each)) for each in _sequence("inputs", value))
    sizes = [each.size for each in inputs]
    if not 1 <= len(inputs) <= _MOST_INPUTS or sizes != sorted(set(sizes)):
        raise ValueError(f"inputs must be 1 to {_MOST_INPUTS} of ascending size, got sizes {sizes}")
    if len({(each.decode_side, each.resize) for each in inputs}) > 1:
        raise ValueError("the inputs want images that are decoded or resized in different ways")
    return inputs


def _input(values: Mapping[str, Any]) -> Input:
    names = ("size", "resize", "interpolation", "decode_side")
    if not set(names) <= set(values):
        raise ValueError(f"an input must have {', '.join(names)}, got {sorted(values)!r:.80}")
    # The same ranges as in a model file. Mean and std are in the graph.
    checked = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, **{name: values[name] for name in names})
    name = _text("name of an input", values.get("name"))
    return Input(name, checked.size, checked.resize, checked.interpolation, checked.decode_side)


def _class_bias(value: object, classes: int) -> tuple[float, ...]:
    bias = tuple(_number("class_bias", each, -math.inf) for each in _sequence("class_bias", value))
    if len(bias) not in (0, classes):
        raise ValueError(f"class_bias must be empty or one number per class, got {len(bias)}")
    return bias


def _table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a table, got {value!r:.80}")
    return value


def _sequence(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {value!r:.80}")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_CLASS_NAME:
        raise ValueError(f"{name} must be text of up to {LONGEST_CLASS_NAME} characters, got {value!r:.80}")
    return value


def _number(name: str, value: object, above: float) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (above < number and abs(number) <= sys.float_info.max):
        raise ValueError(f"{name} must be a number above {above:g}, got {value!r:.80}")
    return float(number)
