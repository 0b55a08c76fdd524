"""Stage `cluster`: where trials run on other machines, this process joins them, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.config import MachineSettings
from automl_vision.data.hub_name import absolute, is_hub_name
from automl_vision.data.shards.address import parse_address
from automl_vision.executors import Executor, Slot, Workplace
from automl_vision.executors.ray_connection import Node, RayConnection, Sight, connect, probe_of
from automl_vision.run_dir import cannot_write
from automl_vision.search.run_trial import Assignment
from automl_vision.search.trial import Trial
from automl_vision.stages.context import RunContext
from automl_vision.stages.slots import THREADS, Slots

if TYPE_CHECKING:
    from automl_vision.executors.ray_cluster import Share


@dataclass(frozen=True)
class Joined:
    """The cluster that this run is on.

    Attributes:
        connection: of this process.
        sight: what every node sees, and one that comes later has to see.
    """

    connection: RayConnection
    sight: Sight


@contextmanager
def joined(context: RunContext) -> Iterator[Joined | None]:
    """The cluster of the settings, every node of it checked; None where the run stays on this machine.

    Raises:
        RunError: the cluster cannot be used, with the reason and what to do.
        UsageError: ray is not installed.
    """
    settings = context.settings.machine
    if not settings.cluster or not context.ranks.alone:  # ranks are on the cluster already
        yield None
        return
    with context.stage("cluster", settings.cluster):
        connection = connect(settings.cluster, insecure=settings.insecure_cluster)
    try:
        # Workers meet the run where its trials are: in its folder, or elsewhere, and then that need not be shared.
        place = context.run.path if context.run.keeps_trials else context.run.trials
        try:
            sight, probe = probe_of(place, data_to_see(context.data))
        except OSError as error:
            raise cannot_write(context.run.path, error) from None
        try:
            connection.check(sight, insecure=settings.insecure_cluster)
            context.note(_line(connection))
            yield Joined(connection, sight)
        finally:
            probe.unlink(missing_ok=True)
    finally:
        connection.close()


def data_to_see(data: Path) -> str:
    """The path of images that every node has to see; empty for what each fetches by its name or URL."""
    if is_hub_name(data):
        return ""
    address = parse_address(data)
    return str(absolute(address.folder)) if address.is_local else ""


def _line(connection: RayConnection) -> str:
    nodes = connection.nodes()
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"Cluster: {len(nodes)} node{'s' * (len(nodes) != 1)} with {cpus:g} CPUs and {gpus:g} GPUs in all."


def cluster_slots(joined: Joined, machine: MachineSettings) -> Slots:
    """What a trial has of the machines of the cluster; how many there are at a time changes with them.

    Args:
        joined: the cluster.
        machine: the settings.
    """
    nodes, share = joined.connection.nodes(), _share(joined, machine)
    whole = [node for node in nodes if share.fits(node)]
    part = min(share.gpus, 1.0) if share.gpus else share.cpus / min((node.cpus for node in whole), default=share.cpus)
    room = sum(share.fits(node) for node in nodes)
    count = max(min(room, machine.max_parallel or room), 1)
    return Slots((Slot(),) * count, int(share.cpus), part, _in_words(share, count), elsewhere=True)


def cluster_executor(
    context: RunContext, joined: Joined, workplace: Workplace[Assignment, Trial]
) -> Executor[Assignment, Trial]:
    """What runs trials on the cluster.

    Raises:
        RunError: no machine can take one.
    """
    from automl_vision.executors.ray_cluster import RayExecutor

    machine, share = context.settings.machine, _share(joined, context.settings.machine)
    return RayExecutor(
        workplace,
        joined.connection,
        share,
        max_parallel=machine.max_parallel,
        sight=joined.sight,
        environment=dict.fromkeys(THREADS, str(int(share.cpus))),
        warn=lambda text: context.note(text, warning=True),
    )


def _share(joined: Joined, machine: MachineSettings) -> Share:
    from automl_vision.executors.ray_cluster import share_of

    nodes: list[Node] = joined.connection.nodes()
    gpus = 0.0 if machine.device == "cpu" else machine.gpus_per_trial
    return share_of(nodes, gpus=gpus, threads=machine.threads, max_parallel=machine.max_parallel)


def _in_words(share: Share, count: int) -> str:
    gpus = f" and {share.gpus:g} of a GPU" if share.gpus else ""
    cpus = f"{share.cpus:g} CPU{'s' * (share.cpus != 1)}"
    return f"there is room for {count}, each with {cpus}{gpus}"
