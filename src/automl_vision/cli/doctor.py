"""`automl-vision doctor`: what this machine offers, and what is missing."""

from __future__ import annotations

import json
import shutil
from typing import Annotated

import typer
from rich.table import Table

from automl_vision.cli.terminal import safe, stdout


def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show versions, device, cache, weights, extras and whether the hub answers; takes a few seconds."""
    from automl_vision.data.store import default_cache_dir
    from automl_vision.extras import EXTRAS, installed
    from automl_vision.models.weights import hub_reachable, weights_here
    from automl_vision.runtime import environment, make_runtime

    folder = default_cache_dir()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    facts = {
        **environment(make_runtime()),
        "cache": f"{folder} ({shutil.disk_usage(existing).free / 1e9:.0f} GB free)",
        "weights here": ", ".join(weights_here()) or "none",
        "weight hub": "answers" if hub_reachable() else "does not answer; weights on this machine are used",
        **{f"extra {name}": installed(name) for name in EXTRAS},
    }
    if json_output:
        typer.echo(json.dumps(facts))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        table.add_row(f"[dim]{safe(name)}[/dim]", safe(value))
    stdout.print(table)
