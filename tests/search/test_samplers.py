from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from histories import finetune, probe

from automl_vision.config import SearchSettings
from automl_vision.rules import SEED
from automl_vision.search.samplers import SAMPLERS, export_study, propose
from automl_vision.search.space import Choice, Range, Space, fine_tuning_space
from automl_vision.search.trial import Trial

SPACE = fine_tuning_space(
    backbones=("net_a", "net_b"), resolutions=(160, 128), pretrained=True, n_train=500, fixed={"batch_size": 16}
)
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def tried(number: int, point: dict[str, Any], score: float | None, **fields: Any) -> Trial:
    scores = [] if score is None else [score, score]
    return finetune(number, scores, parameters=point, recipe=SPACE.recipe(point, epochs=12), **fields)


def history(sampler: str, length: int, score: Callable[[dict[str, Any]], float] = lambda point: 0.5) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(length):
        point = propose(sampler, SPACE, trials, seed=3)
        trials.append(tried(number, point, score(point)))
    return trials


def test_the_setting_offers_what_there_is() -> None:
    rule = SearchSettings.__dataclass_fields__["sampler"].metadata["rule"]
    assert not any(rule.check(name) for name in SAMPLERS)
    assert rule.check("no such sampler")


@every_sampler
def test_proposals_lie_inside_the_space(sampler: str) -> None:
    trials = history(sampler, 20, lambda point: point["label_smoothing"])
    assert all(SPACE.contains(trial.parameters) for trial in trials)
    assert all(trial.recipe.batch_size == 16 for trial in trials)
    assert {trial.recipe.optimizer for trial in trials} == {"adamw", "sgd"}


@every_sampler
def test_the_same_question_gets_the_same_answer(sampler: str) -> None:
    for length in (0, 3, 12):
        trials = history(sampler, length)
        assert propose(sampler, SPACE, trials, seed=1) == propose(sampler, SPACE, list(trials), seed=1)
        assert propose(sampler, SPACE, trials, seed=1) != propose(sampler, SPACE, trials, seed=2)


@every_sampler
def test_a_new_trial_leads_to_a_new_proposal(sampler: str) -> None:
    trials = history(sampler, 14)
    points = [trial.parameters for trial in trials]
    assert all(points.count(point) == 1 for point in points)


@every_sampler
def test_any_seed_will_do(sampler: str) -> None:
    largest = 4_294_967_295
    assert not SEED.check(largest)
    trials = history(sampler, 3)
    assert SPACE.contains(propose(sampler, SPACE, trials, seed=largest))


@every_sampler
def test_states_probes_and_trials_without_a_score_are_no_hindrance(sampler: str) -> None:
    point = dict(SPACE.complete({}))
    trials = [
        probe(0),
        probe(1, None, state="failed"),
        tried(2, point, None, state="running"),
        tried(3, point, 0.4, state="stopped"),
        tried(4, point, None, state="failed", error="loss is not finite"),
        tried(5, point, 0.9, state="paused"),
    ]
    assert SPACE.contains(propose(sampler, SPACE, trials, seed=0))


@every_sampler
@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "net_of_last_year"},
        {"learning_rate_adamw": 5.0},
        {"learning_rate_adamw": "fast"},
        {"label_smoothing": None},
        {"cutmix": 1.0},
    ],
    ids=str,
)
def test_trials_of_another_space_are_passed_over(sampler: str, change: dict[str, Any]) -> None:
    trials = history(sampler, 10)
    point = {**SPACE.complete({"optimizer": "adamw"}), **change}
    strange = finetune(10, [0.9, 0.9], parameters=point)
    proposal = propose(sampler, SPACE, [*trials, strange], seed=0)
    assert SPACE.contains(proposal)
    # Its only trace is the number of trials, which decides the random draws.
    assert proposal == propose(sampler, SPACE, [*trials, probe(10)], seed=0)


LINE = Space((Range("learning_rate", 0.0, 1.0),), {"backbone": "net_a", "resolution": 96})


def on_the_line(number: int, x: float, score: float | None, **fields: Any) -> Trial:
    scores = [] if score is None else [score]
    return finetune(number, scores, parameters={"learning_rate": x}, **fields)


@pytest.mark.parametrize("failed_after", [None, 0.99])
def test_failures_keep_the_sampler_away(failed_after: float | None) -> None:
    """Where trials fail there is nothing to be had, however good their first epoch was."""
    trials = [on_the_line(number, 0.30 + number / 200, 0.5 + number / 100) for number in range(10)]
    trials += [on_the_line(10 + n, 0.8 + n / 200, failed_after, state="failed", error="NaN") for n in range(10)]
    proposals = [propose("tpe", LINE, trials, seed=seed)["learning_rate"] for seed in range(12)]
    assert mean(0.75 < x < 0.9 for x in proposals) < 0.2
    assert mean(abs(x - 0.35) < abs(x - 0.82) for x in proposals) > 0.6


CURVED = Space(
    (
        Choice("optimizer", ("adamw", "sgd")),
        Range("learning_rate_adamw", 1e-5, 1e-1, log=True, when={"optimizer": ("adamw",)}),
        Range("learning_rate_sgd", 1e-5, 1e-1, log=True, when={"optimizer": ("sgd",)}),
        Range("label_smoothing", 0.0, 1.0),
    ),
    {},
)


def accuracy(point: dict[str, Any]) -> float:
    rate = point.get("learning_rate_adamw", point.get("learning_rate_sgd"))
    distance = abs(math.log10(rate) + 3) / 4 + abs(point["label_smoothing"] - 0.3)
    return max(0.0, 0.9 - 0.3 * distance - 0.2 * (point["optimizer"] == "sgd"))


def test_tpe_learns_where_chance_does_not() -> None:
    def tail(sampler: str, seed: int) -> float:
        trials: list[Trial] = []
        for number in range(22):
            point = propose(sampler, CURVED, trials, seed=1000 * seed)
            trials.append(finetune(number, [accuracy(point)], parameters=point))
        return mean(trial.score or 0.0 for trial in trials[12:])

    learned = [tail("tpe", seed) for seed in range(3)]
    by_chance = [tail("random", seed) for seed in range(3)]
    assert mean(learned) > mean(by_chance) + 0.03


@pytest.mark.parametrize("name", ["study.db", "why? 100% #1 'ö'.db"])
def test_the_exported_study_is_a_database_with_every_fine_tune(tmp_path: Path, name: str) -> None:
    trials = [probe(0), *(tried(n + 1, SPACE.complete({"label_smoothing": n / 100}), n / 10) for n in range(4))]
    file = tmp_path / name
    file.write_text("what an earlier session left")
    export_study(file, SPACE, trials, name="a run")
    assert [each.name for each in tmp_path.iterdir()] == [name]
    connection = sqlite3.connect(file)
    values = connection.execute("SELECT value FROM trial_values ORDER BY value").fetchall()
    connection.close()
    assert [value for (value,) in values] == pytest.approx([0.0, 0.1, 0.2, 0.3])
