"""Where HTTP/1.1 messages start and end in one direction of a connection (RFC 9112).

Theory of operation. A `Scanner` is fed the bytes of one direction as they arrive and gives back events: a `Head`,
pieces of body as `bytes`, and `END`. It changes nothing and copies next to nothing: a received `bytes` object that
lies within one message's body comes back as that same object, transfer coding and trailers included, so that it can be
written on untouched. Bodies with a Content-Length are counted; of chunked ones only the size lines, the CRLF after
each chunk, and the trailers are looked at.

A head is held until it is whole (at most `Limits.head_bytes_max`) and then judged (`head`), by llhttp too. Only whole
heads go to llhttp and each gets a fresh parser, since llhttp tells no offsets, takes what follows a response to HEAD
for its body, and stops at `Upgrade` before the body of a request.

A scanner stops behind each message; bytes of the next one wait in it until `resume` is called. So pipelined requests
take their turn, and the caller says of each response which request it answers.

The verdict does not depend on how the bytes were split into pieces: every check is made at a byte's position in the
stream, never at the end of a piece. A `FramingError` is the last event of a scanner; it is an event and not an
exception, because what came before it in the same piece is still to be dealt with.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from sidecar.wire.chunks import BadChunkError, ChunkScanner
from sidecar.wire.head import (
    CRLF,
    HEAD_END,
    Body,
    FramingError,
    Head,
    Limits,
    check_begun,
    check_start_line,
    judge_preface,
    judge_request,
    judge_response,
    skip_empty_lines,
    too_large,
)

__all__ = ["DEFAULT_LIMITS", "END", "Body", "End", "Event", "FramingError", "Head", "Limits", "Role", "Scanner"]

DEFAULT_LIMITS: Final = Limits()


class Role(Enum):
    """Which direction a scanner reads."""

    REQUEST = "request"
    RESPONSE = "response"


class End:
    """The event behind a message's last byte; the only instance is `END`."""

    __slots__ = ()


END: Final = End()


Event = Head | bytes | End | FramingError


class _State(IntEnum):
    HEAD = 0
    COUNTED = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3
    OPAQUE = 4
    STOPPED = 5  # behind a message, until resume()
    FAILED = 6


class Scanner:
    """Finds the messages in one direction of one connection.

    Requests are scanned from the start; a response only after `resume(method)` has said what it answers.
    """

    __slots__ = (
        "_checked",
        "_chunks",
        "_first",
        "_held",
        "_informational",
        "_judged",
        "_left",
        "_limits",
        "_line_checked",
        "_method",
        "_request",
        "_state",
        "_upgrade",
    )

    def __init__(self, role: Role, limits: Limits = DEFAULT_LIMITS) -> None:
        self._request = role is Role.REQUEST
        self._limits = limits
        self._state = _State.HEAD if self._request else _State.STOPPED
        self._held = bytearray()  # a head that is not whole yet, or what came behind a message
        self._checked = 0  # how much of the held head is known to be legal
        self._line_checked = False  # and whether its start line is
        self._first = True  # only a connection's first head can be the HTTP/2 preface
        self._judged: Head | None = None  # the last request's
        self._left = 0  # of a counted body
        self._chunks: ChunkScanner | None = None
        self._informational = 0
        self._method = b""
        self._upgrade = False

    @property
    def pending(self) -> int:
        """How many bytes are held back: a head that is not whole yet, or what waits behind a message."""
        return len(self._held)

    @property
    def begun(self) -> bool:
        """More than empty lines has arrived of a head that is not whole yet."""
        return bool(self._held.strip(CRLF))

    @property
    def stopped(self) -> bool:
        """Behind a message: what arrives waits for `resume`."""
        return self._state is _State.STOPPED

    @property
    def fresh(self) -> bool:
        """No head was whole yet on this connection."""
        return self._first

    def resume(self, method: bytes = b"", *, upgrade: bool = False) -> list[Event]:
        """Go on with the next message; returns the events of the bytes that waited.

        For responses, `method` is the request's and `upgrade` says that it asked for one (else a 101 is an error).
        """
        if self._state is not _State.STOPPED:
            raise RuntimeError("resume() belongs behind a message")
        self._state = _State.HEAD
        self._informational = 0
        self._method = method
        self._upgrade = upgrade
        if not self._held:
            return []
        waiting = bytes(self._held)
        self._held.clear()
        return self.feed(waiting)

    def feed(self, data: bytes) -> list[Event]:
        """The events of the bytes just received, up to the end of the current message."""
        found = self.scan(data)
        if not isinstance(found, Head):
            return found
        body = data[len(found.raw) :]
        return [found, body, END] if body else [found, END]

    def scan(self, data: bytes) -> Head | list[Event]:
        """Like `feed`, but of bytes that are one whole message and nothing else, only the head is given.

        That is how most messages arrive, and who wants to pass `data` on needs no pieces of it.
        """
        state = self._state
        if state is _State.HEAD:
            return self._head(data)
        if state is _State.COUNTED:
            if len(data) < self._left:
                self._left -= len(data)
                return [data]
            return self._counted(data, 0, [])
        if state is _State.UNTIL_CLOSE or state is _State.OPAQUE:
            return [data]
        if state is _State.STOPPED:
            self._held += data
            return []
        if state is _State.CHUNKED:
            return self._chunked(data, 0, [])
        return []

    def take_waiting(self) -> bytes:
        """What waits behind a message, for when it turns out to belong to another protocol."""
        waiting = bytes(self._held)
        self._held.clear()
        return waiting

    def eof(self) -> list[Event]:
        """The peer sends no more: the end of a message that close delimits, nothing between messages, else an error."""
        state = self._state
        if state is _State.UNTIL_CLOSE:
            self._state = _State.STOPPED
            return [END]
        between = state is _State.HEAD and not self.begun and self._request
        if state in (_State.STOPPED, _State.FAILED, _State.OPAQUE) or between:
            return []
        return self._fail(FramingError("cut-short", "the connection ended within a message"), [])

    # Heads

    def _head(self, data: bytes) -> Head | list[Event]:
        held = self._held
        if held:
            return self._rest_of_head(data)
        start = skip_empty_lines(data) if self._request and data.startswith(CRLF) else 0
        end = data.find(HEAD_END, start) + 4
        if not 4 <= end <= self._limits.head_bytes_max:
            held += data
            return self._unfinished_head()
        try:
            head = self._judge(data[:end], start)
        except FramingError as error:
            return self._fail(error, [])
        size = len(data)
        body = head.body
        if (body is Body.COUNTED and end + head.length == size) or (
            body is Body.NONE and end == size and not 100 <= head.status < 200
        ):
            self._state = _State.STOPPED
            return head
        return self._begin_body(head, data, end)

    def _rest_of_head(self, data: bytes) -> list[Event]:
        """More of a head of which a part is held."""
        held = self._held
        held += data
        if held.find(HEAD_END, max(0, len(held) - len(data) - 3)) < 0:
            return self._unfinished_head()
        data = bytes(held)
        start = skip_empty_lines(data) if self._request else 0
        end = data.find(HEAD_END, start) + 4
        if not 4 <= end <= self._limits.head_bytes_max:
            return self._unfinished_head()
        held.clear()
        self._checked = 0
        self._line_checked = False
        try:
            head = self._judge(data[:end], start)
        except FramingError as error:
            return self._fail(error, [])
        return self._begin_body(head, data, end)

    def _judge(self, raw: bytes, start: int) -> Head:
        if not self._request:
            return judge_response(raw, self._method, self._limits, upgrade=self._upgrade)
        judged = self._judged
        if judged is not None:
            head = judged.restated(raw)
            if head is not None:
                return head
        head = self._judged = (judge_preface(raw) if self._first else None) or judge_request(raw, start, self._limits)
        self._first = False
        return head

    def _unfinished_head(self) -> list[Event]:
        """Judge the beginning of a head, looking at each byte once: what is wrong already stays wrong."""
        held, limit = self._held, self._limits.head_bytes_max
        begun = bytes(held[max(0, self._checked - 1) : limit])  # from one back: a CR may have waited for its LF
        self._checked = min(len(held), limit)
        preface = self._request and self._first
        try:
            check_begun(begun.removeprefix(b"\n"))
            if not self._line_checked:
                request, limits = self._request, self._limits
                self._line_checked = check_start_line(held, request=request, preface=preface, limits=limits)
        except FramingError as error:
            return self._fail(error, [])
        return self._fail(too_large(self._limits), []) if len(held) >= limit else []

    # Bodies

    def _begin_body(self, head: Head, data: bytes, at: int) -> list[Event]:
        events: list[Event] = [head]
        more = at < len(data)
        body = head.body
        if body is Body.COUNTED:
            self._state = _State.COUNTED
            self._left = head.length
            return self._counted(data, at, events) if more else events
        if body is Body.NONE:
            if not head.informational:
                return self._stop(data, at, events)
            self._informational += 1  # the state stays HEAD: the answer itself is still to come
            if self._informational > self._limits.informational_max:
                return self._fail(FramingError("bad-head", "there are too many 1xx answers"), [])
            return events + self.feed(data[at:]) if more else events
        if body is Body.CHUNKED:
            self._state = _State.CHUNKED
            self._chunks = ChunkScanner(self._limits)
            return self._chunked(data, at, events) if more else events
        self._state = _State.UNTIL_CLOSE if body is Body.UNTIL_CLOSE else _State.OPAQUE
        if more:
            events.append(data[at:])
        return events

    def _counted(self, data: bytes, at: int, events: list[Event]) -> list[Event]:
        end = at + self._left
        if end > len(data):
            self._left = end - len(data)
            events.append(data[at:])
            return events
        self._left = 0
        events.append(_part(data, at, end))
        return self._stop(data, end, events)

    def _chunked(self, data: bytes, begin: int, events: list[Event]) -> list[Event]:
        chunks = self._chunks
        if chunks is None:
            raise RuntimeError("a chunked body has a scanner")
        try:
            end = chunks.scan(data, begin)
        except BadChunkError as bad:
            if bad.at > begin:
                events.append(data[begin : bad.at])
            return self._fail(FramingError("bad-body", bad.reason), events)
        events.append(_part(data, begin, end))
        return self._stop(data, end, events) if chunks.done else events

    def _stop(self, data: bytes, at: int, events: list[Event]) -> list[Event]:
        self._state = _State.STOPPED
        if at < len(data):
            self._held += data[at:]
        events.append(END)
        return events

    def _fail(self, error: FramingError, events: list[Event]) -> list[Event]:
        self._state = _State.FAILED
        self._held.clear()
        events.append(error)
        return events


def _part(data: bytes, begin: int, end: int) -> bytes:
    """The same object when it is all of it: compiled code copies where the interpreter would not."""
    return data if begin == 0 and end == len(data) else data[begin:end]
