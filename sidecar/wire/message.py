"""One whole message read out of copied bytes, on the same scanner that framed it in the proxy.

So the proxy and the observer never disagree on where a message ends. What was copied may be cut short (a client that
went away, a body past the capture limit): `complete` says so, and what is there is still given.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.wire.chunks import SIZE_LINE, TRAILER_LINE
from sidecar.wire.framing import END, Body, End, Event, FramingError, Head, Limits, Role, Scanner
from sidecar.wire.head import CRLF

Fields = list[tuple[str, str]]

# What the proxy let pass by its own limits, which may be set, is read here whatever they were.
_LIMITS = Limits(head_bytes_max=1 << 21, fields_max=1 << 20)


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response.

    `start_line` is without its CRLF. `fields` and `trailers` are as sent, in order, decoded as latin-1, whitespace
    around values removed. `body` has the chunked coding undone (a Content-Encoding, or a coding before chunked, is
    left on). `complete` is False when the bytes end within the message.
    """

    start_line: bytes
    fields: Fields
    body: bytes
    trailers: Fields
    complete: bool

    @property
    def method(self) -> str:
        """Of a request; empty when not even the head was there."""
        return self.start_line.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """The request target as sent: origin-form with its query, mostly."""
        parts = self.start_line.split(b" ")
        return parts[1].decode("latin-1") if len(parts) > 1 else ""

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start_line[9:12] or b"0")

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of the field `name`, whatever its case."""
        wanted = name.lower()
        return next((value for key, value in self.fields if key.lower() == wanted), default)


def read_request(data: bytes) -> Message:
    """The request that `data` begins with, incomplete when it ends early; raises FramingError on anything else."""
    return _read(Scanner(Role.REQUEST, _LIMITS), data, eof=False) or Message(b"", [], b"", [], complete=False)


def read_response(data: bytes, *, method: str, eof: bool) -> Message | None:
    """The final response to a request with `method` that `data` holds, any 1xx skipped.

    None when its head is not whole. `eof` says that the origin closed the connection behind `data`, which completes a
    body delimited by close. Raises FramingError when the bytes are not HTTP/1.1.
    """
    scanner = Scanner(Role.RESPONSE, _LIMITS)
    scanner.resume(method.encode("latin-1"), upgrade=True)
    return _read(scanner, data, eof=eof)


def _read(scanner: Scanner, data: bytes, *, eof: bool) -> Message | None:
    events = scanner.feed(data)
    if eof and not isinstance(events[-1] if events else None, End | FramingError):
        events += [event for event in scanner.eof() if event is END]  # cut short: `complete` says so
    return _message(events)


def _message(events: list[Event]) -> Message | None:
    head: Head | None = None
    body: list[bytes] = []
    for event in events:
        if isinstance(event, FramingError):
            raise event
        if isinstance(event, Head):
            head = event
        elif isinstance(event, bytes):
            body.append(event)
    if head is None or (head.informational and head.body is not Body.OPAQUE):
        return None
    complete = events[-1] is END or head.body is Body.OPAQUE
    raw = b"".join(body)
    trailers: Fields = []
    if head.body is Body.CHUNKED:
        raw, trailers = _undo_chunks(raw)
    elif head.body is Body.OPAQUE:
        raw = b""  # what follows belongs to another protocol
    start_line, *lines = head.raw.lstrip(CRLF).removesuffix(CRLF + CRLF).split(CRLF)
    return Message(start_line, [_field(line) for line in lines], raw, trailers, complete)


def _field(line: bytes) -> tuple[str, str]:
    name, _, value = line.partition(b":")
    return name.decode("latin-1"), value.strip(b" \t").decode("latin-1")


def _undo_chunks(raw: bytes) -> tuple[bytes, Fields]:
    """The content and the trailers of a chunked body that the scanner found legal, be it cut short."""
    content: list[bytes] = []
    trailers: Fields = []
    at = 0
    while (size_line := SIZE_LINE.match(raw, at)) is not None:
        size, at = int(size_line[1], 16), size_line.end()
        if size:
            content.append(raw[at : at + size])
            at += size + len(CRLF)
            continue
        while (line := TRAILER_LINE.match(raw, at)) is not None and line[1] is not None:
            trailers.append(_field(line[0].removesuffix(CRLF)))
            at = line.end()
        break
    return b"".join(content), trailers
