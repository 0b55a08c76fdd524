"""Fits what recipes are expected to be worth (src/automl_vision/search/recipe_prior.json), and what recorded runs cost.

    python fitting/recipe_prior.py --curves DIR [--history ~/.local/state/automl-vision/history.jsonl]

Ridge regression on indicator columns: every effect is a mean over the recorded runs that is shrunken towards 0, the
more the fewer runs it rests on, and each is adjusted for all others. The target is the share of runs of the same data
set that a run beat, so that no data set counts more because its accuracies are spread wider. `--curves` is a folder as
described in `benchmarks/recorded_runs.py`; `--history` adds the fine-tunes of this machine, each run as a set of its
own. What recorded runs cost (benchmarks/recorded_costs.json) is fitted the same way, to the logarithm of seconds per
image; only the benchmark needs it, a search measures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from automl_vision.models.backbones import STAGES  # noqa: E402
from automl_vision.search.history_file import RungRecord, read_history  # noqa: E402
from automl_vision.search.prior import (  # noqa: E402
    ADAPTIVE,
    Curve,
    Effect,
    Levels,
    Prior,
    Trait,
    Traits,
    rate_at_reference,
)
from recorded_runs import FEWEST_EPOCHS, RecordedRun, RecordedSet, read_sets  # noqa: E402

PRIOR = REPOSITORY / "src/automl_vision/search/recipe_prior.json"
COSTS = REPOSITORY / "benchmarks/recorded_costs.json"

Floats = NDArray[np.float64]
PLAIN = ("momentum", "sgd")
RATES = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
BATCHES = (2.0, 8.0, 32.0, 128.0, 512.0)


@dataclass(frozen=True)
class Shrunken:
    """An effect to fit.

    Attributes:
        effect: its trait, its knots and where it counts; the effects themselves are filled in.
        runs: how many runs the belief weighs as much as that there is no effect.
    """

    effect: Levels | Curve
    runs: float


#: What decides how good a run becomes.
QUALITY = (
    Shrunken(Curve("imagenet_top1", (66.0, 89.0), ()), 3),
    Shrunken(Levels("backbone", {}), 100),
    Shrunken(Levels("optimizer", {}), 30),
    Shrunken(Curve("learning_rate", RATES, (), log=True, when={"optimizer": ADAPTIVE}), 30),
    Shrunken(Curve("learning_rate", RATES, (), log=True, when={"optimizer": PLAIN}), 30),
    Shrunken(Curve("weight_decay", (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), (), log=True), 30),
    Shrunken(Curve("dropout", (0.0, 0.1, 0.2, 0.3, 0.4), ()), 30),
    Shrunken(Curve("frozen_share", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), ()), 30),
    Shrunken(Levels("stochastic_norm", {}), 30),
)
#: What decides how long an epoch takes, per image.
COST = (
    Shrunken(Curve("gmacs", (0.25, 500.0), (), log=True), 0.1),
    Shrunken(Levels("backbone", {}), 1),
    *(Shrunken(Curve("batch_size", BATCHES, (), log=True, when={"size": (size,)}), 1) for size in ("small", "large")),
    *(Shrunken(Levels("mixed_precision", {}, when={"size": (size,)}), 1) for size in ("small", "large")),
    Shrunken(Levels("optimizer", {}), 1),
    Shrunken(Curve("frozen_share", (0.0, 1.0), ()), 1),
    Shrunken(Levels("stochastic_norm", {}), 1),
)


def fit_quality(sets: Sequence[RecordedSet]) -> Prior:
    """The share of runs that a run is expected to beat."""
    return fit(sets, QUALITY, share_beaten)


def fit_costs(sets: Sequence[RecordedSet]) -> Prior:
    """The natural logarithm of the seconds that an epoch is expected to take per image."""
    return fit(sets, COST, log_seconds_per_image)


def history_sets(records: Sequence[RungRecord]) -> tuple[RecordedSet, ...]:
    """The fine-tunes of a history from pretrained weights, each run a set; runs of a single fine-tune say nothing."""
    by_run: dict[str, dict[int, list[RungRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.kind == "finetune" and record.recipe["pretrained"] and record.epoch >= FEWEST_EPOCHS:
            by_run[record.run][record.trial].append(record)
    return tuple(
        RecordedSet(
            name=f"history {run}",
            images=int(next(iter(trials.values()))[0].data["n_train"]),
            runs=tuple(_recorded_run(number, lines) for number, lines in sorted(trials.items())),
        )
        for run, trials in by_run.items()
        if len(trials) > 1
    )


def _recorded_run(number: int, lines: Sequence[RungRecord]) -> RecordedRun:
    last = max(lines, key=lambda record: record.epoch)
    recipe, top1 = last.recipe, last.backbone["imagenet_top1"]
    batch = float(recipe["batch_size"] * recipe["gradient_accumulation"])
    known: dict[str, Trait] = {} if top1 is None else {"imagenet_top1": top1}
    traits: dict[str, Trait] = {
        **known,
        "backbone": recipe["backbone"],
        "optimizer": recipe["optimizer"],
        "learning_rate": rate_at_reference(recipe["learning_rate"], batch, recipe["optimizer"]),
        "weight_decay": recipe["weight_decay"],
        "dropout": 0.0,
        "stochastic_norm": "no",
        "frozen_share": recipe.get("freeze_stages", 0) / STAGES,
    }
    scores = np.array([100 * record.score for record in sorted(lines, key=lambda record: record.epoch)])
    return RecordedRun(str(number), traits, 0, scores, np.full(len(scores), last.seconds / last.epoch))


def share_beaten(recorded: RecordedSet) -> Floats:
    """(R) share of the other runs of the set that each run beats, in [0, 1]; a tie counts half."""
    best = np.array([run.best for run in recorded.runs])
    beaten = (best[:, None] > best).sum(1) + 0.5 * ((best[:, None] == best).sum(1) - 1)
    return np.asarray(beaten / (len(best) - 1), dtype=np.float64)


def log_seconds_per_image(recorded: RecordedSet) -> Floats:
    """(R) logarithm of the median epoch's seconds per image of the data set."""
    return np.array([math.log(np.median(run.seconds) / recorded.images) for run in recorded.runs])


def fit(sets: Sequence[RecordedSet], wanted: Sequence[Shrunken], target: Callable[[RecordedSet], Floats]) -> Prior:
    """Ridge regression of `target` on the effects that are wanted.

    Raises:
        ValueError: there is nothing to fit to.
    """
    if not sets:
        raise ValueError("a prior needs at least one recorded set")
    traits = [run.traits for recorded in sets for run in recorded.runs]
    y = np.concatenate([target(recorded) for recorded in sets])
    blank = [replace(each, effect=_with_names(each.effect, traits)) for each in wanted]
    blocks = [_columns(each.effect, traits) for each in blank]
    X, centre = np.concatenate(blocks, axis=1), np.concatenate(blocks, axis=1).mean(0)
    penalties = np.repeat([each.runs for each in blank], [block.shape[1] for block in blocks])
    weights = np.linalg.solve((X - centre).T @ (X - centre) + np.diag(penalties), (X - centre).T @ (y - y.mean()))
    ends = np.cumsum([block.shape[1] for block in blocks])[:-1]
    effects = [_filled(each.effect, part) for each, part in zip(blank, np.split(weights, ends), strict=True)]
    return Prior(
        fitted=f"fitting/recipe_prior.py, {len(traits)} recorded runs",
        sets=tuple(recorded.name for recorded in sets),
        base=round(float(y.mean() - centre @ weights), 4),
        effects=tuple(effects),
    )


def _with_names(effect: Levels | Curve, traits: Sequence[Traits]) -> Levels | Curve:
    if isinstance(effect, Curve):
        return effect
    return replace(effect, effects=dict.fromkeys(sorted({str(each[effect.trait]) for each in traits}), 0.0))


def _columns(effect: Levels | Curve, traits: Sequence[Traits]) -> Floats:
    """(R, K) how much of each of its K numbers an effect adds for each run."""
    size = len(effect.effects) if isinstance(effect, Levels) else len(effect.knots)
    units = [_filled(effect, unit) for unit in np.eye(size)]
    return np.array([[unit(each) for unit in units] for each in traits])


def _filled(effect: Levels | Curve, numbers: Floats) -> Effect:
    rounded = [round(float(number), 4) for number in numbers]
    if isinstance(effect, Curve):
        return replace(effect, effects=tuple(rounded))
    return replace(effect, effects=dict(zip(effect.effects, rounded, strict=True)))


def main() -> None:
    """Fit both to all sets of a folder and write them where they belong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, help="folder of recorded runs")
    parser.add_argument("--history", type=Path, help="history.jsonl of this machine, for what recipes are worth")
    given = parser.parse_args()
    sets = read_sets(given.curves)
    here = history_sets(read_history(given.history)) if given.history else ()
    for file, prior in ((PRIOR, fit_quality([*sets, *here])), (COSTS, fit_costs(sets))):
        file.write_text(json.dumps(prior.to_dict(), indent=1) + "\n", "utf-8")
        print(f"{file.relative_to(REPOSITORY)}: {prior.fitted} on {', '.join(prior.sets)}")


if __name__ == "__main__":
    main()
