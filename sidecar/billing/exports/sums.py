"""Entries and units of every meter by month and state, moved in the transactions that move entries.

So a page says how many were acknowledged without counting them. Each transaction changes sums last and in one order:
two that wait for each other cannot both hold what the other wants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports.tables import export_sums
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO

Place = tuple[str, str, str, str, bool]  # target, meter, period, state, whether it was ever sent
Move = tuple[Mapping[str, Any] | None, Mapping[str, Any]]  # an entry before, None for a new one, and after
_NAMES = ("target", "meter", "period", "state", "sent")
STATES = ("acknowledged", "waiting", "parked")


@dataclass(slots=True)
class Sum:
    """What lies in one place, or is added to it."""

    entries: int = 0
    units: Decimal = ZERO

    def add(self, entries: int, units: Decimal) -> None:
        """More of it, or less."""
        self.entries += entries
        self.units = EXACT.add(self.units, units)


@dataclass(slots=True)
class Tally:
    """What lies in each state at a meter, and what of it was ever sent."""

    states: dict[str, Sum] = field(default_factory=lambda: {state: Sum() for state in STATES})
    sent: Sum = field(default_factory=Sum)

    @property
    def written(self) -> Sum:
        """All of it."""
        total = Sum()
        for one in self.states.values():
            total.add(one.entries, one.units)
        return total

    def shown_units(self) -> dict[str, str]:
        """By state, as decimal texts."""
        return {state: f"{one.units:f}" for state, one in self.states.items()}


def tallied(found: Mapping[Place, Sum], period: Period | None = None) -> Mapping[tuple[str, str], Tally]:
    """By target and meter; of a month, or of all."""
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for (target, meter, month, state, sent), one in found.items():
        if period is None or month == str(period):
            tally = tallies[target, meter]
            tally.states[state].add(one.entries, one.units)
            if sent:
                tally.sent.add(one.entries, one.units)
    return tallies


def place_of(row: Mapping[str, Any]) -> Place:
    """Where an entry is counted."""
    return row["target"], row["meter"], row["period"], row["state"], row.get("sent_us") is not None


async def move(connection: AsyncConnection, moves: Iterable[Move]) -> None:
    """Count entries where they are now and no longer where they were; the last thing that a transaction does."""
    changes: dict[Place, Sum] = defaultdict(Sum)
    for before, after in moves:
        units = Decimal(after["quantity"])
        if before is not None:
            changes[place_of(before)].add(-1, EXACT.minus(units))
        changes[place_of(after)].add(1, units)
    for place in sorted(changes):
        if changes[place].entries or changes[place].units:
            await _change(connection, place, changes[place])


async def _change(connection: AsyncConnection, place: Place, change: Sum) -> None:
    table = export_sums
    named = dict(zip(_NAMES, place, strict=True))
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    absent = dialect.insert(table).values(**named, entries=0, units="0").on_conflict_do_nothing()
    await connection.execute(absent)
    here = and_(*(table.c[name] == value for name, value in named.items()))
    known = (await connection.execute(select(table).where(here).with_for_update())).mappings().one()
    units = EXACT.add(Decimal(known["units"]), change.units)
    values = {"entries": known["entries"] + change.entries, "units": f"{units:f}"}
    await connection.execute(update(table).where(here).values(values))


async def read(
    connection: AsyncConnection, target: str | None = None, period: Period | None = None
) -> dict[Place, Sum]:
    """All sums, of one target or of one month."""
    query = select(export_sums)
    if target is not None:
        query = query.where(export_sums.c.target == target)
    if period is not None:
        query = query.where(export_sums.c.period == str(period))
    return {
        (row.target, row.meter, row.period, row.state, bool(row.sent)): Sum(row.entries, Decimal(row.units))
        for row in await connection.execute(query)
    }
