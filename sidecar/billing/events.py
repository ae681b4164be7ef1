"""The events that sidecars post: what they must hold, and their canonical form.

Money depends on a few fields, which are checked strictly. Everything else is kept as it came, so a newer sidecar may
say more than this version knows. The body that is stored is canonical JSON; two bodies are the same when their
canonical forms are, whatever the order of keys, the blanks, or 1.0 instead of 1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, get_args

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.rating.periods import to_us

OUTCOME_TYPE = "sidecar.outcome.v1"
STATEMENT_TYPE = "sidecar.statement.v1"
EVENT_BYTES_MAX = 256 << 10
NESTING_MAX = 64
COUNT_MAX = (1 << 53) - 1  # as far as every reader of JSON counts exactly
_COUNTS = ("opened", "open", "finalized", "dropped", "finalized_by_hour", "finalized_before")  # of a statement
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)
_NANOSECONDS = re.compile(r"(\.\d{6})\d+")
_YEARS = range(2000, 2200)
State = Literal["RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED"]
STATES: tuple[State, ...] = get_args(State)
# A number that is not whole, in compact JSON. Three patterns, since a fixed beginning is searched for much faster.
_FRACTIONS = [re.compile(before + rb"-?[0-9]+[.eE]") for before in (rb'":', rb"\[", rb",")]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class EventError(ValueError):
    """An event that cannot be taken; the message says what to change."""


class UnreadableBodyError(ValueError):
    """A body that is not JSON; the message says why."""


def parse_json(body: bytes, number: Callable[[str], Any] | None = None) -> Any:
    """JSON with exact decimals; raises UnreadableBodyError. NaN and Infinity are no JSON, a name stands once."""
    try:
        return json.loads(
            body.decode("utf-8"), parse_float=number or _decimal, parse_constant=_refuse, object_pairs_hook=_once
        )
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(f"the body is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise UnreadableBodyError("the body is nested too deep") from None
    except ValueError as error:
        raise UnreadableBodyError(f"the body is not JSON: {error}") from None


def read_body(raw: bytes) -> tuple[Any, list[str] | None]:
    """The JSON of a body and, when it came so, the canonical form of the value or of each value of its list.

    Sidecars post sorted names without blanks. Then writing out what was read gives the same bytes again, which proves
    that nothing was lost in reading fast (a name that stood twice, digits of a number), and what would be the canonical
    form is there already. Anything else is read by `parse_json`.
    """
    try:
        content = orjson.loads(raw)
        several = isinstance(content, list)
        parts = [orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in (content if several else [content])]
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return parse_json(raw), None
    written = b"[" + b",".join(parts) + b"]" if several else parts[0]
    if written != raw or any(pattern.search(raw) for pattern in _FRACTIONS) or isinstance(content, float):
        return parse_json(raw), None
    values = content if several else [content]
    return content, [
        part.decode() if part.isascii() else canonical_json(value) for part, value in zip(parts, values, strict=True)
    ]


def canonical_json(value: Any) -> str:
    """One text per JSON value: sorted names, no blanks, ASCII, numbers as plain decimals."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except TypeError:  # there are decimals in it, which json does not know
        return "".join(_canonical(value))


def _canonical(value: Any) -> list[str]:
    match value:
        case dict():
            inner = [f"{json.dumps(key)}:{canonical_json(value[key])}" for key in sorted(value)]
            return ["{", ",".join(inner), "}"]
        case list():
            return ["[", ",".join(canonical_json(item) for item in value), "]"]
        case Decimal():
            return [_number(value)]
        case _:
            return [json.dumps(value)]


def _number(value: Decimal) -> str:
    """1.0, 1.00 and 1e0 are 1. Extreme exponents keep the scientific form, so that no text explodes."""
    sign, digits, exponent = value.as_tuple()
    written = "".join(map(str, digits)).lstrip("0")
    significant = written.rstrip("0")
    if not significant:
        return "0"
    # Put together by hand: Decimal's own normalize would round to the context's precision.
    exact = Decimal(f"{'-' if sign else ''}{significant}E{int(exponent) + len(written) - len(significant)}")
    return f"{exact:f}" if -60 < exact.adjusted() < 60 else str(exact)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("a number has an exponent out of all bounds") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return found


def plain_text(text: str) -> str:
    """The text itself, if databases and people can read it; else raises ValueError."""
    if _CONTROL.search(text):
        raise ValueError("holds control characters")
    return text


@lru_cache(maxsize=4096)
def parse_time(text: str) -> datetime:
    """An RFC 3339 instant; digits past microseconds are cut. Raises ValueError saying what to write."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("is no RFC 3339 time with a zone, like 2026-11-22T10:00:00Z")
    try:
        moment = datetime.fromisoformat(_NANOSECONDS.sub(r"\1", text).upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is a time that does not exist") from None
    if moment.year not in _YEARS:
        raise ValueError(f"lies outside the years {_YEARS.start} to {_YEARS.stop - 1}")
    return moment


def _time(text: str) -> str:
    parse_time(text)
    return text


Text = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(plain_text)]
EventId = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(plain_text)]
Time = Annotated[str, Field(max_length=40), AfterValidator(_time)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")  # what is kept is the body, as it came


class OutcomeData(_Checked):
    """The fields of `data` that money depends on."""

    session_id: Text
    outcome: Name
    state: State
    escalated_to_human: bool
    revision: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    reverses: EventId | None = None
    conversation: Annotated[str, Field(max_length=1024)] | None = None
    tenant: Text | None = None
    held: bool = False
    billable: bool = True
    shadow: bool = False
    attributes: dict[str, Any] = Field(default_factory=dict)
    tokens: dict[str, Any] = Field(default_factory=dict)
    started_at: Any = None

    @model_validator(mode="after")
    def _revisions_name_what_they_replace(self) -> Self:
        if self.revision > 0 and self.reverses is None:
            raise ValueError("a revision above 0 must name its predecessor's id in reverses")
        if self.revision == 0 and self.reverses is not None:
            raise ValueError("revision 0 replaces nothing: reverses must be null")
        return self


class _Envelope(_Checked):
    specversion: Literal["1.0"]
    id: EventId
    source: Text
    subject: Text = UNATTRIBUTED
    time: Time
    datacontenttype: Literal["application/json"] = "application/json"


class OutcomeEvent(_Envelope):
    """`sidecar.outcome.v1`."""

    type: Literal["sidecar.outcome.v1"]
    data: OutcomeData

    @model_validator(mode="after")
    def _does_not_reverse_itself(self) -> Self:
        if self.data.reverses == self.id:
            raise ValueError("reverses is the event's own id")
        return self


def is_count(value: Any) -> bool:
    """Whether a counter of a statement can be one."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX


def _counted(data: dict[str, Any]) -> dict[str, Any]:
    """Refuses numbers that are no counts. What is no number at all is of another make, and compared with nothing."""
    for name in _COUNTS:
        value = data.get(name)
        counts = value if isinstance(value, dict) else {"": value}
        for of, count in counts.items():
            if isinstance(count, int | Decimal) and not 0 <= count <= COUNT_MAX:
                where = f"{name}.{of}"[:200].rstrip(".")
                raise ValueError(f"{where} is a count: a whole number from 0 to {COUNT_MAX}")
    return data


class StatementEvent(_Envelope):
    """`sidecar.statement.v1`: the counters of one tenant."""

    type: Literal["sidecar.statement.v1"]
    data: Annotated[dict[str, Any], AfterValidator(_counted)]


Event = OutcomeEvent | StatementEvent
_OUTCOME = TypeAdapter(OutcomeEvent)
_STATEMENT = TypeAdapter(StatementEvent)


@dataclass(frozen=True, slots=True)
class Posted:
    """A checked event with its canonical body and that body's digest."""

    event: Event
    body: str
    digest: str
    at_us: int


def read_event(value: Any, body: str | None = None) -> Posted:
    """Check one event; raises EventError naming every field to change. `body`: its canonical form, if known."""
    if not isinstance(value, dict):
        raise EventError("an event is a JSON object")
    kind = value.get("type")
    if kind not in (OUTCOME_TYPE, STATEMENT_TYPE):  # a tuple: what was sent may have no hash
        raise EventError(f"type: {kind!r} is not known; {OUTCOME_TYPE} and {STATEMENT_TYPE} are")
    if body is None or body.count("{") + body.count("[") > NESTING_MAX:
        if _nested_deeper(value, NESTING_MAX):
            raise EventError(f"the event is nested deeper than {NESTING_MAX} levels")
        body = canonical_json(value)
    if len(body) > EVENT_BYTES_MAX:
        raise EventError(f"the event has {len(body)} bytes: at most {EVENT_BYTES_MAX}")
    adapter: TypeAdapter[Any] = _OUTCOME if kind == OUTCOME_TYPE else _STATEMENT
    try:
        event: Event = adapter.validate_python(value)
    except ValidationError as error:
        raise EventError("; ".join(_reason(dict(detail)) for detail in error.errors()[:20])) from None
    digest = hashlib.sha256(body.encode()).hexdigest()
    return Posted(event, body, digest, to_us(parse_time(event.time)))


def _nested_deeper(value: Any, levels: int) -> bool:
    """Level by level, without recursion of our own."""
    layer = [value]
    for _ in range(levels):
        inner = [item for item in layer if isinstance(item, dict | list)]
        layer = [item for held in inner for item in (held.values() if isinstance(held, dict) else held)]
        if not layer:
            return False
    return True


def id_of(value: Any) -> str | None:
    """The id of an event that may be broken, to name it in an answer."""
    identifier = value.get("id") if isinstance(value, dict) else None
    return identifier if isinstance(identifier, str) else None


def _reason(detail: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in detail["loc"]) or "event"
    if detail["type"] == "missing":
        return f"{path}: is missing"
    cause = detail.get("ctx", {}).get("error")
    return f"{path}: {cause or detail['msg']}"
