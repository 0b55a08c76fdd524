"""Several processes ("ranks") that train one model together; the only door to torch.distributed.

Each rank goes through its part of every batch, the gradients are summed, and all take the same step. They are summed
when the backward pass is over, in buckets, and not by torch's DistributedDataParallel during it: a rank whose memory
proves too small repeats its part in smaller pieces without the others knowing, one whose part of a small batch is empty
joins with nothing, and compiled steps need no wrapper. What that costs is the overlap of communication and backward.

Two ways to speak with each other, for two kinds of waiting:

- what may take long (the first rank decodes images and writes files, another one validates more slowly) goes by a
  key-value store, and is waited for as long as all processes live: who started them ends all when one has died;
- what belongs to one step are collective operations, which end with `RankLost` after a minute.

Nothing is pickled: what is said is JSON, what is summed are tensors.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

#: Seconds that a rank waits for the others within a step.
STEP_TIMEOUT = 60.0
#: Seconds to find each other when a run starts: imports take that long on a busy machine.
START_TIMEOUT = 300.0
#: Bytes of gradients that are summed at once.
BUCKET_BYTES = 25 << 20
#: Seconds of steps between two decisions of the first rank: whether to stop, and whether the time is over.
DECISION_SECONDS = 0.2
#: Steps between two of them at most.
MOST_STEPS = 100
#: Where, in the store that torchrun serves, the first rank says where its own is; and seconds that this has to answer.
_HOME, _ANSWER = "automl-vision", 3.0
#: Seconds between two looks at whether the first rank has left.
_LOOK_AGAIN = 1.0
#: Seconds between two looks at the store, at first and at most.
_LOOKS = (0.002, 0.1)

#: What the first rank says when it is done with a candidate, however that ended.
OVER = {"do": "over"}

_CUT, _LEAVE = 1, 2


class RankLost(Exception):
    """Another process that trains the same model is gone, or does not answer."""


class LeftByFirst(Exception):
    """The first rank has left this epoch; the others leave it too."""


class RanksDiffer(Exception):
    """Ranks that must hold the same weights do not."""


def own_device(name: str) -> torch.device:
    """The device of this rank: of several GPUs of a machine, each rank has the one of its local number.

    Args:
        name: a device as settings have it, or "auto".
    """
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    local = os.environ.get("LOCAL_RANK", "0")
    return torch.device(f"cuda:{local}" if wanted == "cuda" else wanted)


class Ranks:
    """The processes that train one model, as one of them sees them. One alone needs nobody and asks nobody.

    Args:
        rank: of this process; 0 decides and writes files.
        size: how many there are.
        store: the key-value store that all see; None for one alone.

    Attributes:
        rank, size: as given.
        orders: that the first rank gave so far.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._store = store
        self.orders = 0

    def heard_the_end(self) -> None:
        """Tell the first rank that this one heard its last order; the store goes with that rank."""
        if self._store is not None:
            with _lost_when_it_fails():
                self._store.set(f"heard the end: {self.rank}", "yes")

    def wait_until_heard(self, seconds: float = 10.0) -> None:
        """Wait until all others heard the last order, but no longer than so many seconds.

        Raises:
            RankLost: one of them did not.
        """
        if self._store is not None:
            with _lost_when_it_fails():
                others = [f"heard the end: {rank}" for rank in range(1, self.size)]
                self._store.wait(others, timedelta(seconds=seconds))

    @classmethod
    def join(cls, device: torch.device) -> Ranks:
        """Find the others by the variables that torchrun sets (`env://`); waits until all are there.

        Args:
            device: of this rank's tensors; gradients on a GPU are summed by NCCL, all else by gloo.

        Raises:
            RankLost: they are not there in time.
        """
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        with _lost_when_it_fails():
            common, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=START_TIMEOUT)))
            store = _own_store(common) if rank == 0 else _store_of_first(common)
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group(
                backend,
                store=PrefixStore("steps", store),
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=STEP_TIMEOUT),
            )
        return cls(rank, size, PrefixStore("orders", store))

    def leave(self) -> None:
        """Free what is held, when all have come to the end."""
        if not self.alone:
            import torch.distributed as dist

            dist.destroy_process_group()

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the one that decides and writes."""
        return self.rank == 0

    def part(self, count: int, rank: int | None = None) -> range:
        """The places of a rank in a batch of `count`: contiguous, even, the first ones larger; perhaps none."""
        rank = self.rank if rank is None else rank
        each, more = divmod(count, self.size)
        start = rank * each + min(rank, more)
        return range(start, start + each + (rank < more))

    # --- by the store: what may take long -----------------------------------------------------------------------

    def say(self, order: Mapping[str, Any]) -> None:
        """Tell all others something; plain types. For the first rank."""
        if self.alone:
            return
        with _lost_when_it_fails():
            self._store.set(self._next_order(), json.dumps(dict(order)))

    def hear(self) -> dict[str, Any]:
        """What the first rank says next; waits for it. For the others."""
        key = self._next_order()
        with _lost_when_it_fails():
            _wait_until(lambda: bool(self._store.check([key])))
            order: dict[str, Any] = json.loads(self._store.get(key))
        return order

    def note(self, name: str, text: str) -> None:
        """Leave something for others to find under a name."""
        with _lost_when_it_fails():
            self._store.set(name, text)

    def found(self, name: str) -> str | None:
        """What somebody left under a name, None where nobody did; waits for nothing."""
        with _lost_when_it_fails():
            return self._store.get(name).decode() if self._store.check([name]) else None

    def meet(self, name: str, ask: Callable[[], Any]) -> None:
        """Wait until all ranks have come here.

        Args:
            name: unique among all meetings.
            ask: called while this rank waits; what it raises ends the waiting.

        Raises:
            RankLost: the store is gone.
        """
        if self.alone:
            return

        def all_here() -> bool:
            ask()
            return bool(self._store.add(f"met/{name}", 0) >= self.size)

        with _lost_when_it_fails():
            self._store.add(f"met/{name}", 1)
        _wait_until(all_here)

    def _next_order(self) -> str:
        self.orders += 1
        return f"order/{self.orders}"

    # --- collective operations ----------------------------------------------------------------------------------

    def lowest(self, value: int) -> int:
        """The lowest value of all ranks."""
        return value if self.alone else int(self._reduced(torch.tensor([value]), "MIN")[0])

    def of_first(self, value: int) -> int:
        """The value of the first rank."""
        if self.alone:
            return value
        import torch.distributed as dist

        told = torch.tensor([value])
        with _lost_when_it_fails():
            dist.broadcast(told, src=0)
        return int(told[0])

    def gathered(self, mine: torch.Tensor, count: int) -> torch.Tensor:
        """Rows of all ranks in the order of `part(count)`.

        Args:
            mine: (n, ...) on the CPU, those of `part(count)`.
            count: rows of all.

        Returns:
            (count, ...).
        """
        if self.alone:
            return mine
        import torch.distributed as dist

        parts = [self.part(count, rank) for rank in range(self.size)]
        padded = mine.new_zeros((len(parts[0]), *mine.shape[1:]))
        padded[: len(mine)] = mine
        every = [torch.empty_like(padded) for _ in parts]
        with _lost_when_it_fails():
            dist.all_gather(every, padded)
        return torch.cat([rows[: len(part)] for rows, part in zip(every, parts, strict=True)])

    def every(self, mine: torch.Tensor) -> torch.Tensor:
        """(size, ...) the tensors of all ranks, which have one shape and are on the device of this one."""
        import torch.distributed as dist

        all_of_them = [torch.empty_like(mine) for _ in range(self.size)]
        with _lost_when_it_fails():
            dist.all_gather(all_of_them, mine)
        return torch.stack(all_of_them)

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, several at once."""
        import torch.distributed as dist

        with _lost_when_it_fails():
            for work in [dist.all_reduce(each, async_op=True) for each in tensors]:
                work.wait()

    def differing(self, tensors: Mapping[str, torch.Tensor]) -> list[str]:
        """Names of those tensors that are not the same on all ranks."""
        if self.alone:
            return []
        marks = torch.stack([_mark(tensor) for tensor in tensors.values()]).cpu()
        unequal = self._reduced(marks, "MIN") != self._reduced(marks, "MAX")
        return [name for name, differs in zip(tensors, unequal.tolist(), strict=True) if differs]

    def _reduced(self, values: torch.Tensor, how: str) -> torch.Tensor:
        import torch.distributed as dist

        reduced = values.clone()
        with _lost_when_it_fails():
            dist.all_reduce(reduced, op=getattr(dist.ReduceOp, how))
        return reduced


#: One process that trains alone.
ALONE = Ranks()


class Sittings:
    """The epochs of one candidate as ranks go through them together: begun, gone on with, left, over.

    Args:
        ranks: who trains.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def begin(self) -> None:
        """The first rank begins an epoch, or goes on with one."""
        self._ranks.say({"do": "epoch"})

    def follow(self) -> bool:
        """Wait for it; False where the candidate is over."""
        return bool(self._ranks.hear()["do"] == "epoch")

    def leave(self) -> None:
        """The first rank leaves an epoch before its end."""
        if not self._ranks.alone:
            self._ranks.note(self._key("left"), "")

    def unless_left(self) -> Callable[[], None]:
        """What the others call now and then; raises `LeftByFirst`, at the latest a second after it is so."""
        looked = time.monotonic()

        def ask() -> None:
            nonlocal looked
            if time.monotonic() - looked < _LOOK_AGAIN:
                return
            looked = time.monotonic()
            if self._ranks.found(self._key("left")) is not None:
                raise LeftByFirst

        return ask

    def meet(self, name: str, ask: Callable[[], Any]) -> None:
        """Wait until all ranks are there; see `Ranks.meet`."""
        self._ranks.meet(self._key(name), ask)

    def note_images(self, size: int) -> None:
        """Memory had no room for more than `size` images at once, and the step cannot be repeated."""
        self._ranks.note("images that fit", str(size))

    def images_that_fit(self, size: int) -> int:
        """`size`, or as few images at once as another rank had room for."""
        found = self._ranks.found("images that fit")
        return size if found is None else min(size, int(found))

    def _key(self, name: str) -> str:
        return f"{self._ranks.orders}/{name}"


class StepGate:
    """Whether the next step is taken: decided by the first rank for all, and told for a few steps at a time.

    One broadcast of a number on the CPU in about `DECISION_SECONDS`; no device is waited for.

    Args:
        ranks: who trains.
        ask: whether the epoch ends before the next step; what it raises ends it for all. Asked on the first rank only.
    """

    def __init__(self, ranks: Ranks, ask: Callable[[], bool]) -> None:
        self._ranks = ranks
        self._ask = ask
        self._granted = 0
        self._since: float | None = None
        self._given = 0

    def is_shut(self) -> bool:
        """Whether the epoch ends here.

        Raises:
            LeftByFirst: the first rank left it.
        """
        if self._ranks.alone:
            return self._ask()
        if not self._granted:
            verdict = self._ranks.of_first(self._decided()) if self._ranks.first else self._ranks.of_first(0)
            if verdict <= 0:
                self._end(-verdict)
                return True
            self._granted = verdict
        self._granted -= 1
        return False

    def _decided(self) -> int:
        """Steps to come, or what ends them as a number that is not above 0."""
        try:
            shut = self._ask()
        except BaseException:
            self._ranks.of_first(-_LEAVE)
            raise
        if shut:
            return -_CUT
        now = time.monotonic()
        each = (now - self._since) / self._given if self._since is not None else DECISION_SECONDS
        self._since = now
        self._given = max(1, min(MOST_STEPS, int(DECISION_SECONDS / max(each, 1e-6))))
        return self._given

    def _end(self, verdict: int) -> None:
        if verdict == _LEAVE:
            raise LeftByFirst


class GradientSum:
    """Sums the gradients of a network over all ranks.

    Args:
        ranks: who trains.
        parameters: of the network, in the same order everywhere.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._ranks = ranks
        self._parameters = parameters
        self._buckets: list[list[torch.nn.Parameter]] | None = None

    def __call__(self, told: torch.Tensor) -> torch.Tensor:
        """Sum the gradients in place; one that is missing counts as zero, unless it is missing everywhere.

        Args:
            told: (k) float32 on the device of the network, that is summed along with them.

        Returns:
            (k) the sum of `told`.
        """
        if self._buckets is None:
            self._buckets = self._divided()
        flat = [self._flat(bucket) for bucket in self._buckets]
        flat.append(told.clone())
        self._ranks.sum_(flat)
        for bucket, summed in zip(self._buckets, flat, strict=False):
            gradients = [each.grad for each in bucket if each.grad is not None]
            views = [
                part.view_as(own)
                for part, own in zip(torch.split(summed, [each.numel() for each in bucket]), bucket, strict=True)
            ]
            torch._foreach_copy_(gradients, views)
        return flat[-1]

    def _divided(self) -> list[list[torch.nn.Parameter]]:
        """Those that have a gradient on some rank, in buckets of one type; which they are never changes."""
        has = torch.tensor([int(each.grad is not None) for each in self._parameters])
        anywhere = self._ranks._reduced(has, "MAX").tolist()
        buckets: list[list[torch.nn.Parameter]] = []
        room = 0
        for parameter, wanted in zip(self._parameters, anywhere, strict=True):
            if not wanted:
                continue
            if room < parameter.nbytes or buckets[-1][0].dtype != parameter.dtype:
                buckets.append([])
                room = BUCKET_BYTES
            buckets[-1].append(parameter)
            room -= parameter.nbytes
        return buckets

    def _flat(self, bucket: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        for parameter in bucket:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return torch.cat([each.grad.reshape(-1) for each in bucket if each.grad is not None])


def _own_store(common: Any) -> Any:
    """A key-value store that this process, the first, serves; where it is stands in the one that torchrun serves.

    That one outlives the ranks: those that are started again would find what the ones before them said.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, though its module does not say so

    host = os.environ["MASTER_ADDR"]  # of the machine of the first rank
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=STEP_TIMEOUT))
    token = secrets.token_hex(8)
    store.set("token", token)
    common.set(_HOME, json.dumps([host, store.port, token]))
    return store


def _store_of_first(common: Any) -> Any:
    """The store of the first rank, once it is there; one of a first rank that is gone does not answer."""
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends:
        store = _answering(json.loads(common.get(_HOME))) if common.check([_HOME]) else None
        if store is not None:
            return store
        time.sleep(_LOOKS[1])
    raise RankLost(f"the first process was not there within {START_TIMEOUT:.0f} s")


def _answering(home: list[Any]) -> Any:
    """The store at this place, None where there is none, or another one."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, though its module does not say so

    host, port, token = home
    try:
        with socket.create_connection((host, port), timeout=_ANSWER):
            pass  # torch would print a stack where nobody listens
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=_ANSWER))
        is_same = store.check(["token"]) and store.get("token").decode() == token
    except (RuntimeError, ValueError, OSError):  # torch's DistError is a RuntimeError
        return None
    store.set_timeout(timedelta(seconds=STEP_TIMEOUT))
    return store if is_same else None


def _mark(tensor: torch.Tensor) -> torch.Tensor:
    """A number that changes with the bits of a tensor, whatever they mean."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    bits = tensor.detach().view(whole).to(torch.int64)
    return bits.sum() + 31 * (bits * bits).sum()


def _wait_until(is_so: Callable[[], bool]) -> None:
    pause, longest = _LOOKS
    while not is_so():
        time.sleep(pause)
        pause = min(2 * pause, longest)


@contextmanager
def _lost_when_it_fails() -> Iterator[None]:
    """What torch.distributed raises, as one error: closed connections and time-outs have no type of their own."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:  # torch's DistError is a RuntimeError
        raise RankLost(" ".join(str(error).split())[:300]) from error
