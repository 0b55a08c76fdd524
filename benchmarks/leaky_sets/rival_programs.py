"""What other tools join; stands alone, for it runs in an environment of the tool's own.

    python rival_programs.py PROGRAM FOLDER OUT.json

writes {"pairs": [[file, file], ...], "seconds": of the tool's own work}; files are paths below the folder.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Pairs = list[tuple[str, str]]


def files_of(folder: Path) -> list[str]:
    """Paths below the folder."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*"))


def phash_8_turns(folder: Path) -> Pairs:
    """imagehash's pHash of 64 bits, at most 10 bits apart in any of the eight ways to turn and mirror."""
    return _hash_8_turns(folder, "phash", 10)


def dhash_8_turns(folder: Path) -> Pairs:
    """imagehash's dHash of 64 bits, at most 10 bits apart in any of the eight ways to turn and mirror."""
    return _hash_8_turns(folder, "dhash", 10)


def _hash_8_turns(folder: Path, name: str, most: int) -> Pairs:
    hasher = getattr(importlib.import_module("imagehash"), name)
    image_class = importlib.import_module("PIL.Image")
    files = files_of(folder)
    views = []
    for file in files:
        pixels = np.asarray(image_class.open(folder / file).convert("RGB"))
        turned = [np.rot90(pixels, turns) for turns in range(4)]
        turned += [view[:, ::-1] for view in turned]
        views.append([hasher(image_class.fromarray(np.ascontiguousarray(view))).hash.ravel() for view in turned])
    return _near(files, np.array(views), most)


def pdq_8_turns(folder: Path) -> Pairs:
    """PDQ, at most 31 of 256 bits apart in any of the eight ways: the threshold that its authors name."""
    pdqhash = importlib.import_module("pdqhash")
    image_class = importlib.import_module("PIL.Image")
    files = files_of(folder)
    views = [pdqhash.compute_dihedral(np.asarray(image_class.open(folder / file).convert("RGB")))[0] for file in files]
    return _near(files, np.array(views, dtype=bool), 31)


def _near(files: Sequence[str], views: Any, most: int) -> Pairs:
    """Pairs whose first views are at most that many bits from any view of the other. `views`: (n, V, bits)."""
    signed = np.where(views, 1, -1).astype(np.float32)
    plain = signed[:, 0]
    agreement = np.max([plain @ signed[:, view].T for view in range(signed.shape[1])], axis=0)
    apart = (views.shape[2] - agreement) / 2
    return _pairs(files, np.minimum(apart, apart.T) <= most)


def _pairs(files: Sequence[str], joined: Any) -> Pairs:
    return [(files[a], files[b]) for a, b in zip(*np.nonzero(np.triu(joined, 1)), strict=True)]


def imagededup_phash(folder: Path) -> Pairs:
    """imagededup's PHash at its default of 10 bits."""
    return _imagededup(folder, "PHash", {"max_distance_threshold": 10})


def imagededup_dhash(folder: Path) -> Pairs:
    """imagededup's DHash at its default of 10 bits."""
    return _imagededup(folder, "DHash", {"max_distance_threshold": 10})


def imagededup_cnn(folder: Path) -> Pairs:
    """imagededup's CNN at its default cosine of 0.9; downloads the weights of a MobileNet."""
    return _imagededup(folder, "CNN", {"min_similarity_threshold": 0.9})


def _imagededup(folder: Path, method: str, options: dict[str, float]) -> Pairs:
    finder = getattr(importlib.import_module("imagededup.methods"), method)()
    files = files_of(folder)
    with tempfile.TemporaryDirectory() as scratch:
        # It looks at one flat folder.
        flat = {f"{at:06d}{Path(file).suffix}": file for at, file in enumerate(files)}
        for name, file in flat.items():
            (Path(scratch) / name).symlink_to((folder / file).resolve())
        found = finder.find_duplicates(image_dir=scratch, **options)
    return [(flat[name], flat[other]) for name, others in found.items() for other in others if name < other]


def cleanvision(folder: Path) -> Pairs:
    """Exact and near duplicates as its defaults find them."""
    lab = importlib.import_module("cleanvision").Imagelab(data_path=str(folder))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    sets = [each for kind in ("exact_duplicates", "near_duplicates") for each in lab.info[kind]["sets"]]
    below = [[str(Path(file).relative_to(folder.resolve())) for file in each] for each in sets]
    return [(names[0], other) for names in below for other in names[1:]]


def embedding_cosine(folder: Path) -> Pairs:
    """Features of the network that the project ships, cosine of at least 0.9; needs this project."""
    torch = importlib.import_module("torch")
    weights = importlib.import_module("automl_vision.models.weights")
    backbones = importlib.import_module("automl_vision.models.backbones")
    classifier = importlib.import_module("automl_vision.models.classifier")
    image_class = importlib.import_module("PIL.Image")
    row = backbones.backbone("efficientnet_lite0")
    loaded = weights.load_weights(weights.find_weights(row, offline=True), row)
    net = classifier.build_classifier("efficientnet_lite0", 1, resolution=224, weights=loaded).backbone.eval()
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in backbones.statistics(row))
    files = files_of(folder)
    features = []
    for start in range(0, len(files), 32):
        opened = (image_class.open(folder / file).convert("RGB") for file in files[start : start + 32])
        pixels = np.stack([np.asarray(each.resize((224, 224), image_class.Resampling.BICUBIC)) for each in opened])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            features.append(torch.nn.functional.normalize(net((batch - mean) / std)).numpy())
    stacked = np.concatenate(features)
    return _pairs(files, stacked @ stacked.T >= 0.9)


#: Program -> the module that it needs; importing it is no work of the tool's.
PROGRAMS: dict[Callable[[Path], Pairs], str] = {
    phash_8_turns: "imagehash",
    dhash_8_turns: "imagehash",
    pdq_8_turns: "pdqhash",
    imagededup_phash: "imagededup.methods",
    imagededup_dhash: "imagededup.methods",
    imagededup_cnn: "imagededup.methods",
    cleanvision: "cleanvision",
    embedding_cosine: "timm",
}


def main() -> None:
    """Run one program."""
    name, folder, out = sys.argv[1:]
    program, module = next((each, needs) for each, needs in PROGRAMS.items() if each.__name__ == name)
    importlib.import_module(module)
    started = time.monotonic()
    pairs = program(Path(folder))
    seconds = time.monotonic() - started
    Path(out).write_text(json.dumps({"pairs": pairs, "seconds": seconds}), "utf-8")


if __name__ == "__main__":
    main()
