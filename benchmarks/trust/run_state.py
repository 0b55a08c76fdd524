"""What is on disk of a run, compared before and after something happened to it; whether an error is told clearly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cluster.runs import records

__all__ = ["clear_faults", "lost_and_repeated", "records"]

Record = dict[str, Any]
#: States of trials that no later session may change.
_FINAL = ("complete", "failed")
#: What no terminal may be sent: all controls but the line feed and the carriage return.
_CONTROLS = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: How an error begins, on stderr.
_ERROR = re.compile(r"^(?:Error|Stopped):", re.MULTILINE)


def lost_and_repeated(before: Mapping[int, Record], after: Mapping[int, Record]) -> tuple[int, int]:
    """Trials that are gone or others than they were, and epochs that were on record and are not, or others."""
    lost = repeated = 0
    for number, known in before.items():
        now = after.get(number)
        if now is None or (known["state"] in _FINAL and now != known):
            lost += 1
            continue
        kept = now["epochs"][: len(known["epochs"])]
        repeated += sum(epoch != other for epoch, other in zip(known["epochs"], kept, strict=False))
        repeated += len(known["epochs"]) - len(kept)
    return lost, repeated


def clear_faults(code: int | None, said: str, *allowed: int) -> list[str]:
    """What is wrong with how a command told of an error.

    Args:
        code: its exit code; None where it did not end.
        said: what it printed.
        allowed: the codes that are right.
    """
    faults = []
    if code not in allowed:
        faults.append(f"exit code {code}, not {' or '.join(map(str, allowed))}: {said[-300:]!r}")
    faults += [f"{word}: {said[-300:]!r}" for word in ("Traceback", "Internal error") if word in said]
    if _CONTROLS.search(said):
        faults.append(f"control characters: {said[-300:]!r}")
    if code not in (0, None) and not faults:
        errors = len(_ERROR.findall(said))
        if errors != 1:
            faults.append(f"{errors} errors instead of one: {said[-300:]!r}")
        elif "\nFix:" not in said:
            faults.append(f"it does not say what to do: {said[-300:]!r}")
    return faults
