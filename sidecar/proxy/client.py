"""A client's socket: how it is opened, turned away, timed out and closed. What is said on it is `relay`'s."""

from __future__ import annotations

import asyncio
from typing import cast

from sidecar.proxy.answers import error_answer
from sidecar.proxy.limits import Awaits, Note, crowd
from sidecar.proxy.route import Route
from sidecar.proxy.sockets import THROWN_AWAY_BYTES_MAX, Gate, Hold, broken, unsent
from sidecar.proxy.upstream import WRITE_HIGH_BYTES, WRITE_LOW_BYTES
from sidecar.wire.framing import Role, Scanner
from sidecar.wire.status import Slot


class ClientSocket(asyncio.Protocol):
    """The parts of a client's connection that do not depend on what is said on it."""

    __slots__ = (
        "_client_ended",
        "_closing",
        "_full",
        "_gate",
        "_loop",
        "_route",
        "_scanner",
        "_thrown_away",
        "_transport",
        "_welcome",
        "waiting",
    )

    _transport: asyncio.Transport
    _gate: Gate

    def __init__(self, route: Route, loop: asyncio.AbstractEventLoop) -> None:
        self._route = route
        self._loop = loop
        self._scanner = Scanner(Role.REQUEST, route.limits)
        self._full = False  # the client does not take what was written
        self._closing = False  # everything is said; what the client still sends is not read into anything
        self._client_ended = False
        self._thrown_away = 0  # bytes since the last sweep
        self._welcome: bool | None = None  # not one connection too many; None: not counted yet
        self.waiting: Note | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there, its TLS handshake done."""
        if self._welcome is None:
            self.accepted(cast("asyncio.Transport", transport))
        if not self._welcome and not self._closing:
            self._turn_away()

    def accepted(self, transport: asyncio.Transport) -> None:
        """The connection is there. It counts from here on, so that handshakes are bounded as well."""
        self._transport = transport
        transport.set_write_buffer_limits(WRITE_HIGH_BYTES, WRITE_LOW_BYTES)
        self._gate = Gate(transport)
        self._welcome = self._route.opened(self)
        if not self._welcome and self._route.connections_open > crowd(self._route.connections_max):
            self._turn_away()

    def awaits(self) -> Awaits:
        """What this connection waits for, for the sweep (`limits`)."""
        if self._serves():
            return Awaits.NOTHING
        if self._closing or self._full:
            return Awaits.TAKING  # its end, or its next request, waits for that
        if self._scanner.begun:
            return Awaits.HEAD
        return Awaits.FIRST_BYTE if self._scanner.fresh else Awaits.REQUEST

    def unsent(self) -> int:
        """How many bytes of what was written the client has yet to take."""
        return unsent(self._transport)

    def look(self) -> None:
        """Notice a client that has reset its connection while it is not read; called by the sweep."""
        if self._gate.held and broken(self._transport, ended=self._closing):
            self._client_gone(ConnectionResetError())
            self._transport.abort()
        elif self._thrown_away:
            self._thrown_away = 0
            self._gate.release(Hold.CLOSING)

    def drain(self) -> None:
        """Close when idle, else after the exchange in progress (`Route.draining`)."""
        if not self._closing and not self._serves():
            self._leave()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def expire(self, awaits: Awaits, seconds: float) -> None:
        """The client has had its time.

        A head that was begun and not finished is answered 408. A connection on which nothing was asked is closed
        without an answer: its client may take whatever comes for the answer to a request that it is just sending.
        """
        if awaits is Awaits.HEAD:
            self._dismiss(408, "header-timeout", f"the request's head was not complete within {seconds:g} s")
        elif awaits is Awaits.FIRST_BYTE or awaits is Awaits.REQUEST:
            self._leave()
        else:
            self._transport.abort()

    def _serves(self) -> bool:
        """Whether an exchange is in progress."""
        return False

    def _client_gone(self, error: Exception | None) -> None:
        """The connection is of no use any more."""

    def _turn_away(self) -> None:
        """There are too many connections."""
        route = self._route
        if route.counted:
            route.status.add(Slot.CONNECTIONS_REFUSED)
        if route.connections_open > crowd(route.connections_max):
            self._closing = True
            self._transport.abort()
        else:
            reason = f"{route.connections_max} connections are open, and no more are allowed"
            self._dismiss(503, "too-many-connections", reason)

    def _dismiss(self, status: int, code: str, reason: str) -> None:
        """Say why, where no request can be answered, and close."""
        self._transport.write(error_answer(status, code, reason))
        self._close()

    def _close(self) -> None:
        """Everything is said. The client gets the end right behind it, and what it still sends is thrown away until it
        closes as well: one that is closed on with bytes unread is reset, which takes from it what it has yet to read
        (RFC 9112 section 9.6). The sweep ends it if it does not close.
        """
        transport = self._transport
        self._closing = True
        if self._client_ended or not transport.can_write_eof():  # with TLS, close() does all of this
            transport.close()
        elif not transport.is_closing():
            transport.write_eof()
            self._gate.open()

    def _leave(self) -> None:
        """Close a connection on which nothing is under way: at once, unless the last answer is still on its way."""
        if self.unsent():
            self._close()
        else:
            self._closing = True
            self._transport.close()

    def _throw_away(self, data: bytes) -> None:
        self._thrown_away += len(data)
        if self._thrown_away > THROWN_AWAY_BYTES_MAX:
            self._gate.hold(Hold.CLOSING)
