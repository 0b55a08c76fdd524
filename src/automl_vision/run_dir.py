"""What a run and an inspection leave on disk, and who may write there.

report.html report.json   what people and programs read
gallery.json              pictures and heat maps of mistakes, which report.html shows
model.pt                  the classifier
README.md                 model card
config.toml run.json      the settings in force, and what the run works on
split.csv audit.csv       which image went where, and what was found
compared.json             pictures that were laid over each other (only with lineage = full)
label_suspects.csv        training and validation images whose label looks wrong
predictions_test.csv      class probabilities of every test image; report.json can be computed again from it
predictions_val.csv       the same for validation (and predictions_augmented_val.csv, where there are any)
trials/ trials.csv        every trial
study.db                  the same for optuna-dashboard
workers/                  what processes printed that ran trials (only with several at a time)
looks.json                every look at the test set
interrupted-N/            report, card and predictions of a session that was interrupted after N looks
events.log                what happened when

A run folder is made for its user alone (mode 0700), and its files as the umask has them: opening the folder shares the
run. A folder that was there before keeps its mode.

An inspection leaves inspect.html, split.csv, audit.csv, and evidence.csv: every pair behind the groups.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from pandas.api.types import is_numeric_dtype

from automl_vision.config import Settings, dump_settings, load_dumped_settings, load_settings
from automl_vision.data.hub_name import is_hub_name
from automl_vision.data.preparation import Prepared
from automl_vision.data.shards.address import is_url
from automl_vision.data.split import split_table
from automl_vision.errors import AutomlVisionError, BudgetExhausted, RunError, RunInUse
from automl_vision.files import UNFINISHED, write_json, write_text
from automl_vision.place import Place, place_of
from automl_vision.report.gallery import Gallery
from automl_vision.rules import TRIALS_URL, is_address
from automl_vision.run_facts import wrong_fact
from automl_vision.seal import is_sealed, seal_of
from automl_vision.spreadsheet import disarmed

MODEL = "model.pt"
REPORT_HTML = "report.html"
REPORT_JSON = "report.json"
GALLERY = "gallery.json"
MODEL_CARD = "README.md"
CONFIG = "config.toml"
RUN = "run.json"
SPLIT = "split.csv"
AUDIT = "audit.csv"
LABEL_SUSPECTS = "label_suspects.csv"
COMPARED = "compared.json"
EVIDENCE = "evidence.csv"
INSPECTION = "inspect.html"
#: What an inspection leaves.
INSPECTED = (INSPECTION, SPLIT, AUDIT, EVIDENCE)
TRIALS = "trials"
WORKERS = "workers"
TRIALS_CSV = "trials.csv"
STUDY = "study.db"
LOOKS = "looks.json"
INTERRUPTED = "interrupted"
EVENTS = "events.log"
LOCK = ".lock"
OWNER = f"{LOCK}.owner"
SPENT = "spent.json"

#: Trackers that may send what they are told to other machines.
SENDING = frozenset(("mlflow", "wandb"))
_PROCESS = re.compile(r"[0-9]{1,20}")

#: What a full disk, a quota and a limit on the size of files say.
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


#: Seconds that no run has taken.
_MOST_SECONDS = 1e12
#: What values of other types than were written raise in whoever reads them.
_NOT_AS_WRITTEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def predictions_file(set_name: str) -> str:
    """Name of the file with the predictions of a set: "test", "val" or "augmented_val"."""
    return f"predictions_{set_name}.csv"


#: What a report consists of, and follows from. The first is what the others are looked for by.
_REPORT_FILES = (
    REPORT_JSON,
    REPORT_HTML,
    MODEL_CARD,
    GALLERY,
    *(predictions_file(name) for name in ("test", "val", "augmented_val")),
)
#: Files that a run writes into its folder, beside exported trials; all others there are the user's.
_OWN_FILES = (
    *(CONFIG, RUN, LOCK, OWNER, SPENT, LOOKS, EVENTS, MODEL, TRIALS_CSV, STUDY),
    *(SPLIT, AUDIT, COMPARED, LABEL_SUSPECTS, *_REPORT_FILES),
)
#: Folders that it and its trackers make there, beside those of trials and of interrupted sessions.
_OWN_FOLDERS = (WORKERS, "tracking", "tensorboard", "wandb")
#: What a process leaves that was killed amid writing one of its own files.
_OWN_UNFINISHED = re.compile(
    rf"(?:{'|'.join(map(re.escape, _OWN_FILES))}|model-trial-[0-9]+\.pt(?:\.md)?)\.[0-9a-z]+{re.escape(UNFINISHED)}"
)


class RunDir:
    """The folder of one run, held by one process at a time.

    Use `create` or `open`; both take the lock, which the kernel frees when the process ends, however it ends.
    """

    def __init__(self, path: Path, lock: FileLock, *, is_new: bool = False, made_folder: bool = False) -> None:
        self.path = path
        self._is_new, self._made_folder = is_new, made_folder
        self._lock = lock
        self._spent_before = _seconds(path / SPENT)
        with as_written(path / SPENT):
            by_backbone = _read_json(path / SPENT, {}).get("by_backbone", {})
            self._turns = {str(name): float(seconds) for name, seconds in by_backbone.items()}

    @classmethod
    def create(cls, path: Path, settings: Settings, about: Mapping[str, Any]) -> RunDir:
        """A new run. What a process left that was killed while it made one is no run yet: it is made anew.

        Args:
            path: folder to make; it must be missing or empty.
            settings: the settings in force.
            about: what the run works on; plain types.

        Raises:
            RunError: the folder holds something, or cannot be written.
            RunInUse: another process makes a run there at this moment.
        """
        try:
            if not _is_free(path):
                raise _taken(path)
            made = not path.exists()
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(path) as lock:
                if not _is_free(path):  # another process was faster, and has left
                    raise _taken(path)
                _sweep(path)
                write_text(path / CONFIG, dump_settings(settings))
                write_json(path / RUN, {**about, **_seal(settings, about)})
                return cls(path, lock, is_new=True, made_folder=made)
        except OSError as error:
            raise cannot_write(path, error) from None

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """A run made earlier, to go on with it.

        Raises:
            RunError: there is no run, or the folder cannot be written.
            RunInUse: another process works in it.
        """
        if not (path / RUN).is_file() or not (path / CONFIG).is_file():
            raise RunError("there is no run in this folder", value=str(path), fix="give the folder that search printed")
        _require_no_way_out(path)
        try:
            with _locked(path) as lock:
                _sweep(path)
                return cls(path, lock)
        except OSError as error:
            raise cannot_write(path, error) from None

    def close(self) -> None:
        """Give the folder to others."""
        self._lock.release()

    def discard(self) -> None:
        """Remove what a new run wrote, unless trials were begun: one that could not start leaves nothing behind.

        Called while the folder is held, so that no other process writes such files. What the user put there meanwhile
        stays. A folder that was there before stays, too: its mode, its group or a disk that is mounted there are its
        owner's.
        """
        if not self._is_new or (self.path / TRIALS).exists():
            return
        for name in _OWN_FOLDERS:
            if not (self.path / name).is_symlink():
                shutil.rmtree(self.path / name, ignore_errors=True)
        for name in _OWN_FILES:
            (self.path / name).unlink(missing_ok=True)
        _sweep(self.path)
        if self._made_folder:
            with suppress(OSError):  # another process has begun there, or the user has put something there
                self.path.rmdir()

    @property
    def settings(self) -> Settings:
        """The settings that the run was started with.

        Raises:
            ConfigError: a value is wrong, or the file was cut off.
        """
        return load_dumped_settings(self.path / CONFIG)

    def require_trust(self, moved: Collection[str], *, trusted: bool) -> None:
        """Go on only with what this user wanted: a run of somebody else's says where to send and write what.

        Args:
            moved: settings that are given anew, by dotted name.
            trusted: whether the user says that the run may do what it says.

        Raises:
            RunError: its settings reach out of its folder, and this user did not make it on this machine.
        """
        wanted = reaching(self.settings, self.about)
        own = trusted or is_sealed(wanted, self.about.get("seal"))
        left = {name: value for name, value in wanted.items() if name not in moved}
        if left and not own:
            raise RunError(
                "this run was not begun by you on this machine, and what it says reaches out of its folder",
                value="\n  - " + "\n  - ".join(f"{name} = {value}" for name, value in left.items()),
                fix="look into its config.toml and run.json; to go on as they say, add --trust-run",
            )

    def seal(self) -> None:
        """From now on, what the run says is what this user wants."""
        self.add_about(**_seal(self.settings, self.about))

    def move(self, settings: Mapping[str, Any]) -> None:
        """Keep other values of settings that say where a run works, by dotted name.

        Raises:
            ConfigError: a value is wrong.
        """
        if settings:
            _ = self.settings  # as they are, they have to be whole
            write_text(self.path / CONFIG, dump_settings(load_settings(self.path / CONFIG, settings)))

    @property
    def about(self) -> dict[str, Any]:
        """What the run works on.

        Raises:
            RunError: its file is damaged, or no longer there.
        """
        facts = read_about(self.path)
        if not facts:
            raise RunError(
                "a file of the run is no longer there",
                value=str(self.path / RUN),
                fix="restore it from a copy, or start a new run; leave the folder of a run alone while it is at work",
            )
        return facts

    def add_about(self, **facts: Any) -> None:
        """Keep facts about what the run works on, so that a resumed run can hold to them."""
        write_json(self.path / RUN, {**self.about, **facts})

    @property
    def trials(self) -> Place:
        """Where trials are kept."""
        return trials_place(self.path)

    @property
    def keeps_trials(self) -> bool:
        """Whether that is this folder."""
        return "trials" not in self.about

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
        write_json(self.path / SPENT, {"seconds": seconds, **({"by_backbone": self._turns} if self._turns else {})})

    @property
    def turns(self) -> dict[str, float]:
        """Backbone -> seconds of its own time that the sessions of this run used, where each has a time of its own."""
        return dict(self._turns)

    def note_turns(self, seconds: Mapping[str, float]) -> None:
        """Have `note_spent` also record how much of its own time each backbone used."""
        self._turns = dict(seconds)

    @property
    def looks(self) -> list[dict[str, Any]]:
        """Every look at the test set, oldest first."""
        return read_looks(self.path)

    def record_look(self, reason: str, rows: int) -> list[dict[str, Any]]:
        """Write a look at the test set to the ledger. Called before the set is opened, so that no crash hides it."""
        entry = {"number": len(self.looks) + 1, "when": now(), "reason": reason, "images": rows}
        looks = [*self.looks, entry]
        write_json(self.path / LOOKS, looks)
        return looks

    def put_report_aside(self) -> None:
        """Move the report of an interrupted session, and what belongs to it, to a folder of its own.

        Called before model.pt is replaced: figures beside a model are of that model, or there are none; also after a
        kill.
        """
        left = [self.path / name for name in _REPORT_FILES if (self.path / name).exists()]
        if left:
            aside = self.path / f"{INTERRUPTED}-{len(self.looks)}"
            aside.mkdir(exist_ok=True)
            for file in left:
                file.replace(aside / file.name)

    def log(self, line: str) -> None:
        """Append one line to the event log."""
        with (self.path / EVENTS).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{now()} {line}\n")


def reaching(settings: Settings, about: Mapping[str, Any]) -> dict[str, str]:
    """What of a run leads out of its folder: where figures are sent, and what is written or fetched elsewhere.

    Args:
        settings: of the run.
        about: what it works on, as `run.json` has it.

    Returns:
        name -> value, for people.
    """
    data, trials = str(about.get("data", "")), str(about.get("trials") or "")
    sent = [name for name in settings.output.track if name in SENDING]
    ways = {
        "output.track": ", ".join(sent),
        "machine.cluster": settings.machine.cluster,
        "machine.cache_dir": settings.machine.cache_dir,
        "trials": trials,
        "data": data if is_hub_name(Path(data)) or is_url(Path(data)) else "",
    }
    return {name: value for name, value in ways.items() if value}


def _seal(settings: Settings, about: Mapping[str, Any]) -> dict[str, str]:
    wanted = reaching(settings, about)
    return {"seal": seal_of(wanted)} if wanted else {}


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the run in `path`, where there is one, while something is written there.

    Whoever opens a run sweeps files of it that are half written.

    Raises:
        RunError: another process works in it, or the folder cannot be written.
    """
    if not (path / RUN).is_file():
        yield
        return
    run = RunDir.open(path)
    try:
        yield
    finally:
        run.close()


def read_report(path: Path) -> dict[str, Any] | None:
    """The content of report.json of the run in `path`, None before there is one; takes no lock.

    Raises:
        RunError: the file is damaged.
    """
    report: dict[str, Any] = _read_json(path / REPORT_JSON, {})
    return report or None


def read_gallery(path: Path) -> Gallery | None:
    """The pictures of mistakes of the run in `path`, None where there are none; takes no lock.

    Raises:
        RunError: the file is damaged.
    """
    values: dict[str, Any] = _read_json(path / GALLERY, {})
    try:
        return Gallery.from_dict(values) if values else None
    except ValueError as error:
        raise _damaged(path / GALLERY, str(error)) from None


def read_about(path: Path) -> dict[str, Any]:
    """What the run in `path` works on; takes no lock.

    Raises:
        RunError: the file is damaged.
    """
    there = (path / RUN).exists()
    facts: dict[str, Any] = _read_json(path / RUN, {})
    if there and "data" not in facts:
        raise _damaged(path / RUN, "it does not say where the images are")
    if wrong := wrong_fact(facts):
        raise _damaged(path / RUN, wrong)
    return facts


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Whoever reads a file of a run that holds other values than were written tells so, and not that this is a fault.

    Raises:
        RunError: with the file, in place of what reading its values raised.
    """
    try:
        yield
    except _NOT_AS_WRITTEN as error:
        raise _damaged(file, f"{type(error).__name__}: {error}"[:300]) from error


def read_compared(path: Path) -> dict[str, Any]:
    """What comparing pictures told in an earlier session of the run in `path`; empty before.

    Raises:
        RunError: the file is damaged.
    """
    told: dict[str, Any] = _read_json(path / COMPARED, {})
    return told


def trials_place(path: Path) -> Place:
    """Where the run in `path` keeps its trials: its own folder, or where it was told to; takes no lock.

    Raises:
        RunError: the file that says so is damaged.
        UsageError: it is an address, and a package that reads it is not installed.
    """
    given = str(read_about(path).get("trials") or "")
    wrong = TRIALS_URL.check(given)  # whoever wrote the folder chose it
    if wrong:
        raise _damaged(path / RUN, f"trials {wrong}")
    return place_of(given) if given else path / TRIALS


def trials_address(trials_url: str, path: Path) -> str:
    """A place below `trials_url` that is of the run in `path` alone."""
    own = f"{path.name}-{secrets.token_hex(4)}"
    if is_address(trials_url):
        return f"{trials_url.rstrip('/')}/{own}"
    return str(Path(trials_url).expanduser().absolute() / own)


def read_looks(path: Path) -> list[dict[str, Any]]:
    """Every look at the test set of the run in `path`, oldest first; takes no lock.

    Raises:
        RunError: the file is damaged.
    """
    ledger: list[dict[str, Any]] = _read_json(path / LOOKS, [])
    if not all(isinstance(each, dict) for each in ledger):
        raise _damaged(path / LOOKS, "it holds no list of looks")
    return ledger


def _read_json(file: Path, default: Any) -> Any:
    """The content of `file`, of the type of `default`; `default` where there is no such file."""
    if not file.exists():
        return default
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, str(error)) from None
    if type(content) is not type(default):
        raise _damaged(file, f"it holds a {type(content).__name__}")
    return content


def _seconds(file: Path) -> float:
    seconds = _read_json(file, {"seconds": 0.0}).get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < _MOST_SECONDS:
        raise _damaged(file, f"seconds are {str(seconds)[:100]}")
    return float(seconds)


def _damaged(file: Path, reason: str) -> RunError:
    return RunError(
        "a file of the run is damaged", value=f"{file} ({reason})", fix="restore it from a copy, or start a new run"
    )


def write_tables(prepared: Prepared, folder: Path) -> None:
    """Write split.csv and audit.csv.

    Raises:
        OSError: the folder cannot be written.
    """
    for name, text in tables(prepared).items():
        write_text(folder / name, text)


def tables(prepared: Prepared) -> dict[str, str]:
    """Name of the file -> its content, of split.csv and audit.csv."""
    table = split_table(prepared.manifest, prepared.facts, prepared.audit, prepared.split)
    return {SPLIT: table_text(table), AUDIT: table_text(prepared.audit.to_frame(prepared.manifest))}


def table_text(table: pd.DataFrame) -> str:
    """The table as CSV; text that a spreadsheet would run as a formula has a `'` before it."""
    safe = {
        name: column if is_numeric_dtype(column) else pd.Series(_disarmed(column), index=table.index, dtype=object)
        for name, column in table.items()
    }
    return str(pd.DataFrame(safe).to_csv(index=False, lineterminator="\n"))


def _disarmed(column: Iterable[Any]) -> list[Any]:
    return [disarmed(cell) if isinstance(cell, str) else cell for cell in column]


def now() -> str:
    """Wall-clock time for people, UTC, ISO 8601. Nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_about_writing(path: Path, error: OSError) -> bool:
    """Whether an error is of a full disk, or of a file in the run folder."""
    inside = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(path)
    return inside or error.errno in NO_ROOM


def cannot_write(path: Path, error: OSError) -> AutomlVisionError:
    """The error for a folder that cannot be written or a full disk."""
    value = f"{path} ({error.strerror or error})"
    if error.errno in NO_ROOM:
        go_on = how_to_resume(path) if (path / RUN).is_file() else "start it again"
        return BudgetExhausted("the disk is full", value=value, fix=f"free some space, then {go_on}")
    is_run = os.path.isfile(path / RUN)  # noqa: PTH113 - it says no where the folder may not be entered
    elsewhere = "copy the run to where you may write" if is_run else "choose another folder with --out or --runs"
    return RunError("the output folder cannot be written", value=value, fix=f"fix its permissions, or {elsewhere}")


def how_to_resume(path: Path) -> str:
    """What to type to go on with a run, ready to be pasted into a shell."""
    return f"go on with: automl-vision search --resume {shlex.quote(str(path))}"


def _require_no_way_out(path: Path) -> None:
    """What is written to a link goes to where it leads: whoever packed the folder chose that."""
    home = path.resolve()
    there = (Path(place, name) for place, folders, files in os.walk(path) for name in (*folders, *files))
    outside = next((each for each in there if each.is_symlink() and not _leads_into(each, home)), None)
    if outside is not None:
        raise RunError(
            "a link in the run folder leads out of it",
            value=f"{outside} (to {outside.readlink()})",
            fix="put what it leads to in its place; --trials-url keeps trials elsewhere",
        )


def _leads_into(link: Path, folder: Path) -> bool:
    try:
        return link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # in a circle
        return False


def _is_free(path: Path) -> bool:
    """Whether a run can be made here: nothing is there, or what is there before a run is, whose process is gone.

    Files are made in this order: the lock, who has it, the settings, what the run works on. With the last one it is
    a run; until then nobody could resume it, and nothing of anybody's work is in it.
    """
    if not path.exists():
        return True
    if not path.is_dir():
        return False
    names = {each.name for each in path.iterdir() if not _is_unfinished(each.name)}
    return names in ({LOCK}, {LOCK, OWNER}, {LOCK, OWNER, CONFIG}) or not any(path.iterdir())


def _is_unfinished(name: str) -> bool:
    return name.startswith((OWNER, CONFIG, RUN)) and name.endswith(UNFINISHED)


def _sweep(path: Path) -> None:
    """Remove what a killed process left half written, while the run is held.

    No file of another name goes: it may be what somebody writes there who does not hold the run, as predictions.
    """
    for leftover in path.glob(f"*{UNFINISHED}"):
        if _OWN_UNFINISHED.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def _taken(path: Path) -> RunError:
    if (path / RUN).is_file():
        return RunError(
            "this folder holds a run", value=str(path), fix=f"choose another --out, or {how_to_resume(path)}"
        )
    what = "the run folder is not empty" if path.is_dir() else "the run folder is a file"
    return RunError(what, value=str(path), fix="choose another folder with --out, --runs or --name")


@contextmanager
def _locked(path: Path) -> Iterator[FileLock]:
    """Take the lock of a run folder, and give it back if what follows fails."""
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunInUse(
            "another process works in this run folder",
            value=f"{path} (process {_owner(path)})",
            fix="wait until it ends, or start a run of another name",
        ) from None
    try:
        write_text(path / OWNER, str(os.getpid()))
        yield lock
    except BaseException:
        lock.release()
        raise


def _owner(path: Path) -> str:
    """The number of the process that took the lock last."""
    try:
        said = (path / OWNER).read_text(encoding="ascii")
    except (OSError, ValueError):
        return "unknown"
    return said if _PROCESS.fullmatch(said) else "unknown"
