from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from automl_vision.models.heads import (
    ACTIVATIONS,
    LINEAR,
    MOST_LAYERS,
    WIDEST,
    Layer,
    build_head,
    describe_head,
    features_seen,
    is_head,
    read_head,
)

layers = st.builds(Layer, st.integers(1, WIDEST), st.sampled_from(sorted(ACTIVATIONS)))


@given(st.lists(layers, max_size=MOST_LAYERS).map(tuple))
def test_a_description_is_read_back(hidden: tuple[Layer, ...]) -> None:
    assert read_head(describe_head(hidden)) == hidden


@pytest.mark.parametrize("head", [LINEAR, *(f"mlp:5-{name},3-tanh" for name in ACTIVATIONS)])
def test_every_head_takes_features_of_any_width(head: str) -> None:
    assert build_head(head, 7, 3)(torch.rand(4, 7)).shape == (4, 3)


@pytest.mark.parametrize("head", [LINEAR, "mlp:5-relu,3-tanh"])
def test_a_head_tells_how_many_features_it_takes(head: str) -> None:
    state = build_head(head, 7, 3).state_dict()
    assert features_seen(head, state) == 7
    assert features_seen("mlp:5-relu" if head == LINEAR else LINEAR, state) is None
    assert features_seen(head, dict.fromkeys(state, "no tensor")) is None


def test_layers_are_as_described() -> None:
    kinds = [type(module) for module in build_head("mlp:5-relu,3-tanh", 7, 2)]  # type: ignore[attr-defined] # Sequential
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.Tanh, nn.Linear]


@pytest.mark.parametrize(
    "description",
    [
        *("", "mlp", "mlp:", "mlp:256", "mlp:256-swish", "mlp:-gelu", "mlp:0-gelu", "mlp:08-gelu", "mlp:1e3-gelu"),
        *("linear:256-gelu", "MLP:256-gelu", "mlp:256-gelu,", "mlp:256-gelu;64-gelu", "mlp:256-gelu\n", " linear"),
        *("mlp:9999-gelu", "mlp:99999999999-gelu", "mlp:２-gelu", "mlp:2-gelu" + ",2-gelu" * MOST_LAYERS),
        *("mlp:2-__import__", "linear\n", "mlp:" + "9" * 10**6 + "-gelu"),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_what_is_no_description_is_refused(description: str) -> None:
    assert not is_head(description)
    with pytest.raises(ValueError, match="unknown head"):
        build_head(description, 7, 3)


@given(st.text(max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert is_head(text) == (text == LINEAR or (text.startswith("mlp:") and describe_head(read_head(text)) == text))
