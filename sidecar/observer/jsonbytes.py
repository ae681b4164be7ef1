r"""JSON as it comes from the wire, within bounds.

orjson reads it: it refuses what is nested deeper than 1024, and all that the standard (RFC 8259) does not allow. Some
of that is sent all the same, and taken by servers: `NaN` by Python's clients, half a character (`\ud83d`) by those in
JavaScript when a text was cut in the middle of an emoji, broken UTF-8, numbers that no double holds. Such a body is
read once more, by the lenient parser of the standard library, with what is broken replaced.

A few bytes of JSON make a Python object of some hundred: `MARKS_MAX` bounds how many one body can make. Marks are
commas and opening brackets, those in texts included; there are never fewer than values.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import orjson

MARKS_MAX = 1_000_000
# In JSON no more than two of three bytes are marks (`[],[],`), so smaller bodies need no counting.
_COUNTED_BYTES_MIN = MARKS_MAX * 3 // 2
_SMALL_BYTES = 64 << 10

# Every JSON text begins so; a stream of events does not.
_BEGINNING = re.compile(rb'[ \t\r\n]*["\[{0-9tfnNI-]')
_TOO_DEEP = "depth limit exceeded"
# orjson's words for what the lenient parser can make good; anything else it would refuse as well.
_REPAIRABLE = frozenset(
    {
        "no low surrogate in string",
        "invalid low surrogate in string",
        "invalid high surrogate in string",
        "str is not valid UTF-8: surrogates not allowed",
        "number is infinity when parsed as double",
        "no digit after sign",  # -Infinity
    }
)
_NOT_NUMBERS = ("NaN", "Inf")
_INTEGER_DIGITS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Parsed:
    """`value` is None when there is none. `reason`, empty when all is well, says why, or what was done:

    `json_broken`, `json_too_deep`, `too_many_values` (it has more than `MARKS_MAX`); `json_repaired`: what broke the
    standard was replaced, and `value` is there.
    """

    value: Any = None
    reason: str = ""


def parse(data: bytes) -> Parsed:
    """A body, or one event of a stream. Never raises."""
    if too_dense(data):
        return Parsed(reason="too_many_values")
    if len(data) > _SMALL_BYTES and _BEGINNING.match(data) is None:
        return Parsed(reason="json_broken")  # spares the exception, which copies the bytes
    try:
        return Parsed(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        if error.msg == _TOO_DEEP:
            return Parsed(reason="json_too_deep")
        if error.msg not in _REPAIRABLE and not error.doc.startswith(_NOT_NUMBERS, error.pos):
            return Parsed(reason="json_broken")
    try:
        return Parsed(_LENIENT.decode(data.decode("utf-8", "replace")), "json_repaired")
    except RecursionError:
        return Parsed(reason="json_too_deep")
    except ValueError:
        return Parsed(reason="json_broken")


def loads_or_none(data: bytes) -> Any:
    """The value, or None when there is none."""
    if len(data) <= _SMALL_BYTES:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    return parse(data).value


def marks(data: bytes) -> int:
    """How many values the bytes can stand for, at most, less one."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def too_dense(data: bytes) -> bool:
    """Whether more values would come of it than are made; without counting where there are fewer bytes."""
    return len(data) > _COUNTED_BYTES_MIN and marks(data) > MARKS_MAX


def canonical(value: Any) -> bytes:
    """Bytes that are the same for the same JSON value, to be digested."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # nested deeper than orjson writes, or half a character in it
        pass
    try:
        return json.dumps(value, sort_keys=True).encode()
    except RecursionError:
        return b"nested too deep"


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else float("inf")


_LENIENT = json.JSONDecoder(parse_int=_integer)
