"""`automl-vision`: the commands, and what becomes of errors.

Results go to stdout, progress and logs to stderr. The exit code is that of the error's class (`errors.py`).
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from automl_vision.cli import doctor, evaluate, inspect, models, predict, report, search
from automl_vision.cli.terminal import safe, stderr
from automl_vision.errors import AutomlVisionError

app = typer.Typer(
    name="automl-vision",
    help="Give it a folder of labelled images and a time budget; get the best classifier that the budget can buy, "
    "and a test number you can believe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: One file per command.
COMMANDS = {
    "search": search.search,
    "predict": predict.predict,
    "inspect": inspect.inspect,
    "evaluate": evaluate.evaluate,
    "report": report.report,
    "models": models.models,
    "doctor": doctor.doctor,
}
for name, command in COMMANDS.items():
    app.command(name)(command)  # type: ignore[type-var] # a function, made by `with_settings`


@app.callback(invoke_without_command=True)
def _main(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from automl_vision import __version__

        typer.echo(f"automl-vision {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: run a command; an error becomes three lines and an exit code, never a traceback."""
    # Idle OpenMP threads that spin steal the cores they wait for: on a shared machine a training step took two to
    # three times as long (docs/LOG.md). It must be set before torch loads its OpenMP library.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except AutomlVisionError as error:
        _show(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        stderr.print("Stopped.")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing to tell it
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last door: a fault of ours becomes one line and exit code 1
        _show_internal(error)
        sys.exit(1)


def _show(error: AutomlVisionError) -> None:
    value = "" if error.value is None else f": {safe(str(error.value))}"
    stderr.print(f"[bold red]Error:[/bold red] {safe(error.what)}{value}", highlight=False, soft_wrap=True)
    if error.fix:
        stderr.print(f"[bold]Fix:[/bold] {safe(error.fix)}", highlight=False, soft_wrap=True)


def _show_internal(error: Exception) -> None:
    if os.environ.get("AUTOML_VISION_TRACEBACK"):
        traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    stderr.print(
        f"[bold red]Internal error:[/bold red] {safe(f'{type(error).__name__}: {error}')} "
        f"({safe(where.filename)}:{where.lineno})",
        highlight=False,
        soft_wrap=True,
    )
    stderr.print(
        "[bold]Fix:[/bold] this is a fault of automl-vision. Set AUTOML_VISION_TRACEBACK=1, run again, and report it."
    )
