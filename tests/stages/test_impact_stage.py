"""Stage `impact`: which images it may see, and what it says where it does not measure."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from automl_vision.config import OutputSettings
from automl_vision.models.probe import NoRoom
from automl_vision.search.trial import Trial
from automl_vision.stages import impact as stage
from automl_vision.stages.context import StopRequest
from automl_vision.stages.impact import IMPACT_SHARE, MOST_IMAGES, impact_images, impact_of, impact_seconds
from automl_vision.training.recipe import Recipe

PROBE = Trial(0, Recipe(kind="probe", backbone="resnet18", resolution=96), {}, "probe", state="complete", score=0.5)
PROBE = PROBE.replace(seconds_per_image=0.01)


def prepared_of(groups: list[int], sets: list[str]) -> Any:
    """Rows with their groups and sets; "copy" is a copy of a validation image that was set aside."""
    group, name = np.array(groups), np.array(sets)
    split = SimpleNamespace(
        rows=lambda each: np.flatnonzero(name == each), augmented_val=np.flatnonzero(name == "copy")
    )
    manifest = SimpleNamespace(class_names=("a", "b"))
    facts = SimpleNamespace(compared=None)
    return SimpleNamespace(split=split, manifest=manifest, facts=facts, groups=lambda rows: group[rows])


def context_of(*, budget: float = 600.0, remaining: float = 300.0, asked: bool = True, stop: bool = False) -> Any:
    clock = SimpleNamespace(budget=budget, remaining=remaining, wall_per_cpu_second=1.0)
    settings = SimpleNamespace(
        search=SimpleNamespace(measure_impact=asked),
        machine=SimpleNamespace(seed=0),
        data=SimpleNamespace(),
        output=OutputSettings(),
    )
    return SimpleNamespace(clock=clock, settings=settings, stop=StopRequest(stop))


def searched_of(*trials: Trial, stop_reason: str = "budget") -> Any:
    return SimpleNamespace(search=SimpleNamespace(trials=list(trials)), stop_reason=stop_reason, runner=None)


RELATED = prepared_of([0, 0, 1, 2, 2, 3], ["train", "train", "train", "val", "copy", "test"])
ALIKE = prepared_of([0, 1, 2, 3, 3], ["train", "train", "val", "test", "aside"])


def test_it_sees_all_files_of_the_groups_in_train_and_validation_and_no_others() -> None:
    assert stage._pool(RELATED).tolist() == [0, 1, 2, 3, 4]
    assert stage._pool(ALIKE).tolist() == [0, 1, 2]


def test_where_nothing_belongs_together_both_deals_are_one() -> None:
    found = impact_of(context_of(), ALIKE, searched_of(PROBE))
    assert not found["measured"]
    assert "both ways to deal are one (--lineage full also compares" in found["reason"]
    compared = SimpleNamespace(**{**vars(ALIKE), "facts": SimpleNamespace(compared=object())})
    assert impact_of(context_of(), compared, searched_of(PROBE))["reason"].endswith("both ways to deal are one")
    assert impact_images(context_of(), ALIKE) == 0


@pytest.mark.parametrize(
    ("context", "searched", "reason"),
    [
        (context_of(remaining=1.0), searched_of(PROBE), "no time for it"),
        (context_of(remaining=-5.0), searched_of(PROBE), "no time for it (0.0 s)"),
        (context_of(budget=5.0), searched_of(PROBE), "no time for it"),
        (context_of(), searched_of(), "no linear probe"),
        (context_of(stop=True), searched_of(PROBE), "stopped early"),
        (context_of(), searched_of(PROBE, stop_reason="interrupted"), "stopped early"),
    ],
)
def test_what_is_not_measured_says_why(context: Any, searched: Any, reason: str) -> None:
    found = impact_of(context, RELATED, searched)
    assert not found["measured"]
    assert reason in found["reason"]


@pytest.mark.parametrize("budget", [10.0, 100.0, 1e4, math.inf])
@pytest.mark.parametrize("images", [1, 500, 50_000])
def test_the_search_leaves_it_no_more_than_its_share(budget: float, images: int) -> None:
    seconds = impact_seconds(images, context_of(budget=budget), RELATED, [PROBE])
    assert 0 < seconds <= IMPACT_SHARE * budget
    assert math.isfinite(seconds)


def test_the_search_leaves_it_nothing_before_there_is_a_probe_or_where_nobody_asked() -> None:
    assert impact_seconds(500, context_of(), RELATED, []) == 0.0
    assert impact_seconds(0, context_of(), RELATED, [PROBE]) == 0.0
    assert impact_images(context_of(asked=False), RELATED) == 0
    assert impact_images(context_of(), RELATED) == 5


@pytest.mark.parametrize("count", [0, 1, 3, 7, 400, 10_000])
def test_where_not_all_fit_whole_groups_are_drawn(count: int) -> None:
    groups = np.repeat(np.arange(100), 4)
    prepared = prepared_of(groups.tolist(), ["train"] * 400)
    drawn = stage._drawn(prepared, np.arange(400), count, seed=0)
    assert len(drawn) <= count
    assert len(drawn) > min(count, 400) - 4
    assert set(np.bincount(groups[drawn], minlength=100)) <= {0, 4}


def test_no_budget_affords_more_images_than_are_of_use() -> None:
    assert stage._affordable(RELATED, PROBE, math.inf) == MOST_IMAGES
    assert stage._affordable(RELATED, PROBE, 1e9) == MOST_IMAGES
    assert stage._affordable(RELATED, PROBE, -1.0) == 0


def test_without_the_memory_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise NoRoom("a linear head takes 9 GB")

    monkeypatch.setattr(stage, "extract_features", lambda *_, **__: np.zeros((5, 2), np.float32))
    monkeypatch.setattr(stage, "placed", lambda net, device: net)
    monkeypatch.setattr(stage, "measure_impact", no_room)
    runner: Any = SimpleNamespace(
        classifier=lambda recipe: SimpleNamespace(backbone=None),
        preprocessing=lambda recipe: None,
        runtime=SimpleNamespace(device=None),
        objective="accuracy",
    )
    prepared = SimpleNamespace(
        **vars(RELATED), store=None, audit=SimpleNamespace(eligible=np.ones(6, bool)), labels=lambda rows: rows % 2
    )
    searched = SimpleNamespace(runner=runner)
    found = stage._measured(context_of(), prepared, searched, PROBE, np.arange(5), math.inf)  # type: ignore[arg-type]
    assert found == {"measured": False, "reason": "a linear head takes 9 GB"}
