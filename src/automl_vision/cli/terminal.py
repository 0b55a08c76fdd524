"""What both streams of the terminal have in common: consoles, and text made safe to show."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from automl_vision.visible import visible

#: Progress and logs.
stderr = Console(stderr=True)
#: Results. Plain text when it is no terminal.
stdout = Console()


def safe(text: str) -> str:
    """`visible` text in which nothing acts as markup."""
    return escape(visible(text))


def safe_lines(text: str) -> str:
    """The same for a message of several lines."""
    return "\n".join(safe(line) for line in text.split("\n"))


def interactive() -> bool:
    """Whether progress can be drawn: a person is looking at stderr."""
    return stderr.is_terminal and sys.stderr.isatty()


def seconds_text(seconds: float) -> str:
    """`95` -> `1m 35s`."""
    whole = max(round(seconds), 0)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [f"{hours}h"] * bool(hours) + [f"{minutes}m"] * bool(hours or minutes) + [f"{rest}s"] * (not hours)
    return " ".join(parts)
