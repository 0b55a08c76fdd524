"""`automl-vision inspect`: what would be used, what is wrong with it, and how it would be split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from automl_vision.cli.options import with_settings
from automl_vision.cli.paths import require_data, write_or_refuse
from automl_vision.cli.terminal import safe, stdout
from automl_vision.config import load_settings
from automl_vision.errors import LeakFound

if TYPE_CHECKING:
    from automl_vision.data.preparation import Prepared

SHOWN_FINDINGS = 20
SHOWN_CLASSES = 40
SETS = ("train", "val", "test", "aside", "quarantine")


@with_settings("data", "split", "machine.cache", "machine.cache_dir", "machine.seed", "machine.threads")
def inspect(
    overrides: dict[str, Any],
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Folder of class folders, or a CSV, TSV or Parquet table.")
    ],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with settings; options win over it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write split.csv and audit.csv into this folder.")
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

    from automl_vision.cli.progress import listener
    from automl_vision.cli.result import print_json
    from automl_vision.pipeline import inspect as look
    from automl_vision.report.sections import data_section

    with listener(quiet=quiet or json_output) as tell:
        prepared = look(data, settings, tell=tell)
    if out is not None:
        _write(prepared, out)
    section = data_section(prepared, data)
    if json_output:
        print_json({**section, "classes": list(prepared.manifest.class_names)})
    else:
        _show(prepared, section, out)
    if fail_on_leak and prepared.split.leaks:
        raise LeakFound(
            "the split that came with the data leaks",
            value=f"{len(prepared.split.leaks)} images",
            fix="the rows marked 'aside' in split.csv (see --out) are the ones to take out",
        )


def _write(prepared: Prepared, out: Path) -> None:
    from automl_vision.run_dir import write_tables

    def write() -> None:
        out.mkdir(parents=True, exist_ok=True)
        write_tables(prepared, out)

    write_or_refuse(out, write)


def _show(prepared: Prepared, section: dict[str, Any], out: Path | None) -> None:
    stdout.print(_headline(section), highlight=False)
    stdout.print(_classes(prepared, section))
    _print_findings(section["findings"])
    _print_leaks(prepared)
    if out is not None:
        stdout.print(f"Wrote {safe(str(out / 'split.csv'))} and audit.csv", highlight=False)


def _headline(section: dict[str, Any]) -> str:
    return (
        f"[bold]{section['images']:,} images[/bold]: {section['copies']:,} copies, {section['groups']:,} groups, "
        f"{section['eligible']:,} originals that may be tested on, {section['quarantined']:,} unreadable"
    )


def _classes(prepared: Prepared, section: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("class")
    for name in SETS:
        table.add_column(name, justify="right")
    names = prepared.manifest.class_names
    for index, name in enumerate(names[:SHOWN_CLASSES]):
        table.add_row(safe(name), *(f"{section['class_counts'][each][index]:,}" for each in SETS))
    if len(names) > SHOWN_CLASSES:
        table.add_row(f"... {len(names) - SHOWN_CLASSES} more classes", style="dim")
    table.add_row("[bold]all[/bold]", *(f"{sum(section['class_counts'][each]):,}" for each in SETS))
    return table


def _print_findings(findings: list[dict[str, str]]) -> None:
    colours = {"error": "red", "warning": "yellow", "info": "dim"}
    order = {name: number for number, name in enumerate(colours)}
    ranked = sorted(findings, key=lambda finding: order[finding["severity"]])
    for finding in ranked[:SHOWN_FINDINGS]:
        where = f"{safe(finding['path'])}: " if finding["path"] else ""
        fix = f" [dim]{safe(finding['fix'])}[/dim]" if finding["fix"] and finding["severity"] != "info" else ""
        colour = colours[finding["severity"]]
        stdout.print(
            f"[{colour}]{finding['severity']}[/{colour}] {where}{safe(finding['detail'])}.{fix}", highlight=False
        )
    if len(ranked) > SHOWN_FINDINGS:
        stdout.print(f"... {len(ranked) - SHOWN_FINDINGS} more findings; --out writes all to audit.csv", style="dim")


def _print_leaks(prepared: Prepared) -> None:
    leaks = prepared.split.leaks
    if leaks:
        stdout.print(
            f"[red]{len(leaks):,} images leak across the split that came with the data:[/red]", highlight=False
        )
    for row, reason in leaks[:SHOWN_FINDINGS]:
        stdout.print(f"  {safe(prepared.manifest.paths[row])}: {safe(reason)}", highlight=False)
