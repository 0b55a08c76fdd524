"""The way into a Ray cluster: whoever may not enter, or would not get far, is told so before anything is trained.

Checked are: the address answers; the cluster asks for a token, and ours is the right one; every node has the same
Python minor version, the same Ray and this version of us, and sees the folders that the run is about. Ray's own habits
are turned off: usage statistics, logs on our terminal, the handlers that it puts on signals.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_vision.errors import RunError, UsageError
from automl_vision.extras import require, version_of
from automl_vision.files import write_text
from automl_vision.place import Place, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRA = "ray"
PURPOSE = "a search on a cluster"
#: Seconds until an address has to answer, and until every node has.
REACH_SECONDS = 10.0
NODE_SECONDS = 90.0
#: Before Ray is imported: nothing is reported to anybody, no package manager is run on nodes, no endless retries.
_HABITS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    "RAY_NUM_REDIS_GET_RETRIES": "3",
}
_MODE = "RAY_AUTH_MODE"
_TOKEN, _TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_HOW_TO_SECURE = (
    "make a token with `ray get-auth-token --generate`, give it to every node as ~/.ray/auth_token and start them with "
    "RAY_AUTH_MODE=token; on a machine that nobody else reaches, --insecure-cluster does without"
)


@dataclass(frozen=True)
class Node:
    """One machine of the cluster, as Ray counts it.

    Attributes:
        id: of Ray.
        name: for people, its address.
        cpus, gpus: that it has in all.
    """

    id: str
    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Sight:
    """What every node has to see.

    Attributes:
        probe: a file that was just written where the run is kept, a path or an address; "" to look at none.
        content: of that file.
        data: path of the images; "" to look at none.
    """

    probe: str = ""
    content: str = ""
    data: str = ""


@dataclass(frozen=True)
class Look:
    """What one node says of itself.

    Attributes:
        python: its minor version, "3.11".
        ray, automl_vision: their versions, "" where they are not installed.
        secured: whether its processes ask each other for a token.
        unseen: what it was to see and does not, with the reason.
    """

    python: str
    ray: str
    automl_vision: str
    secured: bool
    unseen: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Look:
        """From the fields by name."""
        return cls(**{**values, "unseen": tuple(values["unseen"])})

    def faults(self, driver: Look) -> list[str]:
        """Why this node cannot work for a driver that looks like `driver`."""
        different = {
            "Python": (self.python, driver.python),
            "ray": (self.ray, driver.ray),
            "automl-vision": (self.automl_vision, driver.automl_vision),
        }
        found = [
            f"it has {name} {there or '(none)'}, this machine {here}"
            for name, (there, here) in different.items()
            if there != here
        ]
        return [*found, *self.unseen]


class RayConnection:
    """This process as a driver of a cluster. Make it with `connect`, and close it."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def nodes(self) -> list[Node]:
        """The nodes that live, as Ray knows it."""
        return [
            Node(
                each["NodeID"],
                each["NodeManagerAddress"],
                float(each["Resources"].get("CPU", 0)),
                float(each["Resources"].get("GPU", 0)),
            )
            for each in self.ray.nodes()
            if each["Alive"]
        ]

    @property
    def own_node(self) -> str:
        """The id of the node that this process is on."""
        return str(self.ray.get_runtime_context().get_node_id())

    def check(self, sight: Sight, *, insecure: bool) -> None:
        """Ask every node whether it can work for this run.

        Raises:
            RunError: some node cannot, with every node and every reason.
        """
        nodes = {node.id: node for node in self.nodes()}
        looks = self._looks(list(nodes), sight)
        if not insecure and not all(look.secured for look in looks.values() if isinstance(look, Look)):
            raise RunError(
                "the cluster has no token authentication: whoever reaches it runs programs on it", fix=_HOW_TO_SECURE
            )
        own = look_around(Sight())
        faults = {
            node.name: look if isinstance(look, str) else "; ".join(look.faults(own))
            for node in nodes.values()
            for look in (looks[node.id],)
        }
        lines = [f"{name}: {fault}" for name, fault in faults.items() if fault]
        if lines:
            raise RunError(
                "not every node of the cluster can work for this run",
                value="\n  - " + "\n  - ".join(lines),
                fix="install the same versions on all nodes, and keep --data and --out (or --trials-url) where all of "
                "them see it under the same path; or take those nodes out of the cluster",
            )

    def _looks(self, nodes: Sequence[str], sight: Sight) -> dict[str, Look | str]:
        """Node -> what it says, or why it says nothing."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self.ray.remote(num_cpus=0, max_retries=0)(_answer)
        text = json.dumps(asdict(sight))
        asked = {
            node: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(text)
            for node in nodes
        }
        self.ray.wait(list(asked.values()), num_returns=len(asked), timeout=NODE_SECONDS)
        return {node: self._answered(ref) for node, ref in asked.items()}

    def _answered(self, ref: Any) -> Look | str:
        try:
            values = json.loads(self.ray.get(ref, timeout=0))
        except self.ray.exceptions.GetTimeoutError:
            return f"it did not answer within {NODE_SECONDS:.0f} s"
        except self.ray.exceptions.RayError as error:
            return reason_of(error)
        return Look.from_dict(values)

    def close(self) -> None:
        """Leave the cluster; what this driver started there ends."""
        with _own_handlers():
            self.ray.shutdown()


def connect(address: str, *, insecure: bool = False) -> RayConnection:
    """Become a driver of the cluster at `address`: "HOST:PORT" of its head, or "auto".

    Args:
        address: never one that would start a cluster.
        insecure: accept a cluster that asks nobody for a token.

    Raises:
        UsageError: ray is not installed.
        RunError: nothing answers, the token is missing or wrong, or versions differ.
    """
    require(["ray"], EXTRA, PURPOSE)
    _set_environment(insecure)
    if address != "auto":
        _reach(address)
    import ray

    _read_environment_again()
    try:
        with _own_handlers(), _hushed():
            ray.init(
                address=address,
                namespace=f"automl-vision-{secrets.token_hex(8)}",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError and its own
        ray.shutdown()
        raise _refused(address, error) from error
    return RayConnection(ray)


def probe_of(place: Place, data: str) -> tuple[Sight, Place]:
    """A file with a random name and content in `place`, and what nodes are to say of it; whoever asks removes it.

    Raises:
        OSError: it cannot be written.
    """
    file, content = place / f".seen-{secrets.token_hex(8)}", secrets.token_hex(16)
    write_text(file, content)
    return Sight(str(file.absolute()) if isinstance(file, Path) else str(file), content, data), file


def look_around(sight: Sight) -> Look:
    """What this process says of its machine."""
    unseen = [_unseen_probe(sight), _unseen_data(sight.data)]
    return Look(
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        ray=version_of("ray"),
        automl_vision=version_of("automl-vision"),
        secured=_is_secured(),
        unseen=tuple(each for each in unseen if each),
    )


def reason_of(error: BaseException) -> str:
    """The last line that an error of Ray says, without the traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "ModuleNotFoundError" in str(error) and "automl_vision" in str(error):
        return "automl-vision is not installed there"
    return (lines[-1] if hasattr(error, "cause") and lines else lines[0] if lines else type(error).__name__)[:300]


def _answer(text: str) -> str:
    """Run on a node: what it says of itself; text in, text out."""
    return json.dumps(asdict(look_around(Sight(**json.loads(text)))))


def _unseen_probe(sight: Sight) -> str:
    if not sight.probe:
        return ""
    try:
        same = place_of(sight.probe).read_text(encoding="utf-8") == sight.content
    except Exception as error:  # noqa: BLE001 - stores have errors of their own, and this one is told
        return f"it does not see the run at {sight.probe} ({' '.join(str(error).split())[:200]})"
    return "" if same else f"it sees another file at {sight.probe}: that folder is not shared"


def _unseen_data(data: str) -> str:
    return f"it does not see the images at {data}" if data and not Path(data).exists() else ""


def _is_secured() -> bool:
    """Whether Ray in this process asks for a token, by its own word, or where it has none by the environment."""
    with suppress(ImportError, AttributeError):
        from ray._private.authentication.authentication_utils import is_token_auth_enabled

        return bool(is_token_auth_enabled())
    return os.environ.get(_MODE, "").lower() == "token"


def _set_environment(insecure: bool) -> None:
    """What Ray reads when it is imported."""
    for name, value in _HABITS.items():
        os.environ.setdefault(name, value)
    if insecure and _MODE not in os.environ and not _has_token():
        return
    if not insecure and not _has_token():
        raise RunError(
            "there is no token for the cluster",
            value=f"{_TOKEN}, {_TOKEN_PATH} and ~/.ray/auth_token are all missing",
            fix="copy the token of the cluster to ~/.ray/auth_token (mode 600), or set one of the variables; "
            "--insecure-cluster does without, where the cluster does",
        )
    os.environ.setdefault(_MODE, "token")
    if not insecure and os.environ[_MODE].lower() != "token":
        raise RunError(
            "token authentication is turned off here", value=f"{_MODE}={os.environ[_MODE]}", fix=f"set {_MODE}=token"
        )


def _read_environment_again() -> None:
    """For a process that had imported Ray before, whose token and mode are from then."""
    with suppress(ImportError, AttributeError):
        core = importlib.import_module("ray._raylet")
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    if os.environ.get(_TOKEN):
        return True
    file = Path(os.environ.get(_TOKEN_PATH) or Path.home() / ".ray" / "auth_token")
    with suppress(OSError):
        return bool(file.read_text(encoding="utf-8").strip())
    return False


def _reach(address: str) -> None:
    """Fail soon where nothing listens; Ray itself would try for a minute, and then end this process."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS):
            return
    except OSError as error:
        raise RunError(
            "the cluster cannot be reached",
            value=f"{address} ({error.strerror or error})",
            fix="check the address (it is in what `ray start --head` printed) and that this machine reaches its port",
        ) from None


def _refused(address: str, error: Exception) -> UsageError:
    said, place = _whole(error), f"{address} ({reason_of(error)})"
    if "uthenticat" in said or "InvalidAuthToken" in said:
        return RunError(
            "the cluster does not accept our token",
            value=address,
            fix="copy the token of the cluster to ~/.ray/auth_token",
        )
    if "ersion mismatch" in said:
        lines = "; ".join(line.strip() for line in said.splitlines() if line.strip())
        return RunError(
            "the cluster has other versions",
            value=f"{address} ({lines})",
            fix="install the same Ray and Python on all nodes",
        )
    return RunError(
        "this machine cannot join the cluster",
        value=place,
        fix="start the search on a node of the cluster: `ray start --address=HOST:PORT` makes this machine one",
    )


def _whole(error: BaseException) -> str:
    """What an error says, and those that it came from."""
    said: list[str] = []
    each: BaseException | None = error
    while each is not None:
        said.append(str(each))
        each = each.__cause__ or each.__context__
    return "\n".join(said)


@contextmanager
def _hushed() -> Iterator[None]:
    """What Ray's core writes to the terminal while it connects, past Python, is left out: the error says it better."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Ray puts its own handlers on signals; ours stay, they end a search tidily."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept: Mapping[signal.Signals, Any] = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in kept.items():
            if handler is not None:
                signal.signal(each, handler)
