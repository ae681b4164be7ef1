from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time

import pytest

from sidecar.proxy.config import Address, Upstream
from sidecar.proxy.listeners import listen
from sidecar.proxy.sockets import Gate, Hold, broken, probe, unread, unsent
from sidecar.proxy.upstream import Origin, UpstreamConnection
from sidecar.wire.status import STATUS_BYTES, StatusPage


class Transport(asyncio.Transport):
    """A transport of a socket; counts whether it is read."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        super().__init__({"socket": sock})
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 7


def test_a_gate_opens_when_the_last_reason_is_gone():
    transport = Transport()
    gate = Gate(transport)
    for why in (Hold.CONNECTING, Hold.UPSTREAM_FULL):
        gate.hold(why)
        assert not transport.reading
    gate.release(Hold.CONNECTING)
    assert not transport.reading
    gate.release(Hold.UPSTREAM_FULL)
    assert transport.reading
    gate.hold(Hold.PIPELINED)
    gate.open()
    assert transport.reading


def probing(sock) -> tuple[int, int]:
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    )


async def test_silent_peers_are_probed_on_both_legs():
    """A client whose machine is gone, an origin behind a gateway that forgets connections without traffic."""
    accepted: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    class Client(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.set_result(transport)

    listener = await listen(Client, Address("127.0.0.1", 0), socket_mode=0o660)
    origin = Origin(Upstream.parse(f"http://{listener.address}"), StatusPage(bytearray(STATUS_BYTES)))
    made: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()

    class Caller:
        def connected(self, upstream):
            made.set_result(upstream)

        def connect_failed(self, error):
            made.set_exception(error)

    await origin.connect(Caller())
    for transport in ((await made).transport, await accepted):
        assert probing(transport.get_extra_info("socket")) == (1, 60)
        transport.abort()
    listener.close()


def test_unix_sockets_need_no_probes():
    with socket.socket(socket.AF_UNIX) as sock:
        probe(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_what_was_said_before_a_reset_is_still_there():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        peer = server.accept()[0]
        sock.sendall(b"never read")
        peer.sendall(b"last words")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError):  # as writing finds out
            sock.send(b"more")
        assert unread(Transport(sock)) == b"last words"
        assert unread(Transport(sock)) == b""
    assert unread(Transport()) == b""


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        return sock, server.accept()[0]


def test_what_the_peer_has_yet_to_take_is_counted_here_and_in_the_kernel():
    sock, peer = pair()
    with sock, peer:
        transport = Transport(sock)
        wait_for(lambda: unsent(transport) == 7)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(65_536))
        before = unsent(transport)
        assert before > 65_536
        peer.recv(1 << 20)
        wait_for(lambda: unsent(transport) < before)
    assert unsent(transport) == 7  # of a socket that is closed
    assert unsent(Transport()) == 7


def test_a_connection_that_is_not_read_and_breaks():
    sock, peer = pair()
    with sock:
        sock.shutdown(socket.SHUT_WR)
        peer.shutdown(socket.SHUT_WR)  # both ends are closed in order, which looks much the same
        wait_for(lambda: broken(Transport(sock)))
        assert not broken(Transport(sock), ended=True)
        peer.close()
    sock, peer = pair()
    with sock:
        assert not broken(Transport(sock))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert broken(Transport(sock))
        assert broken(Transport(sock), ended=True)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
