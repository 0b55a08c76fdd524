"""One candidate and everything that is known about it so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from automl_vision.training.recipe import Recipe, require_declared, typed

State = Literal["running", "paused", "complete", "stopped", "failed"]

#: What each state means, as the report tells it.
STATES: dict[State, str] = {
    "running": "in work when the record was written; it goes on from its checkpoint",
    "paused": "waits at a rung; it goes on from its checkpoint if it is promoted",
    "complete": "trained to the end of its schedule",
    "stopped": "given up before the end: others promised more, or the time was over",
    "failed": "could not be trained; `error` says why",
}


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one trial.

    Attributes:
        epoch: 1-based.
        train_loss: mean loss per image trained on; None where the deadline left no time for one step.
        val_loss: mean cross-entropy per image.
        score: the objective on the validation set, in [0, 1].
        learning_rate: of the head, at the end of the epoch.
        seconds: wall time, validation included.
        cpu_seconds: of the whole process meanwhile; None in records of earlier versions.
    """

    epoch: int
    train_loss: float | None
    val_loss: float
    score: float
    learning_rate: float
    seconds: float
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class Trial:
    """A recipe and what came of it. Immutable: progress makes a new value with `replace`.

    Attributes:
        number: 0, 1, 2 ... in the order of starting.
        recipe: how it is trained.
        parameters: the point of the search space it came from (what the sampler learns from).
        origin: who proposed it: "probe", "portfolio", a name of `samplers.SAMPLERS`, or of `head_choice.HEAD_KINDS` for
            another head on frozen features.
        state: a key of `STATES`.
        attempt: 1 for the first start, one more after each crash or loss; an older attempt's report is refused.
        epochs: what happened so far.
        score: best objective on validation, None before the first validation.
        loss: validation loss of the epoch that gave `score`; breaks ties.
        seconds: wall time of all its training so far.
        seconds_per_image: of a training step (fine-tune) or of a forward pass (probe); 0 before it is known.
        peak_bytes: most memory in use while it was trained: of the device on a GPU, of the whole process with its
            images on a CPU; 0 where it is not known.
        error: why it failed.
        notes: what else is known: "rungs" and "steps" (of the whole schedule) of a fine-tune, and "micro_batch"
            where memory was too small for its batch, and "out_of_memory" where it was too small for a single image,
            "compiling" where there is something to say of that;
            "strength", "trained_on", "folds" and "repeats" of a probe, and of the first one "symmetries"
            (`symmetry.SymmetryTest.to_dict`);
            "head_search" of another head (`head_choice.HeadChoice.to_dict`);
            "share" of the machine that `seconds_per_image` was timed with, where others ran beside it;
            "unread": checkpoints that it was to go on from, and that could not be read;
            "lost": how often whoever worked on it was lost, and "lost_why": how, the last time.
    """

    number: int
    recipe: Recipe
    parameters: Mapping[str, Any]
    origin: str
    state: State = "running"
    attempt: int = 1
    epochs: tuple[EpochRecord, ...] = ()
    score: float | None = None
    loss: float | None = None
    seconds: float = 0.0
    seconds_per_image: float = 0.0
    peak_bytes: int = 0
    error: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs_done(self) -> int:
        """Number of epochs validated so far."""
        return len(self.epochs)

    @property
    def seconds_per_image_alone(self) -> float:
        """`seconds_per_image` of one process that has the machine to itself, if what runs beside it costs its share.

        It compares trials of different shares; as a promise it is too good, since few networks scale so well.
        """
        return self.seconds_per_image * float(self.notes.get("share", 1.0))

    @property
    def rank(self) -> tuple[float, float]:
        """Sort key, larger is better: the score, then the smaller loss."""
        if self.score is None:
            return (float("-inf"), float("-inf"))
        return (self.score, -(self.loss if self.loss is not None else float("inf")))

    def rank_by(self, epoch: int) -> tuple[float, float]:
        """Sort key, larger is better: the best score within the first `epoch` epochs, then its smaller loss."""
        return max(((each.score, -each.val_loss) for each in self.epochs[:epoch]), default=(float("-inf"),) * 2)

    def replace(self, **changes: Any) -> Trial:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """The trial that `to_dict` wrote.

        Raises:
            KeyError, TypeError: the values are not those of a trial.
        """
        own = dict(values)
        if own["state"] not in STATES:
            raise TypeError(f"unknown state, got {own['state']!r}")
        recipe = Recipe.from_dict(own.pop("recipe"))
        epochs = tuple(typed(EpochRecord(**each)) for each in own.pop("epochs"))
        return _noted(typed(cls(recipe=recipe, epochs=epochs, **own)))


#: Note -> what it has to be, where whoever reads it calculates with it or looks into it.
_NOTED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("symmetries", "head_search"), "Mapping[str, Any]"),
        **dict.fromkeys(("steps", "micro_batch", "lost"), "int"),
        **dict.fromkeys(("strength", "share"), "float"),
        "lost_why": "str",
    }
)


def _noted(trial: Trial) -> Trial:
    """The trial, if its notes hold what they have to.

    Raises:
        TypeError: one does not.
    """
    for name, declared in _NOTED.items():
        if name in trial.notes:
            require_declared(f"notes.{name}", declared, trial.notes[name])
    return trial


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the best validation score; the smaller loss breaks ties; None before any was validated."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: (*trial.rank, -trial.number), default=None)


def is_frozen(trial: Trial) -> bool:
    """Whether it is a head on frozen features, which no fine-tune replaces because of a tie."""
    return trial.recipe.kind != "finetune"


def is_too_large(recipe: Recipe, trials: Iterable[Trial]) -> bool:
    """Whether a trial that needs no more memory than `recipe` did not even fit with one image at a time."""
    return any(
        trial.recipe.backbone == recipe.backbone
        and trial.recipe.resolution <= recipe.resolution
        and trial.recipe.freeze_stages >= recipe.freeze_stages
        for trial in trials
        if trial.recipe.kind == recipe.kind and trial.notes.get("out_of_memory")
    )


def default_trial(trials: Iterable[Trial]) -> Trial | None:
    """The first fine-tune of the portfolio that was validated: what is kept where validation cannot tell."""
    tuned = (trial for trial in trials if not is_frozen(trial) and trial.origin == "portfolio")
    return min((trial for trial in tuned if trial.score is not None), key=lambda trial: trial.number, default=None)


def soup_mates(trial: Trial, trials: Iterable[Trial]) -> list[Trial]:
    """Other finished fine-tunes of the same network from the same beginning, best first: theirs may be averaged."""
    mates = [
        other
        for other in trials
        if other.number != trial.number and other.state == "complete" and _beginning(other) == _beginning(trial)
    ]
    return [] if is_frozen(trial) else sorted(mates, key=lambda mate: (*mate.rank, -mate.number), reverse=True)


def _beginning(trial: Trial) -> tuple[Any, ...]:
    """What fixes a network and its first weights."""
    recipe = trial.recipe
    start = (recipe.pretrained, recipe.head_from_probe, recipe.seed)
    return (recipe.kind, recipe.backbone, recipe.resolution, recipe.head, *start)
