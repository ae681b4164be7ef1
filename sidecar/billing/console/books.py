"""The books: what tenants state beside what has arrived, and which months are closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from sqlalchemy import select

from sidecar.billing.api.keys import BILLING
from sidecar.billing.console.shell import render
from sidecar.billing.ledger.catalog import born_us
from sidecar.billing.ledger.closing import due_us
from sidecar.billing.ledger.tables import closings
from sidecar.billing.rating.periods import Period

_CLOSINGS_SHOWN = 24


def missing(tenants: Iterable[Mapping[str, Any]]) -> int:
    """Sessions that were stated and have not arrived."""
    return sum(lacking(one) for one in tenants)


def lacking(tenant: Mapping[str, Any]) -> int:
    """By its newest statement, or by the one that is an hour old: what came later may hide behind the newest."""
    overdue = tenant["overdue"]
    return int(max(tenant["difference"], overdue["missing"] if overdue else 0))


async def show(request: web.Request) -> web.StreamResponse:
    """Statements, and closings of months."""
    billing = request.app[BILLING]
    books = await billing.books()
    tenants = books.tenants
    query = select(closings.c.period, closings.c.closed_us).order_by(closings.c.seq.desc()).limit(_CLOSINGS_SHOWN)
    async with billing.database.reading() as connection:
        closed = list((await connection.execute(query)).mappings())
        born = await born_us(connection)
    first_open = Period.parse(closed[0]["period"]).next if closed else None
    now = Period.of(billing.clock())
    following = first_open if first_open is not None and first_open < now else now
    return render(
        request,
        "books.html",
        more=books.more,
        tenants=sorted(tenants, key=lambda one: (not one["alarm"], -lacking(one), one["tenant"])),
        missing=missing(tenants),
        alarms=sum(one["alarm"] for one in tenants),
        closed=closed,
        following=following,
        due_us=None if born is None else due_us(following, born, billing.grace_us),
    )
