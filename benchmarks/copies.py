"""How many augmented copies are found by what they show, how many strangers are taken for copies, and what leaks.

    uv sync --group benchmarks
    python benchmarks/copies.py pool/test --originals 300 --json copies.json
    python benchmarks/copies.py pool/test --originals 300 --copies 0
    python benchmarks/copies.py /usr/share/datasets/fashion-mnist --originals 200
    python benchmarks/copies.py pool/test --originals 300 --rivals pdq_8_turns cleanvision

Makes a folder of originals, 60 % of them with four copies each, see `leaky_sets.folder`; looks at it as
`data.lineage = "full"` does; and holds what it said against the truth. `leaky_sets/pictures.py` says where the
pictures come from. Other tools see the same folder and are judged by the same figures, see `leaky_sets.rivals`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from leaky_sets.folder import IMAGES, TRUTH, Made, add_arguments, originals_of, plan_of, read_truth, write_set
from leaky_sets.judging import Case, Verdict, figures
from leaky_sets.project import look
from leaky_sets.rivals import RIVALS, RivalFailed, ask
from leaky_sets.table import pairs_table, pipelines_table, summary_table
from leaky_sets.twins import read_judged


def main() -> None:
    """Make the set, look at it, print the figures."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.set or args.keep or Path(scratch) / "set"
        if not args.set:
            write_set(originals_of(args.pictures, args), folder, plan_of(args))
        truth = read_truth(folder / TRUTH)
        results = (
            {} if args.without_project else {"automl-vision": _judged(truth, *look(folder / IMAGES, args.threads))}
        )
        for name in args.rivals:
            results[name] = _rival(name, truth, folder / IMAGES)
    _print(results)
    if args.json:
        about = {
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
        }
        asked = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
        args.json.write_text(json.dumps({"about": about, "asked": asked, "results": results}, indent=1), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="?", help="one half of the pool, or the folder of Fashion-MNIST")
    parser.add_argument("--set", type=Path, help="a folder that leaky_sets.folder wrote, instead of a new one")
    parser.add_argument("--keep", type=Path, help="write the set here and keep it")
    add_arguments(parser)
    parser.add_argument("--threads", type=int, default=0, help="of the project (default: what it takes by itself)")
    parser.add_argument(
        "--rivals", nargs="*", default=(), choices=tuple(RIVALS), metavar="TOOL", help=", ".join(RIVALS)
    )
    parser.add_argument("--without-project", action="store_true", help="the other tools alone")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    if (args.pictures is None) == (args.set is None):
        parser.error("give the pictures, or --set")
    return args


def _judged(truth: dict[str, Made], said: Verdict, costs: dict[str, Any]) -> dict[str, Any]:
    return {**figures(Case(truth, said, read_judged())), "costs": costs}


def _rival(name: str, truth: dict[str, Made], images: Path) -> dict[str, Any]:
    """Its figures, or why there are none."""
    try:
        return _judged(truth, *ask(name, list(truth), images))
    except RivalFailed as failed:
        return {"failed": str(failed)}


def _print(results: dict[str, dict[str, Any]]) -> None:
    told = {name: result for name, result in results.items() if "failed" not in result}
    print(summary_table(told))
    for name, result in told.items():
        print(f"\n{name}\n")
        print(pipelines_table(result))
        print(pairs_table(result))
    for name in results.keys() - told.keys():
        print(f"{name}: no figures. {results[name]['failed']}")


if __name__ == "__main__":
    main()
