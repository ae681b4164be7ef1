"""What breaks is passed on as it is directly; what the sidecar answers itself says so, and says why."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl

import pytest

from sidecar.wire.records import EndFlag

from .conftest import HOST, Copies, Origin, Proxy, deliver, receive, receive_all, receive_head, reset

GET = b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: " + HOST + b"\r\nContent-Length: 5\r\n\r\nhello"


def assert_answered_by_sidecar(answer: bytes, status: int, code: str) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert f"\r\nX-Sidecar-Error: {code}\r\n".encode() in head + b"\r\n"
    assert b"Content-Length: %d" % len(body) in head
    error = json.loads(body)["error"]
    assert error["code"] == code
    return error["message"]


def assert_nothing_arrived(origin: Origin) -> None:
    origin.listener.settimeout(0.05)
    with contextlib.suppress(TimeoutError):
        sock = origin.accept()
        assert receive_all(sock) == b""
    origin.listener.settimeout(20)


BAD = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad-head"),
    "words": (b"hello there\r\n\r\n", 400, "bad-head"),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad-head"),
    "CL.TE": (b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-head"),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", 400, "bad-head"),
    "obs-fold": (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400, "bad-head"),
    "unknown coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: snappy\r\n\r\n", 400, "bad-head"),
    "large head": (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431, "head-too-large"),
}


@pytest.mark.parametrize(("data", "status", "code"), BAD.values(), ids=BAD.keys())
def test_a_bad_head_is_refused_before_a_byte_goes_on(proxy, origin, delivery, data, status, code):
    with proxy.client() as client:
        with contextlib.suppress(ConnectionError):
            deliver(client, data, delivery)
        assert_answered_by_sidecar(receive_all(client), status, code)
    assert_nothing_arrived(origin)


def test_a_bad_head_behind_a_good_request(proxy: Proxy, origin: Origin) -> None:
    ok = b"HTTP/1.1 204 No Content\r\n\r\n"
    with proxy.client() as client:
        client.sendall(GET + b"garbage\r\n\r\n")
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(ok)
        answer = receive_all(client)
        assert answer.startswith(ok)
        assert_answered_by_sidecar(answer.removeprefix(ok), 400, "bad-head")


def test_a_bad_body_ends_the_exchange_upstream(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    with proxy.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        upstream = origin.next()
        receive_head(upstream)
        assert receive(upstream, 8) == b"3\r\nabc\r\n"
        client.sendall(b"zz\r\n")
        assert_answered_by_sidecar(receive_all(client), 400, "bad-body")
        assert receive_all(upstream) == b""
    assert copies.next()[2] == EndFlag.ABORTED_BY_CLIENT | EndFlag.ANSWERED_BY_SIDECAR


def test_nobody_at_the_upstream(proxy: Proxy, copies: Copies) -> None:
    with proxy.client(4) as client:
        client.sendall(POST)
        answer = receive_all(client)
        assert "refuses connections" in assert_answered_by_sidecar(answer, 502, "refused")
    request, response, flags, listener = copies.next()
    assert (request, response, flags, listener) == (POST, answer, EndFlag.ANSWERED_BY_SIDECAR, 4)


def test_nobody_at_the_upstream_and_a_body_still_to_come(proxy: Proxy) -> None:
    with proxy.client(4) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 10_000)
        assert_answered_by_sidecar(receive_all(client), 502, "refused")


def test_the_answer_to_head_has_no_body(proxy: Proxy) -> None:
    with proxy.client(4) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = receive_all(client)
        assert answer.startswith(b"HTTP/1.1 502")
        assert answer.endswith(b"\r\n\r\n")


def test_a_certificate_that_nobody_trusts(proxy: Proxy, origins: list[Origin]) -> None:
    with proxy.client(2) as client:
        client.sendall(POST)
        with contextlib.suppress(OSError):
            origins[2].accept()
        message = assert_answered_by_sidecar(receive_all(client), 502, "tls-failure")
        assert "not trusted" in message


def test_an_answer_that_is_not_http(proxy: Proxy, origin: Origin, copies: Copies, delivery: str) -> None:
    with proxy.client() as client:
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        with contextlib.suppress(ConnectionError):
            deliver(upstream, b"SSH-2.0-OpenSSH_9.6\r\nwelcome\r\n\r\n", delivery)
        assert_answered_by_sidecar(receive_all(client), 502, "bad-response")
    assert copies.next()[2] == EndFlag.ABORTED_BY_ORIGIN | EndFlag.ANSWERED_BY_SIDECAR


def test_an_answer_whose_body_is_not_http(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with proxy.client() as client:
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(head + b"3\r\nabc\r\n")
        assert receive(client, len(head) + 8) == head + b"3\r\nabc\r\n"
        upstream.sendall(b"oops\r\n")
        with contextlib.suppress(ConnectionError):
            assert receive_all(client) == b""
    assert copies.next()[2] == EndFlag.ABORTED_BY_ORIGIN


@pytest.mark.parametrize(
    "answered", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"], ids=["before", "within"]
)
def test_a_reset_by_the_origin_is_a_reset(proxy: Proxy, origin: Origin, copies: Copies, answered: bytes) -> None:
    with proxy.client() as client:
        client.sendall(POST)
        upstream = origin.next()
        receive_head(upstream)
        receive(upstream, 5)
        if answered:
            upstream.sendall(answered)
            assert receive(client, len(answered)) == answered
        reset(upstream)
        origin.connections.remove(upstream)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert copies.next()[2] == EndFlag.ABORTED_BY_ORIGIN


@pytest.mark.parametrize(
    "answered", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"], ids=["before", "within"]
)
def test_an_early_end_by_the_origin_is_an_end(proxy: Proxy, origin: Origin, copies: Copies, answered: bytes) -> None:
    with proxy.client() as client:
        client.sendall(POST)
        upstream = origin.next()
        receive_head(upstream)
        receive(upstream, 5)
        upstream.sendall(answered)
        origin.forget_connections()
        assert receive_all(client) == answered
    assert copies.next()[2] == EndFlag.ABORTED_BY_ORIGIN


@pytest.mark.parametrize("route", [0, 1], ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_goes_away_ends_the_exchange_upstream(
    proxy: Proxy, origins: list[Origin], copies: Copies, how: str, route: int
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    client = proxy.client(route)
    client.sendall(GET)
    upstream = origins[route].next()
    receive_head(upstream)
    upstream.sendall(head)
    assert receive(client, len(head)) == head
    if how == "close":
        client.close()
    else:
        reset(client)
    with contextlib.suppress(ConnectionError):
        assert receive_all(upstream) == b""
    origins[route].forget_connections()
    assert copies.next()[1:3] == (head, EndFlag.ABORTED_BY_CLIENT)


def test_a_client_that_goes_away_within_its_request(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    with proxy.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal")
        upstream = origin.next()
        receive_head(upstream)
        assert receive(upstream, 3) == b"hal"
    assert receive_all(upstream) == b""
    assert copies.next()[2] == EndFlag.ABORTED_BY_CLIENT


def test_a_client_that_closes_its_half_gets_its_answer(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with proxy.client() as client:
        client.sendall(POST)
        client.shutdown(socket.SHUT_WR)
        upstream = origin.next()
        receive_head(upstream)
        assert receive_all(upstream) == b"hello"
        upstream.sendall(ok)
        assert receive_all(client) == ok
    assert copies.next()[1:3] == (ok, 0)


def test_a_get_that_meets_a_connection_just_ended_is_sent_again(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    ok = b"HTTP/1.1 204 No Content\r\n\r\n"
    with proxy.client() as client:
        for _ in range(2):
            client.sendall(GET)
            upstream = origin.next()
            receive_head(upstream)
            upstream.sendall(ok)
            receive_head(client)
        client.sendall(GET)
        receive_head(origin.next())
        reset(origin.connections.pop())
        upstream = origin.accept()
        assert receive_head(upstream).startswith(b"GET / ")
        upstream.sendall(ok)
        assert receive_head(client) == ok
    for _ in range(3):
        assert copies.next()[:3] == (GET, ok, 0)


def test_a_post_that_meets_a_connection_just_ended_is_not(proxy: Proxy, origin: Origin) -> None:
    with proxy.client() as client:
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        receive_head(client)
        client.sendall(POST)
        receive_head(origin.next())
        reset(origin.connections.pop())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert_nothing_arrived(origin)


@pytest.mark.parametrize("farewell", [True, False])
def test_a_body_that_close_delimits_is_whole_only_with_a_farewell(
    proxy: Proxy, origins: list[Origin], farewell: bool
) -> None:
    """RFC 9112 section 9.8: over TLS, a way that ends without close_notify may have been cut. Who reads must know."""
    head = b"HTTP/1.1 200 OK\r\n\r\nas far as it came"
    with proxy.client(1) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        upstream = origins[1].next()
        receive_head(upstream)
        upstream.sendall(head)
        assert receive(client, len(head)) == head
        origins[1].connections.remove(upstream)
        if farewell:
            with contextlib.suppress(ssl.SSLError):  # the proxy, which has all it wants, need not answer it
                upstream = upstream.unwrap()  # type: ignore[attr-defined]
        upstream.close()
        if farewell:
            assert receive_all(client) == b""
        else:
            with pytest.raises(ConnectionResetError):
                receive_all(client)
