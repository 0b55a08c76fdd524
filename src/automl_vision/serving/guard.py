"""What holds for every request: whose it may be, the headers of its answer, and the size and time of its body."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from automl_vision.serving.answers import Refused
from automl_vision.serving.limits import Limits, Share
from automl_vision.serving.token import Token

#: Nothing is loaded from elsewhere, no script or style stands in a page, no other page may frame or post to this one.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
#: Fields of a header at most; browsers send some twenty.
MOST_FIELDS = 100


class Guard:
    """Refuses requests under foreign host names, from foreign pages and without the token; adds `HEADERS` to answers.

    A page of another origin can point its own host name at this address (DNS rebinding), or post a form here without
    reading the answer; neither gets through.

    Args:
        app: what is guarded.
        hosts: names that this server goes by, without port, in lower case; None: any.
        token: what has to be known for anything but whether the server is up; None: nothing has.
        asking: the page that asks people for the token.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str] | None, token: Token | None = None, asking: ASGIApp | None = None
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(headers) or self._token_refusal(scope["path"], headers)
        await (self._told(refusal, scope, headers) if refusal else self._app)(scope, receive, guarded_send)

    def _told(self, refusal: Refused, scope: Scope, headers: Headers) -> ASGIApp:
        """How it is said: to somebody in front of a browser who lacks the token, by a page that asks for it."""
        wants_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        if refusal.fault.kind == "no_token" and wants_page and self._asking is not None:
            return self._asking
        return refusal.response()

    def _token_refusal(self, path: str, headers: Headers) -> Refused | None:
        if self._token is None or self._token.lets_in(path, headers.getlist("authorization")):
            return None
        return Refused("no_token", "the request has no token, or not the one of this server")

    def _refusal(self, headers: Headers) -> Refused | None:
        if len(headers) > MOST_FIELDS:
            return Refused("long_header", f"over {MOST_FIELDS} fields")
        if "content-length" in headers and "transfer-encoding" in headers:  # who is in front may go by the other one
            return Refused("two_lengths", "the body has a length and comes in pieces too")
        host = headers.get("host", "")
        if self._hosts is not None and _hostname(f"//{host}") not in self._hosts:
            return Refused("foreign_host", f"the server does not go by the name {host[:100]!r}")
        origin = headers.get("origin")
        if origin is not None and origin.partition("//")[2].lower() != host.lower():
            return Refused("foreign_page", f"the request comes from {origin[:100]!r}")
        return None


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # brackets without an address
        return ""


def bounded(receive: Receive, limits: Limits, share: Share) -> Receive:
    """`receive`, which raises `Refused` where the body is over its limit, comes too slowly, or there is no room for it.

    Args:
        receive: gives the body.
        limits: of its bytes and seconds.
        share: of the memory for bodies; it grows as the body comes, so that what is announced only takes none.
    """
    began = asyncio.get_running_loop().time()

    async def receive_bounded() -> Message:
        patience = limits.upload_grace + share.count / limits.upload_bytes_per_second
        seconds = min(limits.upload_seconds, patience)
        try:
            async with asyncio.timeout_at(began + seconds):
                message = await receive()
        except TimeoutError:
            raise Refused("too_slow", f"{share.count} bytes of the body were here after {seconds:.0f} s") from None
        size = len(message.get("body", b""))
        if share.count + size > limits.request_bytes:
            raise Refused("too_large", f"the request is over {limits.request_bytes} bytes")
        share.grow(size)
        return message

    return receive_bounded
