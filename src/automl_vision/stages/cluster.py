"""Stage `cluster`: where trials run on other machines, this process joins them, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from automl_vision.data.hub_name import absolute, is_hub_name
from automl_vision.executors.ray_connection import RayConnection, Sight, connect, probe_of
from automl_vision.place import is_folder
from automl_vision.stages.context import RunContext


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
    if not settings.cluster:
        yield None
        return
    with context.stage("cluster", settings.cluster):
        connection = connect(settings.cluster, insecure=settings.insecure_cluster)
    try:
        trials = context.run.trials
        # Workers meet the run where its trials are: in its folder, or at an address beside which it need not be shared.
        sight, probe = probe_of(context.run.path if is_folder(trials) else trials, _data_to_see(context.data))
        try:
            connection.check(sight, insecure=settings.insecure_cluster)
            context.note(_line(connection))
            yield Joined(connection, sight)
        finally:
            probe.unlink(missing_ok=True)
    finally:
        connection.close()


def _data_to_see(data: Path) -> str:
    """The path that every node has to see; none for a data set that each fetches by its name."""
    return "" if is_hub_name(data) else str(absolute(data))


def _line(connection: RayConnection) -> str:
    nodes = connection.nodes()
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"Cluster: {len(nodes)} node{'s' * (len(nodes) != 1)} with {cpus:g} CPUs and {gpus:g} GPUs in all."
