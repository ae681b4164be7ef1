"""A client's socket: how it is opened, turned away, timed out and closed. What is said on it is `relay`'s."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from sidecar.proxy.answers import error_answer
from sidecar.proxy.limits import Awaits, crowd
from sidecar.proxy.route import Route
from sidecar.proxy.sockets import Gate, broken
from sidecar.proxy.upstream import WRITE_HIGH_BYTES, WRITE_LOW_BYTES
from sidecar.wire.status import Slot

# How long a client that was told an error may go on sending before the connection is cut: closing at once would send
# a reset that can overtake the answer (RFC 9112 section 9.6).
_LINGER_SECONDS: Final = 2.0


class ClientSocket(asyncio.Protocol):
    """The parts of a client's connection that do not depend on what is said on it."""

    __slots__ = ("_client_ended", "_closing", "_gate", "_loop", "_route", "_timer", "_transport", "_welcome", "waiting")

    _transport: asyncio.Transport
    _gate: Gate

    def __init__(self, route: Route, loop: asyncio.AbstractEventLoop) -> None:
        self._route = route
        self._loop = loop
        self._closing = False  # everything is said; what the client still sends is not read into anything
        self._client_ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._welcome: bool | None = None  # not one connection too many; None: not counted yet
        self.waiting: tuple[Awaits, float] | None = None

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
        return Awaits.CLOSE if self._closing else Awaits.FIRST_BYTE

    def look(self) -> None:
        """Notice a client that has reset its connection while it is not read; called by the sweep."""
        if self._gate.held and broken(self._transport):
            self._client_gone(ConnectionResetError())
            self._transport.abort()

    def drain(self) -> None:
        """Close when idle, else after the exchange in progress (`Route.draining`)."""
        if not self._closing:
            self._close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def expire(self, answer: bytes) -> None:
        """The client has had its time: send `answer`, if any, and close."""
        if answer:
            self._transport.write(answer)
            self._linger()
        else:
            self._close()

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
            self.expire(error_answer(503, "too-many-connections", reason))

    def _linger(self) -> None:
        """Close, but let a client that is still sending read its answer first."""
        if self._client_ended:
            self._close()
            return
        self._closing = True
        if self._transport.can_write_eof():  # TLS has no such thing: the answer's Connection: close must do
            self._transport.write_eof()
        self._gate.open()
        self._timer = self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def _close(self) -> None:
        """Close once everything written has gone out."""
        self._closing = True
        self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
