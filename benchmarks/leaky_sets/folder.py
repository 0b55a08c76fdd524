"""A folder of originals and copies, and what is true of it.

    python -m leaky_sets.folder pool/test set --originals 300 --naming random --files jpeg    # in the folder benchmarks

writes `set/images/<class>/...`, which is what a tool is given, and `set/truth.csv`, which it never sees. The same
arguments and the same versions of the libraries give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leaky_sets.naming import NAMINGS
from leaky_sets.pictures import read_pool
from leaky_sets.pipeline import Picture, Pipeline, Rng
from leaky_sets.pipelines import PIPELINES, chosen_pipelines
from leaky_sets.twins import Judged, kin, read_judged

#: Share of the originals that have copies, and how many each of them has.
AUGMENTED, COPIES = 0.6, 4
TRUTH = "truth.csv"
IMAGES = "images"
#: Source of the pool -> class; what is not here is mostly photographs.
_CLASS = {"clipart": "drawing", "stamps": "drawing", "portraits": "painting", "sky": "sky"}
_OTHER = "photograph"
#: Fashion-MNIST's labels of what is worn on the body; the rest are shoes and bags.
_CLOTHES = (0, 1, 2, 3, 4, 6)


@dataclass(frozen=True)
class Original:
    """A picture, before anything was made of it.

    Attributes:
        source: says which, for good: its path in the pool, or its number in Fashion-MNIST.
        label: its class.
        read: its pixels, RGB.
    """

    source: str
    label: str
    read: Callable[[], Picture]


@dataclass(frozen=True)
class Made:
    """What is true of one file.

    Attributes:
        file: path below the folder of images.
        source: of the original that it shows.
        pipeline: name of what made it; empty for originals.
    """

    file: str
    source: str
    pipeline: str = ""

    @property
    def is_copy(self) -> bool:
        """False for originals."""
        return bool(self.pipeline)


@dataclass(frozen=True)
class Plan:
    """What to make.

    Attributes:
        copies: of each original that has any; 0 makes a set without copies.
        augmented: share of the originals that have copies.
        naming: a row of `NAMINGS`.
        files: a row of `FILES`.
        libraries: whose pipelines are drawn from; empty for all.
        seed: of everything.
    """

    copies: int = COPIES
    augmented: float = AUGMENTED
    naming: str = "random"
    files: str = "jpeg"
    libraries: tuple[str, ...] = ()
    seed: int = 0


#: (generator, is it a copy) -> suffix, and what Pillow is told when it saves.
Format = Callable[[Rng, bool], tuple[str, dict[str, Any]]]


def _jpeg(rng: Rng, is_copy: bool) -> tuple[str, dict[str, Any]]:
    """Originals as a camera leaves them, copies with the usual defaults of libraries."""
    return ".jpg", {"quality": int(rng.choice([75, 85, 90, 95]))} if is_copy else {"quality": 95, "subsampling": 0}


def _png(_rng: Rng, _is_copy: bool) -> tuple[str, dict[str, Any]]:
    return ".png", {"compress_level": 3}


def _mixed(rng: Rng, _is_copy: bool) -> tuple[str, dict[str, Any]]:
    """Either, whatever it is."""
    return _png(rng, True) if rng.random() < 0.5 else _jpeg(rng, True)


#: "jpeg": the file tells originals from copies; "png": it says nothing; "mixed": it says nothing, and is of two kinds.
FILES: dict[str, Format] = {"jpeg": _jpeg, "png": _png, "mixed": _mixed}


def pool_originals(half: Path, count: int, seed: int = 0, sources: tuple[str, ...] = ()) -> list[Original]:
    """Pictures of one half of the pool."""
    return [
        Original(
            str(file.relative_to(half)),
            _CLASS.get(file.relative_to(half).parts[0], _OTHER),
            partial(_open, file),
        )
        for file in read_pool(half, count, seed, sources)
    ]


def one_of_kin(originals: Iterable[Original], judged: Judged) -> list[Original]:
    """The first of all that were judged to show the same or to share a part: nothing that is left belongs together."""
    originals = list(originals)
    family = kin((each.source for each in originals), judged.twins + judged.parts)
    first: dict[str, Original] = {}
    for each in originals:
        first.setdefault(family[each.source], each)
    return list(first.values())


def fashion_originals(folder: Path, count: int, seed: int = 0) -> list[Original]:
    """Garments of 28 px."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
    from make_fashion import read_fashion

    images, labels = read_fashion(folder, "t10k")
    chosen = np.random.default_rng(seed).permutation(len(images))[:count].tolist()
    return [
        Original(
            f"fashion/{at:05d}",
            "clothes" if labels[at] in _CLOTHES else "accessories",
            partial(as_garment, images[at]),
        )
        for at in chosen
    ]


def write_set(originals: Sequence[Original], out: Path, plan: Plan) -> list[Made]:
    """Write `out/images` and `out/truth.csv`; what was made.

    Raises:
        ModuleNotFoundError: a library is missing whose pipelines are to be used.
        FileExistsError: there is something at `out` already.
    """
    pipelines = chosen_pipelines(plan.libraries) if plan.copies else ()
    out.mkdir(parents=True)
    rng = np.random.default_rng(plan.seed)
    augmented = set(rng.permutation(len(originals))[: round(plan.augmented * len(originals))].tolist())
    drawn = _deal(pipelines, rng)
    made: list[Made] = []
    for number, original in enumerate(originals):
        # A generator of its own: what one picture's copies draw does not change the next one's.
        own = np.random.default_rng([plan.seed, number])
        chosen = [next(drawn) for _ in range(plan.copies)] if number in augmented else []
        made += _write_family(original, chosen, out / IMAGES, plan, own)
    write_truth(made, out / TRUTH)
    return made


def write_truth(made: Sequence[Made], file: Path) -> None:
    """As CSV, in the order of the paths."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        rows = csv.writer(opened)
        rows.writerow(["file", "source", "pipeline", "is_copy"])
        rows.writerows([m.file, m.source, m.pipeline, int(m.is_copy)] for m in sorted(made, key=lambda m: m.file))


def read_truth(file: Path) -> dict[str, Made]:
    """Path below the folder of images -> what is true of it."""
    with file.open(newline="", encoding="utf-8") as opened:
        return {row["file"]: Made(row["file"], row["source"], row["pipeline"]) for row in csv.DictReader(opened)}


def _deal(pipelines: Sequence[Pipeline], rng: Rng) -> Iterator[Pipeline]:
    """Every pipeline equally often, in random order: decks are shuffled one after the other."""
    while pipelines:
        for at in rng.permutation(len(pipelines)).tolist():
            yield pipelines[at]


def _write_family(original: Original, chosen: list[Pipeline], images: Path, plan: Plan, rng: Rng) -> list[Made]:
    naming, form = NAMINGS[plan.naming], FILES[plan.files]
    picture = original.read()
    suffix, options = form(rng, False)
    first = naming.original(original.label, _stem(original.source), suffix, rng)
    _save(picture, images / first, options)
    made = [Made(first, original.source)]
    for number, pipeline in enumerate(chosen, start=1):
        suffix, options = form(rng, True)
        name = naming.copy(PurePosixPath(first), number, pipeline, suffix, rng)
        _save(pipeline.change(picture, rng), images / name, options)
        made.append(Made(name, original.source, pipeline.name))
    return made


def _stem(source: str) -> str:
    """The picture's own name, with what tells it from the same name in another folder."""
    return re.sub(r"[^\w\-]+", "_", source.rsplit(".", 1)[0]).replace("--", "-")


def _save(picture: Picture, file: Path, options: dict[str, Any]) -> None:
    if file.exists():
        raise FileExistsError(f"two pictures of one name: {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, **options)


def _open(file: Path) -> Picture:
    with Image.open(file, formats=("JPEG", "PNG")) as opened:
        return opened.convert("RGB")


def as_garment(pixels: NDArray[np.uint8]) -> Picture:
    return Image.fromarray(np.asarray(pixels)).convert("RGB")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what to make, but for the pictures."""
    parser.add_argument("--originals", type=int, default=300, help="how many (default 300; 0: all)")
    parser.add_argument("--copies", type=int, default=COPIES, help="of each original that has any; 0: originals alone")
    parser.add_argument("--augmented", type=float, default=AUGMENTED, help="share of the originals that have copies")
    parser.add_argument("--naming", choices=tuple(NAMINGS), default="random")
    parser.add_argument("--files", choices=tuple(FILES), default="jpeg")
    parser.add_argument("--libraries", nargs="*", default=(), help="whose pipelines (default: all)")
    parser.add_argument("--sources", nargs="*", default=(), help="kinds of pictures of the pool (default: all)")
    parser.add_argument(
        "--one-of-kin",
        action="store_true",
        help="no two pictures of the pool that were judged to be the same or to share",
    )
    parser.add_argument("--seed", type=int, default=0)


def plan_of(args: argparse.Namespace) -> Plan:
    """What `add_arguments` read."""
    return Plan(args.copies, args.augmented, args.naming, args.files, tuple(args.libraries), args.seed)


def originals_of(pictures: Path, args: argparse.Namespace) -> list[Original]:
    """From one half of the pool, or from the folder of Fashion-MNIST."""
    if any(pictures.glob("*-ubyte.gz")):
        return fashion_originals(pictures, args.originals, args.seed)
    if not args.one_of_kin:
        return pool_originals(pictures, args.originals, args.seed, tuple(args.sources))
    alone = one_of_kin(pool_originals(pictures, 0, args.seed, tuple(args.sources)), read_judged())
    return alone[: args.originals or len(alone)]


def main() -> None:
    """Write a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="one half of the pool, or the folder of Fashion-MNIST")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    add_arguments(parser)
    args = parser.parse_args()
    made = write_set(originals_of(args.pictures, args), args.out, plan_of(args))
    kinds = [PIPELINES[each.pipeline].kind for each in made if each.is_copy]
    print(
        f"{len(made) - len(kinds):,} originals, {kinds.count('single'):,} copies by one operation, "
        f"{kinds.count('chain'):,} by chains under {args.out}"
    )


if __name__ == "__main__":
    main()
