"""Convolutions of a network on the CPU, each in the way that takes it the least time; the network stays as it is.

What is done differently, and what it gains, was measured on torch 2.15 with oneDNN (docs/LOG.md):

- Batch norm whose statistics are kept is one factor and one offset per channel. Multiplied into the weights of the
  convolution before it, it costs nothing per pixel, forward and backward.
- The weight gradient of a depthwise kernel of more than three columns, or of padded images, misses the fast
  implementation and takes up to six times as long. It is put together from parts of three columns.
- Where images are a single pixel, as in squeeze-and-excitation, a convolution is a matrix product, which takes less
  than half of the time if it is called so.
- Dense convolutions may be multiplied in bfloat16 while grouped ones stay in float32, whose gradients in bfloat16 are
  several times slower than in float32.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn

from automl_vision.models.backbones import (
    after_normalisation,
    explicit_padding,
    is_plain_batch_norm,
    is_plain_convolution,
)

Pair = tuple[int, int]
Forward = Callable[[torch.Tensor], torch.Tensor]

#: Columns of a depthwise kernel up to which its weight gradient is fast.
_NARROW = 3
#: How far apart outputs may be, as a share of the largest, for a network to be one that can be folded.
_TOLERANCE = 1e-3

_convolution_backward = torch.ops.aten.convolution_backward.default


@dataclass(frozen=True)
class _Way:
    """How one convolution is run: its geometry, and the type that it is multiplied in."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    dtype: torch.dtype

    def backward(
        self, gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, wanted: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Gradients of the images and of the weight, each where it is wanted."""
        output_padding = [0, 0]
        mask = [*wanted, False]  # the offset's is a plain sum, which oneDNN takes six times as long for
        geometry = (self.stride, self.padding, self.dilation, False, output_padding, self.groups)
        of_images, of_weight, _ = _convolution_backward(gradient, images, weight, None, *geometry, mask)
        return of_images, of_weight


class _Convolve(torch.autograd.Function):
    """(B, C, H, W) images, weight and offset to the convolution in one type; gradients in the types of the inputs."""

    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor | None, way: _Way
    ) -> torch.Tensor:
        ctx.way, ctx.types = way, (images.dtype, weight.dtype)
        images, weight = images.to(way.dtype), weight.to(way.dtype)
        ctx.save_for_backward(images, weight)
        offset = None if offset is None else offset.to(way.dtype)
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(images, weight, offset, way.stride, way.padding, way.dilation, way.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        images, weight = ctx.saved_tensors
        way, (type_of_images, type_of_weight) = ctx.way, ctx.types
        gradient = gradients[0].to(way.dtype).contiguous(memory_format=torch.channels_last)
        want_images, want_weight, want_offset, _ = ctx.needs_input_grad
        in_parts = want_weight and is_wide_depthwise(weight, way.groups, way.dilation)
        of_images = of_weight = of_offset = None
        if want_images or (want_weight and not in_parts):
            of_images, of_weight = way.backward(gradient, images, weight, (want_images, want_weight and not in_parts))
        if in_parts:
            of_weight = depthwise_weight_gradient(images, gradient, weight.shape[2:], way.stride, way.padding)
        if want_offset:
            of_offset = gradient.sum((0, 2, 3)).to(type_of_weight)
        return (
            None if of_images is None else of_images.to(type_of_images),
            None if of_weight is None else of_weight.to(type_of_weight),
            of_offset,
            None,
        )


class _Fold(torch.autograd.Function):
    """Weight (C, ...) of a convolution, and gain, offset, mean and variance (C) of the norm after it, as one weight
    and one offset."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: torch.Tensor,
        gain: torch.Tensor,
        offset: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inverse = torch.rsqrt(variance + eps)
        scale = gain * inverse
        ctx.save_for_backward(weight, scale, inverse, mean)
        return weight * scale.view(-1, 1, 1, 1), torch.addcmul(offset, mean, scale, value=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        of_weight, of_offset = gradients
        weight, scale, inverse, mean = ctx.saved_tensors
        of_scale = (of_weight * weight).sum((1, 2, 3)) - of_offset * mean
        return of_weight * scale.view(-1, 1, 1, 1), of_scale * inverse, of_offset, None, None, None


def is_wide_depthwise(weight: torch.Tensor, groups: int, dilation: Pair) -> bool:
    """Whether `depthwise_weight_gradient` is faster for a kernel than what torch does."""
    depthwise = weight.shape[1] == 1 and weight.shape[0] == groups
    return depthwise and weight.shape[3] > _NARROW and tuple(dilation) == (1, 1)


def depthwise_weight_gradient(
    images: torch.Tensor, gradient: torch.Tensor, kernel: tuple[int, ...], stride: Pair, padding: Pair
) -> torch.Tensor:
    """Gradient of a depthwise kernel, gathered from parts of three columns on images that are padded beforehand.

    Args:
        images: (B, C, H, W), channels_last.
        gradient: (B, C, H', W') of the output.
        kernel: rows and columns, the latter at least three.
        stride, padding: of the convolution; there is no dilation.

    Returns:
        (C, 1, rows, columns).
    """
    rows, columns = kernel
    result = images.new_empty((images.shape[1], 1, rows, columns))
    part = images.new_empty((images.shape[1], 1, rows, _NARROW))
    for start in dict.fromkeys([*range(0, columns - _NARROW, _NARROW), columns - _NARROW]):
        seen = _window(images, gradient.shape[2:], (rows, start), stride, padding)
        way = _Way(stride, (0, 0), (1, 1), images.shape[1], images.dtype)
        _, of_part = way.backward(gradient, seen, part, (False, True))
        if of_part is not None:
            result[..., start : start + _NARROW] = of_part
    return result


def _window(
    images: torch.Tensor, size: tuple[int, ...], kernel_rows_and_start: Pair, stride: Pair, padding: Pair
) -> torch.Tensor:
    """What three columns of a kernel, from column `start` on, see of the padded images for an output of `size`."""
    rows, start = kernel_rows_and_start
    count, channels, height, width = images.shape
    tall, wide = stride[0] * (size[0] - 1) + rows, stride[1] * (size[1] - 1) + _NARROW
    left = start - padding[1]  # column of the images that lies in column 0 of the window
    first, last = max(0, -left), min(wide, width - left)
    top, bottom = padding[0], min(tall, height + padding[0])
    window = images.new_zeros((count, tall, wide, channels))
    lines = images.permute(0, 2, 3, 1)
    if first < last:
        window[:, top:bottom, first:last] = lines[:, : bottom - top, first + left : last + left]
    return window.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Convolution:
    """A convolution that a fast way is known for.

    Attributes:
        conv: the module.
        norm: the batch norm that alone takes its output; None where there is none such.
        pad, padding: what it does to its input first, and how many zeros it puts around that.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    pad: Forward
    padding: Pair

    @property
    def folds(self) -> bool:
        """Whether the norm is a plain factor and offset at this moment."""
        return self.norm is not None and not self.norm.training

    def fast(self, dense: torch.dtype | None) -> Forward:
        """What stands for the convolution's own `forward`."""
        conv, norm, pad = self.conv, self.norm if self.folds else None, self.pad
        dtype = dense if dense and conv.groups == 1 else conv.weight.dtype
        way = _Way(_pair(conv.stride), self.padding, _pair(conv.dilation), conv.groups, dtype)

        def forward(images: torch.Tensor) -> torch.Tensor:
            weight, offset = (conv.weight, conv.bias) if norm is None else _folded(conv, norm)
            result: torch.Tensor = _Convolve.apply(pad(images), weight, offset, way)
            return result

        return forward


@dataclass(frozen=True)
class _Product:
    """A convolution of images that are a single pixel, wherever they are one."""

    conv: nn.Conv2d
    norm: None = None
    folds: bool = False

    def fast(self, _dense: torch.dtype | None) -> Forward:
        """What stands for the convolution's own `forward`."""
        conv = self.conv

        def forward(images: torch.Tensor) -> torch.Tensor:
            if images.shape[2:] != (1, 1):  # at another side of the network's input than was looked at
                return type(conv).forward(conv, images)
            with torch.autocast("cpu", enabled=False):  # these are too small to gain from another type
                pixels = images.flatten(1).to(conv.weight.dtype)
                product = F.linear(pixels, conv.weight.flatten(1), conv.bias)
            return product.to(images.dtype)[..., None, None]

        return forward


_Fast = _Convolution | _Product


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    statistics = (norm.running_mean, norm.running_var, norm.eps)
    folded: tuple[torch.Tensor, torch.Tensor] = _Fold.apply(conv.weight, norm.weight, norm.bias, *statistics)
    return folded


def _pair(values: Any) -> Pair:
    rows, columns = values
    return int(rows), int(columns)


class CpuConvolutions:
    """The convolutions of one network, found once.

    Args:
        net: on the CPU; its modes and weights may change later, its modules must not.
        side: of square images that it takes, in pixels.
    """

    def __init__(self, net: nn.Module, side: int) -> None:
        found = _found(net, side)
        self._lock = threading.RLock()
        self._convolutions = found if found and _outputs_agree(net, side, found) else ()

    @contextmanager
    def in_use(self, dense: torch.dtype | None = None) -> Iterator[None]:
        """Passes of this thread through the network go the fast way, inside; other threads wait to do the same.

        Args:
            dense: type that convolutions without groups are multiplied in; None for that of their weights.
        """
        with self._lock, _replaced(self._convolutions, dense):
            yield


_known: WeakKeyDictionary[nn.Module, CpuConvolutions] = WeakKeyDictionary()
_looking = threading.Lock()


def cpu_convolutions(net: nn.Module, side: int) -> CpuConvolutions:
    """Those of a network, looked for when they are asked for first."""
    with _looking:
        if net not in _known:
            _known[net] = CpuConvolutions(net, side)
        return _known[net]


@contextmanager
def _replaced(convolutions: tuple[_Fast, ...], dense: torch.dtype | None) -> Iterator[None]:
    """The modules' `forward` is hidden by an attribute of the same name: no state dict holds it, copies must wait."""
    hidden: list[tuple[nn.Module, Forward | None]] = []

    def hide(module: nn.Module, fast: Forward) -> None:
        hidden.append((module, module.__dict__.get("forward")))
        module.__dict__["forward"] = _in_this_thread(module, fast)

    try:
        for each in convolutions:
            hide(each.conv, each.fast(dense))
            if each.norm is not None and each.folds:
                hide(each.norm, after_normalisation(each.norm))
        yield
    finally:
        for module, former in reversed(hidden):
            if former is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = former


def _in_this_thread(module: nn.Module, fast: Forward) -> Forward:
    """The fast way for this thread: a pass of another one that began before goes on as it was."""
    owner = threading.get_ident()

    def forward(images: torch.Tensor) -> torch.Tensor:
        if threading.get_ident() == owner:
            return fast(images)
        usual: torch.Tensor = type(module).forward(module, images)
        return usual

    return forward


def _found(net: nn.Module, side: int) -> tuple[_Fast, ...]:
    """Convolutions that a fast way is known for, as one pass shows them."""
    inferred = any(each.is_inference() for each in (*net.parameters(), *net.buffers()))  # autograd records none of it
    if inferred or not any(is_plain_convolution(each) for each in net.modules()):
        return ()
    pass_ = _watched_pass(net, side)
    if pass_.output.grad_fn is None:
        return ()  # the network cuts its graph, which would have told who takes what
    users = _users(pass_.output)
    norms = {node: norm for norm, node in pass_.taken.items()}
    found: list[_Fast] = []
    for conv, node in pass_.made.items():
        norm = norms.get(node) if users.get(node) == 1 and conv.bias is None else None
        if norm is not None or is_wide_depthwise(conv.weight, conv.groups, _pair(conv.dilation)):
            found.append(_Convolution(conv, norm, *explicit_padding(conv)))
        elif conv in pass_.on_single_pixels:
            found.append(_Product(conv))
    return tuple(found)


@dataclass(frozen=True)
class _Pass:
    """What a pass has shown.

    Attributes:
        made: convolution -> the node of autograd's graph that it made, for those that were asked once.
        taken: batch norm -> the node whose output it took, for those that were asked once.
        on_single_pixels: convolutions of one pixel to one pixel.
        output: of the network.
    """

    made: dict[nn.Conv2d, Any]
    taken: dict[nn.BatchNorm2d, Any]
    on_single_pixels: set[nn.Conv2d]
    output: torch.Tensor


def _watched_pass(net: nn.Module, side: int) -> _Pass:
    made: dict[nn.Conv2d, Any] = {}
    taken: dict[nn.BatchNorm2d, Any] = {}
    single: set[nn.Conv2d] = set()
    twice: set[nn.Module] = set()
    this_thread = threading.get_ident()

    def note_conv(module: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        if threading.get_ident() != this_thread:
            return
        twice.update({module} & made.keys())
        made[module] = output.grad_fn
        shapes = {tuple(module.kernel_size), tuple(inputs[0].shape[2:]), tuple(output.shape[2:])}
        if shapes == {(1, 1)} and module.groups == 1:
            single.add(module)

    def note_norm(module: Any, inputs: tuple[torch.Tensor]) -> None:
        if threading.get_ident() != this_thread:
            return
        twice.update({module} & taken.keys())
        taken[module] = inputs[0].grad_fn

    modules = list(net.modules())
    hooks = [each.register_forward_hook(note_conv) for each in modules if is_plain_convolution(each)]
    hooks += [each.register_forward_pre_hook(note_norm) for each in modules if is_plain_batch_norm(each)]
    try:
        with _evaluating(net), torch.enable_grad():
            output = net(_image(net, side).requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    return _Pass(
        {conv: node for conv, node in made.items() if conv not in twice},
        {norm: node for norm, node in taken.items() if norm not in twice},
        single,
        output,
    )


def _users(output: torch.Tensor) -> Counter[Any]:
    """Node of autograd's graph below `output` -> how many others take what it made."""
    users: Counter[Any] = Counter()
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        below = [each for each, _ in node.next_functions if each is not None]
        users.update(below)
        waiting.extend(below)
    return users


def _outputs_agree(net: nn.Module, side: int, convolutions: tuple[_Fast, ...]) -> bool:
    """Whether the network says the same of an image in both ways: no surprise in its modules' own code."""
    with _evaluating(net), torch.no_grad():
        usual = net(_image(net, side))
        with _replaced(convolutions, None):
            fast = net(_image(net, side))
    return bool((usual - fast).abs().max() <= _TOLERANCE * usual.abs().max())


def _image(net: nn.Module, side: int) -> torch.Tensor:
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    return image.to(next(net.parameters()).dtype, memory_format=torch.channels_last)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Nothing is random and no statistics move, inside; also where the caller is in inference mode."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.inference_mode(False):
            yield
    finally:
        for module in training:
            module.training = True
