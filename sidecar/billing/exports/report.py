"""What was written for each meter and what became of it, beside what the ledger counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports import sums
from sidecar.billing.exports.config import Destination, Meter
from sidecar.billing.exports.counting import counted
from sidecar.billing.exports.noting import Key, received, since, total
from sidecar.billing.exports.sums import Tally
from sidecar.billing.exports.tables import export_decisions as decisions
from sidecar.billing.exports.tables import export_events as events
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.entries import account_rows, active_customers
from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.account import UNATTRIBUTED, Account
from sidecar.billing.rating.invoice import timestamp
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO

DECISIONS_LOOKED_AT = 1000


async def report(
    connection: AsyncConnection, destinations: Sequence[Destination], now_us: int, period: Period | None
) -> list[dict[str, Any]]:
    """Per target and meter; with a period, also what the ledger's rows of that month count, rated anew."""
    places, begun = await sums.read(connection), await since(connection)
    everything = sums.tallied(places)
    oldest, causes = await oldest_waiting(connection, destinations), await parked_causes(connection, destinations)
    of_period: Mapping[Key, Tally] = {}
    ledger: Mapping[Key, Decimal] = {}
    if period is not None:
        of_period = sums.tallied(places, period)
        ledger = await ledger_counts(connection, destinations, begun, period)
    found = []
    for destination in destinations:
        for code in destination.meters:
            key = destination.name, code
            tally, waits_since = everything.get(key, Tally()), oldest[key]
            age = None if waits_since is None else max(0, now_us - waits_since) // 1_000_000
            one: dict[str, Any] = {
                "target": destination.name,
                "kind": destination.target.kind,
                "meter": code,
                "since": timestamp(begun[key]),
                "written": tally.written.entries,
                "sent": tally.sent.entries,
                **{state: total.entries for state, total in tally.states.items()},
                "causes": causes.get(key, {}),
                "units": tally.shown_units(),
                "oldest_waiting_seconds": age,
                "reconciliation": None,
            }
            if period is not None:
                compared = reconciled(ledger.get(key, ZERO), of_period.get(key, Tally()))
                one["reconciliation"] = {"period": str(period), **compared}
            found.append(one)
    return found


def reconciled(counts: Decimal, tally: Tally) -> dict[str, str]:
    """`difference`: what the ledger counts less all that was written; 0 but for what waits to be noted."""
    difference = EXACT.subtract(counts, tally.written.units)
    return {"ledger": f"{counts:f}", **tally.shown_units(), "difference": f"{difference:f}"}


async def ledger_counts(
    connection: AsyncConnection, destinations: Sequence[Destination], begun: Mapping[Key, int], period: Period
) -> dict[Key, Decimal]:
    """What the rows of a month come to at every meter, from the rows themselves."""
    catalog = Catalog(connection)
    meters = {(one.name, code): meter for one in destinations for code, meter in one.meters.items()}
    found: dict[Key, Decimal] = dict.fromkeys(meters, ZERO)
    for name in await customers_of(connection, period):
        for key, units in (
            await units_of_customer(connection, catalog, meters, begun, period=period, name=name)
        ).items():
            found[key] = EXACT.add(found[key], units)
    return found


async def units_of_customer(
    connection: AsyncConnection,
    catalog: Catalog,
    meters: Mapping[Key, Meter],
    begun: Mapping[Key, int],
    *,
    period: Period,
    name: str,
) -> dict[Key, Decimal]:
    """What a customer's rows of a month come to at every meter; `begun` says since when each receives."""
    customer = (await catalog.customers([name]))[name]
    account = Account(customer, await account_rows(connection, name))
    parts = [part for part in counted(account, await catalog.sections_of(name)) if part.row.period == period]
    taken = await received(connection, {part.row.id for part in parts})
    return {
        key: total(meter, parts, {identifier for identifier, us in taken.items() if us >= begun[key]})
        for key, meter in meters.items()
    }


async def customers_of(connection: AsyncConnection, period: Period) -> list[str]:
    """Everybody with an event of the month, whenever it came."""
    by_time = select(outcomes.c.customer).where(outcomes.c.period == str(period)).distinct()
    names = {*(await connection.execute(by_time)).scalars(), *await active_customers(connection, period)}
    return sorted(names - {UNATTRIBUTED})


async def page(
    connection: AsyncConnection, target: str, state: str | None, before_seq: int | None, limit: int
) -> list[dict[str, Any]]:
    """Entries of a target, newest first."""
    query = select(events).where(events.c.target == target).order_by(events.c.seq.desc()).limit(limit)
    if state is not None:
        query = query.where(events.c.state == state)
    if before_seq is not None:
        query = query.where(events.c.seq < before_seq)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def oldest_waiting(connection: AsyncConnection, destinations: Sequence[Destination]) -> dict[Key, int | None]:
    """When the oldest entry that waits was written, of every meter; None where none waits."""
    found: dict[Key, int | None] = {}
    waits = select(func.min(events.c.created_us)).where(events.c.state == "waiting")
    for destination in destinations:
        for code in destination.meters:
            query = waits.where(events.c.target == destination.name, events.c.meter == code)
            found[destination.name, code] = (await connection.execute(query)).scalar()
    return found


async def parked_causes(connection: AsyncConnection, destinations: Sequence[Destination]) -> dict[Key, dict[str, int]]:
    """How many entries are parked for each cause, of every meter where any are; reads those and no others."""
    found: dict[Key, dict[str, int]] = defaultdict(dict)
    for destination in destinations:
        parked = and_(events.c.target == destination.name, events.c.state == "parked")
        query = select(events.c.meter, events.c.cause, func.count().label("number")).where(parked)
        grouped = query.group_by(events.c.meter, events.c.cause).order_by(events.c.cause)
        for row in await connection.execute(grouped):
            found[destination.name, row.meter][row.cause] = row.number
    return found


async def redeliveries(connection: AsyncConnection, target: str, limit: int) -> list[dict[str, Any]]:
    """What operators decided about a target's parked entries, newest first, among the newest decisions of all."""
    query = select(decisions).order_by(decisions.c.seq.desc()).limit(DECISIONS_LOOKED_AT)
    newest = [dict(row) for row in (await connection.execute(query)).mappings()]
    if not newest:
        return []
    # Two questions: a planner that is asked both at once reads all entries of the target.
    about = select(events.c.seq, events.c.id).where(events.c.seq.in_([row["event_seq"] for row in newest]))
    ids = {row.seq: row.id for row in await connection.execute(about.where(events.c.target == target))}
    return [{**row, "id": ids[row["event_seq"]]} for row in newest if row["event_seq"] in ids][:limit]
