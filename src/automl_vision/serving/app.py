"""The HTTP API and the page, around one model."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from automl_vision import __version__
from automl_vision.data.decode import dimensions
from automl_vision.errors import ImageReadError
from automl_vision.predictor import Prediction
from automl_vision.serving.about import About
from automl_vision.serving.answers import (
    Answer,
    AsciiJSON,
    Fault,
    Refusal,
    Refused,
    Row,
    failed_row,
    image_fault,
    on_refused,
    request_fault,
    response_of,
    row_of,
)
from automl_vision.serving.batching import Batcher
from automl_vision.serving.guard import Guard, bounded
from automl_vision.serving.limits import Busy, ClientRates, HeldBytes, Limits
from automl_vision.serving.pages import add_pages
from automl_vision.serving.uploads import Upload, read_uploads

logger = logging.getLogger(__name__)

Images = Batcher[bytes, Prediction]
#: A file and a class to the PNG of a heat map, None where nothing speaks for the class.
Explain = Callable[[bytes, str], bytes | None]
HeatMaps = Batcher[tuple[bytes, str], bytes | None]
#: When a server without room may be asked again, in seconds.
_SOON = 1.0
_FAULT_OF_STATUS = {404: "not_found", 405: "wrong_method"}


@dataclass(frozen=True)
class Batching:
    """How images share forward passes.

    Attributes:
        size: images of one pass at most, >= 1.
        patience: seconds that the first image waits for others.
    """

    size: int = 32
    patience: float = 0.005


@dataclass(frozen=True)
class Health:
    """The server is up, and how busy it is."""

    waiting: Annotated[int, Field(description="Images that wait for the model.")]
    answered: Annotated[int, Field(description="Images that were answered since the start, broken ones among them.")]
    passes: Annotated[
        int, Field(description="Batches that were run since the start; fewer than images where clients are many.")
    ]
    status: Annotated[str, Field(description="Always `ok`: a server that is not well does not answer.")] = "ok"


def create_app(
    told: About,
    answer: Callable[[Sequence[bytes]], Sequence[Prediction]],
    *,
    batching: Batching,
    hosts: Collection[str] | None,
    explain: Explain | None = None,
) -> FastAPI:
    """The application.

    Args:
        told: what is known of the model; its threshold and limits are those that hold.
        answer: the model: files to as many predictions, in order; called from one thread.
        batching: how images share its passes.
        hosts: names that the server goes by; None: any.
        explain: draws a heat map; called from one thread, which may be another than that of `answer`. None: there are
            no heat maps.
    """
    heat_maps = _heat_maps(told.limits, explain)
    images: Images = Batcher(answer, size=batching.size, patience=batching.patience, room=told.limits.waiting)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with images, heat_maps:
            yield

    app = FastAPI(
        title=f"automl-vision: {told.name}",
        version=__version__,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={
            Refused: on_refused,
            HTTPException: _on_http_exception,
            RequestValidationError: _on_validation_error,
        },
    )
    app.add_middleware(Guard, hosts=hosts)
    _add_predict(app, told, images, heat_maps if explain else None)
    _add_facts(app, told, images)
    add_pages(app, told, explains=explain is not None)
    return app


def _heat_maps(limits: Limits, explain: Explain | None) -> HeatMaps:
    """One at a time, so that predictions wait for one heat map and not for many."""

    def run(asked: Sequence[tuple[bytes, str]]) -> list[bytes | None]:
        return [explain(*each) if explain else None for each in asked]

    return Batcher(run, size=1, patience=0.0, room=limits.waiting_explained)


def _add_facts(app: FastAPI, told: About, images: Images) -> None:
    @app.get("/healthz", summary="Whether the server is up", response_model=Health)
    async def healthz() -> Response:
        return AsciiJSON(asdict(Health(images.waiting, images.answered, images.passes)))

    @app.get("/about", summary="Classes, test figures, preprocessing and limits of the model")
    async def about() -> Response:
        """`test` is null where the model file carries no figures; `limits` are in bytes, pixels and seconds."""
        return AsciiJSON(told.as_json())


def _add_predict(app: FastAPI, told: About, images: Images, heat_maps: HeatMaps | None) -> None:
    limits = told.limits
    rates = ClientRates(limits.requests_per_minute, limits.burst)
    held = HeldBytes(limits.held_bytes)

    @app.post(
        "/predict",
        summary="Classes and probabilities of one image or many",
        responses={200: {"model": Answer}, **_REFUSALS},
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def predict(
        request: Request,
        top: Annotated[
            int | None, Query(ge=1, description="How many classes to give per image; all without it.")
        ] = None,
        explain: Annotated[
            bool,
            Query(description="Draw heat maps too: see `heat_map`. Of a few images a request; /about has the limits."),
        ] = False,
    ) -> Response:
        """Files go in as `multipart/form-data`, under any field name. One row per file comes back, in order.

        A file that cannot be used has a row with `status` "error" that says why; the others are answered. The HTTP
        status is 200 where one file or more was answered, else that of the first file's error: 413 too large, 415 not
        an image, 422 damaged or empty.
        """
        _check_rate(rates, request)
        if explain and heat_maps is None:
            raise Refused("bad_request", "this server draws no heat maps")
        if images.full or (explain and heat_maps is not None and heat_maps.full):
            raise Refused("busy", "too many images are waiting", retry_after=_SOON)
        size = _announced_bytes(request, limits)
        try:
            with held.hold(size):
                files = await _read_files(request, size, limits)
                if explain and len(files) > limits.explained:
                    raise Refused("too_large", f"heat maps of {len(files)} images, over {limits.explained}")
                rows = await _answer(files, images, told, top)
                if explain and heat_maps is not None:
                    rows = await _explained(rows, files, heat_maps)
        except Busy:
            raise Refused("busy", "too many images are waiting", retry_after=_SOON) from None
        return response_of(rows, told.threshold)


def _check_rate(rates: ClientRates, request: Request) -> None:
    wait = rates.wait(request.client.host if request.client else "")
    if wait:
        raise Refused("too_many_requests", "over the number of requests a minute", retry_after=wait)


def _announced_bytes(request: Request, limits: Limits) -> int:
    """The size of the body; of one that comes in pieces without saying it, the largest allowed."""
    length = request.headers.get("content-length", "")
    size = int(length) if length.isascii() and length.isdigit() else limits.request_bytes
    if size > limits.request_bytes:
        raise Refused("too_large", f"the request has {size} bytes, over {limits.request_bytes}")
    return size


async def _read_files(request: Request, size: int, limits: Limits) -> list[Upload]:
    body = Request(request.scope, bounded(request.receive, size, limits.upload_seconds)).stream()
    try:
        return await read_uploads(body, request.headers.get("content-type", ""), limits)
    except ClientDisconnect:
        raise Refused("bad_request", "the request ended early") from None


async def _answer(files: Sequence[Upload], images: Images, told: About, top: int | None) -> list[Row]:
    """A row per file; those that their header gives away never reach the model."""
    faults = await asyncio.to_thread(lambda: [_header_fault(each, told.limits) for each in files])
    good = [each.data for each, fault in zip(files, faults, strict=True) if fault is None]
    coming = iter(images.submit(good))
    return [
        failed_row(file.name, fault) if fault else await _row(file.name, next(coming), told, top)
        for file, fault in zip(files, faults, strict=True)
    ]


async def _explained(rows: Sequence[Row], files: Sequence[Upload], heat_maps: HeatMaps) -> list[Row]:
    """The rows, those that were answered with their heat maps."""
    asked = [
        (file.data, next(iter(row.probabilities))) for row, file in zip(rows, files, strict=True) if row.probabilities
    ]
    coming = iter(heat_maps.submit(asked))
    return [await _with_heat_map(row, next(coming)) if row.probabilities else row for row in rows]


async def _with_heat_map(row: Row, coming: asyncio.Future[bytes | None]) -> Row:
    await asyncio.wait([coming])
    if error := coming.exception():
        logger.error("no heat map of an image: %s: %s", type(error).__name__, error)
        return failed_row(row.name, request_fault("internal", "the model could not explain this image"))
    png = coming.result()
    return (
        row if png is None else replace(row, heat_map=f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}")
    )


async def _row(name: str, coming: asyncio.Future[Prediction], told: About, top: int | None) -> Row:
    await asyncio.wait([coming])
    if error := coming.exception():
        logger.error("the model failed on an image: %s: %s", type(error).__name__, error)
        return failed_row(name, request_fault("internal", "the model failed on this image"))
    return row_of(name, coming.result(), told.class_names, told.threshold, top)


def _header_fault(file: Upload, limits: Limits) -> Fault | None:
    """Why a file cannot be used, as far as its size and its header tell."""
    try:
        if file.size > limits.file_bytes:
            raise ImageReadError("too_large", f"{file.size} bytes, over {limits.file_bytes}")
        width, height = dimensions(file.data)
        if width * height > limits.pixels:
            raise ImageReadError("too_large", f"{width} x {height} pixels, over {limits.pixels}")
    except ImageReadError as error:
        return image_fault(error)
    return None


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette refuses, in the shape of all other errors."""
    if not isinstance(error, HTTPException):
        raise error
    kind = _FAULT_OF_STATUS.get(error.status_code, "bad_request")
    detail = f"{request.method} {request.url.path[:100]}" if kind != "bad_request" else str(error.detail)[:200]
    response = Refused(kind, detail).response()
    response.headers.update(error.headers or {})
    return response


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    return Refused("bad_request", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]).response()


#: Status -> body, description. Where every file failed there is still a row for each.
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "No file in the request, or it is malformed."},
    413: {"model": Refusal | Answer, "description": "The request is too large, or the first file where none is good."},
    415: {
        "model": Refusal | Answer,
        "description": "No multipart body, or the first file is no image and none is good.",
    },
    422: {"model": Answer, "description": "The first file is damaged or empty, and none is good."},
    429: {"model": Refusal, "description": "This client asks too often; see the header Retry-After."},
    500: {"model": Answer, "description": "The model failed on the first file, and none was answered."},
    503: {"model": Refusal, "description": "Too many images are waiting; see the header Retry-After."},
}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": "Images: JPEG, PNG, WebP, BMP, TIFF, GIF or PPM.",
                    }
                },
            }
        }
    },
}
