"""Trackers beside a run: each in a thread of its own, so that none can hold up the search, and none can end it.

A server that does not answer makes its library wait for minutes, and any library may fail in any way. The search goes
on; the user is told once, and so is the report.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from automl_vision.config import TABLES, Settings
from automl_vision.events import TRACKER_THREAD, Event, Tell, TrialChanged
from automl_vision.files import write_json
from automl_vision.run_dir import CONFIG, MODEL_CARD, REPORT_HTML, REPORT_JSON, TRIALS
from automl_vision.tracking.tracker import Subject, Tracker, figures_of
from automl_vision.tracking.trackers import TRACKERS

#: What trackers keep from one session of a run to the next, in the run folder.
MEMORY = "tracking"
#: The files of a run that tell of it; the model stays where it is.
TOLD = (REPORT_HTML, REPORT_JSON, MODEL_CARD, CONFIG)
#: Seconds that a run waits for a tracker in the end: at least, where the budget is used up, and at most.
LEAST_SECONDS, MOST_SECONDS = 5.0, 60.0

_Message = Callable[[Tracker], object]
#: Names and passwords in addresses.
_SECRET = re.compile(r"//\S*@")


class Delivery:
    """One tracker, its thread, and what is still to be sent.

    Args:
        name: in `TRACKERS`.
        path: the run folder.
        settings: dotted name -> value.
    """

    def __init__(self, name: str, path: Path, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.failure = ""
        self.place = ""
        self._memory_file = path / MEMORY / f"{name}.json"
        self._subject = Subject(path.resolve(), settings, _remembered(self._memory_file))
        self._waiting: SimpleQueue[_Message | None] = SimpleQueue()
        self._ended_well = False
        # A daemon: a library that waits for a server must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"{TRACKER_THREAD}{name}", daemon=True)
        self._thread.start()

    def send(self, message: _Message) -> None:
        """Have the tracker's thread call this with the tracker, after all that was sent before."""
        self._waiting.put(message)

    def end(self, *, well: bool) -> None:
        """Nothing more is sent."""
        self._ended_well = well
        self._waiting.put(None)

    def wait(self, seconds: float, since_the_report: float) -> None:
        """Wait until the tracker is done, but no longer than this."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.failure = self.failure or f"it was not done {since_the_report:.0f} s after the report"

    def _work(self) -> None:
        try:
            self._deliver(TRACKERS[self.name].make())
        except Exception as error:  # noqa: BLE001 - libraries of others fail in any way; it is told, not hidden
            self.failure = _reason(error)

    def _deliver(self, tracker: Tracker) -> None:
        try:
            self.place = tracker.start(self._subject)
            self._keep_memory()
            while (message := self._waiting.get()) is not None:
                message(tracker)
                self._keep_memory()
        except BaseException:
            self._ended_well = False
            raise
        finally:
            tracker.close(failed=not self._ended_well)

    def _keep_memory(self) -> None:
        if self._subject.memory != _remembered(self._memory_file):
            self._memory_file.parent.mkdir(exist_ok=True)
            write_json(self._memory_file, self._subject.memory)


class Tracking:
    """All trackers of one run. Used as a context: where it is left by an error, the run counts as failed.

    Args:
        path: the run folder.
        settings: all settings; `output.track` names the trackers.
        tell: the run's own listener.
        warn: told once of each tracker that failed.
        note: told where each tracker can be looked at.
    """

    def __init__(
        self, path: Path, settings: Settings, tell: Tell, warn: Callable[[str], None], note: Callable[[str], None]
    ) -> None:
        self._path, self._tell, self._warn, self._note = path, tell, warn, note
        self._sent = _epochs_on_disk(path / TRIALS) if settings.output.track else {}
        values = setting_values(settings)
        self._deliveries = [Delivery(name, path, values) for name in dict.fromkeys(settings.output.track)]
        self._told: set[str] = set()
        self._open = True

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._end(LEAST_SECONDS, well=False)

    def tell(self, event: Event) -> None:
        """Pass an event on to the listener, and what trackers want to know to them."""
        self._tell(event)
        if isinstance(event, TrialChanged) and self._deliveries:
            trial = event.trial
            new = trial.epochs[self._sent.get(trial.number, 0) :]
            self._sent[trial.number] = len(trial.epochs)
            if new or trial.state != "running":
                for delivery in self._deliveries:
                    delivery.send(lambda tracker: tracker.trial(trial, new))
        self.say_what_happened()

    def say_what_happened(self) -> None:
        """Tell of trackers that began or failed since this was asked last."""
        for delivery in self._deliveries:
            if delivery.failure and delivery.name not in self._told:
                self._told.add(delivery.name)
                self._warn(f"{TRACKERS[delivery.name].title} does not track this run any more: {delivery.failure}")

    def finish(self, report: Mapping[str, Any], seconds_left: float) -> None:
        """Send what came of the run, and wait for the trackers.

        Args:
            report: the content of report.json.
            seconds_left: of the budget; infinity where there is none.
        """
        figures, files = figures_of(report), [self._path / name for name in TOLD if (self._path / name).is_file()]
        for delivery in self._deliveries:
            delivery.send(lambda tracker: tracker.finish(figures, files))
        self._end(min(max(seconds_left, LEAST_SECONDS), MOST_SECONDS), well=True)

    def _end(self, seconds: float, *, well: bool) -> None:
        self._open = False
        until = time.monotonic() + seconds  # for all of them together
        for delivery in self._deliveries:
            delivery.end(well=well)
        for delivery in self._deliveries:
            delivery.wait(max(0.0, until - time.monotonic()), seconds)
        self.say_what_happened()
        for delivery in self._deliveries:
            if delivery.place and not delivery.failure:
                self._note(delivery.place)


def setting_values(settings: Settings) -> dict[str, Any]:
    """Dotted name -> value of every setting that is set."""
    tables = ((name, getattr(settings, name)) for name in TABLES)
    found = {f"{name}.{each.name}": getattr(table, each.name) for name, table in tables for each in fields(table)}
    return {name: value for name, value in found.items() if value is not None}


def _epochs_on_disk(folder: Path) -> dict[int, int]:
    """Trial -> epochs that an earlier session of the run recorded, and sent."""
    found: dict[int, int] = {}
    for file in folder.glob("[0-9]*.json"):
        try:
            number, epochs = int(file.name.partition(".")[0]), json.loads(file.read_text(encoding="utf-8"))["epochs"]
            found[number] = max(len(epochs), found.get(number, 0))  # a trial has a record for each attempt
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # the search sets a damaged record aside, and says so
    return found


def _remembered(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _reason(error: BaseException) -> str:
    """One line without passwords."""
    said = _SECRET.sub("//…@", (str(error).strip().splitlines() or [""])[0])[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
