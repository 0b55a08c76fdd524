"""The wall clock is for people: whoever sets it, or travels, moves no budget, no deadline and no lock."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import automl_vision
from automl_vision.runtime import Clock

SOURCE = Path(automl_vision.__file__).parent
#: What reads the wall clock, and what for: none of it is waited for, and none says who may write.
READERS = {
    "cli/cache.py": "how long ago an entry was used, in words",
    "data/cache_entries.py": "which entries were used longest ago; whether one is in use, its lock says",
    "data/shards/window.py": "which shards were read longest ago, and what killed readers left an hour ago",
    "executors/workers.py": "dates in logs",
    "run_dir.py": "dates in logs and reports",
    "run_path.py": "the name of a run",
    "tracking/to_mlflow.py": "dates of figures",
}
_CALLS = re.compile(
    r"\btime\.(?:time|time_ns|localtime|gmtime|strftime|ctime)\b|\bdatetime\.(?:now|utcnow|today)\b|\bdate\.today\b"
    r"|^from time import",  # which would hide a call of the others
    re.MULTILINE,
)


def test_nothing_but_dates_and_ages_is_read_from_the_wall_clock() -> None:
    readers = (file for file in SOURCE.rglob("*.py") if _CALLS.search(file.read_text("utf-8")))
    assert {file.relative_to(SOURCE).as_posix() for file in readers} == set(READERS)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_budget_does_not_see_that_the_wall_clock_moves(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now = Clock(time.monotonic(), 60.0), time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * 86_400)
    monkeypatch.setattr(time, "time_ns", lambda: int((now() + days * 86_400) * 1e9))
    assert 0 <= clock.elapsed < 30
    assert 30 < clock.remaining <= 60
