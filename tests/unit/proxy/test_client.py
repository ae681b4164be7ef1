"""A client's socket without what is said on it: how it is ended, and what a sweep notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from transports import Transport

from sidecar.proxy.client import ClientSocket
from sidecar.proxy.config import Upstream
from sidecar.proxy.limits import Awaits, Timeouts, end_overdue
from sidecar.proxy.route import Route
from sidecar.proxy.sockets import THROWN_AWAY_BYTES_MAX, broken
from sidecar.proxy.upstream import Origin
from sidecar.wire.status import STATUS_BYTES, StatusPage


class Socket(ClientSocket):
    """One on which everything is thrown away once it closes, as the relay does."""

    asked = 0

    def unsent(self) -> int:
        self.asked += 1
        return super().unsent()

    def data_received(self, data: bytes) -> None:
        self._throw_away(data)

    def say_last(self) -> None:
        self._close()


@contextlib.contextmanager
def connected() -> Iterator[tuple[Socket, Transport, socket.socket]]:
    status = StatusPage(bytearray(STATUS_BYTES))
    route = Route(0, Origin(Upstream.parse("http://origin.example"), status), status)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        ours, _ = listener.accept()
        with ours:
            client, transport = Socket(route, asyncio.get_running_loop()), Transport(ours)
            client.connection_made(transport)
            yield client, transport, peer


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("awaits", "said", "ends"),
    [
        (Awaits.FIRST_BYTE, b"", ["close"]),
        (Awaits.HEAD, b"HTTP/1.1 408 Request Timeout", []),  # the end goes out behind the answer
        (Awaits.REQUEST, b"", ["close"]),
        (Awaits.TAKING, b"", ["abort"]),
        (Awaits.CLOSE, b"", ["abort"]),
    ],
)
async def test_each_that_waited_too_long_has_its_end(awaits, said, ends):
    with connected() as (client, transport, peer):
        client.expire(awaits, 7.0)
        assert transport.written.partition(b"\r\n")[0] == said
        assert transport.ends == ends
        if said:
            assert b"within 7 s" in transport.written
            assert peer.recv(1) == b""


async def test_what_it_has_yet_to_take_is_asked_for_once():
    """It is a system call, for each that closes, twice a second."""
    with connected() as (client, transport, _):
        client.say_last()
        transport.left = 3
        for asked in (1, 2):
            end_overdue(client, 0.0, Timeouts(), StatusPage(bytearray(STATUS_BYTES)))
            assert client.asked == asked
        assert client.waiting.awaits is Awaits.TAKING


async def test_a_client_that_has_ended_too_is_no_break_while_it_is_not_read():
    """It has sent more than is thrown away at a time, and its end behind that: it still reads its answer."""
    with connected() as (client, transport, peer):
        client.say_last()
        client.data_received(bytes(THROWN_AWAY_BYTES_MAX + 1))
        peer.shutdown(socket.SHUT_WR)
        assert not transport.reading
        await until(lambda: broken(transport))  # by the signs of one whose end of ours is still open
        client.look()
        assert transport.ends == []
        assert transport.reading


async def test_a_client_that_has_reset_its_connection_is_one():
    with connected() as (client, transport, peer):
        client.say_last()
        client.data_received(bytes(THROWN_AWAY_BYTES_MAX + 1))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await until(lambda: broken(transport, ended=True))
        client.look()
        assert transport.ends == ["abort"]
