"""Limits of the model: what is planned within them, and what a user reads where nothing is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from automl_vision.config import load_settings
from automl_vision.errors import UsageError
from automl_vision.models.costs import Form, Limits
from automl_vision.runtime import Runtime
from automl_vision.stages import limits as stage
from automl_vision.stages.limits import Room, within_limits
from automl_vision.stages.plan import Plan, make_plan

CPU = Runtime(torch.device("cpu"), None, 1)
SMALL, LARGE = "mobilenetv3_small_100", "resnet18"


def plan(*sides: int) -> Plan:
    return Plan((SMALL, LARGE), {SMALL: "w", LARGE: "w"}, sides)  # type: ignore[dict-item]  # any source


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], float]:
    """Made-up latencies by backbone and side; what is asked for is timed once."""
    table: dict[tuple[str, int], float] = {}

    def timed(forms: Any, room: Room, runtime: Runtime) -> dict[Form, float]:
        return {form: table[form.backbone, form.resolution] for form in forms} if room.limits.times else {}

    monkeypatch.setattr(stage, "_early_latencies", timed)
    return table


def test_without_limits_nothing_is_counted_or_timed() -> None:
    room = Room(Limits(), 3)
    assert room.excess(Form("no such network", 32)) == {}
    assert room.takes("no such network")


def test_each_backbone_keeps_the_sides_at_which_it_is_fast_enough(clocked: dict[tuple[str, int], float]) -> None:
    clocked |= {(SMALL, 96): 9.0, (SMALL, 64): 4.0, (LARGE, 96): 30.0, (LARGE, 64): 12.0}
    found, notes = within_limits(plan(96, 64), Room(Limits(latency_ms=10.0), 3), CPU, may_shrink=False)
    assert (found.backbones, found.resolutions, dict(found.sides)) == ((SMALL,), (96, 64), {SMALL: (96, 64)})
    assert list(found.weights) == [SMALL]
    assert found.latencies == {(SMALL, 96): 9.0, (SMALL, 64): 4.0}
    assert "resnet18 at 96 px: 30.00 ms for one image (limit 10)" in notes[0]
    found, _ = within_limits(plan(96, 64), Room(Limits(latency_ms=15.0), 3), CPU, may_shrink=False)
    assert dict(found.sides) == {SMALL: (96, 64), LARGE: (64,)}


def test_a_side_that_nothing_keeps_is_not_decoded_for(clocked: dict[tuple[str, int], float]) -> None:
    clocked |= {(SMALL, 96): 9.0, (SMALL, 64): 4.0, (LARGE, 96): 30.0, (LARGE, 64): 12.0}
    found, _ = within_limits(plan(96, 64), Room(Limits(latency_ms=5.0), 3), CPU, may_shrink=False)
    assert (found.resolutions, dict(found.sides)) == ((64,), {SMALL: (64,)})


def test_smaller_sides_are_tried_only_where_the_user_named_none(clocked: dict[tuple[str, int], float]) -> None:
    clocked |= {(SMALL, 192): 20.0, (SMALL, 160): 15.0, (SMALL, 128): 9.0}
    clocked |= {(LARGE, side): 99.0 for side in (192, 160, 128, 96)}
    found, notes = within_limits(plan(192), Room(Limits(latency_ms=10.0), 3), CPU, may_shrink=True)
    assert (found.resolutions, dict(found.sides)) == ((128,), {SMALL: (128,)})
    assert "mobilenetv3_small_100 at 160 px" in notes[0]
    with pytest.raises(UsageError, match=r"mobilenetv3_small_100 at 192 px with 20\.00 ms"):
        within_limits(plan(192), Room(Limits(latency_ms=10.0), 3), CPU, may_shrink=False)


def test_where_nothing_fits_the_nearest_is_named_with_its_figures_and_the_option(
    clocked: dict[tuple[str, int], float],
) -> None:
    clocked |= {(SMALL, 64): 14.0, (LARGE, 64): 11.0}
    with pytest.raises(UsageError) as caught:
        within_limits(plan(64), Room(Limits(latency_ms=10.0), 3), CPU, may_shrink=False)
    assert caught.value.value == "the nearest is resnet18 at 64 px with 11.00 ms for one image (limit 10)"
    assert "raise --max-latency-ms" in caught.value.fix


def test_too_large_networks_are_never_timed(clocked: dict[tuple[str, int], float]) -> None:
    clocked |= {(SMALL, 64): 4.0}  # timing another one would be a KeyError
    found, notes = within_limits(plan(64), Room(Limits(latency_ms=10.0, params_m=5.0), 3), CPU, may_shrink=False)
    assert found.backbones == (SMALL,)
    assert "11.18 million parameters (limit 5)" in notes[0]


def test_digests_of_images_count_as_part_of_the_file() -> None:
    settings = load_settings(overrides={"limits.max_size_mb": 6.3})
    assert Room.of(settings, 3, 100).takes(SMALL)
    assert not Room.of(settings, 3, 100_000).takes(SMALL)
    without = load_settings(overrides={"limits.max_size_mb": 6.3, "output.fingerprint": False})
    assert Room.of(without, 3, 100_000).takes(SMALL)


def test_latency_is_really_measured() -> None:
    room = Room(Limits(latency_ms=1e6), 3)
    (found,) = stage._early_latencies([Form(SMALL, 32)], room, CPU).values()
    assert 0 < found < 1e5
    assert stage._early_latencies([Form(SMALL, 32)], Room(Limits(params_m=9.0), 3), CPU) == {}


# --- the plan ----------------------------------------------------------------------------------------------------


def manifest(tmp_path: Path) -> Any:
    class Manifest(SimpleNamespace):
        def __len__(self) -> int:
            return 100

    return Manifest(class_names=("a", "b"), paths=(), file=lambda row: tmp_path)


def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Plan:
    monkeypatch.setattr("automl_vision.stages.plan.typical_side", lambda _: 100)
    given = {"search.pretrained": False, "search.resolutions": [32]}
    return make_plan(manifest(tmp_path), load_settings(overrides=given | overrides), CPU)


def test_named_backbones_that_are_too_large_are_left_out_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = {"search.backbones": [LARGE, SMALL], "limits.max_params_m": 5}
    found = planned(tmp_path, monkeypatch, **limited)
    assert found.backbones == (SMALL,)
    assert "resnet18 at 224 px: 11.18 million parameters (limit 5)" in found.notes[0]
    assert planned(tmp_path, monkeypatch, **limited | {"limits.max_params_m": 50}).backbones == (LARGE, SMALL)


def test_where_the_user_names_none_others_that_fit_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(tmp_path, monkeypatch).backbones == (LARGE, SMALL)
    assert planned(tmp_path, monkeypatch, **{"limits.max_params_m": 5}).backbones == (SMALL,)


def test_where_no_backbone_fits_the_nearest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="mobilenetv3_small_100") as caught:
        planned(tmp_path, monkeypatch, **{"limits.max_params_m": 0.5})
    assert "1.52 million parameters (limit 0.5)" in str(caught.value)
    with pytest.raises(UsageError, match=r"resnet18.*11\.18 million"):
        planned(tmp_path, monkeypatch, **{"limits.max_params_m": 0.5, "search.backbones": [LARGE]})
