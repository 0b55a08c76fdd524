"""Stage `compare`: copies by what the pictures show; only where the setting `data.lineage` is "full"."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from automl_vision import run_dir
from automl_vision.config import Settings
from automl_vision.data.facts import METHOD, Compared, Facts
from automl_vision.data.file_squares import FileSquares
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import compare_pictures, read_pixels
from automl_vision.events import Progress
from automl_vision.files import write_json
from automl_vision.models.copy_descriptor import SIDE, SIDE_TINY, describer
from automl_vision.runtime import Runtime
from automl_vision.stages.context import RunContext

#: Share of the time left in which pictures are compared; what is not compared by then is said.
COMPARE_SHARE = 0.25


def pictures_to_compare(manifest: Manifest, settings: Settings) -> bool:
    """Whether the settings ask for it, and nobody did it when the images were sharded: the groups came with them."""
    return settings.data.lineage == "full" and (manifest.sharded is None or manifest.sharded.lineage != "full")


def compare_share(settings: Settings) -> float:
    """Share of the time left that is planned for it: 0 where pictures are not compared."""
    return COMPARE_SHARE if settings.data.lineage == "full" else 0.0


def compare_plan(remaining: float) -> str:
    """What of the time left is planned for it, for people."""
    return "" if math.isinf(remaining) else f"at most {COMPARE_SHARE * max(remaining, 0.0):.0f} s"


def compared_pictures(context: RunContext, manifest: Manifest, facts: Facts, runtime: Runtime) -> Facts:
    """The facts with what comparing told. A resumed run reads it again: where time was up must not move.

    What other files, or an earlier version that compared in another way, left is not read but compared again; so is
    what names images that there are not.

    Raises:
        Interrupted: the user stopped it.
    """
    kept, key = context.run.path / run_dir.COMPARED, {"method": METHOD, "files": _digest(facts)}
    before = run_dir.read_compared(context.run.path)
    if key.items() <= before.items():
        with run_dir.as_written(kept):
            known = Compared.from_dict(before)
        if known.is_of(len(manifest)):
            return replace(facts, compared=known)
    left = context.clock.remaining
    seconds = left if math.isinf(left) else COMPARE_SHARE * max(left, 0.0)

    def check_stop(dealt_with: str) -> None:
        if context.stop.requested:
            raise context.stop.error("comparing", dealt_with)

    def progress(done: int, total: int) -> None:
        check_stop(f"{done} of {total}")
        context.tell(Progress(done, total))

    def warn(text: str) -> None:
        context.note(text, warning=True)

    describe = describer(_squares(manifest, facts, runtime), runtime, lambda done: check_stop(f"{done} described"))
    found = compare_pictures(manifest, facts, context.settings, describe, runtime.threads, seconds, progress, warn)
    if found.unchecked:
        warn(
            f"About {found.unchecked:,} pairs of similar images were not compared in {seconds:.0f} s; copies "
            "may be among them. A longer --budget compares more."
        )
    write_json(kept, {**found.to_dict(), **key})
    return replace(facts, compared=found)


def inspected_pictures(
    manifest: Manifest,
    facts: Facts,
    settings: Settings,
    runtime: Runtime,
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
) -> Facts:
    """The same without a budget: everything is compared."""
    describe = describer(_squares(manifest, facts, runtime), runtime)
    found = compare_pictures(manifest, facts, settings, describe, runtime.threads, math.inf, progress, warn)
    return replace(facts, compared=found)


def _squares(manifest: Manifest, facts: Facts, runtime: Runtime) -> FileSquares:
    """At the size that tells copies apart; what is stored may be smaller, as the budget has it."""
    from automl_vision.data.lineage.picture import TINY  # OpenCV: only where it is asked for

    shorter = facts.table.loc[facts.usable, ["width", "height"]].min(axis=1)
    side = SIDE_TINY if len(shorter) and shorter.median() <= TINY else SIDE
    return FileSquares(partial(read_pixels, manifest), side, runtime.threads)


def _digest(facts: Facts) -> str:
    return hashlib.blake2b("\n".join(facts.table["file_digest"]).encode(), digest_size=16).hexdigest()
