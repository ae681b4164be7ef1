"""Bytes through the scanner, cut anywhere, and the events that come out, so that they can be compared."""

from __future__ import annotations

import itertools

from sidecar.wire.framing import DEFAULT_LIMITS, End, FramingError, Head, Limits, Role, Scanner

GET = b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhOsT:  example.org \r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b'5;name="v"\r\nhello\r\n00A\r\n0123\r\n6789\r\n0\r\nX-Trailer: t\r\n\r\n'
)
SMALL = Limits(head_bytes_max=120, fields_max=5, size_line_bytes_max=16, trailer_bytes_max=24, informational_max=3)


def scan(data: bytes, pieces: list[int] | None = None, **options) -> list[object]:
    """All events of a stream of requests (or responses: `method`), cut at the offsets in `pieces`."""
    return outline(events_of(data, pieces or [], **options))


def events_of(data, cuts, *, role=Role.REQUEST, methods=(b"GET",), upgrade=False, eof=False, limits=DEFAULT_LIMITS):
    scanner = Scanner(role, limits)
    waiting = list(methods)
    events: list[object] = []

    def go_on() -> None:
        while scanner.stopped and (role is Role.REQUEST or waiting):
            more = scanner.resume(waiting.pop(0) if role is Role.RESPONSE else b"", upgrade=upgrade)
            events.extend(more)
            if not more:
                break

    go_on()
    offsets = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(offsets):
        events.extend(scanner.feed(data[start:end]))
        go_on()
    if eof:
        events.extend(scanner.eof())
    return events


def outline(events) -> list[object]:
    """Events with neighbouring pieces of body joined and heads by their essence, so that they can be compared."""
    out: list[object] = []
    for event in events:
        if isinstance(event, bytes):
            if out and isinstance(out[-1], bytes):
                out[-1] += event
            else:
                out.append(event)
        elif isinstance(event, Head):
            out.append((event.raw, event.body, event.length, event.keep_alive, event.upgrade))
        elif isinstance(event, End):
            out.append("END")
        else:
            out.append((event.code, event.status))
    return [event for event in out if event != b""]


def head_of(data: bytes, **options) -> Head:
    head = events_of(data, [], **options)[0]
    assert isinstance(head, Head), head
    return head


def response_head(data: bytes, method: bytes = b"GET", *, upgrade: bool = False) -> Head:
    return head_of(data, role=Role.RESPONSE, methods=(method,), upgrade=upgrade)


def error_of(data: bytes, **options) -> tuple[str, int]:
    error = events_of(data, [], **options)[-1]
    assert isinstance(error, FramingError), error
    return error.code, error.status
