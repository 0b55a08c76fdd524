"""What a report raises that is not as a search leaves it: whoever changed it is told so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jinja2 import UndefinedError

from automl_vision.errors import RunError

#: For values of other types than those that a search writes, or that are not there.
_NOT_AS_WRITTEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, UndefinedError)


@contextmanager
def told_as_damage(file: Path) -> Iterator[None]:
    """Whoever changed a report is told so, and not that this program has a fault.

    Args:
        file: report.json of the run, for the message.

    Raises:
        RunError: in place of what a value of the report raised.
    """
    try:
        yield
    except _NOT_AS_WRITTEN as error:
        raise RunError(
            "report.json is not as a search leaves it",
            value=f"{file} ({type(error).__name__}: {error})"[:500],
            fix="restore the run folder from a copy",
        ) from error
