"""What else benchmarks/speed.py times: the first epoch, a trial around its training, heads in bulk, a cold start.

Every function gives arms that are called once per round; an arm says how many units of work it did.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.bundle import Bundle, save_bundle
from automl_vision.config import Settings
from automl_vision.data.decode import open_rgb
from automl_vision.data.listing import list_images
from automl_vision.data.preprocess import Preprocessing, square, squares
from automl_vision.data.readers import read
from automl_vision.models.backbones import backbone
from automl_vision.models.classifier import build_classifier
from automl_vision.models.probe import fit_linear, fit_probe
from automl_vision.models.weights import require_weights
from automl_vision.predictor import Model
from automl_vision.runtime import Runtime
from automl_vision.search.run_trial import Assignment, TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles
from automl_vision.training.augment import AUGMENTATIONS
from automl_vision.training.loop import Trainer
from speed_steps import Block, Resident, Scene, epochs_of, other_loop, store_of, trainer_of

#: The backbone whose weights come with the project.
PRETRAINED = "efficientnet_lite0"
#: A probe on so many images; penalties, folds and deals that make 128 heads.
_PROBE_IMAGES, _PROBE_FEATURES, _PROBE_CLASSES = 2_000, 1_280, 10
_STRENGTHS = tuple(float(each) for each in np.geomspace(3.0, 0.03, 8))
_FOLDS, _REPEATS = 5, 3

#: Images per forward pass when a folder is predicted, as `predict` has it.
_PREDICTED_AT_ONCE = 64

#: What names the Python of the peers.
PEERS_PYTHON = "PEERS_PYTHON"

#: What a practitioner would write who has torch and timm and no tool.
BARE = """
import sys
import numpy as np, timm, torch
from PIL import Image
weights, image = sys.argv[1:]
net = timm.create_model("{name}", num_classes=10)
net.load_state_dict(torch.load(weights, weights_only=True))
net.eval()
pixels = np.asarray(Image.open(image).convert("RGB").resize(({size}, {size}), Image.Resampling.BILINEAR))
mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
inputs = ((torch.from_numpy(pixels.copy()).float() / 255 - mean) / std).permute(2, 0, 1)[None]
with torch.inference_mode():
    print(net(inputs).softmax(1).max(1))
"""


def first_epoch_arms(scene: Scene, pictures: Path, runtime: Runtime) -> dict[str, Block]:
    """Files that nobody has read yet and an epoch of all of them; decoding on one core; an epoch without loading."""
    manifest = read(pictures, Settings().data)
    files = [manifest.file(row) for row in range(len(manifest))]
    scene = scene.with_blocks_of(len(files))
    sizes = (scene.size, AUGMENTATIONS[scene.recipe.augment].wanted_size(scene.size))
    resident = trainer_of(Resident, scene, store_of(pictures, scene, runtime.threads), runtime)

    def first() -> int:
        store = store_of(pictures, scene, runtime.threads)
        trainer = trainer_of(Trainer, scene, store, runtime)
        return trainer.run_epoch().images

    def decoding() -> int:
        for file in files:
            squares(open_rgb(file).pixels, sizes)
        return len(files)

    return {"first epoch": first, "decoding on one core": decoding, "resident": lambda: resident.run_epoch().images}


def trial_arms(scene: Scene, pictures: Path, runtime: Runtime) -> dict[str, Block]:
    """A trial of one epoch as the search runs it, and the same epoch by a trainer that is there already."""
    few = replace(scene, images=scene.batch)
    store = store_of(pictures, few, runtime.threads)
    trainer = trainer_of(Trainer, few, store, runtime)
    numbers = count()
    folder = tempfile.TemporaryDirectory()
    runner = TrialRunner(
        data=trainer.data,
        train_groups=np.arange(len(trainer.data.train_rows)),
        objective="accuracy",
        runtime=runtime,
        files=TrialFiles(Path(folder.name)),
        weights={PRETRAINED: require_weights(backbone(PRETRAINED), offline=True)},
        seconds_left=lambda: float("inf"),
    )
    recipe = replace(few.recipe, epochs=1, pretrained=True)

    def trial(_kept: object = folder) -> int:  # the folder goes with the arm
        made = Trial(next(numbers), recipe, {}, "portfolio")
        *_, last = runner(Assignment(made, until=1))
        if last.state != "complete":
            raise RuntimeError(f"the trial did not complete: {last.error}")
        return 1

    def epoch() -> int:
        trainer.run_epoch()
        return 1

    return {"trial of an epoch": trial, "epoch": epoch}


def head_arms() -> dict[str, Block]:
    """Many heads as a probe fits them, and one: one penalty, without folds."""
    rng = np.random.default_rng(0)
    labels = rng.integers(_PROBE_CLASSES, size=_PROBE_IMAGES)
    centres = rng.standard_normal((_PROBE_CLASSES, _PROBE_FEATURES))
    features = (0.15 * centres[labels] + rng.standard_normal((_PROBE_IMAGES, _PROBE_FEATURES))).astype(np.float32)
    groups = np.arange(_PROBE_IMAGES)

    def many() -> int:
        probe = fit_probe(
            features, labels, groups, _PROBE_CLASSES, strengths=_STRENGTHS, folds=_FOLDS, repeats=_REPEATS
        )
        return len(probe.strengths) * (_FOLDS * _REPEATS + 1)

    def one() -> int:
        fit_linear(features, labels, _PROBE_CLASSES, _STRENGTHS[len(_STRENGTHS) // 2])
        return 1

    return {"heads of a probe": many, "one head": one}


def cold_start_arms(folder: Path, picture: Path, size: int = 224) -> dict[str, Block]:
    """`predict` of one image in a new process, and a bare script that does the same."""
    row = backbone(PRETRAINED)
    net = build_classifier(PRETRAINED, 10, resolution=size)
    preprocessing = Preprocessing(size=size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    names = tuple(f"class_{number}" for number in range(10))
    model, weights = folder / "model.pt", folder / "weights.pt"
    save_bundle(Bundle(PRETRAINED, "linear", names, preprocessing, 1.0, net.state_dict()), model)
    torch.save(_timm_state(row.timm_name), weights)
    bare = BARE.format(name=row.timm_name, size=size)
    return {
        "predict": _process([sys.executable, "-m", "automl_vision", "predict", str(model), str(picture)]),
        "bare script": _process([sys.executable, "-c", bare, str(weights), str(picture)]),
    }


def folder_arms(scene: Scene, pictures: Path, runtime: Runtime) -> dict[str, Block]:
    """Predicting all images of a folder; decoding them, with all threads; the network on images that are decoded."""
    net = build_classifier(scene.backbone, 10, resolution=scene.size)
    preprocessing = Preprocessing(size=scene.size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    names = tuple(f"class_{number}" for number in range(10))
    bundle = Bundle(scene.backbone, "linear", names, preprocessing, 1.0, net.state_dict())
    model, ensemble = Model(bundle, runtime), bundle.ensemble(runtime)
    files = list(list_images([str(pictures)]))[: scene.images]
    decoded = torch.from_numpy(np.stack([_decoded(file, scene.size) for file in files])).permute(0, 3, 1, 2)

    def folder() -> int:
        return sum(1 for _ in model.stream(files, batch_size=_PREDICTED_AT_ONCE))

    def decoding() -> int:
        with ThreadPoolExecutor(runtime.threads) as pool:
            return sum(1 for _ in pool.map(lambda file: _decoded(file, scene.size), files))

    def network() -> int:
        return len(ensemble.log_probabilities(lambda _side: torch.split(decoded, _PREDICTED_AT_ONCE)))

    return {"folder": folder, "decoding": decoding, "network": network}


def _decoded(file: Path, size: int) -> NDArray[np.uint8]:
    return square(open_rgb(file).pixels, size)


def _timm_state(name: str) -> dict[str, torch.Tensor]:
    import timm

    return dict(timm.create_model(name, num_classes=10).state_dict())


def _process(command: list[str]) -> Callable[[], int]:
    def run() -> int:
        subprocess.run(command, check=True, capture_output=True, env={**os.environ})
        return 1

    return run


def peer_arms(scene: Scene, pictures: Path, runtime: Runtime) -> dict[str, Block]:
    """This project, and programs that a Python of their own runs; each of those is a process that waits for its turn.

    Raises:
        RuntimeError: `PEERS_PYTHON` is not set, or a program did not start.
    """
    if PEERS_PYTHON not in os.environ:
        raise RuntimeError(f"set {PEERS_PYTHON} to a Python with the peers; benchmarks/installed_peers.py says how")
    store = store_of(pictures, scene, runtime.threads)
    return {
        "ours": epochs_of(trainer_of(Trainer, scene, store, runtime)),
        "ours, statistics trained": epochs_of(trainer_of(Trainer, scene.trains_statistics, store, runtime)),
        **{
            name: other_loop(name, os.environ[PEERS_PYTHON], scene, pictures, runtime)
            for name in ("fastai", "hugging_face")
        },
    }
