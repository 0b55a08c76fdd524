"""`automl-vision`: the commands, and what becomes of errors.

Results go to stdout, progress and logs to stderr. The exit code is that of the error's class (`errors.py`).
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn, cast

import typer

from automl_vision.cli.process import keep_compiled_code_private, leave, settle_process
from automl_vision.cli.terminal import safe, safe_lines, stderr
from automl_vision.cli.torchrun import told_in_front
from automl_vision.errors import AutomlVisionError, Interrupted, UsageError

INTERRUPTED = Interrupted.exit_code
#: Whoever read the output left: 128 + SIGPIPE, with which the shell and other programs say so.
CLOSED_PIPE = 141
#: One module of this package per command, in the order of the help page: a function of its name, or several as `app`.
COMMANDS = (
    "search",
    "predict",
    "inspect",
    "shard",
    "evaluate",
    "report",
    "export",
    "serve",
    "models",
    "doctor",
    "cache",
)


def _application(arguments: Sequence[str]) -> typer.Typer:
    """The command line; where its first word is a command, with that one alone: importing the others takes time."""
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
    app.callback(invoke_without_command=True)(_main)
    for name in _commands(arguments):
        module = import_module(f"automl_vision.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def _commands(arguments: Sequence[str]) -> Sequence[str]:
    first = arguments[:1]
    return first if first and first[0] in COMMANDS else COMMANDS


def _main(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from automl_vision import __version__

        typer.echo(f"automl-vision {__version__}")
        raise typer.Exit


#: What typer raises for a wrong command line: a class of click in some versions of typer, of its own in others.
_COMMAND_LINE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def program() -> NoReturn:
    """What a shell starts: `main` in a process of its own, which ends with it."""
    try:
        main()
    except SystemExit as ended:
        leave(told_in_front(ended.code if isinstance(ended.code, int) else 0))
    leave(told_in_front(0))


def main() -> None:
    """Run a command; an error becomes two lines and an exit code, never a traceback."""
    try:
        settle_process()
        keep_compiled_code_private()
        code = _application(sys.argv[1:])(standalone_mode=False)
    except AutomlVisionError as error:
        _show(error)
        sys.exit(error.exit_code)
    except _COMMAND_LINE_ERROR as error:
        _show_usage(error)
        sys.exit(2)
    except KeyboardInterrupt:
        _stopped()
    except SystemExit:  # typer's answer to a closed pipe: the reader left, there is nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        _end_for_disk(error)
    except Exception as error:  # noqa: BLE001 - the last door: a fault of ours becomes two lines and exit code 1
        _show_internal(error)
        sys.exit(1)
    if code == INTERRUPTED:  # typer's form of KeyboardInterrupt
        _stopped()
    sys.exit(code)


def _end_for_disk(error: OSError) -> NoReturn:
    """A full disk is no fault of ours; any other error of the system that nobody expected is."""
    if error.errno not in _FULL:
        _show_internal(error)
        sys.exit(1)
    full = UsageError("a disk is full", value=error.filename or error.strerror, fix="free some space on it")
    _show(full)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be written has no place either
    sys.exit(full.exit_code)


def _stopped() -> NoReturn:
    stderr.print("Stopped.")
    sys.exit(INTERRUPTED)


def _show(error: AutomlVisionError) -> None:
    value = "" if error.value is None else f": {safe_lines(str(error.value))}".replace(": \n", ":\n", 1)
    title = "[bold]Stopped:[/bold]" if isinstance(error, Interrupted) else "[bold red]Error:[/bold red]"
    stderr.print(f"{title} {safe_lines(error.what)}{value}", highlight=False, soft_wrap=True)
    if error.fix:
        stderr.print(f"[bold]Fix:[/bold] {safe_lines(error.fix)}", highlight=False, soft_wrap=True)


def _show_usage(error: Any) -> None:
    """A wrong command line; without any argument typer has shown the help already, and there is no message."""
    message = str(error.format_message()).strip().rstrip(".")
    if message:
        command = error.ctx.command_path if error.ctx else "automl-vision"
        _show(UsageError(message[0].lower() + message[1:], fix=f"see {command} --help"))


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
