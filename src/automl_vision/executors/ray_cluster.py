"""RayExecutor: trials on the machines of a Ray cluster, which places and packs them.

One actor, the hub, passes lines of JSON between the driver and the workers; it is on the driver's node and dies with
the driver. Each slot is one long-lived task with its share of a machine (`num_cpus`, `num_gpus`), placed by Ray, that
runs the loop of `workplace.Worker`. Ray repeats nothing by itself (`max_retries=0`): a slot that is gone ends the
attempt that it had, the search decides what becomes of the trial, and another slot is asked for. Where there is no
room for it, because its node is gone, there is one less until a node joins.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic

from automl_vision.errors import RunError
from automl_vision.executors.executor import Job, Progress, Report
from automl_vision.executors.ray_connection import Look, Node, RayConnection, Sight, look_around, reason_of
from automl_vision.executors.workplace import (
    BEAT_SECONDS,
    Alive,
    Broken,
    Do,
    Drop,
    Ended,
    Leaving,
    Message,
    Open,
    Ready,
    Told,
    Worker,
    Workplace,
    beat,
    error_of,
    from_line,
    to_line,
)

#: Seconds without a word after which a worker is replaced. Its node may live: it swaps, or its storage hangs. A node
#: that died is known to Ray within a few seconds.
STALLED_SECONDS = 60.0
#: Seconds without a word of the hub after which a worker knows that it works for nobody.
ALONE_SECONDS = 60.0
#: Seconds that a job waits for a place in the whole cluster before the run gives up.
PLACE_SECONDS = 300.0
#: Seconds between two looks at which nodes there are.
LOOK_SECONDS = 2.0
#: Seconds that one question to the hub may stay open.
POLL_SECONDS = 1.0
#: Seconds that slots may take to leave when the executor is closed, and each of them once nobody listens to it.
CLOSE_SECONDS = 10.0
LEAVE_SECONDS = 5.0
#: Seconds that the first jobs wait for slots to find their places.
SETTLE_SECONDS = 30.0
#: What Ray's errors say of a slot, in our words.
_WHY_OVER = {
    "WorkerCrashedError": "its worker died",
    "NodeDiedError": "its machine is gone",
    "LocalRayletDiedError": "its machine is gone",
    "OutOfMemoryError": "its machine ran out of memory, and Ray ended it",
    "TaskCancelledError": "it was ended",
}
_GO_ON = "go on with search --resume"


@dataclass(frozen=True)
class Share:
    """What one slot takes of a machine.

    Attributes:
        cpus: at least 1.
        gpus: below 1 where slots share one.
    """

    cpus: float
    gpus: float

    def fits(self, node: Node) -> int:
        """How many slots a node has room for."""
        by_gpu = math.floor(node.gpus / self.gpus + 1e-6) if self.gpus else sys.maxsize
        return max(min(math.floor(node.cpus / self.cpus), by_gpu), 0)


def share_of(nodes: Sequence[Node], *, gpus: float | None = None, threads: int = 0, max_parallel: int = 0) -> Share:
    """What one slot takes, where the user says no more.

    Where there are GPUs, a slot takes one of them and its part of the processors beside it. Else it takes a machine, or
    less where more slots than machines are wanted.

    Args:
        nodes: of the cluster, at least one.
        gpus: of one slot; None for one where there are any, 0 for none.
        threads: processors of one slot; 0 for what follows from the machines.
        max_parallel: slots that are wanted; 0 for as many as there is room for.
    """
    with_gpus = [node for node in nodes if node.gpus >= 1]
    each = float(bool(with_gpus)) if gpus is None else gpus
    if threads:
        return Share(float(threads), each)
    if each:
        per_slot = [node.cpus / max(node.gpus // each, 1) for node in with_gpus]
        return Share(max(1.0, math.floor(min(per_slot, default=1.0))), each)
    sizes = sorted({math.floor(node.cpus / part) for node in nodes for part in range(1, max(max_parallel, 1) + 1)})
    wanted = max(max_parallel, 1) if max_parallel else len([node for node in nodes if node.cpus >= 1])
    room = [size for size in sizes if size >= 1 and sum(math.floor(node.cpus / size) for node in nodes) >= wanted]
    return Share(float(max(room, default=1)), 0.0)


# --- the hub --------------------------------------------------------------------------------------------------------


@dataclass
class _Mailbox:
    """What waits for one slot; `beat` is the newest, older ones say nothing."""

    node: str = ""
    lines: deque[str] = field(default_factory=deque)
    beat: str = ""
    discharged: bool = False
    heard: float = field(default_factory=time.monotonic)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Hub:
    """Passes lines between the driver and the slots. All its methods are called through Ray."""

    def __init__(self) -> None:
        self._boxes: dict[str, _Mailbox] = {}
        self._told: deque[tuple[str, str]] = deque()
        self._news = asyncio.Event()

    async def say(self, slot: str, line: str) -> None:
        """Driver: a line for one slot."""
        box = self._box(slot)
        box.lines.append(line)
        box.news.set()

    async def beat(self, line: str) -> None:
        """Driver: the newest beat, for all slots."""
        for box in self._boxes.values():
            box.beat = line
            box.news.set()

    async def discharge(self, slot: str) -> None:
        """Driver: nobody listens to this slot any more."""
        box = self._box(slot)
        box.discharged, box.node = True, ""
        box.news.set()

    async def reports(self, seconds: float) -> str:
        """Driver: what happened since it asked last; waits at most `seconds` for something.

        Returns:
            JSON: `told` (slot, line), `nodes` (slot -> node that it is on), `silent` (slot -> seconds without a word).
        """
        if not self._told and seconds > 0:
            await _wait(self._news, seconds)
        self._news.clear()
        told = list(self._told)
        self._told.clear()
        now, placed = time.monotonic(), {slot: box for slot, box in self._boxes.items() if box.node}
        return json.dumps(
            {
                "told": told,
                "nodes": {slot: box.node for slot, box in placed.items()},
                "silent": {slot: now - box.heard for slot, box in placed.items()},
            }
        )

    async def enter(self, slot: str, node: str) -> None:
        """Slot: it has a place, on this node."""
        box = self._box(slot)
        box.node, box.heard = node, time.monotonic()
        self._news.set()

    async def listen(self, slot: str, seconds: float) -> list[str] | None:
        """Slot: lines for it, oldest first; none after so many seconds, None where it is discharged."""
        box = self._box(slot)
        box.heard = time.monotonic()
        if not (box.lines or box.beat or box.discharged):
            await _wait(box.news, seconds)
        box.news.clear()
        box.heard = time.monotonic()
        if box.discharged:
            return None
        lines = [*box.lines, *([box.beat] if box.beat else [])]
        box.lines.clear()
        box.beat = ""
        return lines

    async def tell(self, slot: str, line: str) -> bool:
        """Slot: a line for the driver; False where nobody listens to this slot any more."""
        box = self._box(slot)
        box.heard = time.monotonic()
        if box.discharged:
            return False
        self._told.append((slot, line))
        self._news.set()
        return True

    def _box(self, slot: str) -> _Mailbox:
        return self._boxes.setdefault(slot, _Mailbox())


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


# --- the side that works --------------------------------------------------------------------------------------------


class HubConnection:
    """The way of one slot to its driver.

    Args:
        ray: the module.
        hub: the actor.
        slot: name of the slot.
    """

    def __init__(self, ray: Any, hub: Any, slot: str) -> None:
        self._ray, self._hub, self._slot = ray, hub, slot
        self._lines: deque[str] = deque()

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            OSError: the driver is gone, or listens to this slot no more.
        """
        if isinstance(message, Alive):
            return  # whoever listens to the hub is alive
        try:
            listened = self._ray.get(
                self._hub.tell.remote(self._slot, to_line(message).decode("ascii")), timeout=ALONE_SECONDS
            )
        except self._ray.exceptions.RayError as error:
            raise ConnectionError(reason_of(error)) from error
        if not listened:
            raise ConnectionError("the driver does not listen to this slot any more")

    def receive(self) -> Message | None:
        """The next message; waits for it. None once the driver is gone."""
        while not self._lines:
            try:
                lines = self._ray.get(self._hub.listen.remote(self._slot, POLL_SECONDS), timeout=ALONE_SECONDS)
            except self._ray.exceptions.RayError:
                return None
            if lines is None:
                return None
            self._lines.extend(lines)
        return from_line(self._lines.popleft().encode("ascii"))


def serve_slot(hub: Any, slot: str, settings: str) -> str:
    """The life of one slot: the task that Ray places. What it returns says why its node cannot work, "" where it can.

    Args:
        hub: the actor.
        slot: its name.
        settings: of the slot, JSON: `sight`, `driver` (a look of its own), `environment`, `logs`.
    """
    import ray

    given, context = json.loads(settings), ray.get_runtime_context()
    ray.get(hub.enter.remote(slot, context.get_node_id()), timeout=ALONE_SECONDS)
    faults = look_around(Sight(**given["sight"])).faults(Look.from_dict(given["driver"]))
    if faults:
        return "; ".join(faults)
    os.environ.update(given["environment"])
    over = threading.Event()
    with _log_into(given["logs"], slot):
        worker = Worker(HubConnection(ray, hub, slot), gone=lambda: _end_unless(over))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: worker.leave())  # the machine is taken back
        worker.run()
        over.set()
    return ""


def _end_unless(over: threading.Event) -> None:
    """The driver is gone: work that asks leaves by itself; else this process ends amid it. Its files are whole."""
    if not over.wait(LEAVE_SECONDS):
        os._exit(0)


@contextmanager
def _log_into(folder: str, slot: str) -> Iterator[None]:
    """What this process prints goes to a file of the run, where the run folder is seen here; else to Ray's logs."""
    place = Path(folder)
    if not folder or not place.is_dir():
        yield
        return
    with (place / f"{slot}.log").open("ab") as log:
        kept = [(stream, os.dup(stream)) for stream in (1, 2)]
        try:
            for stream, _ in kept:
                os.dup2(log.fileno(), stream)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, former in kept:
                os.dup2(former, stream)
                os.close(former)


# --- the side that decides ------------------------------------------------------------------------------------------


@dataclass
class _Slot:
    """One slot as the driver sees it.

    Attributes:
        name: of the slot.
        ref: what Ray calls its task.
        node: id of the node that it was placed on, "" before it was.
        ready: whether its work is open.
        job: number and attempt in work.
        wanted: whether anybody wants what it works on.
    """

    name: str
    ref: Any
    node: str = ""
    ready: bool = False
    job: tuple[int, int] | None = None
    wanted: bool = True


class RayExecutor(Generic[Job, Progress]):
    """Slots on the machines of a cluster, as many as there is room for.

    Args:
        workplace: what is done, and where it is found; its `slots` are those of one machine and are not looked at.
        connection: to the cluster; it is not closed here.
        share: what one slot takes of a machine.
        max_parallel: slots at most; 0 for as many as there is room for.
        sight: what a node has to see before it works.
        environment: variables of the processes that work.
        warn: told of slots that were lost and of nodes that cannot work.
    """

    def __init__(
        self,
        workplace: Workplace[Job, Progress],
        connection: RayConnection,
        share: Share,
        *,
        max_parallel: int = 0,
        sight: Sight | None = None,
        environment: Mapping[str, str] | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._workplace, self._connection, self._ray = workplace, connection, connection.ray
        self._share, self._max_parallel, self._warn = share, max_parallel, warn
        workplace.logs.mkdir(parents=True, exist_ok=True)
        self._settings = json.dumps(
            {
                "sight": asdict(sight or Sight()),
                "driver": asdict(look_around(Sight())),
                "environment": dict(environment or {}),
                "logs": str(workplace.logs.absolute()),
            }
        )
        self._slots: dict[str, _Slot] = {}
        self._names = (f"slot-{number}" for number in itertools.count(1))
        self._waiting: deque[tuple[int, int, Job]] = deque()
        self._unfit: dict[str, str] = {}
        self._looked = -math.inf
        self._room = 0
        self._unplaced_since = time.monotonic()
        self._closed = threading.Event()
        self._hub = self._made_hub()
        self._fill_up()
        threading.Thread(target=self._keep_beating, name="beats", daemon=True).start()
        self._settle()

    @property
    def free_slots(self) -> int:
        """How many more jobs can be taken now; one where no slot has a place yet, which then waits for it."""
        return max(max(self._placed, 1) - len(self._at_work) - len(self._waiting), 0)  # jobs may wait for lost slots

    def submit(self, number: int, attempt: int, job: Job) -> None:
        """Take a job; the next slot that is ready begins it.

        Raises:
            RuntimeError: all slots are taken.
        """
        if self.free_slots < 1:
            raise RuntimeError(f"every slot is taken, got {number=}")
        self._waiting.append((number, attempt, job))
        self._hand_out()

    def poll(self) -> list[Report[Progress]]:
        """What happened since the last call; waits for at least one report while a job is in work.

        Raises:
            RunError: no node takes a slot, or the hub is gone.
            What the work raised.
        """
        reports: list[Report[Progress]] = []
        while not reports and (self._waiting or self._at_work):
            reports = self._news(POLL_SECONDS)
        return reports

    def cancel(self, number: int) -> None:
        """Have a job left at once; no further report of it comes."""
        self._waiting = deque(each for each in self._waiting if each[0] != number)
        for slot in self._at_work:
            if slot.job is not None and slot.job[0] == number:
                slot.wanted = False
                self._say(slot, Drop(*slot.job))

    def close(self) -> None:
        """End all slots and the hub; jobs in work are left."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._waiting.clear()
        refs = [slot.ref for slot in self._slots.values()]
        for name in self._slots:
            self._hub.discharge.remote(name)
        self._slots.clear()
        _, left = self._ray.wait(refs, num_returns=len(refs), timeout=CLOSE_SECONDS) if refs else ([], [])
        for ref in left:
            self._ray.cancel(ref, force=True)
        self._ray.kill(self._hub)

    # --- slots --------------------------------------------------------------------------------------------------

    @property
    def _placed(self) -> int:
        return sum(bool(slot.node) for slot in self._slots.values())

    @property
    def _at_work(self) -> list[_Slot]:
        return [slot for slot in self._slots.values() if slot.job is not None and slot.wanted]

    def _made_hub(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._connection.own_node, soft=False)
        return self._ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=here)(Hub).remote()

    def _fill_up(self) -> None:
        """Ask for slots where there is room; a node that cannot work is passed over."""
        self._looked = time.monotonic()
        nodes = self._connection.nodes()
        fit = [node for node in nodes if node.id not in self._unfit]
        if nodes and not fit:
            raise RunError(
                "no node of the cluster can work for this run",
                value="; ".join(self._unfit.values()),
                fix="see what the workers say in the folder workers of the run",
            )
        self._room = sum(self._share.fits(node) for node in fit)
        wanted = self._max_parallel or self._room
        for _ in range(wanted - len(self._slots)):
            self._start_slot()

    def _start_slot(self) -> None:
        name = next(self._names)
        task = self._ray.remote(
            num_cpus=self._share.cpus,
            num_gpus=self._share.gpus,
            max_retries=0,
            max_calls=1,  # a process of its own: nothing of an earlier slot is in it
            scheduling_strategy="SPREAD",
            label_selector={"ray.io/node-id": f"!in({','.join(self._unfit)})"} if self._unfit else None,
        )(serve_slot)
        ref = task.remote(self._hub, name, self._settings)
        self._slots[name] = slot = _Slot(name, ref)
        self._say(slot, Open(self._workplace.opening, self._workplace.folder))

    def _settle(self) -> None:
        """Wait a little for slots, so that the first jobs are handed out together."""
        until = time.monotonic() + SETTLE_SECONDS
        while (
            self._placed < min(len(self._slots), self._room)
            and time.monotonic() < until
            and not self._workplace.stopped()
        ):
            self._news(POLL_SECONDS)

    def _hand_out(self) -> None:
        free = [slot for slot in self._slots.values() if slot.ready and slot.job is None]
        for slot in free[: len(self._waiting)]:
            number, attempt, job = self._waiting.popleft()
            slot.job, slot.wanted = (number, attempt), True
            self._say(slot, beat(self._workplace))  # so that no job goes by an old clock
            self._say(slot, Do(number, attempt, self._workplace.encode(job)))

    def _say(self, slot: _Slot, message: Message) -> None:
        self._hub.say.remote(slot.name, to_line(message).decode("ascii"))

    def _keep_beating(self) -> None:
        """Tell all slots how much time is left, as long as there is a hub to tell it to."""
        while not self._closed.wait(BEAT_SECONDS):
            line = to_line(beat(self._workplace)).decode("ascii")
            try:
                self._ray.get(self._hub.beat.remote(line), timeout=ALONE_SECONDS)
            except self._ray.exceptions.RayError:
                return  # whoever polls finds out, too, and says so

    # --- news ---------------------------------------------------------------------------------------------------

    def _news(self, seconds: float) -> list[Report[Progress]]:
        silent, reports = self._heard(seconds)
        gone = self._gone(silent)
        if gone:  # what they told before they went comes first: a job that ended is not lost
            reports += self._heard(0.0)[1]
            reports += [report for slot, why in gone for report in self._lost(slot, why)]
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._fill_up()
        self._hand_out()
        return reports + self._waited_in_vain()

    def _heard(self, seconds: float) -> tuple[dict[str, float], list[Report[Progress]]]:
        """Slot -> seconds for which it was silent; and what slots told. Waits at most `seconds` for something."""
        try:
            answer = json.loads(self._ray.get(self._hub.reports.remote(seconds), timeout=ALONE_SECONDS))
        except self._ray.exceptions.RayError as error:
            raise RunError("the hub of the search is gone", value=reason_of(error), fix=_GO_ON) from error
        for name, node in answer["nodes"].items():
            if name in self._slots:
                self._slots[name].node = node
        reports = [report for name, line in answer["told"] for report in self._take(name, from_line(line.encode()))]
        return answer["silent"], reports

    def _take(self, name: str, message: Message) -> list[Report[Progress]]:
        slot = self._slots.get(name)
        if slot is None:
            return []  # it was given up, and another one has its job
        match message:
            case Ready():
                slot.ready = True
            case Told() if slot.wanted and slot.job == (message.number, message.attempt):
                return [Report(*slot.job, self._workplace.decode(message.progress), ended=False)]
            case Ended() if slot.job == (message.number, message.attempt):
                job, slot.job = slot.job, None
                return [Report(*job, None, ended=True)] if slot.wanted else []
            case Leaving():
                return self._lost(slot, "its machine is taken back", preempted=True)
            case Broken() if slot.ready and not (slot.wanted and slot.job == (message.number, message.attempt)):
                return []  # of a job that nobody wants any more
            case Broken():
                return self._broken(slot, error_of(message.error))
        return []

    def _broken(self, slot: _Slot, error: Exception) -> list[Report[Progress]]:
        """A job that raised ends the run. Work that cannot be opened on one node can be on another."""
        if slot.ready:
            raise error
        self._pass_over(slot.node, str(error))
        if not [each for each in self._connection.nodes() if each.id not in self._unfit]:
            raise error
        return self._lost(slot, str(error))

    def _pass_over(self, node: str, why: str) -> None:
        if node and node not in self._unfit:
            name = next((each.name for each in self._connection.nodes() if each.id == node), node)
            self._unfit[node] = f"{name}: {why}"
            self._warn(f"Node {name} takes no trials: {why}")

    def _gone(self, silent: Mapping[str, float]) -> list[tuple[_Slot, str]]:
        """Slots whose task is over, or that have not been heard of for too long; and why."""
        by_ref = {slot.ref: slot for slot in self._slots.values()}
        over, _ = self._ray.wait(list(by_ref), num_returns=len(by_ref), timeout=0) if by_ref else ([], [])
        gone = [(by_ref[ref], self._why_over(by_ref[ref])) for ref in over]
        for name, seconds in silent.items():
            slot = self._slots.get(name)
            if slot is not None and seconds > STALLED_SECONDS and slot.ref not in over:
                self._hub.discharge.remote(name)
                self._ray.cancel(slot.ref, force=True)
                gone.append((slot, f"it said nothing for {seconds:.0f} s"))
        return gone

    def _why_over(self, slot: _Slot) -> str:
        try:
            fault = str(self._ray.get(slot.ref, timeout=0))
        except self._ray.exceptions.RayError as error:
            return _WHY_OVER.get(type(error).__name__) or reason_of(error)
        if fault:
            self._pass_over(slot.node, fault)
        return fault or "it ended"

    def _lost(self, slot: _Slot, why: str, *, preempted: bool = False) -> list[Report[Progress]]:
        """Count a slot out; its job, where it has one, is lost."""
        if self._slots.pop(slot.name, None) is None:
            return []
        self._hub.discharge.remote(slot.name)
        if slot.job is None or not slot.wanted:
            return []
        return [Report(*slot.job, None, ended=True, lost=why, preempted=preempted)]

    def _waited_in_vain(self) -> list[Report[Progress]]:
        """Jobs that no slot will begin: the run is stopped or out of time, or the cluster has no room at all.

        Raises:
            RunError: there was no room for anything, for too long.
        """
        if self._placed or not self._waiting:
            self._unplaced_since = time.monotonic()
        if time.monotonic() - self._unplaced_since > PLACE_SECONDS:
            raise self._no_room()
        if not (self._workplace.stopped() or self._workplace.seconds_left() <= 0):
            return []
        waiting, self._waiting = self._waiting, deque()
        return [
            Report(number, attempt, None, ended=True, lost="no machine was free", preempted=True, begun=False)
            for number, attempt, _ in waiting
        ]

    def _no_room(self) -> RunError:
        share, nodes = self._share, self._connection.nodes()
        there = ", ".join(f"{node.name} ({node.cpus:g} CPUs, {node.gpus:g} GPUs)" for node in nodes) or "no node"
        return RunError(
            f"no machine of the cluster had room for a trial in {PLACE_SECONDS / 60:.0f} minutes",
            value=f"a trial takes {share.cpus:g} CPUs and {share.gpus:g} GPUs; there are {there}",
            fix=f"end what else runs there, or set --threads and --gpus-per-trial lower; then {_GO_ON}",
        )
