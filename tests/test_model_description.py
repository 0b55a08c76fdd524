"""What an exported file says of itself is read back as it was written, and believed in nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.model_description import Input, ModelDescription

NAMES = st.lists(st.text(max_size=20), min_size=2, max_size=6, unique=True).map(tuple)
INPUTS = st.lists(st.integers(8, 4096), min_size=1, max_size=3, unique=True).map(
    lambda sizes: tuple(Input(f"images_{size}", size, decode_side=512) for size in sorted(sizes))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(names=NAMES, inputs=INPUTS, temperature=st.floats(0.01, 100), biased=st.booleans())
def test_what_was_written_is_read(names: Any, inputs: Any, temperature: float, biased: bool) -> None:
    bias = tuple(float(place) for place in range(len(names))) if biased else ()
    described = ModelDescription(names, inputs, temperature, bias, ({"flip": True},), "me", {"opset": 20})
    assert ModelDescription.from_json(described.to_json()) == described
    assert described.to_json().isascii()


def whole() -> dict[str, Any]:
    described = ModelDescription(("a", "b"), (Input("images", 32),), 1.0)
    return dict(json.loads(described.to_json()))


@given(key=st.sampled_from(sorted(whole())), value=JSON)
def test_whatever_stands_there_it_is_refused_or_makes_sense(key: str, value: Any) -> None:
    text = json.dumps({**whole(), key: value})
    try:
        read = ModelDescription.from_json(text)
    except ValueError:
        return
    assert len(read.class_names) >= 2
    assert read.temperature > 0
    assert read.inputs
    assert ModelDescription.from_json(read.to_json()) == read


@pytest.mark.parametrize("key", sorted(whole()))
def test_nothing_may_be_missing(key: str) -> None:
    values = whole()
    del values[key]
    with pytest.raises(ValueError):
        ModelDescription.from_json(json.dumps(values))


def test_inputs_are_decoded_in_one_way() -> None:
    two = (Input("a", 32, decode_side=256), Input("b", 48, decode_side=512))
    with pytest.raises(ValueError, match="decoded"):
        ModelDescription.from_json(ModelDescription(("a", "b"), two, 1.0).to_json())


def test_inputs_show_one_part_of_an_image() -> None:
    middles = (Input("a", 32, resize="middle"), Input("b", 48, resize="middle"))
    assert ModelDescription.from_json(ModelDescription(("a", "b"), middles, 1.0).to_json()).resize == "middle"
    two = (middles[0], Input("b", 48))
    with pytest.raises(ValueError, match="resized in different ways"):
        ModelDescription.from_json(ModelDescription(("a", "b"), two, 1.0).to_json())


@pytest.mark.parametrize(("key", "value"), [("temperature", 10**400), ("class_bias", [-(10**400), 0])])
def test_a_number_beyond_all_floats_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        ModelDescription.from_json(json.dumps({**whole(), key: value}))


def test_class_names_that_no_table_gives_back_are_refused() -> None:
    names = json.dumps({**whole(), "class_names": ["\udce9", "b"]})
    assert ModelDescription.from_json(names).class_names == ("\udce9", "b")
    with pytest.raises(ValueError, match="class name must be text"):
        ModelDescription.from_json(names.replace("udce9", "ud800"))
