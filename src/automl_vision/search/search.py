"""The search: linear probes first, then another head if one is wanted, then fine-tunes that the scheduler advances.

`search` yields every trial as it changes; showing and saving are the caller's loop.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from automl_vision.executors import Executor, Report
from automl_vision.models.heads import LINEAR
from automl_vision.models.symmetry import UNTESTED
from automl_vision.search.costs import TRIAL_OVERHEAD, CostModel
from automl_vision.search.portfolio import FROZEN_STAGES, SHORT_STEPS, portfolio
from automl_vision.search.prior import rate_at_batch, recipe_prior, traits_of
from automl_vision.search.run_trial import PROBE_ROWS, Assignment
from automl_vision.search.samplers import propose
from automl_vision.search.scheduler import Candidate, Continue, Decision, Finish, Scheduler, Start, rungs
from automl_vision.search.space import Space, fine_tuning_space
from automl_vision.search.trial import Trial, best_trial, is_too_large
from automl_vision.training.recipe import Recipe

#: Why a search ended, and how the report says it.
STOP_REASONS: dict[str, str] = {
    "budget": "the time budget was used",
    "trials": "the number of trials was reached",
    "converged": "validation leaves nothing to gain",
    "failures": "the newest fine-tunes all failed",
    "interrupted": "stopped by the user",
}

#: Epochs of a full schedule, for fewer training images than this.
HORIZONS = ((300, 30), (2_000, 12), (20_000, 12))
HORIZON_LARGE = 6
#: A schedule of fewer optimizer steps than this ends before a few images are learnt (docs/LOG.md).
FEWEST_STEPS = 120
#: Candidates are compared at rungs when there is time for this many whole fine-tunes, else one is trained in one go.
ENOUGH_TO_COMPARE = 2.0
#: A first fine-tune is tried where this share of an epoch fits: the estimate rests on a few seconds that may have been
#: busy ones, the deadline ends what does not fit, and a fine-tune that came to nothing is not chosen.
WORTH_A_TRY = 0.3
#: Probes after the first are started only while they have used less than this share of the time.
PROBE_SHARE = 0.25
#: After so many failures in a row nothing new is started: their fault is one that no other recipe will cure.
FAILURES_IN_A_ROW = 10
#: How often a trial goes on elsewhere after whoever worked on it was lost: what kills four workers is the trial.
MOST_LOST = 3
#: What a place further down in the portfolio is worth, as a share of candidates that are beaten.
PORTFOLIO_STEP = 0.02
#: What a standard deviation of the probes' scores is worth.
PROBE_STEP = 0.05
#: Validation cannot tell perfect from nearly perfect below this many images.
CONVERGENCE_IMAGES = 200


def _unknown(_name: str) -> None:
    """A figure that nobody gave."""


def _always(_recipe: Recipe) -> bool:
    """A limit that nobody set."""
    return True


@dataclass(frozen=True)
class SearchTask:
    """What is searched.

    Attributes:
        backbones: candidates, in the order in which they are probed.
        pretrained: which of them start from pretrained weights.
        resolutions: sides of the input, best first.
        fixed: fields of `Recipe` that the user pinned.
        n_train, n_val: images trained on and validated with.
        gmacs: multiply-adds of a backbone at 224 px in 1e9, None where unknown.
        sampler: a name of `samplers.SAMPLERS`.
        head: "linear", or a name of `head_choice.HEAD_KINDS` that is tried besides.
        max_trials: fine-tunes at most; 0 for no limit.
        seed: of the sampler and of every recipe.
        imagenet_top1: of a backbone in percent, None where unknown.
        imbalance: training images of the largest class over those of the smallest.
        stochastic_depth: those of `backbones` that have it.
        sides: backbone -> those of `resolutions` at which it may be tried, at least one; no entry for all of them.
        may_ship: whether a recipe keeps to the limits of the model, as far as that is known before it is timed.
        share: of the machine that each trial has, in (0, 1]; what was timed with another share is scaled to it.
    """

    backbones: tuple[str, ...]
    pretrained: bool
    resolutions: tuple[int, ...]
    fixed: Mapping[str, Any]
    n_train: int
    n_val: int
    gmacs: Callable[[str], float | None]
    sampler: str = "tpe"
    head: str = "linear"
    max_trials: int = 0
    seed: int = 0
    imagenet_top1: Callable[[str], float | None] = _unknown
    imbalance: float = 1.0
    stochastic_depth: tuple[str, ...] = ()
    sides: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    may_ship: Callable[[Recipe], bool] = _always
    share: float = 1.0

    def first_side(self, name: str) -> int:
        """The side that a backbone is probed at."""
        return self.sides.get(name, self.resolutions)[0]

    def allowed(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point of the space at a side that its backbone may be tried at: the largest below its own, or the first."""
        sides = self.sides.get(point["backbone"], self.resolutions)
        if point["resolution"] in sides:
            return dict(point)
        below = [side for side in sides if side < point["resolution"]]
        return {**point, "resolution": max(below, default=sides[0])}

    @property
    def one_recipe(self) -> bool:
        """Whether the user asked for one fine-tune and gave values for it: it is trained, whatever the probes say."""
        return self.max_trials == 1 and bool(self.fixed)

    @property
    def needs_probes(self) -> bool:
        """Whether linear probes have a use: they choose, time the machine and start heads; one recipe may want none."""
        unused = self.one_recipe and self.fixed.get("head_from_probe") is False and self.head == LINEAR
        return not (unused and len(self.backbones) == 1)

    def candidates(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials of which the best becomes the model: all, but the one recipe alone as soon as it has a score."""
        trials = [trial for trial in trials if self.may_ship(trial.recipe)]
        asked_for = [trial for trial in trials if trial.recipe.kind == "finetune" and trial.score is not None]
        return asked_for if self.one_recipe and asked_for else trials

    def space(self, heads: Mapping[str, str], symmetries: Mapping[str, bool] = UNTESTED, horizon: int = 0) -> Space:
        """The space of fine-tunes.

        Args:
            heads: those adopted besides the linear one, by backbone.
            symmetries: flips and turns (fields of `Recipe`) that keep the class of an image.
            horizon: epochs of a full schedule.
        """
        return fine_tuning_space(
            backbones=self.backbones,
            resolutions=self.resolutions,
            pretrained=self.pretrained,
            n_train=self.n_train,
            fixed={name: value for name, value in self.fixed.items() if name != "epochs"},
            heads=heads,
            horizon=horizon,
            imbalance=self.imbalance,
            symmetries=symmetries,
            stochastic_depth=self.stochastic_depth,
        )


class Records(Protocol):
    """The durable records of trials: what is told of them by whoever is gone does not count, they do."""

    def claim(self, trial: Trial) -> Trial:
        """Make durable that an attempt begins; the trial with its number, which is no other start's."""
        ...

    def record(self, number: int) -> Trial | None:
        """The newest record of a trial; None where there is none."""
        ...


class NoRecords:
    """Trials that leave nothing behind."""

    def claim(self, trial: Trial) -> Trial:
        """The trial as it is."""
        return trial

    def record(self, _number: int) -> Trial | None:
        """None."""
        return None


@dataclass(frozen=True)
class SearchEnded:
    """The last event: why the search ended (a key of `STOP_REASONS`)."""

    reason: str


class Search:
    """One search over one history. Iterate over it; `trials` is the history as it grows.

    Args:
        task: what is searched.
        executor: where trials run.
        history: trials of an earlier session of the same run.
        seconds_left: seconds until the search must end; at or below 0 it ends at the next event.
        interrupted: whether the user asked to stop.
        first_number: new trials are not numbered below it, where the run has trials of other searches.
        records: of the trials; attempts are claimed there, and a lost trial goes on from what is there.
    """

    def __init__(
        self,
        task: SearchTask,
        executor: Executor[Assignment, Trial],
        history: Sequence[Trial],
        *,
        seconds_left: Callable[[], float],
        interrupted: Callable[[], bool] = lambda: False,
        first_number: int = 0,
        records: Records | None = None,
    ) -> None:
        self.task = task
        self._executor = executor
        self._seconds_left = seconds_left
        self._interrupted = interrupted
        self._first_number = first_number
        self._trials: dict[int, Trial] = {}
        self._in_work: dict[int, Assignment] = {}
        self._scheduler = Scheduler(lambda trial: self._epoch_seconds(trial.recipe), overhead=TRIAL_OVERHEAD)
        for trial in history:
            self._put(_adopted(trial, task))
        self._earlier = frozenset(self._trials)  # what did not fit then may fit now: memory is another, or free again
        self._records = records or NoRecords()
        self._testers: set[int] = set()  # probes that were asked for the symmetries of the classes
        self._again: list[tuple[Trial, int]] = []  # lost, and not submitted again yet
        self._time = 0.0  # seconds that the whole search has, known when it begins

    @property
    def trials(self) -> list[Trial]:
        """All trials by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def space(self) -> Space:
        """The space of fine-tunes, with the head that was adopted; it stays as it was when the first of them began."""
        begun = self._fine_tunes()
        horizon = begun[0].recipe.epochs if begun else self._marks()[-1]
        return self.task.space(adopted_heads(self.trials), allowed_symmetries(self.trials), horizon)

    def __iter__(self) -> Iterator[Trial | SearchEnded]:
        self._time = max(self._seconds_left(), 0.0)
        yield from self._probe_backbones()
        yield from self._try_another_head()
        yield from self._fine_tune()
        reason = self._reason_to_stop() or self._reason_to_start_no_more() or "budget"
        if reason != "interrupted":
            yield from self._give_up(trial.number for trial in self.trials if trial.state == "paused")
        yield SearchEnded(reason)

    # --- stages -------------------------------------------------------------------------------------------------

    def _probe_backbones(self) -> Iterator[Trial]:
        """All of them, and their ends: what is tried then, and how, depends on what they say."""
        yield from self._submit_probes()
        yield from self._await_all()

    def _submit_probes(self) -> Iterator[Trial]:
        if not self._needs_probes:
            return
        for name in self.task.backbones:
            resolution = self.task.first_side(name)
            if any(_is_probe_of(trial, name, resolution) for trial in self.trials):
                continue
            if self._out_of_time() or (self._trials and self._share_used() > PROBE_SHARE):
                return
            recipe = Recipe(
                kind="probe",
                backbone=name,
                resolution=resolution,
                pretrained=self.task.pretrained,
                augment="none",
                head_from_probe=False,
                seed=self.task.seed,
            )
            if self._beside_others and not self._ends_in_time(recipe):
                continue
            yield self._submit(self._new_trial(recipe, {}, "probe"), until=0)
            # The first one times the machine: before it ended, nobody knows how many others there is time for.
            while not self._executor.free_slots or (self._busy and not self._timed):
                yield from self._collect()

    @property
    def _beside_others(self) -> bool:
        """Whether several trials run at a time: then what is in work did not use its part of the time yet."""
        return self._executor.free_slots + len(self._in_work) > 1

    @property
    def _timed(self) -> bool:
        return any(trial.seconds_per_image > 0 for trial in self.trials)

    def _ends_in_time(self, probe: Recipe) -> bool:
        """Whether a probe that begins now is expected to end within the probes' share; so where nothing was timed."""
        if not self._timed or math.isinf(self._time):
            return True
        rows = min(self.task.n_train, PROBE_ROWS) + self.task.n_val
        seconds = rows * self._costs.forward(probe) + TRIAL_OVERHEAD
        return self._share_used() + seconds / self._time <= PROBE_SHARE

    def _try_another_head(self) -> Iterator[Trial]:
        """On the features of the best probe. Fine-tunes wait for it: it decides which space they are of."""
        if self.task.head == LINEAR:
            return
        best = max(
            (trial for trial in self.trials if _is_complete_probe(trial)), key=lambda each: each.rank, default=None
        )
        if best is None or self._out_of_time() or any(_tells_of_head(trial) for trial in self.trials):
            return
        recipe = dataclasses.replace(best.recipe, kind="head")
        yield self._submit(self._new_trial(recipe, {}, self.task.head, notes=_without_losses(best)), until=0)
        yield from self._await_all()

    def _fine_tune(self) -> Iterator[Trial]:
        while True:
            while self._executor.free_slots and not self._again and not self._reason_to_stop():
                yield from self._give_up(self._scheduler.surplus())
                marks = self._marks()
                decision = self._decide(marks)
                if isinstance(decision, Finish):
                    break
                yield self._submit(*self._chosen(decision))
            if self._reason_to_stop() == "converged":
                yield from self._cancel_others()
            if not self._busy:
                return
            yield from self._collect()

    def _decide(self, marks: tuple[int, ...]) -> Decision:
        may_start = marks[-1] > 0 and not self._reason_to_start_no_more()
        return self._scheduler.next(self._seconds_left(), self._waiting(marks) if may_start else ())

    def _chosen(self, decision: Start | Continue) -> tuple[Trial, int]:
        if isinstance(decision, Start):
            return self._begun(decision.candidate), decision.until
        return self._trials[decision.number], decision.until

    def _put(self, trial: Trial) -> Trial:
        """Take the newest state of a trial; until its work ended, the scheduler leaves it alone."""
        self._trials[trial.number] = trial
        if trial.recipe.kind == "finetune":
            self._scheduler.tell(trial.replace(state="running") if trial.number in self._in_work else trial)
        return trial

    @property
    def _busy(self) -> bool:
        """Whether anything is in work, or is going to be once there is a slot for it."""
        return bool(self._in_work or self._again)

    def _await_all(self) -> Iterator[Trial]:
        while self._busy:
            yield from self._collect()

    def _submit(self, trial: Trial, until: int) -> Trial:
        started = self._put(self._records.claim(trial.replace(state="running")))
        others = [each for each in self.trials if each.number != trial.number]
        tests = not self._symmetries_are_tested(others)
        if tests and trial.recipe.kind == "probe":
            self._testers.add(trial.number)
        assignment = Assignment(started, until, _fitted_heads(others), tests)
        self._in_work[trial.number] = assignment
        self._executor.submit(started.number, started.attempt, assignment)
        return started

    def _symmetries_are_tested(self, others: Iterable[Trial]) -> bool:
        """Whether a probe told which symmetries the classes have, or is about to: one that failed told nothing."""
        return any(
            "symmetries" in trial.notes or (trial.number in self._testers and trial.state in ("running", "complete"))
            for trial in others
        )

    def _collect(self) -> Iterator[Trial]:
        """Take the executor's reports; one of an attempt that was replaced or cancelled is dropped."""
        for report in self._executor.poll():
            if report.number not in self._in_work or report.attempt < self._in_work[report.number].trial.attempt:
                continue
            if report.lost:
                yield from self._lost(report)
                continue
            if report.progress is not None:
                yield self._put(report.progress)
            if report.ended:
                del self._in_work[report.number]
                yield from self._without_end(self._put(self._trials[report.number]))
        yield from self._submit_again()

    def _lost(self, report: Report[Trial]) -> Iterator[Trial]:
        """Whoever worked on a trial is gone: its newest record counts, and where that has no end, it goes on.

        What is written of it here is of a later attempt, so that whoever was lost cannot write over it.
        """
        assignment = self._in_work.pop(report.number)
        newest = self._records.record(report.number) or assignment.trial
        attempt = assignment.trial.attempt + 1
        if newest.state != "running":  # it was over, and nobody was left to tell
            yield self._put(newest.replace(attempt=attempt) if newest.state == "paused" else newest)
            return
        times = assignment.trial.notes.get("lost", 0) + (not report.preempted)
        notes = {**newest.notes, "lost": times, "lost_why": report.lost}
        trial = newest.replace(attempt=attempt, notes=notes)
        if times > MOST_LOST:
            error = f"whoever worked on it was lost {times} times, at last because {report.lost}"
            yield self._put(trial.replace(state="failed", error=error))
            return
        self._again.append((trial, assignment.until))
        yield self._put(trial)

    def _submit_again(self) -> Iterator[Trial]:
        """Trials that were lost come before others; they wait where the search is over."""
        if self._reason_to_stop():
            waiting, self._again = self._again, []
            for trial, _ in waiting:
                yield self._put(trial.replace(state="paused"))
        while self._again and self._executor.free_slots:
            yield self._submit(*self._again.pop(0))

    def _cancel_others(self) -> Iterator[Trial]:
        """Nothing is left to gain: trials in work beside the best are given up, as of what is on disk of them."""
        best = best_trial(self.trials)
        for number in [each for each in self._in_work if best is None or each != best.number]:
            assignment = self._in_work.pop(number)
            self._executor.cancel(number)
            newest = self._records.record(number) or assignment.trial
            attempt = assignment.trial.attempt + 1  # whatever it still writes is of no interest
            yield self._put(newest if newest.state != "running" else newest.replace(state="paused", attempt=attempt))

    def _without_end(self, trial: Trial) -> Iterator[Trial]:
        """A trial whose work is over must have said how it ended, or it would wait for ever."""
        if trial.state == "running":
            yield self._put(trial.replace(state="failed", error="its work ended without a result"))

    def _give_up(self, numbers: Iterable[int]) -> Iterator[Trial]:
        for number in numbers:
            yield self._put(self._trials[number].replace(state="stopped"))

    # --- what next ----------------------------------------------------------------------------------------------

    def _waiting(self, marks: tuple[int, ...]) -> list[Candidate]:
        """What may start: default recipes that were not tried yet; where there are none, what the sampler proposes."""
        queue = portfolio(
            self.space,
            backbones=self._ranked_backbones(),
            resolutions=self.task.resolutions,
            pretrained=self.task.pretrained,
            steps=self._steps(marks[-1]),
        )
        queue = tuple(_each_once(self.task.allowed(point) for point in queue))
        tried = [trial.parameters for trial in self._fine_tunes()]
        own = [trial for trial in self.trials if trial.number not in self._earlier]
        untried = [
            (place, point)
            for place, point in enumerate(queue)
            if point not in tried and not is_too_large(self._recipe(point, marks), own)
        ]
        if not untried:
            return [Candidate(None, marks, epoch_seconds=self._to_expect(self._likely_recipe(), marks))]
        return [self._candidate(point, marks, place) for place, point in untried]

    def _candidate(self, point: Mapping[str, Any], marks: tuple[int, ...], place: int) -> Candidate:
        recipe = self._recipe(point, marks)
        expected = self._expected(recipe) - PORTFOLIO_STEP * place
        return Candidate(point, marks, expected, self._to_expect(recipe, marks))

    def _begun(self, candidate: Candidate) -> Trial:
        """The trial that a candidate becomes when it starts."""
        space = self.space
        known = candidate.key is not None
        proposed = candidate.key if known else propose(self.task.sampler, space, self.trials, seed=self.task.seed)
        point = self.task.allowed(proposed)
        origin = "portfolio" if known else self.task.sampler
        marks = candidate.rungs
        recipe = self._recipe(point, marks)
        notes = {"rungs": list(marks), "steps": self._steps(marks[-1], recipe.effective_batch)}
        return self._new_trial(recipe, point, origin, notes=notes)

    def _recipe(self, point: Mapping[str, Any], marks: tuple[int, ...]) -> Recipe:
        rules = {
            "schedule": "cosine" if len(marks) == 1 else "trapezoid",
            **self.task.fixed,
        }
        changes = {**rules, "epochs": marks[-1], "pretrained": self.task.pretrained, "seed": self.task.seed}
        recipe = self.space.recipe(point, **changes)
        if "ema" not in self.task.fixed:  # an average over few steps lags behind
            enough = self._steps(marks[-1], recipe.effective_batch) > SHORT_STEPS
            recipe = dataclasses.replace(recipe, ema=enough)
        if "learning_rate" in self.task.fixed:
            return recipe
        rate = rate_at_batch(recipe.learning_rate, recipe.effective_batch, recipe.optimizer)
        return dataclasses.replace(recipe, learning_rate=rate)  # points of the space are for a batch of 32

    def _expected(self, recipe: Recipe) -> float:
        """The share of recipes that one is expected to beat: what others measured, and what the probes say here."""
        probe = PROBE_STEP * self._probe_deviation(recipe.backbone)
        if not recipe.pretrained:
            return probe  # the prior knows of fine-tunes only
        return probe + recipe_prior()(traits_of(recipe, self.task.imagenet_top1(recipe.backbone)))

    def _probe_deviation(self, name: str) -> float:
        """By how many standard deviations the probe of a backbone is above the mean of all; 0 where there is none."""
        probes = [trial for trial in self.trials if trial.recipe.kind == "probe" and trial.score is not None]
        scores = {trial.recipe.backbone: float(trial.score or 0.0) for trial in probes}
        spread = statistics.pstdev(scores.values()) if scores else 0.0
        return (scores[name] - statistics.fmean(scores.values())) / spread if spread and name in scores else 0.0

    def _new_trial(self, recipe: Recipe, point: Mapping[str, Any], origin: str, **fields: Any) -> Trial:
        number = max([self._first_number - 1, *self._trials]) + 1
        return Trial(number=number, recipe=recipe, parameters=dict(point), origin=origin, **fields)

    def _ranked_backbones(self) -> tuple[str, ...]:
        """Probed backbones, best probe first, then the others."""
        probes = [trial for trial in self.trials if trial.recipe.kind == "probe"]
        probes.sort(key=lambda trial: trial.rank, reverse=True)
        ranked = [trial.recipe.backbone for trial in probes if trial.state == "complete"]
        return (*ranked, *(name for name in self.task.backbones if name not in ranked))

    # --- time ---------------------------------------------------------------------------------------------------

    def _marks(self) -> tuple[int, ...]:
        """Epochs after which candidates are compared; the last is the horizon of every schedule.

        Where there is time for one whole fine-tune at most, it is trained in one go, shortened to fit; comparing
        beginnings would leave no time for an end. The number is 0 where not even one epoch fits. One recipe that was
        asked for has nothing to be compared with.
        """
        begun = self._fine_tunes()
        first = tuple(begun[0].notes.get("rungs", ())) if begun else ()
        if len(first) > 1:
            return first  # what is compared must stay comparable
        wanted = int(self.task.fixed.get("epochs") or self._default_horizon())
        warm_up = float(self.task.fixed.get("warmup_fraction", Recipe.warmup_fraction)) * wanted
        affordable = self._affordable_epochs()
        if self.task.one_recipe:
            short = "epochs" not in self.task.fixed and affordable < wanted
            return (max(int(affordable), 1) if short else wanted,)
        if math.isinf(affordable):
            return rungs(wanted, warm_up)
        if affordable >= ENOUGH_TO_COMPARE * wanted and not begun:
            return rungs(wanted, warm_up)
        least = int(not begun and affordable >= WORTH_A_TRY)
        return (wanted if "epochs" in self.task.fixed else min(wanted, max(int(affordable), least)),)

    def _affordable_epochs(self) -> float:
        """Epochs of the likeliest recipe that fit into the time left; infinity where nobody knows."""
        epoch, left = self._epoch_seconds(self._likely_recipe()), self._seconds_left()
        return math.inf if math.isinf(epoch) or math.isinf(left) else (left - TRIAL_OVERHEAD) / epoch

    def _likely_recipe(self) -> Recipe:
        """As dear as the default recipes are."""
        frozen = FROZEN_STAGES if self.task.pretrained else 0
        name = self._ranked_backbones()[0]
        return Recipe(
            kind="finetune",
            backbone=name,
            resolution=self.task.first_side(name),
            freeze_stages=self.task.fixed.get("freeze_stages", frozen),
        )

    def _default_horizon(self) -> int:
        usual = next((epochs for limit, epochs in HORIZONS if self.task.n_train < limit), HORIZON_LARGE)
        return max(usual, math.ceil(FEWEST_STEPS / self._steps(1)))

    def _steps(self, epochs: int, batch: int = 0) -> int:
        """Optimizer steps of so many epochs, with so many images in each; 0 for those of the default recipes."""
        usual = int(self.task.fixed.get("batch_size", Recipe.batch_size))
        gathered = int(self.task.fixed.get("gradient_accumulation", 1))
        return epochs * math.ceil(self.task.n_train / (batch or usual * gathered))

    def _epoch_seconds(self, recipe: Recipe) -> float:
        return self._costs.epoch(recipe)

    @property
    def _costs(self) -> CostModel:
        task = self.task
        return CostModel(self.trials, task.gmacs, task.n_train, task.n_val, share=task.share)

    def _to_expect(self, recipe: Recipe, marks: tuple[int, ...]) -> float:
        """Seconds of an epoch as a candidate is judged by."""
        if self.task.one_recipe:
            return math.inf  # it starts, however long it takes; the deadline ends it
        seconds = self._epoch_seconds(recipe)
        return WORTH_A_TRY * seconds if marks == (1,) and not self._fine_tunes() else seconds

    def _share_used(self) -> float:
        return 1.0 - self._seconds_left() / self._time if self._time else 1.0

    @property
    def _needs_probes(self) -> bool:
        """Also where the budget asks how many epochs it affords: a probe times the machine."""
        must_time = "epochs" not in self.task.fixed and not math.isinf(self._seconds_left())
        return self.task.needs_probes or must_time

    def _out_of_time(self) -> bool:
        return self._interrupted() or self._seconds_left() <= 0

    def _reason_to_stop(self) -> str:
        if self._interrupted():
            return "interrupted"
        if self._seconds_left() <= 0:
            return "budget"
        return "converged" if self._converged() and not self.task.one_recipe else ""

    def _converged(self) -> bool:
        best = best_trial(self.trials)
        perfect = best is not None and best.score is not None and best.score >= 1.0 - 0.5 / max(self.task.n_val, 1)
        return perfect and self.task.n_val >= CONVERGENCE_IMAGES

    def _fine_tunes(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.recipe.kind == "finetune"]

    def _reason_to_start_no_more(self) -> str:
        """Why no new candidate may start; those that wait may still go on."""
        begun = self._fine_tunes()
        if self.task.max_trials and len(begun) >= self.task.max_trials:
            return "trials"
        # Those in work beside the failures say nothing yet.
        states = [trial.state for trial in begun if trial.state != "running"]
        return "failures" if states[-FAILURES_IN_A_ROW:] == ["failed"] * FAILURES_IN_A_ROW else ""


def _fitted_heads(trials: Iterable[Trial]) -> tuple[tuple[str, str, int], ...]:
    """(backbone, head, number) of the heads that were fitted to frozen features; later ones replace earlier ones."""
    done = (trial for trial in trials if trial.recipe.kind != "finetune" and trial.state == "complete")
    newest = {(trial.recipe.backbone, trial.recipe.head): trial.number for trial in done}
    return tuple((name, head, number) for (name, head), number in newest.items())


def _without_losses(trial: Trial) -> dict[str, Any]:
    """The notes of a trial that are about its features."""
    return {name: value for name, value in trial.notes.items() if name not in ("lost", "lost_why")}


def adopted_heads(trials: Sequence[Trial]) -> dict[str, str]:
    """Backbone -> the head that was adopted besides the linear one."""
    heads = [trial.recipe for trial in trials if trial.recipe.kind == "head" and trial.state == "complete"]
    return {recipe.backbone: recipe.head for recipe in heads}


def allowed_symmetries(trials: Sequence[Trial]) -> Mapping[str, bool]:
    """What the probes said before the first fine-tune began."""
    probes = itertools.takewhile(lambda trial: trial.recipe.kind != "finetune", trials)
    found = (trial.notes["symmetries"]["allowed"] for trial in probes if "symmetries" in trial.notes)
    return next(found, UNTESTED)


def _adopted(trial: Trial, task: SearchTask) -> Trial:
    """A trial that was in work when its process died waits, and its next start is a new attempt.

    One of a time when the batch was no dimension has the batch of its recipe in its point.
    """
    if trial.recipe.kind == "finetune" and "batch_size" not in task.fixed:
        trial = trial.replace(parameters={"batch_size": trial.recipe.batch_size, **trial.parameters})
    if trial.state != "running":
        return trial
    return trial.replace(state="paused", attempt=trial.attempt + 1)


def _each_once(points: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    for point in points:
        if point not in seen:
            seen.append(point)
            yield point


def _is_complete_probe(trial: Trial) -> bool:
    return trial.recipe.kind == "probe" and trial.state == "complete"


def _tells_of_head(trial: Trial) -> bool:
    """Whether a trial of another head came to an end; one that was interrupted did not."""
    return trial.recipe.kind == "head" and (trial.state == "failed" or "head_search" in trial.notes)


def _is_probe_of(trial: Trial, name: str, resolution: int) -> bool:
    recipe = trial.recipe
    same = recipe.kind == "probe" and (recipe.backbone, recipe.resolution) == (name, resolution)
    return same and trial.state in ("complete", "failed")
