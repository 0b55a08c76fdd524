"""`automl-vision evaluate`: a model measured on another labelled set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl_vision.cli.options import with_settings
from automl_vision.cli.paths import (
    DATA_HELP,
    require_data,
    require_model,
    require_no_data,
    require_replaceable,
    write_or_refuse,
)
from automl_vision.cli.process import loading
from automl_vision.cli.terminal import safe, stderr
from automl_vision.config import load_settings
from automl_vision.errors import DataError, LeakFound, PartialFailure, UsageError

if TYPE_CHECKING:
    from automl_vision.config import Settings
    from automl_vision.pipeline import Evaluation


@with_settings("data", "machine.device", "machine.seed")
def evaluate(
    overrides: dict[str, Any],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model.pt of a run.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", "-d", help=DATA_HELP)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the predictions to this CSV file.", show_default=False)
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", help="Write the figures to this HTML page: one file, no outside requests.", show_default=False
        ),
    ] = None,
    include_seen: Annotated[
        bool,
        typer.Option(
            "--include-seen/--exclude-seen",
            help="Count images that the model was trained on or chosen with as well.",
        ),
    ] = False,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="Exit 4 where the model was trained on or chosen with an image.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Measure a model on other labelled images, with intervals. Its classes are matched by name.

    How far its figures fall against its own test set is said over all and for each class.

    Images that it was trained on or chosen with, also saved again, scaled, mirrored or turned, are found by the digests
    in the model file and do not count.

    [bold]Examples[/bold]

    automl-vision evaluate runs/imgs/model.pt --data ./photos-from-another-camera

    automl-vision evaluate runs/imgs/model.pt --data ./holdout --fail-on-leak
    """
    settings = load_settings(overrides=overrides)
    require_model(model)
    require_data(data)
    _require_apart(out, page, model, data, settings)

    with loading():
        from automl_vision.cli.progress import listener
        from automl_vision.cli.result import print_evaluation, print_json
        from automl_vision.files import write_text
        from automl_vision.pipeline import evaluate as measure
        from automl_vision.report.evaluation_page import render_evaluation
        from automl_vision.run_dir import now

    with listener(quiet=quiet or json_output) as tell:
        found = measure(model, data, settings, include_seen=include_seen, tell=tell)
    if out is not None:
        write_or_refuse(out, lambda: found.predictions.to_csv(out))
    if page is not None and found.figures is not None:
        name = data.resolve().name or "data"
        text = render_evaluation(_plain(found), name=name, model=str(model), created=now())
        write_or_refuse(page, lambda: write_text(page, text))
    if json_output:
        print_json(_plain(found))
    else:
        print_evaluation(found, safe(data.name) or "data")
    for path, reason in found.failed[:10]:
        stderr.print(f"  {safe(path)}: {safe(reason)}", highlight=False)
    _leave(found, fail_on_leak=fail_on_leak)


def _require_apart(out: Path | None, page: Path | None, model: Path, data: Path, settings: Settings) -> None:
    """Raise UsageError where what is written would replace what is read, or the page the table."""
    given = settings.data.label_map
    for file in filter(None, (out, page)):
        require_replaceable(file, (model, *([Path(given)] if given else [])))
        require_no_data(file, data)
    if out is not None and page is not None and out.resolve() == page.resolve():
        raise UsageError("the page would replace the predictions", value=page, fix="name another file with --page")


def _plain(found: Evaluation) -> dict[str, Any]:
    """The evaluation as plain JSON types."""
    failed = [{"path": path, "error": reason} for path, reason in found.failed]
    more = {"drop": found.drop, "missing_classes": list(found.missing), "known": found.known, "failed": failed}
    return {**(found.figures or {"n": 0}), **more}


def _leave(found: Evaluation, *, fail_on_leak: bool) -> None:
    """What scripts must not miss, the gravest first."""
    if fail_on_leak and not found.known["checked"]:
        raise UsageError(
            "--fail-on-leak has nothing to check with",
            value=found.known["reason"],
            fix="use a model that was made with its fingerprint, or leave out --fail-on-leak",
        )
    if fail_on_leak and found.seen:
        raise LeakFound(
            "the model was trained on or chosen with images of this set",
            value=f"{found.seen} of {len(found.predictions)} images",
            fix="take them out (--json lists them), or leave out --fail-on-leak: they do not count in the figures",
        )
    if found.figures is None:
        raise DataError(
            "the model was trained on or chosen with every image of this set",
            value=f"{found.seen} images",
            fix="bring other images; --include-seen counts them, but says nothing of new ones",
        )
    if found.failed:
        raise PartialFailure(
            "images could not be read and are not counted", value=str(len(found.failed)), fix="repair or remove them"
        )
