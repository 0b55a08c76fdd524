"""What `POST /predict` answers: the rows of a request, and the errors of images and of requests in one shape."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field

from automl_vision.errors import IMAGE_FAULTS, ImageReadError
from automl_vision.predictor import Prediction

#: HTTP status of each fault of an image; 422 for those that are not here.
_STATUS_OF_FAULT = {"too_large": 413, "not_an_image": 415}
_UNUSABLE = 422

#: Faults of requests, and of this server: HTTP status and what to do about it.
REQUEST_FAULTS: dict[str, tuple[int, str]] = {
    "bad_request": (400, "see /docs for what a request looks like"),
    "no_file": (400, "send at least one file, like: curl -F files=@photo.jpg URL/predict"),
    "foreign_host": (400, "use the address that the server printed"),
    "two_lengths": (400, "send either Content-Length or Transfer-Encoding"),
    "no_token": (
        401,
        "send the header `Authorization: Bearer TOKEN`, with the token that the server printed or was given",
    ),
    "foreign_page": (403, "send requests from the server's own page, or from a program"),
    "not_found": (404, "see /docs for what there is"),
    "wrong_method": (405, "see /docs for what there is"),
    "too_slow": (408, "send the request again, over a faster connection"),
    "too_large": (413, "send fewer or smaller files; /about has the limits"),
    "not_multipart": (415, "send files as multipart/form-data, like: curl -F files=@photo.jpg URL/predict"),
    "too_many_requests": (429, "wait as long as the header Retry-After says, in seconds"),
    "long_header": (431, "send fewer header fields"),
    "internal": (500, "this is a fault of the server; its log says more"),
    "busy": (503, "wait as long as the header Retry-After says, in seconds"),
}

#: Headers that the answer to a refused request has. What is sent after one of two lengths may be another's request.
_HEADERS_OF_KIND = {
    "no_token": {"WWW-Authenticate": 'Bearer realm="automl-vision"'},
    "two_lengths": {"Connection": "close"},
}
#: When a server without room may be asked again, in seconds.
SOON = 1.0


# Dataclasses, which pydantic describes in the schema but does not check: a class name may be no valid text.
def _told(description: str) -> Any:
    return Field(description=description)


@dataclass(frozen=True)
class Fault:
    """Why there is no answer: what it is, what was found, and the fix."""

    kind: Annotated[str, _told(f"One of {', '.join({**IMAGE_FAULTS, **REQUEST_FAULTS})}. More may come.")]
    detail: Annotated[str, _told("What was found, one line.")]
    fix: Annotated[str, _told("What to do about it.")]
    http_status: Annotated[int, _told("The HTTP status that this fault has where it is the only one.")]


@dataclass(frozen=True)
class Row:
    """What the model says of one image. Keys may be added: leave those aside that you do not know."""

    name: Annotated[str, _told("The file's name as it was sent; it need not be unique.")]
    status: Annotated[
        Literal["ok", "abstained", "error"],
        _told("`abstained`: the best probability is below the threshold, so there is no label."),
    ]
    label: Annotated[str | None, _told("The most probable class; null unless the status is `ok`.")] = None
    probability: Annotated[float | None, _told("Of the most probable class, 0 to 1; null on error.")] = None
    probabilities: Annotated[
        dict[str, float] | None,
        _told("By class, the most probable first, as many as `top` asks for; null on error."),
    ] = None
    error: Annotated[Fault | None, _told("Null unless the status is `error`.")] = None
    heat_map: Annotated[
        str | None,
        _told(
            "With `explain`: a PNG as a `data:` URI that shows what speaks for the most probable class; null where "
            "nothing does."
        ),
    ] = None


@dataclass(frozen=True)
class Answer:
    """One row per file, in order."""

    threshold: Annotated[float, _told("Probability below which the model abstains.")]
    results: list[Row]


@dataclass(frozen=True)
class Refusal:
    """A request that was not answered at all."""

    error: Fault


class Refused(Exception):
    """This request is not answered.

    Args:
        kind: a key of `REQUEST_FAULTS`.
        detail: what was found, one line.
        retry_after: seconds after which it may be sent again; None: it would be refused again.
    """

    def __init__(self, kind: str, detail: str, *, retry_after: float | None = None) -> None:
        self.fault = request_fault(kind, detail)
        self.retry_after = retry_after
        super().__init__(f"{kind}: {detail}")

    def response(self) -> JSONResponse:
        """The answer that says so."""
        headers = dict(_HEADERS_OF_KIND.get(self.fault.kind, {}))
        if self.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after) or 1)
        return AsciiJSON(asdict(Refusal(self.fault)), self.fault.http_status, headers)


class AsciiJSON(JSONResponse):
    """JSON whose strings are escaped to ASCII, as `predict --format json` has it: a class name may be no valid text."""

    def render(self, content: object) -> bytes:
        """The body."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


async def on_refused(_request: Request, error: Exception) -> JSONResponse:
    """The handler of `Refused`, for FastAPI."""
    if not isinstance(error, Refused):
        raise error
    return error.response()


def request_fault(kind: str, detail: str) -> Fault:
    """A fault of `REQUEST_FAULTS`."""
    status, fix = REQUEST_FAULTS[kind]
    return Fault(kind=kind, detail=detail, fix=fix, http_status=status)


def image_fault(error: ImageReadError) -> Fault:
    """A fault of `IMAGE_FAULTS`."""
    status = _STATUS_OF_FAULT.get(error.kind, _UNUSABLE)
    return Fault(kind=error.kind, detail=error.detail, fix=IMAGE_FAULTS[error.kind], http_status=status)


def row_of(name: str, prediction: Prediction, class_names: Sequence[str], threshold: float, top: int | None) -> Row:
    """The row of an image that the model was asked about.

    Args:
        name: of the file.
        prediction: of `class_names`.
        class_names: (C) classes.
        threshold: abstain below it.
        top: how many probabilities to give; None: all.
    """
    if prediction.probabilities is None:
        kind, _, detail = prediction.error.partition(": ")
        return failed_row(name, image_fault(ImageReadError(kind, detail)))
    order = (-prediction.probabilities).argsort(kind="stable")[:top]  # of equals the first, as the label is
    sure = prediction.probability is not None and prediction.probability >= threshold
    return Row(
        name=name,
        status="ok" if sure else "abstained",
        label=prediction.label if sure else None,
        probability=prediction.probability,
        probabilities={class_names[index]: float(prediction.probabilities[index]) for index in order},
    )


def failed_row(name: str, fault: Fault) -> Row:
    """The row of an image without an answer."""
    return Row(name=name, status="error", error=fault)


def response_of(rows: Sequence[Row], threshold: float) -> JSONResponse:
    """200 where one image or more was answered; else the status of the first one's fault."""
    faults = [row.error for row in rows if row.error is not None]
    status = faults[0].http_status if len(faults) == len(rows) else 200
    headers = {"Retry-After": str(math.ceil(SOON))} if status == REQUEST_FAULTS["busy"][0] else {}
    return AsciiJSON(asdict(Answer(threshold, list(rows))), status, headers)
