"""The training loop: one candidate, epoch by epoch, with every step under its own name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.backbones import backbone, freeze_first_stages
from automl_vision.models.classifier import Classifier
from automl_vision.models.image_source import release, resized_batches
from automl_vision.models.inference import fastest_training, logits, prepare, softmax, training_autocast
from automl_vision.runtime import Runtime
from automl_vision.training.batch_size import LearnedMemory, MicroBatch, is_out_of_memory
from automl_vision.training.batches import Batches, TrainingData
from automl_vision.training.compiling import Kind, StepCompiler, TrainingForward
from automl_vision.training.ema import WeightAverage
from automl_vision.training.epoch_scores import BestEpoch, EpochScores
from automl_vision.training.epoch_so_far import EpochSoFar
from automl_vision.training.failures import TooLittleMemory, TrialFailed
from automl_vision.training.losses import LOSSES
from automl_vision.training.memory_fit import MemoryFit
from automl_vision.training.optimizers import make_optimizer, set_learning_rate
from automl_vision.training.randomness import kept_globals, seed_globals
from automl_vision.training.ranks import (
    ALONE,
    GradientSum,
    LeftByFirst,
    RankLost,
    Ranks,
    RanksDiffer,
    Sittings,
    StepGate,
)
from automl_vision.training.recipe import Recipe
from automl_vision.training.sampling import SAMPLINGS, in_blocks
from automl_vision.training.schedule import SCHEDULES
from automl_vision.training.shared_statistics import Piece, SharedStatistics, pieces
from automl_vision.training.state_check import misfit

__all__ = ["EpochResult", "TooLittleMemory", "Trainer", "TrainingData", "TrialFailed"]

Finished = Literal["", "horizon", "patience", "deadline"]
Objective = Callable[[NDArray[np.int64], NDArray[np.float32]], float]

#: Seconds between two looks at the loss, each of which waits for the device.
_LOSS_CHECK_SECONDS = 1.0
#: Before the first validation was timed: its cost per image, as a share of a training step's.
_VALIDATION_SHARE = 0.5
#: Steps before its own in which a disk is told of a batch.
_STEPS_AHEAD = 2


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the images trained on; NaN where the deadline left no time for one step.
        val_loss: mean cross-entropy without smoothing.
        score: the objective on the validation rows.
        learning_rate: of the head, at the last step.
        seconds: wall clock, validation included.
        images: trained on in this epoch.
        finished: why the candidate is done ("horizon", "patience", "deadline"), or "" where it can go on.
        micro_batch: images that went through the network at once, at most.
        compile_seconds: of `seconds`, those in which steps were compiled.
        compiling: what the user should read of it; empty where there is nothing to say.
        cpu_seconds: of this process meanwhile.
    """

    epoch: int
    train_loss: float
    val_loss: float
    score: float
    learning_rate: float
    seconds: float
    images: int
    finished: Finished
    micro_batch: int = 0
    compile_seconds: float = 0.0
    compiling: str = ""
    cpu_seconds: float = 0.0


class Trainer:
    """Trains one classifier by one recipe.

    Order, augmentation, mixing and dropout depend on (seed, epoch, step) only: a trainer that loads the state of
    another, taken between any two steps, goes on, on the CPU, exactly as that one would have.

    Several ranks make the same steps as one, each with its part of every batch (dropout and drop path draw for each
    rank alone). The first of them is called as if it were alone; the others `follow`.

    Args:
        recipe: how to train.
        data: what on.
        classifier: with its initial weights; moved to the runtime's device and changed in place.
        preprocessing: input size, mean and std.
        runtime: device and precision.
        objective: (labels (m), probabilities (m, C)) to the score that is maximised.
        learned: what trials before it found out about memory, to which it adds; None where it is the only one.
        compiler: what compiles steps, and what trials before it found out about that; None compiles nothing.
        ranks: the processes that train this classifier together, all with the same arguments.

    Attributes:
        epoch: epochs that were trained and validated.
        finished: why the candidate is done, or "" where it can go on.
        probabilities: (m, C) of the validation rows, of the newest epoch.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        classifier: Classifier,
        preprocessing: Preprocessing,
        runtime: Runtime,
        objective: Objective,
        learned: LearnedMemory | None = None,
        compiler: StepCompiler | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.recipe = recipe
        self.data = data
        self.preprocessing = preprocessing
        self.runtime = runtime
        self.objective = objective
        self.ranks = ranks
        self.classifier = classifier.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        prepare(self.classifier, preprocessing.size, runtime)
        self._frozen = freeze_first_stages(self.classifier.backbone, recipe.freeze_stages)
        self._shares = SAMPLINGS[recipe.sampling].shares(data.train_labels, data.num_classes).to(runtime.device)
        self.optimizer = make_optimizer(self.classifier, recipe)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.training_dtype == "float16")
        self._maker = Batches(data, recipe, preprocessing.size, runtime.device, ranks)
        self.average = WeightAverage(self.classifier, self.total_steps) if recipe.ema else None
        self.learned = learned or LearnedMemory()
        self.micro_batch = MicroBatch(
            self.learned.at_most(recipe), runtime.device, self._release_images, self._heard_of_less_memory
        )
        self.forward = TrainingForward(self.classifier, runtime.device, compiler or StepCompiler())
        self._memory = MemoryFit(recipe, self.classifier, self.optimizer, preprocessing.size, runtime, self.learned)
        self._sum = GradientSum(ranks, [each for each in self.classifier.parameters() if each.requires_grad])
        self._fitted = False  # whether memory was looked at
        self._shares_statistics = False  # whether batch norm learns from a batch that several ranks share
        self._may_repeat = True  # a step that memory was too small for, without the other ranks
        self._lacking = torch.zeros((), device=runtime.device)  # ranks that had no memory for one image
        self._sittings = Sittings(ranks)
        self.epoch = 0
        self.finished: Finished = ""
        self.probabilities: NDArray[np.float32] = np.zeros((0, data.num_classes), dtype=np.float32)
        self._so_far = EpochSoFar.nothing(runtime.device)
        self._scores = EpochScores()
        self._validation_seconds: float | None = None

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        return len(self._batches(epoch=1))

    @property
    def total_steps(self) -> int:
        """Optimizer steps up to the horizon."""
        return self.steps_per_epoch * self.recipe.epochs

    def run_epoch(self, seconds_left: Callable[[], float] | None = None) -> EpochResult:
        """Train one epoch, or what is left of it, and validate.

        Args:
            seconds_left: asked before steps and while validating; training ends where what is left is needed to
                validate. What it raises leaves the epoch as it is then; `state` tells how far it is, also while this
                asks.

        Raises:
            TrialFailed: the loss or the scores of the network are not finite.
            TooLittleMemory: a single image is not expected to fit into memory.
            RankLost, RanksDiffer: the other ranks are gone, or hold other weights.
            RuntimeError: a single image did not fit into memory, or the candidate was finished before.
        """
        if self.finished:
            raise RuntimeError(f"this candidate is finished, got {self.finished=}")
        self._sittings.begin()
        self._so_far.watch.start()
        try:
            return self._epoch(seconds_left or _no_deadline)
        except RankLost:
            self.micro_batch.size = self._sittings.images_that_fit(self.micro_batch.size)
            raise
        except BaseException:
            self._sittings.leave()
            raise
        finally:
            self._so_far.watch.stop()

    def follow(self) -> None:
        """Take part in the epochs of the first rank until it says that this candidate is over.

        Raises:
            RankLost, RanksDiffer: the other ranks are gone, or hold other weights.
        """
        while self._sittings.follow():
            try:
                ask = self._sittings.unless_left()
                self._make_steps(_no_deadline, ask)
                self._judged_together(ask)
                self._end_epoch()
            except (LeftByFirst, TrialFailed):
                continue  # the first rank says what follows

    def _epoch(self, seconds_left: Callable[[], float]) -> EpochResult:
        cut = self._make_steps(seconds_left, seconds_left)
        val_loss, score = self._validate(seconds_left)
        so_far = self._end_epoch()
        self._keep_best(score, val_loss)
        self.finished = self._why_finished(score, cut)
        so_far.watch.stop()
        return EpochResult(
            epoch=self.epoch,
            train_loss=float(so_far.loss) / so_far.images if so_far.images else math.nan,
            val_loss=val_loss,
            score=score,
            learning_rate=self._learning_rate,
            seconds=so_far.watch.seconds,
            images=so_far.images,
            finished=self.finished,
            micro_batch=self.micro_batch.size,
            compile_seconds=self.forward.seconds,
            compiling=self.forward.note,
            cpu_seconds=so_far.watch.cpu_seconds,
        )

    def _make_steps(self, seconds_left: Callable[[], float], ask: Callable[[], Any]) -> bool:
        """Those of an epoch that are left; whether the deadline cut it short. `ask` while others are waited for."""
        self._training_mode()
        if not self._fitted:
            self._sittings.meet("ready", ask)  # one of them may have had images to decode
        self._fit_micro_batch()
        self._may_repeat = not self._shares_statistics
        if not self._shares_statistics:
            self.forward.begin_epoch(self._kind, self.recipe.epochs - self.epoch, seconds_left)
        cut = self._train(seconds_left)
        self._require_same()
        return cut

    def _end_epoch(self) -> EpochSoFar:
        """All of an epoch is done; how it went."""
        done, self._so_far = self._so_far, EpochSoFar.nothing(self.runtime.device)
        self.epoch += 1
        return done

    @property
    def has_begun(self) -> bool:
        """Whether there is a step that a checkpoint would keep."""
        return self.epoch > 0 or self._so_far.steps > 0

    @property
    def best_epoch(self) -> int:
        """The epoch that is kept: the newest whose score is within one standard error of the highest."""
        return self._scores.require_best().epoch

    def best_weights(self) -> dict[str, torch.Tensor]:
        """State dict of the classifier at its best epoch, on the CPU."""
        return self._scores.require_best().weights

    def last_weights(self) -> dict[str, torch.Tensor]:
        """State dict of the classifier (its running average, where there is one) as it is now, on the CPU."""
        copied: dict[str, torch.Tensor] = _copied(self._validated.state_dict())
        return copied

    def best_probabilities(self) -> NDArray[np.float32]:
        """(m, C) validation probabilities of the best epoch."""
        return self._scores.require_best().probabilities

    @property
    def best_score(self) -> float:
        """The objective at the best epoch."""
        return self._scores.require_best().score

    @property
    def best_loss(self) -> float:
        """Mean cross-entropy on the validation rows at the best epoch."""
        return self._scores.require_best().val_loss

    def state(self) -> dict[str, Any]:
        """All that going on needs, as copies on the CPU: tensors and plain types only."""
        live = {
            "recipe": self.recipe.to_dict(),
            "epoch": self.epoch,
            "so_far": self._so_far.state(),
            "finished": self.finished,
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state() if self.average else None,
            "micro_batch": self.micro_batch.size,
            "validation_seconds": self._validation_seconds,
            **self._scores.state(),
        }
        copied: dict[str, Any] = _copied(live)
        return copied

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, for the same recipe and data.

        Raises:
            ValueError: the state is of another recipe, or holds what `state` does not give; nothing was taken from it.
        """
        self._require_fitting(state)
        self.epoch, self.finished = state["epoch"], state["finished"]
        self._so_far = EpochSoFar.nothing(self.runtime.device)
        if "so_far" in state:  # older ones are of whole epochs
            self._so_far.load_state(state["so_far"])
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state(state["average"])
        self.micro_batch.size = min(self.micro_batch.size, state["micro_batch"])
        self._validation_seconds = state["validation_seconds"]
        self._scores.load_state(state)

    def _require_fitting(self, state: dict[str, Any]) -> None:
        """A state comes from a file, and whoever wrote that may have written anything."""
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        images, classes = len(self.data.val_rows), self.data.num_classes
        try:
            if Recipe.from_dict(state["recipe"]) != self.recipe:
                raise ValueError("this state belongs to another recipe")
            wrong = misfit(state, self.state(), parameters, images, classes, get_args(Finished))
        except (LookupError, TypeError, AttributeError, OverflowError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            raise ValueError(f"this state does not fit: {wrong[:200]}")

    @property
    def _learning_rate(self) -> float:
        return max(float(group["lr"] / group["lr_scale"]) for group in self.optimizer.param_groups)

    @property
    def _validated(self) -> Classifier:
        """The network whose weights are judged and kept."""
        return self.average.net if self.average else self.classifier

    def _batches(self, epoch: int) -> tuple[torch.Tensor, ...]:
        """Positions in `train_rows`, one tensor per step."""
        order = SAMPLINGS[self.recipe.sampling].order(self.data.train_labels, self.recipe.seed, epoch)
        if self.data.blocks is not None:
            order = in_blocks(order, self.data.blocks[self.data.train_rows], self.recipe.seed, epoch)
        parts = torch.split(order, self.recipe.effective_batch)
        # Batch norm cannot learn from a single image.
        return parts[:-1] if len(parts) > 1 and len(parts[-1]) < 2 else parts

    def _fit_micro_batch(self) -> None:
        """Once, before the first step: as many images at once as memory is expected to have room for, on every rank."""
        if self._fitted:
            return
        self._fitted = True
        self._require_same(self._place)
        lacking: TooLittleMemory | None = None
        try:
            self._memory.fit(self.micro_batch)
        except TooLittleMemory as error:
            lacking = error
        lowest = self.ranks.lowest(0 if lacking else self.micro_batch.size)
        if not lowest:
            raise lacking or TooLittleMemory("another process that trains with this one has too little memory")
        if self._shares_statistics:  # all go through their parts in the same number of pieces
            self.micro_batch.size = lowest

    @property
    def _place(self) -> dict[str, torch.Tensor]:
        """How far this rank is, to be compared with the others."""
        return {"epoch and step": torch.tensor([self.epoch, self._so_far.steps])}

    def _require_same(self, more: dict[str, torch.Tensor] | None = None) -> None:
        """All ranks hold the same weights, statistics and averages.

        Raises:
            RanksDiffer: they do not.
        """
        if self.ranks.alone:
            return
        averages = self.average.net.state_dict() if self.average else {}
        own = {**self.classifier.state_dict(), **{f"average of {name}": each for name, each in averages.items()}}
        differing = self.ranks.differing({**(more or {}), **own})
        if differing:
            names = ", ".join(differing[:3])
            raise RanksDiffer(f"{len(differing)} of {len(own)} tensors differ in epoch {self.epoch + 1}: {names}")

    def _kind(self) -> Kind:
        """What the steps on whole batches have in common with those of other trials."""
        recipe, whole = self.recipe, max(1, len(self.ranks.part(len(self._batches(epoch=1)[0]))))
        parts = math.ceil(whole / self.micro_batch.size)
        images = math.ceil(whole / parts)
        return Kind(
            network=(
                recipe.backbone,
                recipe.resolution,
                recipe.head,
                recipe.drop_path,
                recipe.freeze_stages,
                recipe.freeze_norm,
            ),
            images=images,
            giga_macs=backbone(recipe.backbone).gmacs * (recipe.resolution / 224) ** 2 * images,
            parts=parts,
            device=self.runtime.device.type,
        )

    def _train(self, seconds_left: Callable[[], float]) -> bool:
        """Steps from where the epoch is; whether the deadline cut it short."""
        so_far, batches = self._so_far, self._batches(self.epoch + 1)
        started, before = time.monotonic(), so_far.images
        checked, cut = started, False

        def is_over() -> bool:
            nonlocal checked
            now = time.monotonic()
            if now - checked > _LOSS_CHECK_SECONDS:
                self._require_finite()
                checked = time.monotonic()
            spent = now - started - self.forward.seconds
            return seconds_left() <= self._reserve(spent, so_far.images - before)

        gate = StepGate(self.ranks, is_over)
        with kept_globals(self.runtime.device):
            while so_far.steps < len(batches):
                step = so_far.steps
                self._maker.expect(batches[step + _STEPS_AHEAD : step + _STEPS_AHEAD + 1])
                cut = gate.is_shut()
                if cut:
                    break
                so_far.add(self._step(step, batches[step]), len(batches[step]))
        self._require_finite()
        if so_far.images > before:
            self.forward.end_epoch(time.monotonic() - started, so_far.images - before)
        return cut

    def _require_finite(self) -> None:
        """Waits for the device.

        Raises:
            TrialFailed: the loss is not finite, or a rank had no memory for one image.
        """
        if not self.ranks.alone and float(self._lacking):
            raise TooLittleMemory("not enough memory, not even for one image at a time")
        if not math.isfinite(float(self._so_far.loss)):
            raise TrialFailed(f"loss is not finite in epoch {self.epoch + 1}, at or before step {self._so_far.steps}")

    def _training_mode(self) -> None:
        self.classifier.train()
        for module in self._frozen:
            module.eval()
        for module in self.classifier.modules() if self.recipe.freeze_norm else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        learning = any(isinstance(each, _BatchNorm) and each.training for each in self.classifier.modules())
        self._shares_statistics = learning and not self.ranks.alone

    def _reserve(self, elapsed: float, images: int) -> float:
        """Seconds that validation will need."""
        if self._validation_seconds is not None:
            return self._validation_seconds
        return _VALIDATION_SHARE * elapsed * len(self.data.val_rows) / images if images else 0.0

    def _step(self, step: int, positions: torch.Tensor) -> torch.Tensor:
        """One optimizer step; the mean loss of its images, still on the device."""
        self._schedule(step)
        images, targets = self._batch(step, positions)
        loss = self._gradients_of_all(step, images, targets, len(positions))
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.classifier)
        return loss

    def _batch(self, step: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented and mixed (n, 3, S, S) uint8 and (n, C) probabilities of the classes: this rank's part."""
        return self._maker.make(self.epoch + 1, step, positions)

    def _schedule(self, step: int) -> None:
        done = (self.epoch * self.steps_per_epoch + step + 0.5) / self.total_steps
        factor = SCHEDULES[self.recipe.schedule](min(done, 1.0), self.recipe.warmup_fraction)
        set_learning_rate(self.optimizer, self.recipe.learning_rate * factor)

    def _gradients_of_all(self, step: int, images: torch.Tensor, targets: torch.Tensor, whole: int) -> torch.Tensor:
        """Gradients of the mean loss of a batch of `whole` images, of which these are this rank's; that loss."""

        def own(size: int) -> torch.Tensor:
            return self.forward.run(lambda: self._gradients(step, images, targets, size, whole))

        if self.ranks.alone:
            return self.micro_batch.run(own)
        lacking = False
        try:
            loss = self.micro_batch.run(own)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            lacking = True
        if lacking:  # it joins with nothing, or the others would wait for it; the trial fails at the next look
            self.optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=self.runtime.device)
        told = self._sum(torch.stack([loss, loss.new_tensor(float(lacking))]))
        self._lacking += told[1]
        return told[0]

    def _gradients(self, step: int, images: torch.Tensor, targets: torch.Tensor, size: int, whole: int) -> torch.Tensor:
        """This rank's share of the gradients and of the loss, gathered over even pieces of at most `size` images."""
        self.optimizer.zero_grad(set_to_none=True)
        own = (self.ranks.rank,) if self.ranks.rank else ()
        seed_globals("forward", self.recipe.seed, self.epoch + 1, step, *own)
        total = torch.zeros((), device=self.runtime.device)
        for piece, wanted, share in self._pieces(images, targets, size, whole):
            with self._statistics(counts=share > 0), self._norms_for(len(piece)):
                loss = self._loss(piece, wanted) * share
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            total += loss.detach()
        return total

    def _pieces(self, images: torch.Tensor, targets: torch.Tensor, size: int, whole: int) -> Iterator[Piece]:
        """Even: batch norm learns nothing from one image. Where ranks share statistics, each has as many."""
        most = len(self.ranks.part(whole, rank=0)) if self._shares_statistics else len(images)
        return pieces(images, targets, math.ceil(most / size), whole)

    def _statistics(self, *, counts: bool) -> AbstractContextManager[object]:
        return SharedStatistics(self.ranks, counts=counts) if self._shares_statistics else nullcontext()

    @contextmanager
    def _norms_for(self, images: int) -> Iterator[None]:
        """From one image batch norm learns nothing, and torch refuses if it is one value: it goes by what it knows."""
        alone = images == 1 and not self._shares_statistics
        learning = [
            each for each in self.classifier.modules() if alone and isinstance(each, _BatchNorm) and each.training
        ]
        for module in learning:
            module.eval()
        try:
            yield
        finally:
            for module in learning:
                module.train()

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs = self._inputs(images)
        scores = self._compiled(inputs) if len(images) > 1 and self.forward.takes(inputs) else self._eager(inputs)
        return LOSSES[self.recipe.loss](scores.float(), targets, self.recipe.label_smoothing, self._shares)

    def _compiled(self, inputs: torch.Tensor) -> torch.Tensor:
        with training_autocast(self.classifier, self.runtime):
            return self.forward(inputs)

    def _eager(self, inputs: torch.Tensor) -> torch.Tensor:
        with fastest_training(self.classifier, inputs.shape[-1], self.runtime):
            scores: torch.Tensor = self.classifier(inputs)
        return scores

    def _inputs(self, images: torch.Tensor) -> torch.Tensor:
        """What the network takes, float32 in channels_last, of uint8 images."""
        return normalize(images, self.preprocessing.mean, self.preprocessing.std)

    def _release_images(self) -> bool:
        """Give up images that are kept on the device; whether there were any."""
        released = release(self.data.source)
        if released:
            self._require_repeatable((self.micro_batch.size + 1) // 2)
        return released

    def _heard_of_less_memory(self, size: int) -> None:
        self.learned.ran_out(self.recipe, size)
        self._require_repeatable(size)

    def _require_repeatable(self, size: int) -> None:
        """Ranks that share statistics go through every layer together: none repeats its part alone.

        Args:
            size: images at once to go on with.

        Raises:
            RankLost: the run has to go on from its last checkpoint, with fewer images at once.
        """
        if not self._may_repeat:
            self._sittings.note_images(size)
            raise RankLost("memory ran out in a step that all processes make together")

    def _clip(self) -> None:
        if self.recipe.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), self.recipe.clip_norm)

    def _validate(self, seconds_left: Callable[[], float]) -> tuple[float, float]:
        """Mean cross-entropy and score; leaves `probabilities` (m, C) of this epoch."""
        started = time.monotonic()
        scores = self._judged_together(seconds_left)
        if not np.isfinite(scores).all():
            raise TrialFailed(f"scores on the validation rows are not finite in epoch {self.epoch + 1}")
        self.probabilities = softmax(scores)
        score = self.objective(self.data.val_labels.numpy(), self.probabilities)
        self._validation_seconds = time.monotonic() - started
        return float(F.cross_entropy(torch.from_numpy(scores), self.data.val_labels)), score

    def _judged_together(self, ask: Callable[[], Any]) -> NDArray[np.float32]:
        """(m, C) outputs for the validation rows, of which each rank computes its part."""
        data, count = self.data, len(self.data.val_rows)
        mine = self.ranks.part(count)
        at_once = 2 * min(self.recipe.batch_size, self.micro_batch.size)  # nothing is kept for a backward pass
        rows = data.val_rows[mine.start : mine.stop]
        batches = resized_batches(data.source, rows, self.preprocessing.size, at_once)
        scores = logits(self._validated, _asking_between(batches, ask), self.preprocessing, self.runtime)
        if self.ranks.alone:
            return scores
        self._sittings.meet("validated", ask)
        own = torch.from_numpy(scores.reshape(len(rows), data.num_classes))
        return self.ranks.gathered(own, count).numpy()

    def _keep_best(self, score: float, val_loss: float) -> None:
        if self._scores.is_kept(score, len(self.data.val_labels)):
            weights = _copied(self._validated.state_dict())
            self._scores.best = BestEpoch(self.epoch, score, val_loss, weights, self.probabilities)

    def _why_finished(self, score: float, cut: bool) -> Finished:
        out_of_patience = self._scores.ran_out(score, self.recipe.patience, self.recipe.min_improvement)
        if cut:
            return "deadline"
        if self.epoch >= self.recipe.epochs:
            return "horizon"
        return "patience" if out_of_patience else ""


def _no_deadline() -> float:
    return math.inf


def _asking_between(batches: Iterator[torch.Tensor], ask: Callable[[], Any]) -> Iterator[torch.Tensor]:
    """The same batches; asks before each but the first."""
    for place, batch in enumerate(batches):
        if place:
            ask()
        yield batch


def _copied(value: Any) -> Any:
    """Copies of all tensors, on the CPU, inside dicts, lists and tuples of them."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
