"""Showing what a pipeline tells: a live view for a person, plain lines for a log file, or nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from automl_vision.cli.signals import LEAVING, STOPPING
from automl_vision.cli.terminal import interactive, safe, seconds_text, stderr
from automl_vision.events import STAGES, Event, Note, Progress, StageStarted, Tell, TrialChanged, silent
from automl_vision.stop_request import StopRequest

if TYPE_CHECKING:
    from automl_vision.search.trial import Trial

BAR_WIDTH = 32
TABLE_ROWS = 8  # trials shown live: the best, and the newest
LINE_EVERY = 10.0  # seconds between two plain lines of one stage


@contextmanager
def listener(*, quiet: bool, stop: StopRequest | None = None) -> Iterator[Tell]:
    """What shows the events of a pipeline, by the kind of terminal."""
    if quiet:
        yield silent
    elif interactive():
        with LiveView(stop) as view:
            yield view.tell
    else:
        yield PlainLines().tell


class PlainLines:
    """One line per stage, per trial and every few seconds of long work; for logs and continuous integration."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tell(self, event: Event) -> None:
        """Show one event."""
        line = self._line(event)
        if line:
            self._last = time.monotonic()
            stderr.print(line, highlight=False, soft_wrap=True)

    def _line(self, event: Event) -> str:
        match event:
            case StageStarted():
                return stage_text(event)
            case Note():
                return note_text(event)
            case Progress() if time.monotonic() - self._last > LINE_EVERY:
                return f"  {event.done:,} of {event.total:,}"
            case TrialChanged() if event.trial.state != "running" or event.trial.epochs:
                return trial_line(event)
        return ""


class LiveView:
    """Stage, progress bar, how much of the budget is used, and the table of trials with the best so far.

    Args:
        stop: shown as soon as it is requested.
    """

    def __init__(self, stop: StopRequest | None = None) -> None:
        self._stop = stop
        self._budget = self._ends = math.inf
        self._stage = ""
        columns = (
            TextColumn(""),
            BarColumn(bar_width=BAR_WIDTH),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
        )
        self._bar = Bar(*columns, console=stderr)
        self._task = self._bar.add_task("", total=None, visible=False)
        self._trials: dict[int, Trial] = {}
        self._best: Trial | None = None
        self._live = Live(get_renderable=self._view, console=stderr, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, event: Event) -> None:
        """Take one event into the view."""
        match event:
            case StageStarted():
                self._stage = stage_text(event)
                self._budget, self._ends = event.budget, time.monotonic() + event.seconds_left
                self._bar.reset(self._task, visible=False)
            case Progress():
                self._advance(event)
            case Note():
                stderr.print(note_text(event), highlight=False)
            case TrialChanged():
                self._trials[event.trial.number] = event.trial
                self._best = event.best

    def _advance(self, event: Progress) -> None:
        if self._bar.tasks[0].total != event.total:  # a new count: what is left follows from its own pace
            self._bar.reset(self._task, total=event.total, visible=True)
        self._bar.update(self._task, completed=event.done, visible=True)

    def _view(self) -> Group:
        parts: list[RenderableType] = [Text.from_markup(f"[bold]{self._stage}[/bold]")]
        if self._budget != math.inf:
            parts.append(self._time())
        if self._bar.tasks[0].visible:
            parts.append(self._bar)
        if self._trials:
            parts.append(self._table())
        if self._stop is not None and self._stop.requested:
            parts.append(Text(LEAVING if self._stop.taken else STOPPING, style="yellow"))
        return Group(*parts)

    def _time(self) -> Table:
        """How much of the budget is used, and what is left of it."""
        left = max(self._ends - time.monotonic(), 0.0)
        line = Table.grid(padding=(0, 1))
        used = ProgressBar(total=self._budget, completed=self._budget - left, width=BAR_WIDTH)
        line.add_row("", used, Text(f"{seconds_text(left)} left of {seconds_text(self._budget)}", style="cyan"))
        return line

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title, side in (
            ("trial", "right"),
            ("recipe", "left"),
            ("epochs", "right"),
            ("score", "right"),
            ("", "left"),
        ):
            table.add_column(title, justify=side)  # type: ignore[arg-type] # a literal in the table above
        for trial in self._shown():
            style = "green" if self._best is not None and trial.number == self._best.number else ""
            table.add_row(
                str(trial.number), recipe_text(trial), epochs_text(trial), score_text(trial), trial.state, style=style
            )
        return table

    def _shown(self) -> list[Trial]:
        newest = sorted(self._trials.values(), key=lambda trial: trial.number)[-(TABLE_ROWS - 1) :]
        if self._best is not None and self._best.number not in [trial.number for trial in newest]:
            return [self._best, *newest]
        return newest


def stage_text(event: StageStarted) -> str:
    """What a stage is, for people."""
    return STAGES[event.name] + (f" ({safe(event.detail)})" if event.detail else "")


def note_text(event: Note) -> str:
    """A note, warnings marked."""
    return f"[yellow]Warning:[/yellow] {safe(event.text)}" if event.level == "warning" else safe(event.text)


def trial_line(event: TrialChanged) -> str:
    """One trial in one line."""
    trial = event.trial
    best = "  best so far" if event.best is not None and event.best.number == trial.number else ""
    left = "" if event.seconds_left == float("inf") else f"  {seconds_text(event.seconds_left)} left"
    error = f"  {safe(trial.error)}" if trial.error else ""
    return (
        f"  trial {trial.number}  {recipe_text(trial)}  {epochs_text(trial)}  "
        f"score {score_text(trial)}  {trial.state}{best}{left}{error}"
    )


def recipe_text(trial: Trial) -> str:
    """What is tried, in a few words."""
    recipe = trial.recipe
    if recipe.kind == "probe":
        return f"{safe(recipe.backbone)} at {recipe.resolution} px, linear probe"
    if recipe.kind == "head":
        said = trial.notes.get("head_search", {}).get("reason", f"another head ({trial.origin})")
        return f"{safe(recipe.backbone)} at {recipe.resolution} px, {safe(str(said))}"
    optimizer = f"{recipe.optimizer} {recipe.learning_rate:.1e}"
    return f"{safe(recipe.backbone)} at {recipe.resolution} px, {optimizer}, {recipe.augment}"


def epochs_text(trial: Trial) -> str:
    """`2/12`, or nothing for a probe."""
    return f"{trial.epochs_done}/{trial.recipe.epochs}" if trial.recipe.kind == "finetune" else "-"


def score_text(trial: Trial) -> str:
    """The validation score with four decimals."""
    return "-" if trial.score is None else f"{trial.score:.4f}"
