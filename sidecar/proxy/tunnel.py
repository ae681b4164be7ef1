"""Two connections that carry another protocol from here on (after 101, or HTTP/2 by prior knowledge).

Bytes pass as they come, backpressure and half-closes included; the copy goes on, marked opaque.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.proxy.exchange import Exchange
from sidecar.proxy.route import Client, Route
from sidecar.proxy.sockets import reset
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.wire.records import EndFlag


class _End(asyncio.Protocol):
    """One end: what arrives here is copied and written to `other`."""

    __slots__ = ("_copy", "_gone", "ended", "other", "transport")

    other: _End

    def __init__(
        self, transport: asyncio.Transport, copy: Callable[[bytes], None], gone: Callable[[Exception | None], None]
    ) -> None:
        self.transport = transport
        self._copy = copy
        self._gone = gone
        self.ended = False

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
        self._gone(exc)
        if isinstance(exc, ConnectionResetError):
            reset(self.other.transport)
        else:
            self.other.transport.close()

    def pause_writing(self) -> None:
        """asyncio: the write buffer is full."""
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """asyncio: the write buffer has room again."""
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()


def open_tunnel(
    route: Route,
    exchange: Exchange,
    *,
    client: Client,
    near: asyncio.Transport,
    upstream: UpstreamConnection,
    waiting: bytes,
) -> None:
    """Take over both connections; `near` is the client's, `waiting` has arrived from it already."""
    copy = exchange.copy

    def copy_up(data: bytes) -> None:
        exchange.bytes_up += len(data)
        if copy is not None:
            copy.request(data)

    def copy_down(data: bytes) -> None:
        exchange.bytes_down += len(data)
        if copy is not None:
            copy.response(data)

    def client_gone(error: Exception | None) -> None:
        if error is not None:
            exchange.flags |= EndFlag.ABORTED_BY_CLIENT.value
        exchange.end()
        route.closed(client)

    def upstream_gone(error: Exception | None) -> None:
        if error is not None:
            exchange.flags |= EndFlag.ABORTED_BY_ORIGIN.value
        exchange.end()
        route.origin.forget(upstream)

    near_end = _End(near, copy_up, client_gone)
    far_end = _End(upstream.transport, copy_down, upstream_gone)
    near_end.other, far_end.other = far_end, near_end
    upstream.client = None
    near.set_protocol(near_end)
    upstream.transport.set_protocol(far_end)
    if waiting:
        near_end.data_received(waiting)
