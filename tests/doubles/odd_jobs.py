"""Work for executors to do, here or in other processes, that writes down what was begun and tidied up."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from automl_vision.errors import DataError
from automl_vision.executors.workplace import Orders, PlainWork

Values = dict[str, Any]


def tell(folder: Path, line: str) -> None:
    with (folder / "told").open("a") as file:
        file.write(f"{line}\n")


def told(folder: Path) -> list[str]:
    file = folder / "told"
    return file.read_text().splitlines() if file.exists() else []


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it became true in time."""
    ends = time.monotonic() + seconds
    while not what():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def open_letters(folder: str, _orders: Orders) -> PlainWork:
    """Spells the word of a job, letter by letter."""

    def spell(job: Values) -> Iterator[Values]:
        word = job["word"]
        tell(Path(folder), f"begin {word}")
        try:
            for end in range(1, len(word) + 1):
                yield {"said": word[:end]}
        finally:
            tell(Path(folder), f"leave {word}")

    return spell


def open_odd(folder: str, orders: Orders) -> PlainWork:
    """Does what a job asks for: {"do": a name below, ...}."""
    place = Path(folder)

    def say(job: Values) -> Iterator[Values]:
        yield {"said": job["what"]}

    def wait(job: Values) -> Iterator[Values]:
        """Until told to leave, or for so many seconds."""
        yield {"pid": os.getpid()}
        ends = time.monotonic() + job.get("seconds", 60.0)
        while not orders.replaced and not orders.stopped and time.monotonic() < ends:
            time.sleep(0.005)
        if orders.replaced:
            return
        tell(place, "wrote")
        yield {"stopped": orders.stopped, "seconds_left": min(orders.seconds_left(), 1e9)}

    def deaf(job: Values) -> Iterator[Values]:
        yield {"pid": os.getpid()}
        time.sleep(job["seconds"])
        yield {}

    def die(job: Values) -> Iterator[Values]:
        yield {"pid": os.getpid()}
        os.kill(os.getpid(), getattr(signal, job["signal"]))
        time.sleep(60)

    def leave(job: Values) -> Iterator[Values]:
        print("this is the last line", file=sys.stderr, flush=True)
        yield {}
        os._exit(job["code"])

    def shout(_job: Values) -> Iterator[Values]:
        print("on standard output")
        os.write(1, b"not even Python knows\n")
        print("on standard error", file=sys.stderr)
        yield {"read": sys.stdin.read()}

    def fail(job: Values) -> Iterator[Values]:
        yield {}
        time.sleep(job.get("after", 0.0))
        raise {
            "ours": DataError("no images", value="here", fix="bring some"),
            "disk": OSError(28, "No space left on device", "run/trials"),
            "fault": ZeroDivisionError("by nothing"),
        }[job["how"]]

    def fail_late(_job: Values) -> Iterator[Values]:
        """Fails because it was told to leave."""
        yield {}
        wait_for(lambda: orders.replaced)
        raise FileNotFoundError(2, "No such file", "what somebody else tidied up")

    def fork(job: Values) -> Iterator[Values]:
        """Leaves a process that holds what this one has open, and may be out of reach."""
        child = os.fork()
        if not child:
            if job["escapes"]:
                os.setsid()
            time.sleep(20)
            os._exit(0)
        yield {"pid": os.getpid(), "child": child}
        if job["dies"]:
            os.kill(os.getpid(), signal.SIGKILL)
        wait_for(lambda: orders.replaced)

    every = {each.__name__: each for each in (say, wait, deaf, die, leave, shout, fail, fail_late, fork)}
    return lambda job: every[job["do"]](job)


def open_badly(folder: str, _orders: Orders) -> PlainWork:
    """Cannot be opened: dies, or fails, as the file `how` in the folder says."""
    how = (Path(folder) / "how").read_text()
    tell(Path(folder), "opened")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"memory": MemoryError("no room"), "ours": DataError("no images", value="here", fix="bring some")}[how]


def open_slowly(folder: str, orders: Orders) -> PlainWork:
    """The same odd jobs, after what an import of torch takes."""
    time.sleep(5)
    return open_odd(folder, orders)


def open_in_some(folder: str, orders: Orders) -> PlainWork:
    """The same odd jobs, but in the slots that the file `bad` in the folder names."""
    slot = os.environ["ODD_SLOT"]
    tell(Path(folder), f"opened {slot}")
    if slot in (Path(folder) / "bad").read_text():
        os.kill(os.getpid(), signal.SIGKILL)
    return open_odd(folder, orders)
