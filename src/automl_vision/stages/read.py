"""Stage `read`: the list of images."""

from __future__ import annotations

from collections.abc import Callable

from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import read_manifest
from automl_vision.errors import BudgetExhausted, RunError
from automl_vision.runtime import Clock
from automl_vision.stages.context import RunContext
from automl_vision.stop_request import StopRequest


def read(context: RunContext) -> Manifest:
    """The list of images; on resuming it must be the one the run began with.

    Raises:
        DataError: there are no labelled images.
        BudgetExhausted, Interrupted: the time ended, or the user stopped, while another process unpacked them.
        RunError: images or labels changed since the run began.
    """
    manifest = read_manifest(
        context.data, context.settings, context.note, asked_while_waiting(context.stop, context.clock)
    )
    begun_with = context.run.about.get("fingerprint")
    if begun_with is not None and begun_with != manifest.fingerprint:
        raise RunError(
            "the data changed since the run began",
            value=str(context.data),
            fix="restore the images and labels, or start a new run",
        )
    context.run.add_about(fingerprint=manifest.fingerprint, found=len(manifest))
    return manifest


def asked_while_waiting(stop: StopRequest, clock: Clock) -> Callable[[], None]:
    """What ends the waiting for another process that unpacks the same data set.

    What it returns raises Interrupted where the user stopped, and BudgetExhausted where the time is over.
    """

    def ask() -> None:
        if stop.requested:
            raise stop.error("waiting for another process", "the data set is not unpacked yet")
        if clock.remaining < 0:
            raise BudgetExhausted(
                "the budget ended while another process unpacked the same data set",
                value=f"{clock.elapsed:.0f} s",
                fix="start again when it is done, or give a longer --budget",
            )

    return ask
