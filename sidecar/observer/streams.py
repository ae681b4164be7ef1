"""Streams of events put together from bytes: server-sent events, lines of JSON, one growing JSON array, and the AWS
event stream. No input or output.

The parsers take bytes in any pieces and give the events that are whole so far, so a stream that was cut short gives
all that came before the cut. Lines, events and their number are bounded; a stream that passes a bound gives nothing
more and says so in `overflow`.
"""

from __future__ import annotations

import functools
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sidecar.observer.jsonbytes import loads_or_none

EVENT_BYTES_MAX = 8 << 20
LINES_MAX = 500_000

_BOM = b"\xef\xbb\xbf"
# A string, closed or cut short, or a bracket: whatever is between them does not change the nesting.
_JSON_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[\[\]{}]', re.DOTALL)
_AWS_PRELUDE = struct.Struct(">II")
_AWS_FRAMING_BYTES = 16  # prelude of 12, and the checksum of 4 at the end
_AWS_PRELUDE_BYTES = 12
_AWS_HEADERS_BYTES_MAX = 4 << 10
_AWS_KNOWN_HEADERS_MAX = 32
_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(NamedTuple):
    """One dispatched event: its type (`message` unless named), its data lines joined by LF, the last id."""

    event: str
    data: bytes
    id: str = ""

    def json(self) -> Any:
        """The data as JSON; None when it is not."""
        return loads_or_none(self.data)


class ServerEvents:
    """Parser of `text/event-stream`: WHATWG HTML section 9.2.6, "Interpreting an event stream".

    An event not ended by an empty line is never given, as the standard has it.
    """

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX, lines_max: int = LINES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._lines_left = lines_max
        self._rest = b""
        self._started = False
        self._skip_lf = False
        self._event = ""
        self._id = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self.overflow = False

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that became whole with these bytes."""
        events: list[ServerEvent] = []
        if self.overflow:
            return events
        for line in self._lines(chunk):
            if line.startswith(b"data: "):  # nearly every line that is not empty
                self._data_bytes += len(line)
                self._data.append(line[6:])
            elif line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
            if self._data_bytes > self._event_bytes_max:
                self.overflow = True
                break
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Whole lines without their ends. A CR ends its line at once; an LF right after it belongs to it."""
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        buffer = self._rest + chunk
        if not self._started:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._rest = buffer
                return []
            buffer = buffer.removeprefix(_BOM)
            self._started = True
        if buffer.endswith(b"\r"):
            self._skip_lf = True
        # One more than what is left: the split stops early in a body of nothing but line ends.
        *lines, self._rest = _LINE_END.split(buffer, self._lines_left + 1)
        self._lines_left -= len(lines)
        if self._lines_left < 0 or len(self._rest) > self._event_bytes_max:
            self._rest = b""
            self.overflow = True
            return lines[: self._lines_left] if self._lines_left < 0 else lines
        return lines

    def _field(self, line: bytes) -> None:
        name, _colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value) + 1
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")

    def _dispatch(self) -> ServerEvent | None:
        data, event = self._data, self._event
        self._event = ""
        if not data:
            return None
        self._data, self._data_bytes = [], 0
        return ServerEvent(event or "message", data[0] if len(data) == 1 else b"\n".join(data), self._id)


class JsonLines:
    """Parser of newline-delimited JSON: one value a line; lines that are empty or not JSON are passed over."""

    def __init__(self, *, line_bytes_max: int = EVENT_BYTES_MAX, lines_max: int = LINES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._lines_left = lines_max
        self._rest = b""
        self.overflow = False
        self.invalid = 0

    def feed(self, chunk: bytes) -> list[Any]:
        """The values of the lines that became whole with these bytes."""
        if self.overflow:
            return []
        *lines, self._rest = (self._rest + chunk).split(b"\n", self._lines_left + 1)
        self._lines_left -= len(lines)
        if self._lines_left < 0:
            del lines[self._lines_left :]
        values = [value for line in lines if (value := self._value(line)) is not None]
        if self._lines_left < 0 or len(self._rest) > self._line_bytes_max:
            self._rest = b""
            self.overflow = True
        return values

    def end(self) -> list[Any]:
        """The value of a last line without a line end, if it is whole."""
        rest, self._rest = self._rest, b""
        value = self._value(rest)
        return [] if value is None else [value]

    def _value(self, line: bytes) -> Any:
        line = line.strip()
        if not line or self.overflow:
            return None
        if len(line) > self._line_bytes_max:
            self.overflow = True
            return None
        value = loads_or_none(line)
        if value is None:
            self.invalid += 1
        return value


def server_events(body: bytes) -> tuple[list[ServerEvent], bool]:
    """The events of a whole (or cut) body, and whether a bound was passed."""
    parser = ServerEvents()
    return parser.feed(body), parser.overflow


class JsonArray:
    """Parser of one JSON array that grows as the answer does: each object of it as soon as it is closed.

    Values that are no objects are passed over. What comes before the array's bracket, and after its end, is ignored.
    """

    def __init__(self, *, value_bytes_max: int = EVENT_BYTES_MAX, values_max: int = LINES_MAX) -> None:
        self._value_bytes_max = value_bytes_max
        self._values_left = values_max
        self._rest = b""
        self._at = 0  # up to where `_rest` was looked at
        self._start: int | None = None  # where in `_rest` an object of the array begins
        self._depth = 0
        self.ended = False
        self.overflow = False

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The objects that became whole with these bytes."""
        values: list[dict[str, Any]] = []
        if self.overflow or self.ended:
            return values
        data = self._rest + chunk
        at = self._at
        for mark in _JSON_MARK.finditer(data, self._at):
            if mark[1] == b"":
                at = mark.start()  # a string that is cut short: from its beginning again, once there is more
                break
            at = mark.end()
            if mark[1] is None and (raw := self._object(data, mark)):
                self._take(raw, values)
            if self.ended or self._values_left < 0:
                break
        kept = at if self._start is None else self._start
        self._start = None if self._start is None else 0
        self._rest, self._at = data[kept:], at - kept
        if self._values_left < 0 or len(self._rest) > self._value_bytes_max:
            self._rest = b""
            self.overflow = True
        return values

    def _object(self, data: bytes, bracket: re.Match[bytes]) -> bytes:
        """The bytes of the object that this bracket closes, if it closes one of the array's own."""
        opening = bracket[0] in (b"[", b"{")
        self._depth += 1 if opening else -1
        if self._depth == 2 and bracket[0] == b"{":
            self._start = bracket.start()
        self.ended = self._depth <= 0
        if self._depth != 1 or self._start is None:
            return b""
        start, self._start = self._start, None
        return data[start : bracket.end()]

    def _take(self, raw: bytes, values: list[dict[str, Any]]) -> None:
        self._values_left -= 1
        value = loads_or_none(raw)
        if isinstance(value, dict) and self._values_left >= 0:
            values.append(value)


class AwsEvent(NamedTuple):
    """One message of an AWS event stream. `headers` are those of type string; `:event-type` names the event."""

    headers: Mapping[str, str] = MappingProxyType({})
    payload: bytes = b""

    @property
    def kind(self) -> str:
        """The event's type, or that of the exception that it is."""
        return self.headers.get(":event-type") or self.headers.get(":exception-type") or ""

    @property
    def failed(self) -> bool:
        """Whether it is an exception, or an error, of the service."""
        return self.headers.get(":message-type") in ("exception", "error")

    def json(self) -> Any:
        """The payload as JSON; None when it is not."""
        return loads_or_none(self.payload)


class AwsEvents:
    """Parser of `application/vnd.amazon.eventstream` (Smithy specification, "Amazon Event Stream").

    botocore's buffer decodes each message and checks its two checksums; a message that is broken ends the stream. The
    messages of a stream have the same few headers over and over: of one whose headers were decoded before, only the
    checksums are checked.
    """

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX, events_max: int = LINES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._events_left = events_max
        self._rest = b""
        self._known_headers: dict[bytes, Mapping[str, str]] = {}
        self.overflow = False
        self.broken = False

    def feed(self, chunk: bytes) -> list[AwsEvent]:
        """The events that became whole with these bytes."""
        events: list[AwsEvent] = []
        data, at = self._rest + chunk, 0
        while not self.overflow and not self.broken and len(data) - at >= _AWS_FRAMING_BYTES:
            total, headers = _AWS_PRELUDE.unpack_from(data, at)
            if total > self._event_bytes_max or headers > _AWS_HEADERS_BYTES_MAX or self._events_left == 0:
                self.overflow = True
            elif total < _AWS_FRAMING_BYTES + headers:
                self.broken = True
            elif len(data) - at < total:
                break
            elif (event := self._event(data[at : at + total], headers)) is None:
                self.broken = True
            else:
                events.append(event)
                self._events_left -= 1
                at += total
        self._rest = b"" if self.overflow or self.broken else data[at:]
        return events

    def _event(self, message: bytes, headers_bytes: int) -> AwsEvent | None:
        """One whole message; None when a checksum or a header is wrong."""
        headers_end = _AWS_PRELUDE_BYTES + headers_bytes
        raw = message[_AWS_PRELUDE_BYTES:headers_end]
        known = self._known_headers.get(raw)
        if known is not None:
            prelude, check = zlib.crc32(message[:8]), zlib.crc32(message[:-4])
            if message[8:12] != prelude.to_bytes(4, "big") or message[-4:] != check.to_bytes(4, "big"):
                return None
            return AwsEvent(known, message[headers_end:-4])
        event = _aws_event(message)
        if event is not None and len(self._known_headers) < _AWS_KNOWN_HEADERS_MAX:
            self._known_headers[raw] = event.headers
        return event


def _aws_event(message: bytes) -> AwsEvent | None:
    """One whole message; None when a checksum or a header is wrong."""
    make_buffer, parser_error = _aws_buffer()
    buffer = make_buffer()
    buffer.add_data(message)
    try:
        decoded = buffer.next()
    except (parser_error, KeyError, ValueError, struct.error):
        return None
    return AwsEvent({name: value for name, value in decoded.headers.items() if isinstance(value, str)}, decoded.payload)


@functools.cache
def _aws_buffer() -> tuple[Callable[[], Any], type[Exception]]:
    """Load botocore with the first such stream: most deployments never see one."""
    from botocore.eventstream import EventStreamBuffer, ParserError  # noqa: PLC0415 -- see above

    return EventStreamBuffer, ParserError


def aws_events(body: bytes) -> tuple[list[AwsEvent], bool]:
    """The events of a whole (or cut) body, and whether a bound was passed."""
    parser = AwsEvents()
    return parser.feed(body), parser.overflow


def json_objects(body: bytes) -> tuple[list[dict[str, Any]], bool, bool]:
    """The objects of a whole (or cut) JSON array, whether its end was seen, and whether a bound was passed."""
    parser = JsonArray()
    return parser.feed(body), parser.ended, parser.overflow


def json_lines(body: bytes) -> tuple[list[Any], bool]:
    """The values of a whole (or cut) body of JSON lines, and whether a bound was passed."""
    parser = JsonLines()
    return parser.feed(body) + parser.end(), parser.overflow
