"""Ray nodes on this machine, each with its own ports, that can be killed one by one: a cluster to fail on purpose.

A node is `ray start --block` in a process group of its own. Its ports are chosen here: a node that lets its agents
choose them ends itself where they need more than 15 seconds to say which, which busy machines do. Everything that is
started is ended by its id.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds that a node may take to start; the programs of Ray are Python, and many.
START_SECONDS = 120.0
START_TRIES = 5
_STARTED = "Ray runtime started"
_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)
#: What a node is started with besides the token: nothing is reported to anybody, and no spare workers are started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@dataclass
class LoopbackNode:
    """One node.

    Attributes:
        process: `ray start --block`; all else of the node descends from it.
        log: what it said.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether its first process runs."""
        return self.process.poll() is None

    def kill(self) -> list[int]:
        """`kill -9` of everything of this node at once, its workers included; the ids that were killed."""
        doomed = [self.process.pid, *descendants(self.process.pid)]
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return doomed

    def end(self) -> None:
        """End the node in its own time, then by force."""
        doomed = descendants(self.process.pid)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


@dataclass
class LoopbackCluster:
    """Nodes on this machine.

    Attributes:
        folder: for Ray's own files, short: sockets are in it.
        token: that every node and driver has to know; empty for a cluster without one.
        cpus: that each node says it has.
        environment: more variables for the nodes.
    """

    folder: Path
    token: str
    cpus: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    nodes: list[LoopbackNode] = field(default_factory=list)
    host: str = ""
    port: int = 0
    _begun: int = 0

    @property
    def address(self) -> str:
        """What drivers are given."""
        return f"{self.host}:{self.port}"

    @property
    def driver_environment(self) -> dict[str, str]:
        """The variables with which a driver may use the cluster."""
        token = (
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if self.token else {"RAY_AUTH_MODE": "disabled"}
        )
        return {**_QUIET, **token}

    def add_node(self, *, cpus: int | None = None, environment: dict[str, str] | None = None) -> LoopbackNode:
        """Start one more node; the first is the head.

        Raises:
            RuntimeError: it did not start, not in several tries.
        """
        said = ""
        for _ in range(START_TRIES):
            node = self._started(self.cpus if cpus is None else cpus, environment or {})
            said = _wait_until_started(node)
            if not said:
                self.nodes.append(node)
                return node
            node.end()
        raise RuntimeError(f"a node did not start in {START_TRIES} tries; it said: {said}")

    def stop(self) -> None:
        """End all nodes, the head last."""
        while self.nodes:
            self.nodes.pop().end()

    def _started(self, cpus: int, environment: dict[str, str]) -> LoopbackNode:
        self._begun += 1
        host = f"127.0.0.{self._begun + 1}"  # Ray takes 127.0.0.1 for "whatever this machine is called outside"
        ports = iter(free_ports(len(_PORTS) + 3))
        options = [f"--{name}={next(ports)}" for name in _PORTS]
        options += ["--include-log-monitor=false", "--disable-usage-stats", f"--num-cpus={cpus}", "--num-gpus=0"]
        options += ["--object-store-memory=80000000", f"--node-ip-address={host}", "--log-color=false"]
        if self.nodes:
            options += [f"--address={self.address}"]
        else:
            self.host, self.port = host, next(ports)
            options += [f"--ray-client-server-port={next(ports)}", f"--dashboard-port={next(ports)}"]
            options += ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        log = self.folder / f"node-{secrets.token_hex(4)}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("ray")), "start", "--block", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.driver_environment, **self.environment, **environment},
                start_new_session=True,
            )
        return LoopbackNode(process, log)


@contextmanager
def loopback_cluster(
    nodes: int = 2, *, token: str | None = None, cpus: int = 1, environment: dict[str, str] | None = None
) -> Iterator[LoopbackCluster]:
    """A cluster for as long as the block lasts.

    Args:
        nodes: how many to begin with.
        token: None for a random one, "" for a cluster that lets everybody in.
        cpus: of each node.
        environment: more variables for the nodes.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: paths of sockets have 107 bytes
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        chosen = secrets.token_hex(16) if token is None else token
        cluster = LoopbackCluster(folder, chosen, cpus, dict(environment or {}))
        stack.callback(cluster.stop)
        for _ in range(nodes):
            cluster.add_node()
        yield cluster


def descendants(pid: int) -> list[int]:
    """Ids of all processes that descend from `pid`, as of now."""
    children: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(each.name))
    found, wanted = [], [pid]
    while wanted:
        below = children.get(wanted.pop(), [])
        found += below
        wanted += below
    return found


def free_ports(count: int) -> Sequence[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_started(node: LoopbackNode) -> str:
    """Wait; what the node said where it did not start, else nothing."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and node.alive:
        if _STARTED in node.log.read_text("utf-8", "replace"):
            return ""
        time.sleep(0.2)
    return " | ".join(node.log.read_text("utf-8", "replace").strip().splitlines()[-5:]) or "nothing"
