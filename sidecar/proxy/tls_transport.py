"""TLS over a plain connection: the handshake, both directions, the farewell.

Theory of operation. A `TlsTransport` stands between the event loop's transport and the protocol that speaks on the
connection: to the one it is the protocol, to the other the transport. OpenSSL works on two buffers in memory. What
arrives goes into one of them, and what it holds in clear is handed on at once, in one piece; what is written comes out
of the other and is written on at once. So nothing waits here, and backpressure is the plain transport's own.

An end is the peer's farewell (close_notify). There are no halves here: an end is answered by ours, and then the
connection closes; what the peer sends in between is thrown away, within a bound for each half second. One that ends
without a farewell is lost, with no `eof_received`: it was cut, or its peer spared itself the trouble. Renegotiation,
which TLS 1.3 has no more, is refused (`tls`), so no write has to wait for a read.

The event loop has TLS of its own. It asks OpenSSL for 256 kB at a time, memory that the kernel maps and takes back for
each answer, and accounts for what is buffered a second time (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, cast

from sidecar.proxy.sockets import THROWN_AWAY_BYTES_MAX, unread, unsent

# The most that a record holds in clear (RFC 8446 section 5.1): a read of this size leaves nothing of it behind.
_RECORD_BYTES_MAX: Final = 16_384
# How long the peer may take to answer our farewell, once all that was written has gone out.
_FAREWELL_SECONDS: Final = 5.0
# How long one that sends very much meanwhile is not read (`THROWN_AWAY_BYTES_MAX`).
_REST_SECONDS: Final = 0.5

_NOBODY: Final = asyncio.Protocol()

Wrap = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]


class _State(IntEnum):
    HANDSHAKE = 0
    OPEN = 1
    CLOSING = 2  # our farewell is said: what still arrives is thrown away
    CLOSED = 3


class TlsTransport(asyncio.Protocol):
    """One connection, on which `protocol` speaks once the handshake is complete.

    `wrap` makes the TLS object of two buffers: for what arrives, and for what is to be sent. A handshake that takes
    longer than `handshake_seconds` ends the connection; who gives none bounds it by cancelling `handshake`. A protocol
    that wants to know of the connection before its handshake gives `accepted`, and hears of its end in any case.
    """

    __slots__ = (
        "_accepted",
        "_error",
        "_handshake_seconds",
        "_incoming",
        "_loop",
        "_made",
        "_outgoing",
        "_plain",
        "_protocol",
        "_shaken",
        "_state",
        "_thrown_away",
        "_timer",
        "_tls",
    )

    _plain: asyncio.Transport

    def __init__(
        self,
        wrap: Wrap,
        protocol: asyncio.Protocol,
        loop: asyncio.AbstractEventLoop,
        handshake_seconds: float | None = None,
        accepted: Callable[[asyncio.Transport], None] | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = wrap(self._incoming, self._outgoing)
        self._protocol = protocol
        self._loop = loop
        self._state = _State.HANDSHAKE
        self._thrown_away = 0  # bytes since the last rest
        self._made = False  # the protocol knows of the connection
        self._error: Exception | None = None
        self._shaken: asyncio.Future[None] | None = None
        self._handshake_seconds = handshake_seconds
        self._accepted = accepted
        self._timer: asyncio.TimerHandle | None = None

    async def handshake(self) -> None:
        """Wait for it; raises ssl.SSLError or ConnectionError when it fails. Cancelled, it ends the connection."""
        if self._state is _State.HANDSHAKE:
            self._shaken = self._loop.create_future()
            try:
                await self._shaken
            except BaseException:
                self.abort()
                raise
        if not self._made:
            raise self._error or _cut()

    # The protocol of the plain transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there; the handshake begins."""
        self._plain = cast("asyncio.Transport", transport)
        if self._handshake_seconds is not None:
            self._timer = self._loop.call_later(self._handshake_seconds, self.abort)
        if self._accepted is not None:
            self._accepted(cast("asyncio.Transport", self))
        if self._state is _State.HANDSHAKE:
            self._shake()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        incoming = self._incoming
        incoming.write(data)
        if self._state is _State.OPEN:
            try:
                clear = self._tls.read(_RECORD_BYTES_MAX)
            except ssl.SSLError as error:
                self._nothing_in_clear(error)
                return
            if clear and not incoming.pending:  # one whole record, as most messages are
                self._protocol.data_received(clear)
            else:
                self._more_in_clear(clear)
        elif self._state is _State.HANDSHAKE:
            self._shake()
        elif self._state is _State.CLOSING:
            self._throw_away(len(data))

    def eof_received(self) -> bool:
        """asyncio: the peer sends no more, and has said no farewell."""
        self._state = _State.CLOSED
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._stop_timer()
        try:
            if self._state is _State.OPEN and exc is not None:  # it may have answered before it broke
                said = unread(self._plain)
                if said:
                    self.data_received(said)
        finally:  # whoever spoke on it must hear that it is gone
            self._state = _State.CLOSED
            self._error = self._error or exc
            self._end_wait()
            if self._made or self._accepted is not None:
                self._protocol.connection_lost(self._error)
            self._accepted = None
            self._protocol = _NOBODY  # it holds us as its transport

    def pause_writing(self) -> None:
        """asyncio: the write buffer is full."""
        if self._made:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """asyncio: the write buffer has room again."""
        if self._made:
            self._protocol.resume_writing()

    # The transport of the protocol

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._state is not _State.OPEN or not data:
            return
        try:
            sent = self._tls.write(data)
            if sent < len(data):  # one record each time
                rest = memoryview(data)
                while sent < len(data):
                    sent += self._tls.write(rest[sent:])
        except ssl.SSLError as error:
            self._broken(error)
        else:
            self._plain.write(self._outgoing.read())

    def close(self) -> None:
        """Say farewell behind what was written, and close when the peer has answered it."""
        if self._state is _State.HANDSHAKE:
            self.abort()
        elif self._state is _State.OPEN:
            self._state = _State.CLOSING
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                self._send()
                if self._plain.is_closing():
                    return
                self._plain.resume_reading()
                self._timer = self._loop.call_later(_FAREWELL_SECONDS, self._farewell_unanswered)
            except ssl.SSLError:
                self._close_plain()
            else:  # the peer's came first
                self._close_plain()

    def abort(self) -> None:
        """Close now."""
        self._stop_timer()
        self._state = _State.CLOSED
        self._plain.abort()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._state is not _State.OPEN or self._plain.is_closing()

    def pause_reading(self) -> None:
        """Stop reading; what has arrived is handed on already."""
        if self._state is _State.OPEN:
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._state is _State.OPEN:
            self._plain.resume_reading()

    def can_write_eof(self) -> bool:
        """No halves."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of the plain transport's buffer, the only one."""
        self._plain.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Of the plain transport's buffer."""
        return self._plain.get_write_buffer_size()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From here on `protocol` is told."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The TLS object as `ssl_object`; all else is the plain transport's."""
        return self._tls if name == "ssl_object" else self._plain.get_extra_info(name, default)

    # What OpenSSL says

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError as error:
            self._broken(error)
        else:
            self._stop_timer()
            self._state = _State.OPEN
            self._made = True
            self._send()
            self._protocol.connection_made(cast("asyncio.Transport", self))
            self._end_wait()
            if self._incoming.pending:  # not at once: first who waits for the handshake
                self._loop.call_soon(self.data_received, b"")

    def _more_in_clear(self, first: bytes) -> None:
        """Several records, or the peer's farewell: hand on what they hold, in one piece."""
        incoming, read = self._incoming, self._tls.read
        parts, part = [first], first
        error: ssl.SSLError | None = None
        try:
            while part and incoming.pending:
                part = read(_RECORD_BYTES_MAX)
                parts.append(part)
        except ssl.SSLError as raised:
            error = raised
        data = b"".join(parts)
        if data:
            self._protocol.data_received(data)
        if self._state is not _State.OPEN:
            return
        if error is not None:
            self._nothing_in_clear(error)
        elif not part:
            self._protocol.eof_received()
            self.close()

    def _nothing_in_clear(self, error: ssl.SSLError) -> None:
        """A record that is not whole yet, or one that is TLS's own: a ticket, a change of keys. Or what is wrong."""
        if not isinstance(error, ssl.SSLWantReadError):
            self._broken(error)
        elif self._outgoing.pending:
            self._send()

    def _throw_away(self, size: int) -> None:
        """Look for the answer to our farewell in what arrives."""
        try:
            while self._tls.read(_RECORD_BYTES_MAX):
                pass
        except ssl.SSLWantReadError:
            self._thrown_away += size
            if self._thrown_away > THROWN_AWAY_BYTES_MAX:
                self._thrown_away = 0
                self._plain.pause_reading()
                self._loop.call_later(_REST_SECONDS, self._rested)
            return
        except ssl.SSLError:
            pass
        self._close_plain()

    def _rested(self) -> None:
        if self._state is _State.CLOSING and not self._plain.is_closing():
            self._plain.resume_reading()

    def _farewell_unanswered(self) -> None:
        if self._plain.is_closing() or not unsent(self._plain):
            self._plain.abort()
        else:  # a slow reader: it has yet to take what was written
            self._timer = self._loop.call_later(_FAREWELL_SECONDS, self._farewell_unanswered)

    def _broken(self, error: Exception) -> None:
        """End the connection; an alert tells the peer why."""
        self._error = error
        self._send()
        self.abort()

    def _close_plain(self) -> None:
        self._stop_timer()
        self._send()
        self._state = _State.CLOSED
        self._plain.close()

    def _send(self) -> None:
        data = self._outgoing.read()
        if data:
            self._plain.write(data)

    def _end_wait(self) -> None:
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _cut() -> ConnectionResetError:
    return ConnectionResetError("the connection ended within the TLS handshake")
