"""What holds for every request: whose it may be, the headers of its answer, and the size and time of its body."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from automl_vision.serving.answers import Refused

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


class Guard:
    """Refuses requests under foreign host names and from foreign pages; adds `HEADERS` to every answer.

    A page of another origin can point its own host name at this address (DNS rebinding), or post a form here without
    reading the answer; neither gets through.

    Args:
        app: what is guarded.
        hosts: names that this server goes by, without port, in lower case; None: any.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        await (refusal.response() if refusal else self._app)(scope, receive, guarded_send)

    def _refusal(self, headers: Mapping[str, str]) -> Refused | None:
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


def bounded(receive: Receive, limit: int, seconds: float) -> Receive:
    """`receive`, which raises `Refused` where the body is over `limit` bytes or not here after `seconds`."""
    end = asyncio.get_running_loop().time() + seconds
    taken = 0

    async def receive_bounded() -> Message:
        nonlocal taken
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise Refused("too_slow", f"the body was not here after {seconds:g} s") from None
        taken += len(message.get("body", b""))
        if taken > limit:
            raise Refused("too_large", f"the request is over {limit} bytes")
        return message

    return receive_bounded
