"""Two things that are done to a client's transport: reading is stopped for several reasons, and a reset is sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import IntFlag
from typing import Final

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


class Hold(IntFlag):
    """Why a client is not read."""

    UPSTREAM_FULL = 1
    CONNECTING = 2
    PIPELINED = 4


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

    def open(self) -> None:
        """Take back every reason."""
        if self._holds:
            self.release(self._holds)


def reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset, so that the peer learns what happened on the other side."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
