"""Trackers beside a run: what they are sent, and that none can hold it up or end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from automl_vision.config import load_settings
from automl_vision.errors import ConfigError, UsageError
from automl_vision.events import Event, Note, TrialChanged
from automl_vision.files import write_json
from automl_vision.rules import TRACKER_NAMES
from automl_vision.search.trial import EpochRecord, Trial
from automl_vision.tracking import trackers, tracking
from automl_vision.tracking.tracker import Subject
from automl_vision.tracking.trackers import TRACKERS, TrackerRow, require_trackers
from automl_vision.tracking.tracking import MEMORY, Tracking
from automl_vision.training.recipe import Recipe

REPORT = {
    "test": {"n": 5, "accuracy": {"value": 0.75, "low": 0.5, "high": 0.9}, "per_class": []},
    "validation": {"accuracy": {"value": 0.8, "low": 0.6, "high": 0.9}, "macro_f1": {"value": None}},
    "augmented_validation": None,
    "trials": {"total": 2},
}


def trial(number: int, epochs: int, state: str = "running") -> Trial:
    done = tuple(EpochRecord(n + 1, 1.0, 0.9, 0.5 + n / 100, 1e-3, 1.0) for n in range(epochs))
    recipe = Recipe(backbone="resnet18", resolution=64, kind="finetune" if epochs else "probe")
    score = done[-1].score if done else 0.4
    return Trial(number, recipe, {}, "portfolio", state=state, epochs=done, score=score)  # type: ignore[arg-type]


class Recording:
    """A tracker that remembers, and fails or waits where it is told to."""

    def __init__(self, fails: str = "", waits: threading.Event | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fails, self.waits = fails, waits

    def _call(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if self.waits is not None:
            self.waits.wait(20)
        if name == self.fails:
            raise RuntimeError("no way to http://me:secret@server\nand more")

    def start(self, subject: Subject) -> str:
        self._call("start", (subject.name, subject.settings["search.budget"], dict(subject.memory)))
        subject.memory["id"] = "x1"
        return "look here"

    def trial(self, trial: Trial, epochs: Sequence[EpochRecord]) -> None:
        self._call("trial", (trial.number, trial.state, [each.epoch for each in epochs]))

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        self._call("finish", (dict(figures), [file.name for file in files]))

    def close(self, *, failed: bool) -> None:
        self._call("close", failed)


def tracked(
    path: Path, monkeypatch: pytest.MonkeyPatch, recording: Recording, told: list[Event], warned: list[str]
) -> Tracking:
    monkeypatch.setitem(TRACKERS, "mlflow", TrackerRow("MLflow", (), lambda: recording))
    settings = load_settings(overrides={"output.track": ["mlflow"], "search.budget": "5m"})
    return Tracking(path, settings, told.append, warned.append, lambda text: told.append(Note(text)))


def changed(one: Trial) -> TrialChanged:
    return TrialChanged(one, one, 10.0)


def test_every_epoch_is_sent_once_and_the_end_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, told, warned = Recording(), [], []
    (tmp_path / "report.html").write_text("<p>")
    with tracked(tmp_path, monkeypatch, recording, told, warned) as one:
        for each in (trial(0, 0, "complete"), trial(1, 0), trial(1, 1), trial(1, 3, "paused"), trial(1, 4, "complete")):
            one.tell(changed(each))
        one.finish(REPORT, 30.0)
    assert recording.calls == [
        ("start", (tmp_path.name, "5m", {})),
        ("trial", (0, "complete", [])),
        ("trial", (1, "running", [1])),
        ("trial", (1, "paused", [2, 3])),
        ("trial", (1, "complete", [4])),
        ("finish", ({"test/accuracy": 0.75, "validation/accuracy": 0.8, "trials": 2.0}, ["report.html"])),
        ("close", False),
    ]
    assert warned == []
    assert told[-1] == Note("look here")
    assert len([event for event in told if isinstance(event, TrialChanged)]) == 5, "the listener hears all"


def test_a_resumed_run_sends_what_is_new_under_what_was_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trials").mkdir()
    write_json(tmp_path / "trials" / "000001.json", trial(1, 2).to_dict())
    (tmp_path / "trials" / "000002.json").write_text("damaged")
    write_json(tmp_path / "tracking-of-another.json", {})
    for expected in ({}, {"id": "x1"}):
        recording = Recording()
        with tracked(tmp_path, monkeypatch, recording, [], []) as one:
            one.tell(changed(trial(1, 3)))
            one.finish(REPORT, 30.0)
        assert recording.calls[0] == ("start", (tmp_path.name, "5m", expected))
        assert recording.calls[1] == ("trial", (1, "running", [3]))
    assert (tmp_path / "trials" / "000002.json").exists(), "it is the search that sets it aside"


def test_what_is_nested_beyond_all_depth_is_taken_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tracker remembered and the record of a trial, in a run folder of somebody else's."""
    (tmp_path / "trials").mkdir()
    (tmp_path / MEMORY).mkdir()
    for file in (tmp_path / "trials" / "000001.json", *(tmp_path / MEMORY / f"{name}.json" for name in TRACKERS)):
        file.write_text("[" * 100_000)
    recording, warned = Recording(), []
    with tracked(tmp_path, monkeypatch, recording, [], warned) as one:
        one.tell(changed(trial(1, 2)))
        one.finish(REPORT, 30.0)
    assert recording.calls[:2] == [("start", (tmp_path.name, "5m", {})), ("trial", (1, "running", [1, 2]))]
    assert warned == []


@pytest.mark.parametrize("where", ["start", "trial", "finish", "close"])
def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    recording, told, warned = Recording(fails=where), [], []
    with tracked(tmp_path, monkeypatch, recording, told, warned) as one:
        for epochs in (1, 2, 3):
            one.tell(changed(trial(1, epochs)))
            time.sleep(0.05)
        one.finish(REPORT, 30.0)
    (sentence,) = warned
    assert "MLflow does not track this run any more: RuntimeError: no way to http://…@server" in sentence
    assert "secret" not in sentence and "and more" not in sentence
    assert recording.calls[-1][0] == "close"
    assert len(told) == 3, "no place is told, the events all are"


def test_a_tracker_that_hangs_does_not_hold_up_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "LEAST_SECONDS", 0.2)
    release, warned = threading.Event(), []
    recording = Recording(waits=release)
    started = time.monotonic()
    with tracked(tmp_path, monkeypatch, recording, [], warned) as one:
        for epochs in range(1, 50):
            one.tell(changed(trial(1, epochs)))
        one.finish(REPORT, 0.0)
    assert time.monotonic() - started < 10
    release.set()
    (sentence,) = warned
    assert "not done" in sentence


def test_a_run_that_fails_ends_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording()
    with pytest.raises(ZeroDivisionError), tracked(tmp_path, monkeypatch, recording, [], []) as one:
        one.tell(changed(trial(1, 1)))
        raise ZeroDivisionError
    assert recording.calls[-1] == ("close", True)


def test_no_tracker_costs_nothing(tmp_path: Path) -> None:
    told: list[Event] = []
    before = threading.active_count()
    with Tracking(tmp_path, load_settings(), told.append, pytest.fail, pytest.fail) as one:
        one.tell(changed(trial(1, 1)))
        assert threading.active_count() == before
        one.finish(REPORT, 30.0)
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_setting_knows_every_tracker_and_no_other() -> None:
    assert tuple(TRACKERS) == TRACKER_NAMES
    with pytest.raises(ConfigError, match="tensorboard, mlflow, wandb"):
        load_settings(overrides={"output.track": ["comet"]})


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", TrackerRow("Weights & Biases", ("no_such_package",), trackers._wandb))
    with pytest.raises(UsageError, match="Weights & Biases") as caught:
        require_trackers(["wandb"])
    assert "pip install 'automl-vision[track]'" in str(caught.value)
