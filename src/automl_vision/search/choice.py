"""Which trial is the model: a rule that keeps the simple one where validation cannot tell.

About one search in ten ends worse than its defaults, mostly on small data (Schneider et al. 2025, "Overtuning in
Hyperparameter Optimization"): the best of many noisy figures is partly luck. So the best on validation has to beat the
default recipe by more than half a paired standard error; and the fewer validation images there are, the fewer trials
take part.

What the default is depends on how far its training came. A default recipe that was trained to its end nearly always
beats the model on frozen features (docs/LOG.md), so few images that say otherwise have to say it by more than half an
error, too. One that was cut, or was given a few epochs only, has to show that it is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.search.judge import Gain, Judge
from automl_vision.search.scheduler import KEPT_BEST
from automl_vision.search.trial import Trial, best_trial, default_trial, is_frozen
from automl_vision.search.trial_files import TrialFiles

#: Standard errors by which a later trial must beat what is kept else.
MARGIN = 0.5
#: One trial takes part for so many validation images; the first probe and the default recipe always do.
IMAGES_PER_TRIAL = 10
FEWEST_TRIALS = 2
#: Epochs and optimizer steps of a default recipe that was trained as far as its schedule goes, from which on it is the
#: default; fewer do not make up for what the first steps cost (docs/LOG.md).
SETTLED_EPOCHS, SETTLED_STEPS = 3, 20

Predicted = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """The outcome.

    Attributes:
        trial: the model.
        entered: the trials that took part, in the order in which ties are broken: simplest, then oldest first.
        left_out: how many scored trials did not, because validation is too small to choose among so many.
        reason: who was compared with whom, and what came of it.
    """

    trial: Trial
    entered: tuple[Trial, ...]
    left_out: int
    reason: str

    @property
    def weights(self) -> frozenset[int]:
        """Numbers of the fine-tunes whose weights are worth their place on disk: the best few, and the model."""
        tuned = [trial for trial in self.entered if not is_frozen(trial)]
        ranked = sorted(tuned, key=lambda trial: (*trial.rank, -trial.number), reverse=True)
        return frozenset({self.trial.number, *(trial.number for trial in ranked[:KEPT_BEST])})

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {"trial": self.trial.number, "left_out": self.left_out, "reason": self.reason}


class Chooser:
    """Chooses among trials by what their files say of validation; reads each of them once.

    Args:
        files: where the predictions are.
        judge: the validation images.
    """

    def __init__(self, files: TrialFiles, judge: Judge) -> None:
        self._files = files
        self.judge = judge
        self._read: dict[int, tuple[tuple[float, float], Predicted]] = {}

    def choose(self, trials: Sequence[Trial]) -> Choice | None:
        """The model among `trials`; None before any was validated."""
        return choose(trials, self.predicted(trials), self.judge)

    def predicted(self, trials: Sequence[Trial]) -> dict[int, Predicted]:
        """Number -> (N) predictions, of every scored trial whose file can be read."""
        found = {trial.number: self._predicted_by(trial) for trial in trials if trial.score is not None}
        return {number: predicted for number, predicted in found.items() if predicted is not None}

    def _predicted_by(self, trial: Trial) -> Predicted | None:
        known = self._read.get(trial.number)
        if known is not None and known[0] == trial.rank:
            return known[1]
        predicted = self._files.load_predicted(trial.number)
        if predicted is None or len(predicted) != len(self.judge.labels):
            return None
        self._read[trial.number] = trial.rank, predicted
        return predicted


def choose(trials: Sequence[Trial], predicted: Mapping[int, Predicted], judge: Judge) -> Choice | None:
    """The model among the trials whose predictions are known.

    Args:
        trials: of one search, in any order.
        predicted: number -> (N) what the trial says of the validation images.
        judge: those images.
    """
    scored = [trial for trial in trials if trial.score is not None and trial.number in predicted]
    entered = _entering(scored, len(judge.labels))
    best = best_trial(entered)
    if best is None:
        return None
    winner, reasons = best, [f"trial {best.number} is the best on validation"]
    for kept, words in _what_is_kept(entered, best):
        if kept.number == winner.number:
            continue
        gain = judge.gain(predicted[winner.number], predicted[kept.number])
        reasons.append(_reason(winner, kept, words, gain))
        winner = winner if gain.exceeds(MARGIN) else kept
    return Choice(winner, tuple(entered), len(scored) - len(entered), "; ".join(reasons))


def _what_is_kept(entered: Sequence[Trial], best: Trial) -> Iterator[tuple[Trial, str]]:
    """What `best` has to beat, in this order, and how the reason calls it."""
    default = default_trial(entered)
    settled = default is not None and _is_settled(default)
    if default is not None and (settled or not is_frozen(best)):
        yield default, "the default recipe"
    frozen = best_trial([trial for trial in entered if is_frozen(trial)])
    if frozen is not None and not settled:
        yield frozen, "the model on frozen features"


def _is_settled(default: Trial) -> bool:
    whole = default.state == "complete" and default.epochs_done >= SETTLED_EPOCHS
    enough = default.notes.get("steps", 0) >= SETTLED_STEPS
    return (
        whole and enough and default.recipe.pretrained
    )  # random features are as good as a little training from scratch


def _reason(winner: Trial, kept: Trial, words: str, gain: Gain) -> str:
    figures = f"{gain.value:+.4f}, standard error {gain.standard_error:.4f}"
    if gain.exceeds(MARGIN):
        return f"trial {winner.number} beats {words} (trial {kept.number}) by more than half an error: {figures}"
    return f"{words} (trial {kept.number}) is kept: trial {winner.number} is not better by half an error: {figures}"


def _entering(scored: Sequence[Trial], images: int) -> list[Trial]:
    """Those that take part: the first probe, the default recipe, then whole trials before cut ones, oldest first.

    The order must not look at scores: the best few of many would be as lucky as the best of all.
    """
    by_number = sorted(scored, key=lambda trial: trial.number)
    first, default = next(filter(is_frozen, by_number), None), default_trial(by_number)
    always = [trial for trial in (first, default) if trial is not None]
    rest = [trial for trial in by_number if trial not in always]
    rest.sort(key=lambda trial: trial.state != "complete")
    room = max(images // IMAGES_PER_TRIAL, FEWEST_TRIALS)
    return sorted([*always, *rest][:room], key=_simplest_first(default))


def _simplest_first(default: Trial | None) -> Callable[[Trial], tuple[bool, bool, int]]:
    return lambda trial: (not is_frozen(trial), trial != default, trial.number)
