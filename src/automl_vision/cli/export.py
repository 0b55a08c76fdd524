"""`automl-vision export`: a model in a form that other programs run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automl_vision.cli.paths import require_data, require_model, require_run
from automl_vision.cli.process import loading
from automl_vision.cli.terminal import safe, stderr, stdout
from automl_vision.errors import UsageError

if TYPE_CHECKING:
    from automl_vision.exporting.export import Exported
    from automl_vision.exporting.trial_model import TrialModel


class Form(StrEnum):
    """The formats; `pt` is a model file of this program."""

    pt = "pt"
    onnx = "onnx"
    torch_export = "torch-export"
    torchscript = "torchscript"
    huggingface = "huggingface"


def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="The model.pt of a run; with --trial the folder of a run.", show_default=False
        ),
    ],
    format: Annotated[Form, typer.Option("--format", "-f", help="What to write.")],
    trial: Annotated[
        int | None,
        typer.Option(
            "--trial",
            min=0,
            help="A trial of the run instead of its model; it was not tested, and says so.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File or folder to write (default: beside the model).", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="Labelled images to check with (default: those of the run): folder of class folders, or a table.",
            show_default=False,
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights and activations in 8 bits (onnx); what that costs is measured.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier export left there.")] = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub",
            metavar="USER/NAME",
            help="Upload the folder to the Hugging Face hub, with the token in HF_TOKEN; a new repository is private.",
            show_default=False,
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Write a model for other programs: networks, normalisation, votes and calibration in one.

    It is compared with the model file on real images, and kept only where both say the same.

    [bold]Examples[/bold]

    automl-vision export runs/imgs/model.pt --format onnx

    automl-vision export runs/imgs/model.pt --format onnx --int8 --data ./imgs

    automl-vision export runs/imgs/model.pt --format huggingface --push-to-hub me/my-classifier

    automl-vision export runs/imgs --trial 7 --format pt
    """
    _check(model, format, trial, int8=int8, push_to_hub=push_to_hub)
    if trial is not None:
        model = model / "model.pt"
    if data is not None:
        require_data(data)
    if push_to_hub is not None and push_to_hub.count("/") != 1:
        raise UsageError("--push-to-hub takes a repository", value=repr(push_to_hub), fix="write it like USER/NAME")

    with loading():
        from automl_vision.exporting.export import Order
        from automl_vision.exporting.export import export as write
        from automl_vision.exporting.trial_model import export_trial, write_trial_model

    if trial is not None and format is Form.pt:
        _print_trial(write_trial_model(model.parent, trial, out, force=force), json_output=json_output)
        return
    order = Order(model, format.value, out, data, int8, force, push_to_hub)
    with stderr.status("loading") as status:

        def tell(doing: str) -> None:
            status.update(safe(doing))

        exported = write(order, tell) if trial is None else export_trial(order, trial, tell)
    if json_output:
        _print_json(exported)
    else:
        _print(exported)


def _check(model: Path, format: Form, trial: int | None, *, int8: bool, push_to_hub: str | None) -> None:
    """What can be told before anything is loaded."""
    if trial is None:
        require_model(model)
        if format is Form.pt:
            raise UsageError("--format pt goes with --trial", value=str(model), fix="name a trial, or another format")
        return
    require_run(model)
    if not model.is_dir():
        raise UsageError("--trial takes the folder of a run", value=str(model), fix="give the folder, not a file in it")
    if format is Form.pt and (int8 or push_to_hub):
        raise UsageError(
            "a model file is neither written in 8 bits nor pushed",
            value=f"trial {trial}",
            fix="choose another --format",
        )


def _print_trial(written: TrialModel, *, json_output: bool) -> None:
    if json_output:
        from dataclasses import asdict

        from automl_vision.cli.result import print_json

        print_json({**asdict(written), "path": str(written.path), "card": str(written.card), "tested": False})
        return
    for line in (
        f"Wrote {written.path} ({written.bytes / 1e6:.1f} MB) and {written.card}",
        f"It was not tested. On the {written.images:,} validation images its {written.objective.replace('_', ' ')} is "
        f"{written.score:.4f}; the best of several trials looks better there than it is.",
    ):
        stdout.print(safe(line), highlight=False, soft_wrap=True)


def _print(exported: Exported) -> None:
    lines = [f"Wrote {exported.path} ({exported.bytes / 1e6:.1f} MB)"]
    parity, cost = exported.parity, exported.int8
    lines.append(
        f"On {parity.images:,} {parity.origin} {parity.agreeing:,} classes agree with the model file; "
        f"the largest difference of a probability is {parity.largest_difference:.1e}."
    )
    if cost is not None:
        lines.append(
            f"Accuracy on {cost.images:,} {cost.origin}: {cost.accuracy_before:.4f} before, "
            f"{cost.accuracy_after:.4f} in 8 bits."
        )
    lines += [exported.note] * bool(exported.note)
    lines += [f"Pushed to {exported.address}"] * bool(exported.address)
    for line in lines:
        stdout.print(safe(line), highlight=False, soft_wrap=True)


def _print_json(exported: Exported) -> None:
    from dataclasses import asdict

    from automl_vision.cli.result import print_json

    print_json(
        {
            "path": str(exported.path),
            "bytes": exported.bytes,
            "parity": exported.parity.to_dict(),
            "int8": None if exported.int8 is None else asdict(exported.int8),
            "note": exported.note,
            "address": exported.address,
        }
    )
