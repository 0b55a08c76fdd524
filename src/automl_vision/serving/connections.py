"""HTTP connections that cannot be held open for nothing: uvicorn alone waits without end for the rest of a header."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Until the header of a request has to be here, counted from the connection or from its first byte.
HEADER_SECONDS = 10.0
#: Open connections; more are closed at once. Below the usual limit of 1,024 open files.
MOST_CONNECTIONS = 512


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a time limit for headers and a bound on connections."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > MOST_CONNECTIONS:
            self.transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A part of a request is here."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or was left."""
        self._unwatch()
        super().connection_lost(exc)

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._between_requests:
            self._unwatch()
        elif self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._between_requests:
            self.transport.close()
