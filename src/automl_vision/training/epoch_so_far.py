"""How far a trainer is within an epoch: what is kept when it is interrupted between two steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Stopwatch:
    """Seconds of the wall and of this process, over several sittings."""

    _seconds: float = 0.0
    _cpu_seconds: float = 0.0
    _since: tuple[float, float] | None = None

    def start(self) -> None:
        """A sitting begins."""
        self._since = time.monotonic(), time.process_time()

    def stop(self) -> None:
        """It ends, if there is one."""
        self._seconds, self._cpu_seconds, self._since = self.seconds, self.cpu_seconds, None

    @property
    def seconds(self) -> float:
        """Of the wall, in all sittings."""
        return self._seconds + (time.monotonic() - self._since[0] if self._since else 0.0)

    @property
    def cpu_seconds(self) -> float:
        """Of this process, in all sittings."""
        return self._cpu_seconds + (time.process_time() - self._since[1] if self._since else 0.0)


@dataclass
class EpochSoFar:
    """What was done of an epoch.

    Attributes:
        loss: sum of the losses of the images, on the device; nobody waits for it.
        steps: of the optimizer.
        images: that were trained on.
        watch: the time that it took.
    """

    loss: torch.Tensor
    steps: int = 0
    images: int = 0
    watch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def nothing(cls, device: torch.device) -> EpochSoFar:
        """At the beginning."""
        return cls(torch.zeros((), device=device))

    def add(self, loss: torch.Tensor, images: int) -> None:
        """One more step, with the mean loss of its images."""
        self.loss += loss * images
        self.steps += 1
        self.images += images

    def state(self) -> dict[str, Any]:
        """Plain types and tensors."""
        return {
            "loss": self.loss,
            "steps": self.steps,
            "images": self.images,
            "seconds": self.watch.seconds,
            "cpu_seconds": self.watch.cpu_seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.loss.copy_(state["loss"])
        self.steps, self.images = state["steps"], state["images"]
        self.watch = Stopwatch(state["seconds"], state["cpu_seconds"])
