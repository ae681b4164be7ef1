"""The last answer on a connection arrives whole, whatever the client sends behind the request, and the end behind it.

A connection that is closed with bytes unread is reset, and the reset takes with it what is still on its way.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl

import pytest

from sidecar.wire.status import Slot

from .conftest import Origin, Proxy, connect, receive, receive_all, receive_head, scene, wait_for
from .test_listeners import Certificate
from .test_tunnels import FLOOD, send_until_stuck

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = b"x" * 1_000_000
ANSWERS = {
    "counted": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n" + LARGE,
    "until-close": b"HTTP/1.1 200 OK\r\n\r\n" + LARGE,
    "cut-short": b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n" + LARGE,
}


def options_of(certificate: Certificate | None) -> dict[str, object]:
    return certificate.options() if certificate is not None else {}


def narrow_client(proxy: Proxy, certificate: Certificate | None = None) -> socket.socket:
    """One that lets little of an answer in before it reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.settimeout(20)
    client.connect(proxy.routes[0])
    return certificate.trust().wrap_socket(client, server_hostname="localhost") if certificate is not None else client


def receive_to_the_end(client: socket.socket) -> bytes:
    """Everything, and then an end: with TLS a farewell, without which Python raises."""
    data = receive_all(client)
    if isinstance(client, ssl.SSLSocket):
        client.unwrap()
    return data


@pytest.mark.parametrize("listener", ["plain", "tls"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("behind", [b"\r\n", GET], ids=["CRLF", "request"])
def test_an_answer_that_closes_arrives_whole_though_more_was_sent(tmp_path, listener, answer, behind):
    certificate = Certificate(tmp_path) if listener == "tls" else None
    with scene(**options_of(certificate)) as (proxy, origin, _), narrow_client(proxy, certificate) as client:
        client.sendall(POST + behind)
        upstream = origin.next()
        receive_head(upstream)
        assert receive(upstream, 3) == b"abc"
        upstream.sendall(answer)
        upstream.shutdown(socket.SHUT_WR)
        assert receive_all(upstream) == b""  # the proxy has all of it
        for _ in range(3):
            client.sendall(behind)
        assert receive_to_the_end(client) == answer


def test_the_proxys_own_answer_too(proxy: Proxy):
    with proxy.client(4) as client:
        client.sendall(GET)
        first = client.recv(1)
        for _ in range(3):
            client.sendall(b"\r\n")
        answer = first + receive_all(client)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert answer.endswith(b"}\n")


def test_an_answer_to_a_request_that_is_still_sent(proxy: Proxy, origin: Origin):
    """The origin wants no more of it, and closes; the client reads on when it pleases."""
    with narrow_client(proxy) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(ANSWERS["counted"])
        origin.forget_connections()
        client.sendall(LARGE * 10)  # thrown away
        assert receive_all(client) == ANSWERS["counted"]


def test_what_is_thrown_away_has_a_bound():
    with scene() as (proxy, origin, _), narrow_client(proxy) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        receive_head(upstream := origin.next())
        upstream.sendall(ANSWERS["counted"])
        origin.forget_connections()
        before = proxy.memory_bytes()
        client.sendall(LARGE * 60)  # more than goes between two sweeps
        assert proxy.memory_bytes() - before < 24 << 20
        assert receive_all(client) == ANSWERS["counted"]


def test_a_drain_in_the_middle_of_an_answer_that_is_read_slowly():
    with scene() as (proxy, origin, status), narrow_client(proxy) as client:
        client.sendall(GET)
        receive_head(upstream := origin.next())
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + LARGE
        upstream.sendall(answer)
        wait_for(lambda: status.get(Slot.EXCHANGES_OPEN) == 0)
        proxy.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionError):
            while True:  # until the listener is gone
                connect(proxy.routes[0]).close()
        for _ in range(3):
            client.sendall(GET)
        assert receive_all(client) == answer
        client.close()
        assert proxy.process.wait(20) == 0


@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_a_client_that_takes_nothing_is_cut(tmp_path, listener):
    certificate = Certificate(tmp_path) if listener == "tls" else None
    options = options_of(certificate)
    with scene(idle_seconds=0.3, **options) as (proxy, origin, status), narrow_client(proxy, certificate) as client:
        client.sendall(POST)
        receive_head(upstream := origin.next())
        upstream.sendall(ANSWERS["counted"])
        wait_for(lambda: status.get(Slot.EXCHANGES_OPEN) == 0)
        wait_for(lambda: status.get(Slot.CONNECTIONS_OPEN) == 0)
        client.close()


def test_pipelined_requests_that_are_never_answered_are_held_back():
    with scene() as (proxy, origin, _), proxy.client() as client:
        client.sendall(GET)
        receive_head(upstream := origin.next())
        before = proxy.memory_bytes()
        assert send_until_stuck(client, FLOOD, GET * 2000) < FLOOD
        assert proxy.memory_bytes() - before < 2 << 20
        for _ in range(3):  # each makes room for one request, not for another chunk
            upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            receive_head(upstream)
        assert proxy.memory_bytes() - before < 2 << 20


def test_health_asked_for_and_not_listened_to_is_held_back():
    """The proxy answers it itself, at once: nothing but the client's reading can hold it back."""
    with scene() as (proxy, _, _), connect(proxy.admin) as client:
        before = proxy.memory_bytes()
        assert send_until_stuck(client, FLOOD, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 2000) < FLOOD
        assert proxy.memory_bytes() - before < 4 << 20
        answer = b"HTTP/1.1 200 OK\r\n"
        assert receive(client, len(answer)) == answer
        with connect(proxy.admin) as other:  # and others are served
            other.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert receive_all(other).startswith(answer)
