"""The recipes for clusters: scripts that parse, options that exist, and objects that are no more open than they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from automl_vision import __version__
from automl_vision.cli.search import search

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "configs" / "cluster"
SCRIPTS = sorted([*RECIPES.glob("*.sbatch"), *RECIPES.glob("*.sh"), *(ROOT / "benchmarks" / "cluster").glob("*.sh")])
BATCH = sorted(RECIPES.glob("*.sbatch"))
OBJECTS = [
    (file.name, each) for file in sorted(RECIPES.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())
]


#: What makes a search one of many machines or processes; as long as one of them is missing, recipes may be ahead of it.
OF_MANY = {"--cluster", "--ddp", "--max-parallel", "--gpus-per-trial"}


def named(kind: str) -> dict[str, Any]:
    (found,) = [each for _, each in OBJECTS if each["kind"] == kind]
    return found


def search_options() -> set[str]:
    app = typer.Typer()
    app.command()(search)
    parameters = typer.main.get_command(app).params
    return {name for each in parameters for name in (*each.opts, *each.secondary_opts)}


def options_of_search(text: str) -> set[str]:
    """Options in a recipe that are handed to `search`: in its command line, its list of words, and its defaults."""
    whole_lines = re.sub(r"\\\n#?\s*", " ", text)
    places = re.findall(r"automl-vision search ([^;&\n`']*)", whole_lines)
    places += re.findall(r"words=\((.*?)\)", whole_lines) + re.findall(r"OPTIONS[:=]-?\"?(--[^}\"]*)", whole_lines)
    return {option for place in places for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", place)}


def pod_templates() -> list[dict[str, Any]]:
    cluster = named("RayJob")["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def test_the_recipes_are_here() -> None:
    assert {file.name for file in SCRIPTS} >= {
        "slurm.sbatch",
        "slurm_ray.sbatch",
        "slurm_ddp.sbatch",
        "ray_over_ssh.sh",
        "slurm_here.sh",
    }
    assert [each["kind"] for _, each in OBJECTS].count("RayJob") == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_a_script_parses_and_stops_at_the_first_error(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nset -euo pipefail\n" in script.read_text()
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


def test_every_option_of_a_recipe_exists() -> None:
    there = search_options()
    known = there if there >= OF_MANY else there | OF_MANY
    files = [*SCRIPTS, *RECIPES.glob("*.yaml"), ROOT / "docs" / "scale.md"]
    used = {file.name: options_of_search(file.read_text()) for file in files}
    assert used["slurm.sbatch"] == {"--data", "--out", "--budget", "--resume"}
    assert {"--data", "--out", "--cluster", "--budget", "--resume"} <= used["slurm_ray.sbatch"]
    assert {name: options - known for name, options in used.items() if options - known} == {}


@pytest.mark.parametrize("script", BATCH, ids=lambda file: file.name)
def test_a_batch_job_is_told_before_it_ends_and_queues_again(script: Path) -> None:
    directives = set(re.findall(r"^#SBATCH (--\S+)$", script.read_text(), re.M))
    assert {"--requeue", "--signal=B:TERM@60", "--open-mode=append"} <= directives
    assert "--resume" in script.read_text()


def test_a_search_that_is_taken_away_ends_with_the_code_that_the_scripts_wait_for() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    assert "75" in page
    for script in ("slurm.sbatch", "slurm_ray.sbatch"):
        assert "TAKEN_AWAY=75" in (RECIPES / script).read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_no_token_is_on_a_command_line(script: Path) -> None:
    text = script.read_text()
    assert not re.search(r"RAY_AUTH_TOKEN=", text)
    assert "--redis-password" not in text
    if "auth_token" in text or "RAY_AUTH_TOKEN_PATH" in text:
        assert "umask 077" in text
        assert "RAY_AUTH_MODE=token" in text


def test_the_token_on_kubernetes_comes_by_reference() -> None:
    assert named("RayJob")["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"
    texts = [file.read_text() for file in RECIPES.glob("*.yaml")]
    assert not any(re.search(r"RAY_AUTH_TOKEN\b|^kind: Secret", text, re.M) for text in texts)


def test_the_job_waits_for_its_queue_and_leaves_nothing() -> None:
    job, queue = named("RayJob"), named("LocalQueue")
    assert job["apiVersion"] == "ray.io/v1"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert job["metadata"]["namespace"] == queue["metadata"]["namespace"] == named("Namespace")["metadata"]["name"]
    assert queue["spec"]["clusterQueue"] == named("ClusterQueue")["metadata"]["name"]
    assert job["spec"]["suspend"] is True
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_pods_may_do_no_more_than_they_need() -> None:
    assert named("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for template in pod_templates():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_pods_have_a_minute_to_write_a_checkpoint_and_one_shared_volume() -> None:
    claim = named("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for template in pod_templates():
        assert template["spec"]["terminationGracePeriodSeconds"] >= 60
        claims = [
            each["persistentVolumeClaim"]["claimName"]
            for each in template["spec"]["volumes"]
            if "persistentVolumeClaim" in each
        ]
        assert claims == [claim["metadata"]["name"]]


def test_only_pods_of_the_cluster_and_the_operator_reach_it() -> None:
    policy = named("NetworkPolicy")["spec"]
    ours = {"matchLabels": {"app.kubernetes.io/name": "automl-vision"}}
    assert policy["podSelector"] == ours
    assert all(each["metadata"]["labels"] == ours["matchLabels"] for each in pod_templates())
    assert policy["ingress"][0] == {"from": [{"podSelector": ours}]}
    assert [port["port"] for port in policy["ingress"][1]["ports"]] == [8265]


def test_the_image_the_cluster_and_the_project_name_the_same_versions() -> None:
    ray = named("RayJob")["spec"]["rayClusterSpec"]["rayVersion"]
    images = {container["image"] for each in pod_templates() for container in each["spec"]["containers"]}
    (image,) = images
    assert image.endswith(f"/automl-vision:{__version__}-ray{ray}")
    recipe = (RECIPES / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{ray}-py311" in recipe
    assert f"ray=={ray}" in recipe
    assert image in recipe


def test_the_quota_has_room_for_the_job() -> None:
    job = named("RayJob")["spec"]["rayClusterSpec"]
    gpus = sum(
        group["replicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for group in job["workerGroupSpecs"]
    )
    (quotas,) = [
        flavor["resources"] for group in named("ClusterQueue")["spec"]["resourceGroups"] for flavor in group["flavors"]
    ]
    assert gpus <= int(next(each["nominalQuota"] for each in quotas if each["name"] == "nvidia.com/gpu"))
