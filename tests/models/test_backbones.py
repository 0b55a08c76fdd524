from __future__ import annotations

import subprocess
import sys

import pytest

from automl_vision.errors import ResolutionError, UsageError
from automl_vision.models.backbones import (
    BACKBONES,
    backbone,
    create_network,
    feature_dim,
    freeze_first_stages,
    full_state,
    hub_repository,
    layer_scales,
    statistics,
)

REQUIRED = [
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet_b0",
    "efficientnet_lite0",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "densenet121",
    "convnext_tiny",
    "vit_small",
]


def test_the_table_is_listed_without_torch_and_timm() -> None:
    code = (
        "import sys; from automl_vision.models.backbones import BACKBONES, backbone; backbone('resnet18'); "
        "assert BACKBONES and not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_table_offers_what_is_promised() -> None:
    assert set(REQUIRED) <= set(BACKBONES)


def test_the_table_is_ordered_by_cost() -> None:
    costs = [row.gmacs for row in BACKBONES.values()]
    assert costs == sorted(costs)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_row_agrees_with_timm(name: str) -> None:
    from timm.models import get_pretrained_cfg

    row = backbone(name)
    config = get_pretrained_cfg(row.timm_name)
    assert config is not None
    assert row.licence == config.license
    assert row.input_size == config.input_size[-1]
    assert hub_repository(row) == f"timm/{row.timm_name}"
    mean, std = statistics(row)
    assert len(mean) == len(std) == 3
    assert all(0 <= value <= 1 for value in mean) and all(0 < value <= 1 for value in std)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_lite0", "resnet18", "vit_small"])
def test_parameters_are_counted(name: str) -> None:
    row = backbone(name)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    tensors = [tensor for key, tensor in full_state(row).items() if not key.endswith(buffers)]
    assert sum(tensor.numel() for tensor in tensors) / 1e6 == pytest.approx(row.parameters_m, abs=0.01)


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet18", "local-dir:/tmp/net", "../net", "resnet18 ", "", "a/b", "resnet18\n"]
)
def test_names_with_a_prefix_or_path_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a plain backbone name"):
        backbone(name)


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match=r"resnet81(.|\n)*did you mean (.|\n)*resnet"):
        backbone("resnet81")
    with pytest.raises(UsageError, match="no such backbone"):
        backbone("resnet18.no_such_tag")


def test_any_other_timm_name_is_measured() -> None:
    row = backbone("test_resnet")
    assert row.timm_name == "test_resnet.r160_in1k"
    assert 0 < row.parameters_m < 1
    assert row.gmacs > 0
    assert backbone("test_resnet.r160_in1k").timm_name == row.timm_name


def test_a_full_timm_name_of_the_table_finds_its_row() -> None:
    assert backbone("tf_efficientnet_lite0.in1k") is BACKBONES["efficientnet_lite0"]


@pytest.mark.parametrize(("name", "dim"), [("mobilenetv3_small_100", 1024), ("test_vit", 64)])
def test_feature_dim_is_what_the_head_sees(name: str, dim: int) -> None:
    assert feature_dim(create_network(backbone(name)), 160) == dim


@pytest.mark.parametrize("expected", [1024, 576, 7])
def test_feature_dim_believes_nobody_whom_timm_contradicts(expected: int) -> None:
    assert feature_dim(create_network(backbone("mobilenetv3_small_100")), 64, expected=expected) == 1024


def test_layer_scales_fall_towards_the_input() -> None:
    net = create_network(backbone("mobilenetv3_small_100"))
    scales = layer_scales(net, 0.5)
    assert set(scales) == {name for name, _ in net.named_parameters()}
    assert scales["conv_stem.weight"] < scales["blocks.2.0.conv_pw.weight"] < scales["conv_head.weight"] == 0.5
    assert set(layer_scales(net, 1.0).values()) == {1.0}


def test_stochastic_depth_where_there_is_none_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no stochastic depth"):
        create_network(backbone("densenet121"), drop_path=0.1)


@pytest.mark.parametrize("name", [*BACKBONES, "test_vit", "test_resnet", "test_convnext", "vgg11_bn", "levit_128s"])
def test_every_backbone_can_be_frozen_stage_by_stage(name: str) -> None:
    import torch

    shares = []
    with torch.device("meta"):
        net = create_network(backbone(name))
    for count in range(4):
        modules = freeze_first_stages(net, count)
        own = dict(net.named_parameters())
        frozen = [parameter for parameter in own.values() if not parameter.requires_grad]
        shares.append(len(frozen) / len(own))
        assert bool(modules) == bool(count)
        assert all(not parameter.requires_grad for module in modules for parameter in module.parameters())
    assert shares == sorted(shares) and shares[0] == 0 < shares[1] and shares[3] < 1
    assert not next(iter(net.parameters())).requires_grad, "freezing begins at the input"


@pytest.mark.parametrize(("name", "side"), [("densenet121", 16), ("convnext_tiny", 16)])
def test_images_that_are_too_small_for_a_network_are_told(name: str, side: int) -> None:
    with pytest.raises(ResolutionError, match="so few pixels: 16"):
        feature_dim(create_network(backbone(name)), side)


def test_stages_end_where_the_resolution_halves_and_blocks_are_quartered() -> None:
    import torch

    ends = {"resnet18": "layer2.", "efficientnet_lite0": "blocks.2.", "vit_small": "blocks.5."}
    for name, last in ends.items():
        with torch.device("meta"):
            net = create_network(backbone(name))
        freeze_first_stages(net, 2)
        frozen = [each for each, parameter in net.named_parameters() if not parameter.requires_grad]
        assert frozen[-1].startswith(last)


def test_a_network_that_tells_no_stages_is_refused_by_name() -> None:
    from torch import nn

    with pytest.raises(UsageError, match="Linear"):
        freeze_first_stages(nn.Linear(2, 2), 1)
    assert freeze_first_stages(nn.Linear(2, 2), 0) == []
