"""A local cache of the Hugging Face hub that holds the weights of one backbone, for programs that know only the hub.

python benchmarks/hub_cache.py HUB --backbone efficientnet_lite0
HF_HOME=HUB HF_HUB_OFFLINE=1 python -c 'import timm; timm.create_model("tf_efficientnet_lite0.in1k", pretrained=True)'
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from automl_vision.models.backbones import backbone, hub_repository
from automl_vision.models.weights import load_weights, require_weights

#: Stands for the commit, of which the hub's own caches have forty hexadecimal digits.
_REVISION = "0" * 40


def lay_out(hub: Path, name: str) -> Path:
    """Write the weights that `search` would use to where huggingface_hub looks for them.

    Args:
        hub: what `HF_HOME` will name.
        name: a backbone with a repository on the hub.

    Returns:
        The file with the weights.
    """
    row = backbone(name)
    repository = hub / "hub" / f"models--{hub_repository(row).replace('/', '--')}"
    snapshot = repository / "snapshots" / _REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(_REVISION, "utf-8")
    weights = load_weights(require_weights(row, offline=True), row)
    save_file({key: value.contiguous() for key, value in weights.items()}, snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hub", type=Path, help="folder to make")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    options = parser.parse_args(arguments)
    print(lay_out(options.hub, options.backbone))


if __name__ == "__main__":
    main()
