"""`automl-vision evaluate`: a model measured on another labelled set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from automl_vision.cli.options import with_settings
from automl_vision.cli.paths import require_data, require_model, write_or_refuse
from automl_vision.cli.terminal import safe, stderr
from automl_vision.config import load_settings
from automl_vision.errors import PartialFailure


@with_settings("data", "machine.device", "machine.seed")
def evaluate(
    overrides: dict[str, Any],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model.pt of a run.", show_default=False)],
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Folder of class folders, or a CSV, TSV or Parquet table.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the predictions to this CSV file.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Measure a model on other labelled images, with intervals. Its classes are matched by name.

    [bold]Example[/bold]

    automl-vision evaluate runs/imgs/model.pt --data ./photos-from-another-camera
    """
    settings = load_settings(overrides=overrides)
    require_model(model)
    require_data(data)

    from automl_vision.cli.progress import listener
    from automl_vision.cli.result import print_json, print_section
    from automl_vision.pipeline import evaluate as measure

    with listener(quiet=quiet or json_output) as tell:
        section, predictions, failed = measure(model, data, settings, tell=tell)
    if out is not None:
        write_or_refuse(out, lambda: predictions.to_csv(out))
    if json_output:
        print_json({**section, "failed": [{"path": path, "error": reason} for path, reason in failed]})
    else:
        print_section(section, safe(data.name) or "data")
    if failed:
        for path, reason in failed[:10]:
            stderr.print(f"  {safe(path)}: {safe(reason)}", highlight=False)
        raise PartialFailure(
            "images could not be read and are not counted", value=str(len(failed)), fix="repair or remove them"
        )
