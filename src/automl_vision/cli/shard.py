"""`automl-vision shard`: a data set as tar shards, for data that are larger than a disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl_vision.cli.options import with_settings
from automl_vision.cli.paths import DATA_HELP, require_data
from automl_vision.cli.process import loading
from automl_vision.cli.terminal import safe, stdout
from automl_vision.config import load_settings
from automl_vision.data.shards.address import parse_address
from automl_vision.errors import PartialFailure, UsageError

if TYPE_CHECKING:
    from automl_vision.config import Settings
    from automl_vision.stages.shard import Sharding

_MB = 1_000_000


@with_settings(
    "data", "split", "machine.cache", "machine.cache_dir", "machine.decode_ahead", "machine.seed", "machine.threads"
)
def shard(
    overrides: dict[str, Any],
    data: Annotated[Path | None, typer.Option("--data", "-d", help=DATA_HELP, show_default=False)] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="Folder or URL (s3://, gs://) that the shards are written to.", show_default=False
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            "--verify", help="Folder or URL of shards: compare every byte with what was written.", show_default=False
        ),
    ] = None,
    shard_mb: Annotated[
        float, typer.Option("--shard-mb", min=1e-3, max=1e6, help="Megabytes (of a million bytes) of a shard, at most.")
    ] = 256.0,
    shard_images: Annotated[
        int, typer.Option("--shard-images", min=0, help="Images in a shard, at most (0: as many as fit).")
    ] = 0,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with settings; options win over it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Write a data set as tar shards (WebDataset layout), or check such shards. Sets and copies are decided before.

    Images are checked and dealt to train, validation and test as inspect shows it; each set has shards of its own, and
    what is set aside is listed and in none. search, inspect and evaluate read the folder, or its URL, with --data. A
    call that was cut off goes on where it was when it is made again.

    [bold]Examples[/bold]

    automl-vision shard --data ./imgs --out ./shards

    automl-vision shard --data ./imgs --out s3://bucket/imgs --shard-mb 512

    automl-vision shard --verify ./shards
    """
    settings = load_settings(config, overrides)
    if (verify is None) == (data is None or out is None):
        raise UsageError(
            "give --data and --out, or --verify",
            value=None,
            fix="automl-vision shard --data ./imgs --out ./shards, or automl-vision shard --verify ./shards",
        )
    quiet = quiet or json_output
    if verify is not None:
        _verify(verify, settings, quiet=quiet, json_output=json_output)
        return
    assert data is not None and out is not None  # noqa: S101 - checked above
    require_data(data)
    target = parse_address(out, to_write=True)

    with loading():
        from automl_vision.cli.progress import listener
        from automl_vision.cli.result import print_json
        from automl_vision.data.shards.plan import ShardSize
        from automl_vision.pipeline import shard as write

    with listener(quiet=quiet) as tell:
        sharding = write(data, settings, target, ShardSize(int(shard_mb * _MB), shard_images), tell=tell)
    print_json(sharding.to_dict()) if json_output else _show(sharding)


def _show(sharding: Sharding) -> None:
    told = sharding.to_dict()
    sets = ", ".join(f"{name} {count:,}" for name, count in told["counts"].items())
    stdout.print(
        f"{told['samples']:,} images in {told['shards']:,} shards, {told['bytes'] / _MB:,.1f} MB: {sets}.",
        highlight=False,
    )
    if told["kept"]:
        stdout.print(f"{told['kept']:,} of these shards were there already and are kept.", highlight=False)
    stdout.print(f"Use them with --data {safe(told['out'])}", highlight=False, soft_wrap=True)


def _verify(place: str, settings: Settings, *, quiet: bool, json_output: bool) -> None:
    address = parse_address(place)
    with loading():
        from automl_vision.cli.progress import listener
        from automl_vision.cli.result import print_json
        from automl_vision.pipeline import verify_shards

    with listener(quiet=quiet) as tell:
        found = verify_shards(address, settings, tell=tell)
    if json_output:
        print_json(
            {
                "shards": found.shards,
                "samples": found.samples,
                "bytes": found.bytes,
                "lost": found.lost,
                "problems": list(found.problems),
            }
        )
    elif not found.problems:
        stdout.print(
            f"{found.shards:,} shards of {found.samples:,} samples are what was written: {found.bytes / _MB:,.1f} MB.",
            highlight=False,
        )
    else:
        for line in found.problems:
            stdout.print(safe(line), highlight=False, soft_wrap=True)
    if found.problems:
        raise PartialFailure(
            f"{len(found.problems):,} of {found.shards:,} shards are not what was written",
            value=f"{found.lost:,} of {found.samples:,} samples are missing or altered",
            fix="bring these shards again from where they were written; until then their samples are quarantined",
        )
