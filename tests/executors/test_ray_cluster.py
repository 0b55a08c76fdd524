"""Jobs on a real cluster of one node on this machine: done, lost, left, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from automl_vision.errors import DataError, RunError
from automl_vision.executors.executor import Report
from automl_vision.executors.workplace import Workplace

if find_spec("ray") is None:  # not imported here: it reads the environment when it is
    pytest.skip("ray is not installed", allow_module_level=True)
from automl_vision.executors.ray_cluster import RayExecutor, Share
from automl_vision.executors.ray_connection import RayConnection, Sight, connect, probe_of
from cluster.loopback_cluster import LoopbackCluster, loopback_cluster

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "doubles"), str(ROOT / "benchmarks")])
Values = dict[str, Any]
Make = Callable[..., RayExecutor[Values, Values]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LoopbackCluster]:
    """One node with two processors, that asks for a token."""
    with loopback_cluster(1, cpus=2, environment={"PYTHONPATH": PATHS}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def connection(cluster: LoopbackCluster) -> Iterator[RayConnection]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.driver_environment.items():
            patch.setenv(name, value)
        connection = connect(cluster.address)
        yield connection
        connection.close()


@pytest.fixture
def make(connection: RayConnection, tmp_path: Path) -> Iterator[Make]:
    """Make an executor; it is closed in the end."""
    made: list[RayExecutor[Values, Values]] = []

    def build(opening: str = "ray_work:open_work", **options: Any) -> RayExecutor[Values, Values]:
        slots = options.pop("max_parallel", 2)
        workplace = Workplace(opening=opening, folder=str(tmp_path), logs=tmp_path / "workers", **options)
        made.append(RayExecutor(workplace, connection, Share(1, 0), max_parallel=slots))
        return made[-1]

    yield build
    for each in made:
        each.close()


def drain(executor: RayExecutor[Values, Values], seconds: float = 60.0) -> list[Report[Values]]:
    reports: list[Report[Values]] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until and (news := executor.poll()):
        reports += news
    return reports


def words(reports: list[Report[Values]], number: int) -> list[str]:
    return [each.progress["word"] for each in reports if each.number == number and each.progress]


def lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def test_jobs_are_done_side_by_side_and_reported_in_order(make: Make, tmp_path: Path) -> None:
    executor = make()
    assert executor.poll() == []
    assert executor.free_slots == 2
    executor.submit(0, 1, {"word": "abc", "seconds": 0.2})
    executor.submit(1, 3, {"word": "de", "seconds": 0.2})
    with pytest.raises(RuntimeError, match="slot"):
        executor.submit(2, 1, {"word": "no"})
    reports = drain(executor)
    assert words(reports, 0) == ["a", "ab", "abc"]
    assert words(reports, 1) == ["d", "de"]
    assert {(each.number, each.attempt) for each in reports if each.ended} == {(0, 1), (1, 3)}
    assert not any(each.lost for each in reports)
    assert len({each.progress["pid"] for each in reports if each.progress}) == 2
    assert executor.free_slots == 2
    executor.submit(2, 1, {"word": ""})
    assert [(each.progress, each.ended) for each in drain(executor)] == [(None, True)]
    assert len(list((tmp_path / "workers").glob("*.log"))) == 2


def test_a_worker_that_dies_is_lost_within_seconds_and_its_job_can_go_on(make: Make) -> None:
    executor = make(max_parallel=1)
    executor.submit(0, 1, {"word": "ax"})
    reports = executor.poll()
    died = time.monotonic()  # or is about to: it tells of the first letter and takes the second
    reports += drain(executor)
    assert time.monotonic() - died < 15
    assert words(reports, 0) == ["a"]
    assert [(each.ended, bool(each.lost), each.preempted) for each in reports][-1] == (True, True, False)
    executor.submit(0, 2, {"word": "ab"})
    reports = drain(executor)
    assert {each.attempt for each in reports} == {2}
    assert words(reports, 0) == ["a", "ab"]


def test_jobs_that_wait_for_slots_that_were_lost_leave_none_free(make: Make) -> None:
    executor = make("ray_work:open_late")
    for number in range(2):
        executor.submit(number, 1, {"word": "a"})
    for slot in executor._slots.values():
        executor._ray.cancel(slot.ref, force=True)
    free, reports = set(), []
    while sum(each.ended for each in reports) < 2:
        reports += executor._news(0.1)
        free.add(executor.free_slots)
    assert min(free) == 0
    assert not any(each.lost for each in reports)


def test_a_worker_whose_machine_is_taken_back_says_so(make: Make) -> None:
    executor = make(max_parallel=1)
    executor.submit(0, 1, {"word": "at"})
    reports = drain(executor)
    assert reports[-1].lost
    assert reports[-1].preempted


def test_what_work_raises_is_raised_here_as_it_was(make: Make) -> None:
    executor = make(max_parallel=1)
    executor.submit(0, 1, {"word": "!"})
    with pytest.raises(DataError, match="the letter is wrong: !\nFix: leave it out"):
        drain(executor)


def test_work_that_cannot_be_opened_anywhere_says_why(make: Make) -> None:
    with pytest.raises(DataError, match="there is nothing to open"):
        executor = make("ray_work:open_never", max_parallel=1)
        executor.submit(0, 1, {"word": "a"})
        drain(executor)


def test_after_a_cancel_the_job_is_left_and_not_heard_of(make: Make, tmp_path: Path) -> None:
    executor = make(max_parallel=1)
    executor.submit(3, 1, {"word": "a~bc"})
    assert [each.progress["word"] for each in executor.poll() if each.progress] == ["a"]
    executor.cancel(3)
    assert drain(executor) == []
    assert executor.free_slots == 1
    executor.submit(3, 2, {"word": "de"})
    reports = drain(executor)
    assert {each.attempt for each in reports} == {2}
    assert words(reports, 3) == ["d", "de"]
    assert "leave a~bc" in (tmp_path / "log").read_text()
    executor.cancel(3)


def test_workers_hear_how_much_time_is_left_and_that_the_user_stopped(make: Make) -> None:
    stopped = False
    executor = make(max_parallel=1, seconds_left=lambda: 1234.0, stopped=lambda: stopped)
    executor.submit(0, 1, {"word": "abcd", "seconds": 0.5})
    lefts = [each.progress["left"] for each in drain(executor) if each.progress]
    assert 1200 < lefts[-1] <= 1234
    executor.submit(1, 1, {"word": "a~b"})
    assert executor.poll()
    stopped = True
    reports = drain(executor)
    assert [each.ended for each in reports][-1]
    assert "a~b" not in words(reports, 1)


def test_closing_ends_the_workers(make: Make) -> None:
    executor = make(max_parallel=1)
    executor.submit(0, 1, {"word": "a~"})
    (report,) = executor.poll()
    assert report.progress is not None
    pid = report.progress["pid"]
    assert lives(pid)
    executor.close()
    executor.close()
    assert executor.poll() == []
    wait_until(lambda: not lives(pid))


def test_every_node_sees_the_run_and_one_that_does_not_is_named(connection: RayConnection, tmp_path: Path) -> None:
    sight, file = probe_of(tmp_path, str(tmp_path))
    connection.check(sight, insecure=False)
    file.unlink()
    with pytest.raises(RunError, match=r"127\.0\.0\.2: it does not see the run"):
        connection.check(sight, insecure=False)
    with pytest.raises(RunError, match="it does not see the images at /nowhere"):
        connection.check(Sight(data="/nowhere"), insecure=False)


DRIVER = """
import sys
from pathlib import Path
from automl_vision.errors import AutomlVisionError
from automl_vision.executors.ray_cluster import RayExecutor, Share
from automl_vision.executors.ray_connection import Sight, connect
from automl_vision.executors.workplace import Workplace
address, folder = sys.argv[1:3]
try:
    connection = connect(address)
    connection.check(Sight(), insecure=False)
except AutomlVisionError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(error.exit_code)
work = Workplace(opening="ray_work:open_work", folder=folder, logs=Path(folder) / "workers")
executor = RayExecutor(work, connection, Share(1, 0), max_parallel=1)
executor.submit(0, 1, {"word": "a~b"})
print(executor.poll()[0].progress["pid"], flush=True)
executor.poll()
"""


def start_driver(cluster: LoopbackCluster, folder: Path, **environment: str) -> subprocess.Popen[str]:
    own = {**os.environ, **cluster.driver_environment, "PYTHONPATH": PATHS, "HOME": str(folder), **environment}
    own = {name: value for name, value in own.items() if value}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, cluster.address, str(folder)],
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_workers_of_a_driver_that_is_killed_end(cluster: LoopbackCluster, tmp_path: Path) -> None:
    driver = start_driver(cluster, tmp_path)
    assert driver.stdout is not None
    try:
        lines = iter(driver.stdout.readline, "")
        pid = next(int(line) for line in lines if line.strip().isdigit())
        assert lives(pid)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        driver.stdout.close()
    wait_until(lambda: not lives(pid))


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 32}, "does not accept our token"),
        ({"RAY_AUTH_TOKEN": ""}, "there is no token for the cluster"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": ""}, "there is no token for the cluster"),
        ({"RAY_AUTH_MODE": "disabled"}, "turned off here"),
    ],
)
def test_a_wrong_and_a_missing_token_are_refused(
    cluster: LoopbackCluster, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    begun = time.monotonic()
    driver = start_driver(cluster, tmp_path, **environment)
    output, _ = driver.communicate(timeout=90)
    assert driver.returncode == 2, output
    assert output.startswith("RunError"), output
    assert said in output
    assert "Traceback" not in output
    assert "0" * 32 not in output
    assert time.monotonic() - begun < 60


def test_a_cluster_without_tokens_is_refused_with_advice(tmp_path: Path) -> None:
    with loopback_cluster(1, token="", environment={"PYTHONPATH": PATHS}) as open_to_all:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32}
        driver = start_driver(open_to_all, tmp_path, **token)
        output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 2, output
    assert "has no token authentication" in output
    assert "--insecure-cluster" in output
