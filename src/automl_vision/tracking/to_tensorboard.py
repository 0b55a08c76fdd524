"""TensorBoard: event files in the run folder. Nothing leaves the machine."""

from __future__ import annotations

import shlex
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.tracking.tracker import Subject, plain, recipe_values, scores, trial_name

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from automl_vision.search.trial import EpochRecord, Trial

#: The folder of the event files, in the run folder.
FOLDER = "tensorboard"
#: Each open writer has a file and a thread.
_MOST_OPEN = 8


class TensorBoardTracker:
    """One curve per trial, under the same names, so that they lie over each other; settings and model card as text."""

    def __init__(self) -> None:
        self._folder = Path()
        self._open: OrderedDict[str, SummaryWriter] = OrderedDict()

    def start(self, subject: Subject) -> str:
        """Write the settings."""
        self._folder = subject.path / FOLDER
        self._writer("run").add_text("settings", _table(subject.settings))
        return f"TensorBoard: tensorboard --logdir {shlex.quote(str(self._folder))}"

    def trial(self, trial: Trial, epochs: Sequence[EpochRecord]) -> None:
        """Add points to the curves of the trial, and its recipe before the first."""
        writer = self._writer(trial_name(trial))
        if epochs and epochs[0].epoch == 1:
            writer.add_text("recipe", _table(recipe_values(trial)))
        for epoch in epochs:
            for name, value in scores(epoch).items():
                writer.add_scalar(name, value, epoch.epoch)
        if not trial.epochs and trial.score is not None:
            writer.add_scalar("score", trial.score, 0)
        writer.flush()

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write the figures, and the text of what is text."""
        writer = self._writer("run")
        for name, value in figures.items():
            writer.add_scalar(name, value, 0)
        for file in files:
            is_text = file.suffix == ".md"
            writer.add_text(file.name, file.read_text(encoding="utf-8") if is_text else f"`{file}`")

    def close(self, *, failed: bool) -> None:  # noqa: ARG002 - an event file has no such state
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()

    def _writer(self, name: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        writer = self._open.pop(name, None) or SummaryWriter(str(self._folder / name))
        self._open[name] = writer
        while len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        return writer


def _table(values: Mapping[str, object]) -> str:
    rows = [f"| {name} | {str(plain(value)).replace('|', ' ')} |" for name, value in values.items()]
    return "\n".join(("| name | value |", "|---|---|", *rows))
