"""Cursors and other parts of a page's address: read from a request, and written into the links of the next page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from aiohttp import web

from sidecar.billing.api.outcomes import SEQ_MAX
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import whole_number
from sidecar.billing.ledger.append import storable
from sidecar.billing.rating.periods import to_us

TEXT_MAX = 1024


def numbers(request: web.Request, count: int, name: str = "after") -> tuple[int, ...] | None:
    """`?after=12.34` as so many whole numbers; None without it."""
    text = request.query.get(name)
    if text is None:
        return None
    parts = text.split(".")
    if len(parts) != count:
        raise _no_cursor(name)
    return tuple(whole_number(part, name, 0, SEQ_MAX) for part in parts)


def number_and_text(request: web.Request, name: str = "after") -> tuple[int, str] | None:
    """`?after=12.an-id`; None without it."""
    text = request.query.get(name)
    if text is None:
        return None
    number, dot, rest = text.partition(".")
    if not dot or len(rest) > TEXT_MAX:
        raise _no_cursor(name)
    return whole_number(number, name, 0, SEQ_MAX), storable(rest) or ""


def text(request: web.Request, name: str) -> str | None:
    """What somebody wrote into a field, without blanks around it; None when it is empty."""
    found = (storable(request.query.get(name)) or "").strip()
    if len(found) > TEXT_MAX:
        raise ProblemError(400, f"{name} has at most {TEXT_MAX} characters")
    return found or None


def day_us(request: web.Request, name: str, *, end: bool = False) -> int | None:
    """`?name=2026-11-25` as the instant at which the day begins, or ends."""
    found = text(request, name)
    if found is None:
        return None
    try:
        day = datetime.strptime(found, "%Y-%m-%d").replace(tzinfo=UTC)
        return to_us(day + timedelta(days=1 if end else 0))
    except (ValueError, OverflowError):
        raise ProblemError(400, f"{name} must be a day like 2026-11-25, not {found!r}") from None


def following(request: web.Request, *parts: object, name: str = "after") -> str:
    """The address of the next page, which begins after such a place."""
    return address(request.rel_url.raw_path, {**request.query, name: ".".join(map(str, parts))})


def address(path: str, query: Mapping[str, object]) -> str:
    """A path with its query, without what is empty."""
    given = {name: str(value) for name, value in query.items() if value not in {None, ""}}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def _no_cursor(name: str) -> ProblemError:
    return ProblemError(400, f"{name} is no place in this list: begin at its first page")
