"""An exchange as the observer sees it: both messages parsed, their content codings undone, their JSON read once.

Nothing here raises on what the bytes hold. What cannot be read is absent, `reasons` says why, and what is left (a head
with an id in it, say) is still of use. Everything costly is done when it is first asked for and then kept.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sidecar.observer.codings import DECODED_BYTES_MAX, Decoded, undo_codings
from sidecar.observer.jsonbytes import Parsed, loads_or_none, parse, too_dense
from sidecar.observer.reader import RawExchange
from sidecar.wire.framing import FramingError
from sidecar.wire.message import Message, read_request, read_response
from sidecar.wire.records import EndFlag

ABORTED = EndFlag.ABORTED_BY_CLIENT | EndFlag.ABORTED_BY_ORIGIN
QUERY_FIELDS_MAX = 200
BEARER_BYTES_MAX = 16 << 10

_CUT_SHORT = ABORTED | EndFlag.BODY_CUT | EndFlag.DROPPED
_BOM = b"\xef\xbb\xbf"
_NO_BODY = Decoded(b"", complete=False)
_REASONED = ("request_body", "response_body", "_request_parsed", "_response_parsed")
_UNREAD = frozenset({"json_too_deep"})
_BROKEN = frozenset({"json_broken", "coding_broken"})


class Exchange:
    """One request and its response; made from a `RawExchange`, finished or not.

    `request` and `response` are None when there are no bytes of theirs that can be read; `response` also while its head
    is not whole. `listener` is the name of the route by which the request arrived.
    """

    def __init__(self, raw: RawExchange, *, listener: str = "", decoded_bytes_max: int = DECODED_BYTES_MAX) -> None:
        self.raw = raw
        self.listener = listener
        self._decoded_bytes_max = decoded_bytes_max
        self._unreadable: list[str] = []
        self.request = self._read_request()
        self.response = self._read_response()

    @property
    def reasons(self) -> tuple[str, ...]:
        """What could not be read, so far: `request_unreadable`, `response_unreadable`, those of `Decoded` and `Parsed`.

        That a body is no JSON is no reason, unless its Content-Type says that it is.
        """
        found = [self.__dict__[name].reason for name in _REASONED if name in self.__dict__]
        return (*self._unreadable, *(reason for reason in found if reason))

    @property
    def aborted(self) -> bool:
        """Whether one of the two sides went away before the end."""
        return bool(self.raw.flags & ABORTED)

    @property
    def opaque(self) -> bool:
        """Whether what passed was another protocol (after 101), or a body is in a coding that is not undone here."""
        opaque = self.request_body.opaque or self.response_body.opaque
        return opaque or bool(self.raw.flags & EndFlag.OPAQUE)

    @property
    def copied(self) -> bool:
        """Whether no part of the copy was dropped for want of room in the queue."""
        return not self.raw.flags & EndFlag.DROPPED

    @property
    def whole(self) -> bool:
        """Whether both bodies are here to be read: not dropped, not cut at the capture limit, not past a bound.

        What is broken counts only where the origin took it, or gave it, as good: then the origin read more in it.
        Matters only when their content matters: to an API that is understood.
        """
        bounded = any(
            body.opaque and body.reason != "coding_unknown" for body in (self.request_body, self.response_body)
        )
        unread = _UNREAD | _BROKEN if self.succeeded else _UNREAD
        return self.copied and not bounded and not self.raw.flags & EndFlag.BODY_CUT and unread.isdisjoint(self.reasons)

    @property
    def method(self) -> str:
        """The request's method; empty without a request."""
        return self.request.method if self.request else ""

    @property
    def status(self) -> int:
        """The final response's status; 0 without one."""
        return self.response.status if self.response else 0

    @property
    def succeeded(self) -> bool:
        """Whether the response's status is 2xx."""
        return 200 <= self.status < 300

    @cached_property
    def path(self) -> str:
        """The target's path as sent, without query; of any form of target (RFC 9112 section 3.2)."""
        return self._target[0]

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, percent-decoded."""
        return tuple(unquote(segment) for segment in self.path.split("/")[1:])

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The first value of each query parameter, decoded."""
        try:
            pairs = parse_qsl(self._target[1], keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            return {}
        return dict(reversed(pairs))

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The first value of each of the request's fields, by lower-case name."""
        return _first_values(self.request)

    @cached_property
    def response_headers(self) -> Mapping[str, str]:
        """As `headers`, of the response."""
        return _first_values(self.response)

    @cached_property
    def request_body(self) -> Decoded:
        """The request's body with its content codings undone."""
        return self._decoded(self.request, self.headers)

    @cached_property
    def response_body(self) -> Decoded:
        """As `request_body`, of the response."""
        return self._decoded(self.response, self.response_headers)

    @cached_property
    def request_json(self) -> Any:
        """The request's body as JSON; None when it is not JSON or not whole."""
        return self._request_parsed.value

    @cached_property
    def response_json(self) -> Any:
        """As `request_json`, of the response."""
        return self._response_parsed.value

    @cached_property
    def _request_parsed(self) -> Parsed:
        return _parsed(self.request_body, self.headers)

    @cached_property
    def _response_parsed(self) -> Parsed:
        return _parsed(self.response_body, self.response_headers)

    @cached_property
    def claims(self) -> Mapping[str, Any]:
        """The claims of a bearer token that is a JWT (RFC 7519), its signature not checked; empty otherwise."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        parts = token.strip().split(".")
        if scheme.lower() != "bearer" or len(parts) != 3 or len(token) > BEARER_BYTES_MAX:
            return {}
        try:
            payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        except (binascii.Error, ValueError):
            return {}
        claims = loads_or_none(payload)
        return claims if isinstance(claims, dict) else {}

    @cached_property
    def _target(self) -> tuple[str, str]:
        target = self.request.target if self.request else ""
        if not target.startswith("/"):
            try:
                parts = urlsplit(target)
            except ValueError:
                return "", ""
            return parts.path, parts.query
        path, _, query = target.partition("?")
        return path, query

    def _read_request(self) -> Message | None:
        try:
            message = read_request(self.raw.request)
        except FramingError:
            self._unreadable.append("request_unreadable")
            return None
        return message if message.start_line else None

    def _read_response(self) -> Message | None:
        # A body that its origin ends by closing is whole only when nothing else ended it.
        eof = self.raw.finished and not self.raw.flags & _CUT_SHORT
        try:
            return read_response(self.raw.response, method=self.method or "GET", eof=eof)
        except FramingError:
            self._unreadable.append("response_unreadable")
            return None

    def _decoded(self, message: Message | None, headers: Mapping[str, str]) -> Decoded:
        if message is None:
            return _NO_BODY
        decoded = undo_codings(message.body, headers.get("content-encoding"), decoded_bytes_max=self._decoded_bytes_max)
        if too_dense(decoded.body):
            return Decoded(b"", complete=False, reason="too_many_values")
        return Decoded(decoded.body, decoded.complete and message.complete, decoded.reason)


def _first_values(message: Message | None) -> dict[str, str]:
    if message is None:
        return {}
    return {name.lower(): _text(value) for name, value in reversed(message.fields)}


def _text(value: str) -> str:
    """A field's value, sent as UTF-8 by many and decoded as latin-1 by the framing."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _parsed(body: Decoded, headers: Mapping[str, str]) -> Parsed:
    if not body.complete or not body.body:
        return Parsed()
    parsed = parse(body.body.removeprefix(_BOM))
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if parsed.reason == "json_broken" and not media_type.endswith(("/json", "+json")):
        return Parsed()
    return parsed
