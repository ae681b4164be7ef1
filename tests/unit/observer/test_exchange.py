from __future__ import annotations

import base64
import gzip

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange
from sidecar.wire.records import EndFlag


def test_a_plain_exchange(wire) -> None:
    exchange = wire.exchange(wire.post("/v1/x?a=1", {"say": "é"}), wire.ok({"id": 5}))
    assert (exchange.method, exchange.path, exchange.status) == ("POST", "/v1/x", 200)
    assert exchange.request_json == {"say": "é"}
    assert exchange.response_json == {"id": 5}
    assert exchange.succeeded
    assert exchange.whole
    assert not exchange.opaque
    assert not exchange.aborted
    assert exchange.reasons == ()


def test_json_is_read_once(wire) -> None:
    exchange = wire.exchange(wire.post("/", {"a": 1}))
    assert exchange.request_json is exchange.request_json


def test_codings_of_both_directions_are_undone(wire) -> None:
    body = gzip.compress(b'{"a": 1}')
    coded = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    exchange = wire.exchange(wire.post("/", body, coded), wire.ok(body, coded))
    assert exchange.request_json == exchange.response_json == {"a": 1}


def test_an_unknown_coding_is_opaque_and_says_so(wire) -> None:
    exchange = wire.exchange(wire.post("/", {}), wire.ok(b"\x0b\x02\x80", {"Content-Encoding": "dcb"}))
    assert exchange.opaque
    assert exchange.response_json is None
    assert exchange.reasons == ("coding_unknown",)
    assert exchange.whole  # nothing was dropped or cut: it is only not understood


def test_a_bomb_is_not_whole(wire) -> None:
    bomb = gzip.compress(b"0" * (64 << 20))
    exchange = wire.exchange(wire.post("/", bomb, {"Content-Encoding": "gzip"}), wire.ok())
    assert exchange.opaque
    assert not exchange.whole


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 100_000, b"data: {}\n\n", b'{"a": 1} x'],
)
def test_what_is_not_json_is_none(wire, body: bytes) -> None:
    assert wire.exchange(wire.post("/", body)).request_json is None


def test_a_byte_order_mark_is_no_hindrance(wire) -> None:
    assert wire.exchange(wire.post("/", b"\xef\xbb\xbf[1]")).request_json == [1]


def test_a_cut_body_is_not_json(wire) -> None:
    request = wire.post("/", {"a": 1})
    exchange = wire.exchange(request[:-2], b"", EndFlag.ABORTED_BY_CLIENT)
    assert exchange.request is not None
    assert exchange.request_json is None
    assert exchange.aborted
    assert exchange.status == 0
    assert not exchange.succeeded


@pytest.mark.parametrize(
    ("flags", "whole"),
    [
        (0, True),
        (EndFlag.ABORTED_BY_ORIGIN, False),
        (EndFlag.ABORTED_BY_CLIENT, False),
        (EndFlag.BODY_CUT, False),
        (EndFlag.DROPPED, False),
    ],
)
def test_a_body_ended_by_closing_is_whole_only_when_nothing_else_ended_it(wire, flags: int, whole: bool) -> None:
    response = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"a": 1}'
    exchange = wire.exchange(wire.get("/"), response, flags)
    assert exchange.response.complete is whole
    assert exchange.response_json == ({"a": 1} if whole else None)


def test_drops_and_cuts(wire) -> None:
    dropped = wire.exchange(wire.get("/"), wire.ok(), EndFlag.DROPPED)
    cut = wire.exchange(wire.get("/"), wire.ok(), EndFlag.BODY_CUT)
    assert (dropped.copied, dropped.whole) == (False, False)
    assert (cut.copied, cut.whole) == (True, False)


def test_after_an_upgrade_the_rest_is_opaque(wire) -> None:
    request = wire.get("/ws", {"Upgrade": "websocket", "Connection": "Upgrade"})
    response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello"
    exchange = wire.exchange(request, response, EndFlag.OPAQUE)
    assert exchange.opaque
    assert exchange.status == 101


def test_interim_responses_are_passed_over(wire) -> None:
    response = b"HTTP/1.1 100 Continue\r\n\r\n" + wire.ok({"a": 1})
    assert wire.exchange(wire.post("/", {}), response).response_json == {"a": 1}


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a/b?x=1&x=2&y=%20&z=", "/a/b", {"x": "1", "y": " ", "z": ""}),
        ("http://h:1/a?x=1", "/a", {"x": "1"}),
        ("/a?b?c=d", "/a", {"b?c": "d"}),
        ("//evil/a", "//evil/a", {}),
        ("/" + "?" + "&".join(f"k{n}=1" for n in range(300)), "/", {}),
    ],
)
def test_targets(wire, target: str, path: str, query: dict[str, str]) -> None:
    exchange = wire.exchange(wire.get(target))
    assert (exchange.path, exchange.query) == (path, query)


def test_segments_are_decoded_each_for_itself(wire) -> None:
    assert wire.exchange(wire.get("/a%2Fb/c%20d")).segments == ("a/b", "c d")


def test_headers_have_the_first_value_and_utf8_is_read(wire) -> None:
    request = b"GET / HTTP/1.1\r\nHost: h\r\nX-A: one\r\nx-a: two\r\nX-B: caf\xc3\xa9\r\nX-C: caf\xe9\r\n\r\n"
    headers = wire.exchange(request).headers
    assert (headers["x-a"], headers["x-b"], headers["x-c"]) == ("one", "café", "café")


def jwt(payload: bytes) -> str:
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", payload, b"sig"))


@pytest.mark.parametrize(
    ("authorization", "claims"),
    [
        ("Bearer " + jwt(b'{"sub": "u-1"}'), {"sub": "u-1"}),
        ("bearer " + jwt(b'{"sub": "u-1"}'), {"sub": "u-1"}),
        ("Basic " + jwt(b'{"sub": "u-1"}'), {}),
        ("Bearer sk-abc", {}),
        ("Bearer " + jwt(b"[1]"), {}),
        ("Bearer " + jwt(b"\xff"), {}),
        ("Bearer a.!!!.c", {}),
        ("Bearer a.b.c", {}),
        ("Bearer a.\u00e9\u00e9\u00e9\u00e9.c", {}),
        ("Bearer " + jwt(b'{"a": "' + b"x" * 20_000 + b'"}'), {}),
    ],
)
def test_claims_of_a_bearer_token(wire, authorization: str, claims: dict[str, str]) -> None:
    request = wire.get("/").replace(b"\r\n\r\n", b"\r\nAuthorization: " + authorization.encode() + b"\r\n\r\n")
    assert wire.exchange(request).claims == claims


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\r\n", b"", b"GET / HTTP/1.1\r\nHo"])
def test_garbage_is_an_exchange_without_a_request(wire, data: bytes) -> None:
    exchange = wire.exchange(data, data)
    assert exchange.request is None
    assert exchange.method == exchange.path == ""
    assert exchange.headers == exchange.query == exchange.claims == {}
    assert exchange.request_json is exchange.response_json is None


def everything(exchange: Exchange) -> tuple[object, ...]:
    return (
        exchange.opaque,
        exchange.whole,
        exchange.segments,
        exchange.query,
        exchange.claims,
        exchange.response_headers,
        exchange.request_json,
        exchange.response_json,
        exchange.reasons,
    )


HEADS = st.sampled_from(
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: h\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204 No\r\n",
        b"",
    ]
)
FIELDS = st.sampled_from(
    [
        b"Content-Length: 5\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
        b"Content-Encoding: gzip, deflate\r\n\r\n",
        b"Content-Encoding: gzip\r\nContent-Length: 30\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\xff",
        b"Authorization: Bearer a.b.c\r\n\r\n",
        b"\r\n",
        b"",
    ]
)
MESSAGES = st.builds(lambda head, fields, rest: head + fields + rest, HEADS, FIELDS, st.binary(max_size=60))


@settings(max_examples=200)
@given(MESSAGES, MESSAGES, st.integers(0, 63), st.booleans())
def test_hostile_bytes_never_raise(request_bytes: bytes, response: bytes, flags: int, finished: bool) -> None:
    raw = RawExchange("q", 1, 1, 0, 0, 0, request_bytes, response, EndFlag(flags), finished)
    assert len(everything(Exchange(raw))) == 9


@settings(max_examples=100)
@given(st.integers(0, 400), st.sampled_from(["request", "response"]))
def test_every_cut_of_a_real_exchange_is_read(cut: int, side: str) -> None:
    body = orjson.dumps({"a": "b" * 50})
    head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    request = b"POST /v1/x HTTP/1.1\r\nHost: h\r\n" + head + body
    response = b"HTTP/1.1 200 OK\r\n" + head + body
    sides = {"request": request, "response": response}
    sides[side] = sides[side][:cut]
    flags = EndFlag.ABORTED_BY_CLIENT
    exchange = Exchange(RawExchange("q", 1, 1, 0, 0, 0, sides["request"], sides["response"], flags, True))
    everything(exchange)
    whole = cut >= len({"request": request, "response": response}[side])
    read = exchange.request_json if side == "request" else exchange.response_json
    assert (read is not None) == whole
