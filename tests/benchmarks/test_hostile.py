"""The checks of hostile files notice what they are there for: a reader that crashes, errs, writes, runs or believes."""

from __future__ import annotations

import faulthandler
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trust import hostile_files, hostile_names, mutated_models, sandbox
from trust.hostile_files import Attack, Defended
from trust.mutated_models import Kind, Mutant, Outcome, Tally, judged
from trust.sandbox import Sandbox

SOUND = Mutant(b"", "bits", "weights", "rest")


def kind_that(read: Callable[[Path], tuple[str, str]]) -> Kind:
    return Kind("stand-in", 1, (ValueError,), [b"x"], lambda rng, number: SOUND, read)


def refuse(path: Path) -> tuple[str, str]:
    raise ValueError("no")


def err(path: Path) -> tuple[str, str]:
    raise KeyError("no")


@pytest.mark.parametrize(
    ("read", "end"),
    [
        (lambda path: ("weights", "rest"), "accepted"),
        (lambda path: ("other", "rest"), "differs"),
        (lambda path: ("weights", "other"), "differs"),
        (refuse, "refused"),
        (err, "foreign error"),
    ],
    ids=["sound", "other weights", "other names", "refuses", "errs"],
)
def test_what_a_reader_gives_is_compared_with_what_was_written(read: Any, end: str, tmp_path: Path) -> None:
    ended, detail = judged(kind_that(read), SOUND, tmp_path)
    assert ended == end
    assert (Outcome(1, "stand-in", "bits", ended, detail).faults == []) == (end in ("accepted", "refused"))


@pytest.mark.parametrize("wrong", [{"seconds": 3.0}, {"bytes": 2 << 30}, {"events": ("os.system touch",)}], ids=str)
def test_what_takes_long_or_much_or_does_something_is_a_fault(wrong: dict[str, Any]) -> None:
    tally = Tally()
    tally.take(Outcome(1, "model.pt", "bits", "refused", **wrong))
    assert "MISSED" in tally.figure(1).line
    assert Outcome(1, "model.pt", "bits", "refused").faults == []


def test_fewer_files_than_were_asked_for_hold_nothing() -> None:
    tally = Tally()
    tally.take(Outcome(1, "model.pt", "bits", "refused"))
    assert "held" in tally.figure(1).line
    assert "MISSED" in tally.figure(2).line


READER = """
import json, os, sys
first, end = int(sys.argv[2]), int(sys.argv[3])
for number in range(first, end):
    told = {"kind": "model.pt", "how": "bits"}
    print(json.dumps({"begun": number, **told}), flush=True)
    if number == 2:
        os.abort()
    print(json.dumps({"number": number, "end": "refused", "events": [], **told}), flush=True)
"""


def test_a_crash_is_that_of_its_file_and_the_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text(READER)
    monkeypatch.setattr(mutated_models, "__file__", str(reader))
    ended = list(mutated_models.outcomes(5, 0, ["model.pt"], network=True))
    assert [each.end for each in ended] == ["refused", "refused", "crashed", "refused", "refused"]
    assert [each.number for each in ended] == list(range(5))


# --- the sandbox ----------------------------------------------------------------------------------------------------


def write_elsewhere(arguments: list[str]) -> int:
    (Path.cwd().parent / "victim").write_text("changed")
    return 0


def start(arguments: list[str]) -> int:
    subprocess.run(["true"], check=True)
    return 0


def connect(arguments: list[str]) -> int:
    import socket

    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))
    return 0


def act(arguments: list[str]) -> int:
    os.write(1, b"\x1b[2J")
    return 0


def fail(arguments: list[str]) -> int:
    os.write(2, b"Internal error: KeyError\n")
    return 1


def die(arguments: list[str]) -> int:
    faulthandler.disable()  # it would show where, in the middle of what the tests print
    os.abort()


def behave(arguments: list[str]) -> int:
    (Path.cwd() / "result").write_text("mine")
    return 0


@pytest.mark.parametrize(
    ("do", "noticed"),
    [
        (behave, ""),
        (write_elsewhere, "victim"),
        (start, "subprocess.Popen"),
        (connect, "socket.connect"),
        (act, "control characters"),
        (fail, "an internal error"),
        (die, "it crashed"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_the_sandbox_sees_what_a_command_does(
    do: Callable[[list[str]], int], noticed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_call", do)
    folder = tmp_path / "box"
    folder.mkdir()
    (folder / "victim").write_text("whole")
    faults = Sandbox(folder, 60.0, network=True).run([]).faults((0,))
    assert (noticed in str(faults)) if noticed else faults == []


def test_one_attack_that_comes_through_is_missed() -> None:
    attack = Attack("table", "x", lambda scene: ())
    held = Defended(attack, 2, 1.0, ())
    assert "held: 2 attacks" in hostile_files.figure_of([held, held]).line
    assert "MISSED" in hostile_files.figure_of([held, Defended(attack, 0, 1.0, ("table: x: did open 'x'",))]).line


def test_there_are_as_many_attacks_as_were_promised() -> None:
    assert len(hostile_files.ATTACKS) >= 60
    assert len({(each.of, each.name) for each in hostile_files.ATTACKS}) == len(hostile_files.ATTACKS)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "sound", "acting"),
    [
        (hostile_names.page_faults, "<p title='a'>&lt;img onerror=x&gt;</p>", "<img src=x onerror=alert(1)>"),
        (hostile_names.page_faults, "<a href='#x'>x</a>", "<iframe></iframe>"),
        (hostile_names.table_faults, "a,b\n'=1+1,-0.5\n", "a,b\n=1+1,x\n"),
        (hostile_names.json_faults, '{"a": 1}\n{"a": 2}\n', '{"a": 1'),
        (hostile_names.card_faults, "---\nlicense: mit\n---\ntext", "---\nlicense: mit\nevil: x\n---\ntext"),
        (
            hostile_names.card_faults,
            "---\nlicense: mit\n---\n\\<script\\>x\\</script\\>",
            "---\nlicense: mit\n---\n<script>x</script>",
        ),
    ],
)
def test_what_acts_is_seen(look: Callable[[str], list[str]], sound: str, acting: str) -> None:
    assert look(sound) == []
    assert look(acting)
