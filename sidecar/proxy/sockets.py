"""What is done to sockets: reading is stopped for several reasons, a reset is sent, a silent peer is probed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from enum import IntFlag
from typing import Any, Final

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
_UNREAD_BYTES_MAX: Final = 262_144
# How much a client may send each half second once everything is said: more waits, so that throwing it away is no work
# without end.
THROWN_AWAY_BYTES_MAX: Final = 16 << 20
# Nothing but the kernel's probes tells a peer that thinks from one whose machine is gone, and they keep the way open
# through gateways that forget connections without traffic after some minutes. A dead peer is noticed after three.
_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 6}


class Hold(IntFlag):
    """Why a client is not read."""

    UPSTREAM_FULL = 1
    CONNECTING = 2
    PIPELINED = 4
    CLOSING = 8  # what it sends is thrown away, and it sends very much


class Gate:
    """Lets bytes in from a transport while nothing holds it."""

    __slots__ = ("_holds", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._holds = 0

    def hold(self, why: Hold) -> None:
        """Stop reading until `why` is released."""
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= why

    def release(self, why: int) -> None:
        """Take back one reason (or several); the last one lets the bytes in again."""
        had = self._holds
        self._holds = had & ~why
        if had and not self._holds and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def held(self) -> bool:
        """Whether something holds it."""
        return self._holds != 0

    def open(self) -> None:
        """Take back every reason."""
        if self._holds:
            self.release(self._holds)


def probe(sock: Any) -> None:
    """Have the kernel probe the peer of a TCP socket that is silent; sockets accepted by a listener do as it does."""
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):  # they are Linux's names; others probe at their own pace
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def unread(transport: asyncio.Transport) -> bytes:
    """What the kernel still holds of a connection that broke while it was written to: often the peer's last word on
    why. Nothing of a TLS connection, and 256 kB at most.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return b""
    data = b""
    with contextlib.suppress(OSError):
        while len(data) < _UNREAD_BYTES_MAX and (piece := os.read(sock.fileno(), _UNREAD_BYTES_MAX - len(data))):
            data += piece
    return data


def unsent(transport: asyncio.Transport) -> int:
    """How many bytes of what was written (the end counts as one) have not arrived at the peer: those that wait here,
    and those that the kernel has taken and the peer has not acknowledged.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):  # it is closed
            found = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            size += int.from_bytes(found, sys.byteorder)
    return size


def broken(transport: asyncio.Transport, *, ended: bool = False) -> bool:
    """Whether the connection is gone; of one that is not read, the event loop does not tell.

    `ended` says that our end of it is closed: then that the peer's is closed too is no break.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.is_closing():
        return False
    asked = select.poll()
    asked.register(sock.fileno(), 0)  # for nothing: that a connection broke is always told
    signs = select.POLLERR if ended else select.POLLERR | select.POLLHUP
    return any(event & signs for _, event in asked.poll(0))


def reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset, so that the peer learns what happened on the other side."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
