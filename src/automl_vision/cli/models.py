"""`automl-vision models`: the backbones, what they cost, and whether their weights are on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from automl_vision.cli.terminal import stdout


def models(
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the backbones, cheapest first. Any other timm name can be given to --backbones as well."""
    from automl_vision.models.backbones import BACKBONES
    from automl_vision.models.weights import weights_here

    here = weights_here()
    rows = [
        {
            "name": row.name,
            "timm_name": row.timm_name,
            "parameters_m": row.parameters_m,
            "gmacs": row.gmacs,
            "input_size": row.input_size,
            "imagenet_top1": row.imagenet_top1,
            "licence": row.licence,
            "weights": here[row.name].kind if row.name in here else "",
            "note": row.note,
        }
        for row in BACKBONES.values()
    ]
    if json_output:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = {
        "name": "left",
        "parameters (M)": "right",
        "GMACs": "right",
        "input": "right",
        "top-1": "right",
        "licence": "left",
        "weights here": "left",
        "note": "left",
    }
    for title, side in columns.items():
        table.add_column(title, justify=side, no_wrap=title == "name")  # type: ignore[arg-type] # a literal above
    for row in rows:
        keys = ("name", "parameters_m", "gmacs", "input_size", "imagenet_top1", "licence", "weights", "note")
        table.add_row(*(str(row[key] or "-") for key in keys), style="green" if row["weights"] else "")
    stdout.print(table)
    stdout.print("Weights that are not here are fetched from the hub when it answers.", style="dim")
