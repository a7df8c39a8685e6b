"""HTTP/1.1 with limits on time and on who waits: connections that don't finish a request can't keep others out.

A connection gets PATIENCE seconds to bring a whole request, however slowly its bytes drip, and as long until the next
one; when very many wait like this, the one that has waited longest goes.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 15.0  # seconds for a whole request
MOST_WAITING = 128  # connections without a whole request

_waiting: dict[Connection, asyncio.TimerHandle] = {}  # the longest first


class Connection(H11Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it
        """It has come, and brings nothing yet."""
        super().connection_made(transport)
        self._judge()

    def data_received(self, data: bytes) -> None:
        """A piece of a request, or more than one."""
        super().data_received(data)
        self._judge()

    def on_response_complete(self) -> None:
        """It was answered, and may ask again."""
        super().on_response_complete()
        self._judge()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._rest()
        super().connection_lost(exc)

    def _judge(self) -> None:
        """Begin to count its time, or stop: what comes bit by bit does not begin it anew."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._rest()
        elif self not in _waiting and not self.transport.is_closing():
            _waiting[self] = self.loop.call_later(PATIENCE, self._end)
            if len(_waiting) > MOST_WAITING:
                next(iter(_waiting))._end()

    def _rest(self) -> None:
        timer = _waiting.pop(self, None)
        if timer is not None:
            timer.cancel()

    def _end(self) -> None:
        self._rest()
        self.transport.abort()
