"""`automl-vision cache`: images of earlier runs, what they take, and giving them up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from automl_vision.cli.terminal import safe, seconds_text, stderr, stdout
from automl_vision.errors import UsageError

if TYPE_CHECKING:
    from automl_vision.data.cache_entries import CacheEntry

app = typer.Typer(
    no_args_is_help=True, help="List decoded images of earlier runs, or give them up; none is ever the only copy."
)

_CacheDir = Annotated[
    str,
    typer.Option("--cache-dir", help="Folder of the cache; without, that of this user.", show_default=False),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("ls")
def ls(cache_dir: _CacheDir = "", json_output: _Json = False) -> None:
    """Show what is kept, the sets used last first."""
    from automl_vision.data.cache_entries import cache_entries, unfinished_bytes

    folder = _folder(cache_dir)
    entries, unfinished = cache_entries(folder), unfinished_bytes(folder)
    if json_output:
        kept = {"folder": str(folder), "entries": [_values(entry) for entry in entries], "unfinished_bytes": unfinished}
        typer.echo(json.dumps(kept))
        return
    if unfinished:
        stdout.print(f"Sets that are not finished take {unfinished / 1e6:,.1f} MB.", soft_wrap=True)
    if not entries:
        stdout.print(f"Nothing is kept in {safe(str(folder))}.", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, side in (
        ("set", "left"),
        ("images", "right"),
        ("sides", "left"),
        ("MB", "right"),
        ("last used", "left"),
    ):
        table.add_column(title, justify=side)  # type: ignore[arg-type] # a literal above
    for entry in entries:
        sides = "as files" if entry.kind == "unpacked" else " ".join(map(str, entry.sizes)) or "damaged"
        ago = f"{seconds_text(time.time() - entry.used)} ago"
        table.add_row(entry.key[:12], f"{entry.images:,}", sides, f"{entry.bytes / 1e6:,.1f}", ago)
    stdout.print(table)
    stdout.print(f"{_megabytes(entries)} in {safe(str(folder))}.", style="dim", soft_wrap=True)


@app.command("prune")
def prune(
    gigabytes: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1e6, help="What may stay; without, a fifth of the disk and at most 200.", show_default=False
        ),
    ] = None,
    cache_dir: _CacheDir = "",
    json_output: _Json = False,
) -> None:
    """Remove what was used longest ago until the rest is small enough, and what killed programs left."""
    from automl_vision.data.cache_entries import give_up, largest_cache

    folder = _folder(cache_dir)
    if not folder.is_dir():
        _tell((), folder, json_output)
        return
    most = largest_cache(folder) if gigabytes is None else int(gigabytes * 1e9)
    _tell(give_up(folder, most), folder, json_output)
    _require_gone(folder, most)


@app.command("clear")
def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    cache_dir: _CacheDir = "",
    json_output: _Json = False,
) -> None:
    """Remove everything that is kept, also what comparing pictures told; later runs decode and compare again."""
    if not yes and not stderr.is_terminal:
        raise UsageError("nobody is there to be asked", fix="use --yes")
    from automl_vision.data.cache_entries import COMPARISONS, cache_entries, give_up
    from automl_vision.data.content_store import remove_store

    folder = _folder(cache_dir)
    if not yes:
        kept = _megabytes(cache_entries(folder))
        if not typer.confirm(f"Remove {kept} of decoded images in {safe(str(folder))}?", err=True):
            stdout.print("Nothing was removed.")
            return
    _tell(give_up(folder, 0) if folder.is_dir() else (), folder, json_output)
    try:
        remove_store(folder / COMPARISONS)
    except OSError as error:
        raise UsageError(
            "what comparing pictures told cannot be removed",
            value=f"{folder / COMPARISONS} ({error.strerror})",
            fix="end the program that uses it, or check the permissions of the folder",
        ) from None
    _require_gone(folder, 0)


def _folder(given: str) -> Path:
    from automl_vision.data.plane_cache import cache_dir_of

    folder = cache_dir_of(given)
    if folder.exists() and not folder.is_dir():
        raise UsageError("this is no folder", value=str(folder), fix="give the folder that --cache-dir of search names")
    return folder


def _require_gone(folder: Path, most_bytes: int) -> None:
    """Complain about what was to go and is still there."""
    from automl_vision.data.cache_entries import cache_entries

    left = cache_entries(folder)
    if sum(entry.bytes for entry in left) > most_bytes:
        raise UsageError(
            "sets that were to go could not be removed",
            value=f"{_megabytes(left)} are left in {folder}",
            fix="wait for the search that is building them, or check the permissions of the folder",
        )


def _values(entry: CacheEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "kind": entry.kind,
        "images": entry.images,
        "sizes": list(entry.sizes),
        "bytes": entry.bytes,
        "used": entry.used,
    }


def _megabytes(entries: tuple[CacheEntry, ...]) -> str:
    return f"{sum(entry.bytes for entry in entries) / 1e6:,.1f} MB"


def _tell(removed: tuple[CacheEntry, ...], folder: Path, json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps({"folder": str(folder), "removed": [_values(entry) for entry in removed]}))
        return
    sets = f"{len(removed)} set{'s' * (len(removed) != 1)}"
    stdout.print(f"Removed {sets}, {_megabytes(removed)}, from {safe(str(folder))}.", soft_wrap=True)
