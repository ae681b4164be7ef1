"""How values are written for people: the filters of the templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from urllib.parse import quote

from sidecar.billing.ledger.waiting import COUNTED_MAX
from sidecar.billing.rating.periods import Period, from_us
from sidecar.billing.rating.price import EXACT
from sidecar.policy.currency import known_currency, minor_unit

THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "–"
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}


def count(value: int | str | Decimal | None) -> str:
    """`1 234 567`; a text of digits as well."""
    if value is None:
        return DASH
    return f"{Decimal(value):,}".replace(",", THIN).replace("-", MINUS)


def money(amount: str | Decimal | None, currency: str = "") -> str:
    """`$1 234.50`, or `1 234.500 KWD` where the currency has no sign of its own; as many digits as the currency has,
    or as are given.
    """
    if amount is None:
        return DASH
    value = Decimal(amount)
    if known_currency(currency) and value == value.quantize(minor_unit(currency), context=EXACT):
        value = value.quantize(minor_unit(currency), context=EXACT)
    sign = MINUS if value < 0 else ""
    digits = f"{abs(value):,f}".replace(",", THIN)
    symbol = _SIGNS.get(currency)
    return f"{sign}{symbol}{digits}" if symbol else f"{sign}{digits} {currency}".rstrip()


def percent(part: Decimal | float | None, whole: Decimal | float | None, digits: int = 0) -> str:
    """`12 %` of a whole; a dash when there is no whole. `0 %` is nothing, and `100 %` all: what is near is not."""
    if part is None or not whole:
        return DASH
    share, step = Decimal(part) * 100 / Decimal(whole), Decimal(1).scaleb(-digits)
    rounded = share.quantize(step, rounding=ROUND_HALF_EVEN)
    if share and not rounded:
        rounded = step.copy_sign(share)
    elif share < 100 <= rounded:
        rounded = 100 - step
    return f"{rounded}{THIN}%".replace("-", MINUS)


def when(moment: str | int | datetime | None) -> str:
    """`25 Nov 2026, 14:05:09`, of RFC 3339, Unix microseconds or an instant; in UTC, which the pages say once."""
    found = _instant(moment)
    return DASH if found is None else f"{found.day} {found:%b %Y, %H:%M:%S}"


def day(moment: str | int | datetime | None) -> str:
    """`25 Nov 2026`."""
    found = _instant(moment)
    return DASH if found is None else f"{found.day} {found:%b %Y}"


def machine_time(moment: str | int | datetime) -> str:
    """For the attribute `datetime`."""
    found = _instant(moment)
    return "" if found is None else found.isoformat().replace("+00:00", "Z")


def month_name(period: Period | str) -> str:
    """`November 2026`."""
    found = Period.parse(period) if isinstance(period, str) else period
    return f"{datetime(found.year, found.month, 1, tzinfo=UTC):%B %Y}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 session`, `2 sessions`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def span(us: int) -> str:
    """`3 minutes`, of microseconds, in the largest unit of which there are two."""
    for unit_us, name in ((86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute")):
        if us >= 2 * unit_us:
            return plural(us // unit_us, name)
    return plural(us // 1_000_000, "second")


def number(value: Decimal | None) -> str:
    """`1`, `2.5`: a quantity without zeros at its end."""
    return DASH if value is None else count(value.normalize() if value % 1 else int(value))


def short(text: object, most: int) -> str:
    """A text cut to so many characters."""
    found = str(text)
    return found if len(found) <= most else found[: most - 1] + "…"


def brief(identifier: str) -> str:
    """A long id by its beginning and its end, for lists; the whole one is behind the link."""
    return identifier if len(identifier) <= 24 else f"{identifier[:12]}…{identifier[-6:]}"


def some(number: int, most: int = COUNTED_MAX) -> str:
    """A number, or that there are more than were counted."""
    return count(number) if number <= most else f"over {count(most)}"


def ended(text: str) -> str:
    """A sentence with its full stop."""
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def listed(values: object) -> str:
    """`a, b`; a dash for nothing."""
    return ", ".join(map(str, values)) or DASH if isinstance(values, list) else DASH


def count_of(value: object, one: str, many: str) -> str:
    """`5 messages`, of a number that an event may not have."""
    return plural(value, one, many) if isinstance(value, int) else f"{DASH} {many}"


def duration(seconds: int) -> str:
    """`3 minutes`, in the largest unit of which there are two."""
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * unit:
            return plural(seconds // unit, name)
    return plural(seconds, "second")


def units(value: Decimal) -> str:
    """A quantity without zeros at its end."""
    return count(Decimal(f"{value.normalize():f}"))


def part_of_path(text: str) -> str:
    """An id as one segment of a path."""
    return quote(text, safe="")


def _instant(moment: str | int | datetime | None) -> datetime | None:
    match moment:
        case None:
            return None
        case int():
            return from_us(moment)
        case str():
            return datetime.fromisoformat(moment).astimezone(UTC)
    return moment.astimezone(UTC)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "count": count,
    "money": money,
    "percent": percent,
    "when": when,
    "day": day,
    "machine_time": machine_time,
    "month_name": month_name,
    "plural": plural,
    "segment": part_of_path,
    "span": span,
    "number": number,
    "short": short,
    "brief": brief,
    "some": some,
    "ended": ended,
    "listed": listed,
    "count_of": count_of,
    "duration": duration,
    "units": units,
}
