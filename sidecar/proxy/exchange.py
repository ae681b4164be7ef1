"""One request and its response on their way through: what is known of them, and the copy's end."""

from __future__ import annotations

from typing import Final

from sidecar.proxy.answers import error_answer
from sidecar.proxy.route import Copy, Route
from sidecar.wire.framing import Body, Event, Head
from sidecar.wire.records import EndFlag
from sidecar.wire.status import Slot

# Methods that may be sent twice (RFC 9110 section 9.2.2).
_IDEMPOTENT: Final = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
_REPLAY_BYTES_MAX: Final = 65_536
_BY_HUNDREDS: Final = (
    Slot.RESPONSES_1XX,
    Slot.RESPONSES_2XX,
    Slot.RESPONSES_3XX,
    Slot.RESPONSES_4XX,
    Slot.RESPONSES_5XX,
)


def gather(events: list[Event]) -> tuple[list[Head], bytes]:
    """The heads among the events, and all their bytes as they were received."""
    heads: list[Head] = []
    parts: list[bytes] = []
    for event in events:
        if isinstance(event, bytes):
            parts.append(event)
        elif isinstance(event, Head):
            heads.append(event)
            parts.append(event.raw)
    return heads, parts[0] if len(parts) == 1 else b"".join(parts)


class Exchange:
    """Begun with a request's head.

    `unsent` is what waits for a connection to the origin. `replay` is the request as sent so far while it could still
    be sent again on another connection, None once it may not.
    """

    __slots__ = (
        "_closed",
        "_route",
        "bytes_down",
        "bytes_up",
        "copy",
        "flags",
        "head",
        "keep_alive",
        "opaque",
        "replay",
        "request_done",
        "response_begun",
        "response_done",
        "unsent",
    )

    def __init__(self, route: Route, head: Head, *, local: bool) -> None:
        self._route = route
        self._closed = False
        self.head = head
        self.copy: Copy | None = None if local else route.copy(route.index)
        self.keep_alive = head.keep_alive
        self.opaque = head.body is Body.OPAQUE
        self.request_done = False
        self.response_begun = False
        self.response_done = False
        self.flags = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.unsent: list[bytes] = []
        self.replay: list[bytes] | None = None

    def count_begun(self) -> None:
        """Count the request, once it is on its way."""
        if self._route.counted:
            self._route.status.exchange_begun()

    def allow_replay(self) -> None:
        """The request goes to a connection that may just have ended: keep it, if its method lets it be sent again."""
        if self.head.method in _IDEMPOTENT and not self.head.upgrade:
            self.replay = []

    def sent_late(self, parts: list[bytes]) -> None:
        """These parts of the request waited for a connection, and a used one came free: keep them for a replay too."""
        if self.replay is not None:
            self.replay = parts if self.bytes_up <= _REPLAY_BYTES_MAX else None

    def up(self, data: bytes, *, head: Head | None) -> bytes:
        """Copy a chunk of the request (which may begin with its head); returns what to send to the origin."""
        if self.copy is not None:
            self.copy.request(data, len(head.raw) if head is not None else 0)
        self.bytes_up += len(data)
        authority = self._route.authority
        if head is not None and authority is not None and head.host_span is not None:
            start, end = head.host_span
            data = b"".join((data[:start], authority, data[end:]))
        if self.replay is not None:
            self.replay.append(data)
            if self.bytes_up > _REPLAY_BYTES_MAX:
                self.replay = None
        return data

    def down(self, data: bytes, head_bytes: int) -> None:
        """Copy a chunk of the response, which begins with heads of this size."""
        if self.copy is not None:
            self.copy.response(data, head_bytes)
        self.bytes_down += len(data)

    def down_whole(self, data: bytes, head: Head) -> None:
        """Copy a whole response; the copy ends with it, if the request is complete."""
        if self.copy is not None:
            if self.request_done:
                self.copy.last(data, len(head.raw), self.flags)
            else:
                self.copy.response(data, len(head.raw))
        self.bytes_down += len(data)

    def answer(self, status: int, code: str, reason: str) -> bytes:
        """The sidecar's own answer in the origin's place, copied and counted."""
        data = error_answer(status, code, reason, head_only=self.head.method == b"HEAD")
        self.responded(status)
        self.down(data, data.index(b"\r\n\r\n") + 4)
        return data

    def responded(self, status: int) -> None:
        """Count a response's head."""
        self.response_begun = True
        hundreds = status // 100
        if self._route.counted and hundreds <= 5:
            self._route.status.add(_BY_HUNDREDS[hundreds - 1])

    def end(self) -> None:
        """Commit the copy's end and count; more calls have no effect."""
        if self._closed:
            return
        self._closed = True
        flags = self.flags
        if self.opaque:
            flags |= EndFlag.OPAQUE.value
        if self.copy is not None:
            self.copy.end(flags)
        if not self._route.counted:
            return
        status = self._route.status
        status.exchange_over(self.bytes_up, self.bytes_down)
        if flags:  # plain numbers up to here: arithmetic with IntFlag costs a microsecond each time
            if EndFlag.ABORTED_BY_CLIENT in EndFlag(flags):
                status.add(Slot.ABORTED_BY_CLIENT)
            if EndFlag.ABORTED_BY_ORIGIN in EndFlag(flags):
                status.add(Slot.ABORTED_BY_ORIGIN)
