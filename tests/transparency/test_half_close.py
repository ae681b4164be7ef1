"""One side sends no more, or resets: the other learns it as it would directly, behind what was said before."""

from __future__ import annotations

import contextlib
import socket
import ssl

import pytest

from sidecar.wire.records import EndFlag

from .conftest import Copies, Origin, Proxy, deliver, listen, receive, receive_all, receive_head, reset, run_proxy
from .test_listeners import Certificate, tls_client

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d"
POST_BEGUN = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal"
ANSWER_BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"


def below_tls(sock: socket.socket) -> socket.socket:
    """The TCP socket itself: Python's TLS takes a reset for an end."""
    if not isinstance(sock, ssl.SSLSocket):
        return sock
    bare = socket.socket(fileno=sock.detach())
    bare.settimeout(20)
    return bare


def assert_reset(sock: socket.socket) -> None:
    with below_tls(sock) as bare, pytest.raises(ConnectionResetError):
        receive_all(bare)


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "warm"])
def test_a_pipeline_is_answered_to_its_end_and_then_the_origin_learns_of_it(
    proxy: Proxy, origin: Origin, delivery: str, warm: bool, copies: Copies
) -> None:
    with proxy.client() as client:
        if warm:
            client.sendall(GET % 9)
            upstream = origin.next()
            receive_head(upstream)
            upstream.sendall(OK % 9)
            assert receive(client, len(OK % 9)) == OK % 9
            copies.next()
        deliver(client, b"".join(GET % number for number in range(4)), delivery)
        client.shutdown(socket.SHUT_WR)
        for number in range(4):
            upstream = origin.next()
            assert receive_head(upstream).startswith(b"GET /%d " % number)
            if number == 3:
                assert receive_all(upstream) == b""  # the client's end, behind its last request
            deliver(upstream, OK % number, delivery)
        assert receive_all(client) == b"".join(OK % number for number in range(4))
    for number in range(4):
        assert copies.next()[:3] == (GET % number, OK % number, 0)


@pytest.mark.parametrize("rest", [b"GET / HTT", POST_BEGUN], ids=["head", "body"])
def test_a_request_cut_short_behind_a_pipeline_is_never_complete(
    proxy: Proxy, origin: Origin, delivery: str, rest: bytes
) -> None:
    with proxy.client() as client:
        deliver(client, GET % 0 + GET % 1 + rest, delivery)
        client.shutdown(socket.SHUT_WR)
        for number in range(2):
            upstream = origin.next()
            receive_head(upstream)
            deliver(upstream, OK % number, delivery)
        assert receive_all(client) == OK % 0 + OK % 1
    upstream.shutdown(socket.SHUT_WR)  # the connection may be kept, for others
    with contextlib.suppress(ConnectionError):
        assert receive_all(upstream) in (b"", rest.replace(b"Host: a", b"Host: " + origin.authority))


def test_an_end_in_the_middle_of_a_request_is_passed_on(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    with proxy.client() as client:
        client.sendall(POST_BEGUN)
        upstream = origin.next()
        receive_head(upstream)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(upstream) == b"hal"
        assert receive_all(client) == b""
    assert copies.next()[2] == EndFlag.ABORTED_BY_CLIENT


def test_an_origin_that_closes_its_half_behind_its_answer(proxy: Proxy, origin: Origin) -> None:
    with proxy.client() as client:
        for number in range(2):
            client.sendall(GET % number)
            upstream = origin.next()
            receive_head(upstream)
            upstream.sendall(OK % number)
            upstream.shutdown(socket.SHUT_WR)
            assert receive(client, len(OK % number)) == OK % number
            assert receive_all(upstream) == b""
            upstream.close()
            origin.connections.remove(upstream)


@pytest.mark.parametrize("route", [0, 1], ids=["plain", "tls"])
@pytest.mark.parametrize("when", ["request", "answer"])
def test_a_reset_by_the_client_is_a_reset(
    proxy: Proxy, origins: list[Origin], copies: Copies, route: int, when: str
) -> None:
    client = proxy.client(route)
    client.sendall(POST_BEGUN if when == "request" else GET % 0)
    upstream = origins[route].next()
    receive_head(upstream)
    if when == "request":
        assert receive(upstream, 3) == b"hal"
    else:
        upstream.sendall(ANSWER_BEGUN)
        assert receive(client, len(ANSWER_BEGUN)) == ANSWER_BEGUN
    reset(client)
    origins[route].connections.remove(upstream)
    assert_reset(upstream)
    assert copies.next()[2] == EndFlag.ABORTED_BY_CLIENT


@pytest.mark.parametrize("route", [0, 1], ids=["plain", "tls"])
def test_a_reset_behind_an_upload_that_the_origin_does_not_read(
    proxy: Proxy, origins: list[Origin], copies: Copies, route: int
) -> None:
    """The proxy does not read the client then, and is told of nothing."""
    client = proxy.client(route)
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    upstream = origins[route].next()
    receive_head(upstream)
    client.settimeout(1.0)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(100_000_000))
    reset(client)
    assert EndFlag.ABORTED_BY_CLIENT in EndFlag(copies.next()[2])
    origins[route].connections.remove(upstream)
    assert_reset(upstream)


@pytest.mark.parametrize("who", ["client", "origin"])
def test_a_reset_within_a_tunnel_is_a_reset(proxy: Proxy, origin: Origin, copies: Copies, who: str) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    client = proxy.client()
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    upstream = origin.next()
    receive_head(upstream)
    upstream.sendall(switch)
    assert receive(client, len(switch)) == switch
    origin.connections.remove(upstream)
    resets, other = (client, upstream) if who == "client" else (upstream, client)
    reset(resets)
    assert_reset(other)
    aborted = EndFlag.ABORTED_BY_CLIENT if who == "client" else EndFlag.ABORTED_BY_ORIGIN
    assert copies.next()[2] == EndFlag.OPAQUE | aborted


@pytest.mark.parametrize("answered", [b"", ANSWER_BEGUN, b"HTTP/1.1 200 OK\r\n\r\nuntil close"])
def test_a_reset_by_the_origin_is_a_reset_through_tls(tmp_path, answered):
    certificate = Certificate(tmp_path)
    own = listen()
    with own.listener, run_proxy([{"upstream": f"http://127.0.0.1:{own.port}"}], **certificate.options()) as proxy:
        client = tls_client(proxy, certificate.trust())
        client.sendall(GET % 0)
        upstream = own.next()
        receive_head(upstream)
        upstream.sendall(answered)
        assert receive(client, len(answered)) == answered
        reset(upstream)
        assert_reset(client)


def test_a_reset_within_an_answer_that_close_delimits_is_no_end(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    begun = b"HTTP/1.1 200 OK\r\n\r\nas long as it"
    with proxy.client() as client:
        client.sendall(GET % 0)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(begun)
        assert receive(client, len(begun)) == begun
        reset(upstream)
        origin.connections.remove(upstream)
        assert_reset(client)
    assert copies.next()[2] == EndFlag.ABORTED_BY_ORIGIN
