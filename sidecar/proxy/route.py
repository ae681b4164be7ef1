"""What all connections of one listener share: where their requests go, and where the copies go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.proxy.limits import Waiting
from sidecar.proxy.upstream import Origin
from sidecar.wire.framing import DEFAULT_LIMITS, Head, Limits
from sidecar.wire.status import Slot, StatusPage


class Copy(Protocol):
    """Takes the copy of one exchange (`sidecar.wire.ring.ExchangeCopy`); never blocks, never raises."""

    def request(self, data: bytes, head_bytes: int = 0) -> None:
        """A chunk from the client, which begins with a message head of this size."""

    def response(self, data: bytes, head_bytes: int = 0) -> None:
        """A chunk of the answer."""

    def last(self, data: bytes, head_bytes: int, flags: int) -> None:
        """A whole answer, and the exchange is over."""

    def end(self, flags: int = 0) -> None:
        """The exchange is over."""


class NoCopy:
    """For what is not traffic: the admin address."""

    __slots__ = ()

    def request(self, data: bytes, head_bytes: int = 0) -> None:
        """Nothing."""

    def response(self, data: bytes, head_bytes: int = 0) -> None:
        """Nothing."""

    def last(self, data: bytes, head_bytes: int, flags: int) -> None:
        """Nothing."""

    def end(self, flags: int = 0) -> None:
        """Nothing."""


_NO_COPY = NoCopy()


def no_copy(_listener: int) -> Copy:
    """The `copy` of a route that copies nothing."""
    return _NO_COPY


class Client(Waiting, Protocol):
    """What a route may do to a connection of it."""

    def drain(self) -> None:
        """Close when idle, else after the exchange in progress."""

    def abort(self) -> None:
        """Close now."""


@dataclass(slots=True)
class Route:
    """One listener.

    `authority` replaces the value of Host (None preserves it). `copy(listener)` begins the copy of an exchange. `local`
    gives the answer to requests that are answered here. More than `connections_max` connections are refused.
    """

    index: int
    origin: Origin
    status: StatusPage
    authority: bytes | None = None
    copy: Callable[[int], Copy] = no_copy
    local: Callable[[Head], bytes | None] | None = None
    counted: bool = True
    limits: Limits = DEFAULT_LIMITS
    connections_max: int = 8192
    connections: set[Client] = field(default_factory=set)
    draining: bool = False
    empty: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, connection: Client) -> bool:
        """A connection is there; False when it is one too many."""
        self.connections.add(connection)
        if self.counted:
            self.status.add(Slot.CONNECTIONS_OPEN)
        return self.connections_open <= self.connections_max

    @property
    def connections_open(self) -> int:
        """What `connections_max` bounds: the connections of all listeners for traffic together, or of this one."""
        return self.status.get(Slot.CONNECTIONS_OPEN) if self.counted else len(self.connections)

    def closed(self, connection: Client) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.counted:
            self.status.add(Slot.CONNECTIONS_OPEN, -1)
        if self.draining and not self.connections:
            self.empty.set()

    def handed_over(self, connection: Client, to: Client) -> None:
        """Another has taken this connection's place."""
        self.connections.remove(connection)
        self.connections.add(to)

    def drain(self) -> None:
        """Close idle connections now and the others after their exchange."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        if not self.connections:
            self.empty.set()

    async def drained(self) -> None:
        """Wait, after `drain`, until the last connection is closed."""
        await self.empty.wait()

    def abort(self) -> None:
        """Close every connection now."""
        for connection in list(self.connections):
            connection.abort()
