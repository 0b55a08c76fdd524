"""Trials for tests: short to write, and histories drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from automl_vision.search.scheduler import rungs
from automl_vision.search.trial import STATES, EpochRecord, Trial
from automl_vision.training.recipe import Recipe


def epoch(number: int, score: float) -> EpochRecord:
    return EpochRecord(number, train_loss=1.0, val_loss=1.0 - score, score=score, learning_rate=1e-3, seconds=1.0)


def finetune(number: int, scores: Sequence[float] = (), *, horizon: int = 12, state: str = "", **fields: Any) -> Trial:
    """A fine-tune with these scores by epoch."""
    recipe = fields.pop("recipe", None) or Recipe("finetune", "net_a", 96, epochs=horizon)
    best = max(scores, default=None)
    return Trial(
        number=number,
        recipe=recipe,
        parameters=fields.pop("parameters", {}),
        origin=fields.pop("origin", "portfolio"),
        notes=fields.pop("notes", {"rungs": list(rungs(horizon)), "steps": 10 * horizon}),
        state=state or ("complete" if len(scores) >= horizon else "paused"),  # type: ignore[arg-type] # a key of STATES
        epochs=tuple(epoch(index, score) for index, score in enumerate(scores, start=1)),
        score=best,
        loss=None if best is None else 1.0 - best,
        **fields,
    )


def probe(number: int, score: float | None = 0.5, *, backbone: str = "net_a", **fields: Any) -> Trial:
    """A linear probe; complete unless told otherwise."""
    return Trial(
        number=number,
        recipe=Recipe("probe", backbone, fields.pop("resolution", 96), augment="none", head_from_probe=False),
        parameters={},
        origin="probe",
        state=fields.pop("state", "complete"),
        score=score,
        loss=1.0,
        **fields,
    )


@st.composite
def histories(draw: st.DrawFn, horizon: int, largest: int = 14) -> list[Trial]:
    """Fine-tunes of one horizon in any state that a search, killed at any moment, may leave."""
    lengths = st.one_of(st.sampled_from((0, *rungs(horizon))), st.integers(0, horizon))
    scores = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    trials = []
    for number in range(draw(st.integers(0, largest))):
        length = draw(lengths)
        state = draw(st.sampled_from([each for each in STATES if each != "paused" or length < horizon]))
        trials.append(finetune(number, [draw(scores) for _ in range(length)], horizon=horizon, state=state))
    return trials
