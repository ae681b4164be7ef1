"""Which entries may be claimed, by queries whose cost does not grow with how many wait.

Where a customer's entries for a meter go alone, one that has very many of them hides all others in the order of time.
So the first that are due are looked at, and where they belong to too few, every customer that waits is asked for its
first: a loose index scan, one step for a customer, however many entries it has.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports.config import Destination
from sidecar.billing.exports.tables import export_events, export_meters

Lane = tuple[str, str]  # a meter and a customer
LOOKED_AT = 8  # entries for each request, so that those of several customers are found
_E = export_events


def due(destination: Destination, now_us: int, entries: Any = _E) -> Any:
    """Waiting, due, and with every earlier entry about the same outcome acknowledged; `entries` may be an alias."""
    earlier = _E.alias("earlier")
    open_before = (
        select(earlier.c.seq)
        .where(
            earlier.c.outcome_id == entries.c.outcome_id,
            earlier.c.target == entries.c.target,
            earlier.c.meter == entries.c.meter,
            earlier.c.number < entries.c.number,
            earlier.c.state != "acknowledged",
        )
        .exists()
    )
    return and_(
        entries.c.target == destination.name,
        entries.c.meter.in_(list(destination.meters)),
        entries.c.state == "waiting",
        entries.c.next_us <= now_us,
        ~open_before,
    )


async def any_due(connection: AsyncConnection, destination: Destination, now_us: int) -> bool:
    """Whether a claim would find anything."""
    if destination.traits.customer_alone:
        return bool(await firsts(connection, destination, now_us, 1))
    query = select(_E.c.seq).where(due(destination, now_us)).limit(1)
    return (await connection.execute(query)).first() is not None


async def firsts(connection: AsyncConnection, destination: Destination, now_us: int, most: int) -> list[int]:
    """Up to `most` entries that are due: the first of each lane of which none is on its way."""
    busy = await _busy(connection, destination, now_us)
    looked_at = most * LOOKED_AT
    ordered = select(_E.c.seq, _E.c.meter, _E.c.customer).order_by(_E.c.next_us, _E.c.seq)
    near = (await connection.execute(ordered.where(due(destination, now_us)).limit(looked_at))).all()
    found: dict[Lane, int] = {}
    for seq, *lane in near:
        if tuple(lane) not in busy:
            found.setdefault((lane[0], lane[1]), seq)
    if len(found) < most and len(near) == looked_at:
        query = _first_of_each(destination, now_us).limit(most + len(busy))
        rows = await connection.execute(query)
        found = {(row.meter, row.customer): row.seq for row in rows if (row.meter, row.customer) not in busy}
    return list(found.values())[:most]


async def _busy(connection: AsyncConnection, destination: Destination, now_us: int) -> set[Lane]:
    """Lanes with an entry on its way."""
    claimed = and_(_E.c.target == destination.name, _E.c.claim.is_not(None), _E.c.next_us > now_us)
    rows = await connection.execute(select(_E.c.meter, _E.c.customer).where(claimed).distinct())
    return {(row.meter, row.customer) for row in rows}


def _first_of_each(destination: Destination, now_us: int) -> Any:
    """The first entry due of every lane, in the order in which they were written.

    PostgreSQL has no loose index scan of its own: a recursion goes from a customer to the next
    (https://wiki.postgresql.org/wiki/Loose_indexscan).
    """
    waits = and_(_E.c.target == destination.name, _E.c.state == "waiting")
    meters = export_meters
    ours = and_(meters.c.target == destination.name, meters.c.meter.in_(list(destination.meters)))
    lanes = select(meters.c.meter, literal("").label("customer")).where(ours).cte("lanes", recursive=True)
    following = (
        select(_E.c.customer)
        .where(waits, _E.c.meter == lanes.c.meter, _E.c.customer > lanes.c.customer)
        .order_by(_E.c.customer)
        .limit(1)
        .scalar_subquery()
    )
    lanes = lanes.union_all(select(lanes.c.meter, following).where(lanes.c.customer.is_not(None)))
    one = _E.alias("one")
    first = (
        select(one.c.seq)
        .where(due(destination, now_us, one), one.c.meter == lanes.c.meter, one.c.customer == lanes.c.customer)
        .order_by(one.c.next_us, one.c.seq)
        .limit(1)
        .scalar_subquery()
    )
    heads = select(lanes.c.meter, lanes.c.customer, first.label("seq")).where(lanes.c.customer != "").subquery()
    return select(heads).where(heads.c.seq.is_not(None)).order_by(heads.c.seq)
