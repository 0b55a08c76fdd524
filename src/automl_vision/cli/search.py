"""`automl-vision search`: from a folder of images to a model and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl_vision.cli.options import with_settings
from automl_vision.cli.paths import DATA_HELP, require_data, require_run
from automl_vision.cli.process import loading
from automl_vision.cli.terminal import interactive
from automl_vision.config import MOVABLE, load_settings
from automl_vision.errors import Interrupted, UsageError
from automl_vision.runtime import PROCESS_START
from automl_vision.tracking.trackers import require_trackers

if TYPE_CHECKING:
    from automl_vision.pipeline import Run


@with_settings("data", "split", "search", "limits", "training", "machine", "output")
def search(
    overrides: dict[str, Any],
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help=DATA_HELP, show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with settings; options win over it.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run in this folder.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run (default: runs/NAME).", show_default=False)
    ] = None,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="Exit 4 where the split that came with the data leaks.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Search for the best classifier that the budget can buy; test it once, on images that no choice was made with.

    [bold]Examples[/bold]

    automl-vision search --data ./imgs --budget 10m

    automl-vision search --data labels.csv --image-column file --label-column species --budget 1h

    automl-vision search --resume runs/imgs-20260101-120000

    automl-vision search --data /shared/imgs --out /shared/run --budget 1h --cluster 10.0.0.1:6379
    """
    if (data is None) == (resume is None):
        raise UsageError("give either --data or --resume", fix="automl-vision search --data ./imgs --budget 10m")
    moved = {name: overrides[name] for name in MOVABLE if overrides.get(name) is not None}
    kept = [value for name, value in overrides.items() if name not in MOVABLE]
    if resume is not None and any(value is not None for value in (*kept, config, out)):
        raise UsageError(
            "a resumed run keeps its settings",
            value=str(resume),
            fix="give --resume alone, or with what says where it runs (--cluster)",
        )
    settings = load_settings(config, overrides)
    require_trackers(settings.output.track)
    if data is not None:
        require_data(data)
    if resume is not None:
        require_run(resume)

    with loading():
        from automl_vision.cli.progress import listener, stop_on_signal
        from automl_vision.cli.result import print_json, print_run
        from automl_vision.pipeline import resume_search, run_search

    quiet = quiet or json_output
    with stop_on_signal(announce=quiet or not interactive()) as stop, listener(quiet=quiet, stop=stop) as tell:
        if data is not None:
            run = run_search(
                data, settings, out=out, tell=tell, stop=stop, started=PROCESS_START, fail_on_leak=fail_on_leak
            )
        elif resume is not None:
            run = resume_search(resume, tell=tell, stop=stop, started=PROCESS_START, moved=moved)
    print_json({"run": str(run.path), "model_file": str(run.model), **run.report}) if json_output else print_run(run)
    _leave(run)


def _leave(run: Run) -> None:
    from automl_vision.run_dir import how_to_resume

    if run.interrupted:
        raise Interrupted(
            "the search was stopped early; the report tells what it had reached",
            fix=how_to_resume(run.path),
        )
