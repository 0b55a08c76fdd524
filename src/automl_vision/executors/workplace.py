"""Jobs done in other processes: what both sides say to each other, and the side that works.

Nothing is pickled: a message is one JSON object. The driver names a function that opens the work ("module:function")
and the place where it finds what it needs; a worker opens it once and does one job after the other. Meanwhile the
driver says at least once a second how much time is left and whether to stop, and before each job. A worker answers,
and one that does not is replaced; a driver that says nothing for minutes is given up by its workers.

A worker may outlive what the driver believes of it: it stalled, another one has its job by then, and it wakes up. So
whoever works asks `Orders.replaced` as it goes, and keeps what it writes apart from that of later attempts.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol

from automl_vision import errors
from automl_vision.errors import AutomlVisionError
from automl_vision.executors.executor import Job, Progress, Work

if TYPE_CHECKING:
    from automl_vision.training.ranks import Ranks

#: Seconds between two messages of the driver to each worker.
BEAT_SECONDS = 0.5
#: Seconds without a word of the driver after which a worker works for nobody. A driver whose process is gone is noticed
#: at once by the end of the connection, so this is for one that hangs, or is stopped, or is cut off; a job that is left
#: for nothing costs an epoch, and a machine that is kept for nothing costs money.
SILENT_SECONDS = 300.0

Values = dict[str, Any]
#: Does a job and yields its progress, both as values of JSON.
PlainWork = Callable[[Values], Iterator[Values]]


def _no_limit() -> float:
    return math.inf


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time.

    Attributes:
        environment: variables of the process that works there (the GPU it sees, its threads).
    """

    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Workplace(Generic[Job, Progress]):
    """What an executor needs to have jobs done, here or elsewhere.

    Attributes:
        here: does jobs in this very process; None where there is no such work.
        opening: "module:function" of what opens the work elsewhere, called with `folder` and its `Orders`.
        folder: where that finds what it needs: a path or an address.
        encode: a job as values of JSON.
        decode: progress from values of JSON.
        seconds_left: seconds until jobs must end. Another thread than the caller's may ask.
        stopped: whether the user stopped the run; likewise.
        slots: jobs at a time, and where.
        logs: folder for what workers print.
        ranks: the processes that do each job together, of whom this is the first.
    """

    here: Work[Job, Progress] | None = None
    opening: str = ""
    folder: str = ""
    encode: Callable[[Job], Values] = dict  # type: ignore[assignment]  # for jobs that are such values already
    decode: Callable[[Values], Progress] = dict  # type: ignore[assignment]
    seconds_left: Callable[[], float] = _no_limit
    stopped: Callable[[], bool] = _never
    slots: tuple[Slot, ...] = (Slot(),)
    logs: Path = Path("workers")
    ranks: Ranks | None = None


# --- messages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Open:
    """Driver: open this work."""

    opening: str
    folder: str


@dataclass(frozen=True)
class Do:
    """Driver: do this job."""

    number: int
    attempt: int
    job: Values


@dataclass(frozen=True)
class Drop:
    """Driver: leave this job at once and write nothing more."""

    number: int
    attempt: int


@dataclass(frozen=True)
class Beat:
    """Driver: the seconds that are left (None: no limit), and whether the user stopped the run.

    Attributes:
        number: a later beat has a higher one: threads and connections may let it overtake an earlier one, which then
            says nothing any more. 0 where there is no order.
    """

    seconds_left: float | None
    stopped: bool
    number: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Alive:
    """Worker: its answer to a beat."""


@dataclass(frozen=True)
class Ready:
    """Worker: the work is open."""


@dataclass(frozen=True)
class Told:
    """Worker: progress of a job."""

    number: int
    attempt: int
    progress: Values


@dataclass(frozen=True)
class Ended:
    """Worker: nothing more will come of a job."""

    number: int
    attempt: int


@dataclass(frozen=True)
class Leaving:
    """Worker: its machine is taken back; what it had in work is as of its last checkpoint."""


@dataclass(frozen=True)
class Broken:
    """Worker: opening the work, or a job, raised this error (see `error_values`).

    Attributes:
        number, attempt: of the job; -1 and 0 where it was the opening.
    """

    error: Values
    number: int = -1
    attempt: int = 0


Message = Open | Do | Drop | Beat | Alive | Ready | Told | Ended | Leaving | Broken
#: kind -> message, as it is called in JSON.
MESSAGES: dict[str, type[Message]] = {
    each.__name__.lower(): each for each in (Open, Do, Drop, Beat, Alive, Ready, Told, Ended, Leaving, Broken)
}


class NoMessage(ValueError):
    """A line is no message of this version."""


def to_line(message: Message) -> bytes:
    """One line of ASCII, with its end.

    Raises:
        ValueError, TypeError: what it holds are no values of JSON.
    """
    values = {"kind": type(message).__name__.lower(), **vars(message)}
    return json.dumps(values, allow_nan=False, ensure_ascii=True).encode("ascii") + b"\n"


def from_line(line: bytes) -> Message:
    """The message that `to_line` wrote.

    Raises:
        NoMessage: it is none.
    """
    try:
        values = json.loads(line)
        return MESSAGES[values.pop("kind")](**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoMessage(f"{line[:200]!r} ({error})") from None


# --- errors ---------------------------------------------------------------------------------------------------------


class WorkFailed(RuntimeError):
    """Work raised an error that is none of ours, in another process; the message names it and its place."""


def error_values(error: BaseException) -> Values:
    """What another process needs to raise the same error."""
    if isinstance(error, AutomlVisionError):
        value = None if error.value is None else str(error.value)
        return {"type": type(error).__name__, "what": error.what, "value": value, "fix": error.fix}
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else os.fsdecode(error.filename)
        return {"type": "OSError", "number": error.errno, "text": error.strerror or str(error), "file": name}
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return {"type": "", "text": f"{type(error).__name__}: {error}{place}"}


def error_of(values: Mapping[str, Any]) -> Exception:
    """The error that `error_values` described; `WorkFailed` where this process has no such class."""
    own = getattr(errors, str(values.get("type")), None)
    if isinstance(own, type) and issubclass(own, AutomlVisionError):
        return own(str(values["what"]), value=values.get("value"), fix=str(values.get("fix", "")))
    if values.get("type") == "OSError":
        return OSError(values["number"], values["text"], *([values["file"]] if values.get("file") else []))
    return WorkFailed(str(values.get("text")))


# --- the side that works --------------------------------------------------------------------------------------------


class Orders:
    """What the driver says while a job is done. Whoever listens to it writes, from any thread; whoever works asks.

    Args:
        now: a clock that only goes forward.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ends = math.inf
        self._stopped = False
        self._newest = 0
        self._job = (-1, 0)
        self._dropped: dict[int, int] = {}
        self._alone = False
        self.leaving = False

    def seconds_left(self) -> float:
        """Seconds until jobs must end, counted down by the own clock from what was last heard."""
        return self._ends - self._now()

    @property
    def stopped(self) -> bool:
        """Whether to leave the job as of its last checkpoint: the user stopped the run, or the machine is taken."""
        return self._stopped or self.leaving

    @property
    def replaced(self) -> bool:
        """Whether to leave the job at once and write nothing more: a newer attempt has it, or nobody wants it."""
        number, attempt = self._job
        return self._alone or self._dropped.get(number, 0) >= attempt > 0

    @property
    def job(self) -> tuple[int, int]:
        """Number and attempt of the job that the answers are about; (-1, 0) before the first one."""
        return self._job

    def begin(self, number: int, attempt: int) -> None:
        """From now on the answers are about this job."""
        self._job = (number, attempt)

    def hear(self, message: Beat) -> None:
        """Take what the driver says, unless it said something newer before."""
        if message.number < self._newest:
            return
        self._newest = message.number
        self._ends = math.inf if message.seconds_left is None else self._now() + message.seconds_left
        self._stopped = message.stopped

    def drop(self, number: int, attempt: int) -> None:
        """Attempts of this job up to this one are over."""
        self._dropped[number] = max(attempt, self._dropped.get(number, 0))

    def leave_alone(self) -> None:
        """The driver is gone: another one may go on with every job."""
        self._alone = True


class Connection(Protocol):
    """The way to the other side. Both methods are called by different threads at the same time."""

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            OSError: the other side is gone.
        """
        ...

    def receive(self) -> Message | None:
        """The next message; waits for it. None once the other side is gone."""
        ...


def open_work(opening: str, folder: str, orders: Orders) -> PlainWork:
    """The work that "module:function" opens.

    Raises:
        ImportError, AttributeError: there is no such function.
        What the function raises.
    """
    module, _, name = opening.partition(":")
    work: PlainWork = getattr(importlib.import_module(module), name)(folder, orders)
    return work


class Worker:
    """Opens work once and does jobs until the driver is gone.

    Args:
        connection: to the driver.
        gone: called once the driver is, by another thread than that which works.
        silent_seconds: without a word of the driver, after which it is as good as gone.
    """

    def __init__(
        self,
        connection: Connection,
        gone: Callable[[], None] = lambda: None,
        *,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.orders = Orders()
        self._connection = connection
        self._gone = gone
        self._silent_seconds = silent_seconds
        self._silent_looks = 0
        self._over = threading.Event()
        self._asked: queue.SimpleQueue[Open | Do | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Work until the driver is gone, or this machine is taken, or an error ends it, which the driver is told."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        threading.Thread(target=self._look_for_driver, name="silence", daemon=True).start()
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - it is raised again, by the driver
            traceback.print_exc()
            self._send(Broken(error_values(error), *self.orders.job))
        finally:
            self._over.set()

    def leave(self) -> None:
        """The machine is taken back: leave the job as of its last checkpoint, and tell the driver."""
        self.orders.leaving = True
        self._asked.put(None)

    def _work(self) -> None:
        opening = self._asked.get()
        if not isinstance(opening, Open):
            return
        work = open_work(opening.opening, opening.folder, self.orders)
        self._send(Ready())
        while not self.orders.leaving and isinstance(job := self._asked.get(), Do):
            self._do(work, job)
        if self.orders.leaving:
            self._send(Leaving())

    def _do(self, work: PlainWork, job: Do) -> None:
        self.orders.begin(job.number, job.attempt)
        try:
            self._tell_of(work, job)
        except Exception:
            if not self.orders.replaced:
                raise
            traceback.print_exc()  # nobody wants that job any more; the next one shows whether the fault is of all
        if not self.orders.leaving:
            self._send(Ended(job.number, job.attempt))

    def _tell_of(self, work: PlainWork, job: Do) -> None:
        progress = work(job.job)
        try:
            for each in progress:
                if self.orders.replaced or self.orders.leaving:
                    break
                self._send(Told(job.number, job.attempt, each))
        finally:
            if hasattr(progress, "close"):
                progress.close()

    def _look_for_driver(self) -> None:
        """Give a driver up that says nothing: what it may have given to others is not written any more.

        Looks are counted, and not seconds: while this process itself is stopped, the driver is not to blame. Where the
        driver hears again, it hears that this worker left, and not that it failed.
        """
        while not self._over.wait(BEAT_SECONDS):
            self._silent_looks += 1
            if self._silent_looks * BEAT_SECONDS > self._silent_seconds:
                self.orders.leaving = True
                self._is_alone()
                return

    def _listen(self) -> None:
        while (message := self._connection.receive()) is not None:
            self._silent_looks = 0
            match message:
                case Beat():
                    self.orders.hear(message)
                    self._send(Alive())
                case Drop():
                    self.orders.drop(message.number, message.attempt)
                case Open() | Do():
                    self._asked.put(message)
        self._is_alone()

    def _send(self, message: Message) -> None:
        try:
            self._connection.send(message)
        except OSError:
            self._is_alone()

    def _is_alone(self) -> None:
        self.orders.leave_alone()
        self._asked.put(None)
        self._gone()


#: Numbers of beats, of all drivers of this process.
_numbers = itertools.count(1)


def beat(workplace: Workplace[Any, Any]) -> Beat:
    """What a driver has to say now, and right before each job: else a worker goes by what it heard of former ones.

    Any thread may ask, and send it when it likes: the number is taken before the clock is read, so that a beat of
    before never hides what was said right before a job.
    """
    number = next(_numbers)
    left = workplace.seconds_left()
    return Beat(None if math.isinf(left) else left, workplace.stopped(), number)
