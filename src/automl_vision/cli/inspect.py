"""`automl-vision inspect`: what would be used, what is wrong with it, and how it would be split."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from automl_vision.cli.options import with_settings
from automl_vision.cli.paths import DATA_HELP, require_data, require_no_data, require_no_input, write_or_refuse
from automl_vision.cli.process import loading
from automl_vision.cli.terminal import safe, stdout
from automl_vision.config import load_settings
from automl_vision.errors import LeakFound

if TYPE_CHECKING:
    from automl_vision.config import Settings
    from automl_vision.data.preparation import Prepared
    from automl_vision.events import Tell
    from automl_vision.report.inspection import Verdict

SHOWN_FINDINGS = 12
SHOWN_CLASSES = 20
SHOWN_LEAKS = 8
SETS = ("train", "val", "test", "aside", "quarantine")


@with_settings(
    "data", "split", "machine.cache", "machine.cache_dir", "machine.decode_ahead", "machine.seed", "machine.threads"
)
def inspect(
    overrides: dict[str, Any],
    data: Annotated[Path, typer.Option("--data", "-d", help=DATA_HELP)],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with settings; options win over it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write inspect.html, split.csv, audit.csv and evidence.csv into this folder."),
    ] = None,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="Exit 4 where the split that came with the data leaks.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Check the images and show the planned sets. Nothing is trained, and nothing of the data is changed.

    [bold]Examples[/bold]

    automl-vision inspect --data ./imgs

    automl-vision inspect --data labels.csv --out ./audit --fail-on-leak
    """
    settings = load_settings(config, overrides)
    require_data(data)

    with loading():
        from automl_vision.cli.progress import listener
        from automl_vision.cli.result import print_json
        from automl_vision.pipeline import inspect as look
        from automl_vision.report.inspection import judge
        from automl_vision.report.sections import data_section
        from automl_vision.run_dir import INSPECTED

    if out is not None:
        for name in INSPECTED:
            _require_apart(out / name, data, config, settings)

    with listener(quiet=quiet or json_output) as tell:
        prepared = look(data, settings, tell=tell)
        if out is not None:
            _write(prepared, data, settings, out, tell)
    _refuse(prepared, fail_on_leak=fail_on_leak)
    verdict = judge(prepared, settings.data)
    section = data_section(prepared, data)
    if json_output:
        print_json({**section, "classes": list(prepared.manifest.class_names), "verdict": asdict(verdict)})
    else:
        _show(prepared, verdict, section, out)
    if fail_on_leak:
        _require_no_leak(prepared)


def _require_apart(file: Path, data: Path, config: Path | None, settings: Settings) -> None:
    """Raise UsageError where a file of the inspection would replace what is read."""
    require_no_input(file, [Path(each) for each in (config, settings.data.label_map) if each])
    require_no_data(file, data)


def _refuse(prepared: Prepared, *, fail_on_leak: bool) -> None:
    """Raise what is wrong with data that cannot be trained on; a leak comes first where it was asked for."""
    if prepared.refused is not None:
        if fail_on_leak:
            _require_no_leak(prepared)
        raise prepared.refused


def _require_no_leak(prepared: Prepared) -> None:
    if prepared.split.leaks:
        raise LeakFound(
            "the split that came with the data leaks",
            value=f"{len(prepared.split.leaks)} images",
            fix="the rows marked 'aside' in split.csv (see --out) are the ones to take out",
        )


def _write(prepared: Prepared, data: Path, settings: Settings, out: Path, tell: Tell) -> None:
    from automl_vision.pipeline import write_inspection

    write_or_refuse(out, lambda: write_inspection(prepared, data, settings, out, tell=tell))


def _show(prepared: Prepared, verdict: Verdict, section: dict[str, Any], out: Path | None) -> None:
    stdout.print(safe(verdict.summary), highlight=False)
    _print_points([("[yellow]![/yellow]", safe(sentence)) for sentence in verdict.doubts])
    stdout.print()
    stdout.print(_classes(prepared, section))
    stdout.print()
    _print_findings(prepared)
    _print_leaks(prepared)
    if verdict.unchecked:
        stdout.print("Not checked:", highlight=False)
        _print_points([("-", safe(sentence)) for sentence in verdict.unchecked])
    if out is not None:
        stdout.print(f"Page: {safe(str(out / 'inspect.html'))}", highlight=False, soft_wrap=True)


def _print_points(points: list[tuple[str, str]]) -> None:
    """Sentences with their marks before them, wrapped beside the marks."""
    lines = Table.grid(padding=(0, 1))
    for mark, text in points:
        lines.add_row(mark, text)
    if points:
        stdout.print(lines, highlight=False)


def _classes(prepared: Prepared, section: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("class", overflow="ellipsis", no_wrap=True)
    for name in SETS:
        table.add_column(name, justify="right", no_wrap=True)
    names = prepared.manifest.class_names
    for index, name in enumerate(names[:SHOWN_CLASSES]):
        table.add_row(safe(name), *(f"{section['class_counts'][each][index]:,}" for each in SETS))
    if len(names) > SHOWN_CLASSES:
        table.add_row(f"... {len(names) - SHOWN_CLASSES:,} more classes", style="dim")
    table.add_row("[bold]all[/bold]", *(f"{sum(section['class_counts'][each]):,}" for each in SETS))
    return table


def _print_findings(prepared: Prepared) -> None:
    from automl_vision.report.findings import fold
    from automl_vision.report.inspection import TOLD

    colours = {"error": "red", "warning": "yellow", "info": "dim"}
    lines = [line for line in fold(prepared) if line.kind not in TOLD]
    points = []
    for line in lines[:SHOWN_FINDINGS]:
        colour = colours[line.severity]
        fix = f" [dim]Fix: {safe(line.fix)}.[/dim]" if line.fix and line.severity != "info" else ""
        points.append((f"[{colour}]{line.severity}[/{colour}]", f"{safe(line.text)}.{fix}"))
    _print_points(points)
    if len(lines) > SHOWN_FINDINGS:
        stdout.print(f"... {len(lines) - SHOWN_FINDINGS} more findings; --out writes all to audit.csv", style="dim")


def _print_leaks(prepared: Prepared) -> None:
    leaks = prepared.split.leaks
    if leaks:
        stdout.print(f"[red]Leaks across the split that came with the data: {len(leaks):,}[/red]", highlight=False)
    for row, reason in leaks[:SHOWN_LEAKS]:
        stdout.print(f"  {safe(prepared.manifest.paths[row])}: {safe(reason)}", highlight=False)
    if len(leaks) > SHOWN_LEAKS:
        stdout.print(f"  ... {len(leaks) - SHOWN_LEAKS:,} more; --out shows them", style="dim")
