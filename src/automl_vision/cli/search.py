"""`automl-vision search`: from a folder of images to a model and a report."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from automl_vision.cli import torchrun
from automl_vision.cli.options import with_settings
from automl_vision.cli.paths import DATA_HELP, require_data, require_run
from automl_vision.cli.process import loading
from automl_vision.cli.signals import stop_on_signal
from automl_vision.cli.terminal import interactive
from automl_vision.config import MOVABLE, Settings, load_dumped_settings, load_settings
from automl_vision.errors import Interrupted, UsageError
from automl_vision.run_path import new_run_path
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
    trust_run: Annotated[
        bool,
        typer.Option(
            "--trust-run",
            help="Go on with a run that somebody else began, or you on another machine, also where its settings reach "
            "out of its folder: trackers, a cluster, a cache, trials or images elsewhere.",
        ),
    ] = False,
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
    if trust_run and resume is None:
        raise UsageError("--trust-run is of a run that is gone on with", fix="give it with --resume, or leave it out")
    settings = load_settings(config, overrides)
    require_trackers(settings.output.track)
    if data is not None:
        require_data(data)
    if resume is not None:
        require_run(resume)

    if resume is not None and (resume / "config.toml").is_file():  # else there is no run, as is said where it is opened
        settings = load_dumped_settings(resume / "config.toml")
    together = settings.machine.ddp != 1
    if together and not torchrun.is_rank():
        raise typer.Exit(_start_ranks(data, resume, settings, out, moved))
    if together:
        torchrun.introduce()
    if together and data is not None:
        out = _named_folder(settings, out)
        if torchrun.is_restart() and (out / "run.json").is_file():
            data, resume = None, out

    quiet = quiet or json_output
    with stop_on_signal(announce=quiet or not interactive()) as stop:
        with loading():
            from automl_vision.cli.progress import listener
            from automl_vision.cli.ranks import follow_first, joined
            from automl_vision.pipeline import resume_search, run_search

        with joined(settings) as ranks:
            if not ranks.first:
                stop.go_on = "the first rank says how to go on"  # which may need this one until it has left
                follow_first(ranks)
                return
            watched: dict[str, Any] = {"stop": stop, "started": PROCESS_START, "ranks": ranks}
            with listener(quiet=quiet, stop=stop) as tell:
                if data is not None:
                    run = run_search(data, settings, out=out, tell=tell, fail_on_leak=fail_on_leak, **watched)
                elif resume is not None:
                    watched |= {"trusted": trust_run, "fail_on_leak": fail_on_leak}
                    run = resume_search(resume, tell=tell, moved=moved, **watched)
    _print(run, json_output=json_output, resumed=resume is not None)
    _leave(run)


def _start_ranks(
    data: Path | None, resume: Path | None, settings: Settings, out: Path | None, moved: dict[str, Any]
) -> int:
    """Have processes on this machine, or on those of a cluster, do what this command line says; their exit code."""
    changed = {name.removeprefix("machine."): value for name, value in moved.items()}
    machine = dataclasses.replace(settings.machine, **changed)
    run = resume or out or new_run_path(cast(Path, data), settings)
    arguments = [*sys.argv[1:], *([] if resume or out else ["--out", str(run)])]
    if not machine.cluster:
        return torchrun.run_ranks(machine.ddp, arguments)
    from automl_vision.cli.cluster_ranks import run_ranks_on_cluster

    return run_ranks_on_cluster(machine, arguments, data=data, run=run)


def _named_folder(settings: Settings, out: Path | None) -> Path:
    if out is None and not settings.output.name:
        raise UsageError(
            "processes that torchrun starts have to know the folder of the run, or they cannot go on with it",
            fix="give --out, or --resume",
        )
    return out or Path(settings.output.runs) / settings.output.name


def _print(run: Run, *, json_output: bool, resumed: bool) -> None:
    """The result. The report of a run that was complete already may be of anybody."""
    from automl_vision.cli.result import print_json, print_run
    from automl_vision.report.damage import told_as_damage
    from automl_vision.run_dir import REPORT_JSON

    with told_as_damage(run.path / REPORT_JSON) if resumed else nullcontext():
        if json_output:
            print_json({"run": str(run.path), "model_file": str(run.model), **run.report})
        else:
            print_run(run)


def _leave(run: Run) -> None:
    from automl_vision.run_dir import how_to_resume

    if run.interrupted:
        raise Interrupted(
            "the search was stopped early; the report tells what it had reached",
            fix=how_to_resume(run.path),
        )
