"""Request smuggling: the running proxy refuses what parsers disagree on, and lets nothing choose where requests go."""

from __future__ import annotations

import contextlib
import socket

import pytest
from smuggling import BAD_BODIES, BAD_HEADS, GOOD

from sidecar.wire.message import read_request
from sidecar.wire.records import EndFlag

from .conftest import Copies, Origin, Proxy, deliver, receive, receive_all

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def refusal(answer: bytes, codes: tuple[bytes, ...]) -> None:
    head = answer.partition(b"\r\n\r\n")[0]
    assert head.split(b" ")[1] in codes, answer
    assert b"\r\nConnection: close" in head
    assert answer.count(b"HTTP/1.1 ") == 1


def nothing_arrived(origin: Origin) -> bool:
    origin.listener.settimeout(0.01)
    try:
        origin.listener.accept()[0].close()
    except TimeoutError:
        return True
    finally:
        origin.listener.settimeout(20)
    return False


def test_bad_heads_reach_no_origin(proxy: Proxy, origin: Origin, copies: Copies, delivery: str) -> None:
    """The answer comes, the connection ends, what hid behind is never looked at; nothing is forwarded or copied."""
    for name, data in BAD_HEADS.items():
        with proxy.client() as client:
            with contextlib.suppress(ConnectionError):
                deliver(client, data, delivery)
            try:
                refusal(receive_all(client), (b"400", b"501"))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
    assert nothing_arrived(origin)
    copies.poll()
    assert copies.ended == []


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_never_complete(name: str, proxy: Proxy, origin: Origin, copies: Copies, delivery: str) -> None:
    data = BAD_BODIES[name]
    with proxy.client() as client:
        with contextlib.suppress(ConnectionError):
            deliver(client, data, delivery)
        refusal(receive_all(client), (b"400",))
    upstream = origin.next() if not nothing_to_accept(origin) else None
    if upstream is not None:
        with contextlib.suppress(ConnectionError):
            arrived = receive_all(upstream)
            assert arrived == b"" or not read_request(arrived).complete
            assert b"/smuggled" not in arrived
    request, _, flags, _ = copies.next()
    assert flags == EndFlag.ABORTED_BY_CLIENT | EndFlag.ANSWERED_BY_SIDECAR
    assert not read_request(request).complete
    assert data.startswith(request)


def nothing_to_accept(origin: Origin) -> bool:
    """Whether the proxy refused the request before it had a connection for it."""
    origin.listener.settimeout(0.05)
    try:
        origin.accept()
    except TimeoutError:
        return True
    finally:
        origin.listener.settimeout(20)
    return False


@pytest.mark.parametrize("name", GOOD)
def test_no_target_and_no_host_choose_the_destination(
    name: str, proxy: Proxy, origin: Origin, copies: Copies, delivery: str
) -> None:
    """Whatever they say, the request arrives at the route's origin, as it was but for the value of Host."""
    data = GOOD[name]
    before, host, after = data.partition(b"Host: ")
    expected = before + host + (origin.authority + b"\r\n" + after.partition(b"\r\n")[2] if host else after)
    with proxy.client() as client:
        deliver(client, data, delivery)
        upstream = origin.next()
        assert receive(upstream, len(expected)) == expected
        upstream.sendall(OK)
        assert receive(client, len(OK)) == OK
    assert copies.next()[0] == data
    assert read_request(data).complete


def test_connect_is_answered_by_the_origin(proxy: Proxy, origin: Origin) -> None:
    """CONNECT names another host; it goes to the route's origin like anything else, which refuses it or not."""
    with proxy.client() as client:
        client.sendall(b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n")
        upstream = origin.next()
        assert upstream.recv(65_536).startswith(b"CONNECT elsewhere.example:443 HTTP/1.1\r\n")
        upstream.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 405 ")


def test_an_answer_unasked_is_never_the_next_ones(proxy: Proxy, origin: Origin) -> None:
    """Response smuggling: bytes behind a complete answer end the upstream connection."""
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with proxy.client() as client:
        client.sendall(get)
        upstream = origin.next()
        upstream.recv(65_536)
        upstream.sendall(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        assert receive(client, len(OK)) == OK
        with contextlib.suppress(ConnectionError):
            assert receive_all(upstream) == b""
        upstream.close()
        origin.connections.remove(upstream)
        client.sendall(get)
        fresh = origin.next()
        fresh.recv(65_536)
        fresh.sendall(OK)
        assert receive(client, len(OK)) == OK
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
