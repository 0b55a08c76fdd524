"""Write the golden model file of the version that is imported, and what that version says of the pictures here.

    PYTHONPATH=CHECKOUT/src python tests/golden/write.py

CHECKOUT is the code of that version; README.md names the commits. Files that are here already are not written again.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from automl_vision import bundle as files
from automl_vision.bundle import VERSION, Bundle, save_bundle
from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import build_classifier
from automl_vision.predictor import load

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"
PICTURES = ("picture.png", "picture.jpg")
#: The smallest network of timm, 102 thousand numbers.
BACKBONE = "test_efficientnet"
NAMES = ("cat", "dog [/]", "Ätna\n")
STATISTICS = (0.5, 0.5, 0.5), (0.25, 0.5, 0.5)


def pictures() -> None:
    """A picture that is not square and lossless, and a JPEG that is large enough to be decoded at a fraction."""
    rng = np.random.default_rng(0)
    for name, (height, width) in zip(PICTURES, ((40, 56), (520, 680)), strict=True):
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        waves = [127 + 90 * np.sin(9 * (a * x + b * y) + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
        grain = rng.normal(0, 3, (height, width, 3))
        pixels = np.clip(np.stack(waves, axis=2) + grain, 0, 255).astype(np.uint8)
        if not (HERE / name).exists():
            Image.fromarray(pixels).save(HERE / name, quality=80, optimize=True)


def weights(seed: int, head: str) -> dict[str, torch.Tensor]:
    """Random ones, rounded to sixteenths, so that the compressed file is small; they tell the pictures apart."""
    net = build_classifier(BACKBONE, len(NAMES), resolution=32, head=head, seed=seed)
    state = dict(net.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.startswith("head") and tensor.ndim == 2:
            state[name] = torch.randn(tensor.shape, generator=generator) * 4
    return {
        name: torch.round(tensor * 16) / 16 if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }


def prepared(**later: Any) -> Preprocessing:
    """How images are prepared, as far as this version can say it."""
    known = {each.name for each in fields(Preprocessing)}
    new = {"decode_side": 256, "resize": "middle" if VERSION >= 6 else "squash"}
    return Preprocessing(32, *STATISTICS, **{name: value for name, value in new.items() if name in known}, **later)


def bundle() -> Bundle:
    """A model that uses everything that this version has and the one before it had not."""
    head = "linear" if VERSION < 3 else "mlp:8-gelu"
    more: dict[str, Any] = {}
    if VERSION >= 2:
        from automl_vision.data.fingerprint import Fingerprint, Marks

        numbers = np.array([3, 2**40, 2**63 + 5], dtype=np.uint64)
        more["fingerprint"] = Fingerprint(Marks(numbers, numbers[:2]), Marks(numbers[1:], numbers[:0]))
    if VERSION >= 4:
        other = files.Network(BACKBONE, "linear", prepared(), weights(2, "linear"), share=0.25)
        more |= {"flip": True, "share": 0.75, "others": (other,), "class_bias": (0.0, 0.25, -0.125)}
    about = {
        "run": "golden",
        "created": "2026-11-23T00:00:00+00:00",
        "test": {"n": 3, "accuracy": 0.9},
        "looks": [None],
    }
    return Bundle(
        backbone=BACKBONE,
        head=head,
        class_names=NAMES,
        preprocessing=prepared(),
        temperature=1.25,
        state_dict=weights(1, head),
        provenance=about,
        **more,
    )


def main() -> None:
    """Write the file and the record."""
    pictures()
    target = HERE / f"version-{VERSION}.pt.xz"
    if target.exists():
        raise SystemExit(f"{target.name} is here already, and is never changed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        save_bundle(bundle(), file)
        data = file.read_bytes()
        model = load(file, device="cpu")
        said = {name: model.predict_proba([HERE / name])[0].tolist() for name in PICTURES}
    target.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    recorded = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    recorded[str(VERSION)] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "probabilities": said}
    RECORDED.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
    print(f"version {VERSION}: {len(data):,} bytes, {target.stat().st_size:,} compressed, {said}")


if __name__ == "__main__":
    main()
