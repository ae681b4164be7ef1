"""What the origin receives is what the client sent, but for the value of Host; what the client receives is what the
origin sent. Each shape of message, under each way of delivery in both directions, to a plain and to a TLS origin."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from .conftest import HOST, Copies, Origin, Proxy, deliver, receive, receive_all


def request(method: bytes = b"GET", fields: bytes = b"", body: bytes = b"", target: bytes = b"/v1/x?y=%20") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: " + HOST + b"\r\n" + fields + b"\r\n" + body


def response(status: bytes = b"200 OK", fields: bytes = b"", body: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + body


OK = response(fields=b"Content-Length: 2\r\n", body=b"ok")
CHUNKS = b'7;ext="v"\r\nchunk 1\r\n00c\r\n chunk\r\n two\r\n0\r\n'
ODD = (
    b"aCCept: */*\r\nX-Twice: 1\r\nx-twice:2\r\nX-TWICE:\t 3  \r\nX-Empty:\r\nCookie: a=b\r\nCookie: c=d\r\n"
    b"X-Bytes: caf\xc3\xa9\r\n"
)


@dataclass
class Case:
    """Requests and the origin's answers, in order. `close`: the origin ends the connection after the last."""

    requests: list[bytes]
    responses: list[bytes]
    close: bool = False
    flags: int = 0
    tags: list[str] = field(default_factory=list)


CASES = {
    "no bodies": Case([request()], [response(fields=b"Content-Length: 0\r\n")]),
    "content-length": Case([request(b"POST", b"Content-Length: 5\r\n", b"hello")], [OK]),
    "chunked, extensions, trailers": Case(
        [request(b"POST", b"Transfer-Encoding: chunked\r\n", CHUNKS + b"X-Trailer: up\r\nx-trailer:2\r\n\r\n")],
        [response(fields=b"Transfer-Encoding: Chunked\r\n", body=CHUNKS + b"X-Trailer: down\r\n\r\n")],
    ),
    "until close": Case([request()], [response(body=b"as long as it takes")], close=True),
    "until close, HTTP/1.0": Case([request()], [b"HTTP/1.0 200 OK\r\n\r\nold but good"], close=True),
    "until close, HTTP/1.0 with Transfer-Encoding": Case(
        [request()],
        [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"\r\nand more"],
        close=True,
    ),
    "connection: close from the origin": Case(
        [request()], [response(fields=b"Connection: close\r\nContent-Length: 2\r\n", body=b"ok")], close=True
    ),
    "HEAD with content-length": Case([request(b"HEAD")], [response(fields=b"Content-Length: 12345\r\n")]),
    "HEAD, then GET": Case([request(b"HEAD"), request()], [response(fields=b"Content-Length: 2\r\n"), OK]),
    "103, then 200": Case([request()], [response(b"103 Early Hints", b"Link: </a>; rel=preload\r\n") + OK]),
    "many 1xx": Case([request()], [response(b"102 Processing") * 5 + OK]),
    "204 with content-length": Case(
        [request(), request()], [response(b"204 No Content", b"Content-Length: 9\r\n"), OK]
    ),
    "304 with content-length": Case(
        [request(), request()], [response(b"304 Not Modified", b"Content-Length: 9\r\n"), OK]
    ),
    "kept connection": Case(
        [request(), request(b"POST", b"Content-Length: 3\r\n", b"two"), request()],
        [OK, response(fields=b"Transfer-Encoding: chunked\r\n", body=b"2\r\nok\r\n0\r\n\r\n"), OK],
    ),
    "odd fields": Case(
        [request(fields=ODD)], [response(b"299 Odd \xe2\x9c\x93", ODD + b"Content-Length: 2\r\n", b"ok")]
    ),
    "no reason phrase": Case([request()], [b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"]),
    "HTTP/1.0 kept, of both": Case(
        [b"GET / HTTP/1.0\r\nHost: " + HOST + b"\r\nConnection: Keep-Alive\r\n\r\n"] * 3,
        [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", OK, OK],
    ),
    "HTTP/1.0 with a body, closed by the origin": Case(
        [b"POST / HTTP/1.0\r\nHost: " + HOST + b"\r\nContent-Length: 2\r\n\r\nhi"], [OK], close=True
    ),
    "HEAD and 304 with chunked": Case(
        [request(b"HEAD"), request(), request()],
        [
            response(fields=b"Transfer-Encoding: chunked\r\n"),
            response(b"304 Not Modified", b"Transfer-Encoding: chunked\r\n"),
            OK,
        ],
    ),
    "a long name, a long target, a long value": Case(
        [request(fields=b"N" * 20_000 + b": v\r\nX: " + b"v" * 20_000 + b"\r\n", target=b"/" + b"t" * 20_000)],
        [response(fields=b"N" * 30_000 + b": v\r\nContent-Length: 2\r\n", body=b"ok")],
    ),
    "1xx to HTTP/1.0": Case(
        [b"GET / HTTP/1.0\r\nHost: " + HOST + b"\r\nConnection: keep-alive\r\n\r\n"],
        [response(b"103 Early Hints", b"Link: </a>\r\n") + OK],
    ),
    "absolute-form": Case([request(target=b"http://elsewhere.example/x")], [OK]),
    "OPTIONS *": Case([request(b"OPTIONS", target=b"*")], [OK]),
    "PUT, PATCH, DELETE": Case(
        [request(method, b"Content-Length: 1\r\n", b"x") for method in (b"PUT", b"PATCH", b"DELETE")], [OK, OK, OK]
    ),
    "empty lines before a request": Case([b"\r\n\r\n" + request(), b"\r\n" + request()], [OK, OK]),
    "gzip is not touched": Case(
        [request(b"POST", b"Content-Encoding: gzip\r\nContent-Length: 4\r\n", b"\x1f\x8b\x00\xff")],
        [response(fields=b"Content-Encoding: br\r\nContent-Length: 4\r\n", body=b"\x00\xff\r\n")],
    ),
    "large both ways": Case(
        [request(b"POST", b"Content-Length: 300000\r\n", bytes(range(250)) * 1200)],
        [response(fields=b"Content-Length: 500000\r\n", body=bytes(range(250)) * 2000)],
    ),
}


def at_origin(data: bytes, authority: bytes) -> bytes:
    return data.replace(b"Host: " + HOST, b"Host: " + authority, 1)


def converse(case: Case, proxy: Proxy, origin: Origin, delivery: str, *, route: int, pipelined: bool = False) -> None:
    """Play the case through the proxy; both ends compare what they receive."""
    preserved = route == 3
    expected = [data if preserved else at_origin(data, origin.authority) for data in case.requests]
    received: list[bytes] = []

    def serve() -> None:
        for want, answer in zip(expected, case.responses, strict=True):
            sock = origin.next()
            received.append(receive(sock, len(want)))
            deliver(sock, answer, delivery)
        if case.close:
            origin.forget_connections()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    client = proxy.client(route)
    with client:
        if pipelined:
            deliver(client, b"".join(case.requests), delivery)
            assert receive(client, sum(map(len, case.responses))) == b"".join(case.responses)
        else:
            for data, answer in zip(case.requests, case.responses, strict=True):
                deliver(client, data, delivery)
                assert receive(client, len(answer)) == answer
        if case.close:
            assert receive_all(client) == b""
        serving.join(20)
    assert received == expected


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_plain(case: Case, proxy: Proxy, origin: Origin, delivery: str, copies: Copies) -> None:
    converse(case, proxy, origin, delivery, route=0)
    for data, answer in zip(case.requests, case.responses, strict=True):
        copied_request, copied_response, flags, listener = copies.next()
        assert (copied_request, copied_response, flags, listener) == (data, answer, 0, 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_tls(case: Case, proxy: Proxy, origins: list[Origin], delivery: str) -> None:
    converse(case, proxy, origins[1], delivery, route=1)


@pytest.mark.parametrize(
    "asked",
    [b"GET / HTTP/1.0\r\nHost: " + HOST + b"\r\n\r\n", request(fields=b"Connection: close\r\n")],
    ids=["HTTP/1.0", "connection: close"],
)
def test_a_client_that_wants_no_more_is_obeyed_on_both_legs(
    proxy: Proxy, origin: Origin, delivery: str, asked: bytes
) -> None:
    """Though the origin would keep the connection: it ends, and so does the client's."""
    with proxy.client() as client:
        deliver(client, asked, delivery)
        upstream = origin.next()
        expected = at_origin(asked, origin.authority)
        assert receive(upstream, len(expected)) == expected
        deliver(upstream, OK, delivery)
        assert receive_all(client) == OK
        assert receive_all(upstream) == b""


def test_host_preserved(proxy: Proxy, origin: Origin, delivery: str) -> None:
    converse(CASES["kept connection"], proxy, origin, delivery, route=3)


@pytest.mark.parametrize("name", ["kept connection", "PUT, PATCH, DELETE", "HEAD, then GET", "204 with content-length"])
def test_pipelined(name: str, proxy: Proxy, origin: Origin, delivery: str) -> None:
    converse(CASES[name], proxy, origin, delivery, route=0, pipelined=True)


def test_a_long_pipeline_is_answered_in_order(proxy: Proxy, origin: Origin) -> None:
    requests = [request(target=b"/%d" % number, fields=b"X-Pad: " + b"p" * 300 + b"\r\n") for number in range(600)]
    answers = [response(fields=b"Content-Length: 3\r\n", body=b"%03d" % number) for number in range(600)]
    converse(Case(requests, answers), proxy, origin, "whole", route=0, pipelined=True)
