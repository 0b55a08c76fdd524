from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from histories import epoch, finetune, probe
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.executors import LocalExecutor, Report
from automl_vision.search.costs import FROZEN_STEP, STEP_OVER_FORWARD
from automl_vision.search.portfolio import SHORT_STEPS, portfolio
from automl_vision.search.run_trial import Assignment
from automl_vision.search.scheduler import KEPT_PAUSED
from automl_vision.search.search import FAILURES_IN_A_ROW, STOP_REASONS, Search, SearchEnded, SearchTask
from automl_vision.search.trial import Trial

GMACS = {"net_a": 0.4, "net_b": 0.8, "net_c": 1.6}
N_TRAIN, N_VAL = 120, 20
PROBE_SECONDS, EPOCH_SECONDS = 5.0, 10.0
STEP_SECONDS = EPOCH_SECONDS / (N_TRAIN + N_VAL / STEP_OVER_FORWARD)


class World:
    """A machine where time passes only while trials train, and what they will score is known.

    Args:
        budget: seconds; the search is told what is left of them.
        quality: fine-tune number -> its final score; probes score by their backbone.
        fails: numbers of the trials that fail, after how many epochs.
        stop_at: the user stops the run at this time.
        adopts: the head that is adopted besides the linear one.
        too_large: backbones of which not even one image fits into memory where less than three stages are frozen.
    """

    def __init__(
        self,
        budget: float = math.inf,
        quality: Callable[[int], float] = lambda number: 0.5 + number / 100,
        fails: dict[int, int] | None = None,
        stop_at: float = math.inf,
        adopts: str = "",
        too_large: tuple[str, ...] = (),
    ) -> None:
        self.time = 0.0
        self.budget = budget
        self.quality = quality
        self.fails = fails or {}
        self.stop_at = stop_at
        self.adopts = adopts
        self.too_large = too_large
        self.work_done: list[tuple[int, int]] = []

    @property
    def left(self) -> float:
        return self.budget - self.time

    @property
    def stopped(self) -> bool:
        return self.time >= self.stop_at

    def __call__(self, assignment: Assignment) -> Iterator[Trial]:
        trial = assignment.trial.replace(state="running")
        if trial.recipe.kind == "probe":
            yield from self._probe(trial)
            return
        if trial.recipe.kind == "head":
            yield from self._head(trial)
            return
        if trial.recipe.backbone in self.too_large and trial.recipe.freeze_stages < 3:
            yield trial.replace(state="failed", error="no room", notes={**trial.notes, "out_of_memory": True})
            return
        while trial.epochs_done < assignment.until:
            if self.stopped:
                yield trial.replace(state="paused")
                return
            if self.fails.get(trial.number) == trial.epochs_done:
                yield trial.replace(state="failed", error="loss is not finite")
                return
            trial = self._epoch(trial, assignment.until)
            yield trial
            if trial.state != "running":
                return

    def _probe(self, trial: Trial) -> Iterator[Trial]:
        self.time += PROBE_SECONDS
        self.work_done.append((trial.number, 0))
        if trial.number in self.fails:
            yield trial.replace(state="failed", error="not enough memory")
            return
        score = {"net_a": 0.3, "net_b": 0.4, "net_c": 0.2}[trial.recipe.backbone]
        yield trial.replace(state="complete", score=score, loss=1.0, seconds_per_image=STEP_SECONDS / STEP_OVER_FORWARD)

    def _head(self, trial: Trial) -> Iterator[Trial]:
        self.time += PROBE_SECONDS
        self.work_done.append((trial.number, 0))
        if self.stopped:
            yield trial.replace(state="paused")
            return
        trial = trial.replace(state="stopped", notes={**trial.notes, "head_search": {}})
        if self.adopts:
            recipe = dataclasses.replace(trial.recipe, head=self.adopts)
            trial = trial.replace(state="complete", recipe=recipe, score=0.45, loss=0.9)
        yield trial

    def _epoch(self, trial: Trial, until: int) -> Trial:
        step = STEP_SECONDS * FROZEN_STEP[trial.recipe.freeze_stages]
        self.time += min(N_TRAIN * step + N_VAL * STEP_SECONDS / STEP_OVER_FORWARD, max(self.left, 0.1))
        done = trial.epochs_done + 1
        self.work_done.append((trial.number, done))
        score = self.quality(trial.number) * (1 - 0.5 / done)
        state = "complete" if done == trial.recipe.epochs else "paused" if done >= until else "running"
        if self.left <= 0 and state == "running":
            state = "stopped"
        best = max(score, trial.score or 0.0)
        return trial.replace(
            epochs=(*trial.epochs, epoch(done, score)),
            score=best,
            loss=1 - best,
            state=state,
            seconds_per_image=step,
        )


def make_task(**changes: Any) -> SearchTask:
    task = SearchTask(
        backbones=("net_a", "net_b", "net_c"),
        pretrained=True,
        resolutions=(160, 128),
        fixed={},
        n_train=N_TRAIN,
        n_val=N_VAL,
        gmacs=GMACS.get,
        max_trials=4,
    )
    return dataclasses.replace(task, **changes)


def run(world: World, task: SearchTask | None = None, history: Sequence[Trial] = ()) -> tuple[Search, list[Trial], str]:
    """The search, every trial it yielded, and why it ended."""
    search = Search(
        task or make_task(),
        LocalExecutor(world),
        history,
        seconds_left=lambda: world.left,
        interrupted=lambda: world.stopped,
    )
    *trials, end = list(search)
    assert isinstance(end, SearchEnded)
    assert end.reason in STOP_REASONS
    return search, trials, end.reason  # type: ignore[return-value] # all but the last are trials


def fine_tunes(search: Search) -> list[Trial]:
    return [trial for trial in search.trials if trial.recipe.kind == "finetune"]


# --- which space ----------------------------------------------------------------------------------------------------

REFUSED = {"tested": True, "allowed": {"horizontal_flip": False, "vertical_flip": True, "quarter_turns": False}}


def test_what_the_first_probe_says_of_symmetries_shapes_the_space() -> None:
    history = [probe(0, notes={"symmetries": REFUSED}), probe(1, backbone="net_b"), probe(2, backbone="net_c")]
    search, _, _ = run(World(), history=[each.replace(seconds_per_image=0.1) for each in history])
    assert fine_tunes(search)
    assert all(trial.recipe.horizontal_flip is False for trial in fine_tunes(search))
    assert "vertical_flip" in {each.name for each in search.space.dimensions}
    assert "quarter_turns" not in {each.name for each in search.space.dimensions}


def test_what_a_later_session_says_of_symmetries_does_not_change_the_space() -> None:
    late = probe(2, backbone="net_b", notes={"symmetries": REFUSED})
    begun = [probe(0), finetune(1, [0.5] * 12), late]
    space = Search(make_task(), LocalExecutor(World()), begun, seconds_left=lambda: 1.0).space
    assert space == make_task().space({}, horizon=12)
    assert all(trial.recipe.horizontal_flip for trial in begun)


@pytest.mark.parametrize(("epochs", "offered"), [(14, False), (15, True)])
def test_images_are_mixed_in_long_trainings_on_many_images_alone(epochs: int, offered: bool) -> None:
    search, _, _ = run(World(), make_task(n_train=2_000, fixed={"epochs": epochs}))
    assert ("mix" in {each.name for each in search.space.dimensions}) == offered
    assert all(search.space.contains(trial.parameters) for trial in fine_tunes(search))


# --- what is tried, in which order ----------------------------------------------------------------------------------


def test_every_backbone_is_probed_before_the_first_fine_tune() -> None:
    search, _, reason = run(World())
    assert [(trial.recipe.kind, trial.recipe.backbone) for trial in search.trials[:4]] == [
        ("probe", "net_a"),
        ("probe", "net_b"),
        ("probe", "net_c"),
        ("finetune", "net_b"),
    ]
    assert reason == "trials"


FOUND = "mlp:256-gelu"


def heads(search: Search) -> list[Trial]:
    return [trial for trial in search.trials if trial.recipe.kind == "head"]


def test_another_head_is_tried_on_the_best_probe_before_fine_tunes() -> None:
    search, _, _ = run(World(adopts=FOUND), make_task(head="darts"))
    assert [trial.recipe.kind for trial in search.trials[:5]] == ["probe"] * 3 + ["head", "finetune"]
    (head,) = heads(search)
    assert (head.recipe.backbone, head.origin) == ("net_b", "darts")


def test_without_the_setting_no_other_head_is_tried() -> None:
    search, _, _ = run(World(adopts=FOUND))
    assert heads(search) == []


def test_fine_tunes_of_its_backbone_have_the_adopted_head() -> None:
    search, _, _ = run(World(adopts=FOUND), make_task(head="darts", max_trials=12))
    used = {(trial.recipe.backbone, trial.recipe.head) for trial in fine_tunes(search) if trial.origin == "portfolio"}
    assert ("net_b", FOUND) in used
    assert {head for name, head in used if name != "net_b"} == {"linear"}
    assert all(search.space.contains(trial.parameters) for trial in fine_tunes(search))


def test_where_the_linear_head_is_kept_the_space_is_as_it_was() -> None:
    search, _, _ = run(World(), make_task(head="mlp"))
    assert search.space == make_task().space({})
    assert {trial.recipe.head for trial in fine_tunes(search)} == {"linear"}
    assert heads(search)[0].state == "stopped"


def test_a_resumed_search_does_not_try_the_head_again() -> None:
    first, _, _ = run(World(adopts=FOUND), make_task(head="darts", max_trials=2))
    again, _, _ = run(World(), make_task(head="darts"), history=first.trials)
    assert len(heads(again)) == 1
    assert again.space == first.space


def test_a_head_that_was_interrupted_is_tried_again() -> None:
    first, _, reason = run(World(stop_at=3.5 * PROBE_SECONDS), make_task(head="darts"))
    assert (reason, [trial.state for trial in heads(first)]) == ("interrupted", ["paused"])
    again, _, _ = run(World(adopts=FOUND), make_task(head="darts"), history=first.trials)
    assert [trial.state for trial in heads(again)] == ["stopped", "complete"]


def test_no_head_is_tried_when_the_time_is_over() -> None:
    search, _, _ = run(World(budget=PROBE_SECONDS), make_task(head="darts"))
    assert [trial.recipe.kind for trial in search.trials] == ["probe"]


def test_the_portfolio_is_tried_then_the_sampler_proposes() -> None:
    task = make_task(max_trials=9)
    search, _, _ = run(World(), task)
    best_first = ("net_b", "net_a", "net_c")
    wanted = portfolio(task.space({}), backbones=best_first, resolutions=task.resolutions, pretrained=True, steps=120)
    tried = [dict(trial.parameters) for trial in fine_tunes(search)[: len(wanted)]]
    assert tried[0] == wanted[0]
    assert all(tried.count(point) == 1 for point in wanted)
    assert [trial.origin for trial in fine_tunes(search)] == ["portfolio"] * len(wanted) + ["tpe"] * (9 - len(wanted))
    points = [trial.parameters for trial in fine_tunes(search)]
    assert all(points.count(point) == 1 for point in points)


def places(search: Search, backbone: str) -> list[int]:
    names = [trial.recipe.backbone for trial in fine_tunes(search) if trial.origin == "portfolio"]
    return [place for place, name in enumerate(names) if name == backbone]


def test_of_equal_recipes_the_better_probed_backbone_comes_first() -> None:
    search, _, _ = run(World(), make_task(max_trials=9))
    assert places(search, "net_a")[0] < places(search, "net_c")[0]


def test_a_backbone_that_is_better_elsewhere_comes_earlier() -> None:
    known = {"net_a": 70.0, "net_b": 70.0, "net_c": 70.0}
    plain, _, _ = run(World(), make_task(max_trials=9, imagenet_top1=known.get))
    other, _, _ = run(World(), make_task(max_trials=9, imagenet_top1={**known, "net_a": 88.0}.get))
    assert places(other, "net_a")[0] < places(plain, "net_a")[0]


def test_from_random_weights_nothing_is_known_of_recipes() -> None:
    """What others measured on fine-tunes does not reorder recipes for networks that were never trained."""
    task = make_task(max_trials=4, pretrained=False, imagenet_top1={"net_c": 89.0}.get)
    plain, _, _ = run(World(), make_task(max_trials=4, pretrained=False))
    search, _, _ = run(World(), task)
    assert [trial.recipe for trial in fine_tunes(search)] == [trial.recipe for trial in fine_tunes(plain)]


def test_of_equal_recipes_the_cheaper_one_comes_first() -> None:
    slow_b = [
        probe(number, backbone=name, resolution=160, seconds_per_image=0.01 * factor)
        for number, (name, factor) in enumerate([("net_a", 1.0), ("net_b", 1_000.0), ("net_c", 1.0)])
    ]
    search, _, _ = run(World(), make_task(max_trials=9), slow_b)
    assert min(places(search, "net_a") + places(search, "net_c")) < places(search, "net_b")[0]


def test_few_trials_wait_so_that_the_disk_is_bounded() -> None:
    world = World(budget=30_000.0)
    search, yielded, _ = run(world, make_task(max_trials=0))
    waiting: set[int] = set()
    most = 0
    for trial in yielded:
        waiting = waiting | {trial.number} if trial.state == "paused" else waiting - {trial.number}
        most = max(most, len(waiting))
    assert len(fine_tunes(search)) > 2 * KEPT_PAUSED
    assert most <= KEPT_PAUSED + 1  # the newest one, before the scheduler was asked


def test_pins_reach_every_recipe() -> None:
    pins = {"optimizer": "sgd", "epochs": 4, "batch_size": 8, "schedule": "linear", "label_smoothing": 0.0}
    search, _, _ = run(World(), make_task(fixed=pins, seed=5))
    for trial in fine_tunes(search):
        assert {name: getattr(trial.recipe, name) for name in pins} == pins
        assert trial.recipe.seed == 5
        assert not {"label_smoothing", "batch_size"} & set(trial.parameters)


def test_numbers_count_up_and_each_trial_is_announced_before_its_work() -> None:
    search, yielded, _ = run(World())
    assert [trial.number for trial in search.trials] == list(range(len(search.trials)))
    first = {}
    for trial in yielded:
        first.setdefault(trial.number, trial)
    assert all(trial.state == "running" and not trial.epochs for trial in first.values())


def test_without_a_limit_on_time_the_best_reach_the_horizon() -> None:
    search, _, _ = run(World(quality=lambda number: {5: 0.9}.get(number, 0.5)))
    best = max(fine_tunes(search), key=lambda trial: trial.rank)
    assert best.number == 5
    assert best.state == "complete"
    assert best.epochs_done == best.recipe.epochs


def test_no_epoch_is_trained_twice() -> None:
    world = World(budget=2_000)
    run(world, make_task(max_trials=0))
    assert len(world.work_done) == len(set(world.work_done))


def test_one_recipe_is_trained_in_one_go_and_nothing_else_is() -> None:
    world = World(quality=lambda number: 2.0)
    search, _, reason = run(world, make_task(max_trials=1, fixed={"weight_decay": 0.5}, n_val=5_000))
    (only,) = fine_tunes(search)
    assert (only.state, only.epochs_done, only.recipe.epochs, reason) == ("complete", 30, 30, "trials")
    assert (only.recipe.schedule, only.recipe.weight_decay) == ("cosine", 0.5)


def test_one_recipe_is_begun_though_the_time_is_too_short_for_it() -> None:
    search, _, _ = run(World(budget=60.0), make_task(max_trials=1, fixed={"epochs": 20}))
    (only,) = fine_tunes(search)
    assert only.recipe.epochs == 20
    assert 0 < only.epochs_done < 20


def test_one_recipe_whose_epochs_are_open_gets_those_that_fit() -> None:
    search, _, _ = run(World(budget=70.0), make_task(max_trials=1, fixed={"optimizer": "sgd"}))
    (only,) = fine_tunes(search)
    assert only.state == "complete"
    assert 1 < only.recipe.epochs < 30


def probed(budget: float = math.inf, **changes: Any) -> int:
    task = make_task(**{"max_trials": 1, "backbones": ("net_a",), **changes})
    search, _, _ = run(World(budget), task)
    return sum(trial.recipe.kind == "probe" for trial in search.trials)


def test_probes_are_fitted_only_where_they_have_a_use() -> None:
    off = {"head_from_probe": False}
    assert probed(fixed=off) == 0
    assert probed(fixed={"epochs": 2}) == 1  # it starts the head
    assert probed(fixed=off, backbones=("net_a", "net_b")) == 2  # they choose the backbone
    assert probed(fixed=off, max_trials=2) == 1  # a search has a model early
    assert probed(200.0, fixed=off) == 1  # it tells how many epochs fit
    assert probed(200.0, fixed=off | {"epochs": 2}) == 0
    assert probed(fixed=off, head="mlp") == 1


# --- why it ends ----------------------------------------------------------------------------------------------------


@given(st.floats(1.0, 3_000.0))
def test_the_budget_is_kept_and_named(budget: float) -> None:
    world = World(budget)
    search, _, reason = run(world, make_task(max_trials=0))
    assert reason == "budget"
    assert world.time <= budget + PROBE_SECONDS
    assert search.trials[0].score is not None
    assert not any(trial.state in ("running", "paused") for trial in search.trials)


def test_no_time_at_all_tries_nothing() -> None:
    search, trials, reason = run(World(budget=0.0))
    assert (search.trials, trials, reason) == ([], [], "budget")


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_number_of_trials_is_kept_and_named(most: int) -> None:
    search, _, reason = run(World(), make_task(max_trials=most))
    assert len(fine_tunes(search)) == most
    assert reason == "trials"
    assert not any(trial.state in ("running", "paused") for trial in search.trials)


@pytest.mark.parametrize(("n_val", "expected"), [(199, "trials"), (200, "converged"), (5_000, "converged")])
def test_perfection_ends_a_search_only_where_validation_can_tell(n_val: int, expected: str) -> None:
    perfect = World(quality=lambda number: 2.0)
    search, _, reason = run(perfect, make_task(n_val=n_val))
    assert reason == expected
    assert (len(fine_tunes(search)) == 1) == (expected == "converged")


def test_nearly_perfect_is_not_perfect() -> None:
    _, _, reason = run(World(quality=lambda number: 0.995), make_task(n_val=200))
    assert reason == "trials"


@pytest.mark.parametrize("stop_at", [0.0, 3.0, 16.0, 60.0, 130.0])
def test_a_user_who_stops_leaves_trials_that_can_go_on(stop_at: float) -> None:
    world = World(stop_at=stop_at)
    search, _, reason = run(world)
    assert reason == "interrupted"
    assert world.time <= stop_at + EPOCH_SECONDS
    assert not any(trial.state in ("stopped", "running") for trial in search.trials)
    waiting = [trial for trial in fine_tunes(search) if trial.state == "paused"]
    assert bool(waiting) == (stop_at > 3 * PROBE_SECONDS)


def test_otherwise_those_that_wait_are_given_up_aloud() -> None:
    search, yielded, _ = run(World(budget=2_000.0), make_task(max_trials=0))
    stopped = {trial.number for trial in search.trials if trial.state == "stopped"}
    assert stopped
    assert stopped == {trial.number for trial in yielded if trial.state == "stopped"}


# --- time -----------------------------------------------------------------------------------------------------------


def horizons(budget: float, **changes: Any) -> set[int]:
    search, _, _ = run(World(budget), make_task(max_trials=0, **changes))
    return {trial.recipe.epochs for trial in fine_tunes(search)}


def test_the_horizon_follows_the_number_of_images() -> None:
    assert horizons(4_000.0, n_train=48) == {60}  # 120 steps of 32 images at most
    assert horizons(2_000.0, n_train=120) == {30}
    assert horizons(2_000.0, n_train=300) == {12}


@pytest.mark.parametrize("budget", [30.0, 60.0, 100.0, 200.0, 300.0, 400.0])
def test_a_short_time_is_given_to_one_fine_tune_that_gets_done(budget: float) -> None:
    """Not to several of which none sees the end of its schedule, where the learning rate falls."""
    world = World(budget)
    search, _, _ = run(world, make_task(max_trials=0))
    first, *others = fine_tunes(search)
    assert first.state == "complete"
    assert first.epochs_done == first.recipe.epochs <= 30
    assert first.recipe.schedule == "cosine"
    assert all(trial.state == "complete" for trial in others)
    assert world.time <= budget


def test_with_time_to_compare_candidates_are_compared() -> None:
    search, _, _ = run(World(1_500.0), make_task(max_trials=0))
    assert len(fine_tunes(search)) > 3
    assert {trial.recipe.schedule for trial in fine_tunes(search)} == {"trapezoid"}


def test_the_user_s_horizon_is_never_shortened() -> None:
    assert horizons(100.0, fixed={"epochs": 25}) <= {25}


def test_no_fine_tune_starts_where_hardly_a_third_of_an_epoch_fits() -> None:
    assert horizons(7.0) == set()


def test_one_is_tried_where_the_estimate_is_only_somewhat_too_long() -> None:
    """It rests on a few seconds that may have been busy ones; the deadline cuts what does not fit."""
    assert horizons(20.0) == {1}


def test_slow_probes_do_not_eat_the_whole_time() -> None:
    search, _, _ = run(World(budget=20.0), make_task(max_trials=0))
    assert [trial.recipe.kind for trial in search.trials].count("probe") == 2


# --- failures -------------------------------------------------------------------------------------------------------


def test_failures_do_not_end_the_search() -> None:
    world = World(fails={3: 0, 4: 1, 6: 3})
    search, _, reason = run(world, make_task(max_trials=6))
    assert reason == "trials"
    failed = {trial.number for trial in search.trials if trial.state == "failed"}
    assert {3, 4} <= failed <= {3, 4, 6}
    assert any(trial.state == "complete" for trial in fine_tunes(search))


def test_when_all_fail_it_still_ends() -> None:
    nothing_works = dict.fromkeys(range(100), 0)
    search, _, reason = run(World(fails=nothing_works), make_task(max_trials=5))
    assert reason == "trials"
    assert {trial.state for trial in search.trials} == {"failed"}
    search, _, reason = run(World(3_000.0, fails=nothing_works), make_task(max_trials=0))
    assert reason == "failures"
    assert len(fine_tunes(search)) == FAILURES_IN_A_ROW


def test_after_many_failures_those_that_wait_still_go_on() -> None:
    search, _, reason = run(World(1e6, fails=dict.fromkeys(range(4, 100), 0)), make_task(max_trials=0))
    assert reason == "failures"
    assert [trial.state for trial in fine_tunes(search)] == ["complete"] + ["failed"] * FAILURES_IN_A_ROW


def test_a_backbone_whose_probe_failed_comes_last() -> None:
    search, _, _ = run(World(fails={1: 0}))
    assert fine_tunes(search)[0].recipe.backbone == "net_a"


PROBED = [probe(number, backbone=name, resolution=160) for number, name in enumerate(GMACS)]


class Scripted:
    """An executor that reports what it was told to, whatever it was asked."""

    def __init__(self, *reports: Callable[[Assignment], Report[Trial]]) -> None:
        self.reports = list(reports)
        self.jobs: list[Assignment] = []

    free_slots = property(lambda self: int(not self.jobs))

    def submit(self, number: int, attempt: int, job: Assignment) -> None:
        self.jobs.append(job)

    def poll(self) -> list[Report[Trial]]:
        if not self.jobs:
            return []
        report = self.reports.pop(0)(self.jobs[-1])
        if report.ended and report.attempt == self.jobs[-1].trial.attempt:
            self.jobs.clear()
        return [report]

    def cancel(self, number: int) -> None: ...

    def close(self) -> None: ...


def test_work_that_ends_without_a_word_counts_as_failed() -> None:
    executor = Scripted(*[lambda job: Report(job.trial.number, 1, None, ended=True)] * 10)
    search = Search(make_task(max_trials=2), executor, PROBED, seconds_left=lambda: math.inf)
    list(search)
    assert [trial.state for trial in fine_tunes(search)] == ["failed", "failed"]
    assert all(trial.error for trial in fine_tunes(search))


def test_the_report_of_a_replaced_attempt_is_dropped() -> None:
    broken_off = finetune(3, [0.2], state="running", attempt=4, horizon=30)
    executor = Scripted(
        lambda job: Report(3, 4, job.trial.replace(score=1.0, state="complete", attempt=4), ended=False),
        lambda job: Report(3, 4, None, ended=True),
        lambda job: Report(3, 5, job.trial.replace(score=0.4, state="complete"), ended=False),
        lambda job: Report(3, 5, None, ended=True),
    )
    search = Search(make_task(max_trials=1), executor, [*PROBED, broken_off], seconds_left=lambda: math.inf)
    list(search)
    assert not executor.reports
    assert search.trials[3].score == 0.4
    assert search.trials[3].attempt == 5


# --- going on -------------------------------------------------------------------------------------------------------


def test_a_running_trial_of_a_killed_session_goes_on_as_a_new_attempt() -> None:
    first = World(budget=2_000.0)
    trials = run(first, make_task(max_trials=3))[1]
    cut = next(index for index, trial in enumerate(trials) if trial.recipe.kind == "finetune" and trial.epochs)
    on_disk = {trial.number: trial for trial in trials[: cut + 1] if trial.epochs or trial.state == "complete"}
    assert on_disk[3].state == "running"
    second = World(budget=2_000.0)
    search, _, _ = run(second, make_task(max_trials=3), list(on_disk.values()))
    assert second.work_done[0] == (3, 2)
    assert search.trials[3].attempt == 2
    assert search.trials[3].state in ("complete", "stopped")


@given(st.data())
def test_killed_at_any_moment_nothing_is_repeated_and_the_same_is_tried(data: st.DataObject) -> None:
    """What is on disk is what was yielded with at least one epoch, as the record is committed before."""
    whole = World()
    task = make_task(max_trials=5)
    undisturbed, yielded, _ = run(whole, task)
    cut = data.draw(st.integers(0, len(yielded)))
    on_disk = {trial.number: trial for trial in yielded[:cut] if trial.epochs or trial.state != "running"}
    again = World()
    resumed, _, reason = run(again, task, list(on_disk.values()))
    assert reason == "trials"
    done_before = {(trial.number, done) for trial in on_disk.values() for done in range(trial.epochs_done + 1)}
    assert not {work for work in again.work_done if work[1] > 0} & done_before
    assert not {number for number, done in again.work_done if done == 0} & {
        trial.number for trial in on_disk.values() if trial.recipe.kind == "probe"
    }
    assert [trial.recipe for trial in resumed.trials] == [trial.recipe for trial in undisturbed.trials]
    for number, before in on_disk.items():
        assert resumed.trials[number].epochs[: before.epochs_done] == before.epochs


def test_an_interrupted_search_goes_on_where_it_was() -> None:
    first = World(stop_at=60.0)
    search, _, _ = run(first)
    second = World()
    resumed, _, reason = run(second, history=search.trials)
    assert reason == "trials"
    assert not set(first.work_done) & set(second.work_done)
    assert len(fine_tunes(resumed)) == 4


def test_a_resumed_search_keeps_its_horizon() -> None:
    short, _, _ = run(World(100.0, stop_at=40.0), make_task(max_trials=0))
    (horizon,) = {trial.recipe.epochs for trial in fine_tunes(short)}
    resumed, _, _ = run(World(5_000.0), make_task(max_trials=0), short.trials)
    begun = {trial.number for trial in fine_tunes(short)}
    gone_on = [trial for trial in fine_tunes(resumed) if trial.number in begun]
    assert {(trial.recipe.epochs, trial.epochs_done, trial.state) for trial in gone_on} == {
        (horizon, horizon, "complete")
    }


def test_a_resumed_search_goes_on_comparing_at_the_same_rungs() -> None:
    early, _, _ = run(World(5_000.0, stop_at=300.0), make_task(max_trials=0))
    resumed, _, _ = run(World(400.0), make_task(max_trials=0), early.trials)
    rungs_of = {tuple(trial.notes["rungs"]) for trial in fine_tunes(resumed)}
    assert len(rungs_of) == 1
    assert len(rungs_of.pop()) > 1


# --- memory ---------------------------------------------------------------------------------------------------------


def test_default_recipes_that_will_not_fit_into_memory_are_not_tried_one_by_one() -> None:
    """The best probe's network failed with two stages frozen: recipes that train as many or more of it are left out."""
    search, _, reason = run(World(too_large=("net_b",)), make_task(max_trials=8))
    failed = [trial for trial in fine_tunes(search) if trial.state == "failed" and trial.origin == "portfolio"]
    assert {trial.recipe.backbone for trial in failed} == {"net_b"}
    assert len(failed) < len([row for row in portfolio_of(search) if row["backbone"] == "net_b"])
    assert {"net_a", "net_c"} <= {trial.recipe.backbone for trial in fine_tunes(search) if trial.score is not None}
    assert reason == "trials"


def test_what_did_not_fit_before_is_tried_when_the_run_goes_on() -> None:
    """Memory may be free again, or the machine another one."""
    before, _, _ = run(World(too_large=("net_b",)), make_task(max_trials=8))
    resumed, _, _ = run(World(), make_task(max_trials=12), before.trials)
    fitting = [trial for trial in fine_tunes(resumed) if trial.recipe.backbone == "net_b" and trial.score is not None]
    assert any(trial.origin == "portfolio" for trial in fitting)


def portfolio_of(search: Search) -> tuple[dict[str, Any], ...]:
    ranked = ("net_b", "net_a", "net_c")
    return portfolio(search.space, backbones=ranked, resolutions=(160, 128), pretrained=True, steps=48)


def test_points_of_a_time_when_the_batch_was_no_dimension_are_still_known() -> None:
    """A run that goes on in this version neither repeats its default recipes nor forgets them."""
    first, _, _ = run(World(), make_task(max_trials=3))
    older = [
        trial.replace(parameters={name: value for name, value in trial.parameters.items() if name != "batch_size"})
        for trial in first.trials
    ]
    resumed, _, _ = run(World(), make_task(max_trials=5), older)
    assert all(resumed.space.contains(trial.parameters) for trial in fine_tunes(resumed))
    assert [trial.parameters for trial in resumed.trials[: len(older)]] == [t.parameters for t in first.trials]
    points = [trial.parameters for trial in fine_tunes(resumed)]
    assert all(points.count(point) == 1 for point in points)
    pinned_batch, _, _ = run(World(), make_task(fixed={"batch_size": 16}), older)
    assert all("batch_size" not in trial.parameters for trial in fine_tunes(pinned_batch))


def test_steps_and_the_average_of_weights_go_with_the_batch() -> None:
    search, _, _ = run(World(), make_task(max_trials=20, n_train=1_280))
    sizes = {trial.recipe.batch_size: trial for trial in fine_tunes(search)}
    assert len(sizes) > 1
    for size, trial in sizes.items():
        steps = trial.recipe.epochs * math.ceil(1_280 / size)
        assert trial.notes["steps"] == steps
        assert trial.recipe.ema == (steps > SHORT_STEPS)


# --- limits of the model ---------------------------------------------------------------------------------------------

SIDES = {"net_a": (128,), "net_b": (160, 128)}


def test_each_backbone_is_tried_at_the_sides_that_it_may_have() -> None:
    task = make_task(backbones=("net_a", "net_b"), sides=SIDES, max_trials=14)
    search, _, _ = run(World(), task)
    tried = {(trial.recipe.backbone, trial.recipe.resolution) for trial in search.trials}
    assert tried <= {("net_a", 128), ("net_b", 160), ("net_b", 128)}
    assert {name for name, _ in tried} == {"net_a", "net_b"}
    assert all(trial.recipe.resolution == trial.parameters["resolution"] for trial in fine_tunes(search))
    assert all(search.space.contains(trial.parameters) for trial in fine_tunes(search))
    points = [trial.parameters for trial in fine_tunes(search) if trial.origin == "portfolio"]
    assert not [point for k, point in enumerate(points) if point in points[:k]]


def test_a_side_that_may_not_be_is_replaced_by_the_next_smaller_one() -> None:
    task = make_task(resolutions=(224, 160, 96), sides={"net_a": (224, 96), "net_b": (224,)})
    moved = {
        (name, side): task.allowed({"backbone": name, "resolution": side})["resolution"]
        for name in ("net_a", "net_b", "net_c")
        for side in task.resolutions
    }
    assert moved == {
        ("net_a", 224): 224, ("net_a", 160): 96, ("net_a", 96): 96,
        ("net_b", 224): 224, ("net_b", 160): 224, ("net_b", 96): 224,
        ("net_c", 224): 224, ("net_c", 160): 160, ("net_c", 96): 96,
    }  # fmt: skip
    assert [task.first_side(name) for name in ("net_a", "net_c")] == [224, 224]


def test_what_may_not_be_shipped_is_no_candidate() -> None:
    task = make_task(may_ship=lambda recipe: recipe.head == "linear")
    linear = probe(0)
    other = linear.replace(number=1, recipe=dataclasses.replace(linear.recipe, head="mlp:8-gelu"))
    assert task.candidates([linear, other]) == [linear]
    assert make_task().candidates([linear, other]) == [linear, other]
