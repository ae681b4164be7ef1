"""The relay: one client connection, and the exchanges on it, one after another.

Theory of operation. Everything runs in the event loop's callbacks; there is no task per connection and nothing is
awaited but a new connection to the origin. Bytes from the client go through a `Scanner`, which says where requests
begin and end; bytes from the origin through another. What arrived is copied onto the queue and then written on, as it
is, but for the value of Host. At most one exchange runs at a time: requests that a client pipelines wait in its
scanner, so answers keep their order.

Reading stops while the other side's write buffer is full, while a connection to the origin is made, and while too much
is pipelined (`Hold`). A connection lasts as long as both sides want it to: each has seen the other's Connection field.

What breaks is passed on as directly: a reset by either side resets the other, an origin's early end ends the client's
connection, a client that goes away ends the exchange upstream at once. Only when the origin could not be reached, or
its answer is not HTTP, does the sidecar answer itself.
"""

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.proxy.client import ClientSocket
from sidecar.proxy.exchange import Exchange, gather
from sidecar.proxy.route import Route
from sidecar.proxy.sockets import Hold, reset
from sidecar.proxy.tunnel import Tunnel
from sidecar.proxy.upstream import UpstreamConnection, UpstreamError
from sidecar.wire.framing import END, Body, Event, FramingError, Head
from sidecar.wire.records import EndFlag
from sidecar.wire.status import Slot

_PIPELINED_BYTES_MAX: Final = 65_536
_HOLDS_OF_EXCHANGE: Final = Hold.UPSTREAM_FULL.value | Hold.CONNECTING.value


class ClientConnection(ClientSocket):
    """One connection from a client on `route`'s listener."""

    __slots__ = ("_dial", "_exchange", "_preferred", "_upstream")

    def __init__(self, route: Route, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(route, loop)
        self._exchange: Exchange | None = None
        self._upstream: UpstreamConnection | None = None
        self._preferred: UpstreamConnection | None = None
        self._dial: asyncio.Task[None] | None = None

    # The client's side

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        if self._closing:
            self._throw_away(data)
            return
        scanner = self._scanner
        found = scanner.scan(data)
        if type(found) is Head:  # a whole request, as nearly all are
            self._request(found, data, END)
        elif found:
            self._request_events(found)
        elif scanner.stopped and scanner.pending > _PIPELINED_BYTES_MAX:
            self._gate.hold(Hold.PIPELINED)

    def eof_received(self) -> bool:
        """The client sends no more: it may have gone, or closed its half and waits for its answers."""
        self._client_ended = True
        return self._goes_on_half_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._route.closed(self)
        self._client_gone(exc)

    def pause_writing(self) -> None:
        """asyncio: the write buffer is full."""
        self._full = True
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_writing(self) -> None:
        """asyncio: the write buffer has room again."""
        self._full = False
        if self._upstream is not None:
            self._upstream.resume_reading()
        elif self._exchange is None:
            self._loop.call_soon(self._next_request)

    def _serves(self) -> bool:
        return self._exchange is not None

    # Requests

    def _request_events(self, events: list[Event]) -> None:
        heads, data = gather(events)
        self._request(heads[0] if heads else None, data, events[-1])

    def _request(self, head: Head | None, data: bytes, last: Event) -> None:
        """Bytes of one request: with its head, or more of its body. `last` tells whether it is complete, or broken."""
        exchange = self._begin(head) if head is not None else self._exchange
        if exchange is None:
            if isinstance(last, FramingError):
                self._refuse(last)
            return
        if data:
            self._send(exchange, data, head)
        if head is not None:
            exchange.count_begun()  # behind the write: the origin is at work meanwhile
        if last is END:
            self._request_complete(exchange)
        elif isinstance(last, FramingError):
            self._refuse(last)

    def _begin(self, head: Head) -> Exchange:
        """A request's head is there: find it a connection."""
        route = self._route
        local = route.local(head) if route.local is not None else None
        exchange = self._exchange = Exchange(route, head, local=local is not None)
        self.waiting = None
        if local is not None:
            exchange.unsent.append(local)
            return exchange
        upstream = None if exchange.opaque else route.origin.take(self._preferred)
        if upstream is None:
            self._connect(fresh=exchange.opaque)
        else:
            self._attach(exchange, upstream)
        return exchange

    def _connect(self, *, fresh: bool) -> None:
        self._gate.hold(Hold.CONNECTING)
        self._dial = self._route.origin.connect(self, fresh=fresh)

    def _attach(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """From here on the request goes to this connection."""
        self._upstream = self._preferred = upstream
        upstream.client = self
        upstream.exchanges += 1
        if self._full:
            upstream.pause_reading()
        if upstream.full:
            self._gate.hold(Hold.UPSTREAM_FULL)
        upstream.scanner.resume(exchange.head.method, upgrade=exchange.head.upgrade)
        if upstream.exchanges > 1:
            exchange.allow_replay()

    def _send(self, exchange: Exchange, data: bytes, head: Head | None) -> None:
        """Copy a chunk of the request, then write it on."""
        if exchange.copy is None:
            return  # answered here
        data = exchange.up(data, head=head)
        if self._upstream is None:
            exchange.unsent.append(data)
        else:
            self._upstream.transport.write(data)

    def _request_complete(self, exchange: Exchange) -> None:
        exchange.request_done = True
        if exchange.copy is None:
            exchange.responded(200)
            self._transport.write(b"".join(exchange.unsent))
            exchange.response_done = True
        if exchange.response_done:
            self._finish(exchange)

    def _refuse(self, error: FramingError) -> None:
        """The client's bytes are not HTTP/1.1."""
        if self._route.counted:
            self._route.status.add(Slot.BAD_REQUESTS)
            if error.status == 431:
                self._route.status.add(Slot.HEADS_TOO_LARGE)
        exchange = self._exchange
        if exchange is None:
            self._dismiss(error.status, error.code, error.reason)
        elif exchange.response_begun:
            self._end_exchange(EndFlag.ABORTED_BY_CLIENT)
            self._drop_upstream()
            self._transport.abort()
        else:
            exchange.flags |= EndFlag.ABORTED_BY_CLIENT.value
            self._fail(exchange, error.status, error.code, error.reason)

    # The origin's side (upstream.Client)

    def connected(self, upstream: UpstreamConnection) -> None:
        """The connection asked for is there."""
        self._dial = None
        exchange = self._exchange
        if exchange is None or exchange.copy is None:
            self._route.origin.release(upstream)  # the client has gone; the next one finds it warm
            return
        unsent, exchange.unsent = exchange.unsent, []
        if exchange.opaque:
            upstream.transport.write(b"".join(unsent))
            self._enter_tunnel(exchange, upstream)
            return
        self._attach(exchange, upstream)
        exchange.sent_late(unsent)
        upstream.transport.write(b"".join(unsent))
        self._gate.release(Hold.CONNECTING)
        if self._client_ended and not self._goes_on_half_closed():
            self._close()

    def connect_failed(self, error: UpstreamError) -> None:
        """The connection asked for cannot be had."""
        self._dial = None
        if self._exchange is not None:
            self._fail(self._exchange, error.status, error.code, error.reason)

    def response_whole(self, head: Head, data: bytes) -> None:
        """A whole response in one piece, as most are: the same as its events."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.down_whole(data, head)
        self._transport.write(data)
        self._answered(exchange, head)
        self._response_complete(exchange)

    def _answered(self, exchange: Exchange, head: Head) -> None:
        """A head of the response, a 1xx perhaps, is there."""
        exchange.responded(head.status)
        exchange.replay = None
        if not head.keep_alive:
            exchange.keep_alive = False

    def response_events(self, events: list[Event]) -> None:
        """Parts of the response arrived: copy them, write them on."""
        exchange = self._exchange
        if exchange is None or not events:
            return
        heads, data = gather(events)
        for head in heads:
            self._answered(exchange, head)
        if data:
            exchange.down(data, sum(len(head.raw) for head in heads))
            self._transport.write(data)
        last = events[-1]
        if last is END:
            self._response_complete(exchange)
        elif isinstance(last, FramingError):
            self._bad_response(exchange, last)
        elif heads and heads[-1].body is Body.OPAQUE and self._upstream is not None:
            self._enter_tunnel(exchange, self._upstream)

    def upstream_full(self, *, full: bool) -> None:
        """The origin's connection has no room, or has room again."""
        if full:
            self._gate.hold(Hold.UPSTREAM_FULL)
        else:
            self._gate.release(Hold.UPSTREAM_FULL)

    def upstream_ended(self) -> bool:
        """The origin sends no more: perhaps that is how its response ends."""
        upstream, exchange = self._upstream, self._exchange
        if upstream is None or exchange is None:
            return False
        if upstream.scanner.pending:
            exchange.replay = None  # its answer had begun
        events = upstream.scanner.eof()
        if END in events:
            exchange.keep_alive = False
            self.response_events(events)
        return False  # anything else is dealt with when the connection is lost, at once

    def upstream_lost(self, error: Exception | None) -> None:
        """The connection to the origin is gone before the exchange is complete."""
        upstream, self._upstream = self._upstream, None
        exchange = self._exchange
        if exchange is None:
            return
        begun = upstream is not None and upstream.scanner.pending > 0
        if exchange.replay is not None and exchange.request_done and not begun and not self._client_ended:
            self._route.status.add(Slot.UPSTREAM_RETRIES)
            exchange.unsent, exchange.replay = exchange.replay, None
            self._connect(fresh=True)
            return
        if exchange.response_done:  # and the origin does not want the rest of the request
            self._end_exchange(0)
            self._close()
            return
        cut = upstream is not None and END in upstream.scanner.eof()  # a FIN would pass the body off as whole
        self._cut_off(exchange, broken=cut or isinstance(error, ConnectionResetError))

    def _cut_off(self, exchange: Exchange, *, broken: bool) -> None:
        """The rest of the answer, or all of it, will not come: so it is for the client, as directly."""
        exchange.flags |= (EndFlag.ABORTED_BY_CLIENT if self._client_ended else EndFlag.ABORTED_BY_ORIGIN).value
        self._end_exchange(0)
        if broken:
            self._closing = True
            reset(self._transport)
        else:
            self._close()

    # Ends

    def _response_complete(self, exchange: Exchange) -> None:
        exchange.response_done = True
        if exchange.request_done:
            self._finish(exchange)
        # else it came early: the rest of the request still goes on, as long as the origin takes it

    def _finish(self, exchange: Exchange) -> None:
        """Both directions are complete: on to the next request, or close."""
        upstream, self._upstream = self._upstream, None
        keep = exchange.keep_alive and not (self._client_ended and not self._scanner.pending)
        if upstream is not None:
            if keep and not upstream.scanner.pending:
                self._route.origin.release(upstream)
            else:
                self._route.origin.discard(upstream)
        self._exchange = None
        exchange.end()
        if not keep or self._route.draining:
            self._close()
            return
        if self._full or self._scanner.pending:
            self._gate.release(_HOLDS_OF_EXCHANGE)
            self._loop.call_soon(self._next_request)  # not at once: a pipeline must not nest
        else:
            self._gate.open()
            self._scanner.resume()

    def _next_request(self) -> None:
        scanner = self._scanner
        if self._full or self._closing or self._exchange is not None or not scanner.stopped:
            return  # when it is full, `resume_writing` comes back
        events = scanner.resume()
        if events:
            self._request_events(events)
        if not scanner.stopped or scanner.pending <= _PIPELINED_BYTES_MAX:
            self._gate.release(Hold.PIPELINED.value)
        if self._client_ended and not self._goes_on_half_closed():
            self._close()

    def _goes_on_half_closed(self) -> bool:
        """Whether an answer is still owed; then the origin learns of the end behind the last request, as directly."""
        exchange, upstream, waiting = self._exchange, self._upstream, self._scanner.pending
        if self._closing or not self._transport.can_write_eof():
            return False
        if exchange is None:
            return self._scanner.stopped and waiting > 0  # the next request's turn is about to come
        if not exchange.request_done or (upstream is not None and not upstream.can_half_close):
            return False
        if upstream is not None and not waiting:
            upstream.transport.write_eof()
        return True

    def _bad_response(self, exchange: Exchange, error: FramingError) -> None:
        exchange.flags |= EndFlag.ABORTED_BY_ORIGIN.value
        if exchange.response_begun:
            self._end_exchange(0)
            self._drop_upstream()
            self._transport.abort()
        else:
            self._fail(exchange, 502, "bad-response", f"the origin's answer is not HTTP/1.1: {error.reason}")

    def _fail(self, exchange: Exchange, status: int, code: str, reason: str) -> None:
        """Answer in the origin's place and close."""
        self._transport.write(exchange.answer(status, code, reason))
        self._end_exchange(EndFlag.ANSWERED_BY_SIDECAR)
        self._drop_upstream()
        self._close()

    def _client_gone(self, error: Exception | None) -> None:
        self._closing = True
        self._end_exchange(EndFlag.ABORTED_BY_CLIENT)
        if isinstance(error, ConnectionResetError) and self._upstream is not None:
            reset(self._upstream.transport)
        self._drop_upstream()
        self._preferred = None

    def _end_exchange(self, flags: int) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.flags |= int(flags)
            exchange.end()

    def _drop_upstream(self) -> None:
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._route.origin.discard(upstream)

    def _enter_tunnel(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """Both directions are another protocol's from here on: hand both connections over."""
        exchange.opaque = True
        if not upstream.full:  # else the tunnel lets more in when there is room again
            self._gate.open()
        if not self._full:
            upstream.resume_reading()
        self._exchange = self._upstream = None
        self._closing = True
        tunnel = Tunnel(self._route, exchange, self._transport, upstream, full=self._full)
        self._route.handed_over(self, tunnel)
        tunnel.begin(self._scanner.take_waiting())
