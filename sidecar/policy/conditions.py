"""The one condition engine: rules, metric filters and charges all ask it the same way.

A condition is compiled once, when the plan is read, and then only asks: does it hold for these facts? Facts are plain
JSON-like mappings. How the awkward cases are settled:

- A path is dotted: `tokens.output`, `payload.items.0.id` (lists by number). Where a mapping has no entry for the next
  name, but one for all that is left of the path (`attributes` with the key `deal.size`), that entry is meant.
- A null is a missing field. On a missing field NOT_EQUALS and NOT_IN hold and every other operator fails.
- The plan's value decides the type. Against a number, a field counts when it is a number, or a text that is a plain
  decimal number (attributes and form posts carry numbers as text); `true` is never a number. Against a text, only a
  text counts. Numbers are compared exactly, as decimals; a float means its shortest decimal form.
- GREATER_THAN and its like take a number or an RFC 3339 time; times are compared as instants.
- CONTAINS on a text means a part of it, on a list one of its elements.
- MATCHES searches anywhere in the text (anchor with ^ and $) with RE2, in linear time.
- UNIQUE_WITHIN_WINDOW depends on other events, so it is only compiled here (`Unique`) and decided by the rater.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, get_args

import re2

Operator = Literal[
    "EQUALS", "NOT_EQUALS", "IN", "NOT_IN", "GREATER_THAN", "GREATER_OR_EQUAL", "LESS_THAN", "LESS_OR_EQUAL",
    "CONTAINS", "STARTS_WITH", "ENDS_WITH", "MATCHES", "EXISTS", "UNIQUE_WITHIN_WINDOW",
]  # fmt: skip
Window = Literal["SESSION", "CONVERSATION", "BILLING_PERIOD"]
WINDOWS: tuple[str, ...] = get_args(Window)

PATTERN_CHARS_MAX = 2_000
PATH_PARTS_MAX = 32
_PATTERN_MEMORY_BYTES_MAX = 8 << 20
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
_NUMBER_MAX = Decimal(10) ** 30
_NUMBER_DIGITS_MAX = 60


class ConditionError(ValueError):
    """A condition that cannot be compiled; `key` names the part to change (field, operator, value, window)."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class _Missing:
    """The value of a field that is not there."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class Condition:
    """One compiled condition; `test` never sees MISSING."""

    path: tuple[str, ...]
    test: Callable[[Any], bool]
    when_missing: bool

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether the facts satisfy it; never raises, whatever the facts hold."""
        value = lookup(facts, self.path)
        return self.when_missing if value is MISSING else self.test(value)


@dataclass(frozen=True, slots=True)
class Unique:
    """UNIQUE_WITHIN_WINDOW: of the events with one value of the field in one window, the earliest counts."""

    path: tuple[str, ...]
    window: Window


@dataclass(frozen=True, slots=True)
class Conditions:
    """All conditions of one place; they must all hold."""

    plain: tuple[Condition, ...] = ()
    unique: tuple[Unique, ...] = ()

    def hold(self, facts: Mapping[str, Any]) -> bool:
        """Whether every condition but UNIQUE_WITHIN_WINDOW holds."""
        return all(condition.holds(facts) for condition in self.plain)


def gather(compiled: Iterable[Condition | Unique]) -> Conditions:
    """Sort the compiled conditions of one place into those that look at one event and those that look at several."""
    parts = tuple(compiled)
    return Conditions(
        plain=tuple(part for part in parts if isinstance(part, Condition)),
        unique=tuple(part for part in parts if isinstance(part, Unique)),
    )


def compile_condition(
    field: str, operator: Operator, value: Any = None, window: Window | None = None
) -> Condition | Unique:
    """Compile one condition of a plan; raises ConditionError saying what to change."""
    path = parse_path(field)
    if operator == "UNIQUE_WITHIN_WINDOW":
        if value is not None:
            raise ConditionError("value", "UNIQUE_WITHIN_WINDOW takes no value: remove it")
        if window is None:
            raise ConditionError("window", f"window is needed, one of {', '.join(WINDOWS)}")
        return Unique(path, window)
    if window is not None:
        raise ConditionError("window", f"only UNIQUE_WITHIN_WINDOW has a window, {operator} has not: remove it")
    if operator == "EXISTS":
        if value not in (None, True):
            raise ConditionError("value", "EXISTS takes no value: remove it")
        return Condition(path, _always, when_missing=False)
    if value is None:
        raise ConditionError("value", f"{operator} needs a value")
    return Condition(path, _TESTS[operator](value), when_missing=operator in {"NOT_EQUALS", "NOT_IN"})


def parse_path(field: str) -> tuple[str, ...]:
    """Split a dotted path; raises ConditionError when a part is empty or there are too many."""
    parts = tuple(field.split("."))
    if not all(parts):
        raise ConditionError("field", f"{field!r} has an empty part: write names separated by single dots")
    if len(parts) > PATH_PARTS_MAX:
        raise ConditionError("field", f"the path has {len(parts)} parts: at most {PATH_PARTS_MAX}")
    return parts


def lookup(facts: Any, path: Sequence[str]) -> Any:
    """Follow a path into mappings and lists; MISSING when it ends nowhere, or at null."""
    here = facts
    for index, part in enumerate(path):
        if isinstance(here, Mapping):
            if part in here:
                here = here[part]
                continue
            here = here.get(".".join(path[index:]), MISSING)
            break
        if not isinstance(here, list | tuple) or not (part.isascii() and part.isdigit() and len(part) < 10):
            return MISSING
        if int(part) >= len(here):
            return MISSING
        here = here[int(part)]
    return MISSING if here is None else here


def number(value: Any) -> Decimal | None:
    """The exact decimal of a number, or of a text that is a plain decimal number; None for all else.

    Numbers of 10^30 and above, or of more than 60 digits, are not used: nothing that is billed is so large.
    """
    match value:
        case bool():
            return None
        case Decimal():
            exact = value
        case int():
            exact = Decimal(value) if abs(value) < 10**30 else Decimal("Infinity")
        case float():
            exact = Decimal(repr(value))
        case str() if _PLAIN_NUMBER.fullmatch(value):
            exact = Decimal(value)
        case _:
            return None
    if not exact.is_finite() or exact.copy_abs() >= _NUMBER_MAX:  # abs() would round, or overflow
        return None
    _, digits, exponent = exact.as_tuple()
    too_long = len(digits) > _NUMBER_DIGITS_MAX or int(exponent) < -_NUMBER_DIGITS_MAX
    return None if too_long else exact


def instant(value: Any) -> datetime | None:
    """The instant of an RFC 3339 text (a bare date is its midnight in UTC); None for all else."""
    if not isinstance(value, str) or len(value) > 40 or value[:4].isdigit() is False:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _always(_: Any) -> bool:
    return True


def _equals(value: Any) -> Callable[[Any], bool]:
    """EQUALS; also what IN asks of each of its values, and CONTAINS of a list's elements."""
    if isinstance(value, bool):
        return lambda found: found is value
    if isinstance(value, str):
        return lambda found: isinstance(found, str) and found == value
    exact = number(value)
    if exact is None:
        raise ConditionError("value", f"{_shown(value)} cannot be compared: write a text, a number, true or false")
    return lambda found: number(found) == exact


def _not(test: Callable[[Any], Callable[[Any], bool]]) -> Callable[[Any], Callable[[Any], bool]]:
    def build(value: Any) -> Callable[[Any], bool]:
        positive = test(value)
        return lambda found: not positive(found)

    return build


def _one_of(value: Any) -> Callable[[Any], bool]:
    if not isinstance(value, list | tuple) or not value:
        raise ConditionError("value", f"a list of values is needed, like [RESOLVED, QUALIFIED], not {_shown(value)}")
    tests = [_equals(item) for item in value]
    return lambda found: any(test(found) for test in tests)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Callable[[Any], bool]]:
    def build(value: Any) -> Callable[[Any], bool]:
        exact = number(value)
        if exact is not None:
            return lambda found: (here := number(found)) is not None and compare(here, exact)
        moment = instant(value)
        if moment is None:
            raise ConditionError(
                "value", f"a number or a time like 2026-11-01T00:00:00Z is needed, not {_shown(value)}"
            )
        return lambda found: (here := instant(found)) is not None and compare(here, moment)

    return build


def _contains(value: Any) -> Callable[[Any], bool]:
    equal = _equals(value)

    def test(found: Any) -> bool:
        if isinstance(found, list | tuple):
            return any(equal(item) for item in found)
        return isinstance(found, str) and isinstance(value, str) and value in found

    return test


def _text(test: Callable[[str, str], bool]) -> Callable[[Any], Callable[[Any], bool]]:
    def build(value: Any) -> Callable[[Any], bool]:
        if not isinstance(value, str):
            raise ConditionError("value", f"a text is needed, not {_shown(value)}: put it in quotes")
        return lambda found: isinstance(found, str) and test(found, value)

    return build


def _matches(value: Any) -> Callable[[Any], bool]:
    if not isinstance(value, str):
        raise ConditionError("value", f"a regular expression is needed, not {_shown(value)}: put it in quotes")
    if len(value) > PATTERN_CHARS_MAX:
        raise ConditionError("value", f"the pattern is longer than {PATTERN_CHARS_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY_BYTES_MAX
    try:
        pattern = re2.compile(value, options)
    except re2.error as error:
        detail = error.args[0] if error.args else "not a pattern"
        text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise ConditionError(
            "value", f"not an RE2 pattern ({text}); look-around and back-references do not exist in RE2"
        ) from None
    return lambda found: isinstance(found, str) and _search(pattern, found)


def _search(pattern: Any, text: str) -> bool:
    """Search a text; one that is no Unicode (a lone surrogate out of a JSON escape) is searched with `?` there."""
    try:
        return pattern.search(text) is not None
    except UnicodeEncodeError:
        return pattern.search(text.encode("utf-8", "replace").decode()) is not None


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Decimal | int) and not isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


_TESTS: dict[Operator, Callable[[Any], Callable[[Any], bool]]] = {
    "EQUALS": _equals,
    "NOT_EQUALS": _not(_equals),
    "IN": _one_of,
    "NOT_IN": _not(_one_of),
    "GREATER_THAN": _ordered(lambda found, value: bool(found > value)),
    "GREATER_OR_EQUAL": _ordered(lambda found, value: bool(found >= value)),
    "LESS_THAN": _ordered(lambda found, value: bool(found < value)),
    "LESS_OR_EQUAL": _ordered(lambda found, value: bool(found <= value)),
    "CONTAINS": _contains,
    "STARTS_WITH": _text(str.startswith),
    "ENDS_WITH": _text(str.endswith),
    "MATCHES": _matches,
}
