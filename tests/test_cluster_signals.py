"""The recipes for clusters are run, with stand-ins for SLURM and for the search: who is told, and who queues again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

RECIPES = Path(__file__).parent.parent / "configs" / "cluster"
TAKEN_AWAY = 75

# Begins a run, tells its process id, and leaves with 75 on SIGTERM as a search does; what it ends with may be given.
SEARCH = """#!/usr/bin/env bash
echo "$*" >>"$NOTES/searches"
[[ $2 == --data ]] && mkdir -p "$5" && touch "$5/run.json"
trap 'exit 75' TERM
echo $$ >"$NOTES/pid"
if [[ -n ${ENDS_WITH:-} ]]; then exit "$ENDS_WITH"; fi
while true; do sleep 0.05; done
"""
# The real srun dies of SIGTERM and takes its task with it; options end at the program.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
"$@" &
task=$!
trap 'kill -KILL $task; exit 137' TERM
wait $task
"""
SCANCEL = """#!/usr/bin/env bash
echo "$*" >>"$NOTES/scancel"
kill -TERM "$(<"$NOTES/pid")"
"""
SQUEUE = '#!/usr/bin/env bash\necho "${JOB_STATE:-RUNNING}"\n'
SCONTROL = '#!/usr/bin/env bash\necho "$*" >>"$NOTES/scontrol"\n'
PROGRAMS = {"automl-vision": SEARCH, "srun": SRUN, "scancel": SCANCEL, "squeue": SQUEUE, "scontrol": SCONTROL}


@dataclass
class Place:
    """Where stand-ins lie and write what was asked of them."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def environment(self, **more: str) -> Mapping[str, str]:
        job = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1", "DATA": "imgs", "RUN": str(self.run)}
        path = {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "NOTES": str(self.folder / "notes")}
        return {**os.environ, **path, **job, **more}

    def notes(self, name: str) -> list[str]:
        file = self.folder / "notes" / name
        return file.read_text().splitlines() if file.exists() else []

    def wait_for_search(self) -> None:
        until = time.monotonic() + 20
        while not self.notes("pid"):
            assert time.monotonic() < until, "the search does not start"
            time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "notes").mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return Place(tmp_path)


def start(place: Place, script: str, **more: str) -> subprocess.Popen[bytes]:
    (place.folder / "notes" / "pid").unlink(missing_ok=True)
    return subprocess.Popen(["bash", str(RECIPES / script)], env=place.environment(**more), cwd=place.folder)


def test_a_job_at_its_time_limit_tells_the_search_queues_again_and_goes_on(place: Place) -> None:
    for _ in range(2):
        job = start(place, "slurm.sbatch", OPTIONS="--budget 12h --trials 4")
        place.wait_for_search()
        job.send_signal(signal.SIGTERM)  # `--signal=B:TERM@60`: to the batch shell alone
        assert job.wait(20) == TAKEN_AWAY
    assert place.notes("searches") == [
        f"search --data imgs --out {place.run} --budget 12h --trials 4",
        f"search --resume {place.run}",
    ]
    assert place.notes("scancel") == ["--signal=TERM 7"] * 2
    assert place.notes("scontrol") == ["requeue 7"] * 2


def test_a_step_that_was_told_directly_queues_again_too(place: Place) -> None:
    job = start(place, "slurm.sbatch")
    place.wait_for_search()
    os.kill(int(place.notes("pid")[0]), signal.SIGTERM)  # preemption: to the steps alone
    assert job.wait(20) == TAKEN_AWAY
    assert place.notes("scancel") == []
    assert place.notes("scontrol") == ["requeue 7"]


@pytest.mark.parametrize(
    ("more", "code"),
    [({"ENDS_WITH": "0"}, 0), ({"ENDS_WITH": "2"}, 2), ({"ENDS_WITH": "75", "JOB_STATE": "COMPLETING"}, 75)],
    ids=["done", "failed", "cancelled"],
)
def test_nothing_else_queues_again(place: Place, more: dict[str, str], code: int) -> None:
    assert start(place, "slurm.sbatch", **more).wait(20) == code
    assert place.notes("scontrol") == []


def test_a_job_does_not_queue_for_ever(place: Place) -> None:
    job = start(place, "slurm.sbatch", ENDS_WITH="75", SLURM_RESTART_COUNT="100")
    assert job.wait(20) == TAKEN_AWAY
    assert place.notes("scontrol") == []


@pytest.mark.parametrize("missing", ["DATA", "RUN"])
def test_a_missing_variable_is_named(place: Place, missing: str) -> None:
    environment = {name: value for name, value in place.environment().items() if name != missing}
    script = ["bash", str(RECIPES / "slurm.sbatch")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{missing}: folder" in done.stderr
    assert place.notes("searches") == []


def test_the_hook_of_a_pod_reaches_the_search_and_the_next_pod_goes_on(place: Place) -> None:
    (job,) = yaml.safe_load_all((RECIPES / "rayjob.yaml").read_text())
    container = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    scratch, shared = place.folder / "scratch", place.folder / "shared"
    for folder in (scratch, shared / "runs"):
        folder.mkdir(parents=True)

    def here(text: str) -> str:
        moved = text.replace("/scratch", str(scratch)).replace("/shared", str(shared))
        return moved.replace("sleep 15", "true")

    for _ in range(2):
        (place.folder / "notes" / "pid").unlink(missing_ok=True)
        search = subprocess.Popen(here(job["spec"]["entrypoint"]), shell=True, env=place.environment())
        place.wait_for_search()
        subprocess.run([here(word) for word in container["lifecycle"]["preStop"]["exec"]["command"]], check=True)
        assert search.wait(20) == TAKEN_AWAY
    first, second = place.notes("searches")
    assert first == f"search --data {shared}/imgs --out {shared}/runs/imgs --cluster auto --budget 12h"
    assert second == f"search --resume {shared}/runs/imgs --trust-run"


@pytest.mark.skipif(sys.platform != "linux", reason="the script asks /proc and bash 4 of the machines")
def test_machines_with_other_versions_are_named_before_anything_is_started(place: Place) -> None:
    """`REMOTE` stands in for ssh: the second machine has another Python."""
    (place.folder / "remote").write_text(
        '#!/usr/bin/env bash\necho "$1" >>"$NOTES/asked"\n'
        'if [[ $1 == b ]]; then echo "Python 3.12, ray 2.60.0 and automl-vision 0.1.0"; '
        'else echo "Python 3.11, ray 2.60.0 and automl-vision 0.1.0"; fi\n'
    )
    (place.folder / "remote").chmod(0o755)
    script = ["bash", str(RECIPES / "ray_over_ssh.sh"), "up", "a", "b"]
    environment = place.environment(REMOTE=str(place.folder / "remote"))
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a has Python 3.11" in done.stderr
    assert "b has Python 3.12" in done.stderr
    assert place.notes("asked") == ["a", "a", "b"]


def test_how_to_use_the_script_for_ssh_is_told() -> None:
    for words in ([], ["up"], ["restart", "a"]):
        done = subprocess.run(
            ["bash", str(RECIPES / "ray_over_ssh.sh"), *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "usage: ray_over_ssh.sh" in done.stderr
