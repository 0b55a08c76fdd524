from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from automl_vision.errors import UsageError, WeightsError
from automl_vision.models.classifier import build_classifier, set_linear_head

#: One small network per family that cuts, pools or names its head in its own way.
FAMILIES = ("test_vit", "test_resnet", "test_efficientnet", "test_convnext", "mobilenetv4_conv_small")


@pytest.mark.parametrize("name", FAMILIES)
def test_images_become_one_score_per_class(name: str) -> None:
    classifier = build_classifier(name, 5, resolution=64).eval()
    with torch.no_grad():
        assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 5)


def test_a_head_of_layers_sits_on_the_features() -> None:
    classifier = build_classifier("test_resnet", 5, resolution=32, head="mlp:6-gelu").eval()
    assert classifier.head.state_dict()["0.weight"].shape == (6, classifier.backbone(torch.rand(1, 3, 32, 32)).shape[1])
    with pytest.raises(UsageError, match="unknown head"):
        build_classifier("test_resnet", 5, resolution=32, head="transformer")


def test_the_seed_decides_the_weights_and_the_global_generator_stays() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (build_classifier("test_resnet", 3, resolution=32, seed=s) for s in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    states = [net.state_dict() for net in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_a_vision_transformer_takes_another_resolution_than_its_weights() -> None:
    weights = timm.create_model("test_vit.r160_in1k", pretrained=False).state_dict()
    classifier = build_classifier("test_vit", 3, resolution=64, weights=weights).eval()
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    name = "patch_embed.proj.weight"
    assert torch.equal(classifier.backbone.state_dict()[name], weights[name])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    weights = timm.create_model("test_resnet").state_dict()
    next(iter(weights.values()))[0] = bad
    with pytest.raises(WeightsError, match="NaN or infinity"):
        build_classifier("test_resnet", 3, resolution=32, weights=weights)


def test_weights_of_half_precision_become_full() -> None:
    weights = {
        name: t.half() if t.is_floating_point() else t
        for name, t in timm.create_model("test_resnet").state_dict().items()
    }
    classifier = build_classifier("test_resnet", 3, resolution=32, weights=weights)
    assert {t.dtype for t in classifier.parameters()} == {torch.float32}


def test_a_resolution_that_cuts_a_patch_is_refused_with_the_next_one() -> None:
    with pytest.raises(UsageError, match=r"multiple of 16(.|\n)*use 64"):
        build_classifier("test_vit", 3, resolution=60)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown head"):
        build_classifier("test_resnet", 3, resolution=32, head="quadratic")


def test_a_probe_becomes_the_head() -> None:
    classifier = build_classifier("test_resnet", 3, resolution=32).eval()
    width = classifier.head.weight.shape[1]
    weight = np.random.default_rng(0).normal(size=(3, width)).astype(np.float32)
    bias = np.arange(3, dtype=np.float32)
    set_linear_head(classifier, weight, bias)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = classifier.backbone(images).numpy() @ weight.T + bias
        assert np.allclose(classifier(images).numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        set_linear_head(classifier, weight[:2], bias[:2])
