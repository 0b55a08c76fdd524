"""A search with several trials in work, some of whose workers are lost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from histories import probe
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_search import World, make_task

from automl_vision.executors import Report
from automl_vision.search.run_trial import Assignment
from automl_vision.search.search import FAILURES_IN_A_ROW, MOST_LOST, Search, SearchEnded
from automl_vision.search.trial import Trial


class Disk:
    """Records as `TrialFiles` keeps them apart, and the order of what happened to them."""

    def __init__(self) -> None:
        self.written: dict[tuple[int, int], Trial] = {}
        self.claims: list[tuple[int, int]] = []

    def claim(self, trial: Trial) -> Trial:
        newest = max((attempt for number, attempt in self.written if number == trial.number), default=0)
        assert trial.attempt >= newest, "an attempt that was over is given away again"
        self.claims.append((trial.number, trial.attempt))
        self.written[trial.number, trial.attempt] = trial.replace(state="running")
        return trial

    def commit(self, trial: Trial) -> None:
        self.written[trial.number, trial.attempt] = trial

    def record(self, number: int) -> Trial | None:
        attempts = [attempt for each, attempt in self.written if each == number]
        return self.written[number, max(attempts)] if attempts else None


@dataclass
class Loss:
    """How a job is lost.

    Attributes:
        after: so many times that it told of progress.
        told: whether the driver heard the last of it.
        preempted: as announced.
    """

    after: int
    told: bool = True
    preempted: bool = False


@dataclass
class ManySlots:
    """Does several jobs in turn, each progress on disk before it is told; loses those it is told to lose.

    Attributes:
        losses: (number, attempt) -> how it is lost.
        stale: reports that are told once more after the job was lost.
    """

    world: World
    disk: Disk
    slots: int = 2
    losses: dict[tuple[int, int], Loss] = field(default_factory=dict)
    stale: bool = False
    jobs: dict[int, tuple[int, Iterator[Trial], list[Trial]]] = field(default_factory=dict)
    most: int = 0
    cancelled: list[int] = field(default_factory=list)
    ghosts: list[Report[Trial]] = field(default_factory=list)

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.jobs)

    def submit(self, number: int, attempt: int, job: Assignment) -> None:
        assert self.free_slots > 0
        assert number not in self.jobs, "a trial is in work twice"
        assert (number, attempt) == self.disk.claims[-1] == (job.trial.number, job.trial.attempt)
        self.jobs[number] = (attempt, self.world(job), [])
        self.most = max(self.most, len(self.jobs))

    def poll(self) -> list[Report[Trial]]:
        if not self.jobs:
            return []
        ghosts, self.ghosts = self.ghosts, []
        number = next(iter(self.jobs))
        attempt, progress, told = self.jobs.pop(number)
        loss = self.losses.get((number, attempt))
        if loss is not None and len(told) == loss.after and loss.told:
            return [*ghosts, self._lost(number, attempt, loss, told)]
        trial = next(progress, None)
        if trial is None:
            return [*ghosts, Report(number, attempt, None, ended=True)]
        self.disk.commit(trial)
        told.append(trial)
        if loss is not None and len(told) > loss.after:
            return [*ghosts, self._lost(number, attempt, loss, told)]
        self.jobs[number] = (attempt, progress, told)  # last in the queue
        return [*ghosts, Report(number, attempt, trial, ended=False)]

    def _lost(self, number: int, attempt: int, loss: Loss, told: list[Trial]) -> Report[Trial]:
        if self.stale:
            bad = [each.replace(score=1.0, state="complete") for each in told]
            self.ghosts += [Report(number, attempt, each, ended=False) for each in bad]
            self.ghosts.append(Report(number, attempt, None, ended=True))
        return Report(number, attempt, None, ended=True, lost="it was killed", preempted=loss.preempted)

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)
        del self.jobs[number]

    def close(self) -> None:
        self.jobs.clear()


def run(world: World, slots: int = 2, task: Any = None, **changes: Any) -> tuple[Search, ManySlots, list[Trial], str]:
    history = changes.pop("history", ())
    executor = ManySlots(world, Disk(), slots, **changes)
    search = Search(
        task or make_task(),
        executor,
        history,
        seconds_left=lambda: world.left,
        interrupted=lambda: world.stopped,
        records=executor.disk,
    )
    *events, end = list(search)
    assert isinstance(end, SearchEnded)
    assert not executor.jobs, "something was still in work when the search ended"
    return search, executor, events, end.reason  # type: ignore[return-value] # all but the last are trials


def outcome(search: Search) -> list[tuple[Any, ...]]:
    """What must not depend on who was lost."""
    return [
        (each.number, each.recipe, each.parameters, each.state, each.score, each.epochs_done) for each in search.trials
    ]


# --- several in work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_as_many_trials_are_in_work_as_there_are_slots(slots: int) -> None:
    search, executor, _, reason = run(World(), slots, make_task(max_trials=8))
    assert executor.most == slots
    assert reason == "trials"
    tuned = [trial for trial in search.trials if trial.recipe.kind == "finetune"]
    assert len(tuned) == 8
    assert len({tuple(sorted(trial.parameters.items())) for trial in tuned}) == 8
    assert {trial.state for trial in search.trials} <= {"complete", "stopped", "failed"}


@pytest.mark.parametrize("slots", [2, 5])
def test_no_fine_tune_begins_before_all_probes_ended(slots: int) -> None:
    _, _, events, _ = run(World(), slots, make_task(head="darts"))
    kinds = [trial.recipe.kind for trial in events]
    ends = [at for at, trial in enumerate(events) if trial.recipe.kind == "probe" and trial.state == "complete"]
    assert len(ends) == 3
    assert max(ends) < kinds.index("head") < kinds.index("finetune")
    first = next(at for at, trial in enumerate(events) if trial.recipe.kind == "finetune")
    assert [trial.state for trial in events[:first] if trial.recipe.kind == "head"][-1] != "running"


def test_one_probe_alone_is_asked_for_symmetries_and_fine_tunes_know_all_heads() -> None:
    asked: list[Assignment] = []

    class Noting(World):
        def __call__(self, assignment: Assignment) -> Iterator[Trial]:
            asked.append(assignment)
            return super().__call__(assignment)

    run(Noting(), 3)
    probes = [each for each in asked if each.trial.recipe.kind == "probe"]
    assert [each.tests_symmetries for each in probes] == [True, False, False]
    tuned = next(each for each in asked if each.trial.recipe.kind == "finetune")
    assert sorted(tuned.heads) == [("net_a", "linear", 0), ("net_b", "linear", 1), ("net_c", "linear", 2)]


@pytest.mark.parametrize("lost", [False, True])
def test_another_probe_is_asked_for_symmetries_where_the_first_one_told_nothing(lost: bool) -> None:
    """It fails on its weights, or whoever had it is lost and it goes on elsewhere."""
    asked: list[tuple[int, int, bool]] = []

    class Noting(World):
        def __call__(self, assignment: Assignment) -> Iterator[Trial]:
            trial = assignment.trial
            if trial.recipe.kind == "probe":
                asked.append((trial.number, trial.attempt, assignment.tests_symmetries))
            return super().__call__(assignment)

    if lost:
        run(Noting(), 3, losses={(0, 1): Loss(after=0)})
        assert asked == [(0, 1, True), (0, 2, True), (1, 1, False), (2, 1, False)]
    else:
        run(Noting(fails={0: 0}), 3)
        assert asked == [(0, 1, True), (1, 1, True), (2, 1, False)]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_first_probe_times_the_machine_before_others_begin(slots: int) -> None:
    _, _, events, _ = run(World(), slots)
    ended = next(at for at, trial in enumerate(events) if trial.state == "complete")
    assert [trial.number for trial in events[: ended + 1]] == [0, 0]


@pytest.mark.parametrize(("budget", "probed"), [(24.0, ["net_a"]), (50.0, ["net_a", "net_b"]), (80.0, list("abc"))])
def test_probes_beside_others_begin_where_their_estimate_fits_the_share(budget: float, probed: list[str]) -> None:
    search, _, _, _ = run(World(budget), 3)
    names = [trial.recipe.backbone for trial in search.trials if trial.recipe.kind == "probe"]
    assert names == [name if name.startswith("net_") else f"net_{name}" for name in probed]


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_search_whose_fine_tunes_all_fail_ends_however_many_run_at_a_time(slots: int) -> None:
    """Each takes another time to fail, so that some are always in work beside the newest that did."""

    class Slow(World):
        def __call__(self, assignment: Assignment) -> Iterator[Trial]:
            yield from itertools.repeat(assignment.trial, assignment.trial.number % 3)
            yield from super().__call__(assignment)

    world = Slow(fails=dict.fromkeys(range(3, 60), 0))
    search, _, _, reason = run(world, slots, make_task(max_trials=50))
    assert reason == "failures"
    failed = [trial for trial in search.trials if trial.state == "failed"]
    assert FAILURES_IN_A_ROW <= len(failed) < FAILURES_IN_A_ROW + slots


def test_what_beat_nothing_more_is_cancelled_once_validation_is_perfect() -> None:
    world = World(quality=lambda number: 1.1 if number == 4 else 0.5)
    task = make_task(n_val=200, max_trials=6, fixed={"epochs": 12})
    search, executor, _, reason = run(world, 3, task)
    assert reason == "converged"
    assert executor.cancelled
    assert all(search.trials[number].state == "stopped" for number in executor.cancelled)
    assert all(search.trials[number].attempt == 2 for number in executor.cancelled)  # whoever has it cannot write


def test_the_same_candidates_are_tried_however_many_at_a_time() -> None:
    alone, _, _, _ = run(World(), 1)
    together, _, _, _ = run(World(), 2)

    def points(search: Search) -> list[Any]:
        return [trial.parameters for trial in search.trials if trial.recipe.kind == "finetune"]

    assert points(alone) == points(together)


# --- lost -----------------------------------------------------------------------------------------------------------

LOSSES = st.dictionaries(
    st.tuples(st.integers(0, 7), st.integers(1, 3)),
    st.builds(Loss, st.integers(0, 3), st.booleans(), st.booleans()),
    max_size=12,
)


@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(losses=LOSSES, stale=st.booleans(), slots=st.sampled_from([1, 1, 3]))
def test_a_search_with_losses_ends_as_an_undisturbed_one(
    losses: dict[tuple[int, int], Loss], stale: bool, slots: int
) -> None:
    undisturbed, _, _, _ = run(World(), slots)
    search, executor, _, _ = run(World(), slots, losses=losses, stale=stale)
    if slots == 1:
        assert outcome(search) == outcome(undisturbed)
    assert len(search.trials) == len(undisturbed.trials)
    epochs = [(number, done) for number, done in executor.world.work_done if done]
    lost = sum(1 for key in losses if key in executor.disk.claims)
    assert len(epochs) - len(set(epochs)) <= lost  # what a record has is never trained again


def test_a_lost_trial_goes_on_from_its_record() -> None:
    search, executor, _, _ = run(World(), 1, losses={(3, 1): Loss(after=1)})
    trial = search.trials[3]
    assert (trial.attempt, trial.notes["lost"], trial.notes["lost_why"]) == (2, 1, "it was killed")
    assert [done for number, done in executor.world.work_done if number == 3][:3] == [1, 2, 3]


@pytest.mark.parametrize("number", [0, 3])
def test_what_was_lost_too_often_failed_and_the_others_go_on(number: int) -> None:
    losses = {(number, attempt): Loss(after=0) for attempt in range(1, MOST_LOST + 2)}
    search, executor, _, reason = run(World(), 2, losses=losses)
    trial = search.trials[number]
    assert trial.state == "failed"
    assert "lost 4 times" in trial.error
    assert "it was killed" in trial.error
    assert [attempt for each, attempt in executor.disk.claims if each == number] == [1, 2, 3, 4]
    assert trial.attempt == 5  # whoever has it wakes up in vain
    assert reason == "trials"


def test_what_was_taken_away_as_announced_is_not_counted() -> None:
    losses = {(3, attempt): Loss(after=0, preempted=True) for attempt in range(1, 9)}
    search, _, _, _ = run(World(), 2, losses=losses)
    assert search.trials[3].state != "failed"
    assert (search.trials[3].attempt, search.trials[3].notes["lost"]) == (9, 0)


def test_a_trial_that_was_committed_is_not_run_again_though_nobody_told() -> None:
    losses = {(0, 1): Loss(after=0, told=False), (3, 1): Loss(after=1, told=False)}
    search, executor, _, _ = run(World(), 1, losses=losses)
    assert [number for number, _ in executor.world.work_done].count(0) == 1
    assert search.trials[0].state == "complete"
    assert search.trials[0].attempt == 1
    assert executor.disk.claims.count((3, 1)) >= 1


def test_late_reports_of_a_lost_attempt_change_nothing() -> None:
    clean, _, _, _ = run(World(), 1, losses={(3, 1): Loss(after=1)})
    haunted, _, events, _ = run(World(), 1, losses={(3, 1): Loss(after=1)}, stale=True)
    assert outcome(haunted) == outcome(clean)
    assert all(trial.score != 1.0 for trial in events)


def test_a_trial_that_is_lost_when_the_time_is_over_is_not_begun_again() -> None:
    world = World(budget=3 * 5.0 + 25.0)
    losses = {(number, attempt): Loss(after=1) for number in range(3, 9) for attempt in range(1, 3)}
    search, _, _, reason = run(world, 1, losses=losses)
    assert reason == "budget"
    assert {trial.state for trial in search.trials} <= {"complete", "stopped"}


def test_a_trial_that_is_lost_when_the_user_stops_waits_for_the_next_session() -> None:
    world = World(stop_at=3 * 5.0 + 12.0)
    search, executor, _, reason = run(world, 1, losses={(3, 1): Loss(after=1)})
    assert reason == "interrupted"
    assert search.trials[3].state == "paused"
    on_disk = [executor.disk.record(trial.number) for trial in search.trials]
    again, _, _, _ = run(World(), 1, history=[trial for trial in on_disk if trial is not None])
    undisturbed, _, _, _ = run(World(), 1)
    assert outcome(again) == outcome(undisturbed)


def test_a_driver_that_died_counts_its_attempts_on() -> None:
    history = [probe(0, state="running"), probe(1, backbone="net_b"), probe(2, backbone="net_c")]
    history = [each.replace(seconds_per_image=0.01) for each in history]
    search, executor, _, _ = run(World(), 2, history=history)
    assert search.trials[0].attempt == 2
    assert math.isfinite(search.trials[-1].score or math.inf)
    assert len(set(executor.disk.claims) & {(1, 1), (2, 1)}) == 0
