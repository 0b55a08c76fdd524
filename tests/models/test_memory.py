from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from automl_vision import main_memory
from automl_vision.models.memory import MoreThanAllowed, available_bytes, free_memory, left_of_share, saved_bytes

CPU = torch.device("cpu")


def two_layers(*, in_place: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=in_place), nn.Linear(3, 2))


def needed(net: nn.Module, images: int, at_most: float = 1e9) -> int:
    inputs = torch.zeros(images, 4)
    return saved_bytes(net, lambda: net(inputs), at_most)


@pytest.mark.parametrize("images", [1, 2, 7])
@pytest.mark.parametrize("in_place", [False, True])
def test_of_a_network_that_can_be_counted_by_hand_the_bytes_are_exact(images: int, in_place: bool) -> None:
    inputs, hidden, largest = 4 * 4, 3 * 4, 3 * 4  # what the second layer takes is what the first ReLU left: once
    assert needed(two_layers(in_place=in_place), images) == images * (inputs + hidden + largest)


def test_what_no_gradient_passes_through_is_not_kept() -> None:
    net = two_layers()
    net[0].requires_grad_(False)
    assert needed(net, 5) == 5 * (3 * 4 + 3 * 4)  # the inputs are gone


def test_views_of_one_storage_count_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, pairs: torch.Tensor) -> torch.Tensor:
            return (pairs[:, :2] * self.weight).sum() + (pairs[:, 2:] * self.weight).sum()

    assert needed(Twice(), 3) == 3 * 4 * 4 + 4  # and the scalar that comes out


def test_a_pass_that_keeps_too_much_ends_early() -> None:
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(50)))
    reached = []
    net[49].register_forward_hook(lambda *_: reached.append(1))
    with pytest.raises(MoreThanAllowed):
        needed(net, 10, at_most=10 * 16 * 3)
    assert not reached
    assert needed(net, 10, at_most=10 * 16 * 50) == 10 * 16 * 51


def test_a_device_that_has_no_more_says_the_same_and_a_mistake_stays_one() -> None:
    def fails(error: BaseException) -> Callable[[], torch.Tensor]:
        def forward() -> torch.Tensor:
            raise error

        return forward

    with pytest.raises(MoreThanAllowed):
        saved_bytes(two_layers(), fails(torch.OutOfMemoryError("full")), 1e9)
    with pytest.raises(RuntimeError, match="shapes"):
        saved_bytes(two_layers(), fails(RuntimeError("shapes")), 1e9)


@pytest.mark.parametrize("at_most", [1e9, 1.0])
def test_a_network_is_as_it_was(at_most: float) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval(), nn.Flatten(), nn.Linear(4, 2))
    net[2].register_buffer("seen", torch.zeros(()))
    net[2].register_forward_pre_hook(lambda module, _: module.seen.add_(1) and None)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    hooks = [len(module._forward_hooks) for module in net.modules()]
    image = torch.rand(1, 3, 3, 3)  # a single image whose maps are single pixels: batch norm cannot learn from it
    if at_most > 1:
        assert saved_bytes(net, lambda: net(image), at_most) > 0
    else:
        with pytest.raises(MoreThanAllowed):
            saved_bytes(net, lambda: net(image), at_most)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert all(parameter.grad is None for parameter in net.parameters())


# --- what there is ------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], int | None]:
    """Free bytes on a Linux machine with these files."""

    def free(files: dict[str, str]) -> int | None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return available_bytes(CPU)

    monkeypatch.setattr(main_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(main_memory, "_CGROUPS", tmp_path / "cgroup")
    return free


MEMINFO = {"proc/meminfo": "MemTotal:  9000 kB\nMemFree:  1 kB\nMemAvailable:    4000 kB\n"}


def test_without_limits_it_is_what_the_kernel_calls_available(machine: Callable[[dict[str, str]], int | None]) -> None:
    assert machine(MEMINFO) == 4000 * 1024


def test_where_nobody_tells_it_is_not_known(machine: Callable[[dict[str, str]], int | None]) -> None:
    assert machine({}) is None
    assert available_bytes(torch.device("meta")) is None


def test_what_there_is_for_all_processes_has_the_limit_of_the_group(
    machine: Callable[[dict[str, str]], int | None],
) -> None:
    assert math.isinf(left_of_share(CPU, 0.5))  # nobody tells
    machine({**MEMINFO, "proc/self/status": "VmRSS:\t 2000 kB\nRssAnon:\t 1000 kB\n"})
    assert left_of_share(CPU, 0.5) == (4500 - 1000) * 1024
    assert left_of_share(CPU, 0.1) == 0.0
    assert math.isinf(left_of_share(CPU, 1.0))
    group = {"cgroup/jobs/mine/memory.max": str(6000 * 1024), "cgroup/jobs/mine/memory.current": "300"}
    machine({**V2, **group})
    assert left_of_share(CPU, 0.5) == (3000 - 1000) * 1024


V2 = {"proc/self/cgroup": "0::/jobs/mine\n"}
V1 = {"proc/self/cgroup": "5:devices:/jobs\n4:cpu,memory:/jobs/mine\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({**V2, "cgroup/jobs/mine/memory.max": "max", "cgroup/jobs/mine/memory.current": "5"}, 4000 * 1024),
        ({**V2, "cgroup/jobs/mine/memory.max": "1000", "cgroup/jobs/mine/memory.current": "300"}, 700),
        (
            {
                **V2,
                "cgroup/jobs/mine/memory.max": "1000",
                "cgroup/jobs/mine/memory.current": "800",
                "cgroup/jobs/mine/memory.stat": "anon 5\ninactive_file 600\nactive_file 7\n",
            },
            807,
        ),
        (  # the group around it has less
            {
                **V2,
                "cgroup/jobs/mine/memory.max": "1000",
                "cgroup/jobs/mine/memory.current": "300",
                "cgroup/jobs/memory.max": "2000",
                "cgroup/jobs/memory.current": "1950",
            },
            50,
        ),
        ({**V2, "cgroup/memory.max": "100", "cgroup/memory.current": "40"}, 60),  # a container sees itself as the root
        ({**V2, "cgroup/memory.max": "100", "cgroup/memory.current": "140"}, 0),
        (
            {
                **V1,
                "cgroup/memory/jobs/mine/memory.limit_in_bytes": "1000",
                "cgroup/memory/jobs/mine/memory.usage_in_bytes": "900",
                "cgroup/memory/jobs/mine/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
            },
            150,
        ),
        (
            {
                **V1,
                "cgroup/memory/jobs/mine/memory.limit_in_bytes": "9223372036854771712",
                "cgroup/memory/jobs/mine/memory.usage_in_bytes": "900",
            },
            4000 * 1024,
        ),
    ],
)
def test_a_limit_of_a_control_group_counts(
    machine: Callable[[dict[str, str]], int | None], files: dict[str, str], expected: int
) -> None:
    assert machine({**MEMINFO, **files}) == expected


def test_a_limit_counts_where_the_machine_does_not_tell(machine: Callable[[dict[str, str]], int | None]) -> None:
    assert machine({**V2, "cgroup/memory.max": "100", "cgroup/memory.current": "40"}) == 60


def test_freeing_does_no_harm() -> None:
    free_memory(CPU)


def test_a_gpu_counts_what_its_allocator_holds_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert available_bytes(torch.device("cuda")) == 1300
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 700)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 300)
    assert available_bytes(torch.device("mps")) == 400
