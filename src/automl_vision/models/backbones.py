"""Backbones: what they cost, under which licence, and the only door to timm.

timm is imported inside the functions: listing the table needs neither timm nor torch.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_vision.errors import ResolutionError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
StateDict = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Backbone:
    """One network of timm's registry.

    Attributes:
        name: what users and recipes call it.
        timm_name: architecture and pretrained tag, as timm writes them.
        parameters_m: parameters in millions, with the ImageNet classifier.
        gmacs: billions of multiply-adds of one pass at 224 x 224 (at its own size where that is fixed).
        input_size: side in pixels that it was pretrained at.
        licence: of the pretrained weights, as timm declares it; empty where it does not.
        imagenet_top1: percent on ImageNet-1k as timm publishes it; None where it is not listed here.
        note: what sets it apart.
    """

    name: str
    timm_name: str
    parameters_m: float
    gmacs: float
    input_size: int
    licence: str
    imagenet_top1: float | None
    note: str = ""

    @property
    def architecture(self) -> str:
        """The timm name without its tag."""
        return self.timm_name.split(".", 1)[0]


# fmt: off
#: Cheapest first. name -> (timm name, million parameters, GMACs, input size, ImageNet top-1, note).
# Parameters and multiply-adds are counted on timm 1.0.31; top-1 is from timm's results-imagenet.csv, with the
# test side in the note where it is not the input size ("at 288"). IN-22k: first trained on ImageNet-22k.
_FIGURES: dict[str, tuple[str, float, float, int, float, str]] = {
    "mobilenetv3_small_100": ("mobilenetv3_small_100.lamb_in1k", 2.54, 0.06, 224, 67.7, "the cheapest"),
    "mobilenetv4_conv_small": ("mobilenetv4_conv_small.e2400_r224_in1k", 3.77, 0.19, 224, 74.6, "at 256"),
    "mobilenetv3_large_100": ("mobilenetv3_large_100.miil_in21k_ft_in1k", 5.48, 0.22, 224, 77.9, "IN-21k"),
    "mobilenetv2_100": ("mobilenetv2_100.ra_in1k", 3.50, 0.30, 224, 73.0, "a widely known baseline"),
    "efficientnet_lite0": ("tf_efficientnet_lite0.in1k", 4.65, 0.39, 224, 74.8, "comes with this tool"),
    "efficientnet_b0": ("efficientnet_b0.ra4_e3600_r224_in1k", 5.29, 0.39, 224, 79.4, "at 256"),
    "hgnetv2_b1": ("hgnetv2_b1.ssld_stage2_ft_in1k", 6.34, 0.49, 224, 78.9, "distilled"),
    "efficientnet_lite1": ("tf_efficientnet_lite1.in1k", 5.42, 0.50, 240, 76.6, "weights also in a package"),
    "efficientvit_b1": ("efficientvit_b1.r224_in1k", 9.10, 0.52, 224, 79.3, "linear attention"),
    "efficientnet_lite2": ("tf_efficientnet_lite2.in1k", 6.09, 0.58, 260, 77.5, "weights also in a package"),
    "mobilenetv4_conv_medium": ("mobilenetv4_conv_medium.e500_r224_in1k", 9.72, 0.83, 224, 79.8, "at 256"),
    "tiny_vit_5m": ("tiny_vit_5m_224.dist_in22k_ft_in1k", 5.39, 1.26, 224, 80.9, "IN-22k"),
    "resnet18": ("resnet18.a1_in1k", 11.69, 1.81, 224, 73.2, "a cheap baseline; at 288"),
    "tiny_vit_11m": ("tiny_vit_11m_224.dist_in22k_ft_in1k", 11.00, 2.02, 224, 83.2, "IN-22k"),
    "convnext_nano": ("convnext_nano.in12k_ft_in1k", 15.59, 2.45, 224, 82.9, "IN-12k; at 288"),
    "densenet121": ("densenet121.ra_in1k", 7.98, 2.83, 224, 76.5, "slow for its accuracy; at 288"),
    "resnet34": ("resnet34.ra4_e3600_r224_in1k", 21.80, 3.66, 224, 79.0, "at 288"),
    "resnet50": ("resnet50.a1_in1k", 25.56, 4.09, 224, 81.2, "at 288"),
    "caformer_s18": ("caformer_s18.sail_in22k_ft_in1k", 26.34, 4.11, 224, 84.1, "IN-22k"),
    "tiny_vit_21m": ("tiny_vit_21m_224.dist_in22k_ft_in1k", 21.20, 4.25, 224, 85.1, "IN-22k"),
    "convnext_tiny": ("convnext_tiny.in12k_ft_in1k", 28.59, 4.46, 224, 84.2, "IN-12k"),
    "vit_small": ("vit_small_patch16_224.augreg_in21k_ft_in1k", 22.05, 4.60, 224, 81.4, "IN-21k"),
    "deit3_small": ("deit3_small_patch16_224.fb_in22k_ft_in1k", 22.06, 4.60, 224, 83.1, "IN-22k"),
}
# fmt: on

#: The backbones that are offered by name, cheapest first; all of these weights are under Apache-2.0.
BACKBONES: dict[str, Backbone] = {
    name: Backbone(name, tag, parameters, gmacs, size, "apache-2.0", top1, note)
    for name, (tag, parameters, gmacs, size, top1, note) in _FIGURES.items()
}

#: Parts of a network that can be frozen one after the other; the last one never is.
STAGES = 4

#: The patches of plain transformers; those of 4 pixels belong to hierarchical ones, which take any size.
_PATCHES = re.compile(r"_(?:patch|p)(8|14|16|32)(?:_|$)")
#: How the names of architectures begin that are trained with stochastic depth (Huang et al. 2016) as a rule.
_STOCHASTIC_DEPTH = ("vit_", "deit", "tiny_vit_", "convnext", "caformer_", "swin_", "beit", "eva02_")

#: A name that cannot be a path, an address or another loader's prefix ("hf-hub:", "local-dir:").
_NAME = re.compile(r"[a-zA-Z0-9_.]+")


@lru_cache(maxsize=256)
def backbone(name: str) -> Backbone:
    """The row of a table name, or of any other timm name (built once, without memory, to be counted).

    Raises:
        UsageError: timm has no such network, or the name is not a plain name.
    """
    return _listed(name) or _measured(_of_timm(name))


@lru_cache(maxsize=256)
def uncounted(name: str) -> Backbone:
    """As `backbone`, but what is not in the table is not built to be counted: it has no parameters, no multiply-adds.

    To read a model file takes no more: which network it names is up to whoever wrote it, and large ones take seconds.

    Raises:
        UsageError: as for `backbone`.
    """
    return _listed(name) or _of_timm(name)


def _listed(name: str) -> Backbone | None:
    if name in BACKBONES:
        return BACKBONES[name]
    return next((row for row in BACKBONES.values() if row.timm_name == name), None)


def statistics(row: Backbone) -> Statistics:
    """Mean and std per channel, on a scale of 0 to 1, that the weights were trained with."""
    config = _pretrained_config(row)
    mean, std = (tuple(float(value) for value in values) for values in (config.mean, config.std))
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def hub_repository(row: Backbone) -> str:
    """Where the weights are on the hub ("timm/..."); empty where timm names no place."""
    return _pretrained_config(row).hf_hub_id or ""


def create_network(row: Backbone, *, drop_path: float = 0.0) -> nn.Module:
    """The network without its classifier and without pretrained weights: images to (B, `feature_dim`).

    Raises:
        UsageError: `drop_path` > 0 for a network that has no stochastic depth.
    """
    import timm

    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        net: nn.Module = timm.create_model(row.timm_name, pretrained=False, num_classes=0, **options)
    except TypeError:
        raise UsageError(
            f"{row.name} has no stochastic depth", value=f"drop_path={drop_path}", fix="set drop_path to 0"
        ) from None
    return net


def set_resolution(net: nn.Module, row: Backbone, resolution: int) -> None:
    """Tell a network whose position embedding has a fixed grid which side its inputs will have.

    Raises:
        ResolutionError: the side is no multiple of the patches that the network cuts images into.
    """
    if not hasattr(net, "set_input_size"):
        return
    patch_sizes = getattr(getattr(net, "patch_embed", None), "patch_size", (1, 1))
    if any(resolution % patch for patch in patch_sizes):
        raise ResolutionError(
            f"{row.name} needs a resolution that is a multiple of {patch_sizes[0]}",
            value=resolution,
            fix=f"use {max(1, round(resolution / patch_sizes[0])) * patch_sizes[0]}",
        )
    net.set_input_size(img_size=(resolution, resolution))  # type: ignore[operator]  # a method, found by name


def feature_dim(net: nn.Module, resolution: int, expected: int | None = None) -> int:
    """D of the (B, D) that the network makes of images.

    Attributes do not agree on it, so that a dry run tells; it takes as long as a prediction. Where somebody else knows
    (a head that was trained on these features) and timm says the same, there is none.

    Args:
        net: without its classifier.
        resolution: side of the input in pixels.
        expected: what D should be; None where nobody knows.

    Raises:
        ResolutionError: nothing is left of so small an image before the last layer.
    """
    import torch

    from automl_vision.models.memory import is_out_of_memory

    if expected is not None and expected == getattr(net, "head_hidden_size", None):
        return expected
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            shape = net(torch.zeros(1, 3, resolution, resolution)).shape
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ResolutionError(  # "output size is too small", "kernel size can't be greater than actual input size"
            f"{type(net).__name__} cannot take images of so few pixels",
            value=f"{resolution} ({str(error).splitlines()[0][:200]})",
            fix="give larger --resolutions, or other --backbones",
        ) from error
    finally:
        net.train(was_training)
    return int(shape[-1])


def layer_scales(net: nn.Module, layer_decay: float) -> dict[str, float]:
    """Learning-rate factor of every parameter: `layer_decay` to the power of its distance from the head.

    The last layer of the backbone is one layer away from the head (BEiT, Bao et al. 2021).
    """
    from timm.optim._param_groups import param_groups_layer_decay

    if layer_decay == 1.0:
        return {name: 1.0 for name, _ in net.named_parameters()}
    names = {parameter: name for name, parameter in net.named_parameters()}
    groups = param_groups_layer_decay(net, weight_decay=0.0, layer_decay=layer_decay)
    return {names[parameter]: group["lr_scale"] * layer_decay for group in groups for parameter in group["params"]}


def freeze_first_stages(net: nn.Module, count: int) -> list[nn.Module]:
    """Exclude the first of the four stages of a network from training.

    A stage ends where the network halves its resolution; plain transformers have quarters of their blocks. No gradient
    is computed for frozen stages, and none passes through them.

    Args:
        net: without its classifier; changed in place.
        count: 0 to 3.

    Returns:
        the modules that are frozen as a whole: in evaluation mode their statistics stay as well.

    Raises:
        UsageError: `count` > 0 for a network that does not tell its stages.
    """
    if not count:
        return []
    for module in _up_to(net, _stage_ends(net)[count - 1]):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    with_parameters = [(module, list(module.parameters())) for module in net.modules()]
    return [module for module, own in with_parameters if own and not any(each.requires_grad for each in own)]


def _stage_ends(net: nn.Module) -> list[str]:
    """Names of the modules that end each of the four stages; fewer than four places to cut give equal ends."""
    info: Any = getattr(net, "feature_info", None)
    if not info:
        raise UsageError(
            "this backbone does not tell its stages", value=type(net).__name__, fix="set freeze_stages to 0"
        )
    levels = [(each["reduction"], each["module"]) for each in getattr(info, "info", info)]
    by_reduction = list(dict(levels).values())
    ends = by_reduction[-STAGES:] if len(by_reduction) >= STAGES else [name for _, name in levels]
    return [ends[max(1, round(len(ends) * stage / STAGES)) - 1] for stage in range(1, STAGES + 1)]


def _up_to(net: nn.Module, end: str) -> list[nn.Module]:
    """Modules up to and with `end` and what is inside it; networks list them from input to output."""
    names = [name for name, _ in net.named_modules()]
    last = max(index for index, name in enumerate(names) if f"{name}.".startswith(f"{end}."))
    return list(net.modules())[: last + 1]


def patch_size(row: Backbone) -> int:
    """Side in pixels of the patches on whose fixed grid a plain transformer works, as its name tells; 1 for others."""
    found = _PATCHES.search(row.architecture)
    return int(found[1]) if found else 1


def has_stochastic_depth(row: Backbone) -> bool:
    """Whether dropping paths is worth trying: transformers, ConvNeXt and CAFormer."""
    return row.architecture.startswith(_STOCHASTIC_DEPTH)


def is_plain_convolution(module: nn.Module) -> bool:
    """Whether a module is a 2-d convolution of the usual kind, with zeros around its input."""
    from timm.layers.conv2d_same import Conv2dSame
    from torch import nn

    return type(module) in (nn.Conv2d, Conv2dSame) and module.padding_mode == "zeros" and module.padding != "same"


def explicit_padding(conv: nn.Conv2d) -> tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, int]]:
    """What a plain convolution does to its input first, and how many rows and columns of zeros it puts around that.

    What pads by the size of the input, unevenly, as TensorFlow does, has it all done first.
    """
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.padding import pad_same

    if isinstance(conv, Conv2dSame):
        kernel, stride, dilation = (list(each) for each in (conv.kernel_size, conv.stride, conv.dilation))
        return lambda images: pad_same(images, kernel, stride, dilation), (0, 0)
    if isinstance(conv.padding, str):
        return _as_it_is, (0, 0)  # "valid"
    rows, columns = conv.padding
    return _as_it_is, (rows, columns)


def is_plain_batch_norm(module: nn.Module) -> bool:
    """Whether a module is 2-d batch norm with statistics, a gain and an offset; timm's has an activation behind it."""
    from timm.layers.norm_act import BatchNormAct2d
    from torch import nn

    if not isinstance(module, nn.BatchNorm2d) or type(module) not in (nn.BatchNorm2d, BatchNormAct2d):
        return False
    return module.affine and module.running_mean is not None


def after_normalisation(norm: nn.BatchNorm2d) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a plain batch norm does to images that are normalised already."""
    from timm.layers.norm_act import BatchNormAct2d

    if not isinstance(norm, BatchNormAct2d):
        return _as_it_is
    drop, activation = norm.drop, norm.act
    return lambda images: activation(drop(images))


def _as_it_is(images: torch.Tensor) -> torch.Tensor:
    return images


def undecayed(net: nn.Module) -> set[str]:
    """Names of parameters that the network wants no weight decay on (position embeddings and the like)."""
    ask: Callable[[], set[str]] | None = getattr(net, "no_weight_decay", None)
    return set(ask()) if ask else set()


def full_state(row: Backbone) -> StateDict:
    """State dict of the network with its ImageNet classifier, on the meta device: names and shapes."""
    import timm
    import torch

    with torch.device("meta"):
        return dict(timm.create_model(row.timm_name, pretrained=False).state_dict())


def classifier_prefixes(row: Backbone) -> tuple[str, ...]:
    """Where the ImageNet classifier sits in a state dict ("classifier", "head.fc", ...)."""
    names = _pretrained_config(row).classifier or ()
    return (names,) if isinstance(names, str) else tuple(names)


def translate_checkpoint(row: Backbone, weights: Mapping[str, torch.Tensor], net: nn.Module) -> StateDict:
    """Weights as their authors published them, with the names and shapes that timm's network has.

    timm keeps the translation of an architecture beside it, under one name by convention.
    """
    from timm.models import model_entrypoint

    module = sys.modules[model_entrypoint(row.architecture).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None)
    return dict(translate(dict(weights), net)) if translate else dict(weights)


def _of_timm(name: str) -> Backbone:
    import timm
    from timm.models import get_pretrained_cfg

    if not _NAME.fullmatch(name):
        raise UsageError(
            "not a plain backbone name",
            value=repr(name),
            fix="use a name that `automl-vision models` lists, or one of timm's, without any prefix",
        )
    tagged = "." in name
    known = name in timm.list_models(pretrained=True) if tagged else timm.is_model(name)
    if not known:
        raise UsageError("no such backbone", value=repr(name), fix=_nearest(name))
    config = get_pretrained_cfg(name)
    if config is None:
        return Backbone(name, name, 0.0, 0.0, 224, "", None)
    tag = config.tag or ""
    return Backbone(
        name=name,
        timm_name=name if tagged or not tag else f"{name}.{tag}",
        parameters_m=0.0,
        gmacs=0.0,
        input_size=int(config.input_size[-1]),
        licence=config.license or "",
        imagenet_top1=None,
    )


def _nearest(name: str) -> str:
    import timm

    names = {*BACKBONES, *timm.list_models(), *(timm.list_models(pretrained=True) if "." in name else ())}
    close = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else "`automl-vision models` lists the backbones"


def _measured(row: Backbone) -> Backbone:
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net = timm.create_model(row.timm_name, pretrained=False).eval()
    size = row.input_size
    side = size if hasattr(net, "set_input_size") else 224
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.empty(1, 3, side, side, device="meta"))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return replace(row, parameters_m=round(parameters / 1e6, 2), gmacs=round(counter.get_total_flops() / 2e9, 2))


def _pretrained_config(row: Backbone) -> Any:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(row.timm_name)
    if config is None:
        raise UsageError("timm knows no pretrained weights by this name", value=row.timm_name)
    return config


def with_classifier(row: Backbone, num_classes: int, resolution: int) -> tuple[nn.Module, nn.Linear]:
    """The network as timm makes it with a classifier of its own, with random weights, and that classifier.

    Raises:
        UsageError: its classifier is not one linear map.
    """
    import timm
    from torch import nn

    net: nn.Module = timm.create_model(row.timm_name, pretrained=False, num_classes=num_classes)
    set_resolution(net, row, resolution)
    modules = dict(net.named_modules())
    last = [modules[prefix] for prefix in classifier_prefixes(row) if prefix in modules]
    if len(last) != 1 or not isinstance(last[0], nn.Linear):
        raise UsageError(
            "timm's form of this backbone does not end in one linear map", value=row.name, fix="use --format onnx"
        )
    return net, last[0]


def save_folder(net: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    """Write a network of timm as a folder: model.safetensors, and config.json with how images are prepared.

    Args:
        net: as timm made it, with its classifier.
        folder: where to; made where it is missing.
        config: what config.json has beside timm's own: `label_names`, and under `pretrained_cfg` how images are
            prepared, where that is not as for the published weights.
    """
    from timm.models import save_for_hf

    size = list(config["pretrained_cfg"]["input_size"][1:])
    model_args = {"img_size": size} if hasattr(net, "set_input_size") else None
    save_for_hf(net, str(folder), model_config=dict(config), model_args=model_args, safe_serialization=True)
    # Newer versions of timm repeat the number of classes here, and transformers then passes it twice.
    file = folder / "config.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    written.get("model_args", {}).pop("num_classes", None)
    file.write_text(json.dumps(written, indent=2), encoding="utf-8")


def load_folder(folder: Path) -> tuple[nn.Module, Mapping[str, Any]]:
    """A network from such a folder, in evaluation mode, and how its images are prepared (mean, std, input_size ...)."""
    import timm
    from timm.data.config import resolve_model_data_config

    net: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    prepared: Mapping[str, Any] = resolve_model_data_config(net)  # type: ignore[no-untyped-call] # timm's own
    return net, prepared
