"""Stage `read`: the list of images."""

from __future__ import annotations

from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import read_manifest
from automl_vision.errors import RunError
from automl_vision.stages.context import RunContext


def read(context: RunContext) -> Manifest:
    """The list of images; on resuming it must be the one the run began with.

    Raises:
        DataError: there are no labelled images.
        RunError: images or labels changed since the run began.
    """
    manifest = read_manifest(context.data, context.settings, context.note)
    begun_with = context.run.about.get("fingerprint")
    if begun_with is not None and begun_with != manifest.fingerprint:
        raise RunError(
            "the data changed since the run began",
            value=str(context.data),
            fix="restore the images and labels, or start a new run",
        )
    context.run.add_about(fingerprint=manifest.fingerprint, found=len(manifest))
    return manifest
