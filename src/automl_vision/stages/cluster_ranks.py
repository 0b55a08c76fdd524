"""A whole search by ranks on the machines of a cluster: this process starts them, and waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from automl_vision.config import MachineSettings
from automl_vision.executors.ray_connection import connect, probe_of
from automl_vision.executors.ray_ranks import Asked, Launch, ranks_wanted, run_ranks_on, share_of_rank
from automl_vision.run_dir import cannot_write
from automl_vision.stages.cluster import data_to_see
from automl_vision.stages.slots import THREADS


def search_on_cluster(
    machine: MachineSettings,
    arguments: Sequence[str],
    *,
    data: Path | None,
    run: Path,
    asked: Asked,
    write: Callable[[int, str], None],
    warn: Callable[[str], None],
) -> int | None:
    """Have ranks do what `arguments` say, on machines that Ray finds; all of them are checked first.

    Args:
        machine: the settings; `cluster` is an address.
        arguments: the command line of each rank; it names the folder of the run.
        data: the images; None where the run knows.
        run: its folder, which all machines have to see.
        asked: what the user asks for meanwhile.
        write: called with stream (1, 2) and text of what the first rank prints.
        warn: called with why all ranks are started again.

    Returns:
        the exit code of the first rank; None where it told none, because ranks died too often or all were ended.

    Raises:
        RunError: the cluster cannot be used, or has no room for all ranks.
        UsageError: ray is not installed.
    """
    connection = connect(machine.cluster, insecure=machine.insecure_cluster)
    try:
        count = ranks_wanted(connection, machine.ddp)
        gpus = 0.0 if machine.device == "cpu" else None
        share = share_of_rank(connection, count, gpus=gpus, threads=machine.threads)
        try:
            run.parent.mkdir(parents=True, exist_ok=True)
            sight, probe = probe_of(run.parent, "" if data is None else data_to_see(data))
        except OSError as error:
            raise cannot_write(run, error) from None
        try:
            connection.check(sight, insecure=machine.insecure_cluster)
            launch = Launch(tuple(arguments), str(Path.cwd()), sight, dict.fromkeys(THREADS, str(int(share.cpus))))
            return run_ranks_on(connection, count, share, launch, asked, write=write, warn=warn)
        finally:
            probe.unlink(missing_ok=True)
    finally:
        connection.close()
