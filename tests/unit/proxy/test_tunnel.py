"""The hand-over to a tunnel on transports in memory; tunnels of bytes are in tests/transparency."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.proxy.config import Upstream
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin, UpstreamConnection
from sidecar.wire.status import STATUS_BYTES, StatusPage

UPGRADE = b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1000\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written, whether it is read, and who reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.protocol: asyncio.Protocol | None = None

    def write(self, data) -> None:
        self.written += data

    def set_protocol(self, protocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@pytest.mark.parametrize("full", ["client", "origin", "neither"])
async def test_a_side_whose_peer_is_full_stays_unread_until_there_is_room(full):
    status = StatusPage(bytearray(STATUS_BYTES))
    origin = Origin(Upstream.parse("http://origin.example"), status)
    near, far = Transport(), Transport()
    upstream = UpstreamConnection(origin)
    upstream.connection_made(far)
    origin.release(upstream)
    client = ClientConnection(Route(0, origin, status), asyncio.get_running_loop())
    client.connection_made(near)
    client.data_received(UPGRADE + b"the body's beginning")
    if full == "client":
        client.pause_writing()
    elif full == "origin":
        upstream.pause_writing()
    upstream.data_received(SWITCH)
    assert (near.reading, far.reading) == (full != "origin", full != "client")
    if full == "client":
        near.protocol.resume_writing()
    elif full == "origin":
        far.protocol.resume_writing()
    assert near.reading
    assert far.reading
    near.protocol.data_received(b"up")
    far.protocol.data_received(b"down")
    assert near.written == SWITCH + b"down"
    assert far.written.endswith(b"beginningup")
