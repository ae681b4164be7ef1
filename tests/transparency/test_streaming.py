"""Bytes pass on as they come: frames one by one, early answers, upgrades, large bodies within bounded memory."""

from __future__ import annotations

import hashlib
import socket
import threading

import pytest

from sidecar.wire.records import EndFlag

from .conftest import HOST, Copies, Origin, Proxy, receive, receive_all, receive_head, wait_for

GET = b"GET /stream HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = 48 * 1024 * 1024  # more than the sockets of both connections hold together


@pytest.mark.parametrize("route", [0, 1], ids=["plain", "tls"])
def test_each_frame_arrives_before_the_next_is_sent(proxy: Proxy, origins: list[Origin], route: int) -> None:
    with proxy.client(route) as client:
        client.sendall(GET)
        upstream = origins[route].next()
        receive_head(upstream)
        upstream.sendall(SSE_HEAD)
        assert receive(client, len(SSE_HEAD)) == SSE_HEAD
        for number in range(50):
            event = b"data: %d\n\n" % number
            frame = b"%x\r\n%b\r\n" % (len(event), event)
            upstream.sendall(frame)
            assert receive(client, len(frame)) == frame
        upstream.sendall(b"0\r\n\r\n")
        assert receive(client, 5) == b"0\r\n\r\n"


def test_a_frame_cut_anywhere_arrives_as_far_as_it_was_sent(proxy: Proxy, origin: Origin) -> None:
    with proxy.client() as client:
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(SSE_HEAD)
        receive(client, len(SSE_HEAD))
        for byte in b"5;e\r\nhello\r\n0\r\nT: 1\r\n\r\n":
            upstream.sendall(bytes([byte]))
            assert receive(client, 1) == bytes([byte])


def test_the_request_body_streams_too(proxy: Proxy, origin: Origin) -> None:
    with proxy.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        upstream = origin.next()
        receive_head(upstream)
        for _ in range(20):
            client.sendall(b"3\r\nabc\r\n")
            assert receive(upstream, 8) == b"3\r\nabc\r\n"


def test_100_continue_is_the_origins_to_say(proxy: Proxy, origin: Origin) -> None:
    with proxy.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert receive_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert receive(upstream, 4) == b"body"
        upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert receive_head(client) == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_an_early_answer_while_the_body_is_still_sent(proxy: Proxy, origin: Origin) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    with proxy.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(answer)
        assert receive(client, len(answer)) == answer
        client.sendall(b"def" + GET)
        assert receive(upstream, 6) == b"abcdef"
        assert receive_head(upstream).startswith(b"GET /stream")
        upstream.sendall(answer)
        assert receive(client, len(answer)) == answer


def test_an_early_answer_and_a_closed_connection(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    with proxy.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        upstream = origin.next()
        receive_head(upstream)
        receive(upstream, 3)
        upstream.sendall(answer)
        origin.forget_connections()
        assert receive_all(client) == answer
    assert copies.next()[1] == answer


def test_after_101_everything_is_opaque(proxy: Proxy, origin: Origin, copies: Copies, delivery: str) -> None:
    request = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with proxy.client() as client:
        client.sendall(request + b"\x81\x85early")
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(answer + b"\x81\x02hi")
        assert receive(client, len(answer) + 4) == answer + b"\x81\x02hi"
        assert receive(upstream, 7) == b"\x81\x85early"
        for number in range(20):
            client.sendall(b"\0up\r\n\r\n%d" % number)
            receive(upstream, 7 + len(str(number)))
            upstream.sendall(b"\0down")
            assert receive(client, 5) == b"\0down"
        client.shutdown(socket.SHUT_WR)
        assert receive_all(upstream) == b""
        upstream.sendall(b"last words")
        assert receive(client, 10) == b"last words"
        upstream.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
    assert copies.next()[2] == EndFlag.OPAQUE


def test_http_2_by_prior_knowledge_is_relayed_as_opaque_bytes(proxy: Proxy, origin: Origin, copies: Copies) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
    with proxy.client() as client:
        client.sendall(preface[:20])
        upstream = origin.next()
        client.sendall(preface[20:])
        assert receive(upstream, len(preface)) == preface
        upstream.sendall(b"\0\0\0\4\1\0\0\0\0")
        assert receive(client, 9) == b"\0\0\0\4\1\0\0\0\0"
    origin.forget_connections()
    assert copies.next()[2] == EndFlag.OPAQUE


def test_a_large_answer_to_a_slow_reader(proxy: Proxy, origin: Origin) -> None:
    body = bytes(range(256)) * (LARGE // 256)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE
    with proxy.client() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(head)
        assert receive(client, len(head)) == head
        before = proxy.memory_bytes()
        _assert_stalls_then_flows(upstream, client, body)
        assert proxy.memory_bytes() - before < 12 << 20  # of which the queue's own pages are 8 MiB


def test_a_large_request_to_a_slow_origin(proxy: Proxy, origin: Origin) -> None:
    body = bytes(range(256)) * (LARGE // 256)
    with proxy.client() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE)
        upstream = origin.next()
        receive_head(upstream)
        before = proxy.memory_bytes()
        _assert_stalls_then_flows(client, upstream, body)
        assert proxy.memory_bytes() - before < 12 << 20


def _assert_stalls_then_flows(sender: socket.socket, reader: socket.socket, body: bytes) -> None:
    """Unread, the body gets stuck on its way (the proxy does not take it all); read, all of it arrives."""
    sender.settimeout(0.3)
    sent = 0
    try:
        while sent < len(body):
            sent += sender.send(memoryview(body)[sent : sent + 65_536])
    except TimeoutError:
        pass
    assert sent < len(body)
    sender.settimeout(20)
    sending = threading.Thread(target=sender.sendall, args=(memoryview(body)[sent:],), daemon=True)
    sending.start()
    digest = hashlib.sha256()
    left = len(body)
    while left:
        piece = reader.recv(min(left, 1 << 16))
        assert piece
        digest.update(piece)
        left -= len(piece)
    sending.join(20)
    assert digest.digest() == hashlib.sha256(body).digest()


def test_a_client_finds_the_connection_that_it_used_before(proxy: Proxy, origin: Origin) -> None:
    ok = b"HTTP/1.1 204 No Content\r\n\r\n"
    with proxy.client() as first, proxy.client() as second:
        used: dict[socket.socket, socket.socket] = {}
        for client in (first, second):  # both in flight, so that each gets a connection
            client.sendall(GET)
            used[client] = origin.accept()
        for client in (first, second):
            receive_head(used[client])
            used[client].sendall(ok)
            receive_head(client)
        for client in (first, second, second, first):
            client.sendall(GET)
            assert receive_head(used[client]).startswith(b"GET")
            used[client].sendall(ok)
            receive_head(client)


def test_a_new_client_finds_a_warm_connection(proxy: Proxy, origin: Origin) -> None:
    for _ in range(3):
        with proxy.client() as client:
            client.sendall(GET)
            upstream = origin.next()
            receive_head(upstream)
            upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            receive_head(client)
    assert len(origin.connections) == 1


def test_idle_connections_that_the_origin_ends_are_not_used_again(proxy: Proxy, origin: Origin) -> None:
    with proxy.client() as client:
        for _ in range(3):
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            upstream = origin.next()
            receive_head(upstream)
            upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            receive_head(client)
            origin.forget_connections()


def test_an_unasked_answer_on_an_idle_connection_reaches_nobody(proxy: Proxy, origin: Origin) -> None:
    with proxy.client() as client:
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        receive_head(client)
        upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        assert receive_all(upstream) == b""
        client.sendall(GET)
        upstream = origin.accept()
        receive_head(upstream)
        upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert receive_head(client).startswith(b"HTTP/1.1 204")


def test_memory_comes_back_after_many_connections(proxy: Proxy, origin: Origin) -> None:
    clients = [proxy.client() for _ in range(300)]
    for client in clients:
        client.close()
    before = proxy.memory_bytes()
    for _ in range(2):
        clients = [proxy.client() for _ in range(300)]
        for client in clients:
            client.close()
    wait_for(lambda: proxy.memory_bytes() - before < 4 << 20)
