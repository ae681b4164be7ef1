"""What turns a connection over to another protocol, what does not, and that a tunnel buffers no more than a message."""

from __future__ import annotations

import contextlib
import socket

import pytest

from sidecar.wire.records import EndFlag
from sidecar.wire.status import Slot

from .conftest import Copies, Origin, Proxy, deliver, receive, receive_all, receive_head, reset, scene, wait_for
from .test_half_close import assert_reset

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n"
GROWTH_MAX = 24 << 20  # of which the queue's own pages are 8 MiB
FLOOD = 96 << 20


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (
            UPGRADE,
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno",
        ),
        (UPGRADE, OK),
        (CONNECT, b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno"),
    ],
    ids=["426", "200", "CONNECT"],
)
def test_what_is_refused_goes_on_as_http(
    proxy: Proxy, origin: Origin, copies: Copies, delivery: str, asked: bytes, refused: bytes
) -> None:
    with proxy.client() as client:
        deliver(client, asked + GET, delivery)
        upstream = origin.next()
        receive_head(upstream)
        deliver(upstream, refused, delivery)
        assert receive(client, len(refused)) == refused
        assert receive_head(origin.next()).startswith(b"GET / ")
        deliver(upstream, OK, delivery)
        assert receive(client, len(OK)) == OK
    assert copies.next()[:3] == (asked, refused, 0)
    assert copies.next()[:3] == (GET, OK, 0)


def test_behind_a_2xx_to_connect_everything_is_opaque(
    proxy: Proxy, origin: Origin, copies: Copies, delivery: str
) -> None:
    """To the route's origin, whatever the target says; Content-Length means nothing there (RFC 9110, 9.3.6)."""
    answer = b"HTTP/1.1 200 Connection established\r\nContent-Length: 99\r\n\r\n"
    with proxy.client() as client:
        deliver(client, CONNECT + b"\x16\x03early", delivery)
        upstream = origin.next()
        receive_head(upstream)
        deliver(upstream, answer + b"\0down", delivery)
        assert receive(client, len(answer) + 5) == answer + b"\0down"
        assert receive(upstream, 7) == b"\x16\x03early"
        client.shutdown(socket.SHUT_WR)
        assert receive_all(upstream) == b""
        upstream.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
    assert copies.next()[:3] == (CONNECT + b"\x16\x03early", answer + b"\0down", EndFlag.OPAQUE)


@pytest.mark.parametrize("switch", [SWITCH, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], ids=["whole", "bare"])
def test_a_101_that_nobody_asked_for(proxy: Proxy, origin: Origin, copies: Copies, switch: bytes) -> None:
    with proxy.client() as client:
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(switch)
        answer = receive_all(client)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"X-Sidecar-Error: bad-response\r\n" in answer
        assert b"101 answers a request that asked for no upgrade" in answer
        with contextlib.suppress(ConnectionError):
            assert receive_all(upstream) == b""
    assert copies.next()[2] == EndFlag.ABORTED_BY_ORIGIN | EndFlag.ANSWERED_BY_SIDECAR


def send_until_stuck(sock: socket.socket, most: int, data: bytes = bytes(65_536)) -> int:
    """Send `data` over and over."""
    sock.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            sent += sock.send(data[sent % len(data) :])
    sock.settimeout(20)
    return sent


def test_an_origin_that_switches_and_does_not_read_holds_back_the_client() -> None:
    """The body of the request fills what is on its way; 101 comes before it is read."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
    with scene() as (proxy, origin, _), proxy.client() as client:
        client.sendall(head)
        upstream = origin.next()
        receive_head(upstream)
        sent = send_until_stuck(client, FLOOD)
        assert sent < FLOOD
        before = proxy.memory_bytes()
        upstream.sendall(SWITCH)
        assert receive(client, len(SWITCH)) == SWITCH
        sent += send_until_stuck(client, FLOOD)
        assert proxy.memory_bytes() - before < GROWTH_MAX
        assert receive(upstream, sent) == bytes(sent)  # and then all of it arrives
        upstream.sendall(b"down")
        assert receive(client, 4) == b"down"


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_tunnel_holds_back_who_sends_when_the_other_does_not_read(direction: str) -> None:
    with scene() as (proxy, origin, _), proxy.client() as client:
        client.sendall(UPGRADE)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(SWITCH)
        assert receive(client, len(SWITCH)) == SWITCH
        sender, reader = (upstream, client) if direction == "down" else (client, upstream)
        before = proxy.memory_bytes()
        sent = send_until_stuck(sender, FLOOD)
        assert sent < FLOOD
        assert proxy.memory_bytes() - before < GROWTH_MAX
        assert receive(reader, sent) == bytes(sent)


def switched(proxy: Proxy, origin: Origin, client: socket.socket) -> socket.socket:
    """A tunnel; returns the origin's end."""
    client.sendall(UPGRADE)
    upstream = origin.next()
    receive_head(upstream)
    upstream.sendall(SWITCH)
    assert receive(client, len(SWITCH)) == SWITCH
    return upstream


@pytest.mark.parametrize("who", ["client", "origin"])
def test_a_reset_by_who_is_not_read_is_a_reset(who: str) -> None:
    """The other side takes nothing, so the proxy does not read, and is told of nothing: the sweep looks."""
    with scene(connections_max=1) as (proxy, origin, status):
        client = proxy.client()
        upstream = switched(proxy, origin, client)
        origin.connections.remove(upstream)
        resets, other = (client, upstream) if who == "client" else (upstream, client)
        assert send_until_stuck(resets, FLOOD) < FLOOD
        reset(resets)
        wait_for(lambda: status.get(Slot.CONNECTIONS_OPEN) == status.get(Slot.UPSTREAM_CONNECTIONS) == 0)
        aborted = Slot.ABORTED_BY_CLIENT if who == "client" else Slot.ABORTED_BY_ORIGIN
        assert status.get(aborted) == 1
        assert_reset(other)
        with proxy.client() as later:  # there is room for another
            later.sendall(GET)
            receive_head(answering := origin.next())
            answering.sendall(OK)
            assert receive(later, len(OK)) == OK


def test_an_end_behind_what_is_not_read_is_no_reset() -> None:
    """Both have said all, and the origin has yet to take it: several sweeps pass."""
    with scene(idle_seconds=0.1, header_seconds=0.1) as (proxy, origin, status), proxy.client() as client:
        upstream = switched(proxy, origin, client)
        upstream.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
        sent = send_until_stuck(client, FLOOD)
        client.shutdown(socket.SHUT_WR)
        for number in range(1, 4):
            with proxy.client() as silent:
                assert receive_all(silent) == b""
            assert status.get(Slot.HEADER_TIMEOUTS) == number
        assert receive_all(upstream) == bytes(sent)
