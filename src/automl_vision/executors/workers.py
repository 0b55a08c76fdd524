"""Trials in other processes of this machine: one long-lived worker per slot, which imports once and does many jobs.

A worker is a fresh Python (`python -m automl_vision.executors.worker`), never a fork; the two sides talk in lines of
JSON over its standard input and output. One that dies is noticed at once by the end of its output, one that stalls by
the beats that it does not answer; either is reported as lost and replaced. What workers print goes to a file each.
Nothing is waited for without a limit: not for a worker to read, nor for the end of one that was killed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, cast

from automl_vision.errors import AutomlVisionError, RunError
from automl_vision.executors.executor import Job, Progress, Report
from automl_vision.executors.workplace import (
    BEAT_SECONDS,
    Alive,
    Broken,
    Do,
    Drop,
    Ended,
    Leaving,
    Message,
    NoMessage,
    Open,
    Ready,
    Slot,
    Told,
    Workplace,
    beat,
    error_of,
    from_line,
    to_line,
)

#: Not from the folder that somebody stands in: its files may have the names of ours.
COMMAND = (sys.executable, "-P", "-m", "automl_vision.executors.worker")
#: A worker that answers nothing for so long is replaced; an import on a busy machine keeps one from answering for less.
STALLED_SECONDS = 60.0
#: Workers that may die in a row in one slot before one is ready: then it is no accident, and the slot is given up.
FAILED_STARTS = 3
#: Seconds that a worker has to leave its job when the user stopped the run.
LEAVE_SECONDS = 10.0
#: Seconds that workers have to end by themselves before they are killed.
CLOSE_SECONDS = 5.0
#: Seconds after its death, or after it was killed, in which the end of a worker's output must come. What it started may
#: hold that open, and a process that waits for a disk or a driver of the system does not die when it is killed.
END_SECONDS = 5.0

_News = tuple["_Worker", Message | None]


class WorkersExecutor(Generic[Job, Progress]):
    """As many workers as there are slots. Create it, `poll` it and close it in one thread: workers die with that.

    Args:
        workplace: how work is opened, and where.
        stalled_seconds: without an answer, after which a worker is replaced.

    Raises:
        RunError: no process can be started.
    """

    def __init__(self, workplace: Workplace[Job, Progress], *, stalled_seconds: float = STALLED_SECONDS) -> None:
        self._workplace = workplace
        self._stalled_seconds = stalled_seconds
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._failed_starts: Counter[int] = Counter()
        self._waiting: deque[Do] = deque()
        self._stopped_at: float | None = None
        self._closed = threading.Event()
        self._fault: Exception | None = None
        self._fault_of = -1  # the number of its job
        self._workers: dict[int, _Worker] = {}  # by place; one that was given up has none
        workplace.logs.mkdir(parents=True, exist_ok=True)
        try:
            for place in range(len(workplace.slots)):
                self._workers[place] = self._start(place)
        except BaseException:
            self.close()
            raise
        self._beats = threading.Thread(target=self._beat, name="beats", daemon=True)
        self._beats.start()

    @property
    def free_slots(self) -> int:
        """Workers without a job; one that has not yet left a job that was cancelled takes the next one after it."""
        return 0 if self._closed.is_set() else max(len(self._free) - len(self._waiting), 0)

    @property
    def processes(self) -> tuple[int, ...]:
        """The ids of the workers' processes."""
        return tuple(worker.process.pid for worker in self._workers.values())

    def submit(self, number: int, attempt: int, job: Job) -> None:
        """Take a job; a worker that is not ready yet begins it then."""
        if self.free_slots < 1:
            raise RuntimeError(f"all slots are taken, got {number=} while {len(self._workers)} jobs are in work")
        self._waiting.append(Do(number, attempt, self._workplace.encode(job)))
        self._hand_out()

    def poll(self) -> list[Report[Progress]]:
        """What happened since the last call; waits for at least one report while a job is in work.

        Raises:
            RunError: in every slot, workers die before they are ready, again and again.
            WorkFailed, AutomlVisionError, OSError: what opening the work or a job raised.
        """
        reports = self._take(self._waiting_news())
        while not reports and self._fault is None and self._busy:
            reports = self._take(self._next_news()) + self._left_over()
            self._look_after_workers()
        if self._fault is not None and not reports:
            raise self._fault
        return reports

    def cancel(self, number: int) -> None:
        """Have a job left at once; no further report of it comes."""
        self._waiting = deque(job for job in self._waiting if job.number != number)
        if self._fault_of == number:
            self._fault, self._fault_of = None, -1
        for worker in self._workers.values():
            if worker.job is not None and worker.job.number == number:
                worker.take_back()

    def close(self) -> None:
        """End all workers: those that do not by themselves within seconds are killed."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._waiting.clear()
        deadline = time.monotonic() + CLOSE_SECONDS
        workers = tuple(self._workers.values())
        for worker in workers:
            worker.hang_up()
        for worker in workers:
            worker.stop(deadline)
        for worker in workers:
            worker.let_go()
            worker.job = None

    @property
    def _free(self) -> list[_Worker]:
        """Those that are ready come first."""
        free = (worker for worker in self._workers.values() if worker.job is None)
        return sorted(free, key=lambda worker: not worker.ready)

    @property
    def _busy(self) -> bool:
        return bool(self._waiting) or any(worker.job is not None for worker in self._workers.values())

    # --- what workers say ---------------------------------------------------------------------------------------

    def _waiting_news(self) -> list[_News]:
        """All that was said and not looked at yet."""
        news = []
        with contextlib.suppress(queue.Empty):
            while True:
                news.append(self._news.get_nowait())
        return news

    def _next_news(self) -> list[_News]:
        """What is said next, if it is soon."""
        try:
            return [self._news.get(timeout=BEAT_SECONDS), *self._waiting_news()]
        except queue.Empty:
            return []

    def _take(self, news: list[_News]) -> list[Report[Progress]]:
        reports = []
        for worker, message in news:
            if worker is self._workers.get(worker.place) and not self._closed.is_set():  # else it was replaced before
                reports += self._heard(worker, message)
        self._hand_out()
        return reports

    def _heard(self, worker: _Worker, message: Message | None) -> list[Report[Progress]]:
        match message:
            case None:
                return self._gone(worker)
            case Ready():
                worker.ready, self._failed_starts[worker.place] = True, 0
            case Leaving():
                worker.leaving = True
            case Broken():
                self._break(worker, message)
            case Told() if worker.has(message.number, message.attempt):
                progress = self._workplace.decode(message.progress)
                return [Report(message.number, message.attempt, progress, ended=False)]
            case Ended() if worker.has(message.number, message.attempt):
                worker.job = None
                return [Report(message.number, message.attempt, None, ended=True)]
        return []

    def _break(self, worker: _Worker, message: Broken) -> None:
        """An error is raised after what was told before it; one of a job that nobody wants any more is not."""
        if worker.ready and not worker.has(message.number, message.attempt):
            worker.broken = True  # it ends, and begins no other
        elif self._fault is None:
            self._fault, self._fault_of = self._error(worker, message), message.number
            worker.broken = worker.ready

    def _error(self, worker: _Worker, message: Broken) -> Exception:
        error = error_of(message.error)
        if worker.ready or isinstance(error, AutomlVisionError | OSError):
            return error
        return _cannot_start(str(error), worker.log)

    def _gone(self, worker: _Worker) -> list[Report[Progress]]:
        """A worker ended: another one takes its place. Its job is lost where it had begun, else it goes to another."""
        worker.end(time.monotonic() + CLOSE_SECONDS)
        why, job = worker.why_gone(self._stalled_seconds), worker.job
        del self._workers[worker.place]
        self._failed_starts[worker.place] += not worker.ready and not worker.leaving
        if self._failed_starts[worker.place] < FAILED_STARTS:
            self._workers[worker.place] = self._start(worker.place)
        elif self._workers:
            _append(
                worker.log, f"--- no further worker begins here: {FAILED_STARTS} in a row ended before they were ready"
            )
        else:
            raise _cannot_start(why, worker.log)
        if job is None:
            return []
        if not worker.begins:
            self._waiting.appendleft(job)
            return []
        return [Report(job.number, job.attempt, None, ended=True, lost=why, preempted=worker.leaving)]

    def _left_over(self) -> list[Report[Progress]]:
        """Jobs that no worker began before all was over; and those that are not left although the user stopped."""
        stopped = self._workplace.stopped()
        if stopped and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        if stopped or self._workplace.seconds_left() <= 0:
            return [_not_begun(job) for job in self._taken_back()]
        return []

    def _taken_back(self) -> list[Do]:
        """Jobs that nobody has begun, which nobody has any longer."""
        waiting, self._waiting = self._waiting, deque()
        idle = [worker for worker in self._workers.values() if worker.job is not None and not worker.begins]
        return [*(worker.take_back() for worker in idle), *waiting]

    def _look_after_workers(self) -> None:
        """Kill what does not answer, or does not stop; its end is heard like that of any other."""
        late = self._stopped_at is not None and time.monotonic() - self._stopped_at > LEAVE_SECONDS
        for worker in self._workers.values():
            if worker.unanswered * BEAT_SECONDS > self._stalled_seconds:
                worker.stalled = True
                worker.kill()
            elif late and worker.job is not None:
                worker.leaving = True
                worker.kill()
            worker.look_for_end()

    # --- what is said to workers --------------------------------------------------------------------------------

    def _start(self, place: int) -> _Worker:
        log = self._workplace.logs / f"{place + 1}.log"
        worker = _Worker(place, self._workplace.slots[place], log, self._news)
        worker.send(beat(self._workplace))
        worker.send(Open(self._workplace.opening, self._workplace.folder))
        return worker

    def _hand_out(self) -> None:
        """Give jobs that wait to workers that have none, each after the clock that it goes by."""
        for worker in self._free[: len(self._waiting)]:
            worker.send(beat(self._workplace))
            worker.give(self._waiting.popleft())

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            try:
                message = beat(self._workplace)
            except Exception as error:  # noqa: BLE001 - the thread that polls raises it
                self._fault = error
                return
            for worker in tuple(self._workers.values()):
                worker.unanswered += 1
                worker.send(message)


class _Worker:
    """A process that works, as its driver sees it.

    Args:
        place: of its slot.
        slot: where it works.
        log: what it prints is appended here.
        news: what it says goes there, with itself; None at its end.

    Raises:
        RunError: the process cannot be started.
    """

    def __init__(self, place: int, slot: Slot, log: Path, news: queue.SimpleQueue[_News]) -> None:
        self.place = place
        self.log = log
        self.job: Do | None = None
        self.ready = self.leaving = self.stalled = self.broken = False
        self.unanswered = 0  # beats; those that were not sent, as while the driver itself was stopped, do not count
        self._news = news
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._killed_at: float | None = None
        with log.open("ab") as printed:
            printed.write(f"--- worker {place + 1} begins, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
            printed.flush()
            try:
                self.process = subprocess.Popen(  # noqa: S603 - this very Python, with our own module
                    COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=printed,
                    env=_environment(slot),
                    start_new_session=True,  # Ctrl-C in the terminal is for the driver alone
                )
            except OSError as error:
                raise _cannot_start(error.strerror or str(error), log) from None
        self._reader = threading.Thread(target=self._read, name=f"worker {place + 1}", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"to worker {place + 1}", daemon=True)
        self._reader.start()
        self._writer.start()

    @property
    def begins(self) -> bool:
        """Whether it begins a job as soon as it has one."""
        return self.ready and not self.broken

    def has(self, number: int, attempt: int) -> bool:
        """Whether it does this job, as far as the driver wants to know."""
        return self.job is not None and (self.job.number, self.job.attempt) == (number, attempt)

    def give(self, job: Do) -> None:
        """Let it do a job."""
        self.send(job)
        self.job = job

    def take_back(self) -> Do:
        """The job that it has, which it has no longer."""
        job, self.job = cast(Do, self.job), None
        self.send(Drop(job.number, job.attempt))
        return job

    def send(self, message: Message) -> None:
        """Tell it something, as soon as it reads; where it is gone, the end of its output says so.

        Raises:
            ValueError, TypeError: what the message holds are no values of JSON.
        """
        self._outgoing.put(to_line(message))

    def kill(self) -> None:
        """End it at once, also where it is stopped, and with it what it started."""
        if self._killed_at is None:
            self._killed_at = time.monotonic()
            _kill(self.process)

    def hang_up(self) -> None:
        """Close the connection, at which it ends by itself."""
        self._outgoing.put(None)

    def look_for_end(self) -> None:
        """Where it is over, or was killed, and its output does not end, its end is news all the same."""
        if self.process.poll() is not None:
            self.kill()  # what it started may hold its output open
        if self._killed_at is not None and time.monotonic() - self._killed_at > END_SECONDS:
            self._news.put((self, None))

    def end(self, deadline: float) -> None:
        """Wait until it is gone; past the deadline, in monotonic seconds, it is killed, and seconds later let go."""
        self.hang_up()
        self.stop(deadline)
        self.let_go()

    def stop(self, deadline: float) -> None:
        """Wait until its process is over; past the deadline it is killed."""
        if self._killed_at is None:
            self._wait(deadline)
        self.kill()

    def let_go(self) -> None:
        """After `stop`: wait for its end, but not for ever. What cannot be ended is left to the system."""
        deadline = cast(float, self._killed_at) + END_SECONDS
        self._wait(deadline)
        for thread in (self._reader, self._writer):
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _wait(self, deadline: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(deadline - time.monotonic(), 0.0))

    def why_gone(self, stalled_seconds: float) -> str:
        """What became of it, in words."""
        if self.stalled:
            return f"worker {self.place + 1} did not answer for {stalled_seconds:.0f} s"
        code = self.process.returncode
        if code is None:
            return f"worker {self.place + 1} closed its output or did not stop, and does not end when it is killed"
        if code >= 0:
            last = _last_line(self.log)
            return f"worker {self.place + 1} ended with exit code {code}" + (f": {last}" if last else "")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", as the system does where memory runs out" if -code == getattr(signal, "SIGKILL", 0) else ""
        return f"worker {self.place + 1} was killed by {name}{hint}"

    def _read(self) -> None:
        with cast(Any, self.process.stdout) as pipe:
            for line in pipe:
                self.unanswered = 0
                self._hear(line)
        self._news.put((self, None))

    def _hear(self, line: bytes) -> None:
        try:
            message = from_line(line)
        except NoMessage as error:  # a library wrote to a copy of its output: it is said, and nothing is lost
            _append(self.log, f"no message: {error}")
            return
        if not isinstance(message, Alive):
            self._news.put((self, message))

    def _write(self) -> None:
        """A worker that is stopped reads nothing, and a pipe holds little: none but this thread waits for it."""
        pipe = cast(Any, self.process.stdin)
        with contextlib.suppress(OSError):  # it is gone
            for line in iter(self._outgoing.get, None):
                pipe.write(line)
                pipe.flush()
        with contextlib.suppress(OSError):
            pipe.close()


def _not_begun(job: Do) -> Report[Any]:
    why = "all was over before it began"
    return Report(job.number, job.attempt, None, ended=True, lost=why, preempted=True, begun=False)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its session, where the system has such a thing: processes that it forked hold its pipes and its GPU."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _environment(slot: Slot) -> dict[str, str]:
    """Modules are found where this process finds them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **slot.environment}


def _cannot_start(why: str, log: Path) -> RunError:
    return RunError(
        "a worker process cannot start",
        value=why,
        fix=f"read {log}; where memory is too small for so many, give a smaller --max-parallel (1 needs no workers)",
    )


def _last_line(log: Path) -> str:
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            lines = deque((line.strip() for line in file if line.strip()), maxlen=1)
    except OSError:
        return ""
    return lines[0] if lines and not lines[0].startswith("--- ") else ""


def _append(log: Path, text: str) -> None:
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{text}\n")
