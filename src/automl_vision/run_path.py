"""Where a new run goes."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from automl_vision.config import Settings
from automl_vision.data.shards.address import absolute_place


def new_run_path(data: Path, settings: Settings) -> Path:
    """The folder of a run that nobody gave one: as the settings name it, or after the data and the date."""
    if settings.output.name:
        return Path(settings.output.runs) / settings.output.name
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", absolute_place(data).stem).strip("-.") or "data"
    wanted = Path(settings.output.runs) / f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = wanted, 2
    while path.exists():
        path, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return path
