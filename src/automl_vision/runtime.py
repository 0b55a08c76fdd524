"""The machine a run works on: clock, threads, device, precision, memory and seeds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from automl_vision.errors import UsageError

if TYPE_CHECKING:
    import torch

#: When this process first imported the package: budgets count from here, so imports are paid from the budget.
PROCESS_START = time.monotonic()


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


@dataclass
class _Idle:
    """Wall and CPU seconds of a process while it waited for others, and since when it does.

    They change together: the thread that tells workers of the time left reads them meanwhile.
    """

    seconds: tuple[float, float, tuple[float, float] | None] = (0.0, 0.0, None)


@dataclass(frozen=True)
class Clock:
    """A budget that runs down on the monotonic clock; a changed wall clock does not touch it.

    Attributes:
        start: monotonic seconds at which the budget began.
        budget: seconds in all; infinity where only the number of trials ends a run.
        now: the clock, replaceable in tests.
    """

    start: float
    budget: float
    now: Callable[[], float] = time.monotonic

    _opened: tuple[float, float] = field(default_factory=_now)
    _idle: _Idle = field(default_factory=_Idle)

    @property
    def at_open(self) -> float:
        """Seconds of the budget that were used before the clock was made: imports, and earlier sessions of a run."""
        return self._opened[0] - self.start

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.now() - self.start

    @property
    def wall_per_cpu_second(self) -> float:
        """Wall seconds in which this process got one CPU second, since the clock was made; below 1 with many cores.

        Those in which it only waited for other processes do not count: meanwhile it is what it was before.
        """
        idle_wall, idle_cpu, since = self._idle.seconds
        wall, cpu = since or _now()
        wall, cpu = wall - self._opened[0] - idle_wall, cpu - self._opened[1] - idle_cpu
        return wall / cpu if cpu > 0 else 1.0

    @contextmanager
    def waiting_for_others(self) -> Iterator[None]:
        """Other processes do the work: that this one needs little of the CPU does not say that it gets little."""
        idle_wall, idle_cpu, _ = self._idle.seconds
        began = _now()
        self._idle.seconds = (idle_wall, idle_cpu, began)
        try:
            yield
        finally:
            wall, cpu = _now()
            self._idle.seconds = (idle_wall + wall - began[0], idle_cpu + cpu - began[1], None)

    @property
    def remaining(self) -> float:
        """Seconds left; negative once the budget is over."""
        return self.budget - self.elapsed


@dataclass(frozen=True)
class Runtime:
    """Where tensors live and in which precision networks run.

    Attributes:
        device: a torch device.
        amp_dtype: autocast type ("bfloat16", "float16") of validation and prediction, or None for plain float32.
        threads: CPU threads in use.
        training_dtype: the same of training; on a CPU of networks whose batch norm keeps its statistics.
        share: of the machine (a CPU's threads, a GPU's memory) that is this process's; others work beside it.
    """

    device: torch.device
    amp_dtype: str | None
    threads: int
    training_dtype: str | None = None
    share: float = 1.0

    @property
    def precision(self) -> str:
        """For people: the type of validation and prediction, and that of training where it is another."""
        judged, trained = self.amp_dtype or "float32", self.training_dtype or "float32"
        return judged if judged == trained else f"{judged}, trained in {trained}"


def available_threads() -> int:
    """CPU threads this process may use: by affinity, and where torchrun started several on this machine, its share."""
    affinity = getattr(os, "sched_getaffinity", None)
    here = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    return max(1, here // _processes_here())


def _processes_here() -> int:
    given = os.environ.get("LOCAL_WORLD_SIZE", "1") if "RANK" in os.environ else "1"
    return int(given) if given.isdecimal() and int(given) else 1


def make_runtime(device: str = "auto", precision: str = "auto", threads: int = 0, share: float = 1.0) -> Runtime:
    """Pick device and precision, and set torch's threads, and what it may take of a GPU's memory.

    Raises:
        UsageError: the device is unknown or not on this machine.
    """
    import torch

    count = threads or available_threads()
    torch.set_num_threads(count)
    chosen = _device(device)
    if chosen.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        if share < 1.0:
            torch.cuda.set_per_process_memory_fraction(share, chosen)
    dtype = _amp_dtype(chosen, precision)
    bfloat16 = precision == "auto" and chosen.type == "cpu" and _cpu_multiplies_bfloat16()
    return Runtime(chosen, dtype, count, training_dtype="bfloat16" if bfloat16 else dtype, share=share)


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError("unknown device", value=repr(name), fix="use auto, cpu, cuda, cuda:0 or mps") from None
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, False):
        raise UsageError("this device is not on this machine", value=repr(name), fix="use --device auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            "there is no GPU of this number",
            value=repr(name),
            fix=f"this machine has {torch.cuda.device_count()}",
        )
    return device


def _amp_dtype(device: torch.device, precision: str) -> str | None:
    import torch

    if precision == "float32" or (precision == "auto" and device.type != "cuda"):
        return None
    if precision != "auto":
        return precision
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it; where torch has to make do without them, float32 is faster."""
    import torch

    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(is_supported() for is_supported in asked if is_supported)


def environment(runtime: Runtime) -> dict[str, str]:
    """What a reader needs to judge or repeat a run: versions, system, device, precision, threads."""
    import platform
    from importlib.metadata import version

    import torch

    gpu = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else ""
    packages = ("automl-vision", "torch", "torchvision", "timm", "optuna", "scikit-learn", "pillow", "numpy")
    return {
        "python": platform.python_version(),
        "system": _system(),
        "device": gpu or str(runtime.device),
        "precision": runtime.precision,
        "threads": str(runtime.threads),
        **{name: version(name) for name in packages},
    }


def _system() -> str:
    """As `platform.platform` has it, which starts a program to find out."""
    import platform

    library = "".join(platform.libc_ver())
    return "-".join(
        (platform.system(), platform.release(), platform.machine(), *(["with", library] if library else ()))
    )
