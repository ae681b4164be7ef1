"""Two connections that carry another protocol from here on (after 101, or HTTP/2 by prior knowledge).

Bytes pass as they come, backpressure and half-closes included; the copy goes on, marked opaque. A tunnel takes its
client's place in the route, until both of its ends are closed: the sweep (`limits`) looks at it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.proxy.exchange import Exchange
from sidecar.proxy.limits import Awaits, Note
from sidecar.proxy.route import Route
from sidecar.proxy.sockets import broken, reset, unsent
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.wire.records import EndFlag


class _End(asyncio.Protocol):
    """One end: what arrives here is copied and written to `other`."""

    __slots__ = ("_broken", "_copy", "_gone", "closed", "ended", "other", "paused", "transport")

    other: _End

    def __init__(
        self, transport: asyncio.Transport, copy: Callable[[bytes], None], gone: Callable[[Exception | None], None]
    ) -> None:
        self.transport = transport
        self._copy = copy
        self._gone = gone
        self._broken = False
        self.paused = False
        self.ended = False
        self.closed = False

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        self._copy(data)
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        """asyncio: the peer sends no more; the other may still."""
        self.ended = True
        mine, theirs = self.transport, self.other.transport
        if self.other.ended or theirs.is_closing() or not (mine.can_write_eof() and theirs.can_write_eof()):
            return False
        theirs.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone, and so the tunnel."""
        error = ConnectionResetError() if self._broken else exc
        self.closed = True
        self._gone(error)
        if isinstance(error, ConnectionResetError):
            reset(self.other.transport)
        else:
            self.other.transport.close()

    def pause_writing(self) -> None:
        """asyncio: the write buffer is full."""
        self.other.pause()

    def resume_writing(self) -> None:
        """asyncio: the write buffer has room again."""
        self.other.resume()

    def pause(self) -> None:
        """Do not read: what arrived has yet to be written on."""
        self.paused = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def look(self) -> None:
        """Notice that the peer has reset its connection while nothing is read from it."""
        if (self.paused or self.ended) and broken(self.transport, ended=self.other.ended):
            self._broken = True
            self.transport.abort()


class Tunnel:
    """Both ends, in the place that the client's connection had in its route.

    `near` is the client's end, and `full` says that it has no room: who sends to a side without room is not read.
    """

    __slots__ = ("_exchange", "_far", "_near", "_route", "_upstream", "waiting")

    def __init__(
        self, route: Route, exchange: Exchange, near: asyncio.Transport, upstream: UpstreamConnection, *, full: bool
    ) -> None:
        self._route = route
        self._exchange = exchange
        self._upstream = upstream
        self._near = _End(near, self._copy_up, self._client_gone)
        self._far = _End(upstream.transport, self._copy_down, self._upstream_gone)
        self._near.other, self._far.other = self._far, self._near
        self._near.paused, self._far.paused = upstream.full, full
        self.waiting: Note | None = None

    def begin(self, waiting: bytes) -> None:
        """Take over both connections; `waiting` has arrived from the client already."""
        self._upstream.client = None
        for end in (self._near, self._far):
            end.transport.set_protocol(end)
        if waiting:
            self._near.data_received(waiting)

    # What its route does to it

    def awaits(self) -> Awaits:
        """Nothing has a timeout, but when one end is gone and the other has yet to take what it said last."""
        return Awaits.TAKING if self._near.closed or self._far.closed else Awaits.NOTHING

    def unsent(self) -> int:
        """How much that is, in bytes."""
        return unsent((self._far if self._near.closed else self._near).transport)

    def look(self) -> None:
        """Notice what the event loop does not tell of."""
        self._near.look()
        self._far.look()

    def drain(self) -> None:
        """It ends when its ends do."""

    def expire(self, _awaits: Awaits, _seconds: float) -> None:
        """Nothing can be said in another protocol."""
        self.abort()

    def abort(self) -> None:
        """Close both ends now."""
        self._near.transport.abort()
        self._far.transport.abort()

    # What its ends tell

    def _copy_up(self, data: bytes) -> None:
        exchange = self._exchange
        exchange.bytes_up += len(data)
        if exchange.copy is not None:
            exchange.copy.request(data)

    def _copy_down(self, data: bytes) -> None:
        exchange = self._exchange
        exchange.bytes_down += len(data)
        if exchange.copy is not None:
            exchange.copy.response(data)

    def _client_gone(self, error: Exception | None) -> None:
        self._end(EndFlag.ABORTED_BY_CLIENT if error is not None else 0)

    def _upstream_gone(self, error: Exception | None) -> None:
        self._end(EndFlag.ABORTED_BY_ORIGIN if error is not None else 0)
        self._route.origin.forget(self._upstream)

    def _end(self, flags: int) -> None:
        self._exchange.flags |= int(flags)
        self._exchange.end()
        if self._near.closed and self._far.closed:
            self._route.closed(self)
