"""The work of one trial: train a recipe up to a number of epochs, leaving a durable record after each."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.data.preprocess import SQUASH, Preprocessing
from automl_vision.errors import FileTooLarge, ResolutionError, ShortOfMemory, WeightsError
from automl_vision.metrics import METRICS
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import Classifier, build_classifier, placed, set_linear_head
from automl_vision.models.features import OutOfTime, extract_features
from automl_vision.models.head_choice import choose_head
from automl_vision.models.memory import is_out_of_memory, watched_memory
from automl_vision.models.probe import NoRoom, fit_probe, most_rows
from automl_vision.models.symmetry import (
    FEWEST_IMAGES,
    FOLDS,
    MOST_IMAGES,
    MOST_LEARNED,
    SYMMETRIES,
    Change,
    Changed,
    compare_symmetries,
    not_tested,
    shown_rows,
)
from automl_vision.models.weights import WeightSource, load_weights
from automl_vision.place import Place
from automl_vision.runtime import Runtime
from automl_vision.search.costs import step_over_forward
from automl_vision.search.trial import EpochRecord, Trial
from automl_vision.search.trial_check import told_as_damage
from automl_vision.search.trial_files import HeldOut, TrialFiles, TrialReplaced
from automl_vision.search.trial_saver import TrialSaver
from automl_vision.training.batch_size import LearnedMemory
from automl_vision.training.compiling import StepCompiler
from automl_vision.training.loop import EpochResult, TooLittleMemory, Trainer, TrainingData, TrialFailed
from automl_vision.training.ranks import ALONE, OVER, RankLost, Ranks
from automl_vision.training.recipe import Recipe

#: How thoroughly a probe is fitted, best first: (folds of the cross-validation, how often they are dealt, penalties it
#: chooses from).
PROBE_LEVELS: tuple[tuple[int, int, tuple[float, ...]], ...] = (
    (5, 2, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    (5, 1, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    (3, 1, (0.03, 0.1, 1.0)),
    (2, 1, (0.1,)),
)
#: Up to so many rows, folds are dealt more than once: one deal is then a matter of luck.
REPEATED_ROWS = 2_000
#: Seconds on one thread per row, feature, class, fold (and the fit on all rows) and penalty; measured, see docs/LOG.md.
PROBE_UNIT_SECONDS = 6.5e-9
#: More rows than this change a linear head little, and their features would fill the memory.
PROBE_ROWS = 20_000
FEATURE_BATCH = 64
#: A probe is cut down to fewer images where their features would take more than this share of the time left.
PROBE_TIME = 0.5
FEWEST_PER_CLASS = 10
#: Testing which symmetries the classes have takes at most this share of the time left.
SYMMETRY_TIME = 0.05
#: Trying another head on the features of a probe takes at most this share of the time left.
HEAD_TIME = 0.3


class TrialInterrupted(Exception):
    """Raised by `TrialRunner.seconds_left` to leave a trial at once, as of its last checkpoint."""


@dataclass(frozen=True)
class Assignment:
    """What an executor is asked to do: train `trial` until `until` epochs are done.

    Attributes:
        trial: with the number of its attempt.
        until: epochs.
        heads: those that fine-tunes start with: (backbone, head, number of the trial that fitted it to features).
        tests_symmetries: whether this is the probe that tells whether images may be mirrored and turned.
    """

    trial: Trial
    until: int
    heads: tuple[tuple[str, str, int], ...] = ()
    tests_symmetries: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        heads = [list(head) for head in self.heads]
        return {
            "trial": self.trial.to_dict(),
            "until": self.until,
            "heads": heads,
            "tests_symmetries": self.tests_symmetries,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Assignment:
        """The assignment that `to_dict` wrote.

        Raises:
            KeyError, TypeError: the values are not those of an assignment.
        """
        heads = tuple((name, head, number) for name, head, number in values["heads"])
        return cls(Trial.from_dict(values["trial"]), values["until"], heads, values["tests_symmetries"])


@dataclass(frozen=True)
class _Frozen:
    """What a probe knows: features of training rows (n, D) with rows, labels, groups (n), of validation rows (m, D)."""

    rows: torch.Tensor
    train: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    val: NDArray[np.float32]
    seconds_per_image: float


@dataclass
class TrialRunner:
    """Everything that trials of one run share; called with an assignment it does the work.

    Attributes:
        data: the store with train and validation rows; all others are sealed in it.
        train_groups: (n_train) lineage group of each training row; probes keep groups whole when cross-validating.
        objective: a name of `METRICS`.
        runtime: device, precision, threads.
        files: where trials are kept.
        weights: pretrained weights per backbone; a backbone without an entry starts from random weights.
        seconds_left: seconds until trials must stop, asked at every step; may raise `TrialInterrupted`.
        history: trials of an earlier session; the heads of their probes start the fine-tunes.
        keeps_features: keep those of the best probe in memory, for another head.
        tests_symmetries: the first probe tells whether images may be mirrored and turned.
        learned: what its trials found out about memory.
        compiler: what compiles training steps, and what its trials found out about that.
        decode_side, resize: how squares are made of the images, see `data.preprocess.Preprocessing`.
        ranks: the processes that train every fine-tune together; the first of them does all else alone.
    """

    data: TrainingData
    train_groups: NDArray[np.int64]
    objective: str
    runtime: Runtime
    files: TrialFiles
    weights: Mapping[str, WeightSource]
    seconds_left: Callable[[], float]
    history: Sequence[Trial] = ()
    keeps_features: bool = False
    tests_symmetries: bool = False
    learned: LearnedMemory = field(default_factory=LearnedMemory)
    compiler: StepCompiler = field(default_factory=StepCompiler)
    decode_side: int = 0
    resize: str = SQUASH
    ranks: Ranks = ALONE
    _heads: dict[tuple[str, str], int] = field(default_factory=dict)
    _kept: dict[str, _Frozen] = field(default_factory=dict)
    _best_probe: float = -math.inf
    _pretrained: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for trial in self.history:
            self.learn(trial)
        self.tests_symmetries &= not any("symmetries" in trial.notes for trial in self.history)

    def learn(self, trial: Trial) -> None:
        """Take what came of a trial that another process ran: its head starts fine-tunes."""
        if trial.recipe.kind != "finetune" and trial.state == "complete":
            self._heads[trial.recipe.backbone, trial.recipe.head] = trial.number

    @property
    def known_heads(self) -> list[list[str | int]]:
        """Those that fine-tunes start with, as values of JSON: [backbone, head, number of the trial]."""
        return [[*names, number] for names, number in self._heads.items()]

    def take_heads(self, heads: Iterable[tuple[str, str, int]]) -> None:
        """Take those that another process knows."""
        self._heads.update({(name, head): number for name, head, number in heads})

    def __call__(self, assignment: Assignment) -> Iterator[Trial]:
        """Yield the trial after every epoch; the last one has its new state and is committed before it is seen.

        Nothing is yielded or written any more once a newer attempt of the trial was claimed.
        """
        self.take_heads(assignment.heads)
        work = {"probe": self._probe, "head": self._other_head, "finetune": self._fine_tune}[
            assignment.trial.recipe.kind
        ]
        latest = assignment.trial
        try:
            for latest in work(assignment):
                if latest.recipe.kind != "finetune":  # their records are written with their checkpoints
                    self.files.commit(latest)
                yield latest
        except TrialReplaced:
            return
        except TrialInterrupted:
            yield latest.replace(state="paused")
        except TooLittleMemory as error:
            yield from self._failed(latest, str(error), out_of_memory=True)
        except (TrialFailed, WeightsError, ResolutionError, FileTooLarge) as error:
            # Weights that cannot be had or kept, and images too small for a network: this candidate ends, not the run.
            yield from self._failed(latest, str(error))
        except NoRoom as error:
            yield from self._failed(latest, str(error), out_of_memory=True)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            yield from self._failed(latest, "not enough memory, not even for one image at a time", out_of_memory=True)

    def _timed(self, trial: Trial, seconds_per_image: float) -> Trial:
        """The trial with what it took here; the notes say where others run beside it. Nothing changes without a time.

        Both are of one moment: a trial that goes on with another share was timed with the earlier one until then.
        """
        if not seconds_per_image:
            return trial
        notes = {name: value for name, value in trial.notes.items() if name != "share"}
        share = {"share": self.runtime.share} if self.runtime.share < 1 else {}
        return trial.replace(seconds_per_image=seconds_per_image, notes={**notes, **share})

    def _failed(self, trial: Trial, error: str, **notes: Any) -> Iterator[Trial]:
        failed = trial.replace(state="failed", error=error, notes={**trial.notes, **notes})
        with contextlib.suppress(TrialReplaced):  # how this attempt ended is of no interest then
            self.files.commit(failed)
            yield failed

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """How images are prepared for the backbone of `recipe`."""
        mean, std = statistics(backbone(recipe.backbone))
        return Preprocessing(recipe.resolution, mean, std, resize=self.resize, decode_side=self.decode_side)

    def classifier(self, recipe: Recipe) -> Classifier:
        """A fresh network for `recipe`, with pretrained weights where there are any."""
        return build_classifier(
            recipe.backbone,
            self.data.num_classes,
            weights=self._start_weights(recipe),
            head=recipe.head,
            drop_path=recipe.drop_path,
            seed=recipe.seed,
            resolution=recipe.resolution,
        )

    def _start_weights(self, recipe: Recipe) -> dict[str, torch.Tensor] | None:
        source = self.weights.get(recipe.backbone)
        if source is None or not recipe.pretrained:
            return None
        if recipe.backbone not in self._pretrained:
            self._pretrained[recipe.backbone] = load_weights(source, backbone(recipe.backbone))
        return self._pretrained[recipe.backbone]

    # --- linear probe -------------------------------------------------------------------------------------------

    def _probe(self, assignment: Assignment) -> Iterator[Trial]:
        trial, started = assignment.trial, time.monotonic()
        net = placed(self.classifier(trial.recipe), self.runtime.device)
        frozen = self._frozen(net, trial.recipe)
        folds, repeats, strengths = self._thoroughness(frozen.train)
        probe = fit_probe(
            frozen.train,
            frozen.labels,
            frozen.groups,
            self.data.num_classes,
            strengths=strengths,
            folds=folds,
            repeats=repeats,
            seed=trial.recipe.seed,
            should_stop=lambda: self.seconds_left() <= 0,
        )
        set_linear_head(net, probe.weight, probe.bias)
        done = self._completed(trial, net, probe.probabilities(frozen.val))
        if done.score is not None:
            held_out = HeldOut(trial.number, done.score, frozen.rows.numpy(), probe.out_of_fold)
            self.files.keep_held_out(held_out, attempt=trial.attempt)
        self._keep(done, frozen)
        done = done.replace(
            seconds=time.monotonic() - started,
            notes={
                "strength": probe.strength,
                "trained_on": len(frozen.labels),
                "folds": folds,
                "repeats": repeats,
                **(self._symmetries(net, trial.recipe, frozen, probe.strength) if assignment.tests_symmetries else {}),
                **kept_notes(trial),
            },
        )
        yield self._timed(done, frozen.seconds_per_image)

    def _frozen(self, net: Classifier, recipe: Recipe) -> _Frozen:
        """Features of the validation rows, and of as many training rows as the time allows."""
        val, first_seconds = self._features(net, recipe, self.data.val_rows)
        chosen = self._affordable(first_seconds, val.shape[1], recipe.seed)
        train, forward_seconds = self._features(net, recipe, self.data.train_rows[chosen])
        return _Frozen(
            rows=self.data.train_rows[chosen],
            train=train,
            labels=self.data.train_labels[chosen].numpy(),
            groups=self.train_groups[chosen],
            val=val,
            seconds_per_image=forward_seconds,
        )

    def _completed(self, trial: Trial, net: Classifier, probabilities: NDArray[np.float32]) -> Trial:
        """A trial on frozen features that is done: its weights are saved, and its head starts fine-tunes."""
        self.files.save_result(trial.number, net.state_dict(), probabilities, attempt=trial.attempt)
        self._heads[trial.recipe.backbone, trial.recipe.head] = trial.number
        return trial.replace(
            state="complete",
            score=self._figure(self.objective, probabilities),
            loss=self._figure("log_loss", probabilities),
        )

    def _keep(self, probe: Trial, frozen: _Frozen) -> None:
        if self.keeps_features and probe.score is not None and probe.score > self._best_probe:
            self._best_probe, self._kept = probe.score, {probe.recipe.backbone: frozen}

    def _thoroughness(self, features: NDArray[np.float32]) -> tuple[int, int, tuple[float, ...]]:
        """The best of `PROBE_LEVELS` for so many rows whose fit takes no more than a share of time and memory."""
        unit = features.size * self.data.num_classes * PROBE_UNIT_SECONDS / self.runtime.threads
        fitting = [
            (folds, repeats, strengths)
            for folds, repeats, strengths in PROBE_LEVELS
            if (repeats == 1 or len(features) <= REPEATED_ROWS)
            and unit * (folds * repeats + 1) * len(strengths) <= PROBE_TIME * self.seconds_left()
            and len(features) <= most_rows(features.shape[1], self.data.num_classes, folds * repeats + 1)
        ]
        return fitting[0] if fitting else PROBE_LEVELS[-1]

    def _affordable(self, forward_seconds: float, dims: int, seed: int) -> NDArray[np.int64]:
        """Training rows whose features fit into a share of the time left: all of them, or as many of each class.

        Of many classes there are few each, as the memory allows, or one: where there is no room for those, fitting
        says so.
        """
        labels, classes = self.data.train_labels.numpy(), self.data.num_classes
        time_left, in_memory = self.seconds_left(), most_rows(dims, classes, PROBE_LEVELS[-1][0] + 1)
        affordable = min(PROBE_TIME * time_left / forward_seconds, PROBE_ROWS)
        if len(labels) <= min(affordable, in_memory):
            return np.arange(len(labels))
        fewest = int(max(min(FEWEST_PER_CLASS, in_memory / classes), 1))
        per_class = int(min(affordable, in_memory) / classes)
        order = np.random.default_rng(seed).permutation(len(labels))
        kept = [order[labels[order] == label][: max(per_class, fewest)] for label in np.unique(labels)]
        return np.sort(np.concatenate(kept))

    def _symmetries(self, net: Classifier, recipe: Recipe, frozen: _Frozen, strength: float) -> dict[str, Any]:
        """What the first probe notes of the symmetries of the classes."""
        if not self.tests_symmetries:
            return {}
        self.tests_symmetries = False
        left = self._seconds_unless_stopped()
        floor = (1 - SYMMETRY_TIME) * left
        shown = shown_rows(frozen.groups, self._shown_at_most(frozen, left), recipe.seed)
        if len(shown) < FEWEST_IMAGES:
            return {"symmetries": not_tested("too little time, or too few images")}
        try:
            changed = {
                name: self._changed_features(net, recipe, frozen.rows[shown], change, floor)
                for name, change in SYMMETRIES.items()
            }
        except OutOfTime:
            return {"symmetries": not_tested("its time was over")}
        try:
            found = compare_symmetries(
                frozen.train,
                frozen.labels,
                frozen.groups,
                self.data.num_classes,
                shown,
                changed,
                strength=strength,
                seed=recipe.seed,
            )
        except NoRoom:
            return {"symmetries": not_tested("too little memory")}
        return {"symmetries": found.to_dict()}

    def _shown_at_most(self, frozen: _Frozen, left: float) -> int:
        """How many images can be changed and looked at in the share of the time that this may take."""
        if math.isinf(left):
            return MOST_IMAGES
        learned = min(len(frozen.labels), MOST_LEARNED)
        unit = frozen.train.shape[1] * self.data.num_classes * PROBE_UNIT_SECONDS / self.runtime.threads
        looking = SYMMETRY_TIME * left - learned * FOLDS * unit
        return min(MOST_IMAGES, max(0, int(looking / (len(SYMMETRIES) * max(frozen.seconds_per_image, 1e-9)))))

    def _changed_features(
        self, net: Classifier, recipe: Recipe, rows: torch.Tensor, change: Change, floor: float
    ) -> NDArray[np.float32]:
        return extract_features(
            net.backbone,
            Changed(self.data.source, change),
            rows,
            self.preprocessing(recipe),
            self.runtime,
            batch_size=FEATURE_BATCH,
            should_stop=lambda: self._seconds_unless_stopped() < floor,
        )

    def _seconds_unless_stopped(self) -> float:
        """Seconds left, none where the user stopped the run: the probe is done by then, and is to be kept."""
        try:
            return self.seconds_left()
        except TrialInterrupted:
            return 0.0

    def _features(self, net: Classifier, recipe: Recipe, rows: torch.Tensor) -> tuple[NDArray[np.float32], float]:
        started = time.monotonic()
        try:
            features = extract_features(
                net.backbone,
                self.data.source,
                rows,
                self.preprocessing(recipe),
                self.runtime,
                batch_size=FEATURE_BATCH,
                should_stop=lambda: self.seconds_left() <= 0,
            )
        except OutOfTime:
            raise TrialFailed("the time ended before all features were extracted") from None
        if not np.isfinite(features).all():
            raise TrialFailed("the features of the images are not finite")
        return features, (time.monotonic() - started) / max(len(rows), 1)

    def _figure(self, metric: str, probabilities: NDArray[Any]) -> float:
        value = METRICS[metric].function(self.data.val_labels.numpy(), np.asarray(probabilities, dtype=np.float64))
        if value is None:
            raise TrialFailed(f"{metric} is undefined on the validation set")
        return float(value)

    # --- another head -------------------------------------------------------------------------------------------

    def _other_head(self, assignment: Assignment) -> Iterator[Trial]:
        """Try another head on the features of the probe; a trial without a score says that the linear one stays."""
        trial, started = assignment.trial, time.monotonic()
        floor = (1 - HEAD_TIME) * self.seconds_left()
        frozen = self._kept.pop(trial.recipe.backbone, None)
        if frozen is None:  # an earlier session probed it
            frozen = self._frozen(placed(self.classifier(trial.recipe), self.runtime.device), trial.recipe)
        choice = choose_head(
            trial.origin,
            frozen.train,
            frozen.labels,
            frozen.groups,
            self.data.num_classes,
            strength=trial.notes["strength"],
            balanced=self.objective != "accuracy",
            seed=trial.recipe.seed,
            should_stop=lambda: self.seconds_left() <= floor < math.inf,
        )
        trial = trial.replace(state="stopped", notes={**trial.notes, "head_search": choice.to_dict()})
        if choice.module is not None:
            trial = trial.replace(recipe=dataclasses.replace(trial.recipe, head=choice.candidate))
            net = self.classifier(trial.recipe)
            net.head.load_state_dict(choice.module.state_dict())
            with torch.inference_mode():
                probabilities = net.head.eval()(torch.from_numpy(frozen.val)).softmax(dim=1).numpy()
            trial = self._completed(trial, net, probabilities)
        yield trial.replace(seconds=time.monotonic() - started)

    # --- fine-tune ----------------------------------------------------------------------------------------------

    def follow(self, assignment: Assignment) -> None:
        """Take part in the work of the first rank, which decides, and writes files.

        Raises:
            RankLost, RanksDiffer: the other ranks are gone, or hold other weights.
            WeightsError: weights that the first rank has are not here.
        """
        if assignment.trial.recipe.kind == "finetune":
            self.take_heads(assignment.heads)
            _, trainer = self._trainer(assignment.trial)
            trainer.follow()

    def _fine_tune(self, assignment: Assignment) -> Iterator[Trial]:
        try:
            yield from self._fine_tuned(assignment)
        finally:
            self.ranks.say(OVER)

    def _fine_tuned(self, assignment: Assignment) -> Iterator[Trial]:
        trial, trainer = self._trainer(assignment.trial)
        saver = TrialSaver(self.files, trainer)
        if self.files.fenced and trial.attempt > 1 and trainer.has_begun:
            trial = saver.take_over(trial)
        if trial.epochs_done >= assignment.until:
            # The process died between writing the checkpoint and the record: all of the work was done before.
            trial = trial.replace(state="paused")
            self.files.commit(trial)
            yield trial
        while trial.epochs_done < assignment.until:
            try:
                with watched_memory(self.runtime.device) as peak:
                    result = trainer.run_epoch(partial(self._seconds_left_between_steps, saver, trial))
            except TrialInterrupted:
                yield saver.leave(trial).replace(state="paused")
                return
            except RankLost:
                saver.leave(trial)  # the step that failed changed nothing yet
                raise
            trial = trial.replace(peak_bytes=max(trial.peak_bytes, peak.bytes))
            advanced = self._advanced(trial, result, assignment.until)
            trial = saver.take(advanced)
            yield trial
            if trial.state != "running":
                return

    def _seconds_left_between_steps(self, saver: TrialSaver, trial: Trial) -> float:
        saver.between_steps(trial)
        return self.seconds_left()

    def _trainer(self, trial: Trial) -> tuple[Trial, Trainer]:
        """A trainer where the trial left off, or at its beginning where there is no checkpoint."""
        recipe = trial.recipe
        net = self.classifier(recipe)
        if recipe.head_from_probe:
            self.start_head(net, recipe)
        trainer = Trainer(
            recipe,
            self.data,
            net,
            self.preprocessing(recipe),
            self.runtime,
            lambda _labels, probabilities: self._figure(self.objective, probabilities),
            self.learned,
            self.compiler,
            self.ranks,
        )
        trial, checkpoint = self._left(trial)
        with told_as_damage(self.files.name_of_checkpoint(trial.number)):
            other = checkpoint is None or Trial.from_dict(checkpoint["trial"]).recipe != recipe
        if checkpoint is None or other:
            # A checkpoint of another recipe is what a trial left whose record was lost, and its number with it.
            return trial.replace(state="running", epochs=(), score=None, loss=None), trainer
        with told_as_damage(self.files.name_of_checkpoint(trial.number)):
            trainer.load_state(checkpoint["trainer"])
        known = Trial.from_dict(checkpoint["trial"])
        notes = {**known.notes, **kept_notes(trial)}
        return known.replace(state="running", attempt=trial.attempt, notes=notes), trainer

    def _left(self, trial: Trial) -> tuple[Trial, dict[str, Any] | None]:
        """The checkpoint of a trial; its notes name those that are there and cannot be read.

        Raises:
            TooLittleMemory: it does not fit. To begin anew would take as much, and lose what there is.
        """
        unread: list[Place] = []
        try:
            checkpoint = self.files.load_checkpoint(trial.number, unread.append)
        except ShortOfMemory as error:
            raise TooLittleMemory(f"too little memory for its checkpoint: {error.what}") from error
        told = {"unread": [str(file) for file in unread]} if unread else {}
        return trial.replace(notes={**trial.notes, **told}), checkpoint

    def start_head(self, net: Classifier, recipe: Recipe) -> None:
        """Start from the head that was fitted to frozen features, so that fine-tuning begins where that ended."""
        number = self._heads.get((recipe.backbone, recipe.head))
        fitted = self.files.load_result(number) if number is not None else None
        if fitted is not None:
            own = {name: tensor for name, tensor in fitted.weights.items() if name.startswith("head.")}
            net.head.load_state_dict({name.removeprefix("head."): tensor for name, tensor in own.items()})

    def _advanced(self, trial: Trial, result: EpochResult, until: int) -> Trial:
        """The trial with one more epoch."""
        record = EpochRecord(
            epoch=result.epoch,
            train_loss=result.train_loss if math.isfinite(result.train_loss) else None,
            val_loss=result.val_loss,
            score=result.score,
            learning_rate=result.learning_rate,
            seconds=result.seconds,
            cpu_seconds=result.cpu_seconds,
        )
        if not (math.isfinite(record.score) and math.isfinite(record.val_loss)):
            raise TrialFailed(f"the figures on the validation rows are not finite in epoch {record.epoch}")
        trial = self._timed(trial, _seconds_per_image(result, trial.recipe, len(self.data.val_rows)))
        return trial.replace(
            epochs=(*trial.epochs, record),
            seconds=trial.seconds + result.seconds,
            state=_next_state(result, until),
            notes=_with_step(trial, result),
        )


def kept_notes(trial: Trial) -> dict[str, Any]:
    """Notes that tell of workers and checkpoints that were lost with a trial: a checkpoint knows older ones."""
    return {name: trial.notes[name] for name in ("lost", "lost_why", "unread") if name in trial.notes}


def _next_state(result: EpochResult, until: int) -> str:
    """The state after an epoch: the schedule ended, the time ended, the rung was reached, or it goes on."""
    ended = {"horizon": "complete", "patience": "complete", "deadline": "stopped"}
    if result.finished:
        return ended[result.finished]
    return "paused" if result.epoch >= until else "running"


def _with_step(trial: Trial, result: EpochResult) -> dict[str, Any]:
    """The notes of a trial; they tell where memory was too small for the batch of its recipe, and of compiling."""
    smaller = 0 < result.micro_batch < trial.recipe.batch_size
    told = {"compiling": result.compiling} if result.compiling else {}
    return {**trial.notes, **told, **({"micro_batch": result.micro_batch} if smaller else {})}


def _seconds_per_image(result: EpochResult, recipe: Recipe, n_val: int) -> float:
    """Seconds of a training step per image, without compiling; validating costs a fraction of training."""
    equivalent = result.images + n_val / step_over_forward(recipe)
    return (result.seconds - result.compile_seconds) / equivalent if result.images else 0.0
