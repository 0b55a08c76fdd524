"""What a script of this folder ends with: one line, its figures as JSON, and an exit code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages import machine


@dataclass(frozen=True)
class Figure:
    """One promise, measured.

    Attributes:
        target: which one, as `docs/trust.md` numbers them, such as "R1".
        held: whether everything that was promised was seen.
        text: the figures in words, on one line, with the numbers that were really reached.
        figures: the same as JSON.
        faults: what was not as promised, one line each.
    """

    target: str
    held: bool
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """`R1 held: 200 kills, ...`."""
        return f"{self.target} {'held' if self.held else 'MISSED'}: {self.text}"


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options that all scripts of this folder have: `--seed` and `--json`."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=int, default=0, help="what is drawn at random follows from it")
    made.add_argument("--json", type=Path, help="write the figures there")
    return made


def conclude(figure: Figure, json_file: Path | None) -> int:
    """Print the faults and, last, the line; write the figures. Returns the exit code: 0 where it held, else 1."""
    for fault in figure.faults:
        print(f"  {fault}")
    if json_file is not None:
        json_file.write_text(json.dumps({**asdict(figure), "machine": machine()}, indent=2) + "\n", encoding="utf-8")
    print(figure.line, flush=True)
    return 0 if figure.held else 1
