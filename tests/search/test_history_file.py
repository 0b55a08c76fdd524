"""The history of the machine: whole lines from several writers, and a reader that survives a torn one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from histories import finetune, histories, probe
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.search.history_file import (
    History,
    RunFacts,
    RungRecord,
    append,
    history_file,
    read_history,
)
from automl_vision.search.scheduler import rungs

DATA = {"n_train": 100, "n_val": 20, "n_classes": 3, "imbalance": 1.5}
FACTS = RunFacts("0123456789abcdef", "accuracy", DATA, "cpu", "float32", "0.1.0")
BACKBONE = {"parameters_m": 4.65, "gmacs": 0.39, "imagenet_top1": None}


def record(trial: int = 0) -> RungRecord:
    recipe = finetune(0).recipe.to_dict()
    return RungRecord(
        **vars(FACTS), trial=trial, kind="finetune", state="paused", epoch=2, score=0.5, loss=None, seconds=3.0,
        recipe=recipe, backbone=BACKBONE,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a folder that is missing" / "history.jsonl"


def test_what_is_appended_is_read_back(file: Path) -> None:
    records = [record(number) for number in range(3)]
    for each in records:
        append(file, each)
    assert read_history(file) == tuple(records)
    assert [json.loads(line)["trial"] for line in file.read_text().splitlines()] == [0, 1, 2]
    assert file.stat().st_mode & 0o077 == 0, "others on this machine may read it"


def test_no_file_is_no_history(file: Path) -> None:
    assert read_history(file) == ()


@given(cut=st.integers(1, 400))
def test_a_torn_line_costs_itself_and_no_other(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    file = tmp_path_factory.mktemp("state") / "history.jsonl"
    for number in range(2):
        append(file, record(number))
    file.write_bytes(file.read_bytes()[:-cut])
    assert [each.trial for each in read_history(file)] in ([0], [0, 1])  # without its line feed alone a line is whole
    append(file, record(2))
    assert [each.trial for each in read_history(file)] in ([0, 2], [0, 1, 2])


@pytest.mark.parametrize(
    "line", [b"{}", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}', b"{" + b'"a":{' * 9, b""]
)
def test_foreign_lines_are_passed_over(file: Path, line: bytes) -> None:
    append(file, record(0))
    with file.open("ab") as handle:
        handle.write(line + b"\n")
    append(file, record(1))
    assert [each.trial for each in read_history(file)] == [0, 1]


def test_a_line_of_a_later_format_is_passed_over(file: Path) -> None:
    append(file, dataclasses.replace(record(), format=2))
    assert read_history(file) == ()


#: What one of several processes does: line after line of its own.
WRITER = """
import dataclasses, sys
from pathlib import Path
from automl_vision.search.history_file import append, read_history
first, target, writer = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
(record,) = read_history(first)
for number in range(200):
    append(target, dataclasses.replace(record, trial=1000 * writer + number))
"""


def test_several_processes_write_whole_lines(file: Path) -> None:
    first = file.with_name("first.jsonl")
    append(first, record())
    arguments = [[sys.executable, "-c", WRITER, str(first), str(file), str(writer)] for writer in range(3)]
    writers = [subprocess.Popen(each) for each in arguments]
    assert [each.wait() for each in writers] == [0, 0, 0]
    numbers = [each.trial for each in read_history(file)]
    assert sorted(numbers) == [1000 * writer + number for writer in range(3) for number in range(200)]
    assert len([line for line in file.read_bytes().split(b"\n") if line]) == 600


def told(file: Path) -> list[tuple[int, int]]:
    return [(each.trial, each.epoch) for each in read_history(file)]


def test_each_rung_is_told_once(file: Path) -> None:
    history = History(file, FACTS)
    assert rungs(12) == (2, 6, 12)
    history.take(probe(0), BACKBONE)
    for done in range(13):
        trial = finetune(1, [0.1] * done)
        history.take(trial.replace(state="running"), BACKBONE)
        history.take(trial, BACKBONE)
    assert told(file) == [(0, 0), (1, 2), (1, 6), (1, 12)]


def test_what_ends_between_rungs_is_told_and_what_is_given_up_is_not_told_again(file: Path) -> None:
    history = History(file, FACTS)
    history.take(finetune(0, [0.1] * 5, state="stopped"), BACKBONE)
    history.take(finetune(1, [0.1] * 2), BACKBONE)
    history.take(finetune(1, [0.1] * 2, state="stopped"), BACKBONE)
    history.take(finetune(2, state="failed"), BACKBONE)
    history.take(probe(3, None, state="failed"), BACKBONE)
    assert told(file) == [(0, 5), (1, 2)]


@given(trials=histories(12))
def test_a_resumed_run_does_not_tell_again(tmp_path_factory: pytest.TempPathFactory, trials: list) -> None:
    file = tmp_path_factory.mktemp("state") / "history.jsonl"
    first = History(file, FACTS)
    for trial in trials:
        first.take(trial, BACKBONE)
    before = read_history(file)
    again = History(file, FACTS, trials)
    for trial in trials:
        again.take(trial.replace(state="running"), BACKBONE)
        again.take(trial, BACKBONE)
    assert read_history(file) == before


def test_nothing_in_a_line_is_text_but_names_that_are_known(file: Path) -> None:
    """No place for a path or a class name: text is the recipe's, or one of a few names."""
    history = History(file, FACTS)
    history.take(finetune(0, [0.5] * 2), BACKBONE)
    values = json.loads(file.read_text())
    recipe = values.pop("recipe")
    assert recipe == finetune(0).recipe.to_dict()
    texts = {key for key, value in values.items() if isinstance(value, str)}
    assert texts == {"run", "kind", "state", "objective", "device", "precision", "version"}
    numbers = [*values["data"].values(), *values["backbone"].values()]
    assert all(isinstance(each, int | float | None) for each in numbers)


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        append(tmp_path / "file" / "history.jsonl", record())


def test_it_lies_in_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "automl-vision" / "history.jsonl"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert "relative" not in history_file().parts
    assert history_file().is_absolute()
