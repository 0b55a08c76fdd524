"""Stages `decode` and `audit`: every image decoded once, checked, traced to its original, and dealt to a set."""

from __future__ import annotations

import hashlib
import math

from automl_vision import run_dir
from automl_vision.data.facts import Facts
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import (
    Prepared,
    decode,
    decode_seconds,
    files_to_decode,
    limited,
    planned_decode_side,
    prepare,
)
from automl_vision.data.preprocess import SQUASH
from automl_vision.data.readable import said_of_unreadable, too_many_unreadable, unsettled_faults, with_faults
from automl_vision.data.store import ImageStore
from automl_vision.errors import BudgetExhausted, RunError
from automl_vision.events import Progress
from automl_vision.models.backbones import backbone
from automl_vision.runtime import Runtime
from automl_vision.search.costs import STEP_OVER_FORWARD
from automl_vision.search.planner import CPU_STEP, GPU_STEP, stored_sizes
from automl_vision.stages.compare import compare_plan, compare_share, compared_pictures, pictures_to_compare
from automl_vision.stages.context import RunContext
from automl_vision.stages.plan import Plan

#: Where decoding all images would take more than this share of the time left, without what comparing them is planned
#: to take, fewer are used, and it is said.
DECODE_SHARE = 0.5
#: The same for the forward passes over validation and test that no budget can do without.
JUDGING_SHARE = 0.4
#: Passes over each set: validation by the first probe; test by the winner and by the probe beside it.
JUDGING_PASSES = {"val": 1, "test": 2}
#: The setting `data.resize` that leaves it to validation.
AUTO = "auto"
#: Images of a class below which nothing can be dealt to three sets.
FEWEST_PER_CLASS = 3


def decode_and_check(context: RunContext, manifest: Manifest, plan: Plan, runtime: Runtime) -> Prepared:
    """Decode as many images as the budget allows, check them all, trace copies and deal the sets.

    What comes after gets the result with the test set sealed: the split is the last that reads test images before
    the look at them is in the ledger.

    Raises:
        DataError: the images cannot be used.
        BudgetExhausted, Interrupted: the time ended, or the user stopped, before all were decoded.
    """
    manifest = within_budget(context, manifest, plan, runtime)
    with context.stage("decode", f"{len(manifest):,} images"):
        store, facts = decode(
            manifest,
            context.settings,
            stored_sizes(plan.resolutions),
            runtime.threads,
            lambda done, total: _progress(context, done, total),
            decode_side=_decode_side(context, plan),
            resize=_resize(context),
            tell=context.note,
        )
    facts = _as_it_began(context, facts)
    for text in store.notes:
        context.note(text, warning=True)
    _require_readable(context, manifest, facts, store)
    if pictures_to_compare(manifest, context.settings):
        with context.stage("compare", compare_plan(context.clock.remaining)):
            facts = compared_pictures(context, manifest, facts, runtime)
    with context.stage("audit"):
        prepared = prepare(manifest, facts, store, context.settings)
        _require_same_images(context, prepared)
        run_dir.write_tables(prepared, context.run.path)
    return prepared.sealed()


def _require_readable(context: RunContext, manifest: Manifest, facts: Facts, store: ImageStore) -> None:
    """Stop before anything that takes long where too little is left, and say where it is much.

    A run whose sets were dealt already goes on.

    Raises:
        DataError: more images than `data.max_unreadable` cannot be read.
    """
    begun = "content" in context.run.about
    refused = None if begun else too_many_unreadable(manifest, facts, context.settings.data)
    if refused is not None:
        store.close()
        raise refused
    if said := said_of_unreadable(facts):
        context.note(said, warning=True)


def _as_it_began(context: RunContext, facts: Facts) -> Facts:
    """Without what memory was too short for when the run began: its sets were dealt without it."""
    if "content" not in context.run.about:
        context.run.add_about(unsettled=unsettled_faults(facts))
        return facts
    return with_faults(facts, context.run.about.get("unsettled", {}))


def _decode_side(context: RunContext, plan: Plan) -> int:
    """As planned when the run began; what was begun before images were decoded at a fraction goes on without."""
    about = context.run.about
    begun_without = "content" in about and "decode_side" not in about
    planned = 0 if begun_without else planned_decode_side(context.settings, stored_sizes(plan.resolutions))
    side = int(about.get("decode_side", planned))
    context.run.add_about(decode_side=side)
    return side


def _resize(context: RunContext) -> str:
    """How squares are made, unless stage `resize` changes it; what is settled then stays so.

    What is left to validation, and runs from before there was a choice, begin with whole images.
    """
    about, asked = context.run.about, context.settings.data.resize
    if "resize" not in about:
        begun_without = {"chosen": SQUASH, "reason": "the run began before there was a choice"}
        begun = {"chosen": "" if asked == AUTO else asked, "reason": "the settings ask for it"}
        context.run.add_about(resize=begun_without if "content" in about else begun)
    with run_dir.as_written(context.run.path / run_dir.RUN):
        return str(context.run.about["resize"]["chosen"] or SQUASH)


def _require_same_images(context: RunContext, prepared: Prepared) -> None:
    """On resuming, every file and its set must be as they were: earlier trials were trained on that division.

    Raises:
        RunError: a file has other content than when the run began, or would now be in another set.
    """
    digest = hashlib.blake2b("\n".join(prepared.split.name.tolist()).encode(), digest_size=16)
    digest.update("\n".join(prepared.facts.table["file_digest"]).encode())
    begun_with = context.run.about.get("content")
    if begun_with not in (None, digest.hexdigest()):
        raise RunError(
            "images changed since the run began, so that test images may be among those that were trained on",
            value=str(context.data),
            fix="restore the images, or start a new run",
        )
    context.run.add_about(content=digest.hexdigest())


def within_budget(context: RunContext, manifest: Manifest, plan: Plan, runtime: Runtime) -> Manifest:
    """All images, or as many as the budget affords; a resumed run keeps the number."""
    count = context.run.about.get("drawn")
    if count is None:
        count = _affordable(context, manifest, plan, runtime)
        context.run.add_about(drawn=count)
    if count >= len(manifest):
        return manifest
    if count < FEWEST_PER_CLASS * len(manifest.class_names):
        raise BudgetExhausted(
            "the budget is too short for these images",
            value=f"time for about {count:,} of {len(manifest):,} images in {len(manifest.class_names):,} classes",
            fix="give a longer --budget, or a smaller --resolutions",
        )
    context.note(
        f"The budget allows about {count:,} of {len(manifest):,} images; whole groups were drawn, every "
        "class in proportion. A longer --budget uses more.",
        warning=True,
    )
    return limited(manifest, context.settings, count)


def _affordable(context: RunContext, manifest: Manifest, plan: Plan, runtime: Runtime) -> int:
    """How many images can be decoded, and validated and tested on, in their shares of the time left."""
    if math.isinf(context.clock.budget):
        return len(manifest)
    time_left = max(context.clock.remaining, 0.0) * (1 - compare_share(context.settings))
    judged = int(JUDGING_SHARE * time_left / _judging_seconds(context, manifest, plan, runtime))
    sizes, side = stored_sizes(plan.resolutions), _decode_side(context, plan)
    each = decode_seconds(manifest, sizes, side) / runtime.threads
    allowed = DECODE_SHARE * time_left
    if each * len(manifest) <= allowed:
        return min(judged, len(manifest))
    resize, threads = _resize(context), runtime.threads
    missing = files_to_decode(manifest, context.settings, sizes, threads, decode_side=side, resize=resize)
    needed = each * missing
    return min(judged, len(manifest) if needed <= allowed else int(allowed / needed * len(manifest)))


def _judging_seconds(context: RunContext, manifest: Manifest, plan: Plan, runtime: Runtime) -> float:
    """Estimated seconds of validating and testing, per image of all sets together."""
    macs = min(backbone(name).gmacs or 1.0 for name in plan.backbones)
    step = GPU_STEP if runtime.device.type != "cpu" else CPU_STEP / runtime.threads
    forward = step / STEP_OVER_FORWARD * macs * (plan.resolutions[0] / 128) ** 2
    passes = sum(times * _share(context, manifest, held) for held, times in JUDGING_PASSES.items())
    return forward * passes


def _share(context: RunContext, manifest: Manifest, held: str) -> float:
    """Share of the images that a set has, or is going to have."""
    own = (manifest.split or ()).count(held)
    return own / len(manifest) if own else float(getattr(context.settings.split, held))


def _progress(context: RunContext, done: int, total: int) -> None:
    if context.stop.requested:
        raise context.stop.error("decoding", f"{done} of {total} images")
    if context.clock.remaining < 0:
        raise BudgetExhausted(
            "the budget ended while decoding",
            value=f"{done} of {total} images in {context.clock.elapsed:.0f} s",
            fix="give a longer --budget or fewer images with --max-samples",
        )
    context.tell(Progress(done, total))
