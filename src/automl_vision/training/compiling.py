"""Forward passes of training, and the backward passes behind them, compiled by torch where that repays its time.

What is compiled is a function of a network, not a network: names in state dicts stay as they are, passes without
gradients are not touched, and another network of the same kind takes the same code. Parts of a batch of another size
(the last of an epoch, those that memory halved) are run as torch runs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Literal, cast

import torch
from torch import nn

from automl_vision.models.memory import free_memory

Setting = Literal["off", "auto", "on"]
Mode = Literal["default", "reduce-overhead"]
#: (network, (B, 3, S, S) float32) to scores.
Forward = Callable[[nn.Module, torch.Tensor], torch.Tensor]

#: What is assumed of a kind that this process has not compiled yet: seconds, and the factor on images per second. Both
#: are assumptions; neither was measured on a GPU.
ASSUMED_SECONDS = 60.0
ASSUMED_GAIN = 1.25
#: Compiling has to save so many times what it costs, and so many times what it costs has to be left.
WORTH = 2.0
#: Billions of multiply-adds of the forward pass of a step up to which, on a GPU, launching the kernels is expected to
#: take longer than their work: there a step is replayed as a CUDA graph. An assumption as well. Graphs keep the memory
#: of a step; that of steps which are so small can be spared.
LAUNCH_BOUND = 32.0
#: Characters of an error that a user reads.
_REASON = 200


@dataclass(frozen=True)
class Kind:
    """What one compiled function serves; everything else about a recipe leaves it as it is.

    Attributes:
        network: all that the modules, their modes and what of them learns depend on.
        images: of a part.
        giga_macs: billions of multiply-adds of a forward pass of a part.
        parts: of a step.
        device: "cpu", "cuda" ...
    """

    network: Hashable
    images: int
    giga_macs: float
    parts: int
    device: str

    @property
    def mode(self) -> Mode:
        """CUDA graphs where launches take the time; the gradients of several parts cannot be gathered over them."""
        graphs = self.device == "cuda" and self.parts == 1 and self.giga_macs <= LAUNCH_BOUND
        return "reduce-overhead" if graphs else "default"


def _forward(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return cast(torch.Tensor, net(images))


def _compiled(mode: Mode) -> Forward:
    """A function of its own: what torch compiles, and how often, is counted by the code that it belongs to."""
    own = FunctionType(_forward.__code__.replace(), _forward.__globals__, _forward.__name__)
    return cast(Forward, torch.compile(own, mode=mode, fullgraph=True, dynamic=False))


@dataclass
class StepCompiler:
    """What the trials of a run compile, and what they found out about it.

    Attributes:
        setting: off, auto (where it is expected to pay, on a GPU) or on (wherever there is time for it).
    """

    setting: Setting = "off"
    _functions: dict[Kind, Forward] = field(default_factory=dict)
    _compiled: set[Kind] = field(default_factory=set)
    _failed: set[Kind] = field(default_factory=set)
    _seconds_per_image: dict[tuple[Kind, bool], float] = field(default_factory=dict)

    def seconds(self, kind: Kind) -> float:
        """What compiling is expected to take; another network of a kind takes what was compiled for the first."""
        return 0.0 if kind in self._compiled else ASSUMED_SECONDS

    def gain(self, kind: Kind) -> float:
        """How many times as fast a compiled step is."""
        eager, compiled = (self._seconds_per_image.get((kind, each)) for each in (False, True))
        return eager / compiled if eager and compiled else ASSUMED_GAIN

    def has_time(self, kind: Kind, seconds_left: float) -> bool:
        """Whether compiling ends well before the time does."""
        return seconds_left >= WORTH * self.seconds(kind)

    def pays(self, kind: Kind, seconds_to_come: float) -> bool:
        """Whether it saves enough of so many seconds of steps that are not compiled."""
        gain = self.gain(kind)
        return gain > 1 and seconds_to_come * (1 - 1 / gain) >= WORTH * self.seconds(kind)

    def is_wanted(self, kind: Kind, seconds_to_come: float, seconds_left: float) -> bool:
        """Whether steps of this kind are to be compiled."""
        if self.setting == "off" or kind in self._failed or not self.has_time(kind, seconds_left):
            return False
        return self.setting == "on" or (kind.device == "cuda" and self.pays(kind, min(seconds_to_come, seconds_left)))

    def function(self, kind: Kind) -> Forward:
        """The function of a kind; torch compiles it when it is called first."""
        if kind not in self._functions:
            self._functions[kind] = _compiled(kind.mode)
        return self._functions[kind]

    def note_compiled(self, kind: Kind) -> bool:
        """It was compiled, and is there for others of its kind; whether this was the first time."""
        first = kind not in self._compiled
        self._compiled.add(kind)
        return first

    def note_speed(self, kind: Kind, compiled: bool, seconds_per_image: float) -> None:
        """What the steps of an epoch took, compiled or not; the fastest epoch counts."""
        key = kind, compiled
        self._seconds_per_image[key] = min(seconds_per_image, self._seconds_per_image.get(key, seconds_per_image))

    def give_up(self, kind: Kind) -> None:
        """Compiling this kind failed: nobody tries again, and what was compiled lets go of its memory."""
        self._failed.add(kind)
        self._functions.clear()
        self._compiled.clear()
        torch.compiler.reset()


class TrainingForward:
    """The forward pass of one trial: compiled for parts of one size while that is wanted, else as torch runs it.

    Attributes:
        seconds: that compiling took in this epoch.
        note: what the user should read of it; empty where there is nothing to say.
    """

    def __init__(self, net: nn.Module, device: torch.device, compiler: StepCompiler) -> None:
        self._net = net
        self._device = device
        self._compiler = compiler
        self._kind: Kind | None = None
        self._function: Forward | None = None
        self._was_called = False  # the function, in the step that runs or ran last
        self._is_warm = False  # the function was called before, for this network
        self._eager_seconds = 0.0  # of an epoch
        self.seconds = 0.0
        self.note = ""

    def begin_epoch(self, kind: Callable[[], Kind], epochs_left: int, seconds_left: Callable[[], float]) -> None:
        """Decide for this epoch.

        Args:
            kind: of steps on whole batches; the first answer holds for the trial.
            epochs_left: this one included.
            seconds_left: until the deadline.
        """
        self.seconds = 0.0
        if self._compiler.setting == "off":
            return
        self._kind = self._kind or kind()
        left = seconds_left()
        wanted = self._compiler.is_wanted(self._kind, epochs_left * self._eager_seconds, left)
        self._function = self._compiler.function(self._kind) if wanted else None
        if self._compiler.setting == "on" and not self._compiler.has_time(self._kind, left):
            self.note = f"not compiled, which may take {ASSUMED_SECONDS:.0f} s: {max(left, 0):.0f} s are left"

    def end_epoch(self, seconds: float, images: int) -> None:
        """Learn from an epoch what a step takes.

        Args:
            seconds: of all its steps, compiling included.
            images: that it saw, >= 1.
        """
        steps = seconds - self.seconds
        if self._kind is not None:
            self._compiler.note_speed(self._kind, self._function is not None, steps / images)
        if self._function is None:
            self._eager_seconds = steps

    def takes(self, images: torch.Tensor) -> bool:
        """Whether these are run compiled."""
        return self._function is not None and self._kind is not None and len(images) == self._kind.images

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) float32 that it takes to scores."""
        if self._function is None or self._kind is None:
            raise RuntimeError("nothing is compiled: ask whether it takes these images first")
        self._was_called = True
        if self._kind.mode == "reduce-overhead":
            # Nobody looks at what the step before gave any more.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return self._function(self._net, images)

    def run(self, step: Callable[[], torch.Tensor]) -> torch.Tensor:
        """`step()`, which starts from scratch; where it fails compiled, again as torch runs it, from then on."""
        if self._function is None:
            return step()
        started, self._was_called = time.monotonic(), False
        try:
            result = step()
            self._succeeded(started)
            return result
        except _errors_of_steps() as error:
            if not self._was_called:
                raise
            reason = _reason(error)
        # Outside of the handler: the traceback of the error would keep the activations alive.
        self._give_up(reason, started)
        return step()

    def _succeeded(self, started: float) -> None:
        if self._is_warm or not self._was_called or self._kind is None:
            return
        self._is_warm = True
        self.seconds = time.monotonic() - started
        if self._compiler.note_compiled(self._kind):
            self.note = f"training steps on {self._kind.images} images were compiled in {self.seconds:.0f} s"

    def _give_up(self, reason: str, started: float) -> None:
        if self._kind is not None:
            self._compiler.give_up(self._kind)
        self._function = None
        free_memory(self._device)
        self.seconds += time.monotonic() - started
        self.note = f"training steps are not compiled, because that failed: {reason}"


def _errors_of_steps() -> tuple[type[Exception], ...]:
    """What a compiled step may raise. torch's compiler is loaded here and not before: it takes as long as torch."""
    from torch._dynamo.exc import FailOnRecompileLimitHit

    return RuntimeError, FailOnRecompileLimitHit


def _reason(error: Exception) -> str:
    """The beginning of what went wrong, on one line."""
    words = " ".join(str(error).split())
    return words if len(words) <= _REASON else f"{words[:_REASON]} ..."
