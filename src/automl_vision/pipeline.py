"""The order of the stages. The only file that knows it.

    (cluster) -> read -> plan -> decode -> (compare) -> audit -> (resize) -> search -> costs -> finish -> (impact)
    -> checks -> test -> report

Nothing is printed here: what happens is told to a listener, and the result is returned.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from automl_vision import run_dir
from automl_vision.bundle import load_bundle
from automl_vision.config import Settings, load_settings, setting_names
from automl_vision.data.hub_name import is_hub_name
from automl_vision.data.preparation import Prepared, decode, prepare_to_look, read_manifest
from automl_vision.data.shards.address import Address, absolute_place, is_url, parse_address
from automl_vision.data.shards.plan import ShardSize
from automl_vision.data.shards.read import open_source
from automl_vision.data.shards.verify import Verified
from automl_vision.data.shards.verify import verify as compare_shards
from automl_vision.errors import DataError, LeakFound, ProcessLost, TakenAway, UsageError
from automl_vision.events import Note, Progress, StageStarted, Tell, silent
from automl_vision.files import write_text
from automl_vision.place import check_place, place_of
from automl_vision.predictor import Model, load
from automl_vision.report.belonging import report_is_of
from automl_vision.report.damage import told_as_damage
from automl_vision.report.evidence import evidence_table
from automl_vision.report.inspection_page import render_inspection
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import verify
from automl_vision.run_dir import RunDir, cannot_write, trials_address
from automl_vision.run_path import new_run_path
from automl_vision.runtime import Clock, Runtime, make_runtime
from automl_vision.search.planner import stored_sizes
from automl_vision.stages.checks import check_data
from automl_vision.stages.cluster import joined
from automl_vision.stages.compare import inspected_pictures, pictures_to_compare
from automl_vision.stages.context import RunContext
from automl_vision.stages.costs import measure_costs, time_shipped, without_slow
from automl_vision.stages.decode import decode_and_check
from automl_vision.stages.disk_room import require_room
from automl_vision.stages.evaluate import Evaluation, evaluate
from automl_vision.stages.finish import finish
from automl_vision.stages.impact import impact_of
from automl_vision.stages.plan import Plan, make_plan, plan_run
from automl_vision.stages.read import asked_while_waiting, read
from automl_vision.stages.rendering import render_run, report_of, write_rendered
from automl_vision.stages.report import write_report
from automl_vision.stages.resize import choose_resize
from automl_vision.stages.search import objective_of, search_trials, with_turns
from automl_vision.stages.shard import Sharding
from automl_vision.stages.shard import write as write_shards
from automl_vision.stages.test import look
from automl_vision.stages.trial_executor import remove_site, site_folder
from automl_vision.stop_request import StopRequest
from automl_vision.tracking.trackers import require_trackers
from automl_vision.tracking.tracking import Tracking
from automl_vision.training.ranks import ALONE, RankLost, Ranks, RanksDiffer

__all__ = [
    "Evaluation",
    "Model",
    "Run",
    "StopRequest",
    "evaluate",
    "inspect",
    "load",
    "resume_search",
    "run_search",
    "search",
    "shard",
    "verify_shards",
    "write_inspection",
]

#: In run.json: the run was begun with `fail_on_leak`, and whoever goes on with it holds to that.
_FAIL_ON_LEAK = "fail_on_leak"


@dataclass(frozen=True)
class Run:
    """A finished search.

    Attributes:
        path: the run folder.
        report: the content of report.json.
    """

    path: Path
    report: dict[str, Any]

    @property
    def model(self) -> Path:
        """The model file."""
        return self.path / run_dir.MODEL

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it early; it can be resumed."""
        return bool(self.report["stop_reason"] == "interrupted")

    def load(self) -> Model:
        """The model, ready to predict."""
        return load(self.model)


def search(data: str | Path, budget: str | None = None, *, out: str | Path | None = None, **settings: Any) -> Run:
    """Find the best classifier for a folder or table of labelled images.

    Args:
        data: folder of class folders, or a CSV, TSV or Parquet table; `hf:NAME`, or what `datasets.save_to_disk` wrote.
        budget: wall-clock time for everything: "90s", "10m", "1h".
        out: the run folder to make; `runs/<data>-<date>` by default.
        **settings: any setting of docs/settings.md by its key (`device="cpu"`, `backbones=["resnet18"]`, ...).

    Raises:
        ConfigError: an unknown or wrong setting.
        DataError: the images cannot be used.
        BudgetExhausted: the budget ended before one usable model.
    """
    names = setting_names()
    overrides = {names.get(key, f"search.{key}"): value for key, value in settings.items()}
    chosen = load_settings(overrides={**overrides, "search.budget": budget})
    return run_search(Path(data), chosen, out=Path(out) if out else None)


def run_search(
    data: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    tell: Tell = silent,
    stop: StopRequest | None = None,
    started: float | None = None,
    fail_on_leak: bool = False,
    ranks: Ranks = ALONE,
) -> Run:
    """A new run.

    Args:
        data: the images.
        settings: all settings.
        out: the run folder to make; by default named by the settings, or after the data and the date.
        tell: listener for events.
        stop: may be set at any time to end the run tidily, or at once.
        started: monotonic seconds from which the budget counts; now by default.
        ranks: the processes that train each model together, of which this is the first.
        fail_on_leak: raise `LeakFound` before anything is trained where the split that came with the data leaks.
    """
    if is_url(data):
        parse_address(data)
    elif not is_hub_name(data) and not data.exists():
        raise DataError("there are no images at this path", value=str(data), fix="check the path given to --data")
    require_trackers(settings.output.track)
    clock = Clock(time.monotonic() if started is None else started, settings.budget_seconds)
    stop = stop or StopRequest()
    # Before the folder is made: data that cannot be used leave nothing behind.
    read_manifest(data, settings, lambda text: tell(Note(text)), asked_while_waiting(stop, clock))
    path = out or new_run_path(data, settings)
    promised = {_FAIL_ON_LEAK: True} if fail_on_leak else {}
    about = {"data": str(absolute_place(data)), **promised, **_trials_elsewhere(settings, path)}
    run = RunDir.create(path, settings, about)
    return _go(RunContext(run, data, settings, tell, stop, clock, fail_on_leak=fail_on_leak, ranks=ranks))


def _trials_elsewhere(settings: Settings, path: Path) -> dict[str, str]:
    """What a run has to know of its trials, where they are not in its folder."""
    url = settings.output.trials_url
    if not url:
        return {}
    check_place(place_of(url))
    return {"trials": trials_address(url, path)}


def resume_search(
    path: Path,
    *,
    tell: Tell = silent,
    stop: StopRequest | None = None,
    started: float | None = None,
    moved: Mapping[str, Any] | None = None,
    trusted: bool = False,
    fail_on_leak: bool = False,
    ranks: Ranks = ALONE,
) -> Run:
    """Go on with a run that was interrupted or killed; a finished one is returned as it is.

    Args:
        path: the run folder.
        tell: listener for events.
        stop: may be set at any time to end the run tidily.
        started: monotonic seconds from which this session counts; now by default.
        moved: settings of `config.MOVABLE` that it is to have from now on, by dotted name.
        trusted: whether a run that this user did not begin on this machine may do what its settings say, where that
            reaches out of its folder: trackers, a cluster, a cache, trials or images elsewhere.
        fail_on_leak: as in `run_search`; a run that was begun with it keeps it.
        ranks: the processes that train each model together, of which this is the first.

    Raises:
        RunError: there is no run, its data changed, or it is somebody else's and reaches out of its folder.
        RunInUse: another process works in it.
        LeakFound: the split that came with the data leaks.
    """
    run = RunDir.open(path)
    done = run.report
    with run_dir.as_written(path / run_dir.REPORT_JSON):
        reason = "interrupted" if done is None else str(done["stop_reason"])
    if done is not None and reason != "interrupted":
        run.close()
        tell(Note(f"This run is complete (stopped by: {reason}); nothing is left to do."))
        return Run(path, done)
    try:
        run.require_trust(moved or {}, trusted=trusted)
        run.move(moved or {})
        run.seal()
    except UsageError:
        run.close()
        raise
    settings = run.settings
    begun = (time.monotonic() if started is None else started) - run.spent
    again = 0.0 if settings.seconds_per_backbone is None else run.spent  # preparing anew takes nothing from their time
    clock = Clock(begun, settings.budget_seconds + again)
    stop = stop or StopRequest()
    strict = fail_on_leak or bool(run.about.get(_FAIL_ON_LEAK))
    data = Path(run.about["data"])
    return _go(RunContext(run, data, settings, tell, stop, clock, fail_on_leak=strict, ranks=ranks))


def _go(context: RunContext) -> Run:
    """All stages of one run, in their order, beside the trackers that watch it."""
    context.stop.go_on = context.how_to_resume
    try:
        with joined(context) as cluster, _tracking(context) as tracking:
            run = _stages(replace(context, tell=tracking.tell, cluster=cluster))
            tracking.finish(run.report, context.clock.remaining)
            return run
    except UsageError:
        context.run.discard()
        raise
    except TakenAway:
        context.run.note_spent(context.clock.elapsed)
        raise
    except (RankLost, RanksDiffer) as error:
        context.run.note_spent(context.clock.elapsed)
        raise ProcessLost(
            "another process that trains the same model is gone, or does not do the same",
            value=str(error),
            fix=f"see {run_dir.WORKERS}/; torchrun starts all of them again, else {context.how_to_resume}",
        ) from error
    finally:
        if not context.ranks.alone:
            remove_site(site_folder(context))  # ranks keep it to the end
        context.run.close()


def _tracking(context: RunContext) -> Tracking:
    def warn(text: str) -> None:
        context.note(text, warning=True)
        context.troubles.append(text)

    return Tracking(context.run.path, context.settings, context.tell, warn, context.note)


def _stages(context: RunContext) -> Run:
    try:
        with context.stage("read"):
            manifest = read(context)
        with context.stage("plan"):
            runtime, plan = plan_run(context, manifest)
            require_room(context, plan, len(manifest), len(manifest.class_names))
        prepared = decode_and_check(context, manifest, plan, runtime)
        try:
            _check_leaks(context, prepared)
            # Decoded images may have taken what there was.
            require_room(context, plan, len(manifest), len(manifest.class_names), warn=True)
            prepared = choose_resize(context, prepared, plan, runtime)
            return Run(context.run.path, _from_data_to_report(context, prepared, plan, runtime))
        finally:
            prepared.store.close()
    except OSError as error:
        if not run_dir.is_about_writing(context.run.path, error):
            raise
        raise cannot_write(context.run.path, error) from error


def _check_leaks(context: RunContext, prepared: Prepared) -> None:
    if context.fail_on_leak and prepared.split.leaks:
        raise LeakFound(
            "the split that came with the data leaks",
            value=f"{len(prepared.split.leaks)} images",
            fix=f"take out the rows marked 'aside' in {context.run.path / run_dir.SPLIT}; a search without "
            "--fail-on-leak leaves them out",
        )


def _from_data_to_report(context: RunContext, prepared: Prepared, plan: Plan, runtime: Runtime) -> dict[str, Any]:
    context = with_turns(context, prepared, plan)
    with context.stage("search", f"validation maximises {objective_of(context, prepared)}"):
        searched = search_trials(context, prepared, plan, runtime)
    with context.stage("costs"):
        measured = measure_costs(context, prepared, searched, plan.latencies)
        searched = without_slow(context, searched, measured)
    with context.stage("finish"):
        finished = finish(context, prepared, searched, measured.meter)
        time_shipped(context, prepared, searched, finished, measured.meter)
    impact = None
    if context.settings.search.measure_impact:
        with context.stage("impact"):
            impact = impact_of(context, prepared, searched)
    with context.stage("checks"):
        checks = check_data(context, prepared, searched, finished.ensemble.passes)
    with context.stage("test", f"{len(prepared.split.rows('test')):,} originals"):
        looked = look(context, prepared, searched, finished)
    with context.stage("report"):
        return write_report(context, prepared, searched, finished, looked, impact, measured, checks)


def inspect(data: Path, settings: Settings, *, tell: Tell = silent) -> Prepared:
    """What `search` would use, what is wrong with it and how it would be split; nothing is trained.

    Where no sets can be dealt, the result says why in `refused`, so that its faults can be looked at.

    Raises:
        DataError: there are no labelled images, or one changes while it is read.
    """
    tell(StageStarted("read"))
    manifest = read_manifest(data, settings, lambda text: tell(Note(text)))
    runtime = make_runtime("cpu", "float32", settings.machine.threads)
    plan = make_plan(manifest, settings, runtime, offline=True)
    tell(StageStarted("decode", f"{len(manifest):,} images"))
    sizes = stored_sizes(plan.resolutions)
    store, facts = decode(
        manifest,
        settings,
        sizes,
        runtime.threads,
        lambda n, of: tell(Progress(n, of)),
        tell=lambda text: tell(Note(text)),
    )
    for text in store.notes:
        tell(Note(text, "warning"))
    if pictures_to_compare(manifest, settings):
        tell(StageStarted("compare"))
        facts = inspected_pictures(
            manifest,
            facts,
            settings,
            runtime,
            progress=lambda n, of: tell(Progress(n, of)),
            warn=lambda text: tell(Note(text, "warning")),
        )
    tell(StageStarted("audit"))
    return prepare_to_look(manifest, facts, store, settings)


def shard(data: Path, settings: Settings, out: Address, size: ShardSize, *, tell: Tell = silent) -> Sharding:
    """Write a data set as tar shards, its sets and groups decided as `inspect` decides them.

    Args:
        data: the images.
        settings: all settings.
        out: a folder, or a URL that can be written to.
        size: of a shard.
        tell: listener for events.

    Raises:
        DataError: the images cannot be used, or one changes meanwhile.
        UsageError: the folder holds something else, or cannot be written.
        BudgetExhausted: the disk has no room.
    """
    prepared = inspect(data, settings, tell=tell)
    try:
        if prepared.refused is not None:
            raise prepared.refused
        return write_shards(prepared, settings, out, size, tell)
    finally:
        prepared.store.close()


def verify_shards(place: Address, settings: Settings, *, tell: Tell = silent) -> Verified:
    """Compare every byte of shards with what was written.

    Raises:
        DataError: there are no shards, or their tables are not those that were written.
    """
    source = open_source(place, settings)
    tell(StageStarted("verify", f"{len(source.index.shards):,} shards"))
    return compare_shards(source, lambda done, total: tell(Progress(done, total)))


def write_inspection(prepared: Prepared, data: Path, settings: Settings, out: Path, *, tell: Tell = silent) -> Path:
    """Write inspect.html, split.csv, audit.csv and evidence.csv into `out`.

    Args:
        prepared: what `inspect` returned.
        data: where the images are; names the page.
        settings: those that `inspect` was given.
        out: a folder; made where it is missing.
        tell: listener for events.

    Returns:
        the page.

    Raises:
        OSError: the folder cannot be written.
    """
    tell(StageStarted("page"))
    page = render_inspection(
        prepared,
        settings.data,
        name=absolute_place(data).name,
        created=run_dir.now(),
        threads=make_runtime("cpu", "float32", settings.machine.threads).threads,
        progress=lambda done, total: tell(Progress(done, total)),
    )
    out.mkdir(parents=True, exist_ok=True)
    run_dir.write_tables(prepared, out)
    write_text(out / run_dir.EVIDENCE, run_dir.table_text(evidence_table(prepared)))
    write_text(out / run_dir.INSPECTION, page)
    return out / run_dir.INSPECTION


def render_again(path: Path) -> Path:
    """Render report.html and README.md of a run from its report.json, with looks at the test set that came after it.

    Raises:
        RunError: there is no run with a report in this folder, the report is not as a search leaves it, another process
            works there, or the folder cannot be written.
    """
    files = render_run(path)
    try:
        with run_dir.held(path):
            write_rendered(path, files)
    except OSError as error:
        raise cannot_write(path, error) from None
    return path / run_dir.REPORT_HTML


def verify_run(path: Path) -> list[str]:
    """Differences between what report.json says and what follows from the predictions that lie beside it.

    Raises:
        RunError: there is no run with a report in this folder, or the report is not as a search leaves it.
        DataError: the predictions cannot be read.
    """
    report = report_of(path)
    files = {name: path / run_dir.predictions_file(name) for name in ("test", "val", "augmented_val")}
    test, validation = (Predictions.from_csv(files[name]) for name in ("test", "val"))
    augmented = Predictions.from_csv(files["augmented_val"]) if files["augmented_val"].exists() else None
    with told_as_damage(path / run_dir.REPORT_JSON):
        return [*verify(report, test, validation, augmented), *_model_of_another(path, report)]


def _model_of_another(path: Path, report: Mapping[str, Any]) -> list[str]:
    """One line where the model file beside a report is not the model that it is of."""
    model = path / run_dir.MODEL
    if not model.is_file() or report_is_of(report, load_bundle(model).provenance):
        return []
    return [f"{run_dir.MODEL}: the report is not of this model"]
