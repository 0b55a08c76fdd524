"""Whether training on crops of a squashed canvas costs accuracy, against crops from the original files.

    python benchmarks/canvas_sets.py tiles sets/tiles PHOTOGRAPHS       # and others; any data/train, data/test will do
    python benchmarks/canvas.py --data sets/tiles sets/clipart --out results --seeds 5

The data path decodes every image once, squashes the whole of it to a uint8 square (128 pixels for inputs of 96) and
cuts random crops from that. The common recipe cuts them from the original, where 4:5 to 5:4 means what it says. All
arms fine-tune one network, from the same weights and a head fitted to the same frozen features, on the same images in
the same order by the same recipe (the first of the search's defaults); a seed draws the training images and decides
order, crops and flips.

    ours                 the product's store, trainer and crops; tested on the squashed image, as deployed
    A                    torchvision's RandomResizedCrop and RandomHorizontalFlip on what Pillow decoded, of the same
                         areas and aspects; tested on the squashed image
    B                    the same training; tested on Resize (shorter side) and CenterCrop
    aspect kept          crops from the canvas whose aspect is 4:5 to 5:4 in the original; tested on the squashed image
    aspect kept, middle  the same training; tested on the middle of the canvas, as B tests, so that nothing is squashed
    larger canvas        crops like ours from a canvas of twice the input's side
    squashed from file   crops like ours, cut by Pillow from the original: what is left is the canvas's own loss
    middle               the product's store of middles (`--resize middle`), trainer and crops; tested on the middle, as
                         then deployed

With --auto, a seed also asks the product which of `ours` and `middle` it would choose (`--resize auto`), without a
limit of time, from training and validation images that it deals itself; the row `auto` is the arm that each seed
chose.

A seed's results are written to the folder OUT and not trained again. The table holds everything in OUT: test accuracy,
and ours minus each other arm in points with a 95 % interval over seeds and test images.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import norm, t

from automl_vision.config import Settings, load_settings
from automl_vision.data.decode import open_rgb
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import read_manifest
from automl_vision.data.preprocess import MIDDLE, SQUASH, Preprocessing
from automl_vision.data.readers import read
from automl_vision.data.store import ImageStore, build_store
from automl_vision.events import silent
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import Classifier, build_classifier, placed, set_linear_head
from automl_vision.models.features import extract_features
from automl_vision.models.image_source import resized_batches
from automl_vision.models.inference import logits
from automl_vision.models.probe import Probe, fit_probe
from automl_vision.models.weights import load_weights, require_weights
from automl_vision.report.resize import resize_sentence
from automl_vision.run_dir import RunDir
from automl_vision.runtime import Clock, Runtime, environment, make_runtime
from automl_vision.search.planner import stored_sizes
from automl_vision.stages.context import RunContext, StopRequest
from automl_vision.stages.decode import decode_and_check
from automl_vision.stages.plan import Plan
from automl_vision.stages.resize import choose_resize
from automl_vision.training.augment import AUGMENTATIONS, crop_boxes
from automl_vision.training.loop import Trainer, TrainingData
from automl_vision.training.randomness import Draws, keyed_generator, keyed_seed, seeded_globals
from automl_vision.training.recipe import Recipe

#: Shares of the area, and aspect ratios, of the random crops of every arm: those of the product.
AREA, ASPECT = (0.6, 1.0), (4 / 5, 5 / 4)
#: Side of the larger canvas, in sides of the input.
LARGER = 2
#: Points of accuracy that the canvas may cost.
BAR = 0.3
_TEST_BATCH = 64
_CONFIDENCE = 0.95
#: A trainer validates after every epoch; the last weights alone are looked at, so that two images are enough.
_VALIDATED = 2

Right = NDArray[np.bool_]
#: set -> seed -> arm -> (m) whether each test image is right.
Results = dict[str, dict[int, dict[str, Right]]]


@dataclass(frozen=True)
class Pictures:
    """One set: its files, and its squares in the product's store.

    Attributes:
        name: of the folder.
        manifest: N rows, each in the set "train" or "test".
        store: the squares of all rows, squashed whole.
        middles: the squares of all rows, of their middles; None where no arm needs them.
        aspect: (N) width to height of each image.
        size: side S of the network's input in pixels.
    """

    name: str
    manifest: Manifest
    store: ImageStore
    aspect: torch.Tensor
    size: int
    middles: ImageStore | None = None

    @cached_property
    def centred(self) -> torch.Tensor:
        """(m, 3, S, S) uint8, the test images through Resize and CenterCrop."""
        from torchvision.transforms import v2

        middle = v2.Compose([v2.Resize(self.size), v2.CenterCrop(self.size)])
        return stacked([np.asarray(middle(self.opened(row))) for row in self.rows("test").tolist()])

    def opened(self, row: int) -> Image.Image:
        """The original image of a row."""
        return Image.fromarray(open_rgb(self.manifest.file(row)).pixels)

    def rows(self, part: str) -> torch.Tensor:
        """(n) int64, the rows of "train" or "test"."""
        return torch.from_numpy(np.flatnonzero(np.array(self.manifest.split) == part))

    def labels(self, rows: torch.Tensor) -> torch.Tensor:
        """(n) int64, class indices."""
        return torch.from_numpy(self.manifest.labels)[rows]


def stacked(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """(S, S, 3) images as (B, 3, S, S)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def open_pictures(folder: Path, size: int, cache: Path | None, threads: int, *, middles: bool = False) -> Pictures:
    """Read and decode a set.

    Args:
        folder: with train/CLASS and test/CLASS.
        size: side S of the network's input in pixels.
        cache: where decoded images stay.
        threads: that decode.
        middles: whether squares of the middles are needed as well.

    Raises:
        ValueError: an image cannot be used.
    """
    manifest = read(folder, Settings().data)
    store, facts = build_store(manifest, [*stored_sizes([size]), LARGER * size], cache, threads)
    if not facts.usable.all():
        raise ValueError(f"{manifest.paths[int(np.argmin(facts.usable))]} cannot be used; remove it")
    aspect = torch.from_numpy((facts.table["width"] / facts.table["height"]).to_numpy(dtype=np.float32))
    middle = build_store(manifest, stored_sizes([size]), cache, threads, resize=MIDDLE)[0] if middles else None
    return Pictures(folder.name, manifest, store, aspect, size, middle)


# --- how an arm cuts its training crops ------------------------------------------------------------------------------


class Cut(Trainer):
    """The product's trainer with training crops that come from elsewhere."""

    pictures: Pictures

    def _batch(self, step: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = self._crops(self.data.train_rows[positions], step)
        targets = F.one_hot(self.data.train_labels[positions], self.data.num_classes).float()
        device = self.runtime.device
        return images.contiguous(memory_format=torch.channels_last).to(device), targets.to(device)

    def _crops(self, rows: torch.Tensor, step: int) -> torch.Tensor:
        """(B, 3, S, S) uint8, flipped where they are to be."""
        raise NotImplementedError

    @property
    def _canvas_side(self) -> int:
        """Of the squares that the product's trainer cuts from."""
        return self.data.source.plane_for(AUGMENTATIONS[self.recipe.augment].wanted_size(self.preprocessing.size))

    def _generator(self, step: int) -> torch.Generator:
        """The one that the product's trainer draws crops and flips of this step from."""
        return keyed_generator("augment", self.recipe.seed, self.epoch + 1, step)


class CutFromFiles(Cut):
    """The common recipe, image by image, from the decoded file."""

    def _crops(self, rows: torch.Tensor, step: int) -> torch.Tensor:
        from torchvision.transforms import v2

        cut = v2.Compose(
            [v2.RandomResizedCrop(self.preprocessing.size, scale=AREA, ratio=ASPECT), v2.RandomHorizontalFlip()]
        )
        with seeded_globals(self.runtime.device, "files", self.recipe.seed, self.epoch + 1, step):
            return stacked([np.asarray(cut(self.pictures.opened(row))) for row in rows.tolist()])


class CutSquashedFromFiles(Cut):
    """The product's boxes, as shares of the sides of the original."""

    def _crops(self, rows: torch.Tensor, step: int) -> torch.Tensor:
        generator, size, side = self._generator(step), self.preprocessing.size, self._canvas_side
        shares = crop_boxes(Draws(generator, len(rows)), side).double() / side
        crops = [
            _part(self.pictures.opened(row), each, size)
            for row, each in zip(rows.tolist(), shares.tolist(), strict=True)
        ]
        return flipped(stacked(crops), generator)


class CutWithAspect(Cut):
    """From the canvas, in boxes whose aspect holds in the original."""

    def _crops(self, rows: torch.Tensor, step: int) -> torch.Tensor:
        generator, canvas = self._generator(step), self.data.source.fetch(rows, self._canvas_side)
        draws = torch.rand(4, len(rows), generator=generator)
        boxes = boxes_with_aspect(draws, canvas.shape[-1], self.pictures.aspect[rows])
        return flipped(cropped(canvas, boxes, self.preprocessing.size), generator)


class CutFromLarger(Cut):
    """The product's boxes on the larger canvas."""

    def _crops(self, rows: torch.Tensor, step: int) -> torch.Tensor:
        generator, canvas = self._generator(step), self.data.source.fetch(rows, LARGER * self.preprocessing.size)
        boxes = crop_boxes(Draws(generator, len(rows)), canvas.shape[-1])
        return flipped(cropped(canvas, boxes, self.preprocessing.size), generator)


class CutFromMiddles(Trainer):
    """The product's trainer, to which `store_for` gives squares of the middles."""


def cropped(canvas: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, P, P) uint8 and (B, 4) boxes to (B, 3, size, size) uint8."""
    views = [
        canvas[at : at + 1, :, top : top + height, left : left + width]
        for at, (top, left, height, width) in enumerate(boxes.tolist())
    ]
    return torch.cat([F.interpolate(view, (size, size), mode="bilinear", antialias=True) for view in views])


def boxes_with_aspect(draws: torch.Tensor, side: int, aspect: torch.Tensor) -> torch.Tensor:
    """Boxes on squashed canvases whose aspect is within `ASPECT` in the originals.

    Args:
        draws: (4, B) in [0, 1).
        side: of the canvases in pixels.
        aspect: (B) width to height of the originals.

    Returns:
        (B, 4) int64: top, left, height, width; where a box would be higher or wider than the image, both its sides
        shrink, so that its area is below `AREA`.
    """
    area = AREA[0] + (AREA[1] - AREA[0]) * draws[0]
    wanted = torch.exp(math.log(ASPECT[0]) + math.log(ASPECT[1] / ASPECT[0]) * draws[1]) / aspect
    height, width = (area / wanted).sqrt(), (area * wanted).sqrt()
    fitting = torch.maximum(height, width).clamp(min=1)
    height, width = ((each / fitting * side).round().clamp(1, side) for each in (height, width))
    top = (draws[2] * (side - height + 1)).floor()
    left = (draws[3] * (side - width + 1)).floor()
    return torch.stack([top, left, height, width], dim=1).long()


def flipped(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of them mirrored left-right, in place; those that the product's trainer would mirror."""
    rows = (torch.rand(len(images), generator=generator) < 0.5).nonzero().squeeze(1)
    images[rows] = images[rows].flip(3)
    return images


def _part(image: Image.Image, shares: Sequence[float], size: int) -> NDArray[np.uint8]:
    top, left, height, width = shares
    box = (
        round(left * image.width),
        round(top * image.height),
        round((left + width) * image.width),
        round((top + height) * image.height),
    )
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BILINEAR))


# --- arms ------------------------------------------------------------------------------------------------------------


def _squashed(pictures: Pictures, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    return resized_batches(pictures.store, rows, pictures.size, _TEST_BATCH)


def _centred(pictures: Pictures, _rows: torch.Tensor) -> Iterator[torch.Tensor]:
    return iter(torch.split(pictures.centred, _TEST_BATCH))


def _middles(pictures: Pictures, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    side = pictures.store.plane_for(AUGMENTATIONS["light"].wanted_size(pictures.size))
    for part in torch.split(rows, _TEST_BATCH):
        boxes = middle_boxes(side, pictures.aspect[part])
        yield cropped(pictures.store.fetch(part, side), boxes, pictures.size)


def _deployed_middles(pictures: Pictures, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    return resized_batches(store_for(CutFromMiddles, pictures), rows, pictures.size, _TEST_BATCH)


def store_for(kind: type[Trainer], pictures: Pictures) -> ImageStore:
    """The squares that a trainer cuts from.

    Raises:
        ValueError: squares of the middles were not opened.
    """
    if kind is not CutFromMiddles:
        return pictures.store
    if pictures.middles is None:
        raise ValueError("the arm `middle` needs squares of the middles, see `open_pictures`")
    return pictures.middles


def middle_boxes(side: int, aspect: torch.Tensor) -> torch.Tensor:
    """(B, 4) int64 boxes on squashed canvases that show the largest square in the middle of the originals.

    Args:
        side: of the canvases in pixels.
        aspect: (B) width to height of the originals.
    """
    height, width = ((share.clamp(max=1) * side).round() for share in (aspect, 1 / aspect))
    return torch.stack([(side - height) // 2, (side - width) // 2, height, width], dim=1).long()


#: name -> batches of (B, 3, S, S) uint8 of some rows, as a network is tested on them.
TESTS: dict[str, Callable[[Pictures, torch.Tensor], Iterator[torch.Tensor]]] = {
    "squash": _squashed,
    "centre": _centred,
    "middle": _middles,
    "middle, deployed": _deployed_middles,
}


@dataclass(frozen=True)
class Arm:
    """A way of training and a way of testing, a name of `TESTS`."""

    trainer: type[Trainer]
    test: str


ARMS: dict[str, Arm] = {
    "ours": Arm(Trainer, "squash"),
    "A": Arm(CutFromFiles, "squash"),
    "B": Arm(CutFromFiles, "centre"),
    "aspect kept": Arm(CutWithAspect, "squash"),
    "aspect kept, middle": Arm(CutWithAspect, "middle"),
    "larger canvas": Arm(CutFromLarger, "squash"),
    "squashed from file": Arm(CutSquashedFromFiles, "squash"),
    "middle": Arm(CutFromMiddles, "middle, deployed"),
}


@dataclass(frozen=True)
class Session:
    """What all trainings share.

    Attributes:
        recipe: of every arm; a seed replaces its own.
        train: images that a seed draws, all classes in proportion.
        pretrained: whether the network starts from pretrained weights.
        runtime: device and threads.
    """

    recipe: Recipe
    train: int
    pretrained: bool
    runtime: Runtime

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for the network."""
        mean, std = statistics(backbone(self.recipe.backbone))
        return Preprocessing(size=self.recipe.resolution, mean=mean, std=std)

    def network(self, classes: int, seed: int) -> Classifier:
        """A fresh one, with pretrained weights."""
        row = backbone(self.recipe.backbone)
        weights = load_weights(require_weights(row, offline=True), row) if self.pretrained else None
        net = build_classifier(row.name, classes, weights=weights, resolution=self.recipe.resolution, seed=seed)
        return placed(net, self.runtime.device)


def recipe_of(name: str, size: int, epochs: int) -> Recipe:
    """The first fine-tune that the search tries, see `search.portfolio`."""
    return Recipe(
        kind="finetune",
        backbone=name,
        resolution=size,
        epochs=epochs,
        optimizer="adamw",
        learning_rate=5e-4,
        layer_decay=1.0,
        freeze_stages=2,
        augment="light",
        label_smoothing=0.1,
    )


def drawn(pictures: Pictures, count: int, seed: int) -> torch.Tensor:
    """(n) rows to train on, all classes in proportion, ascending."""
    rows = pictures.rows("train")
    order = rows[torch.randperm(len(rows), generator=keyed_generator("rows", seed))]
    labels, share = pictures.labels(order), min(1.0, count / len(rows))
    kept = [order[labels == label] for label in range(len(pictures.manifest.class_names))]
    return torch.cat([each[: math.ceil(share * len(each))] for each in kept]).sort().values


def judge(session: Session, pictures: Pictures, arms: Sequence[str], seed: int) -> Iterator[dict[str, Right]]:
    """Train what the arms need, and tell which of the test images each gets right; arms of one training together."""
    rows = drawn(pictures, session.train, seed)
    for kind in dict.fromkeys(ARMS[name].trainer for name in arms):
        started = time.monotonic()
        net = _trained(session, pictures, kind, rows, seed)
        of_this = [name for name in arms if ARMS[name].trainer is kind]
        found = {name: _right(session, pictures, net, ARMS[name].test) for name in of_this}
        said = ", ".join(f"{name} {right.mean():.4f}" for name, right in found.items())
        print(f"{pictures.name}, seed {seed}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
        yield found


def _probe(session: Session, pictures: Pictures, kind: type[Trainer], rows: torch.Tensor, seed: int) -> Probe:
    """The head that an arm starts from: fitted to squares of its store."""
    classes = len(pictures.manifest.class_names)
    net = session.network(classes, seed)
    features = extract_features(net.backbone, store_for(kind, pictures), rows, session.preprocessing, session.runtime)
    return fit_probe(features, pictures.labels(rows).numpy(), np.arange(len(rows)), classes, seed=seed)


def _trained(session: Session, pictures: Pictures, kind: type[Trainer], rows: torch.Tensor, seed: int) -> Classifier:
    classes = len(pictures.manifest.class_names)
    probe, net = _probe(session, pictures, kind, rows, seed), session.network(classes, seed)
    set_linear_head(net, probe.weight, probe.bias)
    held = rows[:_VALIDATED]
    data = TrainingData(store_for(kind, pictures), rows, pictures.labels(rows), held, pictures.labels(held), classes)
    recipe = Recipe.from_dict(session.recipe.to_dict() | {"seed": keyed_seed("canvas", seed)})
    trainer = kind(recipe, data, net, session.preprocessing, session.runtime, lambda _labels, _scores: 0.0)
    if isinstance(trainer, Cut):
        trainer.pictures = pictures
    while not trainer.finished:
        trainer.run_epoch()
    net.load_state_dict(trainer.last_weights())
    return net


def _right(session: Session, pictures: Pictures, net: Classifier, test: str) -> Right:
    """(m) whether each test image is classified as it should be."""
    rows = pictures.rows("test")
    batches = TESTS[test](pictures, rows)
    scores = logits(net, batches, session.preprocessing, session.runtime)
    return np.asarray(scores.argmax(axis=1) == pictures.labels(rows).numpy())


# --- what the product would choose ------------------------------------------------------------------------------------

#: What `data.resize` can be chosen to be, and the arm that is trained and tested so.
CHOICES = {SQUASH: "ours", MIDDLE: "middle"}
AUTO = "auto"


def choice(session: Session, folder: Path, seed: int, cache: Path) -> dict[str, Any]:
    """What `--resize auto` comes to on a set: `resize` of run.json.

    Args:
        session: backbone, side and machine.
        folder: with train/CLASS and test/CLASS, of which the product keeps the test set sealed.
        seed: deals the validation images, and draws what is looked at.
        cache: where decoded images stay.
    """
    name, size = session.recipe.backbone, session.recipe.resolution
    chosen = {"data.lineage": "names", "search.trials": 1, "machine.seed": seed, "machine.cache_dir": str(cache)}
    settings = load_settings(overrides={**chosen, "machine.threads": session.runtime.threads})
    weights = {name: require_weights(backbone(name), offline=True)} if session.pretrained else {}
    plan = Plan((name,), weights, (size,))
    with tempfile.TemporaryDirectory() as temporary:
        run = RunDir.create(Path(temporary) / "run", settings, {"data": str(folder)})
        context = RunContext(run, folder, settings, silent, StopRequest(), Clock(time.monotonic(), math.inf))
        prepared = decode_and_check(context, read_manifest(folder, settings), plan, session.runtime)
        choose_resize(context, prepared, plan, session.runtime).store.close()
        record: dict[str, Any] = run.about["resize"]
        run.close()
    return record


def decide(session: Session, folders: Sequence[Path], seeds: int, out: Path) -> None:
    """Ask what is not in `out` yet."""
    (out / AUTO).mkdir(exist_ok=True)
    for seed in range(seeds):
        for folder in folders:
            file = _file(out / AUTO, folder.name, seed)
            if not file.exists():
                record = choice(session, folder, seed, out / "cache")
                file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
                print(f"{folder.name}, seed {seed}: auto chooses {resize_sentence(record)}", flush=True)


def with_auto(results: Results, out: Path) -> Results:
    """The results, with those of the arm that each seed chose as the arm "auto", where it was trained."""
    for name, by_seed in results.items():
        for seed, found in by_seed.items():
            file = _file(out / AUTO, name, seed)
            arm = CHOICES[json.loads(file.read_text("utf-8"))["chosen"]] if file.exists() else ""
            if arm in found:
                found[AUTO] = found[arm]
    return results


# --- what the table says ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Mean of ours minus theirs, in points of accuracy, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says of the bar."""
        if self.low > -BAR:
            return f"costs less than {BAR}"
        return f"costs more than {BAR}" if self.high < -BAR else "cannot be told"


def difference(ours: Right, theirs: Right) -> Difference:
    """Paired over seeds and images, both taken as samples: what another seed says of another image.

    The variance of the mean of a table of seeds by images, two crossed random effects, is MS_seed + MS_image -
    MS_rest, over the number of cells (Searle, Casella and McCulloch 1992); its degrees of freedom are Satterthwaite's
    (1946). Where it comes out below that of the seeds or of the images alone, the larger of these is taken.

    Args:
        ours, theirs: (K, m) whether seed k gets test image i right; K seeds, of which one says nothing of seeds.
    """
    table = 100.0 * (ours.astype(np.float64) - theirs.astype(np.float64))
    seeds, images = table.shape
    mean = float(table.mean())
    by_image = table.mean(axis=0) - mean
    squares_image = seeds * float(by_image @ by_image) / (images - 1)
    if seeds == 1:
        half = float(norm.ppf((1 + _CONFIDENCE) / 2)) * math.sqrt(squares_image / images)
        return Difference(mean, mean - half, mean + half)
    by_seed = table.mean(axis=1) - mean
    squares_seed = images * float(by_seed @ by_seed) / (seeds - 1)
    rest = table - mean - by_image[None] - by_seed[:, None]
    squares_rest = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    total = max(squares_seed + squares_image - squares_rest, squares_seed, squares_image)
    freedom = _freedom(total, [(squares_seed, seeds - 1), (squares_image, images - 1)])
    half = float(t.ppf((1 + _CONFIDENCE) / 2, freedom)) * math.sqrt(total / (seeds * images))
    return Difference(mean, mean - half, mean + half)


def _freedom(total: float, parts: Sequence[tuple[float, int]]) -> float:
    """Satterthwaite's; no less than those of the smallest part."""
    least = min(degrees for _, degrees in parts)
    spread = sum(square**2 / degrees for square, degrees in parts)
    return max(least, total**2 / spread) if spread else least


def table(results: Results) -> list[dict[str, Any]]:
    """One row per set and arm.

    Args:
        results: set -> seed -> arm -> (m) whether each test image is right.
    """
    rows = []
    for name, by_seed in results.items():
        for arm in (*ARMS, AUTO):
            seeds = sorted(seed for seed, found in by_seed.items() if arm in found and "ours" in found)
            if not seeds:
                continue
            ours, theirs = (np.stack([by_seed[seed][which] for seed in seeds]) for which in ("ours", arm))
            found = difference(ours, theirs)
            rows.append(
                {
                    "set": name,
                    "arm": arm,
                    "seeds": len(seeds),
                    "images": theirs.shape[1],
                    "accuracy": float(theirs.mean()),
                    "accuracy_by_seed": theirs.mean(axis=1).tolist(),
                    "differ": float((ours != theirs).mean()),
                    "ours_minus": None if arm == "ours" else vars(found) | {"verdict": found.verdict},
                }
            )
    return rows


def _printed(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| set | arm | seeds | test images | accuracy | ours minus it, points | it says |", "|---" * 7 + "|"]
    for row in rows:
        found = row["ours_minus"]
        says = "| |" if found is None else f"| {found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}] |"
        says += " |" if found is None else f" {found['verdict']} |"
        lines.append(
            f"| {row['set']} | {row['arm']} | {row['seeds']} | {row['images']:,} | {row['accuracy']:.4f} {says}"
        )
    return "\n".join(lines)


# --- results that are kept -------------------------------------------------------------------------------------------


def _file(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-{seed}.json"


def _write(file: Path, session: Session, found: dict[str, Right]) -> None:
    arms = {name: {"images": len(right), "right": np.packbits(right).tobytes().hex()} for name, right in found.items()}
    about = {"recipe": session.recipe.to_dict(), "train": session.train, "environment": environment(session.runtime)}
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(about | {"arms": arms}, indent=1) + "\n", "utf-8")
    unfinished.replace(file)


def _read(file: Path) -> dict[str, Right]:
    arms = json.loads(file.read_text("utf-8"))["arms"]
    bits = {name: np.frombuffer(bytes.fromhex(each["right"]), np.uint8) for name, each in arms.items()}
    return {name: np.unpackbits(each, count=arms[name]["images"]).astype(bool) for name, each in bits.items()}


def _all_results(out: Path) -> Results:
    results: Results = {}
    for file in sorted(out.glob("*-*.json")):
        name, seed = file.stem.rsplit("-", 1)
        results.setdefault(name, {})[int(seed)] = _read(file)
    return with_auto(results, out)


def run(session: Session, folders: Sequence[Path], arms: Sequence[str], seeds: int, out: Path) -> None:
    """Train and test what is not in `out` yet; one seed of every set before the next seed."""
    out.mkdir(parents=True, exist_ok=True)
    size, threads = session.preprocessing.size, session.runtime.threads
    middles = any(ARMS[arm].trainer is CutFromMiddles for arm in arms)
    sets = [open_pictures(folder, size, out / "cache", threads, middles=middles) for folder in folders]
    for seed in range(seeds):
        for pictures in sets:
            file = _file(out, pictures.name, seed)
            done = _read(file) if file.exists() else {}
            missing = [arm for arm in arms if arm not in done]
            for found in judge(session, pictures, missing, seed) if missing else ():
                done |= found
                _write(file, session, done)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders with train/CLASS and test/CLASS")
    parser.add_argument("--out", type=Path, required=True, help="folder of results, which is added to")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=1000, help="training images that a seed draws")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="side of the network's input in pixels")
    parser.add_argument("--no-pretrained", action="store_true", help="start from random weights")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--auto", action="store_true", help="ask the product which way it would choose")
    parser.add_argument("--json", type=Path, help="write the table here")
    options = parser.parse_args(arguments)
    recipe = recipe_of(options.backbone, options.size, options.epochs)
    runtime = make_runtime(options.device, "float32", options.threads)
    session = Session(recipe, options.train, not options.no_pretrained, runtime)
    run(session, options.data, options.arms, options.seeds, options.out)
    if options.auto:
        decide(session, options.data, options.seeds, options.out)
    rows = table(_all_results(options.out))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(_printed(rows))


if __name__ == "__main__":
    main()
