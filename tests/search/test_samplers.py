from __future__ import annotations

import importlib.util
import math
import os
import pickle
import sqlite3
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import pytest
from histories import finetune, probe
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.config import SearchSettings
from automl_vision.models.symmetry import UNTESTED
from automl_vision.rules import SEED
from automl_vision.search.samplers import SAMPLERS, export_study, importances, propose, sampler_for
from automl_vision.search.samplers.flat import UNUSED, FlatSpace
from automl_vision.search.samplers.history import known_trials
from automl_vision.search.samplers.importance import ENOUGH_TRIALS
from automl_vision.search.space import Choice, Range, Space, fine_tuning_space
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import TrialFiles

SPACE = fine_tuning_space(
    backbones=("net_a", "net_b"),
    resolutions=(160, 128),
    pretrained=True,
    n_train=5_000,
    fixed={"batch_size": 16},
    horizon=30,
    imbalance=10.0,
    symmetries=dict.fromkeys(UNTESTED, True),
    stochastic_depth=("net_b",),
)
has_cmaes = importlib.util.find_spec("cmaes") is not None
needs_cmaes = pytest.mark.skipif(not has_cmaes, reason="the package cmaes is not installed")
every_sampler = pytest.mark.parametrize(
    "sampler", [pytest.param(name, marks=needs_cmaes if name == "cmaes" else ()) for name in SAMPLERS]
)


def tried(number: int, point: dict[str, Any], score: float | None, **fields: Any) -> Trial:
    scores = [] if score is None else [score, score]
    return finetune(number, scores, parameters=point, recipe=SPACE.recipe(point, epochs=12), **fields)


Score = Callable[[dict[str, Any]], float]


def even(point: dict[str, Any]) -> float:
    """All are equally good."""
    return 0.5


def smoothing(point: dict[str, Any]) -> float:
    """The more label smoothing the better."""
    return float(point["label_smoothing"])


def go_on(trials: list[Trial], sampler: str, length: int, score: Score = even) -> list[Trial]:
    """Add what the sampler proposes on what there is, until there are so many trials."""
    for number in range(len(trials), length):
        point = propose(sampler, SPACE, trials, seed=3)
        trials.append(tried(number, point, score(point), origin=sampler))
    return trials


#: What `history` has made so far: a longer one begins with a shorter one.
_HISTORIES: dict[tuple[str, Score], list[Trial]] = defaultdict(list)


def history(sampler: str, length: int, score: Score = even) -> list[Trial]:
    """So many trials, each proposed by the sampler on those before it; made once for all tests."""
    return go_on(_HISTORIES[sampler, score], sampler, length, score)[:length]


def in_every_state(trials: Sequence[Trial]) -> list[Trial]:
    """The same history with a trial given up early, one that failed and one in work, every six trials."""
    changed = {
        1: {"state": "stopped"},
        3: {"state": "failed", "score": None, "loss": None, "epochs": (), "error": "loss is not finite"},
        5: {"state": "running", "score": None, "loss": None, "epochs": ()},
    }
    return [trial.replace(**changed.get(trial.number % 6, {})) for trial in trials]


def test_the_setting_offers_what_there_is() -> None:
    rule = SearchSettings.__dataclass_fields__["sampler"].metadata["rule"]
    assert not any(rule.check(name) for name in (*SAMPLERS, "auto"))
    assert {sampler_for(name) for name in (*SAMPLERS, "auto")} == set(SAMPLERS)
    assert rule.check("no such sampler")


@every_sampler
def test_proposals_lie_inside_the_space(sampler: str) -> None:
    trials = history(sampler, 20, smoothing)
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
def test_a_resumed_search_proposes_what_an_undisturbed_one_does(sampler: str, tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    undisturbed: list[Trial] = []
    for number in range(14):
        resumed, damaged = files.read()
        assert not damaged
        point = propose(sampler, SPACE, undisturbed, seed=3)
        assert propose(sampler, SPACE, resumed, seed=3) == point
        trial = in_every_state([tried(number, point, point["label_smoothing"], origin=sampler)])[0]
        files.commit(trial)
        undisturbed.append(trial)


@every_sampler
def test_a_history_in_every_state_is_learned_from(sampler: str) -> None:
    trials = in_every_state(history(sampler, 18, smoothing))
    proposal = propose(sampler, SPACE, trials, seed=0)
    assert SPACE.contains(proposal)
    assert proposal == propose(sampler, SPACE, list(trials), seed=0)


class Bomb:
    """Its pickle leaves a mark where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@every_sampler
def test_nothing_of_a_trial_is_unpickled(sampler: str, tmp_path: Path) -> None:
    """Optuna's CMA-ES keeps its state as a pickle in the attributes of a trial, and loads what it finds there."""
    mark = tmp_path / "loaded"
    attributes = {"cma:generation": 0, "cma:optimizer:0": pickle.dumps(Bomb(mark)).hex()}
    trials = history(sampler, 12, smoothing)
    poisoned = [trial.replace(notes={**trial.notes, **attributes}) for trial in trials]
    assert propose(sampler, SPACE, poisoned, seed=0) == propose(sampler, SPACE, trials, seed=0)
    assert not mark.exists()


@every_sampler
def test_nothing_is_said_on_the_way(sampler: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither Python nor Optuna warns: a warning of Optuna says that it fell back to chance."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trials = go_on([], sampler, 12)
        propose(sampler, SPACE, in_every_state(trials), seed=0)
    assert not caught
    assert capfd.readouterr() == ("", "")


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


SIDES = Space(
    (Choice("resolution", (96, 224)), Choice("batch_size", (32, 64)), Range("learning_rate", 0.0, 1.0)),
    {"backbone": "net_a"},
)


def asks_for_large(known: list[Trial], sampler: str = "tpe", seeds: int = 60) -> float:
    """Share of the proposals at 224 px; that these are no more trials decides no random draw."""
    return mean(propose(sampler, SIDES, known, seed=1_000 * seed)["resolution"] == 224 for seed in range(seeds))


def of_sides(number: int, side: int, score: float | None, **fields: Any) -> Trial:
    point = {"resolution": side, "batch_size": (32, 64)[number % 2], "learning_rate": (number * 7 % 10) / 10}
    return finetune(number, [] if score is None else [score], parameters=point, **fields)


def out_of_memory(number: int) -> Trial:
    return of_sides(number, 224, None, state="failed", error="no room", notes={"out_of_memory": True})


@pytest.mark.parametrize("failures", [4, 8])
def test_what_did_not_fit_into_memory_is_asked_for_less_often(failures: int) -> None:
    trained = [of_sides(number, 96, 0.5 + number / 100) for number in range(8)]
    trained += [of_sides(8, 224, 0.56), of_sides(9, 224, 0.58)]  # what fits there is as good
    told = [*trained, *(out_of_memory(10 + number) for number in range(failures))]
    assert asks_for_large(told) < asks_for_large(trained) - 0.1


def test_a_failure_is_worse_than_the_worst_score_and_never_among_the_best() -> None:
    """Where all that trained scored alike, a tie with them would make failures good."""
    trials = [out_of_memory(number) for number in range(8)] + [of_sides(8 + number, 96, 0.5) for number in range(4)]
    assert all(each.score == pytest.approx(0.49) for each in known_trials(SIDES, trials)[:8])
    assert asks_for_large(trials) < 0.3
    spread = known_trials(SIDES, [out_of_memory(0), of_sides(1, 96, 0.4), of_sides(2, 96, 0.8)])
    assert [each.score for each in spread] == pytest.approx([0.2, 0.4, 0.8])


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


@cache
def late_scores(sampler: str) -> float:
    """Mean score of the trials after the twelfth."""
    scores: list[float] = []
    for seed in range(3):
        trials: list[Trial] = []
        for number in range(22):
            point = propose(sampler, CURVED, trials, seed=1000 * seed)
            trials.append(finetune(number, [accuracy(point)], parameters=point, origin=sampler))
        scores += [trial.score or 0.0 for trial in trials[12:]]
    return mean(scores)


@pytest.mark.parametrize("sampler", ["tpe", "gp", pytest.param("cmaes", marks=needs_cmaes)])
def test_samplers_learn_where_chance_does_not(sampler: str) -> None:
    """On a space with conditions, where a Gaussian process of Optuna alone would fall back to chance."""
    assert late_scores(sampler) > late_scores("random") + 0.03


@needs_cmaes
def test_evolution_starts_around_the_best_of_what_others_proposed() -> None:
    good = SPACE.complete({"optimizer": "adamw", "learning_rate_adamw": 1e-3, "layer_decay": 0.95})
    poor = SPACE.complete({"optimizer": "adamw", "learning_rate_adamw": 3e-5, "layer_decay": 0.6})
    trials = [tried(0, poor, 0.2), tried(1, good, 0.9), tried(2, poor, 0.3)]
    decays = [propose("cmaes", SPACE, trials, seed=seed)["layer_decay"] for seed in range(20)]
    assert mean(decays) == pytest.approx(0.95, abs=0.03)


flat = FlatSpace(SPACE)


@given(st.integers(0, 10_000))
def test_a_point_survives_the_flat_view(seed: int) -> None:
    point = propose("random", SPACE, [], seed=seed)
    values = flat.flatten(point)
    again = flat.point(values)
    assert set(values) == {*flat.coordinates, *(choice.name for choice in flat.choices)}
    assert all(0 <= values[name] <= 1 for name in flat.coordinates)
    assert SPACE.contains(again)
    assert {k: pytest.approx(v) if isinstance(v, float) else v for k, v in point.items()} == again


def test_the_flat_view_has_one_learning_rate() -> None:
    """What a Gaussian process models: learning rate, weight decay, momentum and optimizer, whatever the conditions."""
    assert {"learning_rate", "weight_decay", "momentum"} <= set(flat.coordinates)
    assert "optimizer" in {choice.name for choice in flat.choices}
    assert flat.flatten(SPACE.complete({"optimizer": "adamw"}))["momentum"] == UNUSED


@given(st.lists(st.floats(0, 1), min_size=len(flat.coordinates), max_size=len(flat.coordinates)))
def test_every_flat_point_is_one_of_the_space(numbers: list[float]) -> None:
    chosen = flat.flatten(SPACE.complete({}))
    assert SPACE.contains(flat.point({**chosen, **dict(zip(flat.coordinates, numbers, strict=True))}))


def test_importance_names_the_setting_that_decides() -> None:
    trials = history("random", 60, lambda point: 0.9 - point["label_smoothing"])
    shares = importances(SPACE, trials)
    assert next(iter(shares)) == "label_smoothing"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) == {*flat.coordinates, *(choice.name for choice in flat.choices)}
    assert shares["label_smoothing"] > 2 * sorted(shares.values())[-2]


def test_importance_of_few_trials_is_not_said() -> None:
    trials = history("random", ENOUGH_TRIALS, smoothing)
    assert importances(SPACE, trials)
    assert importances(SPACE, trials[1:]) == {}
    assert importances(SPACE, in_every_state(trials)) == {}


def test_importance_of_equal_scores_is_no_fault() -> None:
    shares = importances(SPACE, history("random", 40))
    assert max(shares.values()) == pytest.approx(min(shares.values()))


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


def test_a_study_whose_export_is_cut_short_is_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "study.db"
    export_study(file, SPACE, [], name="a run")
    before = file.read_bytes()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    for owner, door in ((os, "fsync"), (Path, "replace"), (optuna.Study, "add_trials")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, door, dies)
            with pytest.raises(KeyboardInterrupt):
                export_study(file, SPACE, [tried(0, SPACE.complete({}), 0.5)], name="a run")
        assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"study.db": before}
