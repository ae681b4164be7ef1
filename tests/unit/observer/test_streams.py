from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observer.jsonbytes import loads_or_none
from sidecar.observer.streams import (
    AwsEvent,
    AwsEvents,
    JsonArray,
    JsonLines,
    ServerEvent,
    ServerEvents,
    aws_events,
    json_lines,
    json_objects,
    server_events,
)

# Covers every rule of WHATWG HTML section 9.2.6 at once.
STREAM = (
    b"\xef\xbb\xbf: a comment\n"
    b"event: message_start\r\n"
    b'data: {"a": 1}\r\n'
    b"id: 7\r\n"
    b"\r\n"
    b"data: YHOO\rdata:+2\rdata: 10\r\r"
    b"event: nothing to say\n\n"
    b"data\n\n"
    b"data:  two spaces\n"
    b"retry: 3000\n"
    b"unknown: field\n"
    b"\n"
    b"id: bad\0id\n"
    b"data: \xc3\xa9\n\n"
    b"id\n"
    b"data: last\n\n"
    b"data: never ended"
)
EVENTS = [
    ServerEvent("message_start", b'{"a": 1}', "7"),
    ServerEvent("message", b"YHOO\n+2\n10", "7"),
    ServerEvent("message", b"", "7"),
    ServerEvent("message", b" two spaces", "7"),
    ServerEvent("message", b"\xc3\xa9", "7"),
    ServerEvent("message", b"last", ""),
]


def test_a_whole_stream() -> None:
    assert server_events(STREAM) == (EVENTS, False)


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_every_split_in_two(at: int) -> None:
    parser = ServerEvents()
    assert parser.feed(STREAM[:at]) + parser.feed(STREAM[at:]) == EVENTS


def test_byte_by_byte() -> None:
    parser = ServerEvents()
    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


@settings(max_examples=100)
@given(st.text(alphabet="\r\n:da t\N{BOM}", max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_the_splits_never_matter(text: str, cuts: list[int]) -> None:
    raw = text.encode()
    parser = ServerEvents()
    events, at = [], 0
    for cut in [*sorted(cuts), len(raw)]:
        events += parser.feed(raw[at:cut])
        at = max(at, cut)
    assert events == server_events(raw)[0]


def test_an_endless_line_is_given_up() -> None:
    parser = ServerEvents(event_bytes_max=100)
    assert parser.feed(b"data: " + b"x" * 101) == []
    assert parser.overflow
    assert parser.feed(b"\n\ndata: more\n\n") == []


def test_an_endless_event_is_given_up() -> None:
    parser = ServerEvents(event_bytes_max=100)
    assert parser.feed(b"data: first\n\n" + b"data: 12345678\n" * 12) == [ServerEvent("message", b"first")]
    assert parser.overflow


def test_a_flood_of_lines_is_given_up() -> None:
    parser = ServerEvents(lines_max=10)
    events = parser.feed(b"data: x\n\n" * 100)
    assert (len(events), parser.overflow) == (5, True)
    assert ServerEvents(lines_max=4).feed(b"data: x\n\n" * 2) == [ServerEvent("message", b"x")] * 2


def test_json_of_an_event() -> None:
    assert ServerEvent("message", b'{"a": [1]}').json() == {"a": [1]}
    assert ServerEvent("message", b"[DONE]").json() is None


LINES = b'{"a": 1}\n\n  {"b": "\xc3\xa9"}\r\nnot json\n[2]\n{"last": true}'


@pytest.mark.parametrize("at", range(len(LINES) + 1))
def test_lines_of_json(at: int) -> None:
    parser = JsonLines()
    values = parser.feed(LINES[:at]) + parser.feed(LINES[at:]) + parser.end()
    assert values == [{"a": 1}, {"b": "é"}, [2], {"last": True}]
    assert parser.invalid == 1
    assert parser.end() == []


def test_lines_of_json_are_bounded() -> None:
    long = JsonLines(line_bytes_max=10)
    assert long.feed(b"1\n" + b"2" * 11) == [1]
    assert long.overflow
    assert long.feed(b"\n3\n") == []
    many = JsonLines(lines_max=3)
    assert many.feed(b"1\n2\n3\n4\n5\n") == [1, 2, 3]
    assert many.overflow
    wide = JsonLines(line_bytes_max=4)
    assert wide.feed(b"12345678\n9\n") == []
    assert wide.overflow


def test_lines_of_a_whole_body() -> None:
    assert json_lines(b'{"a": 1}\n{"b": 2}') == ([{"a": 1}, {"b": 2}], False)


ARRAY = (
    b'[{"text": "a ] } \\" [ {", "inner": [{"x": []}, {}]}\n,\r\n{"b": "\xc3\xa9\\\\"}, 7, [{"no": 1}], "{}"\n,'
    b' {"last": null}] [{"after": 1}]'
)
OBJECTS = [{"text": 'a ] } " [ {', "inner": [{"x": []}, {}]}, {"b": "é\\"}, {"last": None}]


@pytest.mark.parametrize("at", range(len(ARRAY) + 1))
def test_a_growing_array_in_every_split(at: int) -> None:
    parser = JsonArray()
    assert parser.feed(ARRAY[:at]) + parser.feed(ARRAY[at:]) == OBJECTS
    assert parser.ended


def test_a_growing_array_byte_by_byte_and_cut() -> None:
    parser = JsonArray()
    assert [value for byte in ARRAY for value in parser.feed(bytes([byte]))] == OBJECTS
    assert json_objects(ARRAY) == (OBJECTS, True, False)
    cut = ARRAY.index(b', {"last"')
    assert json_objects(ARRAY[: cut + 5]) == (OBJECTS[:2], False, False)


def test_a_growing_array_is_bounded() -> None:
    long = JsonArray(value_bytes_max=20)
    assert long.feed(b'[{"a": 1}, {"b": "' + b"x" * 30) == [{"a": 1}]
    assert long.overflow
    assert long.feed(b'"}]') == []
    many = JsonArray(values_max=2)
    assert many.feed(b"[{},{},{},{}]") == [{}, {}]
    assert many.overflow
    quotes = b'[{"a": "' + b'\\"' * 500_000  # would take hours if every quote were tried as a string's beginning
    assert json_objects(quotes) == ([], False, False)


@settings(max_examples=150)
@given(st.text(alphabet='[]{}",:\\a1 ', max_size=40))
def test_what_is_no_array_never_raises(text: str) -> None:
    objects, _ended, overflow = json_objects(text.encode())
    whole = loads_or_none(text.encode())
    assert not overflow
    if isinstance(whole, list):
        assert objects == [value for value in whole if isinstance(value, dict)]


def aws_message(payload: bytes, **headers: Any) -> bytes:
    """A message as the Smithy specification lays it out; header values are strings, or (type, bytes)."""
    packed = b""
    for name, value in headers.items():
        raw = name.replace("_", "-").encode()
        kind, data = value if isinstance(value, tuple) else (7, struct.pack(">H", len(value)) + value.encode())
        packed += bytes([len(raw)]) + raw + bytes([kind]) + data
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return message + struct.pack(">I", zlib.crc32(message))


AWS = (
    aws_message(b'{"a": 1}', **{":event-type": "messageStart", ":message-type": "event", "flag": (0, b"")})
    + aws_message(b"", **{":event-type": "empty", ":message-type": "event", "n": (4, b"\0\0\0\7")})
    + aws_message(b"not json", **{":exception-type": "throttlingException", ":message-type": "exception"})
)
AWS_EVENTS = [
    AwsEvent({":event-type": "messageStart", ":message-type": "event"}, b'{"a": 1}'),
    AwsEvent({":event-type": "empty", ":message-type": "event"}, b""),
    AwsEvent({":exception-type": "throttlingException", ":message-type": "exception"}, b"not json"),
]


@pytest.mark.parametrize("at", range(len(AWS) + 1))
def test_an_aws_event_stream_in_every_split(at: int) -> None:
    parser = AwsEvents()
    assert parser.feed(AWS[:at]) + parser.feed(AWS[at:]) == AWS_EVENTS


def test_aws_events() -> None:
    assert [event.kind for event in AWS_EVENTS] == ["messageStart", "empty", "throttlingException"]
    assert [event.failed for event in AWS_EVENTS] == [False, False, True]
    assert [event.json() for event in AWS_EVENTS] == [{"a": 1}, None, None]


def test_a_broken_aws_message_ends_the_stream() -> None:
    first = len(aws_message(b'{"a": 1}', **{":event-type": "messageStart", ":message-type": "event", "flag": (0, b"")}))
    for at in range(len(AWS)):
        broken = bytearray(AWS)
        broken[at] ^= 0x40
        parser = AwsEvents()
        events = parser.feed(bytes(broken))
        assert events == AWS_EVENTS[: len(events)]
        assert len(events) < 3
        assert at < first or len(events) >= 1
    for headers in ({"x": (99, b"")}, {"x": (7, b"\0\x01\xff")}):
        parser = AwsEvents()
        assert parser.feed(aws_message(b"", **headers)) == []
        assert parser.broken


def test_an_aws_event_stream_is_bounded() -> None:
    small = AwsEvents(event_bytes_max=100)
    assert small.feed(aws_message(b"x" * 200)) == []
    assert small.overflow
    few = AwsEvents(events_max=2)
    assert len(few.feed(aws_message(b"x") * 5)) == 2
    assert few.overflow
    wide = AwsEvents()
    assert wide.feed(aws_message(b"", **{f"h{number}": "v" for number in range(1_000)})) == []
    assert wide.overflow


@settings(max_examples=150)
@given(st.binary(max_size=80))
def test_hostile_aws_bytes_never_raise(data: bytes) -> None:
    assert isinstance(aws_events(data)[0], list)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 7))
def test_known_headers_change_nothing_of_what_is_found(place: int, bit: int) -> None:
    """The second of two like messages, one bit of it turned, is found or refused as botocore alone does."""
    one = aws_message(b'{"a": 1}', **{":event-type": "chunk", ":message-type": "event"})
    broken = bytearray(one)
    broken[place % len(one)] ^= 1 << bit
    for second in (one, bytes(broken)):
        events, _overflow = aws_events(one + second)
        alone, _overflow = aws_events(second)
        assert events[1:] == alone
