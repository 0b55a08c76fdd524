"""Workers that die, stall, fail and print: what the driver hears of it, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from odd_jobs import Values, told, wait_for

from automl_vision.errors import DataError, RunError
from automl_vision.executors import Report, Slot, Workplace, workers
from automl_vision.executors.workers import WorkersExecutor
from automl_vision.executors.workplace import WorkFailed

Make = Callable[..., WorkersExecutor[Values, Values]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes an executor of odd jobs; all are closed in the end, and leave no process."""
    made: list[WorkersExecutor[Values, Values]] = []
    pids: list[int] = []

    def one(slots: int = 1, stalled_seconds: float = 60.0, **changes: Any) -> WorkersExecutor[Values, Values]:
        workplace: Workplace[Values, Values] = Workplace(
            **{"opening": "odd_jobs:open_odd", "folder": str(tmp_path), **changes},
            slots=tuple(Slot({"ODD_SLOT": str(number)}) for number in range(slots)),
            logs=tmp_path / "workers",
        )
        made.append(WorkersExecutor(workplace, stalled_seconds=stalled_seconds))
        pids.extend(made[-1].processes)
        return made[-1]

    yield one
    for executor in made:
        pids.extend(executor.processes)
        executor.close()
    assert not [pid for pid in pids if is_running(pid)]


def is_running(pid: int) -> bool:
    """Whether there is a process of this number that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def next_report(executor: WorkersExecutor[Values, Values]) -> Report[Values]:
    """The next one; those that came with it wait."""
    waiting = vars(executor).setdefault("waiting_reports", [])
    waiting.extend([] if waiting else executor.poll())
    return waiting.pop(0)  # type: ignore[no-any-return]


def do(executor: WorkersExecutor[Values, Values], number: int = 0, attempt: int = 1, **job: Any) -> None:
    executor.submit(number, attempt, job)


def log(tmp_path: Path, number: int = 1) -> str:
    return (tmp_path / "workers" / f"{number}.log").read_text()


# --- a worker that is gone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_killed_worker_is_lost_at_once_and_replaced(make: Make, name: str) -> None:
    executor = make()
    before = executor.processes
    do(executor, 5, 3, do="die", signal=name)
    assert next_report(executor).progress is not None
    started = time.monotonic()
    report = next_report(executor)
    assert time.monotonic() - started < 5
    assert (report.number, report.attempt, report.progress, report.ended) == (5, 3, None, True)
    assert name in report.lost
    assert not report.preempted
    assert executor.processes != before
    assert executor.free_slots == 1
    do(executor, 5, 4, do="say", what="again")
    assert next_report(executor) == Report(5, 4, {"said": "again"}, ended=False)


def test_whoever_kills_a_worker_from_outside_is_noticed_too(make: Make) -> None:
    executor = make(slots=2)
    do(executor, 0, do="wait")
    do(executor, 1, do="wait", seconds=1.0)
    pids = {report.number: report.progress["pid"] for report in (next_report(executor), next_report(executor))}
    os.kill(pids[0], signal.SIGKILL)
    report = next_report(executor)
    assert (report.number, "SIGKILL" in report.lost) == (0, True)
    assert next_report(executor).number == 1  # the other one goes on


def test_an_exit_is_told_with_the_last_line_that_was_printed(make: Make) -> None:
    executor = make()
    do(executor, do="leave", code=7)
    next_report(executor)
    assert "exit code 7: this is the last line" in next_report(executor).lost


def test_an_idle_worker_that_dies_is_replaced_and_costs_no_job(make: Make) -> None:
    executor = make()
    do(executor, do="say", what="ready")
    while not next_report(executor).ended:
        pass
    (pid,) = executor.processes
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: executor.poll() == [] and executor.processes != (pid,))
    do(executor, 1, do="say", what="here")
    assert next_report(executor).progress == {"said": "here"}


def test_a_job_that_had_not_begun_goes_to_the_next_worker(make: Make) -> None:
    executor = make()
    do(executor, do="say", what="here")
    os.kill(executor.processes[0], signal.SIGKILL)  # long before it is ready
    assert next_report(executor).progress == {"said": "here"}


def test_a_worker_that_stalls_is_replaced(make: Make, tmp_path: Path) -> None:
    executor = make(stalled_seconds=2.0)
    do(executor, do="wait")
    pid = next_report(executor).progress["pid"]  # type: ignore[index]
    os.kill(pid, signal.SIGSTOP)
    report = next_report(executor)
    assert "did not answer for 2 s" in report.lost
    assert not is_running(pid)
    do(executor, 0, 2, do="say", what="here")
    assert next_report(executor).progress == {"said": "here"}
    assert told(tmp_path) == []


def test_what_a_dead_worker_started_ends_with_it(make: Make) -> None:
    """A process that it forked holds its output open, whose end tells that a worker is gone."""
    executor = make()
    do(executor, do="fork", escapes=False, dies=True)
    child = next_report(executor).progress["child"]  # type: ignore[index]
    started = time.monotonic()
    assert "SIGKILL" in next_report(executor).lost
    assert time.monotonic() - started < 3
    assert wait_for(lambda: not is_running(child), seconds=3)


def test_the_end_of_a_worker_is_noticed_though_its_output_stays_open(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "END_SECONDS", 0.3)
    executor = make()
    do(executor, do="fork", escapes=True, dies=True)
    child = next_report(executor).progress["child"]  # type: ignore[index]
    started = time.monotonic()
    try:
        assert "SIGKILL" in next_report(executor).lost
        assert time.monotonic() - started < 3
        do(executor, 0, 2, do="say", what="here")
        assert next_report(executor).progress == {"said": "here"}
    finally:
        os.kill(child, signal.SIGKILL)


def test_closing_does_not_wait_for_what_holds_the_output_of_a_worker(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "END_SECONDS", 0.3)
    executor = make()
    do(executor, do="fork", escapes=True, dies=False)
    child = next_report(executor).progress["child"]  # type: ignore[index]
    started = time.monotonic()
    try:
        executor.close()
        assert time.monotonic() - started < 3
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_worker_that_cannot_be_killed_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for a disk that is gone: it takes no signal, and its output does not end."""
    unkillable: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(workers, "END_SECONDS", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_kill", unkillable.append)
        executor = make(stalled_seconds=1.0)
        do(executor, do="wait")
        pid = next_report(executor).progress["pid"]  # type: ignore[index]
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        assert "did not answer for 1 s" in next_report(executor).lost
        assert time.monotonic() - started < 6
        assert is_running(pid)
        assert pid not in executor.processes
    do(executor, 0, 2, do="say", what="here")
    assert next_report(executor).progress == {"said": "here"}
    (process,) = unkillable
    process.kill()
    process.wait()


def test_a_job_of_any_size_can_be_given_to_a_worker_that_does_not_read(make: Make) -> None:
    executor = make(stalled_seconds=1.0)
    do(executor, 0, do="wait", seconds=0.0)
    pid = next_report(executor).progress["pid"]  # type: ignore[index]
    while not next_report(executor).ended:
        pass
    os.kill(pid, signal.SIGSTOP)
    rescue = threading.Timer(4.0, os.kill, (pid, signal.SIGCONT))  # or a driver that waits does so for ever
    rescue.start()
    started = time.monotonic()
    do(executor, 1, do="say", what="x" * 10**6)
    assert time.monotonic() - started < 1
    rescue.cancel()
    assert "did not answer for 1 s" in next_report(executor).lost


def test_a_worker_in_deep_work_answers_all_the_same(make: Make) -> None:
    executor = make(stalled_seconds=1.5)
    do(executor, do="deaf", seconds=4.0)
    reports = [next_report(executor) for _ in range(3)]
    assert [(report.lost, report.ended) for report in reports] == [("", False), ("", False), ("", True)]


def test_a_driver_that_was_stopped_does_not_blame_its_workers(make: Make) -> None:
    """Beats that were not sent need no answer."""
    executor = make(stalled_seconds=2.0)
    do(executor, do="wait", seconds=1.0)
    next_report(executor)
    pid = os.getpid()
    subprocess.Popen([sys.executable, "-c", f"import os,time;os.kill({pid},19);time.sleep(3);os.kill({pid},18)"]).wait()
    assert [next_report(executor).lost for _ in range(2)] == ["", ""]


def test_a_worker_that_is_taken_away_says_so(make: Make) -> None:
    executor = make()
    do(executor, 0, 1, do="wait")
    pid = next_report(executor).progress["pid"]  # type: ignore[index]
    os.kill(pid, signal.SIGTERM)
    report = next_report(executor)
    assert report.preempted
    assert report.ended
    assert "75" in report.lost
    do(executor, 0, 2, do="say", what="here")
    assert next_report(executor).progress == {"said": "here"}


def test_a_report_of_a_job_that_was_given_up_is_dropped(make: Make) -> None:
    executor = make()
    do(executor, 0, 1, do="deaf", seconds=0.5)
    next_report(executor)
    executor.cancel(0)
    do(executor, 0, 2, do="say", what="new")
    assert [next_report(executor) for _ in range(2)] == [
        Report(0, 2, {"said": "new"}, ended=False),
        Report(0, 2, None, ended=True),
    ]


def test_a_cancelled_job_writes_nothing_more(make: Make, tmp_path: Path) -> None:
    executor = make()
    do(executor, 0, do="wait")
    next_report(executor)
    executor.cancel(0)
    do(executor, 1, do="say", what="next")
    assert next_report(executor).progress == {"said": "next"}
    assert told(tmp_path) == []


def test_an_error_of_a_cancelled_job_is_nobodys(make: Make) -> None:
    executor = make()
    do(executor, 0, do="fail_late")
    next_report(executor)
    executor.cancel(0)
    do(executor, 1, do="say", what="next")
    assert next_report(executor).progress == {"said": "next"}


def test_nor_is_one_that_was_on_its_way_when_the_job_was_cancelled(make: Make) -> None:
    executor = make()
    do(executor, 0, do="fail", how="disk", after=0.3)
    next_report(executor)
    (pid,) = executor.processes
    assert wait_for(lambda: not is_running(pid), seconds=5)
    executor.cancel(0)
    do(executor, 1, do="say", what="next")
    assert next_report(executor) == Report(1, 1, {"said": "next"}, ended=False)


def test_nor_is_one_that_had_come_with_the_last_report(make: Make) -> None:
    executor = make(slots=2)
    do(executor, 0, do="fail", how="disk", after=0.3)
    do(executor, 1, do="wait", seconds=60.0)
    told_of = {next_report(executor).number for _ in range(2)}
    assert told_of == {0, 1}
    os.kill(executor.processes[1], signal.SIGTERM)
    # The error, and the end of either process, are there, and are heard together.
    assert wait_for(lambda: executor._news.qsize() >= 3, seconds=30)
    assert next_report(executor).number == 1
    executor.cancel(0)
    do(executor, 2, do="say", what="next")
    assert next_report(executor) == Report(2, 1, {"said": "next"}, ended=False)


# --- orders ---------------------------------------------------------------------------------------------------------


def test_workers_know_the_time_that_is_left_and_that_the_user_stopped(make: Make) -> None:
    ends, stopped = time.monotonic() + 100, []
    executor = make(seconds_left=lambda: ends - time.monotonic(), stopped=lambda: bool(stopped))
    do(executor, do="wait")
    next_report(executor)
    stopped.append(True)
    told_last = next_report(executor).progress
    assert told_last is not None
    assert told_last["stopped"]
    assert told_last["seconds_left"] == pytest.approx(ends - time.monotonic(), abs=1.5)


def test_a_job_goes_by_the_clock_of_when_it_was_given(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of one backbone is over when that of the next one begins: its first job must not end at once."""
    left = [-5.0]
    monkeypatch.setattr(workers, "BEAT_SECONDS", 60.0)  # no other beat than that which comes with the job
    executor = make(seconds_left=lambda: left[0])
    left[0] = 100.0
    do(executor, do="wait", seconds=0.0)
    heard = [next_report(executor).progress for _ in range(2)][1]
    assert heard is not None
    assert 90 < heard["seconds_left"] <= 100


def test_a_worker_that_does_not_stop_is_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LEAVE_SECONDS", 1.0)
    stopped: list[bool] = []
    executor = make(stopped=lambda: bool(stopped))
    do(executor, do="deaf", seconds=60)
    next_report(executor)
    stopped.append(True)
    report = next_report(executor)
    assert report.lost
    assert report.preempted


def test_a_job_that_nobody_began_before_the_end_is_given_back(make: Make) -> None:
    executor = make(seconds_left=lambda: 0.0, opening="odd_jobs:open_slowly")
    do(executor, 3, do="say", what="late")
    report = next_report(executor)
    assert (report.number, report.ended, report.preempted, report.begun) == (3, True, True, False)
    assert executor.free_slots == 1


def test_a_fault_of_the_clock_is_raised_and_not_swallowed(make: Make) -> None:
    faults: list[Exception] = []

    def left() -> float:
        if faults:
            raise faults[0]
        return 100.0

    executor = make(seconds_left=left)
    do(executor, do="wait")
    next_report(executor)
    faults.append(ZeroDivisionError("no clock"))
    with pytest.raises(ZeroDivisionError, match="no clock"):
        executor.poll()


def test_each_slot_has_its_own_environment(make: Make, tmp_path: Path) -> None:
    executor = make(slots=2)
    slots = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in executor.processes]
    assert [b"ODD_SLOT=0" in slots[0], b"ODD_SLOT=1" in slots[1]] == [True, True]


# --- errors and output ----------------------------------------------------------------------------------------------


def test_what_is_printed_goes_to_the_log_and_breaks_nothing(make: Make, tmp_path: Path, capfd: Any) -> None:
    executor = make()
    do(executor, do="shout")
    assert next_report(executor).progress == {"read": ""}
    assert next_report(executor).ended
    executor.close()
    for line in ("on standard output", "not even Python knows", "on standard error"):
        assert line in log(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_an_error_of_ours_comes_back_as_it_was(make: Make) -> None:
    executor = make()
    do(executor, do="fail", how="ours")
    next_report(executor)
    with pytest.raises(DataError, match="no images: here\nFix: bring some"):
        executor.poll()


def test_a_full_disk_comes_back_as_one(make: Make) -> None:
    executor = make()
    do(executor, do="fail", how="disk")
    next_report(executor)
    with pytest.raises(OSError, match="No space left") as caught:
        executor.poll()
    assert (caught.value.errno, caught.value.filename) == (28, "run/trials")


def test_any_other_error_is_named_with_its_place_and_logged(make: Make, tmp_path: Path) -> None:
    executor = make()
    do(executor, do="fail", how="fault")
    next_report(executor)
    with pytest.raises(WorkFailed, match=r"ZeroDivisionError: by nothing \(.*odd_jobs.py:\d+\)"):
        executor.poll()
    executor.close()
    assert "Traceback" in log(tmp_path)


def test_work_that_cannot_be_imported_is_said(make: Make) -> None:
    executor = make(opening="no_such_module:open")
    do(executor, do="say", what="")
    with pytest.raises(RunError, match=r"a worker process cannot start: ModuleNotFoundError: .*no_such_module"):
        executor.poll()


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [("memory", RunError, "MemoryError: no room.*\n.*--max-parallel"), ("ours", DataError, "no images: here")],
)
def test_work_that_cannot_be_opened_is_said(
    make: Make, tmp_path: Path, how: str, error: type[Exception], match: str
) -> None:
    (tmp_path / "how").write_text(how)
    executor = make(opening="odd_jobs:open_badly")
    do(executor)
    with pytest.raises(error, match=match):
        executor.poll()


def test_workers_that_die_again_and_again_before_they_are_ready_end_it(make: Make, tmp_path: Path) -> None:
    (tmp_path / "how").write_text("dies")
    executor = make(opening="odd_jobs:open_badly")
    do(executor)
    with pytest.raises(RunError, match=r"a worker process cannot start: worker 1 was killed by SIGKILL"):
        executor.poll()
    assert told(tmp_path) == ["opened"] * workers.FAILED_STARTS


def test_a_slot_where_no_worker_begins_is_given_up_and_the_others_work(make: Make, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("0")
    executor = make(slots=2, opening="odd_jobs:open_in_some")
    do(executor, 0, do="say", what="here")
    do(executor, 1, do="say", what="here")
    said = [next_report(executor) for _ in range(4)]
    assert sorted((each.number, each.lost, each.ended) for each in said) == [
        *((0, "", False), (0, "", True)),
        *((1, "", False), (1, "", True)),
    ]
    assert wait_for(lambda: executor.poll() == [] and len(executor.processes) == 1, seconds=10)
    assert sorted(told(tmp_path)) == ["opened 0"] * workers.FAILED_STARTS + ["opened 1"]
    assert executor.free_slots == len(executor.processes) == 1
    assert "no further worker begins here" in log(tmp_path)


def test_where_no_slot_is_left_it_is_said(make: Make, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("0 1")
    executor = make(slots=2, opening="odd_jobs:open_in_some")
    do(executor, do="say", what="")
    with pytest.raises(RunError, match=r"a worker process cannot start: worker \d was killed by SIGKILL"):
        executor.poll()
    assert sorted(told(tmp_path)) == ["opened 0"] * workers.FAILED_STARTS + ["opened 1"] * workers.FAILED_STARTS


def test_a_python_that_is_not_there_is_said(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "COMMAND", (str(tmp_path / "python"), "-m", "nothing"))
    with pytest.raises(RunError, match="a worker process cannot start: No such file"):
        make()


# --- ends -----------------------------------------------------------------------------------------------------------

DRIVER = """
import sys, time
from pathlib import Path
from automl_vision.executors import Slot, Workplace
from automl_vision.executors.workers import WorkersExecutor
folder = sys.argv[1]
workplace = Workplace(opening="odd_jobs:open_odd", folder=folder, slots=(Slot(), Slot()), logs=Path(folder, "workers"))
executor = WorkersExecutor(workplace)
for number, job in enumerate([{"do": "wait", "seconds": 1000}, {"do": "deaf", "seconds": 1000}]):
    executor.submit(number, 1, job)
heard = 0
while heard < 2:
    heard += len(executor.poll())
print(*executor.processes, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("signals", [("SIGKILL",), ("SIGTERM",), ("SIGSTOP", "SIGKILL")])
def test_workers_end_within_seconds_of_their_driver(tmp_path: Path, signals: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert driver.stdout is not None
    with driver.stdout:
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_running, pids))
        for name in signals:
            driver.send_signal(getattr(signal, name))
        driver.wait()
    assert wait_for(lambda: not any(map(is_running, pids)), seconds=10)
    assert "wrote" not in told(tmp_path)


def test_ctrl_c_in_the_terminal_is_for_the_driver_alone(make: Make) -> None:
    executor = make()
    (pid,) = executor.processes
    assert os.getpgid(pid) != os.getpgid(0)
    do(executor, do="wait", seconds=1.5)
    next_report(executor)
    os.kill(pid, signal.SIGINT)
    assert [next_report(executor).lost for _ in range(2)] == ["", ""]


def test_closing_while_jobs_are_in_work_leaves_no_process(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CLOSE_SECONDS", 0.5)
    executor = make(slots=2)
    do(executor, 0, do="deaf", seconds=100)
    next_report(executor)
    pids = executor.processes
    started = time.monotonic()
    executor.close()
    assert time.monotonic() - started < 5
    assert not any(map(is_running, pids))
    assert executor.poll() == []
