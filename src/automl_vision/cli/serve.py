"""`automl-vision serve`: a model behind a page and an HTTP API."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from automl_vision.cli.paths import require_model
from automl_vision.cli.process import loading
from automl_vision.cli.terminal import stderr
from automl_vision.errors import UsageError
from automl_vision.runtime import available_threads
from automl_vision.serving import PACKAGES
from automl_vision.serving.token import VARIABLE, Token

_MOST_DECODERS = 8


def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model.pt of a run.", show_default=False)],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0 lets in whoever can reach this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", help="0 takes any that is free.", min=0, max=65535)] = 8000,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    abstain: Annotated[
        float,
        typer.Option(
            "--abstain",
            min=0.0,
            max=1.0,
            help="Say 'not sure' where the best probability is below this; report.html has thresholds.",
        ),
    ] = 0.0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per forward pass at most.", min=1)] = 16,
    batch_wait: Annotated[
        float, typer.Option("--batch-wait", help="Milliseconds that an image waits for others.", min=0.0, max=1000.0)
    ] = 5.0,
    max_file: Annotated[float, typer.Option("--max-file", help="Megabytes of one file.", min=0.001, max=256)] = 16.0,
    max_files: Annotated[int, typer.Option("--max-files", help="Files of one request.", min=1, max=1000)] = 16,
    max_pixels: Annotated[
        float, typer.Option("--max-pixels", help="Megapixels of one image.", min=0.01, max=64)
    ] = 64.0,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", help="Images that wait; requests above it are answered 503.", min=1)
    ] = 256,
    rate: Annotated[
        float, typer.Option("--rate", help="Requests a minute of one client, on average; 0: no limit.", min=0.0)
    ] = 600.0,
    max_connections: Annotated[
        int,
        typer.Option(
            "--max-connections", help="Connections of one address but for this machine's own; 0: no limit.", min=0
        ),
    ] = 64,
    decoders: Annotated[
        int | None,
        typer.Option(
            "--decoders",
            help="Processes that decode images, besides one for large images.",
            min=1,
            max=64,
            show_default="as many as processors, 8 at most",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar=VARIABLE,
            help="What clients have to know. Where others than this machine can connect, one is made if none is given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve a model: a page to drop or photograph images on, POST /predict for programs, /docs for how.

    Only this machine can reach it, unless --host says otherwise. Ctrl-C ends it once requests under way are answered.

    [bold]Examples[/bold]

    automl-vision serve runs/imgs/model.pt

    automl-vision serve runs/imgs/model.pt --port 0 --abstain 0.8

    AUTOML_VISION_TOKEN=... automl-vision serve runs/imgs/model.pt --host 0.0.0.0

    curl -F files=@photo.jpg http://127.0.0.1:8000/predict
    """
    require_model(model)
    if max_waiting < max_files:
        raise UsageError(
            "a request of --max-files images would never find room",
            value=f"--max-files {max_files}, --max-waiting {max_waiting}",
            fix="give --max-waiting as many or more",
        )
    _require_packages()
    secret = None if token is None else Token(token)

    with loading():
        from automl_vision.predictor import load
        from automl_vision.serving.app import Batching
        from automl_vision.serving.limits import MEGABYTE, Limits
        from automl_vision.serving.server import is_private, open_socket, url_of
        from automl_vision.serving.server import serve as serve_model

    file_bytes = round(max_file * MEGABYTE)
    request_bytes = max(Limits.request_bytes, file_bytes + MEGABYTE)
    limits = Limits(
        file_bytes=file_bytes,
        files=max_files,
        request_bytes=request_bytes,
        pixels=round(max_pixels * 1e6),
        held_bytes=4 * request_bytes,
        waiting=max_waiting,
        requests_per_minute=rate,
        connections_of_one=max_connections,
    )
    with open_socket(host, port) as opened:  # before the model is loaded: a port in use is told at once
        url = url_of(opened)
        if secret is None and not is_private(opened):
            secret = Token.new()
            stderr.print(
                f"[bold]Token:[/bold] {secret.text}\nOthers can reach this server; whoever knows the token can use it.",
                highlight=False,
                soft_wrap=True,
            )
        with loading():
            loaded = load(model, device=device)

        def on_ready() -> None:
            typer.echo(url)
            stderr.print("Open it in a browser; Ctrl-C ends the server.", highlight=False)

        serve_model(
            loaded,
            model,
            opened,
            threshold=abstain,
            limits=limits,
            batching=Batching(batch_size, batch_wait / 1000),
            decoders=decoders or min(available_threads(), _MOST_DECODERS),
            token=secret,
            on_ready=on_ready,
        )


def _require_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            "serving needs packages that are not installed",
            value=", ".join(missing),
            fix="pip install 'automl-vision[serve]'",
        )
