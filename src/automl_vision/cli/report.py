"""`automl-vision report`: render a run's report again, verify its numbers, or compare several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automl_vision.cli.paths import require_baseline, require_no_input, require_run, write_or_refuse
from automl_vision.cli.terminal import safe, stderr, stdout
from automl_vision.errors import AutomlVisionError, UsageError

#: What `--verify` says, and no more than it did.
FIGURES = (
    "Bit for bit what the saved predictions give: {sections} in report.json, without the linear probe among the "
    "baselines."
)
JUDGED = "Warnings and checklist are what follows from what the report says."
NOT_JUDGED = (
    "Not compared: its warnings and checklist, and any of these sections that it lacks, since it says that version "
    "{theirs} wrote it, and this is {ours}."
)
NOT_COMPARED = (
    "Not compared: whatever else it says, such as the scores of trials and of backbones, the selection, costs, checks "
    "of the data and the linear probe, whose predictions are not kept; and the pages, which automl-vision report RUN "
    "makes anew."
)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="The folder of a run, or of several.", show_default=False)
    ],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compute every figure that has saved predictions again from them, and compare."),
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            help="CSV of figures to stand beside: columns dataset and accuracy, precision, f1; percent or shares.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write comparison.html, comparison.csv and comparison.json into this folder.",
            show_default=False,
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the comparison as one JSON object.")] = False,
) -> None:
    """Render report.html again from report.json, check that the numbers follow from the predictions, or compare runs.

    Several runs are compared by what they left: no image is opened. Those with the same test images are compared in
    pairs, image by image; all share one table of accuracy, precision and F1.

    [bold]Examples[/bold]

    automl-vision report runs/imgs

    automl-vision report runs/imgs --verify

    automl-vision report runs/a runs/b runs/c --baseline published.csv --out compared
    """
    for run in runs:
        require_run(run)
    compared = len(runs) > 1 or baseline is not None or out is not None or json_output
    if verify:
        if baseline is not None or out is not None or json_output:
            raise UsageError("--verify stands alone", value="--verify", fix="leave out --baseline, --out and --json")
        for run in runs:
            _verify(run)
    elif compared:
        _compare(runs, baseline, out, json_output=json_output)
    else:
        from automl_vision.pipeline import render_again

        stdout.print(f"Wrote {safe(str(render_again(runs[0])))}", highlight=False)


def _compare(runs: list[Path], baseline: Path | None, out: Path | None, *, json_output: bool) -> None:
    if baseline is not None:
        require_baseline(baseline)

    from automl_vision.cli.comparison import print_comparison
    from automl_vision.cli.result import print_json
    from automl_vision.stages.compare_runs import COMPARISON_FILES, compare_runs, write_comparison

    if out is not None and baseline is not None:
        for name in COMPARISON_FILES:
            require_no_input(out / name, (baseline,))
    comparison = compare_runs(runs, baseline)
    if out is not None:
        write_or_refuse(out, lambda: write_comparison(comparison, out))
        stderr.print(f"Wrote {safe(str(out / 'comparison.html'))}", highlight=False)
    if json_output:
        print_json(comparison)
    else:
        print_comparison(comparison)


def _verify(run: Path) -> None:
    from automl_vision.pipeline import verify_run

    differences = verify_run(run)
    for line in differences:
        stdout.print(safe(line), highlight=False)
    if differences:
        raise AutomlVisionError(
            "the report does not follow from the predictions",
            value=f"{len(differences)} differences",
            fix="one of the two files was changed; trust neither",
        )
    stdout.print(safe(_verified(run)), highlight=False, soft_wrap=True)


def _verified(run: Path) -> str:
    """What was found to be as it has to be, and what was not looked at."""
    from automl_vision import __version__
    from automl_vision.report.report import FOLLOWING, is_of_this_version
    from automl_vision.run_dir import read_report

    report = read_report(run) or {}
    theirs = report.get("environment", {}).get("automl-vision")
    judged = JUDGED if is_of_this_version(report) else NOT_JUDGED.format(theirs=theirs, ours=__version__)
    return " ".join((FIGURES.format(sections=", ".join(FOLLOWING)), judged, NOT_COMPARED))
