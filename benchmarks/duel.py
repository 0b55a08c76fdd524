"""The search beside published recipes and plain Optuna: same images, same weights, same wall-clock budget.

    python benchmarks/duel.py --seeds 5 --json duel.json
    python benchmarks/duel.py --sets fashion --sizes 200 --budgets 60 --arms ours fastai --seeds 2 --json duel.json

Every arm is a process of its own that is given a folder of training images and a budget that covers its start-up; a
second process looks at the test images, once. `ours` is the command line; what needs validation images takes them from
the training images. A result that is in the JSON file already is not measured again, so a broken-off run goes on. The
arms take turns on every data set, so that what else the machine does hits all of them.

`autogluon_installed` is not among the arms unless asked for: `AUTOGLUON_PYTHON` names the Python of an environment of
its own (benchmarks/installed_autogluon.py says how it is made).

With `--clock cpu` budgets are CPU seconds (benchmarks/cpu_clock.py): for machines with other work, to compare arms.

An arm that leaves no model is counted as guessing. A difference is paired: same data set, size, budget, seed. Its
interval is a bootstrap over (data set, seed).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from duel_sets import POOLS, Folders, write_folders
from hub_cache import lay_out
from rival_recipes import RECIPES
from stages import machine
from timed_process import Ended, run_timed

HERE = Path(__file__).resolve().parent
BACKBONE = "efficientnet_lite0"
BUDGETS = (20.0, 60.0, 600.0)
SIZES = (60, 200, 600, 1_000)
#: An arm is killed when it takes this many times its budget and a minute.
PATIENCE = 3.0
#: name -> the program that runs an arm on that clock.
CLOCKS: dict[str, tuple[str, ...]] = {"wall": (), "cpu": (str(HERE / "cpu_clock.py"),)}
RESAMPLES = 2_000
OURS = "ours"
#: Recipes that others published, and what the name of an arm ends with where they keep the statistics of batch norm, as
#: ours do: is it that alone?
PUBLISHED, FROZEN_NORM = ("fastai", "autogluon", "bit"), "_frozen_norm"
#: The arm that needs more than this project's environment, and the variable that names the Python it runs by.
INSTALLED, AUTOGLUON_PYTHON = "autogluon_installed", "AUTOGLUON_PYTHON"


@dataclass(frozen=True)
class Cell:
    """What the arms compete on: `size` training images from `images`, drawn with `seed`, and `budget` seconds."""

    images: str
    size: int
    budget: float
    seed: int


@dataclass(frozen=True)
class Result:
    """What one arm came to in one cell.

    Attributes:
        images, size, budget, seed: the cell.
        arm: a name of `ARMS`.
        accuracy: on the test images; that of guessing where there is no model.
        n: number of test images.
        seconds: of the process that trained, on the clock that the budget is counted by.
        wall_seconds, cpu_seconds: of the same.
        load: of the machine, one-minute average, when it began.
        about: what the arm says of itself; "error" where it left no model.
    """

    images: str
    size: int
    budget: float
    seed: int
    arm: str
    accuracy: float
    n: int
    seconds: float
    wall_seconds: float
    cpu_seconds: float
    load: float
    about: dict[str, Any]

    @property
    def cell(self) -> Cell:
        """Where it was measured."""
        return Cell(self.images, self.size, self.budget, self.seed)


@dataclass(frozen=True)
class Job:
    """One arm in one cell: where its images are, and an empty folder for what it leaves."""

    folders: Folders
    cell: Cell
    device: str
    out: Path
    clock: str = "wall"


@dataclass(frozen=True)
class Arm:
    """One competitor.

    Attributes:
        train: the command that leaves a model within the budget.
        test: the command that prints the model's accuracy on the test images as JSON.
        figures: what `test` printed -> accuracy and number of images.
        about: what there is to say of the training, from its job and its end.
    """

    train: Callable[[Job], list[str]]
    test: Callable[[Job], list[str]]
    figures: Callable[[dict[str, Any]], tuple[float, int]]
    about: Callable[[Job, Ended], dict[str, Any]]


def _ours(*program: str, training: str = "") -> Arm:
    """The command line, or what calls it, with lines for the `[training]` table of its settings."""

    def train(job: Job) -> list[str]:
        config = job.out / "settings.toml"
        config.write_text(f"[training]\n{training}\n", "utf-8")
        options = ["--data", job.folders.data, "--config", config, "--out", job.out / "run", "--quiet"]
        options += ["--budget", f"{job.cell.budget:g}s", "--backbones", BACKBONE, "--device", job.device]
        options += ["--seed", job.cell.seed, "--cache-dir", job.out / "cache"]
        return [*_python(job, program or ("-m", "automl_vision")), "search", *map(str, options)]

    def test(job: Job) -> list[str]:
        options = ["--data", job.folders.others, "--include-seen", "--json", "--device", job.device]
        return [sys.executable, "-m", "automl_vision", "evaluate", *map(str, [job.out / "run" / "model.pt", *options])]

    def figures(said: dict[str, Any]) -> tuple[float, int]:
        return float(said["accuracy"]["value"]), int(said["n"])

    return Arm(train, test, figures, _about_run)


def _about_run(job: Job, _ended: Ended) -> dict[str, Any]:
    run = job.out / "run"
    report = json.loads((run / "report.json").read_text("utf-8"))
    records = [json.loads(file.read_text("utf-8")) for file in sorted((run / "trials").glob("*.json"))]
    with (run / "split.csv").open(encoding="utf-8") as table:
        sets = Counter(row["split"] for row in csv.DictReader(table))
    return {
        "sets": dict(sets),
        "stop_reason": report["stop_reason"],
        "seconds": report["seconds"],
        "trials": [_trial_line(each) for each in records],
    }


def _trial_line(record: dict[str, Any]) -> dict[str, Any]:
    """What tells a reader why a search came to what it did."""
    recipe = record["recipe"]
    told = {key: record[key] for key in ("origin", "state", "score", "seconds", "seconds_per_image")}
    told |= {key: recipe[key] for key in ("epochs", "learning_rate", "layer_decay", "augment", "optimizer")}
    return told | {"scores": [epoch["score"] for epoch in record["epochs"]]}


def _rival(name: str, *more: str) -> Arm:
    def train(job: Job) -> list[str]:
        options = ["--data", job.folders.data / "train", "--out", job.out / "model.pt", "--budget", job.cell.budget]
        options += ["--seed", job.cell.seed, "--device", job.device]
        return [*_python(job, (str(HERE / "run_rival.py"),)), "train", name, *map(str, options), *more]

    def test(job: Job) -> list[str]:
        options = [job.out / "model.pt", "--data", job.folders.others, "--device", job.device]
        return [sys.executable, str(HERE / "run_rival.py"), "test", *map(str, options)]

    return Arm(train, test, _said_accuracy, _said_about)


def _said_accuracy(said: dict[str, Any]) -> tuple[float, int]:
    return float(said["accuracy"]), int(said["n"])


def _said_about(_job: Job, ended: Ended) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ended.out)
    return told


def _python(job: Job, program: Sequence[str]) -> list[str]:
    return [sys.executable, *CLOCKS[job.clock], *program]


def _installed_autogluon() -> Arm:
    """The program itself, run by a Python that has it; the weights lie where it looks for a download."""
    program = str(HERE / "installed_autogluon.py")

    def train(job: Job) -> list[str]:
        hub, out = job.out / "hub", job.out / "model"
        lay_out(hub, BACKBONE)
        options = ["--data", job.folders.data / "train", "--hub", hub, "--out", out]
        options += ["--budget", job.cell.budget, "--seed", job.cell.seed, "--device", job.device]
        return [os.environ[AUTOGLUON_PYTHON], program, "train", *map(str, options)]

    def test(job: Job) -> list[str]:
        options = [job.out / "model", "--data", job.folders.others, "--device", job.device]
        return [os.environ[AUTOGLUON_PYTHON], program, "test", *map(str, options)]

    return Arm(train, test, _said_accuracy, _said_about)


_ABLATED = str(HERE / "ablations.py")
#: name -> competitor. What follows the rivals is ours with one part taken out.
ARMS: dict[str, Arm] = {
    OURS: _ours(),
    **{name: _rival(name) for name in RECIPES},
    **{f"{name}{FROZEN_NORM}": _rival(name, "--freeze-norm") for name in PUBLISHED},
    INSTALLED: _installed_autogluon(),
    "ours_no_probe": _ours(_ABLATED, "no_probe"),
    "ours_no_portfolio": _ours(_ABLATED, "no_portfolio"),
    "ours_prune_only": _ours(_ABLATED, "prune_only"),
    "ours_cosine_no_ema": _ours(training='schedule = "cosine"\nema = false'),
}


#: Those that are run unless others are asked for.
USUAL = [name for name in ARMS if name != INSTALLED and not name.endswith(FROZEN_NORM)]


def measure(name: str, job: Job, load: float) -> Result:
    """Train and test one arm in one cell."""
    arm, cell = ARMS[name], job.cell
    by_wall = job.clock == "wall"
    ended = run_timed(arm.train(job), kill_after=PATIENCE * cell.budget + 60 if by_wall else math.inf)
    if ended.code:
        guess = 1 / len(list(job.folders.others.iterdir()))
        accuracy, n = guess, len(list(job.folders.others.rglob("*.png")))
        about: dict[str, Any] = {"error": ended.err[-500:] or f"exit code {ended.code}"}
    else:
        tested = run_timed(arm.test(job), kill_after=math.inf)
        if tested.code:
            raise RuntimeError(
                f"the model of {name} could not be tested, exit code {tested.code}: {tested.err[-1000:]}"
            )
        accuracy, n = arm.figures(json.loads(tested.out))
        about = arm.about(job, ended)
    return Result(
        **asdict(cell),
        arm=name,
        accuracy=accuracy,
        n=n,
        seconds=round(ended.wall_seconds, 2) if by_wall else float(ended.err.split()[-1]),
        wall_seconds=round(ended.wall_seconds, 2),
        cpu_seconds=round(ended.cpu_seconds, 2),
        load=round(load, 2),
        about=about,
    )


def duel(
    cells: Sequence[Cell], arms: Sequence[str], known: Sequence[Result], *, test: int, device: str, clock: str
) -> Iterator[Result]:
    """Measure what is not known yet; each result is yielded as it comes."""
    done = {(each.cell, each.arm) for each in known}
    for turn, cell in enumerate(cells):
        waiting = [name for name in _rotated(arms, turn) if (cell, name) not in done]
        if not waiting:
            continue
        with tempfile.TemporaryDirectory() as made:
            pool = POOLS[cell.images]()
            folders = write_folders(pool, Path(made) / "set", size=cell.size, test=test, seed=cell.seed)
            for name in waiting:
                out = Path(made) / name
                out.mkdir()
                yield measure(name, Job(folders, cell, device, out, clock), os.getloadavg()[0])


def _rotated(arms: Sequence[str], by: int) -> list[str]:
    return [*arms[by % len(arms) :], *arms[: by % len(arms)]]


# --- what it comes to ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Ours less a rival: mean with 95 % interval over paired results, and how many were better, equal, worse."""

    mean: float
    low: float
    high: float
    better: int
    equal: int
    worse: int


def paired(results: Sequence[Result], rival: str, arm: str = OURS, seed: int = 0) -> Difference | None:
    """`arm` less `rival`, over the cells that both have; None where there are none.

    Differences below one standard error of the test count as equal. The bootstrap draws (data set, seed) with all of
    their sizes and budgets.
    """
    first, second = ({each.cell: each for each in results if each.arm == name} for name in (arm, rival))
    both = [(first[cell], second[cell]) for cell in first if cell in second]
    if not both:
        return None
    gaps = np.array([one.accuracy - other.accuracy for one, other in both])
    errors = np.array([math.sqrt(max(one.accuracy * (1 - one.accuracy), 1e-9) / one.n) for one, _ in both])
    unit = np.unique([f"{one.images} {one.seed}" for one, _ in both], return_inverse=True)[1]
    sums, counts = np.bincount(unit, weights=gaps), np.bincount(unit)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    better, worse = int((gaps >= errors).sum()), int((gaps <= -errors).sum())
    return Difference(float(gaps.mean()), float(low), float(high), better, len(gaps) - better - worse, worse)


def tables(results: Sequence[Result]) -> str:
    """Mean accuracies by cell, differences by budget and in all, and who kept to the budget, in Markdown."""
    arms = [name for name in ARMS if any(each.arm == name for each in results)]
    return "\n\n".join([_accuracies(results, arms), _differences(results, arms), _budgets(results, arms)])


def _accuracies(results: Sequence[Result], arms: Sequence[str]) -> str:
    lines = [f"| images, size, budget (seeds) | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    for images, size, budget in sorted({(each.images, each.size, each.budget) for each in results}):
        here = [each for each in results if (each.images, each.size, each.budget) == (images, size, budget)]
        seeds = len({each.seed for each in here})
        means = [_mean([each.accuracy for each in here if each.arm == name]) for name in arms]
        lines.append(f"| {images} {size}, {budget:g} s ({seeds}) | {' | '.join(means)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else ""


def _differences(results: Sequence[Result], arms: Sequence[str]) -> str:
    budgets = sorted({each.budget for each in results})
    parts = {f"{budget:g} s": [each for each in results if each.budget == budget] for budget in budgets}
    parts["all"] = list(results)
    lines = [f"| ours less | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    for name in [each for each in arms if each != OURS]:
        told = [_told(paired(part, name)) for part in parts.values()]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines)


def _told(difference: Difference | None) -> str:
    if difference is None:
        return ""
    counts = f"{difference.better} better, {difference.equal} equal, {difference.worse} worse"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]; {counts}"


def _budgets(results: Sequence[Result], arms: Sequence[str]) -> str:
    lines = ["| arm | n | most over the budget, s | without a model | CPU seconds per second |", "|---" * 5 + "|"]
    for name in arms:
        mine = [each for each in results if each.arm == name]
        over = max(each.seconds - each.budget for each in mine)
        failed = sum("error" in each.about for each in mine)
        cores = sum(each.cpu_seconds for each in mine) / sum(each.wall_seconds for each in mine)
        lines.append(f"| {name} | {len(mine)} | {over:+.1f} | {failed} | {cores:.2f} |")
    return "\n".join(lines)


# --- command line ----------------------------------------------------------------------------------------------------


def read_results(file: Path) -> list[Result]:
    """What was measured before; nothing where there is no file."""
    if not file.exists():
        return []
    return [Result(**each) for each in json.loads(file.read_text("utf-8"))["results"]]


def _write(file: Path, about: dict[str, Any], results: Sequence[Result]) -> None:
    content = {"machine": about, "results": [asdict(each) for each in results]}
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    unfinished.replace(file)


def _cell(text: str) -> tuple[str, int]:
    """`fashion:200` as images and size."""
    images, _, size = text.partition(":")
    if images not in POOLS or not size.isdecimal():
        raise argparse.ArgumentTypeError(f"a cell is like fashion:200, of {', '.join(POOLS)}; got {text!r}")
    return images, int(size)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [(images, size) for images in POOLS for size in SIZES]
    parser.add_argument("--cells", type=_cell, nargs="+", default=everything, help="like fashion:200 digits:60")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="seconds")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=USUAL)
    parser.add_argument("--test", type=int, default=2_000, help="test images at most (digits has 1,797 in all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what the budgets are counted by")
    parser.add_argument("--json", type=Path, required=True, help="results; what is there already is kept")
    options = parser.parse_args(arguments)
    if INSTALLED in options.arms and (options.clock != "wall" or AUTOGLUON_PYTHON not in os.environ):
        parser.error(f"{INSTALLED} needs the wall clock, and {AUTOGLUON_PYTHON} set to a Python that has AutoGluon")
    results = read_results(options.json)
    settings = {"test": options.test, "device": options.device, "clock": options.clock}
    about = machine() | settings
    cells = [
        Cell(images, size, budget, seed)
        for seed in range(options.seeds)
        for budget in options.budgets
        for images, size in options.cells
    ]
    for result in duel(cells, options.arms, results, **settings):
        results.append(result)
        _write(options.json, about, results)
        line = f"{result.cell} {result.arm}: {result.accuracy:.3f} of {result.n}, {result.seconds} s"
        print(f"{line}{' NO MODEL' if 'error' in result.about else ''}", file=sys.stderr, flush=True)
    print(tables(results))


if __name__ == "__main__":
    main()
