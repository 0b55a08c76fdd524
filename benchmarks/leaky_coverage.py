"""Does the interval that `search` prints hold, on folders full of copies under names that say nothing?

    uv sync --group benchmarks
    python benchmarks/leaky_coverage.py /usr/share/datasets/fashion-mnist --sets 10 --budget 40s --json coverage.json

Makes folders of Fashion-MNIST garments, 60 % of them with four augmented copies each, under random names; searches
each of them; and evaluates each model on thousands of other originals.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from leaky_sets.folder import TRUTH, Original, Plan, as_garment, read_truth, write_set

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from automl_vision.config import load_settings
from automl_vision.pipeline import evaluate, run_search
from automl_vision.report.predictions import Predictions
from automl_vision.run_dir import predictions_file
from fashion_holdout import write_holdout
from make_fashion import CLASS_NAMES, read_fashion


def garments(folder: Path, count: int, seed: int) -> list[Original]:
    """Originals of the ten classes, drawn from the train file."""
    images, labels = read_fashion(folder, "train")
    chosen = np.random.default_rng(seed).permutation(len(images))[:count].tolist()
    return [Original(f"fashion/{at:05d}", CLASS_NAMES[labels[at]], partial(as_garment, images[at])) for at in chosen]


def measure(fashion: Path, holdout: Path, scratch: Path, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One folder, one search, and what others say of its model."""
    folder = scratch / f"set{seed}"
    write_set(garments(fashion, args.originals, seed), folder, Plan(files=args.files, seed=seed))
    settings = load_settings(
        overrides={
            "data.lineage": "full",
            "search.budget": args.budget,
            "machine.cache": False,
            "machine.seed": seed,
            "output.fingerprint": False,
            "output.history": False,
        }
    )
    run = run_search(folder / "images", settings, out=scratch / f"run{seed}")
    test = run.report["test"]
    others = evaluate(run.model, holdout, settings).figures
    if others is None:
        raise RuntimeError("none of the other originals could be evaluated")
    truth = read_truth(folder / TRUTH)
    tested = Predictions.from_csv(run.path / predictions_file("test")).paths
    low, high = test["accuracy"]["low"], test["accuracy"]["high"]
    true = others["accuracy"]["value"]
    return {
        "seed": seed,
        "files": len(truth),
        "test_originals": len(tested),
        "copies_among_them": sum(truth[file].is_copy for file in tested),
        "accuracy": test["accuracy"]["value"],
        "interval": [low, high],
        "on_others": true,
        "covered": low <= true <= high,
    }


def main() -> None:
    """Make, search, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fashion", type=Path, help="folder of Debian's dataset-fashion-mnist")
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--originals", type=int, default=400)
    parser.add_argument("--others", type=int, default=3000, help="originals that each model is evaluated on")
    parser.add_argument("--files", default="mixed", help="how files are written, see leaky_sets.folder")
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        write_holdout(args.fashion, scratch / "others", count=args.others)
        for seed in range(args.sets):
            results.append(measure(args.fashion, scratch / "others", scratch, args, seed))
            print(json.dumps(results[-1]), flush=True)
    covered = sum(each["covered"] for each in results)
    print(f"the interval covers what {args.others:,} other originals say in {covered} of {len(results)} sets")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
