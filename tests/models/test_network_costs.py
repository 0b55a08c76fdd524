"""What networks cost: counts against files and published figures, times against a clock that is made up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from automl_vision.bundle import Bundle, Network, save_bundle
from automl_vision.data.preprocess import Preprocessing
from automl_vision.models import costs
from automl_vision.models.backbones import BACKBONES
from automl_vision.models.classifier import build_classifier
from automl_vision.models.costs import (
    BYTES_PER_FILE,
    Counted,
    Form,
    Limits,
    Timing,
    asking,
    batch_cost,
    count,
    count_all,
    excess_words,
    random_ensemble,
    time_in_turns,
)
from automl_vision.models.memory import watched_memory
from automl_vision.runtime import Runtime

CPU = Runtime(torch.device("cpu"), None, 1)
SMALL = Form("mobilenetv3_small_100", 32)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "resnet18", "vit_small"])
def test_counts_are_those_of_the_table_of_backbones(name: str) -> None:
    counted = count(Form(name, 224), 1000)
    assert counted.parameters / 1e6 == pytest.approx(BACKBONES[name].parameters_m, abs=0.006)
    assert counted.macs / 1e9 == pytest.approx(BACKBONES[name].gmacs, abs=0.006)


@pytest.mark.parametrize("form", [SMALL, Form("mobilenetv3_small_100", 64, "mlp:256-gelu"), Form("resnet18", 64)])
def test_the_file_has_what_was_counted_and_no_byte_more(form: Form, tmp_path: Path) -> None:
    net = build_classifier(form.backbone, 5, resolution=form.resolution, head=form.head)
    preprocessing = Preprocessing(form.resolution, (0.5,) * 3, (0.5,) * 3)
    bundle = Bundle(form.backbone, form.head, tuple("abcde"), preprocessing, 1.0, net.state_dict())
    save_bundle(bundle, tmp_path / "model.pt")
    size, counted = (tmp_path / "model.pt").stat().st_size, count(form, 5)
    assert size <= counted.file_bytes <= size + 2 * BYTES_PER_FILE
    assert counted.parameters == sum(each.numel() for each in net.parameters())
    voter = Network(form.backbone, form.head, preprocessing, net.state_dict(), share=0.5)
    twice = Bundle(**vars(voter), others=(voter,), class_names=tuple("abcde"), temperature=1.0)
    save_bundle(twice, tmp_path / "two.pt")
    both = (tmp_path / "two.pt").stat().st_size
    assert both <= count_all((form, form), 5).file_bytes <= both + 3 * BYTES_PER_FILE


def test_a_mirror_image_doubles_the_work_and_nothing_else() -> None:
    plain, flipped = count(SMALL, 3), count(Form(SMALL.backbone, 32, flip=True), 3)
    assert flipped == Counted(plain.parameters, 2 * plain.macs, plain.file_bytes)


def test_passes_are_timed_in_turns_and_those_that_warm_up_do_not_count() -> None:
    now, order = [0.0], []

    def taking(name: str, seconds: list[float]):
        left = list(seconds)

        def ask() -> None:
            order.append(name)
            now[0] += left.pop(0)

        return ask

    asks = {"a": taking("a", [50.0, 1.0, 2.0]), "b": taking("b", [60.0, 3.0, 4.0])}
    found = time_in_turns(asks, 2, warm_up=1, clock=lambda: now[0])
    assert order == ["a", "b"] * 3
    assert found == {"a": [1.0, 2.0], "b": [3.0, 4.0]}


def test_timing_ends_with_the_round_in_which_its_time_is_over() -> None:
    rounds = iter([False, False, True])
    found = time_in_turns({"a": lambda: None, "b": lambda: None}, 9, warm_up=0, late=lambda: next(rounds))
    assert [len(each) for each in found.values()] == [2, 2]


def test_percentiles_are_of_milliseconds() -> None:
    timing = Timing.of([k / 1000 for k in range(1, 102)])
    assert (timing.p50_ms, timing.p95_ms, timing.passes) == (pytest.approx(51), pytest.approx(96), 101)


def test_an_ensemble_is_asked_at_every_side_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    waited: list[torch.device] = []
    ensemble = random_ensemble((SMALL, Form(SMALL.backbone, 64, flip=True)), 3, CPU)
    for voter in ensemble.voters:
        voter.net.register_forward_hook(lambda _net, inputs, _out: seen.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(costs, "wait_for", waited.append)
    asking(ensemble, 2, CPU.device)()
    assert seen == [(2, 3, 32, 32), (2, 3, 64, 64), (2, 3, 64, 64)]
    assert waited == [CPU.device]


def test_waiting_is_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for name in ("cpu", "cuda:0", "mps"):
        costs.wait_for(torch.device(name))
    assert waited == ["cuda:0", "mps"]


def test_a_batch_costs_time_and_memory() -> None:
    ensemble = random_ensemble((SMALL,), 3, CPU)
    found = batch_cost(ensemble, CPU, images=4, batches=2)
    weights = sum(each.nbytes for each in ensemble.voters[0].net.state_dict().values())
    assert found.images == 4
    assert 0 < found.images_per_second < math.inf
    assert found.memory_bytes is None or found.memory_bytes >= weights


def test_main_memory_is_watched_while_it_is_in_use() -> None:
    with watched_memory(torch.device("cpu"), 0.001) as before:
        pass
    if not before.bytes:
        pytest.skip("this system does not tell what a process has")
    with watched_memory(torch.device("cpu"), 0.001) as peak:
        block = torch.ones(64 << 20, dtype=torch.uint8)
        del block
    with watched_memory(torch.device("cpu"), 0.001) as after:
        pass
    assert peak.bytes >= before.bytes
    assert after.bytes < peak.bytes or peak.bytes >= before.bytes + (48 << 20)


def test_the_allocator_of_a_gpu_counts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: told.append(f"reset {device}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123)
    with watched_memory(torch.device("cuda:0")) as peak:
        assert told == ["reset cuda:0"]
    assert peak.bytes == 123


def test_limits_name_what_exceeds_them() -> None:
    counted = Counted(parameters=2_000_000, macs=1, file_bytes=8_000_000)
    assert not Limits().any
    assert Limits().excess(counted, 1e9) == {}
    assert Limits(params_m=2.0, size_mb=8.0, latency_ms=5.0).excess(counted, 5.0) == {}
    found = Limits(params_m=1.5, size_mb=7.0, latency_ms=4.0).excess(counted, 5.0)
    assert found == {"params_m": (2.0, 1.5), "size_mb": (8.0, 7.0), "latency_ms": (5.0, 4.0)}
    assert excess_words(found) == (
        "2.00 million parameters (limit 1.5) and 8.00 MB (limit 7) and 5.00 ms for one image (limit 4)"
    )
    assert Limits(latency_ms=4.0).excess(counted) == {}  # nobody timed it yet
    assert Limits(latency_ms=4.0).to_dict() == {"latency_ms": 4.0, "size_mb": None, "params_m": None}
