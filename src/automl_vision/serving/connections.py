"""HTTP connections that cannot be held open for nothing, nor keep the server busy with nothing: uvicorn alone waits
without end for the rest of a header and for a client that does not read, and takes a body in pieces of one byte."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from automl_vision.serving.limits import client_of, is_this_machine

#: Until the header of a request has to be here, counted from the connection or from its first byte.
HEADER_SECONDS = 10.0
#: Until what was sent has to be read by the client, counted from when the system took no more of it.
READ_SECONDS = 60.0
#: Open connections; more are closed at once. Below the usual limit of 1,024 open files.
MOST_CONNECTIONS = 512
#: Pieces of a body that comes in pieces: so many in any case, and one more for each so many bytes. Every piece costs as
#: much as a hundred bytes of a large one, so a body of a few megabytes in pieces of one byte would take minutes.
_PIECES, _BYTES_PER_PIECE = 256, 128


class _Connection(h11.Connection):
    """A connection on which bodies do not come in crumbs."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        """What the client sent next.

        Raises:
            h11.RemoteProtocolError: it is no HTTP, or too many pieces of a body for their size.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._pieces += 1
        if isinstance(event, h11.Data):
            self._bytes += len(event.data)
            if self._pieces > _PIECES + self._bytes // _BYTES_PER_PIECE:
                raise h11.RemoteProtocolError("the body comes in crumbs")
        return event


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with time limits for headers and for reading, and bounds on connections.

    Attributes:
        connections_of_one: open connections of one client; 0: no limit. Clients on this machine have none.
    """

    connections_of_one = 0
    _client = ""
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Connection(h11.SERVER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._client = client_of(self.client[0] if self.client else "")
        if len(self.connections) > MOST_CONNECTIONS or self._has_too_many:
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=0)  # `pause_writing` is told of whatever is not read at once
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A part of a request is here."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or was left."""
        self._unwatch()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read all."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP; where an answer has begun already there is nothing left to say."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
        if not self._between_requests:  # whoever answers the request would do so behind that
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    @property
    def _has_too_many(self) -> bool:
        if not self.connections_of_one or is_this_machine(self._client):
            return False
        same = sum(each._client == self._client for each in self.connections if isinstance(each, PatientProtocol))
        return bool(same > self.connections_of_one)

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


def bounded_protocol(connections_of_one: int) -> type[PatientProtocol]:
    """The protocol of a server that lets one client have so many connections."""
    return type("BoundedProtocol", (PatientProtocol,), {"connections_of_one": connections_of_one})
