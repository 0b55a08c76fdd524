"""The run folder: one process at a time, and nothing damaged goes unnamed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pytest

from automl_vision import run_dir
from automl_vision.config import Settings, dump_settings, load_settings
from automl_vision.errors import AutomlVisionError, BudgetExhausted, ConfigError, RunError, RunInUse
from automl_vision.files import write_atomically
from automl_vision.run_dir import RunDir, cannot_write, predictions_file, read_report, trials_address
from automl_vision.tracking.to_tensorboard import FOLDER
from automl_vision.tracking.tracking import MEMORY
from automl_vision.user_state import state_folder

ABOUT = {"data": "/images", "note": "ä"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir.create(tmp_path / "runs" / "a run", load_settings(overrides={"search.budget": "90s"}), ABOUT)
    yield made
    made.close()


def reopened(run: RunDir) -> RunDir:
    run.close()
    return RunDir.open(run.path)


# --- making and opening ---------------------------------------------------------------------------------------------


def test_a_new_run_holds_its_settings_and_what_it_works_on(run: RunDir) -> None:
    again = reopened(run)
    assert again.settings == load_settings(overrides={"search.budget": "90s"})
    assert again.about == ABOUT
    assert (again.spent, again.looks, again.report) == (0.0, [], None)
    again.close()


def test_an_empty_folder_will_do_and_one_with_anything_in_it_will_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunDir.create(tmp_path / "empty", Settings(), ABOUT).close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").touch()
    for taken, what in ((tmp_path / "empty", "holds a run"), (tmp_path / "full", "not empty")):
        before = sorted(taken.iterdir())
        with pytest.raises(RunError, match=what) as caught:
            RunDir.create(taken, Settings(), ABOUT)
        assert str(taken) in str(caught.value)
        assert sorted(taken.iterdir()) == before


@pytest.mark.parametrize(
    "left",
    [
        [run_dir.LOCK],
        [run_dir.LOCK, f"{run_dir.OWNER}.47110815.tmp"],
        [run_dir.LOCK, run_dir.OWNER, f"{run_dir.CONFIG}.47110815.tmp"],
        [run_dir.LOCK, run_dir.OWNER, run_dir.CONFIG],
        [run_dir.LOCK, run_dir.OWNER, run_dir.CONFIG, f"{run_dir.RUN}.47110815.tmp"],
    ],
)
def test_what_a_process_left_that_was_killed_while_it_made_a_run_is_in_nobodys_way(
    tmp_path: Path, left: list[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_text("half")
    made = RunDir.create(folder, Settings(), ABOUT)
    assert reopened(made).about == ABOUT
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("own", [[run_dir.CONFIG], [run_dir.LOCK, run_dir.CONFIG], [run_dir.LOCK, "notes.tmp"]])
def test_files_of_the_user_are_not_taken_for_such_leftovers(tmp_path: Path, own: list[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in own:
        (folder / name).write_text("precious")
    with pytest.raises(RunError, match="not empty"):
        RunDir.create(folder, Settings(), ABOUT)
    assert {each.name: each.read_text() for each in folder.iterdir()} == dict.fromkeys(own, "precious")


def test_who_opens_a_run_sweeps_what_was_left_of_its_own_files_and_nothing_else(run: RunDir) -> None:
    """Somebody else may write predictions or a comparison there at this moment, without the lock."""
    own = ("report.json", "model.pt", "predictions_augmented_val.csv", "model-trial-3.pt", "model-trial-3.pt.md")
    theirs = ("notes.tmp", "mine.csv.0a1b2c3d.tmp", "comparison.json.0a1b2c3d.tmp", "thesis.report.json.0a.tmp")
    for name in (*(f"{each}.0a1b2c3d.tmp" for each in own), *theirs):
        (run.path / name).write_text("half")
    reopened(run)
    assert sorted(each.name for each in run.path.glob("*.tmp")) == sorted(theirs)


def test_every_file_that_a_run_writes_is_swept_by_its_name() -> None:
    golden = Path(__file__).parent / "golden" / "run"
    left = {each.name for each in golden.iterdir() if each.is_file()}
    assert left <= set(run_dir._OWN_FILES)
    assert {FOLDER, MEMORY} <= set(run_dir._OWN_FOLDERS)


def test_predictions_that_are_written_into_a_run_are_not_lost_when_it_is_opened(run: RunDir) -> None:
    run.close()

    def meanwhile(file: IO[bytes]) -> None:
        file.write(b"predictions")
        RunDir.open(run.path).close()

    write_atomically(run.path / "mine.csv", meanwhile)
    assert (run.path / "mine.csv").read_bytes() == b"predictions"


def test_a_run_that_could_not_start_takes_nothing_of_the_user_with_it(tmp_path: Path) -> None:
    made = RunDir.create(tmp_path / "run", Settings(), ABOUT)
    (made.path / "workers").mkdir()
    (made.path / "split.csv").write_text("own")
    (made.path / "notes").mkdir()
    (made.path / "notes" / "thesis.txt").write_text("precious")
    (made.path / "notes.txt").write_text("precious")
    made.discard()
    made.close()
    assert sorted(each.name for each in made.path.iterdir()) == ["notes", "notes.txt"]
    assert (made.path / "notes" / "thesis.txt").read_text() == "precious"


def test_two_processes_that_make_the_same_run_do_not_write_over_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, locked = tmp_path / "run", run_dir._locked

    def slow(path: Path) -> Any:
        monkeypatch.setattr(run_dir, "_locked", locked)
        RunDir.create(path, Settings(), {"data": "/of the faster one"}).close()
        return locked(path)

    monkeypatch.setattr(run_dir, "_locked", slow)
    with pytest.raises(RunError, match="holds a run"):
        RunDir.create(folder, Settings(), ABOUT)
    assert run_dir.read_about(folder) == {"data": "/of the faster one"}


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(RunError) as caught:
            RunDir.create(path, Settings(), ABOUT)
        assert caught.value.fix
    assert (tmp_path / "file").read_text() == "precious"


def test_only_a_run_can_be_opened(tmp_path: Path, run: RunDir) -> None:
    run.close()
    for path in (tmp_path, tmp_path / "missing", run.path / run_dir.CONFIG):
        with pytest.raises(RunError, match="no run"):
            RunDir.open(path)


@pytest.mark.parametrize("name", [run_dir.RUN, run_dir.CONFIG])
def test_a_run_that_was_never_made_whole_is_none(run: RunDir, name: str) -> None:
    (run.path / name).unlink()
    with pytest.raises(RunError, match="no run"):
        reopened(run)


def test_a_full_disk_is_said_so_and_the_lock_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(BudgetExhausted, match="the disk is full"):
            RunDir.create(tmp_path / "run", Settings(), ABOUT)
    (tmp_path / "run" / run_dir.LOCK).unlink()
    RunDir.create(tmp_path / "run", Settings(), ABOUT).close()


def test_a_full_disk_is_told_from_a_closed_folder(tmp_path: Path) -> None:
    full = cannot_write(tmp_path, OSError(28, "No space left on device"))
    closed = cannot_write(tmp_path, OSError(13, "Permission denied"))
    assert (type(full), full.exit_code) == (BudgetExhausted, 5)
    assert "start it again" in full.fix  # there is nothing to go on with
    assert "--out" in closed.fix
    (tmp_path / run_dir.RUN).touch()
    assert "--resume" in cannot_write(tmp_path, OSError(28, "No space left on device")).fix
    assert (type(closed), closed.exit_code) == (RunError, 2)
    of_a_run = cannot_write(tmp_path, OSError(13, "Permission denied")).fix  # report --out compares runs
    assert ("--out" in of_a_run, "copy the run" in of_a_run) == (False, True)


def test_discarding_removes_a_run_that_never_began_and_spares_one_with_trials(tmp_path: Path) -> None:
    for name in ("begun", "empty"):
        run = RunDir.create(tmp_path / name, Settings(), ABOUT)
        if name == "begun":
            (run.path / run_dir.TRIALS).mkdir()
        run.discard()
        run.close()
    assert [each.name for each in tmp_path.iterdir()] == ["begun"]
    RunDir.open(tmp_path / "begun").close()


def test_unfinished_files_are_swept(run: RunDir) -> None:
    (run.path / "report.json.47110815.tmp").write_text("{")
    reopened(run).close()
    assert not list(run.path.glob("*.tmp"))


# --- one process at a time ------------------------------------------------------------------------------------------

HOLDER = """
    import sys, time
    from pathlib import Path
    from automl_vision.run_dir import RunDir
    run = RunDir.open(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_is_named_and_a_killed_one_frees_the_folder(run: RunDir) -> None:
    run.close()
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(run.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunInUse, match=f"process {holder.pid}") as caught:
            RunDir.open(run.path)
        assert caught.value.exit_code == 75
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    RunDir.open(run.path).close()


def test_the_same_process_cannot_open_it_twice_either(run: RunDir) -> None:
    with pytest.raises(RunError, match=f"process {os.getpid()}"):
        RunDir.open(run.path)
    again = reopened(run)
    with pytest.raises(RunError, match="another process"):
        RunDir.open(run.path)
    again.close()


def test_a_run_that_cannot_be_opened_is_not_left_locked(run: RunDir) -> None:
    (run.path / run_dir.SPENT).write_text("")
    with pytest.raises(RunError, match="damaged"):
        reopened(run)
    (run.path / run_dir.SPENT).unlink()
    RunDir.open(run.path).close()


def test_without_a_note_of_the_owner_it_is_unknown(run: RunDir) -> None:
    (run.path / run_dir.OWNER).unlink()
    with pytest.raises(RunInUse, match="process unknown"):
        RunDir.open(run.path)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"12\x1b[2J", b"9" * 10_000])
def test_a_damaged_note_of_the_owner_is_none(run: RunDir, damage: bytes) -> None:
    (run.path / run_dir.OWNER).write_bytes(damage)
    with pytest.raises(RunInUse, match="process unknown"):
        RunDir.open(run.path)


def test_of_two_that_start_in_one_folder_the_second_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one looked before the first made the folder, and has the lock once the first is done."""
    path, mkdir = tmp_path / "run", Path.mkdir

    def first(self: Path, *args: Any, **options: Any) -> None:
        if self == path:
            monkeypatch.undo()
            RunDir.create(path, Settings(), {"data": "/first"}).close()
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", first)
    with pytest.raises(RunError, match="holds a run"):
        RunDir.create(path, Settings(), {"data": "/second"})
    assert run_dir.read_about(path) == {"data": "/first"}


@pytest.mark.skipif(os.name != "posix", reason="folders have no such modes there")
def test_a_run_folder_is_its_users_alone_and_one_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        (tmp_path / "shared").mkdir(mode=0o755)
        for name, mode in (("shared", 0o755), ("new/run", 0o700)):
            RunDir.create(tmp_path / name, Settings(), ABOUT).close()
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755  # of the folders above it nothing is known
        assert stat.S_IMODE((tmp_path / "new/run" / run_dir.CONFIG).stat().st_mode) == 0o644
    finally:
        os.umask(before)


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_time_spent_is_known_to_the_next_session(run: RunDir) -> None:
    run.note_spent(12.5)
    run.note_spent(31.0)
    assert run.spent == 0.0
    again = reopened(run)
    assert again.spent == 31.0
    again.close()


def test_what_each_backbone_used_is_known_to_the_next_session(run: RunDir) -> None:
    run.note_turns({"resnet18": 4.5})
    run.note_spent(9.0)
    again = reopened(run)
    assert (again.turns, again.spent) == ({"resnet18": 4.5}, 9.0)
    again.note_spent(11.0)  # whoever records the time of the run forgets nothing
    third = reopened(again)
    assert (third.turns, third.spent) == ({"resnet18": 4.5}, 11.0)
    third.close()


def test_every_look_gets_the_next_number_across_sessions(run: RunDir) -> None:
    assert [look["number"] for look in run.record_look("final evaluation", 120)] == [1]
    again = reopened(run)
    assert [look["number"] for look in again.record_look("again", 120)] == [1, 2]
    assert [(look["reason"], look["images"]) for look in again.looks] == [("final evaluation", 120), ("again", 120)]
    again.close()


def test_a_look_that_cannot_be_written_is_no_look(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller opens the set only after this returned."""
    run.record_look("first", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="space"):
            run.record_look("second", 1)
    assert [look["reason"] for look in run.looks] == ["first"]


def test_facts_are_added_to_what_is_known(run: RunDir) -> None:
    run.add_about(fingerprint="abc")
    run.add_about(images=3)
    assert run.about == {**ABOUT, "fingerprint": "abc", "images": 3}


def test_any_line_can_be_logged(run: RunDir) -> None:
    run.log("stage read")
    run.log("a file named \udcff ä")
    first, second = (run.path / run_dir.EVENTS).read_text(encoding="utf-8").splitlines()
    assert first.endswith(" stage read")
    assert second.endswith(r"a file named \udcff ä")


def test_the_report_can_be_read_while_the_run_is_held(run: RunDir) -> None:
    (run.path / run_dir.REPORT_JSON).write_text('{"format": 1}')
    assert read_report(run.path) == run.report == {"format": 1}


def test_each_set_has_its_own_predictions() -> None:
    assert len({predictions_file(name) for name in ("test", "val", "augmented_val")}) == 3


# --- damage ---------------------------------------------------------------------------------------------------------

CONTENTS: dict[str, Any] = {
    run_dir.RUN: ABOUT,
    run_dir.SPENT: {"seconds": 1.0},
    run_dir.LOOKS: [{"number": 1}],
    run_dir.REPORT_JSON: {"format": 1},
}


def everything(path: Path) -> None:
    run = RunDir.open(path)
    try:
        assert (run.about, run.spent, run.looks, run.report) is not None
    finally:
        run.close()


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize(
    "damage",
    [b"", b"\0" * 40, b'{"seco', b"\xff\xfe", b"3", b'"text"', b"null", b"[" * 10**6],
    ids=["empty", "zeros", "cut off", "no text", "a number", "a text", "nothing", "brackets"],
)
def test_a_damaged_file_is_named(run: RunDir, name: str, damage: bytes) -> None:
    for each, content in CONTENTS.items():
        (run.path / each).write_text(json.dumps(content))
    run.close()
    everything(run.path)
    (run.path / name).write_bytes(damage)
    with pytest.raises(RunError, match="damaged") as caught:
        everything(run.path)
    assert str(run.path / name) in str(caught.value)


def test_a_run_that_does_not_say_where_its_images_are_is_damaged(run: RunDir) -> None:
    (run.path / run_dir.RUN).write_text("{}")
    with pytest.raises(RunError, match="does not say where the images are"):
        run_dir.read_about(run.path)
    (run.path / run_dir.RUN).unlink()
    assert run_dir.read_about(run.path) == {}


def test_a_run_whose_folder_is_removed_while_it_is_at_work_says_so(run: RunDir) -> None:
    (run.path / run_dir.RUN).unlink()
    with pytest.raises(RunError, match=r"no longer there(.|\n)*run\.json"):
        run.about["fingerprint"]


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1", '"10"', "null", "[]"])
def test_time_that_makes_no_sense_is_damage(run: RunDir, seconds: str) -> None:
    (run.path / run_dir.SPENT).write_text(f'{{"seconds": {seconds}}}')
    with pytest.raises(RunError, match=run_dir.SPENT):
        reopened(run)


@pytest.mark.parametrize(
    "damage", ["", "[search", "search = 3", "[search]\nbudgit = '1m'", "[data]\n\n[search]\ntrials = 1\n"]
)
def test_damaged_settings_are_named_and_never_taken_for_the_defaults(run: RunDir, damage: str) -> None:
    (run.path / run_dir.CONFIG).write_text(damage)
    for act in (lambda: run.settings, lambda: run.move({"machine.cluster": ""})):
        with pytest.raises(AutomlVisionError, match=run_dir.CONFIG):
            act()
    assert (run.path / run_dir.CONFIG).read_text() == damage


def test_tables_hold_nothing_that_a_spreadsheet_runs():
    table = pd.DataFrame(
        {
            "path": pd.Series(["=a.png", "b\udcff.png", "'+c", ""], dtype=object),
            "label": ["-1", "+1", "it's", "x"],
            "group": [-1, 2, 3, 4],
            "score": [0.5, -1.0, float("nan"), 1.0],
        }
    )
    text = run_dir.table_text(table)
    assert text.splitlines() == [
        "path,label,group,score",
        "'=a.png,'-1,-1,0.5",
        "b\udcff.png,'+1,2,-1.0",
        "''+c,it's,3,",
        ",x,4,1.0",
    ]
    plain = table.drop(columns=["path", "label"])
    assert run_dir.table_text(plain) == plain.to_csv(index=False, lineterminator="\n")
    assert run_dir.table_text(table[:0]) == "path,label,group,score\n"


# --- where trials are -----------------------------------------------------------------------------------------------


def test_trials_are_in_the_run_folder_unless_it_was_told_another_place(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "a", Settings(), {"data": "/data"})
    assert run.trials == tmp_path / "a" / "trials"
    run.add_about(trials=trials_address(str(tmp_path / "shared"), run.path))
    run.close()
    other = RunDir.open(tmp_path / "a")
    assert isinstance(other.trials, Path)
    assert other.trials.parent == tmp_path / "shared"
    assert other.trials.name.startswith("a-")
    other.close()


def test_two_runs_of_one_name_have_trials_of_their_own(tmp_path: Path) -> None:
    addresses = [trials_address("s3://bucket/runs/", tmp_path / "a") for _ in range(2)]
    assert addresses[0] != addresses[1]
    assert all(each.startswith("s3://bucket/runs/a-") for each in addresses)


def test_a_run_may_work_elsewhere_and_stays_what_it_is(tmp_path: Path) -> None:
    settings = load_settings(overrides={"search.trials": 3, "machine.cluster": "10.0.0.1:6379"})
    run = RunDir.create(tmp_path / "a", settings, {"data": "/data"})
    run.move({"machine.cluster": ""})
    assert run.settings == load_settings(overrides={"search.trials": 3})
    run.move({})
    with pytest.raises(ConfigError, match="HOST:PORT"):
        run.move({"machine.cluster": "nowhere"})
    assert run.settings.machine.cluster == ""
    run.close()


def test_a_run_folder_cannot_name_just_any_place_for_its_trials(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "a", Settings(), {"data": "/data", "trials": "http://host/a"})
    with pytest.raises(RunError, match="damaged"):
        _ = run.trials
    run.close()


def test_discarding_spares_a_folder_that_was_there_before_and_a_run_made_earlier(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o750)
    run = RunDir.create(mine, Settings(), ABOUT)
    (mine / "split.csv").write_text("path\n")
    run.discard()
    run.close()
    assert [each.name for each in mine.iterdir()] == []
    assert mine.stat().st_mode & 0o777 == 0o750
    RunDir.create(mine, Settings(), ABOUT).close()
    resumed = RunDir.open(mine)
    resumed.discard()
    resumed.close()
    assert (mine / run_dir.RUN).exists()


def test_a_report_goes_aside_before_its_model_does(run: RunDir) -> None:
    run.put_report_aside()
    assert not list(run.path.glob("interrupted*"))
    run.record_look("interrupted", 3)
    belongs = {"report.json", "report.html", "README.md", "predictions_test.csv"}
    for name in (*belongs, "model.pt", "split.csv"):
        (run.path / name).write_text(name)
    run.put_report_aside()
    aside = run.path / "interrupted-1"
    assert {each.name for each in aside.iterdir()} == belongs
    assert {"model.pt", "split.csv", "looks.json"} <= {each.name for each in run.path.iterdir()}
    assert not belongs & {each.name for each in run.path.iterdir()}


def test_what_is_written_in_a_run_is_not_swept_meanwhile(run: RunDir) -> None:
    run.close()
    with run_dir.held(run.path), pytest.raises(RunError, match="another process"):
        RunDir.open(run.path)
    with run_dir.held(run.path.parent):  # where there is no run
        RunDir.open(run.path).close()


# --- values of other types, in folders of others --------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [
        {"note": 1},
        {"data": 5},
        {"data": "/d", "drawn": "x"},
        {"data": "/d", "resize": []},
        {"data": "/d", "found": True},
        {"data": "a\0b"},
        {"data": "/d", "drawn": -5},
        {"data": "/d", "decode_side": 10**400},
        {"data": "/d", "plan": {"backbones": 5}},
        {"data": "/d", "plan": {"backbones": [1], "resolutions": [32]}},
        {"data": "/d", "plan": {"backbones": ["resnet18"], "resolutions": ["32"]}},
        {"data": "/d", "plan": {"backbones": ["resnet18"], "budget": "99d"}},
        {"data": "/d", "limits": {"sides": {"resnet18": 5}, "latencies": []}},
        {"data": "/d", "limits": {"sides": {}, "latencies": [["resnet18", 32, "fast"]]}},
        {"data": "/d", "limits": {}},
        {"data": "/d", "resize": {}},
        {"data": "/d", "resize": {"chosen": "zzz", "reason": ""}},
        {"data": "/d", "resize": {"chosen": [], "reason": ""}},
        {"data": "/d", "unsettled": [1]},
        {"data": "/d", "unsettled": {"a": []}},
        {"data": "/d", "unsettled": {"a": "odd"}},
    ],
)
def test_facts_of_other_types_are_named(run: RunDir, facts: Any) -> None:
    (run.path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"run\.json"):
        _ = run.about


def test_facts_as_runs_write_them_are_read(run: RunDir) -> None:
    facts = {
        "data": "/d",
        "found": 3,
        "plan": {"backbones": ["resnet18"], "resolutions": [32]},
        "limits": {"sides": {"resnet18": [32, 64]}, "latencies": [["resnet18", 32, 1.5], ["resnet18", 64, 3]]},
        "resize": {"chosen": "", "reason": "the settings ask for it", "square": True},
        "unsettled": {"0a": "too_large"},
    }
    (run.path / "run.json").write_text(json.dumps(facts))
    assert run.about == facts


@pytest.mark.parametrize(
    "spent",
    ['{"seconds": 1, "by_backbone": 5}', '{"seconds": 1, "by_backbone": [1]}', '{"seconds": 9' + "9" * 400 + "}"],
)
def test_times_of_other_types_are_named(run: RunDir, spent: str) -> None:
    (run.path / "spent.json").write_text(spent)
    with pytest.raises(RunError, match=r"spent\.json"):
        reopened(run)


def test_looks_and_galleries_of_other_types_are_named(run: RunDir) -> None:
    (run.path / "looks.json").write_text("[1, 2]")
    with pytest.raises(RunError, match=r"looks\.json"):
        _ = run.looks
    (run.path / "gallery.json").write_text('{"total": Infinity, "mistakes": [], "pairs": [], "cut_short": false}')
    with pytest.raises(RunError, match=r"gallery\.json"):
        run_dir.read_gallery(run.path)


def test_what_reading_values_raises_names_their_file(tmp_path: Path) -> None:
    for raised in (KeyError("pairs"), TypeError("no list"), OverflowError("too large"), AttributeError("items")):
        with pytest.raises(RunError, match=r"compared\.json"), run_dir.as_written(tmp_path / "compared.json"):
            raise raised
    with pytest.raises(OSError), run_dir.as_written(tmp_path / "compared.json"):
        raise OSError("the disk is broken, and not the file")


# --- runs of somebody else's ----------------------------------------------------------------------------------------


@pytest.fixture
def sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    """A run of this user's, of which a tracker is told."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = RunDir.create(tmp_path / "sending", load_settings(overrides={"output.track": ["wandb"]}), ABOUT)
    yield made
    made.close()


def rewritten(run: RunDir, **settings: Any) -> RunDir:
    """Somebody changed the settings, and whatever else they could."""
    changed = load_settings(run.path / "config.toml", {f"machine.{name}": value for name, value in settings.items()})
    (run.path / "config.toml").write_text(dump_settings(changed))
    return reopened(run)


def test_what_this_user_began_may_reach_out(sending: RunDir) -> None:
    again = reopened(sending)
    again.require_trust((), trusted=False)
    again.close()
    assert stat.S_IMODE((state_folder() / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["changed", "on another machine", "without a seal", "with a seal that is no text"])
def test_what_somebody_else_wrote_may_not(sending: RunDir, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    about = json.loads((sending.path / "run.json").read_text())
    seals = {"without a seal": None, "with a seal that is no text": 7}
    (sending.path / "run.json").write_text(json.dumps({**about, "seal": seals.get(how, about["seal"])}))
    if how == "on another machine":
        monkeypatch.setenv("XDG_STATE_HOME", str(sending.path.parent / "elsewhere"))
    again = rewritten(sending, cluster="10.0.0.1:6379") if how == "changed" else reopened(sending)
    with pytest.raises(RunError, match=r"output\.track = wandb(.|\n)*--trust-run"):
        again.require_trust((), trusted=False)
    again.require_trust((), trusted=True)
    again.close()


def test_what_is_given_anew_is_what_the_user_wants(run: RunDir) -> None:
    again = rewritten(run, cluster="10.0.0.1:6379")
    again.require_trust(("machine.cluster",), trusted=False)
    with pytest.raises(RunError, match=r"machine\.cluster"):
        again.require_trust((), trusted=False)
    again.move({"machine.cluster": "10.0.0.2:6379"})
    again.seal()
    again.require_trust((), trusted=False)
    again.close()


@pytest.mark.parametrize(
    "about", [{"trials": "/elsewhere"}, {"data": "hf:evil/set"}, {"data": "https://127.0.0.1/shards"}], ids=str
)
def test_places_that_run_json_names_count_as_well(run: RunDir, about: dict[str, str]) -> None:
    run.add_about(**about)
    with pytest.raises(RunError, match=next(iter(about))):
        run.require_trust((), trusted=False)


def test_a_run_that_stays_in_its_folder_needs_no_seal(run: RunDir) -> None:
    run.require_trust((), trusted=False)
    assert "seal" not in run.about


@pytest.mark.parametrize("name", ["events.log", ".lock", "trials", "trials/000001"])
def test_a_link_that_leads_out_of_the_run_is_not_written_through(run: RunDir, tmp_path: Path, name: str) -> None:
    run.close()
    outside = tmp_path / "outside"
    outside.mkdir() if name.startswith("trials") else outside.write_text("mine")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).symlink_to(outside)
    with pytest.raises(RunError, match="leads out of it"):
        RunDir.open(run.path)
    assert outside.is_dir() or outside.read_text() == "mine"


def test_a_link_within_the_run_is_fine(run: RunDir) -> None:
    (run.path / "newest.log").symlink_to("events.log")
    reopened(run).close()
