"""The pool as clients and origins see it: which connection a request comes on, and when it is sent again."""

from __future__ import annotations

import socket

import pytest

from sidecar.wire.ring import RingReader
from sidecar.wire.status import Slot

from .conftest import Origin, listen, receive, receive_all, receive_head, run_proxy, scene, wait_for

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def exchange(client: socket.socket, origin: Origin, name: bytes = b"") -> socket.socket:
    """One request and its answer; returns the connection that it came to the origin on."""
    client.sendall(GET % name)
    upstream = origin.next()
    assert receive_head(upstream).startswith(b"GET /" + name + b" ")
    upstream.sendall(OK)
    assert receive(client, len(OK)) == OK
    return upstream


def assert_passed_on(origin: Origin, upstream: socket.socket, client: socket.socket, how: str) -> None:
    """The origin breaks the connection; the client gets what it would get directly."""
    origin.drop(upstream, how)
    if how == "reset":
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    else:
        assert receive_all(client) == b""


def test_a_client_meets_the_connection_that_it_used_before():
    with scene() as (proxy, origin, status), proxy.client() as first, proxy.client() as second:
        first.sendall(GET % b"1")
        one = origin.next()
        receive_head(one)
        second.sendall(GET % b"2")
        two = origin.accept()
        receive_head(two)
        for client, upstream in ((first, one), (second, two)):
            upstream.sendall(OK)
            assert receive(client, len(OK)) == OK
        for client, upstream in ((first, one), (second, two), (second, two), (first, one), (second, two)):
            assert exchange(client, origin) is upstream
        assert status.get(Slot.UPSTREAM_CONNECTS) == 2


def test_a_new_client_meets_a_warm_connection():
    with scene() as (proxy, origin, status):
        seen = set()
        for _ in range(5):
            with proxy.client() as client:
                seen.add(exchange(client, origin))
        assert len(seen) == 1
        assert status.get(Slot.UPSTREAM_CONNECTS) == 1


def test_an_idle_connection_that_ends_is_noticed_and_never_used():
    with scene() as (proxy, origin, status), proxy.client() as client:
        exchange(client, origin)
        origin.forget_connections()
        wait_for(lambda: status.get(Slot.UPSTREAM_CONNECTIONS) == 0)
        exchange(client, origin)
        assert (status.get(Slot.UPSTREAM_CONNECTS), status.get(Slot.UPSTREAM_RETRIES)) == (2, 0)


def test_at_the_limit_requests_take_turns_and_one_is_sent_again_whole():
    """A request that waited gets a used connection; when that breaks under it, all of it goes to a fresh one."""
    with scene(upstream_connections_max=1) as (proxy, origin, status), proxy.client() as first:
        first.sendall(GET % b"first")
        upstream = origin.next()
        receive_head(upstream)
        with proxy.client() as second:
            second.sendall(GET % b"second")
            wait_for(lambda: status.get(Slot.UPSTREAM_WAITS) == 1)
            upstream.sendall(OK)
            assert receive(first, len(OK)) == OK
            assert receive_head(upstream).startswith(b"GET /second ")
            origin.drop(upstream, "reset")
            fresh = origin.next()
            assert receive_head(fresh).startswith(b"GET /second HTTP/1.1\r\nHost: ")
            fresh.sendall(OK)
            assert receive(second, len(OK)) == OK
        assert status.get(Slot.UPSTREAM_RETRIES) == 1


def test_routes_to_one_upstream_share_its_connections_and_its_limit():
    own = listen()
    routes: list[dict[str, object]] = [{"upstream": f"http://127.0.0.1:{own.port}"}] * 2
    with own.listener, run_proxy(routes, upstream_connections_max=1) as proxy:
        reader = RingReader(str(proxy.directory / "queue"))
        with proxy.client(0) as first, proxy.client(1) as second:
            upstream = exchange(first, own)
            assert exchange(second, own) is upstream
            first.sendall(GET % b"first")
            receive_head(upstream)
            second.sendall(GET % b"second")
            wait_for(lambda: reader.status.get(Slot.UPSTREAM_WAITS) == 1)
            upstream.sendall(OK)
            assert receive_head(upstream).startswith(b"GET /second ")
            upstream.sendall(OK)
            assert receive(second, len(OK)) == OK
        assert reader.status.get(Slot.UPSTREAM_CONNECTS) == 1
        own.forget_connections()
        reader.close()


def test_a_wait_that_is_too_long_is_answered():
    with scene(upstream_connections_max=1, connect_seconds=0.3) as (proxy, origin, status):
        with proxy.client() as first, proxy.client() as second:
            first.sendall(GET % b"first")
            upstream = origin.next()
            receive_head(upstream)
            second.sendall(GET % b"second")
            answer = receive_all(second)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"X-Sidecar-Error: no-capacity\r\n" in answer
            upstream.sendall(OK)
            assert receive(first, len(OK)) == OK
        assert status.get(Slot.UPSTREAM_REFUSED) == 1


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_what_is_not_idempotent_is_never_sent_twice(method, how):
    with scene() as (proxy, origin, status), proxy.client() as client:
        upstream = exchange(client, origin)
        client.sendall(method + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        receive_head(upstream)
        receive(upstream, 2)
        assert_passed_on(origin, upstream, client, how)
        assert (status.get(Slot.UPSTREAM_CONNECTS), status.get(Slot.UPSTREAM_RETRIES)) == (1, 0)


def test_what_was_answered_in_part_is_never_sent_twice():
    with scene() as (proxy, origin, status), proxy.client() as client:
        exchange(client, origin)
        client.sendall(GET % b"")
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(OK[:-1])
        assert receive(client, len(OK) - 1) == OK[:-1]
        origin.forget_connections()
        assert receive_all(client) == b""
        assert status.get(Slot.UPSTREAM_RETRIES) == 0


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\nContent-"], ids=["a byte", "half a head"])
def test_nor_what_had_a_byte_for_an_answer(begun, how):
    """The origin has acted on it: a DELETE done twice may be told that there is no such thing."""
    with scene() as (proxy, origin, status), proxy.client() as client:
        upstream = exchange(client, origin)
        client.sendall(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_head(upstream)
        upstream.sendall(begun)
        assert_passed_on(origin, upstream, client, how)
        assert (status.get(Slot.UPSTREAM_CONNECTS), status.get(Slot.UPSTREAM_RETRIES)) == (1, 0)


def test_a_fresh_connection_that_breaks_is_passed_on():
    """Nothing stale about it: the client learns what happened, as it would directly."""
    with scene() as (proxy, origin, status), proxy.client() as client:
        client.sendall(GET % b"")
        receive_head(origin.next())
        origin.forget_connections()
        assert receive_all(client) == b""
        assert status.get(Slot.UPSTREAM_RETRIES) == 0
