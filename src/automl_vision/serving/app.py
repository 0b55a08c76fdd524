"""The HTTP API and the page, around one model."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Generic, Protocol, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from automl_vision import __version__
from automl_vision.errors import ImageReadError
from automl_vision.main_memory import give_back
from automl_vision.predictor import Prediction
from automl_vision.serving.about import About
from automl_vision.serving.answers import (
    SOON,
    Answer,
    AsciiJSON,
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
from automl_vision.serving.limits import Busy, ClientRates, Limits, Share, Shares, client_of
from automl_vision.serving.pages import add_pages, asking_page
from automl_vision.serving.token import Token
from automl_vision.serving.uploads import Upload, read_uploads

logger = logging.getLogger(__name__)

#: A decoded image, as the model takes it; nothing here looks into it.
Image = TypeVar("Image")
OneImage = TypeVar("OneImage", covariant=True)
#: An image and a class to the PNG of a heat map, None where nothing speaks for the class.
Explain = Callable[[Image, str], bytes | None]
_FAULT_OF_STATUS = {404: "not_found", 405: "wrong_method"}


@dataclass(frozen=True)
class Batching:
    """How images share forward passes.

    Attributes:
        size: images of one pass at most, >= 1.
        patience: seconds that the first image waits for others.
    """

    size: int = 16
    patience: float = 0.005


class Decoding(Protocol[OneImage]):
    """What decodes, once it was opened as a context."""

    async def decode(self, data: bytes, *, shown: bool) -> OneImage:
        """An image from the bytes of its file; with `shown`, with what a heat map of it takes.

        Raises:
            ImageReadError: the file cannot be used.
            Busy: there is no room for it now.
        """


@dataclass(frozen=True)
class Health:
    """The server is up, and how busy it is."""

    waiting: Annotated[int, Field(description="Images that wait for a decoder or the model.")]
    answered: Annotated[int, Field(description="Images that were answered since the start, broken ones among them.")]
    passes: Annotated[
        int, Field(description="Batches that were run since the start; fewer than images where clients are many.")
    ]
    status: Annotated[str, Field(description="Always `ok`: a server that is not well does not answer.")] = "ok"


def create_app(
    told: About,
    decoding: AbstractAsyncContextManager[Decoding[Image]],
    answer: Callable[[Sequence[Image]], Sequence[Prediction]],
    *,
    batching: Batching,
    hosts: Collection[str] | None,
    explain: Explain[Image] | None = None,
    token: Token | None = None,
) -> FastAPI:
    """The application.

    Args:
        told: what is known of the model; its threshold and limits are those that hold.
        decoding: makes files to images; it is open as long as the application is.
        answer: the model: images to as many predictions, in order; called from one thread.
        batching: how images share its passes.
        hosts: names that the server goes by; None: any.
        explain: draws a heat map; called from one thread, which may be another than that of `answer`. None: there are
            no heat maps.
        token: what has to be known to ask anything; None: nothing has.
    """
    house = _House(told, answer, explain, batching)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with decoding as house.decoding, house.images, house.heat_maps:
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
    app.add_middleware(Guard, hosts=hosts, token=token, asking=asking_page())
    _add_predict(app, house)
    _add_facts(app, house)
    add_pages(app, told, explains=explain is not None, protected=token is not None)
    return app


class _House(Generic[Image]):
    """What requests share: the decoders, the model, and the room before them.

    Attributes:
        told: what is known of the model.
        images: forward passes of decoded images.
        heat_maps: one at a time, so that predictions wait for one heat map and not for many.
        explains: whether there are any.
        decoding: once the application runs.
    """

    decoding: Decoding[Image]

    def __init__(
        self,
        told: About,
        answer: Callable[[Sequence[Image]], Sequence[Prediction]],
        explain: Explain[Image] | None,
        batching: Batching,
    ) -> None:
        limits = told.limits
        half = max(limits.waiting // 2, limits.files) if limits.connections_of_one else 0
        self.told = told
        self.explains = explain is not None
        self.images: Batcher[Image, Prediction] = Batcher(
            answer, size=batching.size, patience=batching.patience, room=limits.waiting, rest=give_back
        )
        self.heat_maps: Batcher[tuple[Image, str], bytes | None] = Batcher(
            lambda asked: [explain(*each) if explain else None for each in asked],
            size=1,
            patience=0.0,
            room=limits.waiting_explained,
        )
        self._undecoded = 0
        self._asked = Shares(math.inf, half)

    @property
    def waiting(self) -> int:
        """Images that wait for a decoder or for the model, those that it runs not counted."""
        return self._undecoded + self.images.waiting

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return self.waiting >= self.told.limits.waiting

    async def rows(self, client: str, files: Sequence[Upload], top: int | None, *, explain: bool) -> list[Row]:
        """A row per file, in order.

        Raises:
            Busy: there is no room for so many.
        """
        limits = self.told.limits
        if self.waiting + len(files) > limits.waiting:
            raise Busy
        if explain and self.heat_maps.waiting + len(files) > limits.waiting_explained:
            raise Busy
        with self._asked.hold(client, len(files)):
            self._undecoded += len(files)
            return await asyncio.gather(*(self._row(each, top, explain) for each in files))

    async def _row(self, file: Upload, top: int | None, explain: bool) -> Row:
        try:
            image = await self._decoded(file, explain)
            (coming,) = self.images.submit([image])
        except ImageReadError as error:
            return failed_row(file.name, image_fault(error))
        except Busy:
            return failed_row(file.name, request_fault("busy", "too many images are waiting"))
        row = await _answered(file.name, coming, self.told, top)
        return await self._explained(row, image) if explain and row.probabilities else row

    async def _decoded(self, file: Upload, shown: bool) -> Image:
        try:
            if file.size > self.told.limits.file_bytes:
                raise ImageReadError("too_large", f"{file.size} bytes, over {self.told.limits.file_bytes}")
            return await self.decoding.decode(file.data, shown=shown)
        finally:
            self._undecoded -= 1

    async def _explained(self, row: Row, image: Image) -> Row:
        label = next(iter(row.probabilities or {}))
        try:
            (coming,) = self.heat_maps.submit([(image, label)])
        except Busy:
            return failed_row(row.name, request_fault("busy", "too many heat maps are waiting"))
        return await _with_heat_map(row, coming)


def _add_facts(app: FastAPI, house: _House[Any]) -> None:
    @app.get("/healthz", summary="Whether the server is up", response_model=Health)
    async def healthz() -> Response:
        return AsciiJSON(asdict(Health(house.waiting, house.images.answered, house.images.passes)))

    @app.get("/about", summary="Classes, test figures, preprocessing and limits of the model")
    async def about() -> Response:
        """`test` is null where the model file carries no figures; `limits` are in bytes, pixels and seconds."""
        return AsciiJSON(house.told.as_json())


def _add_predict(app: FastAPI, house: _House[Any]) -> None:
    limits = house.told.limits
    rates = ClientRates(limits.requests_per_minute, limits.burst)
    bodies = Shares(limits.held_bytes, limits.held_bytes // 2 if limits.connections_of_one else 0)

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
        client = client_of(request.client.host if request.client else "")
        _check_rate(rates, client)
        if explain and not house.explains:
            raise Refused("bad_request", "this server draws no heat maps")
        if house.full or (explain and house.heat_maps.full):
            raise Refused("busy", "too many images are waiting", retry_after=SOON)
        _check_length(request, limits)
        try:
            with bodies.hold(client) as share:
                files = await _read_files(request, limits, share)
                if explain and len(files) > limits.explained:
                    raise Refused("too_large", f"heat maps of {len(files)} images, over {limits.explained}")
                rows = await house.rows(client, files, top, explain=explain)
        except Busy:
            raise Refused("busy", "too many images are waiting", retry_after=SOON) from None
        return response_of(rows, house.told.threshold)


def _check_rate(rates: ClientRates, client: str) -> None:
    wait = rates.wait(client)
    if wait:
        raise Refused("too_many_requests", "over the number of requests a minute", retry_after=wait)


def _check_length(request: Request, limits: Limits) -> None:
    """Refuse a body that is too large by what its header says, before any of it is read."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limits.request_bytes:
        raise Refused("too_large", f"the request has {length[:20]} bytes, over {limits.request_bytes}")


async def _read_files(request: Request, limits: Limits, share: Share) -> list[Upload]:
    body = Request(request.scope, bounded(request.receive, limits, share)).stream()
    try:
        return await read_uploads(body, request.headers.get("content-type", ""), limits)
    except ClientDisconnect:
        raise Refused("bad_request", "the request ended early") from None


async def _with_heat_map(row: Row, coming: asyncio.Future[bytes | None]) -> Row:
    await asyncio.wait([coming])
    if error := coming.exception():
        logger.error("no heat map of an image: %s: %s", type(error).__name__, error)
        return failed_row(row.name, request_fault("internal", "the model could not explain this image"))
    png = coming.result()
    return (
        row if png is None else replace(row, heat_map=f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}")
    )


async def _answered(name: str, coming: asyncio.Future[Prediction], told: About, top: int | None) -> Row:
    await asyncio.wait([coming])
    if error := coming.exception():
        logger.error("the model failed on an image: %s: %s", type(error).__name__, error)
        return failed_row(name, request_fault("internal", "the model failed on this image"))
    return row_of(name, coming.result(), told.class_names, told.threshold, top)


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
    401: {"model": Refusal, "description": "The server asks for a token; see the header WWW-Authenticate."},
    413: {"model": Refusal | Answer, "description": "The request is too large, or the first file where none is good."},
    415: {
        "model": Refusal | Answer,
        "description": "No multipart body, or the first file is no image and none is good.",
    },
    422: {"model": Answer, "description": "The first file is damaged or empty, and none is good."},
    429: {"model": Refusal, "description": "This client asks too often; see the header Retry-After."},
    500: {"model": Answer, "description": "The model failed on the first file, and none was answered."},
    503: {"model": Refusal | Answer, "description": "Too many images are waiting; see the header Retry-After."},
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
