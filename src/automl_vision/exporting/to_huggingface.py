"""A folder for the Hugging Face hub: `timm.create_model("local-dir:...")` and transformers' pipeline read it.

It holds one network with one linear map at its end and nothing behind it. A temperature and a class bias fit into that
map exactly: softmax((W x + b + bias) / T) = softmax((W / T) x + (b + bias) / T). A mirror image, a second network
or another head do not fit, and are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_vision.bundle import Bundle
from automl_vision.data.preprocess import MIDDLE, SQUASH, normalize
from automl_vision.errors import UsageError
from automl_vision.exporting.parity import agreement_text
from automl_vision.exporting.to_onnx import Writer
from automl_vision.model_description import KEY, ModelDescription
from automl_vision.models.backbones import backbone, load_folder, save_folder, with_classifier
from automl_vision.models.heads import LINEAR
from automl_vision.prediction import ImageModel
from automl_vision.report.card_front import card_front
from automl_vision.report.damage import told_as_damage
from automl_vision.report.model_card import model_card, plain
from automl_vision.report.untested_card import untested_card
from automl_vision.runtime import available_threads

CARD, CONFIG, WEIGHTS = "README.md", "config.json", "model.safetensors"
_FRACTION = " So do, a little, large JPEGs: automl-vision decodes them at a fraction of their size."
#: `Preprocessing.resize` in timm's words, and in those of the card. timm's "center" is not ours to the last pixel.
_CROP_MODES = {SQUASH: "squash", MIDDLE: "center"}
_SEEN = {
    SQUASH: "whole image is squashed to the square",
    MIDDLE: "largest square in the middle of the image is resized (automl-vision crops first; timm and transformers "
    "resize first, which gives nearly the same pixels)",
}
#: All that such a folder holds.
FILES = frozenset({CARD, CONFIG, WEIGHTS})


def huggingface_writer(bundle: Bundle, report: Mapping[str, Any] | None = None) -> Writer:
    """What writes the folder.

    Args:
        bundle: the model.
        report: content of the report.json of its run, for the model card.

    Raises:
        UsageError: the model is more than one network with a linear head.
    """
    net = _network(bundle)
    prepared = _pretrained_cfg(bundle)

    def write(description: ModelDescription, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        own = {KEY: json.loads(replace(description, details={}).to_json())}
        save_folder(net, folder, {"label_names": list(bundle.class_names), "pretrained_cfg": prepared, **own})
        (folder / CARD).write_text(_card(bundle, description, report), encoding="utf-8")
        (folder / WEIGHTS).chmod((folder / CARD).stat().st_mode & 0o777)  # safetensors lets nobody else read them

    return write


class HuggingfaceModel(ImageModel):
    """Such a folder, read as timm reads it and with what its own configuration says; to check it."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        how = ModelDescription.from_json(json.dumps(config[KEY]))
        self._net, self._prepared = load_folder(folder)
        side = self._prepared["input_size"][-1]
        super().__init__(config["label_names"], [side], available_threads(), how.decode_side, how.resize)

    def probabilities(self, squares: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n, C) calibrated probabilities of n images: side -> (n, side, side, 3) uint8."""
        (batch,) = (torch.from_numpy(squares[side]).permute(0, 3, 1, 2) for side in self.sides)
        with torch.inference_mode():
            scores: torch.Tensor = self._net(normalize(batch, self._prepared["mean"], self._prepared["std"]))
        return scores.double().softmax(dim=1).numpy()


def _network(bundle: Bundle) -> nn.Module:
    """timm's network with the weights of the model, and its calibration in the classifier."""
    _require_simple(bundle)
    row = backbone(bundle.backbone)
    net, classifier = with_classifier(row, len(bundle.class_names), bundle.preprocessing.size)
    own = {
        name.removeprefix("backbone."): each for name, each in bundle.state_dict.items() if name.startswith("backbone.")
    }
    weight, bias = (bundle.state_dict[f"head.{name}"].double() for name in ("weight", "bias"))
    shifted = bias + torch.tensor(bundle.class_bias or (0.0,) * len(bias), dtype=torch.float64)
    prefix = next(name for name, module in net.named_modules() if module is classifier)
    folded = {f"{prefix}.weight": weight / bundle.temperature, f"{prefix}.bias": shifted / bundle.temperature}
    try:
        net.load_state_dict({**own, **folded})
    except RuntimeError:
        raise UsageError(
            "timm's form of this backbone has other layers before its classifier",
            value=bundle.backbone,
            fix="use --format onnx",
        ) from None
    return net.eval()


def _require_simple(bundle: Bundle) -> None:
    faults = {
        f"an ensemble of {len(bundle.networks)} networks": len(bundle.networks) > 1,
        "the mirror image as a second view": bundle.flip,
        f"a head that is not linear ({bundle.head})": bundle.head != LINEAR,
    }
    found = [name for name, is_there in faults.items() if is_there]
    if found:
        raise UsageError(
            "the huggingface format holds one network with a linear head",
            value=f"this model has {' and '.join(found)}",
            fix="use --format onnx or torch-export, which hold the whole model",
        )


def _pretrained_cfg(bundle: Bundle) -> dict[str, Any]:
    preprocessing = bundle.preprocessing
    size = (3, preprocessing.size, preprocessing.size)
    return {
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "input_size": size,
        "test_input_size": size,
        "interpolation": preprocessing.interpolation,
        "crop_pct": 1.0,
        "test_crop_pct": 1.0,
        "crop_mode": _CROP_MODES[preprocessing.resize],
    }


# --- the card -------------------------------------------------------------------------------------------------------


def _card(bundle: Bundle, description: ModelDescription, report: Mapping[str, Any] | None) -> str:
    use = _use(bundle, description)
    if bundle.provenance.get("tested") is False:  # the figures of the run are those of another model
        return card_front("timm", ("timm",)) + untested_card(bundle, "model.pt", use)
    if report is None:
        return card_front("timm", ("timm",)) + _short_card(bundle, use)
    with told_as_damage(Path("report.json")):
        return card_front("timm", ("timm",), report) + model_card(report, use)


def _short_card(bundle: Bundle, use: Sequence[str]) -> str:
    names = ", ".join(plain(name) for name in bundle.class_names[:100])
    lines = [
        "# Image classifier",
        "",
        f"A {plain(bundle.backbone)} of {len(bundle.class_names)} classes, found by automl-vision: {names}.",
        "Its run was not at hand when this was written, so there are no figures here.",
        "",
        "## Use",
        "",
        *use,
        "",
    ]
    return "\n".join(lines)


def _use(bundle: Bundle, description: ModelDescription) -> list[str]:
    parity = description.details.get("parity")
    return [
        "```python",
        "from transformers import pipeline",
        "",
        'pipeline("image-classification", model="FOLDER_OR_REPOSITORY")("image.jpg")',
        "",
        "import timm",
        "",
        'net = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or "hf-hub:REPOSITORY"',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))",
        "probabilities = net(transform(image.convert('RGB'))[None]).softmax(dim=1)",
        "```",
        "",
        f"The softmax of its outputs are calibrated probabilities: the temperature {bundle.temperature:.3f}"
        f"{' and the class bias' if bundle.class_bias else ''} of the model are in the weights of its last layer. The "
        f"{_SEEN[bundle.preprocessing.resize]}, antialiased bilinear. Images with 16 bits or transparency are turned "
        "into RGB in another way here than by automl-vision, and give other answers."
        f"{_FRACTION if bundle.preprocessing.decode_side else ''}",
        *(["", agreement_text(parity)] if parity else []),
    ]
