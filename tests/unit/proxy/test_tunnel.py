"""The hand-over to a tunnel on transports in memory; tunnels of bytes are in tests/transparency."""

from __future__ import annotations

import asyncio
import socket

import pytest
from transports import Transport

from sidecar.proxy.config import Upstream
from sidecar.proxy.limits import Timeouts, end_overdue
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin, UpstreamConnection
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage

UPGRADE = b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1000\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


class Scene:
    """A request for an upgrade on its way from `near` to `far`."""

    def __init__(self) -> None:
        self.status = StatusPage(bytearray(STATUS_BYTES))
        origin = Origin(Upstream.parse("http://origin.example"), self.status)
        self.near, self.far = Transport(), Transport()
        self.upstream = UpstreamConnection(origin)
        self.far.protocol = self.upstream
        self.upstream.connection_made(self.far)
        origin.release(self.upstream)
        self.route = Route(0, origin, self.status)
        self.client = ClientConnection(self.route, asyncio.get_running_loop())
        self.client.connection_made(self.near)
        self.client.data_received(UPGRADE + b"the body's beginning")


@pytest.mark.parametrize("full", ["client", "origin", "neither"])
async def test_a_side_whose_peer_is_full_stays_unread_until_there_is_room(full):
    scene = Scene()
    near, far, client, upstream = scene.near, scene.far, scene.client, scene.upstream
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


async def test_a_101_that_is_found_behind_a_reset_makes_a_tunnel_that_ends():
    """The rest of the request could not be written any more; what the origin said before is still in the kernel."""
    scene = Scene()
    ours, peer = socket.socketpair()
    with ours:
        peer.sendall(SWITCH + b"last words")
        peer.close()
        scene.far.sock = ours
        scene.upstream.connection_lost(ConnectionResetError())
    assert scene.near.written == SWITCH + b"last words"
    assert scene.near.ends == ["abort"]
    assert scene.status.get(Slot.UPSTREAM_CONNECTIONS) == 0
    assert scene.status.get(Slot.ABORTED_BY_ORIGIN) == 1
    scene.near.protocol.connection_lost(None)
    assert not scene.route.connections
    assert scene.status.get(Slot.CONNECTIONS_OPEN) == scene.status.get(Slot.EXCHANGES_OPEN) == 0


@pytest.mark.parametrize("gone", ["client", "origin"])
async def test_the_last_words_to_one_side_have_the_time_that_they_take(gone):
    """The other one is gone; the tunnel stays in its route until both are."""
    scene = Scene()
    scene.upstream.data_received(SWITCH)
    (tunnel,) = scene.route.connections
    left, stays = (scene.near, scene.far) if gone == "client" else (scene.far, scene.near)
    timeouts = Timeouts(idle=10.0)

    def look(now: float) -> list[str]:
        tunnel.look()
        end_overdue(tunnel, now, timeouts, scene.status)
        return stays.ends

    assert look(0.0) == look(1e6) == []
    stays.left = 3
    left.protocol.connection_lost(None)
    assert look(0.0) == look(9.0) == ["close"]
    stays.left = 2
    assert look(10.5) == look(20.0) == ["close"]
    assert look(20.6)[:2] == ["close", "abort"]
    assert scene.status.get(Slot.CONNECTIONS_OPEN) == 1
    stays.protocol.connection_lost(None)
    assert not scene.route.connections
    assert scene.status.get(Slot.CONNECTIONS_OPEN) == scene.status.get(Slot.UPSTREAM_CONNECTIONS) == 0
