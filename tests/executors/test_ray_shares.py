"""What a slot takes of a machine, what a node says of itself, and how the hub passes lines: all without Ray."""

from __future__ import annotations

import asyncio
import json
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from automl_vision.errors import RunError
from automl_vision.executors import ray_connection
from automl_vision.executors.ray_cluster import Hub, Share, share_of
from automl_vision.executors.ray_connection import Look, Node, Sight, connect, look_around, probe_of
from automl_vision.files import write_text

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def node(cpus: float, gpus: float = 0.0, name: str = "a") -> Node:
    return Node(name, name, cpus, gpus)


# --- shares ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "options", "share"),
    [
        ([node(16), node(8)], {}, Share(8, 0)),  # a machine each
        ([node(16), node(8)], {"max_parallel": 3}, Share(8, 0)),  # two fit on the larger one
        ([node(16), node(8)], {"max_parallel": 6}, Share(4, 0)),
        ([node(2)], {"max_parallel": 9}, Share(1, 0)),  # never less than a processor
        ([node(16, 4), node(8, 2)], {}, Share(4, 1)),
        ([node(16, 4), node(8, 2)], {"gpus": 0.5}, Share(2, 0.5)),
        ([node(16, 4), node(32)], {}, Share(4, 1)),  # a machine without GPUs takes none
        ([node(16, 4)], {"gpus": 0, "threads": 3}, Share(3, 0)),
        ([node(1, 8)], {}, Share(1, 1)),
    ],
)
def test_a_slot_takes_what_follows_from_the_machines(nodes: list[Node], options: dict[str, Any], share: Share) -> None:
    assert share_of(nodes, **options) == share


def test_a_machine_has_room_for_whole_slots() -> None:
    assert Share(4, 0).fits(node(15)) == 3
    assert Share(1, 0.1).fits(node(64, 1)) == 10
    assert Share(1, 1).fits(node(64)) == 0
    assert Share(4, 1).fits(node(7, 8)) == 1


# --- what nodes see -------------------------------------------------------------------------------------------------


def test_a_node_sees_what_was_written_where_the_run_is(tmp_path: Path) -> None:
    sight, file = probe_of(tmp_path, str(tmp_path))
    assert look_around(sight).unseen == ()
    write_text(file, "something else")
    assert "is not shared" in look_around(sight).unseen[0]
    file.unlink()
    assert "does not see the run" in look_around(sight).unseen[0]


def test_a_node_without_the_images_says_so(tmp_path: Path) -> None:
    assert look_around(Sight(data=str(tmp_path / "none"))).unseen == (
        f"it does not see the images at {tmp_path / 'none'}",
    )
    assert look_around(Sight(data=str(tmp_path))).unseen == ()


def test_a_node_with_other_versions_cannot_work() -> None:
    driver = Look("3.11", "2.60.0", "0.1.0", secured=True)
    assert driver.faults(driver) == []
    other = Look("3.12", "2.60.0", "", secured=True, unseen=("it is blind",))
    assert other.faults(driver) == [
        "it has Python 3.12, this machine 3.11",
        "it has automl-vision (none), this machine 0.1.0",
        "it is blind",
    ]


# --- before Ray is asked --------------------------------------------------------------------------------------------


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*VARIABLES, *ray_connection._HABITS):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@needs_ray
def test_a_missing_token_is_named_before_anything_is_asked(no_token: None) -> None:
    with pytest.raises(RunError, match="there is no token for the cluster"):
        connect("127.0.0.1:1")


@needs_ray
@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_token_is_none(no_token: None, tmp_path: Path, content: str) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(content)
    with pytest.raises(RunError, match="there is no token for the cluster"):
        connect("127.0.0.1:1")


@needs_ray
def test_a_token_that_is_turned_off_is_named(no_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(RunError, match="turned off here"):
        connect("127.0.0.1:1")


@needs_ray
def test_an_address_where_nothing_listens_fails_at_once(no_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(RunError, match="cannot be reached") as error:
        connect(f"127.0.0.1:{port}")
    assert str(port) in str(error.value.value)


# --- the hub --------------------------------------------------------------------------------------------------------


def test_lines_reach_the_other_side_in_order_and_only_the_newest_beat_does() -> None:
    async def talk() -> None:
        hub = Hub()
        await hub.enter("a", "node1")
        await hub.say("a", "one")
        await hub.beat("old beat")
        await hub.say("a", "two")
        await hub.beat("new beat")
        assert await hub.listen("a", 0.01) == ["one", "two", "new beat"]
        assert await hub.listen("a", 0.01) == []
        assert await hub.tell("a", "first")
        assert await hub.tell("a", "second")
        news = json.loads(await hub.reports(0.01))
        assert news["told"] == [["a", "first"], ["a", "second"]]
        assert news["nodes"] == {"a": "node1"}
        assert 0 <= news["silent"]["a"] < 5
        assert json.loads(await hub.reports(0.0))["told"] == []

    asyncio.run(talk())


def test_who_listens_hears_at_once_and_who_is_discharged_hears_that() -> None:
    async def talk() -> None:
        hub = Hub()
        listening = asyncio.create_task(hub.listen("a", 30.0))
        reports = asyncio.create_task(hub.reports(30.0))
        await asyncio.sleep(0.01)
        await hub.say("a", "now")
        assert await asyncio.wait_for(listening, 5) == ["now"]
        await hub.tell("a", "told")
        assert json.loads(await asyncio.wait_for(reports, 5))["told"] == [["a", "told"]]
        listening = asyncio.create_task(hub.listen("a", 30.0))
        await asyncio.sleep(0.01)
        await hub.discharge("a")
        assert await asyncio.wait_for(listening, 5) is None
        assert not await hub.tell("a", "too late")
        assert json.loads(await hub.reports(0.0)) == {"told": [], "nodes": {}, "silent": {}}

    asyncio.run(talk())
