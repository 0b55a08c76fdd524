"""Convolutions on the CPU: faster, and the same network."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automl_vision.models.backbones import backbone, create_network
from automl_vision.models.cpu_convolutions import CpuConvolutions, cpu_convolutions, depthwise_weight_gradient

SIDE = 32
Gradients = dict[str, torch.Tensor]


@settings(deadline=None)
@given(
    rows=st.integers(1, 7),
    columns=st.integers(3, 11),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.integers(1, 5),
)
def test_the_gradient_of_a_wide_kernel_is_that_of_torch(
    rows: int,
    columns: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    channels: int,
) -> None:
    if size[0] + 2 * padding[0] < rows or size[1] + 2 * padding[1] < columns:
        return  # the kernel does not fit into the images
    torch.manual_seed(rows * columns)
    images = torch.randn(2, channels, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, rows, columns, dtype=torch.float64, requires_grad=True)
    output = F.conv2d(images, weight, None, stride, padding, 1, channels)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    got = depthwise_weight_gradient(images, gradient, (rows, columns), stride, padding)
    torch.testing.assert_close(got, weight.grad)


def lived_in(net: nn.Module) -> nn.Module:
    """Double precision, and batch norm as it is after training: nothing is 0 or 1 by luck."""
    torch.manual_seed(1)
    for each in net.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.normal_(each.running_mean)  # type: ignore[arg-type]  # there are statistics
            nn.init.uniform_(each.running_var, 0.5, 1.5)  # type: ignore[arg-type]  # there are statistics
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.normal_(each.bias)
    return net.double().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # torch's stub lacks this form


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return lived_in(create_network(backbone(name)))


def images(count: int = 3) -> torch.Tensor:
    made = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return made.contiguous(memory_format=torch.channels_last)


def output_and_gradients(net: nn.Module, *, fast: bool) -> tuple[torch.Tensor, Gradients]:
    net.zero_grad()
    if fast:
        with CpuConvolutions(net, SIDE).in_use():
            output = net(images())
    else:
        output = net(images())
    output.pow(2).mean().backward()
    return output.detach(), {name: each.grad.clone() for name, each in net.named_parameters() if each.grad is not None}


def assert_the_same(net: nn.Module) -> None:
    expected, gradients = output_and_gradients(net, fast=False)
    got, fast_gradients = output_and_gradients(net, fast=True)
    torch.testing.assert_close(got, expected)
    assert fast_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def count_of_norms(net: nn.Module) -> tuple[int, int]:
    """Passes of batch norm over pixels, as it is and inside of the fast convolutions."""

    def passes() -> int:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            net(images(1))
        return sum(event.count for event in profile.key_averages() if event.key == "aten::batch_norm")

    usual = passes()
    with CpuConvolutions(net, SIDE).in_use():
        return usual, passes()


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_lite0", "resnet18", "densenet121"])
def test_outputs_and_gradients_are_those_of_the_network(name: str) -> None:
    assert_the_same(network(name))


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_lite0", "resnet18"])
def test_norms_behind_convolutions_cost_no_pass(name: str) -> None:
    usual, left = count_of_norms(network(name))
    assert usual > 15
    assert left == 0


def test_wide_kernels_without_batch_norm_are_found() -> None:
    net = network("convnext_nano")
    assert not any(isinstance(each, nn.BatchNorm2d) for each in net.modules())
    assert any(isinstance(each, nn.Conv2d) and each.kernel_size == (7, 7) for each in net.modules())
    assert_the_same(net)


class Toy(nn.Module):
    """A convolution and batch norm, joined in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 5, padding="same" if way == "padding by name" else 2, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.way = way

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return WAYS[self.way](self.conv, self.norm, images)


WAYS = {
    "chain": lambda conv, norm, x: norm(conv(x)),
    "padding by name": lambda conv, norm, x: norm(conv(x)),
    "output used twice": lambda conv, norm, x: (y := conv(x)) + norm(y),
    "norm first": lambda conv, norm, x: conv(norm(x)),
    "shared convolution": lambda conv, norm, x: norm(conv(conv(x))),
    "shared norm": lambda conv, norm, x: norm(conv(norm(conv(x)))),
    "something between": lambda conv, norm, x: norm(conv(x).relu()),
    "output changed in place": lambda conv, norm, x: norm(conv(x).mul_(2)),
}


@pytest.mark.parametrize("way", WAYS)
def test_only_a_norm_that_alone_takes_an_output_is_folded(way: str) -> None:
    net = lived_in(Toy(way))
    assert_the_same(net)
    usual, left = count_of_norms(net)
    assert left == (0 if way == "chain" else usual)


def test_a_network_that_was_looked_at_small_may_be_used_large() -> None:
    net = lived_in(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 5, 1)))
    known = CpuConvolutions(net, 2)  # here the second convolution sees single pixels
    with known.in_use():
        small, large = net(images()[..., :2, :2]), net(images())
    torch.testing.assert_close(small, net(images()[..., :2, :2]))
    torch.testing.assert_close(large, net(images()))


def test_a_norm_that_learns_its_statistics_is_not_folded() -> None:
    net = network("resnet18").train()
    known = CpuConvolutions(net, SIDE)  # looks in evaluation mode, and leaves the mode and the statistics
    assert all(each.training for each in net.modules())
    twin = copy.deepcopy(net)
    with known.in_use():
        got = net(images())
    torch.testing.assert_close(got, twin(images()))
    torch.testing.assert_close(net.state_dict(), twin.state_dict())
    net.eval()
    with known.in_use():  # the same object follows the mode
        torch.testing.assert_close(net(images()), twin.eval()(images()))


def test_looking_at_a_network_changes_nothing() -> None:
    net = network("mobilenetv3_small_100").train()
    before = copy.deepcopy(net.state_dict())
    random = torch.random.get_rng_state()
    modes = [each.training for each in net.modules()]
    with torch.inference_mode():  # where nothing is recorded, and yet the graph is seen
        CpuConvolutions(net, SIDE)
    torch.testing.assert_close(net.state_dict(), before)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [each.training for each in net.modules()] == modes
    assert all(each.grad is None for each in net.parameters())


def test_inside_the_network_is_saved_as_it_is() -> None:
    net = lived_in(Toy("chain"))
    state = {name: each.clone() for name, each in net.state_dict().items()}
    with CpuConvolutions(net, SIDE).in_use():
        inside = net.state_dict()
    assert inside.keys() == state.keys()
    torch.testing.assert_close(inside, state)


def test_a_forward_of_the_caller_s_own_and_an_outer_use_are_put_back() -> None:
    net = lived_in(Toy("chain"))
    known = CpuConvolutions(net, SIDE)
    own = type(net.conv).forward.__get__(net.conv)
    net.conv.forward = own
    with known.in_use():
        outer = vars(net.conv)["forward"]
        with known.in_use():
            assert vars(net.conv)["forward"] is not outer
        assert vars(net.conv)["forward"] is outer
    assert vars(net.conv)["forward"] is own
    assert "forward" not in vars(net.norm)


def test_many_threads_may_meet_a_network_first() -> None:
    for _ in range(4):
        net = network("resnet18")
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: cpu_convolutions(net, SIDE), range(4)))  # noqa: B023 - awaited here
        assert len(set(map(id, found))) == 1
        assert len(found[0]._convolutions) == 20


def test_a_network_that_autograd_cannot_record_is_run_as_it_is() -> None:
    with torch.inference_mode():
        made = network("resnet18")
        expected = made(images())
    known = CpuConvolutions(made, SIDE)
    with torch.inference_mode(), known.in_use():
        torch.testing.assert_close(made(images()), expected)

    class Cut(Toy):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).detach()

    assert count_of_norms(lived_in(Cut("chain"))) == (1, 1)


def test_outside_nothing_is_left_even_after_an_error() -> None:
    net = lived_in(Toy("chain"))
    with pytest.raises(ZeroDivisionError), CpuConvolutions(net, SIDE).in_use():
        raise ZeroDivisionError
    assert all("forward" not in vars(each) for each in net.modules())


def test_threads_that_use_one_network_at_once_do_not_disturb_each_other() -> None:
    net = network("mobilenetv3_small_100")
    known, expected = CpuConvolutions(net, SIDE), net(images()).detach()

    def passes(fast: bool) -> list[torch.Tensor]:
        with torch.no_grad():
            results = []
            for _ in range(8):
                with known.in_use() if fast else nullcontext():
                    results.append(net(images()))
            return results

    with ThreadPoolExecutor(4) as pool:
        everything = [each for part in pool.map(passes, (True, False, True, False)) for each in part]
    for each in everything:
        torch.testing.assert_close(each, expected)


def test_what_is_frozen_gets_no_gradient() -> None:
    net = network("mobilenetv3_small_100")
    for name, each in net.named_parameters():
        each.requires_grad_(name.startswith("blocks.5") or "bn1.bias" in name)
    assert_the_same(net)


def test_dense_convolutions_are_multiplied_in_the_type_that_is_asked_for_and_grouped_ones_are_not() -> None:
    net = network("mobilenetv3_small_100").float()
    known = CpuConvolutions(net, SIDE)
    types: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    convolutions = [each for each in net.modules() if isinstance(each, nn.Conv2d) and each.bias is None]
    for each in convolutions:
        each.register_forward_hook(lambda conv, _inputs, output: types[conv.groups > 1].add(output.dtype))
    with known.in_use(torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        output = net(images().float())
    output.float().pow(2).mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
    assert types == {True: {torch.float32}, False: {torch.bfloat16}}
    assert {each.grad.dtype for each in net.parameters() if each.grad is not None} == {torch.float32}


def test_gradients_in_bfloat16_point_where_those_in_float32_do() -> None:
    net = network("resnet18").float()
    gradients = []
    for dense in (torch.float32, torch.bfloat16):
        net.zero_grad()
        with CpuConvolutions(net, SIDE).in_use(dense):
            output = net(images().float()).float()
        F.mse_loss(output, torch.ones_like(output)).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        gradients.append(torch.cat([each.grad.flatten() for each in net.parameters() if each.grad is not None]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.98


def test_a_network_is_looked_at_once() -> None:
    net = network("resnet18")
    calls: list[int] = []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    first = cpu_convolutions(net, SIDE)
    looked = len(calls)
    assert cpu_convolutions(net, SIDE) is first
    assert len(calls) == looked > 0


def test_a_network_that_says_something_else_when_folded_is_left_alone() -> None:
    class Suspicious(Toy):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * (1 if "forward" not in vars(self.norm) else 2)

    net = lived_in(Suspicious("chain"))
    usual, left = count_of_norms(net)
    assert usual == left == 1
