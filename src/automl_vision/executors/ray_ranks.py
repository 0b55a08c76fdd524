"""Ranks that train each model together, on the machines of a Ray cluster: there what torchrun is on one machine.

Ray finds places for all of them or none (a placement group) and says which machines they are on; each rank is a process
of its own with the variables that torchrun sets, started by a task there. They speak with each other as they do
anywhere. When one has died, all are ended and started again, at most `RESTARTS` times; Ray repeats nothing by itself.

Ray Train's TorchTrainer would do the same with a run folder, checkpoints and retries of its own, beside ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from automl_vision.errors import RunError
from automl_vision.executors.ray_cluster import ALONE_SECONDS, PLACE_SECONDS, POLL_SECONDS, Share, share_of
from automl_vision.executors.ray_connection import Look, RayConnection, Sight, look_around, reason_of

#: How often all ranks are started again after one died; torchrun's habit is the same.
RESTARTS = 3
#: The variable of the folder in which a rank tells how it ended (see `told_in`).
TALK = "AUTOML_VISION_TALK"
#: Seconds that ranks which nobody needs any more have to end by themselves.
END_SECONDS = 5.0
#: Seconds between two looks at a process.
_LOOK = 0.1
#: Bytes of the last words of a rank that are kept for whoever asks why it ended.
_LAST_WORDS = 2_000


@dataclass(frozen=True)
class Launch:
    """What every rank is started as.

    Attributes:
        arguments: of the command line.
        folder: that it is started in; every machine has to see it.
        sight: what a machine has to see besides.
        environment: variables that all ranks get.
    """

    arguments: tuple[str, ...]
    folder: str
    sight: Sight
    environment: Mapping[str, str] = field(default_factory=dict)


class Asked(Protocol):
    """What the user or the system asks for meanwhile. Whoever hears signals writes it, and this module reads."""

    @property
    def signals(self) -> deque[int]:
        """For the first rank, not passed on yet."""
        ...

    @property
    def at_once(self) -> bool:
        """Whether everything is to end now."""
        ...


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended.

    Attributes:
        code: exit code of its process; None where its machine or its task is gone.
        told: the exit code that the command has come to, where it has come to an end; None where it is to be restarted.
        why: for people.
    """

    code: int | None
    told: int | None
    why: str


def ranks_wanted(connection: RayConnection, wanted: int) -> int:
    """How many ranks: as many as are wanted, or one for each GPU of the cluster where that is 0.

    Raises:
        RunError: 0 is wanted, and there is no GPU.
    """
    count = wanted or int(sum(int(node.gpus) for node in connection.nodes()))
    if not count:
        raise RunError(
            "the cluster has no GPU to give each rank one", value="--ddp 0", fix="say how many processes: --ddp 2"
        )
    return count


def share_of_rank(connection: RayConnection, count: int, *, gpus: float | None, threads: int) -> Share:
    """What each of `count` ranks takes of a machine: a GPU where there are any, and its part of the processors."""
    return share_of(connection.nodes(), gpus=gpus, threads=threads, max_parallel=count)


def told_in(folder: Path) -> int | None:
    """The exit code that a rank has left in its folder of `TALK`; None where it did not come to an end."""
    try:
        return int((folder / "code").read_text("ascii"))
    except (OSError, ValueError):
        return None


# --- between the machines -------------------------------------------------------------------------------------------


class Line:
    """An actor through which ranks and the process in front talk. All its methods are called through Ray."""

    def __init__(self) -> None:
        self._said: deque[tuple[int, int, str]] = deque()
        self._places: dict[int, Any] = {}
        self._orders: dict[int, deque[str]] = {}
        self._news = asyncio.Event()

    async def enter(self, place: int, told: str) -> None:
        """Rank: it has a place, of which it tells this (JSON)."""
        self._places[place] = json.loads(told)
        self._news.set()

    async def say(self, place: int, stream: int, text: str) -> None:
        """Rank: it printed this to stream 1 or 2."""
        self._said.append((place, stream, text))
        self._news.set()

    async def listen(self, place: int, seconds: float) -> list[str]:
        """Rank: orders for it, oldest first; none after so many seconds."""
        orders = self._orders.setdefault(place, deque())
        until = time.monotonic() + seconds
        while not orders and time.monotonic() < until:
            await asyncio.sleep(_LOOK)
        heard = list(orders)
        orders.clear()
        return heard

    async def order(self, place: int, line: str) -> None:
        """Front: an order for one rank."""
        self._orders.setdefault(place, deque()).append(line)

    async def news(self, seconds: float) -> str:
        """Front: what was printed since it asked last, and all places; waits at most `seconds`.

        Returns:
            JSON: `said` (place, stream, text), `places` (place -> what it told).
        """
        if not self._said:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()
        said = list(self._said)
        self._said.clear()
        return json.dumps({"said": said, "places": self._places})


# --- on the machine of a rank ---------------------------------------------------------------------------------------


def serve_rank(line: Any, place: int, launch: str, driver: str) -> str:
    """The life of one rank: the task that Ray places.

    Args:
        line: the actor.
        place: number of its bundle.
        launch: a `Launch`, JSON.
        driver: a look of the driver's own, JSON.

    Returns:
        a `RankEnd`, JSON.
    """
    import ray

    given = json.loads(launch)
    fault = _fault(given, Look.from_dict(json.loads(driver)))
    told = {"node": ray.get_runtime_context().get_node_id(), "fault": fault}
    address = ray.util.get_node_ip_address()
    ray.get(line.enter.remote(place, json.dumps({**told, "address": address, "port": _free_port(address)})))
    if fault:
        return json.dumps(asdict(RankEnd(None, None, fault)))
    while not (orders := ray.get(line.listen.remote(place, POLL_SECONDS), timeout=ALONE_SECONDS)):
        pass
    return json.dumps(asdict(_run(ray, line, place, given, json.loads(orders[0]))))


def _fault(given: Mapping[str, Any], driver: Look) -> str:
    faults = look_around(Sight(**given["sight"])).faults(driver)
    if not Path(given["folder"]).is_dir():
        faults.append(f"it does not see the folder that the search was started in, {given['folder']}")
    return "; ".join(faults)


def _run(ray: Any, line: Any, place: int, given: Mapping[str, Any], variables: Mapping[str, str]) -> RankEnd:
    """Run the process of this rank to its end; it does not outlive the task, nor the process in front."""
    with tempfile.TemporaryDirectory(prefix="automl-vision-") as talk:
        process = subprocess.Popen(  # noqa: S603 - the own interpreter, with arguments that were checked
            [sys.executable, "-m", "automl_vision", *given["arguments"]],
            cwd=given["folder"],
            env={**os.environ, **given["environment"], **variables, TALK: talk},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        last: deque[str] = deque(maxlen=20)
        readers = [
            threading.Thread(
                target=_pass_on, args=(pipe, lambda text, to=stream: _say(ray, line, place, to, text), last)
            )
            for stream, pipe in ((1, process.stdout), (2, process.stderr))
        ]
        for reader in readers:
            reader.start()
        try:
            _obey(ray, line, place, process)
        finally:
            process.kill()
            code = process.wait()
            for reader in readers:
                reader.join()
        return RankEnd(code, told_in(Path(talk)), "".join(last)[-_LAST_WORDS:].strip() or f"it ended with {code}")


def _say(ray: Any, line: Any, place: int, stream: int, text: str) -> None:
    with contextlib.suppress(ray.exceptions.RayError):  # nobody listens any more, and `_obey` finds that out, too
        ray.get(line.say.remote(place, stream, text), timeout=ALONE_SECONDS)


def _pass_on(pipe: IO[bytes], say: Callable[[str], None], last: deque[str]) -> None:
    """Line by line: pieces of a character are none."""
    with pipe:
        for raw in pipe:
            text = raw.decode("utf-8", "replace")
            last.append(text)
            say(text)


def _obey(ray: Any, line: Any, place: int, process: subprocess.Popen[bytes]) -> None:
    """Pass signals on until the process has ended, or nobody is there any more who would want it."""
    while process.poll() is None:
        try:
            orders = ray.get(line.listen.remote(place, POLL_SECONDS), timeout=ALONE_SECONDS)
        except ray.exceptions.RayError:
            return
        for order in orders:
            if order == "end":
                return
            process.send_signal(int(order))


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])


# --- the process in front -------------------------------------------------------------------------------------------


def run_ranks_on(
    connection: RayConnection,
    count: int,
    share: Share,
    launch: Launch,
    asked: Asked,
    *,
    write: Callable[[int, str], None],
    warn: Callable[[str], None],
) -> int | None:
    """Start `count` ranks, wait for them, and start all again where one has died.

    Args:
        connection: to the cluster, whose nodes were checked.
        count: of ranks.
        share: what each takes of a machine.
        launch: what they are started as.
        asked: what the user asks for meanwhile.
        write: called with stream (1, 2) and text of what the first rank prints.
        warn: called with why all are started again.

    Returns:
        the exit code of the first rank; None where it told none: `asked.at_once`, or ranks died too often.

    Raises:
        RunError: there is no room for all of them, or a machine that got one cannot work for this run.
    """
    for restart in range(RESTARTS + 1):
        together = _Together(connection, count, share, launch, write)
        try:
            ends = together.run(restart, asked)
        finally:
            together.end()
        told = ends.get(0, RankEnd(None, None, "")).told
        if told is not None or asked.at_once or asked.signals:
            return told
        dead = "; ".join(f"rank {rank}: {end.why.splitlines()[-1]}" for rank, end in sorted(ends.items()))
        warn(f"A process that trains with the others is gone ({dead or 'its machine is gone'}).")
    return None


class _Together:
    """All ranks, from one start to their end."""

    def __init__(
        self, connection: RayConnection, count: int, share: Share, launch: Launch, write: Callable[[int, str], None]
    ) -> None:
        self._ray, self._connection, self._write = connection.ray, connection, write
        self._count, self._share = count, share
        self._launch = json.dumps(asdict(launch))
        self._group: Any = None
        self._line: Any = None
        self._refs: list[Any] = []
        self._rank_of: dict[int, int] = {}

    def run(self, restart: int, asked: Asked) -> dict[int, RankEnd]:
        """Ranks that ended -> how: the first one to an end, or whichever died."""
        self._line = self._made_line()
        self._group = self._placed(asked)
        if self._is_left(asked):
            return {}
        self._refs = [self._task(place) for place in range(self._count)]
        places = self._entered(asked)
        if self._is_left(asked) or len(places) < self._count:
            return self._ended()
        self._begin(places, restart)
        return self._wait(asked)

    def end(self) -> None:
        """Whoever is left ends; their places are free again."""
        for place in range(len(self._refs)):
            self._line.order.remote(place, "end")
        if self._refs:
            _, left = self._ray.wait(self._refs, num_returns=len(self._refs), timeout=END_SECONDS)
            for ref in left:
                self._ray.cancel(ref, force=True)
        if self._line is not None:
            self._ray.kill(self._line)
        if self._group is not None:
            from ray.util import remove_placement_group

            remove_placement_group(self._group)

    def _is_left(self, asked: Asked) -> bool:
        """Whether anything was asked for before there is a first rank that could be told."""
        return asked.at_once or bool(asked.signals)

    def _made_line(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._connection.own_node, soft=False)
        return self._ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=here)(Line).remote()

    def _placed(self, asked: Asked) -> Any:
        """Room for all ranks, on as few machines as have it.

        Raises:
            RunError: there is none, for too long.
        """
        from ray.util import placement_group, remove_placement_group

        bundle = {"CPU": self._share.cpus, **({"GPU": self._share.gpus} if self._share.gpus else {})}
        group, until = placement_group([bundle] * self._count, strategy="PACK"), time.monotonic() + PLACE_SECONDS
        while not group.wait(timeout_seconds=POLL_SECONDS) and not self._is_left(asked):
            if time.monotonic() > until:
                remove_placement_group(group)
                raise self._no_room()
        return group

    def _task(self, place: int) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        task = self._ray.remote(
            num_cpus=self._share.cpus,
            num_gpus=self._share.gpus,
            max_retries=0,
            max_calls=1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place),
        )(serve_rank)
        return task.remote(self._line, place, self._launch, json.dumps(asdict(look_around(Sight()))))

    def _entered(self, asked: Asked) -> dict[int, Mapping[str, Any]]:
        """Place -> what it told, once all have one; fewer where one is gone before.

        Raises:
            RunError: a machine cannot work for this run.
        """
        places: dict[int, Mapping[str, Any]] = {}
        while len(places) < self._count and not self._over() and not self._is_left(asked):
            places = {int(place): told for place, told in self._heard()["places"].items()}
        faults = {told["address"]: told["fault"] for told in places.values() if told["fault"]}
        if faults:
            raise RunError(
                "a machine that got a rank cannot work for this run",
                value="; ".join(f"{address}: {fault}" for address, fault in faults.items()),
                fix="install the same versions on all machines, and start the search in a folder that all of them see",
            )
        return places

    def _begin(self, places: Mapping[int, Mapping[str, Any]], restart: int) -> None:
        """Ranks that are neighbours are on one machine; the first one's machine is where they meet."""
        order = sorted(
            places, key=lambda place: (places[place]["node"] != places[0]["node"], places[place]["node"], place)
        )
        self._rank_of = {place: rank for rank, place in enumerate(order)}
        meeting = places[order[0]]
        for place, rank in self._rank_of.items():
            variables = {
                "RANK": str(rank),
                "WORLD_SIZE": str(self._count),
                "LOCAL_RANK": "0",  # Ray shows each rank the one GPU that is its own
                "MASTER_ADDR": meeting["address"],
                "MASTER_PORT": str(meeting["port"]),
                "TORCHELASTIC_RESTART_COUNT": str(restart),
            }
            self._line.order.remote(place, json.dumps(variables))

    def _wait(self, asked: Asked) -> dict[int, RankEnd]:
        """Until the first rank has come to an end, or one has died."""
        first = next(place for place, rank in self._rank_of.items() if rank == 0)
        while not asked.at_once:
            while asked.signals:
                self._line.order.remote(first, str(asked.signals.popleft()))
            self._heard()
            ended = self._ended()
            if 0 in ended or any(end.code != 0 for end in ended.values()):
                self._heard(0.0)  # its last words
                return self._ended()
        return self._ended()

    def _heard(self, seconds: float = POLL_SECONDS / 2) -> dict[str, Any]:
        """What is new; what the first rank printed is passed on."""
        try:
            news: dict[str, Any] = json.loads(self._ray.get(self._line.news.remote(seconds), timeout=ALONE_SECONDS))
        except self._ray.exceptions.RayError as error:
            raise RunError("the line to the ranks is gone", value=reason_of(error), fix="--resume goes on") from error
        for place, stream, text in news["said"]:
            if self._rank_of.get(place) == 0:
                self._write(stream, text)
        return news

    def _over(self) -> list[Any]:
        over, _ = self._ray.wait(self._refs, num_returns=len(self._refs), timeout=0)
        return list(over)

    def _ended(self) -> dict[int, RankEnd]:
        over = self._over()
        return {
            self._rank_of.get(place, place): self._end_of(ref) for place, ref in enumerate(self._refs) if ref in over
        }

    def _end_of(self, ref: Any) -> RankEnd:
        try:
            return RankEnd(**json.loads(self._ray.get(ref, timeout=0)))
        except self._ray.exceptions.RayError as error:
            return RankEnd(None, None, reason_of(error))

    def _no_room(self) -> RunError:
        share, nodes = self._share, self._connection.nodes()
        there = ", ".join(f"{node.name} ({node.cpus:g} CPUs, {node.gpus:g} GPUs)" for node in nodes) or "no node"
        return RunError(
            f"the cluster had no room for {self._count} ranks in {PLACE_SECONDS / 60:.0f} minutes",
            value=f"each takes {share.cpus:g} CPUs and {share.gpus:g} GPUs; there are {there}",
            fix="give a lower --ddp, or lower --threads, or end what else runs there",
        )
