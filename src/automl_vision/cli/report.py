"""`automl-vision report`: render a run's report again, or verify its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automl_vision.cli.paths import require_run
from automl_vision.cli.terminal import safe, stdout
from automl_vision.errors import AutomlVisionError


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compute every test figure again from the saved predictions, and compare.")
    ] = False,
) -> None:
    """Render report.html again from report.json, or check that the numbers follow from the predictions bit for bit.

    [bold]Examples[/bold]

    automl-vision report runs/imgs

    automl-vision report runs/imgs --verify
    """
    require_run(run)

    from automl_vision.pipeline import render_again, verify_run

    if not verify:
        stdout.print(f"Wrote {safe(str(render_again(run)))}", highlight=False)
        return
    differences = verify_run(run)
    for line in differences:
        stdout.print(safe(line), highlight=False)
    if differences:
        raise AutomlVisionError(
            "the report does not follow from the predictions",
            value=f"{len(differences)} differences",
            fix="one of the two files was changed; trust neither",
        )
    stdout.print("Every test figure follows from predictions_test.csv, bit for bit.")
