"""Connections to one origin: a pool of warm ones, and how a new one is made.

An idle connection is watched: the moment its origin ends it, or says anything unasked, it leaves the pool. Connections
that were idle for long are closed by us, before the origin or a load balancer does it in the middle of a request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from typing import Final, Protocol, cast

from sidecar.proxy import dialling
from sidecar.proxy.config import Upstream
from sidecar.proxy.sockets import probe, unread
from sidecar.proxy.tls import client_files, tls_reason
from sidecar.proxy.tls_transport import TlsTransport
from sidecar.wire.framing import DEFAULT_LIMITS, Event, Head, Limits, Role, Scanner
from sidecar.wire.status import Slot, StatusPage

WRITE_HIGH_BYTES: Final = 65_536
WRITE_LOW_BYTES: Final = 16_384


class UpstreamError(Exception):
    """No connection to the origin; `status` and `code` are what the client is told."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason


class Client(Protocol):
    """Who uses an upstream connection: the client's end of the relay."""

    def connected(self, upstream: UpstreamConnection) -> None:
        """The connection asked for is there."""

    def connect_failed(self, error: UpstreamError) -> None:
        """The connection asked for cannot be had."""

    def response_events(self, events: list[Event]) -> None:
        """Parts of the response arrived."""

    def response_whole(self, head: Head, data: bytes) -> None:
        """A whole response arrived in one piece: its head, and all of it."""

    def upstream_ended(self) -> bool:
        """The origin sends no more; True keeps the connection open for writing."""

    def upstream_lost(self, error: Exception | None) -> None:
        """The connection is gone."""

    def upstream_full(self, *, full: bool) -> None:
        """The connection's buffer is full, or has room again."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to the origin; belongs to `client` for the length of an exchange."""

    __slots__ = ("client", "exchanges", "full", "idle_since", "origin", "paused", "retired", "scanner", "transport")

    transport: asyncio.Transport

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.client: Client | None = None
        self.scanner = Scanner(Role.RESPONSE, origin.limits)
        self.exchanges = 0  # begun on this connection
        self.idle_since = 0.0
        self.full = False
        self.paused = False
        self.retired = False  # not to be used again

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH_BYTES, WRITE_LOW_BYTES)
        probe(transport.get_extra_info("socket"))
        self.origin.opened(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        client = self.client
        if client is None:  # unasked: as far as it has arrived, it does not become the next request's answer
            self.origin.discard(self)
        else:
            found = self.scanner.scan(data)
            if type(found) is Head:
                client.response_whole(found, data)
            elif found:
                client.response_events(found)
            elif self.scanner.stopped:  # the same, while the rest of the answered request is still on its way
                self.retired = True
                self.scanner.take_waiting()

    def eof_received(self) -> bool:
        """asyncio: the peer sends no more."""
        if self.client is None:
            self.origin.discard(self)
            return False
        return self.client.upstream_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        if exc is not None and self.client is not None:  # it may have answered before it closed
            said = unread(self.transport)
            if said:
                self.data_received(said)
                heir = self.transport.get_protocol()
                if heir is not self:  # it was 101: a tunnel speaks here now, and is not told by the event loop any more
                    heir.connection_lost(exc)
                    return
        client, self.client = self.client, None
        self.origin.forget(self)
        if client is not None:
            client.upstream_lost(exc)

    def pause_writing(self) -> None:
        """asyncio: the write buffer is full."""
        self.full = True
        if self.client is not None:
            self.client.upstream_full(full=True)

    def resume_writing(self) -> None:
        """asyncio: the write buffer has room again."""
        self.full = False
        if self.client is not None:
            self.client.upstream_full(full=False)

    def pause_reading(self) -> None:
        """Stop reading: the client does not keep up."""
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    @property
    def can_half_close(self) -> bool:
        """Whether our end alone can be closed: TLS has no such thing."""
        return self.transport.can_write_eof()


class Origin:
    """The pool of one origin. Everything but `connect` is synchronous: with a warm connection nothing is awaited."""

    def __init__(
        self,
        upstream: Upstream,
        status: StatusPage,
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        limits: Limits = DEFAULT_LIMITS,
        connect_seconds: float = 10.0,
        connections_max: int = 4096,
        idle_seconds: float = 55.0,
    ) -> None:
        self.upstream = upstream
        self.limits = limits  # on the heads of responses
        self._status = status
        self._connect_seconds = connect_seconds
        self._connections_max = connections_max
        self._idle_seconds = idle_seconds
        self.tls_files = client_files(ca_file, cert_file, key_file) if upstream.tls else None
        self._tls = self.tls_files.context if self.tls_files is not None else None
        self._idle: dict[UpstreamConnection, None] = {}  # the last one released is the first one taken
        self._all: set[UpstreamConnection] = set()
        self._dialling: set[asyncio.Task[None]] = set()
        self._connecting: set[UpstreamConnection] = set()  # those that are not there yet
        self._promised = 0  # room for connections, given to requests that have waited and not taken by them yet
        # Requests that wait for a connection, first come first served, and whether it must be a fresh one.
        self._turns: OrderedDict[asyncio.Future[UpstreamConnection | None], bool] = OrderedDict()
        self._addresses = dialling.Addresses()
        self._loop = asyncio.get_running_loop()

    def take(self, preferred: UpstreamConnection | None) -> UpstreamConnection | None:
        """A warm connection, the preferred one when it is idle; None when there is none."""
        idle = self._idle
        while idle:
            if preferred is not None and preferred in idle:
                connection = preferred
                del idle[connection]
            else:
                connection = idle.popitem()[0]
            if not connection.transport.is_closing():
                return connection
        return None

    def release(self, connection: UpstreamConnection) -> None:
        """Put back a connection whose exchange is complete in both directions and which may be used again."""
        connection.client = None
        if connection.transport.is_closing():
            return
        if connection.retired:
            self.discard(connection)
            return
        connection.resume_reading()
        if self._tls is not None and connection.exchanges == 1:
            self._tls.remember(connection.transport.get_extra_info("ssl_object"))
        connection.idle_since = self._loop.time()
        self._idle[connection] = None
        if self._turns:
            self._give_turns()

    def discard(self, connection: UpstreamConnection) -> None:
        """End a connection that must not be used again."""
        connection.client = None
        self._idle.pop(connection, None)
        connection.transport.abort()

    def opened(self, connection: UpstreamConnection) -> None:
        """Count a connection that is there."""
        self._connecting.discard(connection)
        self._all.add(connection)
        self._status.add(Slot.UPSTREAM_CONNECTIONS)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that is gone; its room is for who waits."""
        self._drop(connection)
        self._give_turns()

    def _drop(self, connection: UpstreamConnection) -> None:
        self._connecting.discard(connection)
        if connection in self._all:
            self._all.remove(connection)
            self._status.add(Slot.UPSTREAM_CONNECTIONS, -1)
        self._idle.pop(connection, None)

    def close_idle(self, now: float) -> None:
        """Close what has been idle for long; called every few seconds."""
        old = [connection for connection in self._idle if now - connection.idle_since > self._idle_seconds]
        for connection in old:
            self.discard(connection)

    async def follow_name(self) -> None:
        """Look the name up, and retire the connections to addresses that it no longer leads to."""
        address = self.upstream.address
        if address.path or not self._all:
            return
        try:
            found = await dialling.resolve(address.host, address.port)
        except OSError:
            return  # no answer is no reason to leave connections that work
        self._addresses.found(str(where[0]) for _, where in found)
        for connection in list(self._all):
            peer = connection.transport.get_extra_info("peername")
            if not connection.retired and peer and self._addresses.lack(str(peer[0])):
                connection.retired = True
                self._status.add(Slot.UPSTREAM_RETIRED)
                if connection in self._idle:
                    self.discard(connection)

    def close(self) -> None:
        """End every connection, in use or not."""
        for task in self._dialling:
            task.cancel()
        for connection in list(self._all):
            connection.transport.abort()

    def connect(self, client: Client, *, fresh: bool = False) -> asyncio.Task[None]:
        """Make a new connection and hand it to `client`, or tell it why not. Cancel the task when it goes away.

        While there are as many as there may be, one that comes free will do, unless it must be `fresh`.
        """
        task = self._loop.create_task(self._connect_for(client, fresh=fresh))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)
        return task

    async def _connect_for(self, client: Client, *, fresh: bool) -> None:
        try:
            connection = await self._next_connection(fresh=fresh)
        except UpstreamError as error:
            if error.status != 503:  # else the origin has failed at nothing
                self._status.add(Slot.UPSTREAM_FAILURES)
            client.connect_failed(error)
            return
        client.connected(connection)

    @property
    def _full(self) -> bool:
        return len(self._all) + len(self._connecting) + self._promised >= self._connections_max

    async def _next_connection(self, *, fresh: bool) -> UpstreamConnection:
        if self._full:
            self._status.add(Slot.UPSTREAM_WAITS)
            try:
                async with asyncio.timeout(self._connect_seconds):
                    waited_for = await self._waited_for(fresh=fresh)
            except TimeoutError:
                self._status.add(Slot.UPSTREAM_REFUSED)
                reason = f"{self._connections_max} connections to {self._name} are in use"
                raise UpstreamError(503, "no-capacity", reason) from None
            if waited_for is not None:
                return waited_for
        connection = UpstreamConnection(self)
        self._connecting.add(connection)
        try:
            await self._dial(connection)
        except BaseException:
            self.forget(connection)  # even if it was there: of one that is given up, the event loop may not tell
            raise
        self._status.add(Slot.UPSTREAM_CONNECTS)
        return connection

    async def _waited_for(self, *, fresh: bool) -> UpstreamConnection | None:
        """The next connection that comes free, or None: there is room to make one."""
        turn = self._queue(fresh=fresh)
        self._give_turns()
        while True:
            connection = await self._given(turn)
            if connection is None:
                self._promised -= 1
                return None
            if not connection.transport.is_closing():
                return connection
            turn = self._queue(fresh=fresh)  # it has just ended, which costs nobody the turn
            self._turns.move_to_end(turn, last=False)

    def _queue(self, *, fresh: bool) -> asyncio.Future[UpstreamConnection | None]:
        turn: asyncio.Future[UpstreamConnection | None] = self._loop.create_future()
        self._turns[turn] = fresh
        return turn

    async def _given(self, turn: asyncio.Future[UpstreamConnection | None]) -> UpstreamConnection | None:
        """Wait for what `turn` brings; who is cancelled gives it back."""
        try:
            return await turn
        except asyncio.CancelledError:
            self._turns.pop(turn, None)
            if not turn.cancelled():  # it was given, and nobody is there to take it any more
                connection = turn.result()
                if connection is None:
                    self._promised -= 1
                    self._give_turns()
                else:
                    self.release(connection)
            raise

    def _give_turns(self) -> None:
        """Give what there is to the requests that wait, in their order: an idle connection, or else the room to make
        one; to who needs a fresh one, the room of an idle one.
        """
        while self._turns:
            turn, fresh = next(iter(self._turns.items()))
            if not turn.done():
                connection = None if fresh else self.take(None)
                if connection is None:
                    if self._full and not self._end_idle():
                        return
                    self._promised += 1
                turn.set_result(connection)
            del self._turns[turn]

    def _end_idle(self) -> bool:
        """Make room: end the connection that has been idle for longest. False when there is none."""
        for connection in self._idle:
            self.discard(connection)
            self._drop(connection)
            return True
        return False

    @property
    def _name(self) -> str:
        return str(self.upstream.address)

    async def _dial(self, connection: UpstreamConnection) -> None:
        """Connect it, TLS handshake done; raises UpstreamError."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                path = self.upstream.address.path
                if path:
                    await self._loop.create_unix_connection(lambda: connection, path)
                else:
                    await self._dial_addresses(connection)
        except TimeoutError:
            seconds = self._connect_seconds
            raise UpstreamError(504, "connect-timeout", f"no connection to {self._name} within {seconds:g} s") from None
        except ssl.SSLError as error:
            raise UpstreamError(502, "tls-failure", f"TLS with {self._name} failed: {tls_reason(error)}") from None
        except ConnectionRefusedError:
            raise UpstreamError(502, "refused", f"{self._name} refuses connections") from None
        except OSError as error:
            raise UpstreamError(502, "unreachable", f"{self._name} cannot be reached: {error}") from None

    async def _dial_addresses(self, connection: UpstreamConnection) -> None:
        """The name is resolved anew each time, so that DNS changes are followed."""
        address = self.upstream.address
        protocol: asyncio.Protocol = connection
        if self._tls is not None:
            protocol = TlsTransport(self._tls.to_origin(address.host), connection, self._loop)
        await dialling.dial(address.host, address.port, protocol)
        if isinstance(protocol, TlsTransport):
            await protocol.handshake()
