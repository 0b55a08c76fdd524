"""What a person sees while a run is at work, and what a log file gets."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from automl_vision.cli import progress
from automl_vision.cli.progress import STOPPING, LiveView, PlainLines
from automl_vision.cli.terminal import safe, safe_lines, seconds_text, visible
from automl_vision.events import Note, Progress, StageStarted, TrialChanged
from automl_vision.search.trial import Trial
from automl_vision.stages.context import StopRequest
from automl_vision.training.recipe import Recipe


def trial(number, **changes):
    kind = "probe" if number == 0 else "finetune"
    recipe = Recipe(kind=kind, backbone="efficientnet_lite0", resolution=96)
    return Trial(number=number, recipe=recipe, parameters={}, origin="portfolio").replace(**changes)


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 100 columns, as text."""
    shown = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(progress, "stderr", shown)

    def rendered(view):
        with shown.capture() as captured:
            shown.print(view._view())
        return captured.get()

    return rendered


def test_the_live_view_shows_stage_time_and_trials(screen):
    view = LiveView()
    view.tell(StageStarted("decode", "21 images", seconds_left=80.0, budget=90.0))
    view.tell(Progress(7, 21))
    assert "7/21" in screen(view)
    assert "1m 20s left of 1m 30s" in screen(view)
    view.tell(StageStarted("search", "validation maximises accuracy", seconds_left=70.0, budget=90.0))
    best = trial(1, state="complete", score=0.9123)
    for number in range(2, 12):
        view.tell(TrialChanged(trial(number, state="running"), best, 60.0))
    view.tell(TrialChanged(best, best, 60.0))
    shown = screen(view)
    assert "7/21" not in shown
    assert "Searching (validation maximises accuracy)" in shown
    assert "1m 10s left" in shown
    assert "0.9123" in shown, "the best stays in view, however many came after it"
    assert "efficientnet_lite0 at 96 px" in shown
    assert len(shown.splitlines()) <= 16


def test_without_a_budget_no_time_is_shown(screen):
    view = LiveView()
    view.tell(StageStarted("search"))
    assert "left" not in screen(view)


def test_the_live_view_says_that_it_is_stopping(screen):
    stop = StopRequest()
    view = LiveView(stop)
    assert STOPPING not in screen(view)
    stop.requested = True
    assert STOPPING in screen(view)


def test_plain_lines(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("automl_vision.cli.progress.time.monotonic", lambda: now[0])
    lines = PlainLines()
    lines.tell(StageStarted("decode", "900 images", 80.0, 90.0))
    for done in range(1, 901):
        now[0] += 0.0625
        lines.tell(Progress(done, 900))
    first = trial(0, state="running")
    lines.tell(TrialChanged(first, None, 50.0))
    done = first.replace(state="complete", score=0.5)
    lines.tell(TrialChanged(done, done, 40.0))
    lines.tell(TrialChanged(trial(1, state="failed", error="loss is \x1b[31mNaN"), done, 30.0))
    lines.tell(Note("look [here]", "warning"))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Decoding every image once (900 images)"
    assert said[1:6] == [f"  {done} of 900" for done in (161, 322, 483, 644, 805)]
    probe = "  trial 0  efficientnet_lite0 at 96 px, linear probe  -  score 0.5000  complete  best so far  40s left"
    assert said[6] == probe
    assert said[7].endswith("failed  30s left  loss is \\x1b[31mNaN")
    assert said[8] == "Warning: look [here]"


def test_text_of_foreign_origin():
    assert visible("a\nb\x1b[0m\udcff‮é📷") == "a\\x0ab\\x1b[0m\\xff\\u202eé📷"
    assert safe("[bold]x") == "\\[bold]x"
    assert safe_lines("a\n[b]\x07") == "a\n\\[b]\\x07"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (0.4, "0s"), (59.6, "1m 0s"), (95, "1m 35s"), (3600, "1h 0m"), (7265, "2h 1m")]
)
def test_seconds_for_people(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize("reason", ["\x1b]0;pwned\x07", "[/]", 7])
def test_what_a_record_says_of_a_head_acts_nowhere(reason, capsys):
    recipe = dataclasses.replace(trial(0).recipe, kind="head")
    found = trial(0).replace(recipe=recipe, state="failed", notes={"head_search": {"reason": reason}})
    PlainLines().tell(TrialChanged(found, None, 1.0))
    said = capsys.readouterr().err
    assert "trial 0" in said
    assert "\x1b" not in said
