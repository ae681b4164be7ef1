"""What a message's head says about framing: which body follows, and whether the connection may go on (RFC 9112).

A whole head is judged twice: by llhttp (httptools, strict; a fresh parser for each, see `framing`) and by the rules
here. The beginning of a head that is not whole yet is judged as far as it goes, so that garbage is refused early.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, final

import httptools

CRLF: Final = b"\r\n"
HEAD_END: Final = b"\r\n\r\n"
_H2_PREFACE_HEAD: Final = b"PRI * HTTP/2.0\r\n\r\n"
_H2_PREFACE_LINE: Final = b"PRI * HTTP/2.0\r\n"

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]"
_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb"+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: " + TEXT + rb"*)?\r\n")
# The fields that framing, persistence and routing hang on; everything else in a head is passed over.
_LENGTH: Final = b"\r\ncontent-length:"
_CODING: Final = b"\r\ntransfer-encoding:"
_CONNECTION: Final = b"\r\nconnection:"
_UPGRADE: Final = b"\r\nupgrade:"
_HOST: Final = b"\r\nhost:"
_LEGAL: Final = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
_EMPTY_LINES_BYTES_MAX: Final = 16  # before a request line; looked at with each piece of the head
_CODINGS: Final = frozenset([b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"identity"])


class Body(IntEnum):
    """How a message's body is delimited (RFC 9112 section 6.3)."""

    NONE = 0
    COUNTED = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3
    OPAQUE = 4  # after 101, after a 2xx to CONNECT, or HTTP/2 by prior knowledge: no longer HTTP/1.1


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a peer may make us hold or scan, in bytes and fields."""

    head_bytes_max: int = 65_536
    fields_max: int = 200
    size_line_bytes_max: int = 4_096  # a chunk's size with its extensions
    trailer_bytes_max: int = 16_384
    informational_max: int = 64  # 1xx answers before the answer itself


class FramingError(Exception):
    """The peer's bytes are not HTTP/1.1 as RFC 9112 wants it; `status` is what a server answers to such a request."""

    def __init__(self, code: str, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.status = status


@final
class Head:
    """A whole head; never changed once it is judged.

    `raw` is as received, the empty lines before a request line and the final CRLF CRLF included. `method` and `target`
    belong to requests, `status` to responses (0 else). `host_span` is where in `raw` the value of the Host field
    stands, `length_span` the digits of Content-Length. `length` counts the body when `body` is COUNTED. `keep_alive`
    says that this side is willing to use the connection again; `upgrade` that both Upgrade and Connection: upgrade are
    there.
    """

    __slots__ = (
        "body",
        "host_span",
        "keep_alive",
        "length",
        "length_span",
        "method",
        "raw",
        "status",
        "target",
        "upgrade",
    )

    def __init__(self, raw: bytes, method: bytes = b"", target: bytes = b"", status: int = 0) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.status = status
        self.body = Body.NONE
        self.length = 0
        self.keep_alive = True
        self.upgrade = False
        self.host_span: tuple[int, int] | None = None
        self.length_span: tuple[int, int] | None = None

    @property
    def informational(self) -> bool:
        """A 1xx answer: another head for the same request follows (101 apart)."""
        return 100 <= self.status < 200

    def restated(self, raw: bytes) -> Head | None:
        """The head of `raw`, if it is this one but for the digits of Content-Length; None when it must be judged.

        A client says much the same on a connection again and again; what llhttp has judged it need not judge twice.
        """
        mine = self.raw
        if raw == mine:
            return self
        span = self.length_span
        if span is None or self.body is not Body.COUNTED or len(raw) != len(mine):
            return None
        start, end = span
        digits = raw[start:end]
        if not digits.isdigit() or raw[:start] != mine[:start] or raw[end:] != mine[end:]:
            return None
        length = _content_length(digits)
        if not length:
            return None  # no body is framed otherwise
        head = Head(raw, self.method, self.target)
        head.body = Body.COUNTED
        head.length = length
        head.keep_alive = self.keep_alive
        head.upgrade = self.upgrade
        head.host_span = self.host_span
        head.length_span = span
        return head


class _NoCallbacks:
    """What httptools calls back on: nothing, so that validating a head stays within C."""


_NO_CALLBACKS: Final = _NoCallbacks()


def judge_request(raw: bytes, start: int, limits: Limits) -> Head:
    """The head of a request whose line begins at `start`; raises FramingError."""
    line = _REQUEST_LINE.match(raw, start)
    if line is None:
        raise _bad_start_line(_REQUEST_LINE)
    _ask_llhttp(httptools.HttpRequestParser(_NO_CALLBACKS), raw, start, limits)
    head = Head(raw, line[1], line[2])
    length, codings = _read_fields(head, line.end() - 2, http_1_0=line[3] == b"0")
    if codings:
        if not _ends_chunked(codings):
            raise FramingError("bad-head", "the last transfer coding of a request is not chunked")
        head.body = Body.CHUNKED
    elif length:
        head.body = Body.COUNTED
        head.length = length
    return head


def judge_response(raw: bytes, method: bytes, limits: Limits, *, upgrade: bool) -> Head:
    """The head of a response to a request with `method`, which asked for an upgrade or not; raises FramingError."""
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise _bad_start_line(_STATUS_LINE)
    _ask_llhttp(httptools.HttpResponseParser(_NO_CALLBACKS), raw, 0, limits)
    head = Head(raw, status=int(line[2]))
    length, codings = _read_fields(head, line.end() - 2, http_1_0=line[1] == b"0")
    # HTTP/1.0 knows no Transfer-Encoding: who sends one there may mean it or not, so the message is what comes until
    # the connection closes, and nothing comes behind it (RFC 9112 section 6.1).
    chunked = bool(codings) and line[1] == b"1" and _ends_chunked(codings)
    status = head.status
    if status == 101:
        if not upgrade:
            raise FramingError("bad-head", "101 answers a request that asked for no upgrade")
        if not head.upgrade:
            raise FramingError("bad-head", "101 comes without Upgrade and Connection: upgrade")
        head.body = Body.OPAQUE
    elif method == b"CONNECT" and 200 <= status < 300:
        head.body = Body.OPAQUE
    elif status < 200 or status in {204, 304} or method == b"HEAD":
        pass  # no body, whatever the fields say
    elif chunked:
        head.body = Body.CHUNKED
    elif length is not None:
        head.length = length
        head.body = Body.COUNTED if length else Body.NONE
    else:
        head.body = Body.UNTIL_CLOSE
        head.keep_alive = False
    return head


def judge_preface(raw: bytes) -> Head | None:
    """The head that HTTP/2 by prior knowledge begins with (RFC 9113 section 3.4), if `raw` is that."""
    if raw != _H2_PREFACE_HEAD:
        return None
    head = Head(raw, b"PRI", b"*")
    head.body = Body.OPAQUE
    return head


def check_begun(text: bytes) -> None:
    """Raise FramingError for what is wrong already in bytes of a head that is not whole yet."""
    _check_bytes(text, open_pair=text.endswith(b"\r"))


def check_start_line(begun: bytes | bytearray, *, request: bool, preface: bool, limits: Limits) -> bool:
    """Whether the start line is whole; raises FramingError when it is, and wrong. `preface` allows HTTP/2's."""
    start = skip_empty_lines(begun) if request else 0
    if begun.find(CRLF, start, limits.head_bytes_max) < 0:
        return False
    pattern = _REQUEST_LINE if request else _STATUS_LINE
    if not (preface and begun.startswith(_H2_PREFACE_LINE)) and pattern.match(begun, start) is None:
        raise _bad_start_line(pattern)
    return True


def skip_empty_lines(data: bytes | bytearray) -> int:
    """Where the request line begins: a few empty lines before it are passed over (RFC 9112 section 2.2)."""
    at = 0
    while data.startswith(CRLF, at) and at < _EMPTY_LINES_BYTES_MAX:
        at += 2
    return at


def too_large(limits: Limits) -> FramingError:
    """A head that is not whole within its bound."""
    return FramingError("head-too-large", f"the head is larger than {limits.head_bytes_max} bytes", 431)


def _read_fields(head: Head, start: int, *, http_1_0: bool) -> tuple[int | None, Sequence[bytes]]:
    """The Content-Length and the transfer codings; sets what else they say (RFC 9112, 6.3 and 9.3).

    Searching the lowered head for each name takes a third of the time of one regular expression for all.
    """
    text = head.raw.lower()
    length: int | None = None
    span = _only_value(text, _LENGTH, start, "Content-Length")
    if span is not None:
        head.length_span = span
        length = _content_length(text[span[0] : span[1]])
    if head.method:
        head.host_span = _only_value(text, _HOST, start, "Host")
    at = text.find(_CONNECTION, start)
    connection = _listed(text, _CONNECTION, at) if at >= 0 else ()
    if connection or http_1_0:
        head.keep_alive = b"close" not in connection and (not http_1_0 or b"keep-alive" in connection)
        head.upgrade = b"upgrade" in connection and text.find(_UPGRADE, start) >= 0
    at = text.find(_CODING, start)
    codings = _listed(text, _CODING, at) if at >= 0 else ()
    if codings and length is not None:
        raise FramingError("bad-head", "there is a Transfer-Encoding beside a Content-Length")
    if codings and http_1_0:
        if head.method:
            raise FramingError("bad-head", "there is a Transfer-Encoding in HTTP/1.0")
        head.keep_alive = False
    return length, codings


def _only_value(text: bytes, name: bytes, start: int, field: str) -> tuple[int, int] | None:
    """Where the value of a field stands that may be there once; None when it is not."""
    at = text.find(name, start)
    if at < 0:
        return None
    begin = at + len(name)
    if text.find(name, begin) >= 0:
        raise FramingError("bad-head", f"there is more than one {field} field")
    end = text.find(b"\r", begin)
    value = text[begin:end].lstrip(b" \t")
    begin = end - len(value)
    return begin, begin + len(value.rstrip(b" \t"))


def _listed(text: bytes, name: bytes, at: int) -> list[bytes]:
    """The members of a list, of all its fields together, the first of which is at `at`."""
    found: list[bytes] = []
    while at >= 0:
        begin = at + len(name)
        end = text.find(b"\r", begin)
        found += [token.strip(b" \t") for token in text[begin:end].split(b",")]
        at = text.find(name, end)
    return found


def _bad_start_line(pattern: re.Pattern[bytes]) -> FramingError:
    return FramingError("bad-head", f"the {'request' if pattern is _REQUEST_LINE else 'status'} line is not HTTP/1.1")


def _check_bytes(text: bytes, *, open_pair: bool) -> None:
    """No control bytes, and CR and LF only as a pair; `open_pair`: the text ends between the two."""
    if text.translate(None, _LEGAL):
        raise FramingError("bad-head", "the head holds NUL or another control character")
    pairs = text.count(CRLF)
    if text.count(b"\n") != pairs or text.count(b"\r") - open_pair != pairs:
        raise FramingError("bad-head", "the head holds a CR or LF that is no line end")


def _ask_llhttp(
    parser: httptools.HttpRequestParser | httptools.HttpResponseParser, raw: bytes, start: int, limits: Limits
) -> None:
    """Let llhttp judge every byte: names, values, line ends, folding; raises FramingError.

    What `check_begun` refuses in a beginning, llhttp refuses in the whole (the tests compare), so that splits do not
    matter. A bare CR or LF is looked for once more, since everything here relies on lines ending in CRLF.
    """
    lines = raw.count(CRLF)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # llhttp's word for "what follows is not HTTP", which is not its to say
    except httptools.HttpParserError as error:
        if not str(error).startswith("Pause"):  # the same word, for a 101 that `judge_response` refuses
            raise FramingError("bad-head", f"the head is not valid HTTP/1.1: {error}") from None
    if raw.count(b"\n") != lines or raw.count(b"\r") != lines:
        raise FramingError("bad-head", "the head holds a CR or LF that is no line end")
    if lines - start // 2 - 2 > limits.fields_max:
        raise FramingError("head-too-large", f"the head has more than {limits.fields_max} fields", 431)


def _content_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise FramingError("bad-head", "the Content-Length is not a number of bytes")
    return int(value)


def _ends_chunked(codings: Sequence[bytes]) -> bool:
    """Whether chunked is the last coding; it may stand nowhere else, and every other one must be a known one."""
    if not codings:
        return False
    chunked = codings[-1] == b"chunked"
    others = codings[:-1] if chunked else codings
    if any(coding not in _CODINGS for coding in others):
        raise FramingError("bad-head", "the Transfer-Encoding is not one that RFC 9112 knows", 501)
    return chunked
