"""Fits the weights with which the original of a group is named (src/automl_vision/data/lineage/original_picker.json).

    PYTHONPATH=benchmarks:fitting python fitting/original_picker.py make POOL/fit fit.npz --sets 200
    PYTHONPATH=benchmarks:fitting python fitting/original_picker.py make POOL/test test.npz --sets 100
    PYTHONPATH=benchmarks:fitting python fitting/original_picker.py fit fit.npz --report test.npz

`make` writes folders' worth of pictures and copies as people save them, lays the members of every group over each other
and keeps their cues. A set has habits of its own: which program wrote the originals and which the copies, with which
quality, at which size, by which augmentations. In half of the sets everything is written alike, so that only the pixels
differ; in a fifth of the groups the original is taken away. `fit` fits on pipelines that are not held out and reports.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from augmentations import AUGMENTATIONS, augment
from automl_vision.data.decode import open_rgb, signature_of
from automl_vision.data.lineage.cues import Sample, sample
from automl_vision.data.lineage.originals import (
    SURE,
    Folder,
    Group,
    Picker,
    folder_of,
    member_cues,
    none_cues,
)
from automl_vision.data.lineage.picking import lay_over_each_other
from automl_vision.data.lineage.picture import describe_picture

Rng = np.random.Generator
Floats = NDArray[np.float64]
Save = Callable[[Image.Image], bytes]

WEIGHTS = Path(__file__).parents[1] / "src/automl_vision/data/lineage/original_picker.json"

#: Pipelines that no weight has seen; what is reported of them is what can be expected of those that nobody thought of.
HELD_OUT = ("rotate_reflect", "elastic", "gamma", "motion_blur", "coarse_dropout", "shear", "clahe")
HELD_OUT_CHAINS = ("chain_albumentations", "chain_roboflow", "chain_augmix")
_HELD_OUT = (*HELD_OUT, *HELD_OUT_CHAINS)

SOURCES_PER_SET = 12
#: Share of the groups whose original is taken away.
ABSENT = 0.2
#: Shares of the sources that have copies, and of the copies that the search for copies misses; a set has one of each.
AUGMENTED, MISSED = (0.4, 0.6, 0.8, 1.0), (0.0, 0.0, 0.1, 0.3)
#: Units, weight decay and temperature: chosen on sets of the half "fit" that the weights had not seen.
TANH_UNITS, DECAY, TEMPERATURE = 5, 1.0, 1.5
FOLDS, BAGS = 3, 6


def _jpeg(image: Image.Image, quality: int, subsampling: int, progressive: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    return buffer.getvalue()


def _cv2_jpeg(image: Image.Image, quality: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.asarray(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def _drawn_jpeg(rng: Rng) -> Save:
    quality, sampling = int(rng.integers(75, 99)), int(rng.choice([0, 1, 2, 2]))
    return partial(_jpeg, quality=quality, subsampling=sampling, progressive=bool(rng.random() < 0.15))


def _writer_of_originals(rng: Rng) -> Callable[[], Save]:
    """One program for all, or cameras and sites of all kinds."""
    kind = rng.choice(["png", "one", "many", "cv2", "webp"], p=[0.3, 0.25, 0.3, 0.1, 0.05])
    if kind == "many":
        return partial(_drawn_jpeg, rng)
    fixed: dict[str, Save] = {
        "png": _png,
        "one": _drawn_jpeg(rng),
        "cv2": partial(_cv2_jpeg, quality=int(rng.choice([95, 95, 90, 85]))),
        "webp": partial(_webp, quality=int(rng.integers(75, 95))),
    }
    return lambda: fixed[str(kind)]


def _writer_of_copies(rng: Rng) -> Save:
    kinds: list[Save] = [_png, partial(_jpeg, quality=75, subsampling=2, progressive=False)]
    kinds += [
        partial(_cv2_jpeg, quality=95),
        partial(_jpeg, quality=int(rng.integers(85, 97)), subsampling=2, progressive=False),
    ]
    return kinds[int(rng.integers(len(kinds)))]


def _with_history(image: Image.Image, rng: Rng) -> Image.Image:
    """What may have happened to a picture before it became somebody's original."""
    kind = rng.choice(
        ["none", "jpeg", "soft", "enlarged", "noisy", "toned", "grey", "bars", "sharp"],
        p=[0.45, 0.2, 0.06, 0.06, 0.05, 0.08, 0.03, 0.03, 0.04],
    )
    if kind == "jpeg":
        return Image.open(io.BytesIO(_jpeg(image, int(rng.integers(50, 93)), 2, False)), formats=("JPEG",)).convert(
            "RGB"
        )
    if kind == "soft":
        return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.2))))
    if kind == "enlarged":
        scale = rng.uniform(1.2, 1.8)
        return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    if kind == "noisy":
        noise = rng.normal(0, rng.uniform(2, 9), (image.height, image.width, 3))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    if kind == "toned":
        toned = ImageEnhance.Contrast(image).enhance(float(rng.uniform(0.7, 1.4)))
        return ImageEnhance.Brightness(toned).enhance(float(rng.uniform(0.7, 1.3)))
    if kind == "sharp":
        return ImageEnhance.Sharpness(image).enhance(float(rng.uniform(1.5, 3)))
    if kind == "grey":
        return image.convert("L").convert("RGB")
    if kind == "bars":
        return ImageOps.expand(image, (0, image.height // 8), fill=(0, 0, 0) if rng.random() < 0.7 else (255,) * 3)
    return image


@dataclass(frozen=True)
class Habits:
    """How one set was made.

    Attributes:
        mode: "files": originals and copies may be written by different programs; "alike": all by one, as one size or
            not; "png": all PNG, as they came from the augmentation.
        original, copy: programs that write.
        side: of the square that copies, and originals where `all_resized`, are brought to; 0: as they come.
        pipelines: that are drawn from.
        copies: of each augmented original.
    augmented, missed: see `AUGMENTED` and `MISSED`.
    """

    mode: str
    original: Callable[[], Save]
    copy: Save
    side: int
    all_resized: bool
    stretched: bool
    pipelines: tuple[str, ...]
    copies: int
    augmented: float
    missed: float


def _habits(rng: Rng, names: Sequence[str]) -> Habits:
    mode = str(rng.choice(["files", "alike", "png"], p=[0.45, 0.2, 0.35]))
    original, copy = _writer_of_originals(rng), _writer_of_copies(rng)
    if mode != "files":
        same = _png if mode == "png" else _drawn_jpeg(rng)
        original, copy = (lambda: same), same
    many = rng.permutation(list(names)).tolist()
    chains = [name for name in many if AUGMENTATIONS[name].kind == "chain"]
    family = rng.choice(["any", "few", "one chain"], p=[0.4, 0.35, 0.25])
    pipelines = {"any": many, "few": many[: int(rng.integers(3, 7))], "one chain": chains[:1] or many}[str(family)]
    return Habits(
        mode=mode,
        original=original,
        copy=copy,
        side=int(rng.choice([0, 0, 0, 224, 256, 320])),
        all_resized=bool(rng.random() < 0.5),
        stretched=bool(rng.random() < 0.6),
        pipelines=tuple(pipelines),
        copies=int(rng.choice([1, 2, 3, 4, 5, 7], p=[0.12, 0.2, 0.2, 0.25, 0.15, 0.08])),
        augmented=float(rng.choice(AUGMENTED)),
        missed=float(rng.choice(MISSED)),
    )


def _resized(image: Image.Image, habits: Habits, *, original: bool) -> Image.Image:
    if not habits.side or (original and not habits.all_resized):
        return image
    size = (habits.side, habits.side)
    if habits.stretched:
        return image.resize(size, Image.Resampling.BILINEAR)
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Made:
    """One original, its copies and what was done: pipelines are "" for the original itself, which comes first."""

    files: tuple[bytes, ...]
    pipelines: tuple[str, ...]


def _made(image: Image.Image, habits: Habits, rng: Rng, *, augmented: bool) -> Made:
    kept = habits.original()(_resized(image, habits, original=True))
    pipelines, files = [""], [kept]
    stored = Image.fromarray(open_rgb(kept).pixels)
    for _ in range(habits.copies if augmented else 0):
        name = str(rng.choice(list(habits.pipelines)))
        copy = _resized(augment(name, stored, rng), habits, original=False)
        pipelines.append(name)
        files.append(habits.copy(copy))
    return Made(tuple(files), tuple(pipelines))


def _sampled(data: bytes) -> Sample:
    pixels = open_rgb(data).pixels
    return sample(pixels, describe_picture(pixels), signature_of(data), len(data))


def _keys(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    return [(each.writer, "x".join(map(str, sorted(each.size)))) for each in samples]


def _keys_of(data: bytes) -> tuple[str, str]:
    image = open_rgb(data)
    return signature_of(data).writer, "x".join(map(str, sorted((image.width, image.height))))


def _component(same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The largest set of members that are joined."""
    reach = np.linalg.matrix_power(same.astype(float), len(same)) > 0
    return np.flatnonzero(reach[int(reach.sum(axis=1).argmax())])


def make_set(task: tuple[int, tuple[str, ...], tuple[str, ...]]) -> list[dict[str, Any]]:
    """Groups of one set, as plain arrays."""
    seed, files, names = task
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    habits = _habits(rng, names)
    alone: list[tuple[str, str]] = []
    groups: list[tuple[list[Sample], list[str], Floats]] = []
    grouped: list[tuple[str, str]] = []
    for file in files:
        image = _with_history(Image.open(file, formats=("PNG",)).convert("RGB"), rng)
        augmented, absent = bool(rng.random() < habits.augmented), bool(rng.random() < ABSENT)
        made = _made(image, habits, rng, augmented=augmented)
        if not augmented:
            alone.append(_keys_of(made.files[0]))
            continue
        start = 1 if augmented and absent and len(made.files) > 2 else 0
        order = start + rng.permutation(len(made.files) - start)
        missed = (order > 0) & (rng.random(len(order)) < habits.missed)
        alone += [_keys_of(made.files[at]) for at in order[missed]]
        order = order[~missed]
        if len(order) < 2:
            alone += [_keys_of(made.files[at]) for at in order]
            continue
        samples = [_sampled(made.files[at]) for at in order]
        cues, same = lay_over_each_other(samples)
        kept = _component(same)
        if len(kept) < 2:
            alone += _keys(samples)
            continue
        samples = [samples[at] for at in kept]
        grouped += _keys(samples)
        groups.append((samples, [made.pipelines[order[at]] for at in kept], cues[np.ix_(kept, kept)]))
    folder = folder_of(alone, grouped)
    return [
        {
            "single": np.array([each.single for each in samples]),
            "pairs": pairs,
            "keys": np.array(_keys(samples)),
            "pipelines": np.array(pipelines),
            "truth": np.array(pipelines.index("") if "" in pipelines else -1),
            "mode": np.array(habits.mode),
            "set": np.array(seed),
            "folder": np.array(json.dumps([dict(folder.alone), dict(folder.grouped)])),
        }
        for samples, pipelines, pairs in groups
    ]


def make(pool: Path, target: Path, sets: int, seed: int, processes: int, names: Sequence[str]) -> None:
    """Write the cues of `sets` sets."""
    files = sorted(map(str, pool.rglob("*.png")))
    rng = np.random.default_rng(seed)
    tasks = [
        (seed * 100_000 + number, tuple(rng.choice(files, SOURCES_PER_SET, replace=False).tolist()), tuple(names))
        for number in range(sets)
    ]
    kept: dict[str, Any] = {}
    with ProcessPoolExecutor(processes) as workers:
        for number, groups in enumerate(workers.map(make_set, tasks)):
            for at, group in enumerate(groups):
                kept |= {f"{number}.{at}/{name}": value for name, value in group.items()}
            if number % 10 == 9:
                print(number + 1, "sets", flush=True)
    np.savez_compressed(target, **kept)


@dataclass(frozen=True)
class Cases:
    """Groups with known answers.

    Attributes:
        groups, folders: what is known of each.
        truth: position of the original in each; the number of members where it is absent.
        mode: see `Habits`.
        sets: number of the set that each comes from.
    """

    groups: list[Group]
    folders: list[Folder]
    truth: NDArray[np.int64]
    mode: NDArray[np.str_]
    sets: NDArray[np.int64]


def read_cases(file: Path) -> Cases:
    """The groups that `make` wrote."""
    found: dict[str, dict[str, Any]] = {}
    with np.load(file, allow_pickle=False) as stored:
        for key in stored.files:
            group, name = key.rsplit("/", 1)
            found.setdefault(group, {})[name] = stored[key]
    rows = list(found.values())
    groups = [
        Group(row["single"], row["pairs"], tuple(row["keys"][:, 0].tolist()), tuple(row["keys"][:, 1].tolist()))
        for row in rows
    ]
    folders = [Folder(*json.loads(str(row["folder"]))) for row in rows]
    truth = [int(row["truth"]) if int(row["truth"]) >= 0 else len(row["single"]) for row in rows]
    mode = np.array([str(row["mode"]) for row in rows])
    return Cases(groups, folders, np.array(truth), mode, np.array([int(row["set"]) for row in rows]))


@dataclass(frozen=True)
class _Tensors:
    """Padded cases: (G, n, M) members, (G, n + 1) which answers there are, (G, Z) cues of "none", (G) truth."""

    members: torch.Tensor
    there: torch.Tensor
    none: torch.Tensor
    answer: torch.Tensor


def fit(cases: Cases, units: int, decay: float) -> Picker:
    """Weights that make the known answers likely, at temperature 1.

    The utilities are the mean of `BAGS` fits, each with random weights on the groups (Rubin, "The Bayesian bootstrap",
    1981): one fit alone is too sure of what it has learnt.
    """
    torch.set_num_threads(1)
    cues = [member_cues(group, folder) for group, folder in zip(cases.groups, cases.folders, strict=True)]
    stacked = np.concatenate(cues)
    mean, scale = stacked.mean(axis=0), stacked.std(axis=0) + 1e-3
    tensors = _tensors(cases, [np.clip((each - mean) / scale, -6.0, 6.0) for each in cues])
    bags = [_fit_once(tensors, units, decay, seed) for seed in range(BAGS)]
    linear, none = (np.mean([bag[at] for bag in bags], axis=0) for at in (0, 3))
    hidden = np.concatenate([bag[1] for bag in bags])
    output = np.concatenate([bag[2] for bag in bags]) / BAGS
    said = f"fitting/original_picker.py, {datetime.date.today().isoformat()}, {len(cues)} groups"
    return Picker(said, mean, scale, linear, hidden, output, none, temperature=1.0)


def _tensors(cases: Cases, cues: Sequence[Floats]) -> _Tensors:
    largest, sizes = max(map(len, cues)), np.array([len(each) for each in cues])
    members = torch.zeros(len(cues), largest, cues[0].shape[1], dtype=torch.float64)
    there = torch.zeros(len(cues), largest + 1, dtype=torch.bool)
    for at, each in enumerate(cues):
        members[at, : len(each)] = torch.from_numpy(each)
        there[at, : len(each)] = True
    there[:, -1] = True
    none = torch.from_numpy(np.stack([none_cues(group) for group in cases.groups]))
    return _Tensors(members, there, none, torch.from_numpy(np.where(cases.truth == sizes, largest, cases.truth)))


def _fit_once(cases: _Tensors, units: int, decay: float, seed: int) -> list[Floats]:
    """Linear, hidden, output and "none" weights."""
    torch.manual_seed(seed)
    count, _, width = cases.members.shape
    weight = torch.distributions.Exponential(1.0).sample((count,)).double()
    weight /= weight.sum()
    linear = torch.zeros(width, dtype=torch.float64)
    hidden = torch.randn(units, width + 1, dtype=torch.float64) * 0.1
    output = torch.randn(units, dtype=torch.float64) * 0.1
    none = torch.zeros(cases.none.shape[1], dtype=torch.float64)
    weights = [each.requires_grad_() for each in (linear, hidden, output, none)]
    optimizer = torch.optim.LBFGS(weights, max_iter=150, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        bend = torch.tanh(cases.members @ hidden[:, :-1].T + hidden[:, -1]) @ output
        utilities = torch.cat([cases.members @ linear + bend, (cases.none @ none)[:, None]], dim=1)
        utilities = utilities.masked_fill(~cases.there, -1e9)
        wrong = torch.nn.functional.cross_entropy(utilities, cases.answer, reduction="none") @ weight
        value: torch.Tensor = wrong + decay / count * torch.stack([(each**2).sum() for each in weights]).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return [each.detach().numpy() for each in weights]


@dataclass(frozen=True)
class Answers:
    """What a picker said: probability of its choice, whether that is right, whether the original was there."""

    probability: Floats
    right: NDArray[np.bool_]
    there: NDArray[np.bool_]


def answers(picker: Picker, cases: Cases, chosen: NDArray[np.bool_] | None = None) -> Answers:
    """Of the chosen cases."""
    at = np.flatnonzero(chosen) if chosen is not None else np.arange(len(cases.groups))
    found = [picker.probabilities(cases.groups[each], cases.folders[each]) for each in at]
    truth = cases.truth[at]
    best = np.array([int(each.argmax()) for each in found])
    sizes = np.array([len(each) for each in found])
    return Answers(np.array([each.max() for each in found]), best == truth, truth < sizes)


def table(name: str, said: Answers) -> str:
    """One line of the report."""
    sure = said.probability >= SURE
    always = said.right[said.there].mean() if said.there.any() else 0.0
    right = said.right[sure].mean() if sure.any() else float("nan")
    wrong = int((~said.right[sure]).sum())
    return f"| {name} | {len(sure)} | {always:.1%} | {sure.mean():.1%} | {right:.1%} ({wrong} wrong) |"


def report(name: str, said: Answers, mode: NDArray[np.str_]) -> str:
    """The table of some cases: all, by how the files were written, and where the original is absent."""
    chosen = {"all": np.ones(len(mode), dtype=np.bool_), **{each: mode == each for each in sorted(set(mode.tolist()))}}
    chosen["original absent"] = ~said.there
    return "\n".join(
        table(f"{name}: {what}", Answers(said.probability[at], said.right[at], said.there[at]))
        for what, at in chosen.items()
        if at.any()
    )


def some_of(cases: Cases, chosen: NDArray[np.bool_]) -> Cases:
    """The chosen cases."""
    at = np.flatnonzero(chosen)
    groups, folders = [cases.groups[each] for each in at], [cases.folders[each] for each in at]
    return Cases(groups, folders, cases.truth[at], cases.mode[at], cases.sets[at])


def joined(parts: Sequence[Cases]) -> Cases:
    """All cases of some files."""
    groups, folders = ([each for part in parts for each in getattr(part, name)] for name in ("groups", "folders"))
    truth, mode, sets = (np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "mode", "sets"))
    return Cases(groups, folders, truth, mode, sets)


def across(cases: Cases, units: int, decay: float, temperature: float) -> tuple[Answers, NDArray[np.str_]]:
    """Answers on sets that the weights have not seen, one part of `FOLDS` after the other."""
    said, mode = [], []
    for fold in range(FOLDS):
        held = cases.sets % FOLDS == fold
        picker = replace(fit(some_of(cases, ~held), units, decay), temperature=temperature)
        said.append(answers(picker, some_of(cases, held)))
        mode.append(cases.mode[held])
    parts = (np.concatenate([getattr(each, name) for each in said]) for name in ("probability", "right", "there"))
    return Answers(*parts), np.concatenate(mode)


def fit_and_report(
    files: Sequence[Path], reported: Sequence[Path], units: int, decay: float, temperature: float
) -> None:
    """Write the weights; print what they say of sets that they have not seen."""
    cases = joined([read_cases(file) for file in files])
    print("| cases | groups | right, always naming | named | right where named |\n|---|---|---|---|---|")
    print(report("other sets", *across(cases, units, decay, temperature)), flush=True)
    picker = replace(fit(cases, units, decay), temperature=temperature)
    WEIGHTS.write_text(json.dumps(picker.to_dict(), indent=1) + "\n", encoding="utf-8")
    for file in reported:
        held = read_cases(file)
        print(report(file.stem, answers(picker, held), held.mode), flush=True)


def main() -> None:
    """Make cues, or fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    making = commands.add_parser("make", help="cues of groups of known making")
    making.add_argument("pool", type=Path, help="one half of the pool")
    making.add_argument("target", type=Path, help=".npz to write")
    making.add_argument("--sets", type=int, default=200)
    making.add_argument("--seed", type=int, default=1)
    making.add_argument("--processes", type=int, default=2)
    making.add_argument("--pipelines", choices=("seen", "held out"), default="seen")
    fitting = commands.add_parser("fit", help="fit the weights and report")
    fitting.add_argument("cues", type=Path, nargs="+", help=".npz to fit on")
    fitting.add_argument("--report", type=Path, nargs="*", default=[], help=".npz to report on")
    fitting.add_argument("--units", type=int, default=TANH_UNITS)
    fitting.add_argument("--decay", type=float, default=DECAY)
    fitting.add_argument("--temperature", type=float, default=TEMPERATURE)
    args = parser.parse_args()
    if args.command == "fit":
        fit_and_report(args.cues, args.report, args.units, args.decay, args.temperature)
    if args.command == "make":
        held_out = args.pipelines == "held out"
        names = [name for name in AUGMENTATIONS if (name in _HELD_OUT) == held_out]
        make(args.pool, args.target, args.sets, args.seed, args.processes, names)


if __name__ == "__main__":
    main()
