"""An event loop's transport whose other side is in the test's hands."""

from __future__ import annotations

import asyncio
import socket


class Transport(asyncio.Transport):
    """Keeps what is written, whether it is read, who reads, and its ends; the socket, if there is one, gets the end."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        super().__init__()
        self.sock = sock
        self.written = b""
        self.reading = True
        self.left = 0  # bytes that wait
        self.ends: list[str] = []
        self.protocol: asyncio.Protocol | None = None

    def write(self, data) -> None:
        self.written += data

    def write_eof(self) -> None:
        if self.sock is not None:
            self.sock.shutdown(socket.SHUT_WR)

    def can_write_eof(self) -> bool:
        return True

    def set_protocol(self, protocol) -> None:
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def get_extra_info(self, name, default=None):
        return self.sock if name == "socket" else default

    def is_closing(self) -> bool:
        return bool(self.ends)

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")

    def get_write_buffer_size(self) -> int:
        return self.left

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
