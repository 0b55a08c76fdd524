"""The training loop: one candidate, epoch by epoch, with every step under its own name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.backbones import backbone, freeze_first_stages
from automl_vision.models.classifier import Classifier
from automl_vision.models.image_source import ImageSource, expect, release, resized_batches
from automl_vision.models.inference import fastest_training, logits, prepare, softmax, training_autocast
from automl_vision.models.memory import MoreThanAllowed, available_bytes, left_of_share, saved_bytes
from automl_vision.runtime import Runtime
from automl_vision.training.augment import AUGMENTATIONS, augmented
from automl_vision.training.batch_size import LearnedMemory, MicroBatch, StepMemory
from automl_vision.training.compiling import Kind, StepCompiler, TrainingForward
from automl_vision.training.ema import WeightAverage
from automl_vision.training.losses import LOSSES
from automl_vision.training.mix import mixed
from automl_vision.training.optimizers import KEPT_PER_WEIGHT, make_optimizer, set_learning_rate
from automl_vision.training.randomness import keyed_generator, keyed_seed, seeded_globals
from automl_vision.training.recipe import Recipe
from automl_vision.training.sampling import SAMPLINGS
from automl_vision.training.schedule import SCHEDULES

Finished = Literal["", "horizon", "patience", "deadline"]
Objective = Callable[[NDArray[np.int64], NDArray[np.float32]], float]

#: Seconds between two looks at the loss, each of which waits for the device.
_LOSS_CHECK_SECONDS = 1.0
#: Before the first validation was timed: its cost per image, as a share of a training step's.
_VALIDATION_SHARE = 0.5
#: Steps before its own in which a disk is told of a batch.
_STEPS_AHEAD = 2


class TrialFailed(Exception):
    """This candidate cannot be trained on; the search goes on without it."""


class TooLittleMemory(TrialFailed):
    """Not even one image at a time fits into memory."""


@dataclass(frozen=True)
class TrainingData:
    """The rows one candidate is trained and judged on.

    Attributes:
        source: where the images are.
        train_rows: (n) int64, rows of `source`.
        train_labels: (n) int64, class indices.
        val_rows: (m) int64.
        val_labels: (m) int64.
        num_classes: C.
    """

    source: ImageSource
    train_rows: torch.Tensor
    train_labels: torch.Tensor
    val_rows: torch.Tensor
    val_labels: torch.Tensor
    num_classes: int


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


@dataclass(frozen=True)
class _Best:
    epoch: int
    score: float
    val_loss: float
    weights: dict[str, torch.Tensor]
    probabilities: NDArray[np.float32]


class Trainer:
    """Trains one classifier by one recipe.

    Order, augmentation and mixing depend on (seed, epoch, step) only: a trainer that loads the state of another goes
    on, on the CPU, exactly as that one would have.

    Args:
        recipe: how to train.
        data: what on.
        classifier: with its initial weights; moved to the runtime's device and changed in place.
        preprocessing: input size, mean and std.
        runtime: device and precision.
        objective: (labels (m), probabilities (m, C)) to the score that is maximised.
        learned: what trials before it found out about memory, to which it adds; None where it is the only one.
        compiler: what compiles steps, and what trials before it found out about that; None compiles nothing.
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
    ) -> None:
        self.recipe = recipe
        self.data = data
        self.preprocessing = preprocessing
        self.runtime = runtime
        self.objective = objective
        self.classifier = classifier.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        prepare(self.classifier, preprocessing.size, runtime)
        self._frozen = freeze_first_stages(self.classifier.backbone, recipe.freeze_stages)
        self._shares = SAMPLINGS[recipe.sampling].shares(data.train_labels, data.num_classes).to(runtime.device)
        self.optimizer = make_optimizer(self.classifier, recipe)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.training_dtype == "float16")
        self.average = WeightAverage(self.classifier, self.total_steps) if recipe.ema else None
        self.learned = learned or LearnedMemory()
        self.micro_batch = MicroBatch(
            self.learned.at_most(recipe),
            runtime.device,
            self._release_images,
            lambda size: self.learned.ran_out(recipe, size),
        )
        self.forward = TrainingForward(self.classifier, runtime.device, compiler or StepCompiler())
        self._fitted = False  # whether memory was looked at
        self.epoch = 0
        self.finished: Finished = ""
        self.probabilities: NDArray[np.float32] = np.zeros((0, data.num_classes), dtype=np.float32)
        self._best: _Best | None = None
        self._highest = -math.inf
        self._bar = -math.inf  # the score that patience compares with
        self._stale = 0  # epochs since it was last passed
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
        """Train one epoch and validate.

        Args:
            seconds_left: asked before every step; training ends where what is left is needed to validate.

        Raises:
            TrialFailed: the loss or the scores of the network are not finite.
            TooLittleMemory: a single image is not expected to fit into memory.
            RuntimeError: a single image did not fit into memory, or the candidate was finished before.
        """
        if self.finished:
            raise RuntimeError(f"this candidate is finished, got {self.finished=}")
        started = time.monotonic()
        self._fit_micro_batch()
        seconds_left = seconds_left or _no_deadline
        self.forward.begin_epoch(self._kind, self.recipe.epochs - self.epoch, seconds_left)
        self.epoch += 1
        train_loss, images, cut = self._train(seconds_left)
        val_loss, score = self._validate()
        self._keep_best(score, val_loss)
        self.finished = self._why_finished(score, cut)
        return EpochResult(
            epoch=self.epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            score=score,
            learning_rate=self._learning_rate,
            seconds=time.monotonic() - started,
            images=images,
            finished=self.finished,
            micro_batch=self.micro_batch.size,
            compile_seconds=self.forward.seconds,
            compiling=self.forward.note,
        )

    @property
    def best_epoch(self) -> int:
        """The epoch that is kept: the newest whose score is within one standard error of the highest."""
        return self._require_best().epoch

    def best_weights(self) -> dict[str, torch.Tensor]:
        """State dict of the classifier at its best epoch, on the CPU."""
        return self._require_best().weights

    def last_weights(self) -> dict[str, torch.Tensor]:
        """State dict of the classifier (its running average, where there is one) as it is now, on the CPU."""
        copied: dict[str, torch.Tensor] = _copied(self._validated.state_dict())
        return copied

    def best_probabilities(self) -> NDArray[np.float32]:
        """(m, C) validation probabilities of the best epoch."""
        return self._require_best().probabilities

    @property
    def best_score(self) -> float:
        """The objective at the best epoch."""
        return self._require_best().score

    @property
    def best_loss(self) -> float:
        """Mean cross-entropy on the validation rows at the best epoch."""
        return self._require_best().val_loss

    def state(self) -> dict[str, Any]:
        """All that going on needs, as copies on the CPU: tensors and plain types only."""
        best = self._best
        live = {
            "recipe": self.recipe.to_dict(),
            "epoch": self.epoch,
            "finished": self.finished,
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state() if self.average else None,
            "micro_batch": self.micro_batch.size,
            "patience": {"bar": self._bar, "stale": self._stale},
            "validation_seconds": self._validation_seconds,
            "best": vars(best) | {"probabilities": torch.from_numpy(best.probabilities)} if best else None,
            "highest": self._highest,
        }
        copied: dict[str, Any] = _copied(live)
        return copied

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, for the same recipe and data.

        Raises:
            ValueError: the state is of another recipe.
        """
        if Recipe.from_dict(state["recipe"]) != self.recipe:
            raise ValueError("this state belongs to another recipe")
        self.epoch, self.finished = state["epoch"], state["finished"]
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state(state["average"])
        self.micro_batch.size = min(self.micro_batch.size, state["micro_batch"])
        self._bar, self._stale = state["patience"]["bar"], state["patience"]["stale"]
        self._validation_seconds = state["validation_seconds"]
        best = state["best"]
        self._best = None if best is None else _Best(**best | {"probabilities": best["probabilities"].numpy()})
        self._highest = state.get("highest", self._best.score if self._best else -math.inf)  # older ones lack it

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
        parts = torch.split(order, self.recipe.effective_batch)
        # Batch norm cannot learn from a single image.
        return parts[:-1] if len(parts) > 1 and len(parts[-1]) < 2 else parts

    def _fit_micro_batch(self) -> None:
        """Once, before the first step: as many images at once as memory is expected to have room for."""
        recipe = self.recipe
        available = None if self._fitted else self._available()
        self._fitted = True
        if available is None:
            return
        try:
            memory = self._step_memory(available)
        except MoreThanAllowed:
            raise TooLittleMemory(
                f"{self._one_image} needs more than the {_gigabytes(available)} that are free"
            ) from None
        free = self.micro_batch.fit(recipe.effective_batch, memory, self._available)
        if free is not None:
            needed = _gigabytes(memory(1))
            raise TooLittleMemory(f"{self._one_image} needs about {needed} of memory, and {_gigabytes(free)} are free")

    def _available(self) -> int | None:
        """Bytes that this process may still take: what is free, within its share of all; None where nobody tells."""
        device = self.runtime.device
        free = available_bytes(device)
        return None if free is None else int(min(free, left_of_share(device, self.runtime.share)))

    @property
    def _one_image(self) -> str:
        return f"training {self.recipe.backbone} at {self.recipe.resolution} px on one image at a time"

    def _step_memory(self, available: int) -> StepMemory:
        """What a step adds to what is in memory: its passes, gradients, the optimizer's tensors, and pixels."""
        recipe = self.recipe
        kept = self.learned.kept(recipe, lambda: self._kept_for_backward(available))
        trained = sum(each.nbytes for each in self.classifier.parameters() if each.requires_grad)
        tensors = 1 if self.optimizer.state else 1 + KEPT_PER_WEIGHT[recipe.optimizer]  # a resumed one has its own
        return kept.plus(tensors * trained + recipe.effective_batch * 3 * self.preprocessing.size**2)

    def _kept_for_backward(self, at_most: int) -> StepMemory:
        """Measured on one image and on two, which tells what does not depend on their number.

        Raises:
            MoreThanAllowed: one image needs more than `at_most` bytes.
        """
        self._training_mode()
        try:
            one = self._passes(1, at_most)
        except MoreThanAllowed:
            self.micro_batch.give_up()  # kept images may have been in its way
            one = self._passes(1, self._available() or at_most)
        try:
            per_image = self._passes(2, at_most) - one
        except MoreThanAllowed:
            per_image = one
        return StepMemory(one - per_image, per_image)

    def _passes(self, images: int, at_most: int) -> int:
        """Bytes that the forward and the backward pass of so many images need."""
        size, device = self.preprocessing.size, self.runtime.device
        blank = torch.zeros((images, 3, size, size), device=device).to(memory_format=torch.channels_last)
        with seeded_globals(device, "memory"), fastest_training(self.classifier, size, self.runtime):
            return saved_bytes(self.classifier, lambda: self.classifier(blank), at_most)

    def _kind(self) -> Kind:
        """What the steps on whole batches have in common with those of other trials."""
        recipe, whole = self.recipe, len(self._batches(epoch=1)[0])
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

    def _train(self, seconds_left: Callable[[], float]) -> tuple[float, int, bool]:
        """Mean loss, images, and whether the deadline cut the epoch short."""
        self._training_mode()
        started = checked = time.monotonic()
        total = torch.zeros((), device=self.runtime.device)
        images = 0
        cut = False
        with seeded_globals(self.runtime.device, "forward", self.recipe.seed, self.epoch):
            batches = self._batches(self.epoch)
            for step, positions in enumerate(batches):
                self._expect(batches[step + _STEPS_AHEAD : step + _STEPS_AHEAD + 1])
                cut = seconds_left() <= self._reserve(time.monotonic() - started - self.forward.seconds, images)
                if cut:
                    break
                total += self._step(step, positions) * len(positions)
                images += len(positions)
                if time.monotonic() - checked > _LOSS_CHECK_SECONDS:
                    _require_finite(total, self.epoch, step)
                    checked = time.monotonic()
        _require_finite(total, self.epoch, step)
        if images:
            self.forward.end_epoch(time.monotonic() - started, images)
        return (float(total) / images if images else math.nan), images, cut

    def _training_mode(self) -> None:
        self.classifier.train()
        for module in self._frozen:
            module.eval()
        for module in self.classifier.modules() if self.recipe.freeze_norm else ():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()

    def _reserve(self, elapsed: float, images: int) -> float:
        """Seconds that validation will need."""
        if self._validation_seconds is not None:
            return self._validation_seconds
        return _VALIDATION_SHARE * elapsed * len(self.data.val_rows) / images if images else 0.0

    def _step(self, step: int, positions: torch.Tensor) -> torch.Tensor:
        """One optimizer step; the mean loss of its images, still on the device."""
        self._schedule(step)
        images, targets = self._batch(step, positions)
        loss = self.micro_batch.run(lambda size: self.forward.run(lambda: self._gradients(images, targets, size)))
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.classifier)
        return loss

    def _schedule(self, step: int) -> None:
        done = ((self.epoch - 1) * self.steps_per_epoch + step + 0.5) / self.total_steps
        factor = SCHEDULES[self.recipe.schedule](min(done, 1.0), self.recipe.warmup_fraction)
        set_learning_rate(self.optimizer, self.recipe.learning_rate * factor)

    def _batch(self, step: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented and mixed (B, 3, S, S) uint8 and (B, C) probabilities of the classes, on the device."""
        device, source, recipe = self.runtime.device, self.data.source, self.recipe
        size = self.preprocessing.size
        plane = source.plane_for(AUGMENTATIONS[recipe.augment].wanted_size(size))
        pixels = source.fetch(self.data.train_rows[positions], plane).to(device, non_blocking=True)
        images = augmented(pixels, size, recipe, keyed_generator("augment", recipe.seed, self.epoch, step))
        labels = self.data.train_labels[positions].to(device, non_blocking=True)
        targets = F.one_hot(labels, self.data.num_classes).float()
        return mixed(
            images, targets, recipe.mix, np.random.default_rng(keyed_seed("mix", recipe.seed, self.epoch, step))
        )

    def _expect(self, batches: Sequence[torch.Tensor]) -> None:
        """Have images of later steps read from a disk while the device computes."""
        size = AUGMENTATIONS[self.recipe.augment].wanted_size(self.preprocessing.size)
        for positions in batches:
            expect(self.data.source, self.data.train_rows[positions], self.data.source.plane_for(size))

    def _gradients(self, images: torch.Tensor, targets: torch.Tensor, size: int) -> torch.Tensor:
        """Gradients of the mean loss, gathered over even parts of at most `size` images."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.runtime.device)
        parts = math.ceil(len(images) / size)  # even: batch norm learns nothing from a part of one image
        for part, wanted in zip(torch.tensor_split(images, parts), torch.tensor_split(targets, parts), strict=True):
            loss = self._loss(part, wanted) * (len(part) / len(images))
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            total += loss.detach()
        return total

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs = self._inputs(images)
        scores = self._compiled(inputs) if self.forward.takes(inputs) else self._eager(inputs)
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
        return release(self.data.source)

    def _clip(self) -> None:
        if self.recipe.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), self.recipe.clip_norm)

    def _validate(self) -> tuple[float, float]:
        """Mean cross-entropy and score; leaves `probabilities` (m, C) of this epoch."""
        started = time.monotonic()
        data, size = self.data, self.preprocessing.size
        at_once = 2 * min(self.recipe.batch_size, self.micro_batch.size)  # nothing is kept for a backward pass
        batches = resized_batches(data.source, data.val_rows, size, at_once)
        scores = logits(self._validated, batches, self.preprocessing, self.runtime)
        if not np.isfinite(scores).all():
            raise TrialFailed(f"scores on the validation rows are not finite in epoch {self.epoch}")
        self.probabilities = softmax(scores)
        score = self.objective(data.val_labels.numpy(), self.probabilities)
        self._validation_seconds = time.monotonic() - started
        return float(F.cross_entropy(torch.from_numpy(scores), data.val_labels)), score

    def _keep_best(self, score: float, val_loss: float) -> None:
        """Keep the newest epoch that is within one standard error of the best (Breiman et al. 1984).

        Which of several epochs a few validation images like best is mostly luck, and later ones saw smaller learning
        rates. On many images an error is next to nothing.
        """
        self._highest = max(self._highest, score)
        if score >= self._highest - _standard_error(self._highest, len(self.data.val_labels)):
            weights = _copied(self._validated.state_dict())
            self._best = _Best(self.epoch, score, val_loss, weights, self.probabilities)

    def _why_finished(self, score: float, cut: bool) -> Finished:
        gained = score > self._bar + self.recipe.min_improvement
        self._stale = 0 if gained else self._stale + 1
        self._bar = score if gained else self._bar
        if cut:
            return "deadline"
        if self.epoch >= self.recipe.epochs:
            return "horizon"
        return "patience" if 0 < self.recipe.patience <= self._stale else ""

    def _require_best(self) -> _Best:
        if self._best is None:
            raise RuntimeError("no epoch was validated yet")
        return self._best


def _standard_error(score: float, images: int) -> float:
    """Of an accuracy; that of the other objectives is taken to be as large."""
    share = min(max(score, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / max(images, 1))


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _no_deadline() -> float:
    return math.inf


def _require_finite(total: torch.Tensor, epoch: int, step: int) -> None:
    if not math.isfinite(float(total)):
        raise TrialFailed(f"loss is not finite in epoch {epoch}, at or before step {step + 1}")


def _copied(value: Any) -> Any:
    """Copies of all tensors, on the CPU, inside dicts, lists and tuples of them."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
