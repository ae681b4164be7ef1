"""Locators: where in an exchange a value is found, as the operator writes it in one line.

`header:x-customer-id;baggage:customer.id;body:metadata.customer_id`: several, separated by `;`, tried in order. A kind,
a colon, and what the kind needs:

| locator | finds |
|---|---|
| `header:NAME`, `response.header:NAME` | the first field of that name |
| `query:NAME`, `cookie:NAME` | a parameter of the target, a cookie of the request, decoded |
| `baggage:KEY` | a member of W3C Baggage |
| `jwt:CLAIM` | a claim of the bearer token, its signature not checked; `a.b` looks into an object |
| `path:/conversations/{}/messages` | the segment at `{}` where these segments follow one another in the path |
| `body:JMESPATH`, `response.body:JMESPATH` | a scalar in a JSON body |
| `listener:NAME` | NAME, if the request came by that route (the address listened on) |
| `listener:NAME=VALUE` | VALUE, likewise |
| `literal:TEXT` | TEXT |

Found is a text, or a whole number as text. Objects, lists, booleans and fractions are not values. A value longer than
256 bytes or with control characters is not used: `Found.unusable` counts it, and the next locator is tried.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError

from sidecar.observer.exchange import Exchange

VALUE_BYTES_MAX = 256
LOCATORS_MAX = 32
BAGGAGE_MEMBERS_MAX = 180  # W3C Baggage: at least 64 must be supported; 180 was the limit of its drafts
COOKIES_MAX = 300

Reader = Callable[[Exchange], Any]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Found:
    """`value` is None when nothing usable was found; `unusable` is how many values were passed over."""

    value: str | None = None
    unusable: int = 0


@dataclass(frozen=True, slots=True)
class Locator:
    """One compiled locator; `text` is as it was written."""

    text: str
    read: Reader


@dataclass(frozen=True, slots=True)
class Locators:
    """Several, in order."""

    each: tuple[Locator, ...] = ()

    def find(self, exchange: Exchange) -> Found:
        """The first usable value."""
        unusable = 0
        for value in self._values(exchange):
            if value is not None:
                return Found(value, unusable)
            unusable += 1
        return Found(None, unusable)

    def find_all(self, exchange: Exchange) -> tuple[list[str], int]:
        """Every usable value in order, each once, and how many were not usable."""
        values = list(self._values(exchange))
        usable = dict.fromkeys(value for value in values if value is not None)
        return list(usable), values.count(None)

    def _values(self, exchange: Exchange) -> Iterator[str | None]:
        for locator in self.each:
            raw = scalar_text(locator.read(exchange))
            if raw:
                yield raw if is_usable(raw) else None


def parse_locators(text: str) -> Locators:
    """Compile a line of locators. Raises ValueError naming the locator that is wrong and what to write instead."""
    each = tuple(_parse(piece) for piece in _pieces(text) if piece)
    if len(each) > LOCATORS_MAX:
        raise ValueError(f"{len(each)} locators: at most {LOCATORS_MAX}")
    return Locators(each)


def scalar_text(value: Any) -> str:
    """A text without the white space around it, or a whole number as text; empty for anything else."""
    if isinstance(value, str):
        return value.strip(" \t\r\n")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""


def is_usable(value: str) -> bool:
    """Whether a value may become an id: at most 256 bytes of UTF-8, no control characters."""
    if len(value) > VALUE_BYTES_MAX:
        return False
    if value.isascii():
        return value.isprintable()
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
        return False
    return len(value.encode()) <= VALUE_BYTES_MAX


def _pieces(text: str) -> Iterator[str]:
    """Split at `;`, but not within the quotes of a JMESPath expression."""
    piece = ""
    for part in text.split(";"):
        piece = f"{piece};{part}" if piece else part
        is_expression = piece.lstrip().startswith(("body:", "response.body:"))
        if is_expression and any(piece.count(quote) % 2 for quote in "\"'`"):
            continue
        yield piece.strip()
        piece = ""
    yield piece.strip()


def _parse(text: str) -> Locator:
    kind, colon, argument = text.partition(":")
    make = _KINDS.get(kind)
    if not colon or make is None:
        raise ValueError(f"{text!r} is no locator: write one of {', '.join(f'{name}:…' for name in _KINDS)}")
    if not argument:
        raise ValueError(f"{text!r} says nothing after the colon: {_WANTED[kind]}")
    try:
        return Locator(text, make(argument))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _header(name: str) -> Reader:
    lower = _token(name)
    return lambda exchange: exchange.headers.get(lower)


def _response_header(name: str) -> Reader:
    lower = _token(name)
    return lambda exchange: exchange.response_headers.get(lower)


def _token(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("the name of a header has letters, digits and - only")
    return name.lower()


def _query(name: str) -> Reader:
    return lambda exchange: exchange.query.get(name)


def _cookie(name: str) -> Reader:
    if not _TOKEN.fullmatch(name):
        raise ValueError("the name of a cookie has letters, digits, - and _ only")

    def read(exchange: Exchange) -> str | None:
        for pair in exchange.headers.get("cookie", "").split(";", COOKIES_MAX)[:COOKIES_MAX]:
            key, equals, value = pair.partition("=")
            if equals and key.strip() == name:
                return unquote(value.strip().strip('"'))
        return None

    return read


def _baggage(key: str) -> Reader:
    def read(exchange: Exchange) -> str | None:
        for member in exchange.headers.get("baggage", "").split(",", BAGGAGE_MEMBERS_MAX)[:BAGGAGE_MEMBERS_MAX]:
            name, equals, value = member.partition(";")[0].partition("=")
            if equals and name.strip() == key:
                return unquote(value.strip())
        return None

    return read


def _jwt(claim: str) -> Reader:
    return lambda exchange: exchange.claims.get(claim) or _walk(exchange.claims, claim.split("."))


def _path(pattern: str) -> Reader:
    wanted = pattern.strip("/").split("/")
    if not pattern.startswith("/") or wanted.count("{}") != 1 or "" in wanted:
        raise ValueError("a path starts with / and has one segment {}, as in path:/conversations/{}/messages")
    place = wanted.index("{}")
    length = len(wanted)

    def read(exchange: Exchange) -> str | None:
        segments = exchange.segments
        for start in range(len(segments) - length + 1):
            window = segments[start : start + length]
            if all(want in ("{}", have) for want, have in zip(wanted, window, strict=True)):
                return window[place]
        return None

    return read


def _body(expression: str) -> Reader:
    search = compile_search(expression)
    return lambda exchange: search(exchange.request_json)


def _response_body(expression: str) -> Reader:
    search = compile_search(expression)
    return lambda exchange: search(exchange.response_json)


def compile_search(expression: str) -> Callable[[Any], Any]:
    """A JMESPath search; it finds nothing where the expression does not fit the data. ValueError: it is no JMESPath."""
    if _PLAIN_PATH.fullmatch(expression):
        names = expression.split(".")  # means the same in JMESPath, and is ten times faster
        return lambda data: _walk(data, names)
    try:
        compiled = jmespath.compile(expression)
        compiled.search({})  # tells of an unknown function; that the data does not fit is no fault of the expression
    except JMESPathTypeError:
        pass
    except JMESPathError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"not a JMESPath expression ({reason}); as in body:metadata.session_id") from None

    def search(data: Any) -> Any:
        if data is None:
            return None
        try:
            return compiled.search(data)
        except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError):
            return None

    return search


def _walk(data: Any, names: list[str]) -> Any:
    for name in names:
        if not isinstance(data, dict):
            return None
        data = data.get(name)
    return data


def _listener(argument: str) -> Reader:
    name, equals, value = argument.partition("=")
    found = value if equals else name
    return lambda exchange: found if exchange.listener == name else None


def _literal(text: str) -> Reader:
    return lambda _exchange: text


_KINDS: dict[str, Callable[[str], Reader]] = {
    "header": _header,
    "query": _query,
    "cookie": _cookie,
    "baggage": _baggage,
    "jwt": _jwt,
    "path": _path,
    "body": _body,
    "response.header": _response_header,
    "response.body": _response_body,
    "listener": _listener,
    "literal": _literal,
}
_WANTED = {
    "header": "the name of a header is needed, as in header:x-customer-id",
    "query": "the name of a parameter is needed, as in query:session",
    "cookie": "the name of a cookie is needed, as in cookie:sid",
    "baggage": "a key is needed, as in baggage:session.id",
    "jwt": "a claim is needed, as in jwt:sub",
    "path": "a path with one {} is needed, as in path:/conversations/{}/messages",
    "body": "a JMESPath expression is needed, as in body:metadata.session_id",
    "response.header": "the name of a header is needed, as in response.header:mcp-session-id",
    "response.body": "a JMESPath expression is needed, as in response.body:conversation.id",
    "listener": "a route's address is needed, as in listener:127.0.0.1:8081",
    "literal": "a text is needed, as in literal:acme",
}
