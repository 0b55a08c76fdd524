from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from histories import finetune, probe
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.place import Place, remove_folder
from automl_vision.search import trial_files
from automl_vision.search.trial import STATES, EpochRecord, Trial
from automl_vision.search.trial_files import HeldOut, TrialFiles, TrialReplaced
from automl_vision.tensor_file import save_tensors
from automl_vision.training.recipe import Recipe

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | st.integers() | NUMBERS | st.text()
TABLES = st.dictionaries(st.text(), PLAIN, max_size=4)
EPOCHS = st.builds(
    EpochRecord,
    st.integers(1, 99),
    st.none() | NUMBERS,
    val_loss=NUMBERS,
    score=NUMBERS,
    learning_rate=NUMBERS,
    seconds=NUMBERS,
)
TRIALS = st.builds(
    Trial,
    number=st.integers(0, 10**6),
    recipe=st.builds(Recipe, kind=st.sampled_from(["probe", "finetune"]), backbone=st.text(), resolution=st.integers()),
    parameters=TABLES,
    origin=st.text(),
    state=st.sampled_from(list(STATES)),
    attempt=st.integers(1, 99),
    epochs=st.lists(EPOCHS, max_size=4).map(tuple),
    score=st.none() | NUMBERS,
    loss=st.none() | NUMBERS,
    seconds=NUMBERS,
    error=st.text(st.characters() | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)),  # any file's name
    notes=TABLES,
)


@pytest.fixture(params=["folder", "address"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrialFiles]:
    if request.param == "folder":
        yield TrialFiles(tmp_path / "trials")
        return
    upath = pytest.importorskip("upath")
    address = upath.UPath(f"memory://{secrets.token_hex(8)}/trials")
    yield TrialFiles(address)
    remove_folder(address)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    return TrialFiles(tmp_path_factory.mktemp("trials"))


#: For what happens in the middle of writing a file: objects are put whole.
in_folder = pytest.mark.parametrize("files", ["folder"], indirect=True)


def record(files: TrialFiles, number: int = 0) -> Place:
    return files.folder / f"{number:06d}.json"


# --- records --------------------------------------------------------------------------------------------------------


@given(trial=TRIALS)
def test_a_record_comes_back_as_it_was(shared: TrialFiles, trial: Trial) -> None:
    shared.commit(trial)
    trials, damaged = shared.read()
    assert not damaged
    assert trials == [trial]
    record(shared, trial.number).unlink()


def test_trials_come_back_by_number(files: TrialFiles) -> None:
    for number in (11, 2, 0):
        files.commit(probe(number))
    files.commit(probe(2, 0.9))
    trials, _ = files.read()
    assert [(trial.number, trial.score) for trial in trials] == [(0, 0.5), (2, 0.9), (11, 0.5)]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "zero bytes": lambda data: b"",
    "zeroed": lambda data: b"\0" * len(data),
    "cut in half": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data.rstrip()[:-1],
    "not text": lambda data: b"\xff\xfe" + data,
    "a list": lambda data: b"[1, 2]",
    "a number": lambda data: b"3",
    "empty object": lambda data: b"{}",
    "two records": lambda data: data + data,
    "no checksum": lambda data: json.dumps({k: v for k, v in json.loads(data).items() if k != "checksum"}).encode(),
    "another score": lambda data: data.replace(b"0.625", b"0.875"),
    "not a number": lambda data: data.replace(b"0.625", b"NaN"),
    "a million brackets": lambda data: b"[" * 10**6,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_set_aside_and_named(files: TrialFiles, damage: Callable[[bytes], bytes]) -> None:
    for number in range(3):
        files.commit(finetune(number, [0.625]))
    whole = record(files, 1).read_bytes()
    record(files, 1).write_bytes(damage(whole))
    assert damage(whole) != whole
    trials, damaged = files.read()
    assert [trial.number for trial in trials] == [0, 2]
    assert damaged == ["000001.json"]
    assert (files.folder / "000001.json.corrupt").read_bytes() == damage(whole)
    assert files.read() == (trials, [])


def test_a_copy_of_a_record_does_not_become_another_trial(files: TrialFiles) -> None:
    files.commit(finetune(3, [0.5]))
    record(files, 4).write_bytes(record(files, 3).read_bytes())
    (files.folder / "000003 (1).json").write_bytes(record(files, 3).read_bytes())
    trials, damaged = files.read()
    assert [trial.number for trial in trials] == [3]
    assert sorted(damaged) == ["000003 (1).json", "000004.json"]


def test_any_flipped_bit_is_noticed_or_changes_nothing(files: TrialFiles) -> None:
    trial = finetune(0, [0.5, 0.625], parameters={"learning_rate_adamw": 1e-3}, error="ä")
    files.commit(trial)
    whole = record(files).read_bytes()
    unnoticed = []
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        record(files).write_bytes(flipped)
        trials, damaged = files.read()
        if not damaged:
            unnoticed.append(position)
            assert trials == [trial]
        (files.folder / "000000.json.corrupt").unlink(missing_ok=True)
    assert all(whole[position : position + 1].isspace() for position in unnoticed)


# --- crashes --------------------------------------------------------------------------------------------------------


def crash(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@in_folder
@pytest.mark.parametrize("point", [(Path, "replace"), (os, "fsync")], ids=["before the rename", "before the flush"])
@pytest.mark.parametrize("fault", [crash, full])
def test_a_crash_while_committing_leaves_the_former_record(
    files: TrialFiles, monkeypatch: pytest.MonkeyPatch, point: tuple[Any, str], fault: Callable[..., None]
) -> None:
    before = finetune(0, [0.5])
    files.commit(before)
    with monkeypatch.context() as patch:
        patch.setattr(*point, fault)
        with pytest.raises((KeyboardInterrupt, OSError)):
            files.commit(finetune(0, [0.5, 0.6]))
    assert files.read() == ([before], [])
    assert [each.name for each in files.folder.iterdir()] == ["000000.json"]


@in_folder
def test_what_a_killed_process_left_unfinished_is_swept(files: TrialFiles) -> None:
    files.commit(finetune(0, [0.5]))
    save(files, 0)
    (files.folder / "000000.json.4711.tmp").write_text('{"number": 0')
    (files.folder / "000000" / "best.pt.4711.tmp").write_bytes(b"PK")
    trials, damaged = files.read()
    assert len(trials) == 1
    assert not damaged
    assert not list(files.folder.rglob("*.tmp"))


@in_folder
def test_the_weights_and_what_they_say_change_together(files: TrialFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    save(files, 0, value=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            save(files, 0, value=2.0)
    result = files.load_result(0)
    assert result is not None
    assert float(result.weights["head.weight"].sum()) == 6.0
    assert result.probabilities.max() == 1.0


# --- checkpoints and weights ----------------------------------------------------------------------------------------


def save(files: TrialFiles, number: int, value: float = 1.0) -> None:
    weights = {"head.weight": torch.full((2, 3), value), "steps": torch.tensor(7)}
    files.save_result(number, weights, np.full((4, 2), value, dtype=np.float32))
    files.save_checkpoint(number, {"trainer": {"epoch": 3, "lr": 0.1}, "trial": {"number": number}})


def test_results_and_checkpoints_come_back_as_they_were(files: TrialFiles) -> None:
    save(files, 5, value=0.25)
    result = files.load_result(5)
    assert result is not None
    assert torch.equal(result.weights["head.weight"], torch.full((2, 3), 0.25))
    np.testing.assert_array_equal(result.probabilities, np.full((4, 2), 0.25, dtype=np.float32))
    assert files.load_checkpoint(5) == {"trainer": {"epoch": 3, "lr": 0.1}, "trial": {"number": 5}}


def test_what_was_never_written_is_none(files: TrialFiles) -> None:
    assert files.load_result(9) is None
    assert files.load_checkpoint(9) is None


@pytest.mark.parametrize("name", ["best.pt", "checkpoint.pt"])
def test_a_damaged_file_counts_as_none(files: TrialFiles, name: str) -> None:
    load = {"best.pt": files.load_result, "checkpoint.pt": files.load_checkpoint}[name]
    save(files, 0)
    file = files.folder / "000000" / name
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"\0" * len(whole)):
        file.write_bytes(damaged)
        assert load(0) is None
    if name == "best.pt":
        position = whole.index(torch.full((2, 3), 1.0).numpy().tobytes())  # a bit of a weight
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert load(0) is None


def test_the_best_with_readable_weights_is_chosen(files: TrialFiles) -> None:
    trials = [probe(0, 0.5), finetune(1, [0.9]), finetune(2, [0.8]), finetune(3, []), finetune(4, [0.7])]
    for number in (0, 1, 2):
        save(files, number)
    (files.folder / "000001" / "best.pt").write_bytes(b"")
    best = files.best(trials)
    assert best is not None
    assert best[0].number == 2
    assert files.best([trials[3], trials[4]]) is None


def kept(files: TrialFiles, name: str) -> list[int]:
    return sorted(int(each.parent.name) for each in files.folder.glob(f"*/{name}"))


def test_pruning_keeps_the_best_the_default_the_probes_and_what_may_go_on(files: TrialFiles) -> None:
    states = {1: "complete", 2: "complete", 3: "stopped", 4: "failed", 5: "paused", 6: "running", 7: "complete"}
    trials = [probe(0, 0.1), *(finetune(n, [n / 10], state=state) for n, state in states.items())]
    for trial in trials:
        save(files, trial.number)
    files.prune(trials, keep=2)
    assert kept(files, "best.pt") == [0, 1, 5, 6, 7]  # 1 is the default recipe
    assert kept(files, "checkpoint.pt") == [5, 6]
    files.prune(trials, keep=2)
    assert kept(files, "best.pt") == [0, 1, 5, 6, 7]  # 1 is the default recipe


def test_pruning_never_drops_the_best(files: TrialFiles) -> None:
    trials = [finetune(number, [0.5], state="complete") for number in range(6)]
    for trial in trials:
        save(files, trial.number)
    files.prune(trials)
    best = files.best(trials)
    assert best is not None
    assert best[0].number == 0


def test_discarding_spares_the_record(files: TrialFiles) -> None:
    files.commit(finetune(0, [0.5]))
    save(files, 0)
    files.discard(0)
    assert files.load_checkpoint(0) is None
    assert len(files.read()[0]) == 1


# --- what probes say of training images -----------------------------------------------------------------------------


def held_out(trial: int = 0, score: float = 0.5, n: int = 4) -> HeldOut:
    return HeldOut(trial, score, np.arange(n), np.full((n, 2), 0.5, dtype=np.float32))


def test_what_the_best_probe_says_of_training_images_is_kept(files: TrialFiles) -> None:
    assert files.load_held_out() is None
    for trial, score in ((0, 0.5), (1, 0.7), (2, 0.6)):
        files.keep_held_out(held_out(trial, score))
    found = files.load_held_out()
    assert found is not None
    assert (found.trial, found.score) == (1, 0.7)
    np.testing.assert_array_equal(found.rows, held_out().rows)
    np.testing.assert_array_equal(found.probabilities, held_out().probabilities)
    trials, damaged = files.read()  # it is no trial
    assert (trials, damaged) == ([], [])


def test_too_many_of_them_are_not_kept(files: TrialFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_files, "MOST_HELD_OUT", 8)
    files.keep_held_out(held_out(n=5))
    assert files.load_held_out() is None
    files.keep_held_out(held_out(n=4))
    assert files.load_held_out() is not None


def test_a_damaged_file_of_them_is_none_and_is_replaced(files: TrialFiles) -> None:
    files.keep_held_out(held_out())
    file = files.folder / "held_out.pt"
    file.write_bytes(file.read_bytes()[:100])
    assert files.load_held_out() is None
    files.keep_held_out(held_out(3, 0.1))
    assert files.load_held_out() is not None


# --- attempts that are kept apart -----------------------------------------------------------------------------------


@pytest.fixture
def fenced(tmp_path: Path) -> TrialFiles:
    return TrialFiles(tmp_path / "trials", fenced=True)


def write(files: TrialFiles, trial: Trial, value: float = 1.0) -> None:
    """What a worker writes of a trial in work: weights, checkpoint, record."""
    save_result(files, trial, value)
    files.save_checkpoint(trial.number, {"value": value}, attempt=trial.attempt)
    files.commit(trial)


def save_result(files: TrialFiles, trial: Trial, value: float = 1.0) -> None:
    assert trial.score is not None
    assert trial.loss is not None
    weights, probabilities = {"w": torch.tensor(value)}, np.full((4, 2), value, np.float32)
    figures = trial.score, trial.loss
    files.save_result(trial.number, weights, probabilities, attempt=trial.attempt, figures=figures)


def weight(files: TrialFiles, number: int) -> float | None:
    result = files.load_result(number)
    return None if result is None else float(result.weights["w"])


def test_a_folder_of_one_process_has_one_set_of_files_for_all_attempts(files: TrialFiles) -> None:
    trial = finetune(0, [0.5], state="running")
    for attempt in (1, 2, 3):
        assert files.claim(trial.replace(attempt=attempt)) == trial.replace(attempt=attempt)
        write(files, trial.replace(attempt=attempt), attempt / 4)
    assert sorted(str(each.relative_to(files.folder)) for each in files.folder.rglob("*") if each.is_file()) == [
        "000000.json",
        *("000000/best.pt", "000000/checkpoint.pt", "000000/predicted.pt"),
    ]
    assert files.read() == ([trial.replace(attempt=3)], [])


def test_a_claim_is_durable_before_anything_is_done(fenced: TrialFiles) -> None:
    claimed = fenced.claim(finetune(4, [], state="paused"))
    assert (claimed.state, claimed.attempt) == ("running", 1)
    assert TrialFiles(fenced.folder).read() == ([claimed], [])


def test_later_attempts_write_beside_the_first_and_win(fenced: TrialFiles) -> None:
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, first, 0.25)
    second = fenced.claim(first.replace(attempt=2))
    assert weight(fenced, 0) == 0.25  # it has none of its own yet
    assert fenced.load_checkpoint(0) == {"value": 0.25}
    write(fenced, second.replace(score=0.75), 0.5)
    assert weight(fenced, 0) == 0.5
    assert fenced.load_checkpoint(0) == {"value": 0.5}
    assert fenced.record(0) == second.replace(score=0.75)
    assert fenced.read() == ([second.replace(score=0.75)], [])
    assert fenced.with_weights() == [0]
    assert {each.name for each in fenced.folder.iterdir()} == {
        *("000000", "000000.json", "000000.attempt-2.json"),
        "fence.txt",
    }
    np.testing.assert_array_equal(fenced.load_predicted(0), np.zeros(4))  # type: ignore[arg-type]


def test_an_attempt_that_was_replaced_writes_nothing(fenced: TrialFiles) -> None:
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, first, 0.25)
    fenced.claim(first.replace(attempt=2))
    before = {each: each.read_bytes() for each in fenced.folder.rglob("*") if each.is_file()}
    probabilities = np.ones((4, 2), np.float32)
    for late in (
        lambda: fenced.commit(first.replace(state="complete")),
        lambda: fenced.save_checkpoint(0, {"value": 9.0}, attempt=1),
        lambda: fenced.save_result(0, {"w": torch.tensor(9.0)}, probabilities, attempt=1),
        lambda: fenced.keep_held_out(held_out(0, 0.9), attempt=1),
    ):
        with pytest.raises(TrialReplaced):
            late()
    assert {each: each.read_bytes() for each in fenced.folder.rglob("*") if each.is_file()} == before


def test_a_paused_trial_goes_on_as_the_same_attempt(fenced: TrialFiles) -> None:
    trial = fenced.claim(finetune(0, [0.5], state="running"))
    fenced.commit(trial.replace(state="paused"))
    assert fenced.claim(trial.replace(state="paused")).attempt == 1
    assert fenced.record(0) == trial  # running: a driver that dies now counts on


@pytest.mark.parametrize("trace", ["a record", "a damaged record", "a record of another recipe"])
def test_no_number_is_given_twice(fenced: TrialFiles, trace: str) -> None:
    trial = finetune(0, [0.5], state="running")
    for attempt in (1, 2):
        fenced.claim(trial.replace(attempt=attempt))
    if trace == "a damaged record":
        (fenced.folder / "000000.attempt-2.json").write_text("")
        fenced.read()
    if trace == "a record of another recipe":
        recipe = Recipe("finetune", "net_b", 96, epochs=12)
        assert fenced.claim(trial.replace(recipe=recipe)).attempt == 3
        return
    again = TrialFiles(fenced.folder, fenced=True)
    expected = {"a record": 2, "a damaged record": 3}[trace]
    assert again.claim(trial.replace(attempt=2)).attempt == expected
    assert again.claim(trial.replace(attempt=1)).attempt == expected


def test_a_damaged_record_of_a_later_attempt_falls_back_to_the_one_before(fenced: TrialFiles) -> None:
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, first, 0.25)
    write(fenced, fenced.claim(first.replace(attempt=2)), 0.5)
    (fenced.folder / "000000.attempt-2.json").write_text("{")
    next_one = first.replace(attempt=3)  # the second was given away, and may be in work
    assert fenced.record(0) == next_one
    assert fenced.read() == ([next_one], ["000000.attempt-2.json"])
    assert fenced.read() == ([next_one], [])
    assert weight(fenced, 0) == 0.25  # the record that counts is of these weights
    fenced.commit(next_one.replace(state="stopped"))  # a driver that gives it up, as it read it
    assert fenced.read() == ([next_one.replace(state="stopped")], [])


def test_weights_that_an_older_attempt_left_are_not_those_of_the_newest(fenced: TrialFiles) -> None:
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, first, 0.25)
    old = (fenced.folder / "000000" / "best.pt").read_bytes()
    second = fenced.claim(first.replace(attempt=2))
    done = second.replace(state="complete", score=0.1)
    write(fenced, done, 0.5)
    better = [finetune(number, [0.9], state="complete") for number in (1, 2, 3, 4)]
    fenced.prune([done.replace(origin="tpe"), *better])
    assert weight(fenced, 0) is None
    assert not list(fenced.folder.rglob("checkpoint.pt"))
    (fenced.folder / "000000" / "best.pt").write_bytes(old)  # of one that was in the middle of writing it
    assert weight(fenced, 0) is None
    assert fenced.with_weights() == []


def test_pruning_keeps_what_the_newest_attempt_needs(fenced: TrialFiles) -> None:
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, first, 0.25)
    second = fenced.claim(first.replace(attempt=2))
    fenced.prune([second])
    assert (weight(fenced, 0), fenced.load_checkpoint(0)) == (0.25, {"value": 0.25})  # it goes on from there
    write(fenced, second, 0.5)
    fenced.prune([second])
    assert (weight(fenced, 0), fenced.load_checkpoint(0)) == (0.5, {"value": 0.5})
    assert len(list(fenced.folder.rglob("checkpoint.pt"))) == 1


def test_attempts_of_a_run_that_goes_on_in_one_process_are_read_and_gone_on_with(fenced: TrialFiles) -> None:
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, fenced.claim(first.replace(attempt=2)), 0.5)
    files = TrialFiles(fenced.folder)
    third = first.replace(attempt=3, score=0.6)
    write(files, third, 0.75)
    assert files.read() == ([third], [])
    assert weight(files, 0) == 0.75


def test_two_probes_that_end_at_once_keep_the_better_one(fenced: TrialFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has looked before the other one wrote."""
    with monkeypatch.context() as patch:
        patch.setattr(TrialFiles, "load_held_out", lambda self: None)
        for trial, score in ((0, 0.7), (1, 0.5)):
            fenced.keep_held_out(held_out(trial, score))
    found = fenced.load_held_out()
    assert found is not None
    assert found.trial == 0
    fenced.keep_held_out(held_out(2, 0.6))
    assert fenced.load_held_out() is not None
    fenced.keep_held_out(held_out(3, 0.8))
    assert [each.parent.name for each in fenced.folder.rglob("held_out.pt")] == ["000003"]
    found = TrialFiles(fenced.folder).load_held_out()
    assert found is not None
    assert found.trial == 3


def test_what_an_earlier_version_kept_of_training_images_is_compared_too(files: TrialFiles) -> None:
    files.keep_held_out(held_out(0, 0.7))
    fenced = TrialFiles(files.folder, fenced=True)
    fenced.keep_held_out(held_out(1, 0.6))
    found = fenced.load_held_out()
    assert found is not None
    assert found.trial == 0


# --- attempts that were replaced while they wrote -------------------------------------------------------------------


@pytest.mark.parametrize("writes", [1, 2], ids=["during the weights", "during what they say"])
@pytest.mark.parametrize("state", ["stopped", "running"])
def test_weights_of_an_epoch_that_the_record_does_not_have_are_not_read(
    fenced: TrialFiles, monkeypatch: pytest.MonkeyPatch, state: Any, writes: int
) -> None:
    """The driver gives the trial up, or away, while a worker is inside of writing its fifth epoch."""
    fourth = fenced.claim(finetune(0, [0.5, 0.6, 0.7, 0.8], state="running"))
    write(fenced, fourth, 4.0)
    left = [writes]

    def stalled(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            fenced.commit(fourth.replace(state=state, attempt=2))
        save_tensors(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trial_files, "save_tensors", stalled)
        with pytest.raises(TrialReplaced):
            write(fenced, finetune(0, [0.5, 0.6, 0.7, 0.8, 0.9], state="running"), 5.0)
    assert fenced.record(0) == fourth.replace(state=state, attempt=2)
    assert fenced.load_result(0) is None
    assert fenced.with_weights() == []
    assert fenced.best([fourth]) is None
    if writes == 2:
        assert fenced.load_predicted(0) is None
    write(fenced, fourth.replace(attempt=2), 4.5)  # the next attempt has its own
    assert weight(fenced, 0) == 4.5


def test_weights_that_the_record_tells_of_are_found_behind_later_ones(
    fenced: TrialFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, first, 1.0)
    for attempt in (2, 3):
        fenced.claim(first.replace(attempt=attempt))
    with monkeypatch.context() as patch:
        patch.setattr(TrialFiles, "_require_newest", nobody_looked)
        save_result(fenced, first.replace(attempt=2, score=0.6), 2.0)
    assert weight(fenced, 0) == 1.0
    predicted = fenced.load_predicted(0)
    assert predicted is not None
    assert (fenced.with_weights(), len(predicted)) == ([0], 4)


def test_a_result_of_an_earlier_version_is_read_with_any_record(files: TrialFiles) -> None:
    save(files, 0)
    files.commit(finetune(0, [0.5, 0.625]))
    assert files.load_result(0) is not None
    assert files.load_predicted(0) is not None
    assert files.with_weights() == [0]


def test_a_folder_where_attempts_were_kept_apart_stays_one(fenced: TrialFiles) -> None:
    """A worker of the session before may be alive, though this one runs its trials in its own process."""
    first = fenced.claim(finetune(0, [0.5], state="running"))
    write(fenced, first, 0.25)
    resumed = TrialFiles(fenced.folder)
    assert resumed.fenced
    second = resumed.claim(first.replace(attempt=2))
    write(resumed, second, 0.5)
    with pytest.raises(TrialReplaced):
        write(fenced, first, 0.75)
    assert weight(resumed, 0) == 0.5
    assert TrialFiles(fenced.folder).fenced


def test_records_of_attempts_say_the_same(fenced: TrialFiles) -> None:
    for attempt in (1, 2):
        fenced.claim(finetune(0, [0.5], state="running", attempt=attempt))
    (fenced.folder / "fence.txt").unlink()
    assert TrialFiles(fenced.folder).fenced


def test_a_folder_of_one_process_is_fenced_when_others_come(files: TrialFiles) -> None:
    files.commit(finetune(0, [0.5], state="paused"))
    assert not TrialFiles(files.folder).fenced
    files.fence()
    assert files.fenced
    assert TrialFiles(files.folder).fenced
    assert files.read() == ([finetune(0, [0.5], state="paused")], [])


def test_a_trial_whose_newest_record_was_set_aside_can_be_given_up(fenced: TrialFiles) -> None:
    trial = finetune(0, [0.5], state="paused")
    for attempt in (1, 2, 3):
        fenced.claim(trial.replace(attempt=attempt))
    (fenced.folder / "000000.attempt-3.json").write_text("")
    resumed = TrialFiles(fenced.folder)
    (known,), _ = resumed.read()
    assert known.attempt == 4
    resumed.commit(known.replace(state="stopped"))
    assert resumed.record(0) == known.replace(state="stopped")


# --- files of somebody else -----------------------------------------------------------------------------------------

CHANCES = torch.full((4, 2), 0.5)
CRAFTED: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("best.pt", {}),
    "weights alone": ("best.pt", {"weights": {"w": torch.ones(1)}}),
    "probabilities alone": ("best.pt", {"probabilities": CHANCES}),
    "weights that are no names": ("best.pt", {"weights": [1], "probabilities": CHANCES}),
    "weights that are no tensors": ("best.pt", {"weights": {"w": 1.0}, "probabilities": CHANCES}),
    "weights without names": ("best.pt", {"weights": {1: torch.ones(1)}, "probabilities": CHANCES}),
    "probabilities as a list": ("best.pt", {"weights": {}, "probabilities": [0.5]}),
    "flat probabilities": ("best.pt", {"weights": {}, "probabilities": torch.ones(4)}),
    "half probabilities": ("best.pt", {"weights": {}, "probabilities": CHANCES.to(torch.bfloat16)}),
    "a text as its score": ("best.pt", {"weights": {}, "probabilities": CHANCES, "score": "0.5", "loss": "0.5"}),
    "tensors as figures": ("best.pt", {"weights": {}, "probabilities": CHANCES, "score": CHANCES, "loss": CHANCES}),
    "no classes": ("predicted.pt", {}),
    "classes as a list": ("predicted.pt", {"predicted": [0, 1]}),
    "classes as chances": ("predicted.pt", {"predicted": CHANCES}),
    "nothing held out": ("held_out.pt", {}),
    "a text as the score": ("held_out.pt", {**vars(held_out()), "score": "0.9"}),
    "no number as the score": ("held_out.pt", {**vars(held_out()), "score": float("nan")}),
    "a text as the trial": ("held_out.pt", {**vars(held_out()), "trial": "0"}),
    "rows that are no numbers": ("held_out.pt", {**vars(held_out()), "rows": [0, 1, 2, 3]}),
    "other rows": ("held_out.pt", {**vars(held_out()), "rows": np.arange(3)}),
    "flat chances": ("held_out.pt", {**vars(held_out()), "probabilities": np.ones(4, np.float32)}),
}


@pytest.mark.parametrize(("name", "content"), CRAFTED.values(), ids=CRAFTED)
def test_a_sound_file_of_something_else_counts_as_one_that_cannot_be_read(
    files: TrialFiles, name: str, content: dict[str, Any]
) -> None:
    files.commit(finetune(0, [0.5]))
    save(files, 0)
    (files.folder / "000000" / "predicted.pt").unlink()
    tensors = {key: torch.from_numpy(each) if isinstance(each, np.ndarray) else each for key, each in content.items()}
    save_tensors(files.folder / ("" if name == "held_out.pt" else "000000") / name, tensors)
    assert (files.load_result(0) is None) == (name == "best.pt")
    assert (files.load_predicted(0) is None) == (name == "best.pt")
    assert files.load_held_out() is None
    files.keep_held_out(held_out(3, 0.1))
    assert files.load_held_out() is not None


# --- any order of all that ------------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from(["claim", "result", "epoch", "checkpoint", "prune", "die", *["late"] * 3])
    ),
    max_size=40,
)


def nobody_looked(*_: Any) -> None:
    """For a process that looked whether it was replaced, and slept before it wrote."""


@settings(max_examples=100)
@given(actions=ACTIONS)
def test_interleaved_attempts_never_mix(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[int, str]]
) -> None:
    """Attempts go on writing whatever was claimed after them, and may end the file that they are at.

    The record is always that of the newest attempt, weights are never read that did not give its figures, and what the
    newest attempt wrote is always there.
    """
    folder = tmp_path_factory.mktemp("trials")
    files = TrialFiles(folder, fenced=True)
    begun: list[Trial] = []
    known = Known()
    for which, action in actions:
        trial = begun[which % len(begun)] if begun else None
        if action == "claim":
            begun.append(files.claim(known.record.replace(attempt=1 + len(begun))))
            known = Known(begun[-1])
        elif action == "die":
            files = TrialFiles(folder)
            assert [each.attempt for each in files.read()[0]] == ([len(begun)] if begun else [])
        elif action == "prune" and begun:
            files.prune([begun[-1]])
        elif action == "late" and begun:
            write_late(files, begun[which % len(begun)], which, replaced=begun[:-1])
        elif trial is not None:
            write_one(files, trial, action, known, newest=trial.attempt == len(begun))
        check(files, known, len(begun))


class Known:
    """What is certain to be on disk: the newest record, and what the newest attempt wrote itself."""

    def __init__(self, record: Trial | None = None) -> None:
        self.record = record or finetune(7, [0.5], state="running")
        self.result: Trial | None = None
        self.checkpoint: int | None = None


def epoch_of(trial: Trial) -> Trial:
    """One more epoch of an attempt, with figures that no other attempt has."""
    score = trial.attempt / 100 + (trial.epochs_done + 1) / 10_000
    return finetune(7, [*(each.score for each in trial.epochs), 0.5], state="running", attempt=trial.attempt).replace(
        score=score, loss=1 - score
    )


def weight_of(trial: Trial) -> float:
    return trial.score or 0.0


def write_one(files: TrialFiles, trial: Trial, action: str, known: Known, *, newest: bool) -> None:
    after = epoch_of(known.record if newest else trial)

    def epoch() -> None:
        save_result(files, after, weight_of(after))
        files.commit(after)
        known.record = known.result = after

    def result() -> None:
        save_result(files, after, weight_of(after))
        known.result = after  # killed before the record was written: read once an epoch is

    def checkpoint() -> None:
        files.save_checkpoint(7, {"attempt": trial.attempt}, attempt=trial.attempt)
        known.checkpoint = trial.attempt

    act = {"result": result, "epoch": epoch, "checkpoint": checkpoint}[action]
    if newest:
        act()
        return
    with pytest.raises(TrialReplaced):
        act()


def write_late(files: TrialFiles, trial: Trial, which: int, replaced: list[Trial]) -> None:
    """What one that was replaced was writing then."""
    if trial not in replaced:
        return
    after = epoch_of(trial)
    late: tuple[Callable[[], None], ...] = (
        lambda: save_result(files, after, weight_of(after)),
        lambda: files.save_checkpoint(7, {"attempt": trial.attempt}, attempt=trial.attempt),
        lambda: files.commit(after),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialFiles, "_require_newest", nobody_looked)
        late[which % len(late)]()


def check(files: TrialFiles, known: Known, claims: int) -> None:
    record, result, predicted = files.record(7), files.load_result(7), files.load_predicted(7)
    assert record == (known.record if claims else None)
    if result is not None:
        assert float(result.weights["w"]) == pytest.approx(weight_of(known.record))
        assert predicted is not None
    if known.result == known.record:  # else that of the attempt before may be what the record tells of
        assert result is not None
    checkpoint = files.load_checkpoint(7)
    if known.checkpoint is not None:
        assert checkpoint == {"attempt": known.checkpoint}


@pytest.mark.parametrize(
    "change", [{"score": "high"}, {"number": "0"}, {"attempt": None}, {"notes": []}, {"error": 5}, {"seconds": True}]
)
def test_a_record_with_values_of_other_types_is_set_aside(files: TrialFiles, change: dict[str, Any]) -> None:
    files.commit(finetune(0))
    (file,) = files.folder.glob("[0-9]*.json")
    values = {**json.loads(file.read_text()), **change}
    values.pop("checksum")
    file.write_text(json.dumps({**values, "checksum": trial_files._checksum(values)}))
    assert files.read() == ([], [file.name])


def test_nothing_of_somebody_else_is_touched_where_a_foreign_run_says_its_trials_are(tmp_path: Path) -> None:
    theirs = ("2024-photos.json", "thesis/draft.tmp", "notes.tmp", "000001/model.tmp", "1.json", "000002.jpg.tmp")
    for name in theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    ours = ("000001.json.0a1b2c3d.tmp", "000001/best.pt.0a1b2c3d.tmp", "000001/attempt-2/checkpoint.pt.0a1b2c3d.tmp")
    (tmp_path / "000001" / "attempt-2").mkdir()
    for name in ours:
        (tmp_path / name).write_text("half")
    assert TrialFiles(tmp_path).read() == ([], [])
    assert all((tmp_path / name).read_text() == "mine" for name in theirs)
    assert not any((tmp_path / name).exists() for name in ours)
