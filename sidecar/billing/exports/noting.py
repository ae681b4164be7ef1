"""Writing entries: what events and decisions mean for the meters, in the transaction that takes their notes off."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports.config import Destination, Meter
from sidecar.billing.exports.counting import Part, changes, counted, metered
from sidecar.billing.exports.sums import move
from sidecar.billing.exports.tables import export_events, export_meters
from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.differences import Group
from sidecar.billing.ledger.entries import CHUNK, account_rows
from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.account import UNATTRIBUTED, Account, Row
from sidecar.billing.rating.price import EXACT, ZERO

Key = tuple[str, str]  # target and meter


@dataclass(slots=True)
class Written:
    """What was written about outcomes at one meter before: units, and how many entries."""

    units: dict[str, Decimal] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)


async def begin(connection: AsyncConnection, destinations: Iterable[Destination], now_us: int) -> None:
    """Remember from when on each meter receives; a meter that is known keeps its beginning."""
    rows = [
        {"target": one.name, "meter": code, "since_us": now_us} for one in destinations for code in one.meters
    ]  # fmt: skip
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    once = dialect.insert(export_meters).on_conflict_do_nothing(index_elements=["target", "meter"])
    await connection.execute(once, rows)


async def since(connection: AsyncConnection) -> dict[Key, int]:
    """From when on each meter receives."""
    return {(row.target, row.meter): row.since_us for row in await connection.execute(select(export_meters))}


async def note_exports(
    connection: AsyncConnection,
    catalog: Catalog,
    destinations: Sequence[Destination],
    group: Group,
    now_us: int,
    *,
    whole: Iterable[str] = (),
) -> None:
    """Write entries for a group's events and for `whole` customers; before its notes are taken off, under their lock.

    It is the very group that is summed up next: an event that came later has a note of its own, for the next time.

    A customer whose plan couples all its events, or was changed, is looked at as a whole, as its invoice is.
    """
    sums = Aggregates(connection, catalog)
    names = {row.customer for row in group.now} | set(whole)
    names.discard(UNATTRIBUTED)
    customers = await catalog.customers(names)
    added: list[dict[str, Any]] = []
    for name in sorted(names):
        sections_of = await catalog.sections_of(name)
        rows: tuple[Row, ...] = group.now
        if name in whole or not await sums.current(name, sections_of):
            rows = await account_rows(connection, name)
        account = Account(customers[name], rows)
        added += await _write(connection, destinations, account, counted(account, sections_of), now_us)
    await move(connection, [(None, row) for row in added])


async def _write(
    connection: AsyncConnection,
    destinations: Sequence[Destination],
    account: Account,
    parts: Sequence[Part],
    now_us: int,
) -> list[dict[str, Any]]:
    known = {row.id: row for row in account.own}
    taken = await received(connection, known)
    written = await _written(connection, known)
    begun = await since(connection)
    rows = []
    for destination in destinations:
        for code, meter in destination.meters.items():
            key = destination.name, code
            ours = {identifier for identifier in known if taken[identifier] >= begun[key]}
            now = {identifier: units for identifier, units in metered(parts, meter).items() if identifier in ours}
            before = written[key]
            for identifier, quantity in sorted(changes(now, before.units).items()):
                number = before.entries.get(identifier, 0)
                rows.append(_entry(key, known[identifier], number, quantity, now_us))
    if rows:
        await connection.execute(export_events.insert(), rows)
    return rows


def _entry(key: Key, row: Row, number: int, quantity: Decimal, now_us: int) -> dict[str, Any]:
    """What is counted in the period of its own time has that time; what comes later is an event of now."""
    own_time = number == 0 and quantity > 0 and row.counts_from == row.period
    return {
        "target": key[0],
        "meter": key[1],
        "outcome_id": row.id,
        "number": number,
        "customer": row.customer,
        "period": str(row.period),
        "quantity": f"{quantity:f}",
        "at_us": row.at_us if own_time else max(row.at_us, now_us),
        "created_us": now_us,
        "id": entry_id(key, row.id, number),
        "state": "waiting",
        "alone": False,
        "attempts": 0,
        "keys_spent": 0,
        "next_us": now_us,
    }


def entry_id(key: Key, outcome_id: str, number: int) -> str:
    """The same whoever writes it, at most 100 characters."""
    digest = hashlib.sha256("\n".join((*key, outcome_id, str(number))).encode()).hexdigest()
    return f"exp_{digest[:48]}"


async def received(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, int]:
    """When outcomes were taken."""
    found: dict[str, int] = {}
    for chunk in _chunks(ids):
        query = select(outcomes.c.id, outcomes.c.received_us).where(outcomes.c.id.in_(chunk))
        found |= {row.id: row.received_us for row in await connection.execute(query)}
    return found


async def _written(connection: AsyncConnection, ids: Iterable[str]) -> Mapping[Key, Written]:
    found: dict[Key, Written] = defaultdict(Written)
    table = export_events.c
    for chunk in _chunks(ids):
        query = select(table.target, table.meter, table.outcome_id, table.quantity).where(table.outcome_id.in_(chunk))
        for row in await connection.execute(query):
            one, outcome = found[row.target, row.meter], row.outcome_id
            one.units[outcome] = EXACT.add(one.units.get(outcome, ZERO), Decimal(row.quantity))
            one.entries[outcome] = one.entries.get(outcome, 0) + 1
    return found


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    wanted = list(ids)
    return (wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK))


def total(meter: Meter, parts: Iterable[Part], ours: set[str]) -> Decimal:
    """Everything that a meter counts of some outcomes."""
    units = ZERO
    for identifier, one in metered(parts, meter).items():
        if identifier in ours:
            units = EXACT.add(units, one)
    return units
