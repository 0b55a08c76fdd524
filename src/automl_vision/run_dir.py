"""What a run leaves on disk, and who may write there.

report.html report.json   what people and programs read
model.pt                  the classifier
README.md                 model card
config.toml run.json      the settings in force, and what the run works on
split.csv audit.csv       which image went where, and what was found
compared.json             pictures that were laid over each other (only with lineage = full)
predictions_test.csv      class probabilities of every test image; report.json can be computed again from it
predictions_val.csv       the same for validation (and predictions_augmented_val.csv, where there are any)
trials/ trials.csv        every trial
study.db                  the same for optuna-dashboard
looks.json                every look at the test set
events.log                what happened when
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from automl_vision.config import Settings, dump_settings, load_settings
from automl_vision.data.preparation import Prepared
from automl_vision.data.split import split_table
from automl_vision.errors import AutomlVisionError, BudgetExhausted, RunError
from automl_vision.files import UNFINISHED, write_json, write_text

MODEL = "model.pt"
REPORT_HTML = "report.html"
REPORT_JSON = "report.json"
MODEL_CARD = "README.md"
CONFIG = "config.toml"
RUN = "run.json"
SPLIT = "split.csv"
AUDIT = "audit.csv"
COMPARED = "compared.json"
TRIALS = "trials"
TRIALS_CSV = "trials.csv"
STUDY = "study.db"
LOOKS = "looks.json"
EVENTS = "events.log"
LOCK = ".lock"
SPENT = "spent.json"

#: What a full disk, a quota and a limit on the size of files say.
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def predictions_file(set_name: str) -> str:
    """Name of the file with the predictions of a set: "test", "val" or "augmented_val"."""
    return f"predictions_{set_name}.csv"


class RunDir:
    """The folder of one run, held by one process at a time.

    Use `create` or `open`; both take the lock, which the kernel frees when the process ends, however it ends.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock
        self._opened = time.monotonic()
        self._spent_before = float(self._read(SPENT, {"seconds": 0.0})["seconds"])

    @classmethod
    def create(cls, path: Path, settings: Settings, about: Mapping[str, Any]) -> RunDir:
        """A new run.

        Args:
            path: folder to make; it must be missing or empty.
            settings: the settings in force.
            about: what the run works on; plain types.

        Raises:
            RunError: the folder holds something, or cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise _taken(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path, _locked(path))
            write_text(path / CONFIG, dump_settings(settings))
            write_json(path / RUN, dict(about))
        except OSError as error:
            raise cannot_write(path, error) from None
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """A run made earlier, to go on with it.

        Raises:
            RunError: there is no run, or another process works in it.
        """
        if not (path / RUN).is_file() or not (path / CONFIG).is_file():
            raise RunError("there is no run in this folder", value=str(path), fix="give the folder that search printed")
        run = cls(path, _locked(path))
        for leftover in path.glob(f"*{UNFINISHED}"):
            leftover.unlink(missing_ok=True)
        return run

    def close(self) -> None:
        """Give the folder to others."""
        self._lock.release()

    def discard(self) -> None:
        """Remove the folder again, unless trials were begun: a run that could not start leaves nothing behind."""
        if not (self.path / TRIALS).exists():
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def settings(self) -> Settings:
        """The settings that the run was started with."""
        return load_settings(self.path / CONFIG)

    @property
    def about(self) -> dict[str, Any]:
        """What the run works on."""
        return dict(self._read(RUN, {}))

    def add_about(self, **facts: Any) -> None:
        """Keep facts about what the run works on, so that a resumed run can hold to them."""
        write_json(self.path / RUN, {**self.about, **facts})

    @property
    def report(self) -> dict[str, Any] | None:
        """The content of report.json, None before there is one."""
        return read_report(self.path)

    @property
    def spent(self) -> float:
        """Seconds of the budget that earlier sessions of this run used."""
        return self._spent_before

    def note_spent(self, seconds: float) -> None:
        """Record the seconds used so far, all sessions together, so that a killed run resumes with what is left."""
        write_json(self.path / SPENT, {"seconds": seconds})

    @property
    def looks(self) -> list[dict[str, Any]]:
        """Every look at the test set, oldest first."""
        return list(self._read(LOOKS, []))

    def record_look(self, reason: str, rows: int) -> list[dict[str, Any]]:
        """Write a look at the test set to the ledger. Called before the set is opened, so that no crash hides it."""
        entry = {"number": len(self.looks) + 1, "when": now(), "reason": reason, "images": rows}
        looks = [*self.looks, entry]
        write_json(self.path / LOOKS, looks)
        return looks

    def log(self, line: str) -> None:
        """Append one line to the event log."""
        with (self.path / EVENTS).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{now()} {line}\n")

    def _read(self, name: str, default: Any) -> Any:
        return _read_json(self.path / name, default)


def read_report(path: Path) -> dict[str, Any] | None:
    """The content of report.json of the run in `path`, None before there is one; takes no lock.

    Raises:
        RunError: the file is damaged.
    """
    report: dict[str, Any] | None = _read_json(path / REPORT_JSON, None)
    return report


def _read_json(file: Path, default: Any) -> Any:
    if not file.exists():
        return default
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            "a file of the run is damaged", value=f"{file} ({error})", fix="restore it from a copy, or start a new run"
        ) from None


def write_tables(prepared: Prepared, folder: Path) -> None:
    """Write split.csv and audit.csv.

    Raises:
        OSError: the folder cannot be written.
    """
    table = split_table(prepared.manifest, prepared.facts, prepared.audit, prepared.split)
    write_text(folder / SPLIT, table.to_csv(index=False, lineterminator="\n"))
    findings = prepared.audit.to_frame(prepared.manifest)
    write_text(folder / AUDIT, findings.to_csv(index=False, lineterminator="\n"))


def now() -> str:
    """Wall-clock time for people, UTC, ISO 8601. Nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cannot_write(path: Path, error: OSError) -> AutomlVisionError:
    """The error for a folder that cannot be written or a full disk."""
    value = f"{path} ({error.strerror or error})"
    if error.errno in NO_ROOM:
        return BudgetExhausted("the disk is full", value=value, fix=f"free some space, then {how_to_resume(path)}")
    return RunError(
        "the output folder cannot be written",
        value=value,
        fix="choose another folder with --out or --runs, or fix its permissions",
    )


def how_to_resume(path: Path) -> str:
    """What to type to go on with a run, ready to be pasted into a shell."""
    return f"go on with: automl-vision search --resume {shlex.quote(str(path))}"


def _taken(path: Path) -> RunError:
    if (path / RUN).is_file():
        return RunError(
            "this folder holds a run", value=str(path), fix=f"choose another --out, or {how_to_resume(path)}"
        )
    what = "the run folder is not empty" if path.is_dir() else "the run folder is a file"
    return RunError(what, value=str(path), fix="choose another folder with --out, --runs or --name")


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            "another process works in this run folder",
            value=f"{path} (process {_owner(path)})",
            fix="wait until it ends, or start a run of another name",
        ) from None
    write_text(path / f"{LOCK}.owner", str(os.getpid()))
    return lock


def _owner(path: Path) -> str:
    owner = path / f"{LOCK}.owner"
    return owner.read_text(encoding="utf-8") if owner.exists() else "unknown"
