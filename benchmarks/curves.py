"""How much accuracy per hour the search's scheduler gets out of recorded trainings, beside simpler policies.

    python benchmarks/curves.py --curves DIR [--json OUT]

DIR is a folder of recorded fine-tunes, see `recorded_runs.py`. The scheduler of the search, with the prior that comes
with it, is driven through the runs of each data set as if it trained them, once, for 16 hours. Printed is the mean
normalised regret over the data sets, (best - so far) / (best - worst), at several times of that one run.

A data set that the prior was fitted to is judged by a prior that is fitted anew to the others of them. What an epoch
will take is estimated from other data sets, too, until it was seen. Random orders are averaged over `--seeds`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "fitting"))

from automl_vision.search.prior import Prior, recipe_prior  # noqa: E402
from automl_vision.search.scheduler import COST_WEIGHT, ETA, Candidate, Scheduler, rungs  # noqa: E402
from recipe_prior import COSTS, fit_costs, fit_quality  # noqa: E402
from recorded_runs import HORIZON, RecordedRun, RecordedSet, read_sets  # noqa: E402
from replay import Decider, PruneOnly, epoch_seconds, replay  # noqa: E402

Floats = NDArray[np.float64]

BUDGET_HOURS = (0.08, 0.16, 0.32, 0.8, 1.6, 3.2, 8.0, 16.0)
HOUR = 3600.0


@dataclass(frozen=True)
class Knowledge:
    """What is known of the runs of a data set before any of them is trained.

    Attributes:
        quality: the share of runs that a run is expected to beat.
        cost: logarithm of the seconds that an epoch is expected to take per image.
    """

    quality: Prior
    cost: Prior


@dataclass(frozen=True)
class Policy:
    """A way to search.

    Attributes:
        says: what it does, for the reader of the table.
        ladder: the rungs of a run.
        known_order: whether the prior orders the candidates; else chance does.
        cost_weight: see `Scheduler`.
        prunes: what is not promoted at once is lost.
        backbone: only runs whose backbone's name begins with it may be started.
    """

    says: str
    ladder: Callable[[RecordedRun], tuple[int, ...]]
    known_order: bool = True
    cost_weight: float = COST_WEIGHT
    prunes: bool = False
    backbone: str = ""

    def decider(self) -> Decider:
        """A fresh one."""
        scheduler = Scheduler(epoch_seconds, cost_weight=self.cost_weight if self.known_order else 0.0)
        return PruneOnly(scheduler) if self.prunes else scheduler

    def candidates(self, recorded: RecordedSet, known: Knowledge, rng: np.random.Generator) -> list[Candidate]:
        """The runs that may be started; where chance orders them, the expectation is drawn."""
        return [
            Candidate(
                key=run,
                rungs=self.ladder(run),
                expected=known.quality(run.traits) if self.known_order else rng.random(),
                epoch_seconds=recorded.images * math.exp(known.cost(run.traits)),
            )
            for run in recorded.runs
            if str(run.traits["backbone"]).startswith(self.backbone)
        ]


def ladder(run: RecordedRun) -> tuple[int, ...]:  # noqa: ARG001  # a ladder is chosen for a run
    """The same for all, as in a search, whose recipes share a warm-up: 2, 6, 18 and 50 epochs."""
    return rungs(HORIZON)


def ladder_after_warm_up(run: RecordedRun) -> tuple[int, ...]:
    """Each run's own: the recorded ones have 0, 5 or 10 epochs of warm-up."""
    return rungs(HORIZON, run.warm_up)


def ladder_from_one(run: RecordedRun) -> tuple[int, ...]:  # noqa: ARG001
    """Compared after the first epoch already."""
    return (*(ETA**power for power in range(4)), HORIZON)


def whole_runs(run: RecordedRun) -> tuple[int, ...]:  # noqa: ARG001
    """Never compared before the end."""
    return (HORIZON,)


POLICIES: dict[str, Policy] = {
    "ours": Policy("the search's scheduler and prior", ladder),
    "random": Policy("whole runs in random order", whole_runs, known_order=False),
    "random + prune-only": Policy("random order, without going back", ladder, known_order=False, prunes=True),
    "random + ASHA": Policy("random order, pause and resume", ladder, known_order=False),
    "prune-only": Policy("ours, but what is not promoted at once is lost", ladder, prunes=True),
    "first rung of 1 epoch": Policy("ours, but compared after 1, 3, 9 and 27 epochs", ladder_from_one),
    "rungs after own warm-up": Policy("ours, but each run has rungs of its own", ladder_after_warm_up),
    "whole runs": Policy("ours, but never compared before the end", whole_runs),
    "without cost": Policy("ours, but the order ignores cost", ladder, cost_weight=0.0),
    "convnext_small alone": Policy("ours, with one backbone", ladder, backbone="convnext_small"),
    "edgenext_small alone": Policy("ours, with one backbone", ladder, backbone="edgenext_small"),
}


def known_of(recorded: RecordedSet, sets: Sequence[RecordedSet]) -> Knowledge:
    """What comes with the search; fitted anew without `recorded` where it was fitted to it.

    Raises:
        ValueError: no other set that the prior was fitted to is among `sets`.
    """
    shipped = recipe_prior()
    if recorded.name not in shipped.sets:
        return Knowledge(shipped, Prior.from_dict(json.loads(COSTS.read_text("utf-8"))))
    others = [each for each in sets if each.name in shipped.sets and each.name != recorded.name]
    return Knowledge(fit_quality(others), fit_costs(others))


def regret_over_time(policy: Policy, recorded: RecordedSet, known: Knowledge, seed: int) -> Floats:
    """(B) normalised regret at each of `BUDGET_HOURS`; 1 before anything was validated."""
    candidates = policy.candidates(recorded, known, np.random.default_rng(seed))
    seconds, best = [0.0], [recorded.worst]
    for progress in replay(policy.decider(), candidates, BUDGET_HOURS[-1] * HOUR):
        seconds.append(progress.seconds)
        best.append(max(best[-1], 100 * progress.trial.epochs[-1].score))
    at = np.searchsorted(seconds, np.array(BUDGET_HOURS) * HOUR, side="right") - 1
    return np.array([recorded.regret(best[index]) for index in at])


def judge(policy: Policy, sets: Sequence[RecordedSet], known: dict[str, Knowledge], seeds: int) -> dict[str, Floats]:
    """Data set -> (B) normalised regret, averaged over random orders where there are any."""
    tries = range(1 if policy.known_order else seeds)
    return {
        each.name: np.mean([regret_over_time(policy, each, known[each.name], seed) for seed in tries], axis=0)
        for each in sets
    }


def main() -> None:
    """Judge every policy, write the figures, print the table."""
    args = _arguments()
    sets = read_sets(args.curves)
    known = {each.name: known_of(each, sets) for each in sets}
    results = {name: judge(policy, sets, known, args.seeds) for name, policy in POLICIES.items()}
    if args.json:
        args.json.write_text(json.dumps(_as_json(results), indent=1) + "\n", "utf-8")
    _print(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, help="folder of recorded runs")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seeds", type=int, default=20, help="random orders to average over")
    return parser.parse_args()


def _print(results: dict[str, dict[str, Floats]]) -> None:
    print("| mean normalised regret | " + " | ".join(f"{hours:g} h" for hours in BUDGET_HOURS) + " |")
    print("|---" * (len(BUDGET_HOURS) + 1) + "|")
    for name, by_set in results.items():
        means = np.mean(list(by_set.values()), axis=0)
        print(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    ours, rival = results["ours"], results["random + ASHA"]
    for index in (BUDGET_HOURS.index(0.8), len(BUDGET_HOURS) - 1):
        worse = [name for name in ours if ours[name][index] > rival[name][index]]
        names = ", ".join(worse)
        print(f"\nat {BUDGET_HOURS[index]:g} h worse than random + ASHA on {len(worse)} of {len(ours)}: {names}")
    print("\n| ours, by data set | " + " | ".join(f"{hours:g} h" for hours in BUDGET_HOURS) + " |")
    print("|---" * (len(BUDGET_HOURS) + 1) + "|")
    for name, figures in ours.items():
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")


def _as_json(results: dict[str, dict[str, Floats]]) -> dict[str, Any]:
    return {
        "budget_hours": list(BUDGET_HOURS),
        "policies": {
            name: {
                "says": POLICIES[name].says,
                "regret": np.mean(list(by_set.values()), axis=0).tolist(),
                "by_set": {each: figures.tolist() for each, figures in by_set.items()},
            }
            for name, by_set in results.items()
        },
    }


if __name__ == "__main__":
    main()
