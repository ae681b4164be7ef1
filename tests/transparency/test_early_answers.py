"""Answers that come before the request is complete: while its body is sent, or held back for 100 Continue."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from .conftest import Copies, Origin, Proxy, deliver, receive, receive_all, receive_head

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
LARGE = 100_000_000


def answers() -> dict[str, bytes]:
    return {
        "counted": OK,
        "chunked": b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nno\r\n0\r\nT: 1\r\n\r\n",
        "empty": b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    }


@pytest.mark.parametrize("answer", answers().values(), ids=answers().keys())
def test_the_body_goes_on_behind_an_answer(
    proxy: Proxy, origin: Origin, copies: Copies, delivery: str, answer: bytes
) -> None:
    begun, rest = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"3\r\ndef\r\n0\r\n\r\n",
    )
    with proxy.client() as client:
        deliver(client, begun, delivery)
        upstream = origin.next()
        receive_head(upstream)
        assert receive(upstream, 8) == b"3\r\nabc\r\n"
        deliver(upstream, answer, delivery)
        assert receive(client, len(answer)) == answer
        deliver(client, rest + GET, delivery)
        assert receive(upstream, len(rest)) == rest
        assert receive_head(origin.next()).startswith(b"GET / ")
        deliver(upstream, OK, delivery)
        assert receive(client, len(OK)) == OK
    assert copies.next()[:3] == (begun + rest, answer, 0)
    assert copies.next()[:3] == (GET, OK, 0)


def test_a_client_that_waits_for_100_and_gets_its_answer_may_go_on(proxy: Proxy, origin: Origin, delivery: str) -> None:
    with proxy.client() as client:
        deliver(client, EXPECT, delivery)
        upstream = origin.next()
        receive_head(upstream)
        deliver(upstream, OK, delivery)
        assert receive(client, len(OK)) == OK
        deliver(client, b"body" + GET, delivery)
        assert receive(upstream, 4) == b"body"
        receive_head(origin.next())
        deliver(upstream, OK, delivery)
        assert receive(client, len(OK)) == OK


def test_a_client_that_waits_for_100_and_is_refused(
    proxy: Proxy, origin: Origin, copies: Copies, delivery: str
) -> None:
    with proxy.client() as client:
        deliver(client, EXPECT, delivery)
        upstream = origin.next()
        receive_head(upstream)
        deliver(upstream, NO, delivery)
        origin.forget_connections()
        assert receive_all(client) == NO
    assert copies.next()[:3] == (EXPECT, NO, 0)


def test_an_answer_in_the_middle_of_100_103_and_a_body(proxy: Proxy, origin: Origin, delivery: str) -> None:
    first = b"HTTP/1.1 100 Continue\r\n\r\n"
    rest = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK
    with proxy.client() as client:
        deliver(client, EXPECT, delivery)
        upstream = origin.next()
        receive_head(upstream)
        deliver(upstream, first, delivery)
        assert receive(client, len(first)) == first
        deliver(client, b"bo", delivery)
        assert receive(upstream, 2) == b"bo"
        deliver(upstream, rest, delivery)
        assert receive(client, len(rest)) == rest
        deliver(client, b"dy", delivery)
        assert receive(upstream, 2) == b"dy"


@pytest.mark.parametrize("route", [0, 1], ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_answer_before_the_connection_breaks_reaches_a_client_that_still_sends(
    proxy: Proxy, origins: list[Origin], how: str, route: int
) -> None:
    """An origin that closes with the body unread resets the connection, perhaps while the proxy writes to it."""
    origin = origins[route]
    for _ in range(8):
        with proxy.client(route) as client:

            def send(client: socket.socket = client) -> None:
                with contextlib.suppress(OSError):
                    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE)
                    client.sendall(bytes(LARGE))

            sending = threading.Thread(target=send, daemon=True)
            sending.start()
            upstream = origin.next()
            receive_head(upstream)
            upstream.sendall(OK)
            if how == "reset":
                assert receive(client, len(OK)) == OK
            origin.drop(upstream, how)
            if how == "close":
                assert receive(client, len(OK)) == OK
            assert receive_all(client) == b""
        sending.join(20)


def test_an_answer_that_close_delimits_before_the_request_is_complete(
    proxy: Proxy, origin: Origin, copies: Copies
) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nenough of it"
    begun = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal"
    with proxy.client() as client:
        client.sendall(begun)
        upstream = origin.next()
        receive_head(upstream)
        assert receive(upstream, 3) == b"hal"
        upstream.sendall(answer)
        origin.forget_connections()
        assert receive_all(client) == answer
    assert copies.next()[:3] == (begun, answer, 0)
