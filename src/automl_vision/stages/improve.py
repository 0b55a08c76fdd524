"""What may improve the model at no further training, each adopted only where validation can tell.

In order of what they cost whoever uses the model: an average of weights (nothing), the mirror image (twice the time),
several networks (up to three times), and a bias by class for objectives that count classes (nothing, but it moves
probabilities). A step has to beat what is simpler by more than one standard error of the difference on the same images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.bundle import Network, voting
from automl_vision.calibration import class_bias, logarithm
from automl_vision.data.preparation import Prepared
from automl_vision.metrics import METRICS
from automl_vision.models.classifier import placed
from automl_vision.models.ensemble import Ensemble, greedy_shares, mixed
from automl_vision.models.image_source import ImageSource, resized_batches
from automl_vision.models.soup import average, measure_statistics, share_statistics
from automl_vision.search.choice import Choice
from automl_vision.search.judge import Gain, Judge
from automl_vision.search.trial import Trial, soup_mates
from automl_vision.search.trial_files import Result
from automl_vision.stages.context import RunContext
from automl_vision.stages.impact import impact_images, impact_seconds
from automl_vision.stages.reserve import STATISTICS_IMAGES, flip_seconds, seconds_to_report, soup_seconds
from automl_vision.training.augment import mirrors

if TYPE_CHECKING:
    from automl_vision.stages.costs import CostMeter
    from automl_vision.stages.search import Searched

INFERENCE_BATCH = 128
#: Images at once where statistics of batch norm are measured; the last batch is dropped where it is smaller.
STATISTICS_BATCH = 64
#: Standard errors by which a step must beat what is simpler.
MARGIN = 1.0
#: By how much two ways to compute one log-loss may differ.
ROUNDING = 1e-6
#: Strengths of logit adjustment that are tried, and the objectives that it is for.
TAUS = tuple(round(0.1 * k, 1) for k in range(16))
ADJUSTED = ("macro_f1", "balanced_accuracy")
#: Trials that an ensemble may pick from, best first.
LIBRARY = 6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Draft:
    """A model that could be shipped.

    Attributes:
        networks: those that vote.
        votes: (N_val, C) log-probabilities that they give the validation images, before calibration.
        class_bias: (C) added to them; empty where there is none.
    """

    networks: tuple[Network, ...]
    votes: Floats
    class_bias: tuple[float, ...] = ()

    @property
    def scores(self) -> Floats:
        """(N_val, C) what the temperature is fitted to."""
        return self.votes + np.array(self.class_bias) if self.class_bias else self.votes

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N_val) class index."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Attempt:
    """What came of trying one step.

    Attributes:
        draft: what it would ship; None where there is nothing to compare.
        detail: what was done, or why not.
        tried: whether anything was computed.
    """

    draft: Draft | None
    detail: str
    tried: bool = True


@dataclass(frozen=True)
class Step:
    """One step as the report tells it.

    Attributes:
        name: a key of `STEPS`.
        tried: whether anything was computed.
        adopted: whether the model has it.
        detail: what was done, or why not.
        scores: the objective on validation without it and with it; None where there was nothing to compare.
        gain: the difference; None as above.
        seconds: wall time.
    """

    name: str
    tried: bool
    adopted: bool
    detail: str
    scores: tuple[float, float] | None = None
    gain: Gain | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        simpler, candidate = self.scores or (None, None)
        gain = self.gain.to_dict() if self.gain else {"gain": None, "standard_error": None}
        return {
            "step": self.name,
            "title": STEPS[self.name].title,
            "tried": self.tried,
            "adopted": self.adopted,
            "detail": self.detail,
            "simpler": simpler,
            "candidate": candidate,
            **gain,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Bench:
    """What the steps work with.

    Attributes:
        context, prepared, searched: of the run.
        choice: what the search came to.
        result: weights and validation probabilities of its trial.
        meter: says whether a model keeps to the limits; None where there are none.
    """

    context: RunContext
    prepared: Prepared
    searched: Searched
    choice: Choice
    result: Result
    meter: CostMeter | None = None

    @property
    def trial(self) -> Trial:
        """The trial that is to be improved."""
        return self.choice.trial

    @property
    def trials(self) -> list[Trial]:
        """All trials."""
        return self.searched.search.trials

    @property
    def judge(self) -> Judge:
        """The validation images."""
        return self.searched.chooser.judge

    def network(self, trial: Trial, result: Result) -> Network:
        """The network of a trial at its best epoch."""
        recipe = trial.recipe
        return Network(recipe.backbone, recipe.head, self.searched.runner.preprocessing(recipe), result.weights)

    def draft(self) -> Draft:
        """The trial as it is."""
        return Draft((self.network(self.trial, self.result),), logarithm(self.result.probabilities))

    def votes(self, *networks: Network) -> Floats:
        """(N_val, C) what these networks say of the validation images."""
        ensemble = voting(networks, self.judge.num_classes, self.searched.runner.runtime)
        return stored_votes(ensemble, self.prepared.store, self.prepared.split.rows("val"))

    def log_loss(self, votes: Floats) -> float:
        """Of log-probabilities (N_val, C) on validation."""
        return -float(votes[np.arange(len(votes)), self.judge.labels].mean())

    def train_counts(self) -> NDArray[np.int64]:
        """(C) images of each class that the trial was trained on."""
        labels = self.searched.runner.data.train_labels.numpy()
        return np.bincount(labels, minlength=self.judge.num_classes)

    def refusal(self, seconds: float, passes: int = 1) -> str:
        """Why there is no time for something that takes `seconds`, and leaves a model of so many forward passes."""
        if self.context.stop.requested or self.searched.stop_reason == "interrupted":
            return "the run was stopped early"
        left = self.seconds_left(passes)
        return "" if seconds <= left else f"no time: it needs {seconds:.1f} s, and {max(left, 0.0):.1f} s are left"

    def over_the_limit(self, draft: Draft, simpler: Draft) -> str:
        """Why a model costs more than it may; empty where it does not, or costs no more than the simpler one."""
        return self.meter.refusal(draft.networks, simpler.networks) if self.meter else ""

    def seconds_left(self, passes: int = 1) -> float:
        """Of the budget, less what measuring the impact, testing and the report will take."""
        after = seconds_to_report(self.context, self.prepared, self.trials, passes)
        images = impact_images(self.context, self.prepared)
        impact = impact_seconds(images, self.context, self.prepared, self.trials)
        return self.context.clock.remaining - after - impact


@dataclass(frozen=True)
class Improved:
    """Outcome of all steps.

    Attributes:
        draft: the model.
        steps: what was tried, in order.
        candidates: (N_val) predictions of every model that a step compared.
    """

    draft: Draft
    steps: tuple[Step, ...] = ()
    candidates: tuple[NDArray[np.int64], ...] = field(default=(), repr=False)


def improve(bench: Bench) -> Improved:
    """Try every step on the trial that was chosen, in the order of `STEPS`."""
    so_far = Improved(bench.draft())
    for name in STEPS:
        so_far = _tried(bench, so_far, name)
    return so_far


def _tried(bench: Bench, so_far: Improved, name: str) -> Improved:
    started = time.monotonic()
    attempt = STEPS[name].attempt(bench, so_far.draft)
    seconds = time.monotonic() - started
    if attempt.draft is None:
        step = Step(name, attempt.tried, adopted=False, detail=attempt.detail, seconds=seconds)
        return replace(so_far, steps=(*so_far.steps, step))
    before, after = so_far.draft.predicted, attempt.draft.predicted
    gain = bench.judge.gain(after, before)
    scores = bench.judge.score(before), bench.judge.score(after)
    over = bench.over_the_limit(attempt.draft, so_far.draft) if gain.exceeds(MARGIN) else ""
    detail = f"{attempt.detail}; it would cost {over}" if over else attempt.detail
    adopted = gain.exceeds(MARGIN) and not over
    step = Step(name, tried=True, adopted=adopted, detail=detail, scores=scores, gain=gain)
    return Improved(
        attempt.draft if step.adopted else so_far.draft,
        (*so_far.steps, replace(step, seconds=seconds)),
        (*so_far.candidates, after),
    )


def _soup(bench: Bench, draft: Draft) -> Attempt:
    """Greedy: weights of other fine-tunes join the average where the validation log-loss does not rise."""
    mates = soup_mates(bench.trial, bench.choice.entered)
    mates = [mate for mate in mates if mate.number in bench.choice.weights]
    if not mates:
        return Attempt(None, "no other fine-tune of this network from the same beginning was finished", tried=False)
    refusal = bench.refusal(len(mates) * soup_seconds(bench.trial, bench.prepared, bench.trials))
    if refusal:
        return Attempt(None, refusal, tried=False)
    (network,) = draft.networks
    members, votes = [network.state_dict], draft.votes
    for mate in mates:
        result = bench.searched.runner.files.load_result(mate.number)
        if result is None:
            continue
        mixture = replace(network, state_dict=average([*members, result.weights]))
        if not share_statistics([*members, result.weights]):
            mixture = _measured(bench, mixture)
        found = bench.votes(mixture)
        if np.isfinite(found).all() and bench.log_loss(found) <= bench.log_loss(votes) + ROUNDING:
            members, votes, network = [*members, result.weights], found, mixture
    if len(members) == 1:
        return Attempt(None, f"none of {len(mates)} other fine-tunes kept the log-loss from rising")
    return Attempt(Draft((network,), votes), f"the weights of {len(members)} of {len(mates) + 1} fine-tunes")


def _measured(bench: Bench, network: Network) -> Network:
    """The network with statistics of batch norm of training images."""
    runner, size = bench.searched.runner, network.preprocessing.size
    classifier = placed(network.classifier(bench.judge.num_classes), runner.runtime.device)
    order = torch.randperm(len(runner.data.train_rows), generator=torch.Generator().manual_seed(0))
    rows = runner.data.train_rows[order[:STATISTICS_IMAGES]]
    batches = _whole_batches(resized_batches(runner.data.source, rows, size, STATISTICS_BATCH))
    measure_statistics(classifier, batches, network.preprocessing, runner.runtime)
    return replace(network, state_dict=classifier.state_dict())


def _whole_batches(batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Without a last one that is too small to have statistics, unless it is the only one."""
    return (batch for place, batch in enumerate(batches) if not place or len(batch) == STATISTICS_BATCH)


def _flip(bench: Bench, draft: Draft) -> Attempt:
    """Every image and its mirror image."""
    if not mirrors(bench.trial.recipe):
        return Attempt(None, "the network was trained without mirrored images", tried=False)
    refusal = bench.refusal(flip_seconds(bench.trial, bench.prepared, bench.trials), passes=2)
    if refusal:
        return Attempt(None, refusal, tried=False)
    networks = tuple(replace(network, flip=True) for network in draft.networks)
    return Attempt(Draft(networks, bench.votes(*networks)), "the mean over an image and its mirror image")


def _ensemble(bench: Bench, draft: Draft) -> Attempt:
    """Greedy, with replacement, by log-loss (Caruana et al. 2004)."""
    if not bench.context.settings.search.ensemble:
        return Attempt(None, "nobody asked for it (--ensemble)", tried=False)
    refusal = bench.refusal(0.0, passes=3)
    if refusal:
        return Attempt(None, refusal, tried=False)
    library = [(trial, result) for trial in _others(bench) if (result := _readable(bench, trial)) is not None]
    votes = [draft.votes, *(logarithm(result.probabilities) for _, result in library)]
    networks = [*draft.networks, *(bench.network(*each) for each in library)]
    shares = greedy_shares(votes, bench.judge.labels)
    if list(shares) == [0]:
        return Attempt(None, f"none of {len(library)} other networks lowers the log-loss")
    voters = tuple(replace(networks[k], share=share) for k, share in shares.items())
    names = [
        f"trial {trial.number}, {trial.recipe.backbone}" for trial in (bench.trial, *(each for each, _ in library))
    ]
    named = "; ".join(f"{share:.0%} {names[k]}" for k, share in shares.items())
    return Attempt(Draft(voters, mixed([votes[k] for k in shares], list(shares.values()))), f"votes: {named}")


def _others(bench: Bench) -> list[Trial]:
    others = [trial for trial in bench.choice.entered if trial.number != bench.trial.number]
    return sorted(others, key=lambda trial: (*trial.rank, -trial.number), reverse=True)[:LIBRARY]


def _readable(bench: Bench, trial: Trial) -> Result | None:
    return bench.searched.runner.files.load_result(trial.number)


def _adjust(bench: Bench, draft: Draft) -> Attempt:
    """Logit adjustment after training (Menon et al. 2021, arXiv 2007.07314): rare classes are named more often."""
    objective = bench.judge.objective
    if objective not in ADJUSTED:
        return Attempt(None, f"{METRICS[objective].words} counts images, not classes", tried=False)
    counts = bench.train_counts()
    drafts = {tau: replace(draft, class_bias=class_bias(counts, tau)) for tau in TAUS}
    scores = {tau: bench.judge.score(each.predicted) for tau, each in drafts.items()}
    best = max(TAUS, key=lambda tau: (scores[tau], -tau))
    if not best:
        return Attempt(None, f"no strength up to {TAUS[-1]} is better than none")
    return Attempt(drafts[best], f"class frequencies to the power of {best}, of strengths up to {TAUS[-1]}")


@dataclass(frozen=True)
class Row:
    """One row of `STEPS`.

    Attributes:
        title: as the report calls it.
        attempt: (bench, what is shipped else) -> what came of it.
    """

    title: str
    attempt: Callable[[Bench, Draft], Attempt]


#: What is tried, the simplest first.
STEPS: dict[str, Row] = {
    "soup": Row("average of weights", _soup),
    "flip": Row("mirror image", _flip),
    "ensemble": Row("several networks", _ensemble),
    "adjustment": Row("logit adjustment", _adjust),
}


def stored_votes(ensemble: Ensemble, store: ImageSource, rows: NDArray[np.int64]) -> Floats:
    """(n, C) log-probabilities of stored images, before calibration."""
    wanted = torch.from_numpy(rows)
    return ensemble.log_probabilities(lambda size: resized_batches(store, wanted, size, INFERENCE_BATCH))
