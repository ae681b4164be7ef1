"""How many sessions of each tenant are here, by the hours of their first outcomes: what statements are held against.

`tallies` has what is summed up. What still waits to be is read once, for everybody. Of an hour that is asked for in
part, outcomes are counted one by one, from its nearer end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import BigInteger, ColumnElement, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.entries import Record
from sidecar.billing.ledger.tables import outcomes, pending, tallies
from sidecar.billing.ledger.upserting import upsert

HOUR_US = 3_600_000_000
EVER_US = (1 << 62) // HOUR_US * HOUR_US


async def tally(connection: AsyncConnection, rows: Iterable[Record]) -> None:
    """Count first outcomes. The caller holds the lock, and takes their notes off."""
    counts = Counter((row["tenant"] or "", hour_of(row["at_us"])) for row in rows)
    new = [
        {"tenant": tenant, "hour_us": hour_us, "sessions": number}
        for (tenant, hour_us), number in sorted(counts.items())
    ]
    await upsert(connection, tallies, new, adds=("sessions",))


async def waiting(connection: AsyncConnection) -> dict[str, Counter[int]]:
    """What is not in `tallies` yet, by tenant and the hours' beginnings."""
    hour_us = _hour_of(outcomes.c.at_us)
    query = (
        select(outcomes.c.tenant, hour_us, func.count())
        .select_from(pending.join(outcomes, outcomes.c.id == pending.c.outcome_id))
        .where(pending.c.number == 0, pending.c.revision == 0)
        .group_by(outcomes.c.tenant, hour_us)
    )
    found: dict[str, Counter[int]] = {}
    for tenant, hour, number in await connection.execute(query):
        found.setdefault(tenant or "", Counter())[hour] += number
    return found


class Tallied:
    """One tenant's sessions, in one snapshot of the database; `waits` is its part of what is `waiting`."""

    def __init__(self, connection: AsyncConnection, tenant: str, waits: Counter[int]) -> None:
        self._connection = connection
        self._tenant = tenant
        self._waits = waits

    async def by_hour(self, from_us: int, until_us: int) -> Counter[int]:
        """Of whole hours, by their beginnings."""
        hour_us = _hour_of(tallies.c.hour_us)  # a replica of an earlier version may still write minutes
        query = (
            select(hour_us, func.sum(tallies.c.sessions))
            .where(tallies.c.tenant == self._tenant)
            .where(tallies.c.hour_us >= from_us, tallies.c.hour_us < until_us)
            .group_by(hour_us)
        )
        found = Counter({int(hour): int(number) for hour, number in (await self._connection.execute(query)).all()})
        return found + self._waiting(from_us, until_us)

    async def between(self, from_us: int, until_us: int = EVER_US) -> int:
        """Exactly, from the one microsecond on until before the other."""
        if from_us >= until_us:
            return 0
        whole = await self._whole(hour_of(from_us), hour_of(until_us))
        return whole - await self._part(from_us) + await self._part(until_us)

    async def _part(self, until_us: int) -> int:
        """Of an hour, until then."""
        hour_us = hour_of(until_us)
        if until_us == hour_us:
            return 0
        if until_us - hour_us <= HOUR_US // 2:
            return await self._one_by_one(hour_us, until_us)
        next_us = hour_us + HOUR_US
        return await self._whole(hour_us, next_us) - await self._one_by_one(until_us, next_us)

    async def _whole(self, from_us: int, until_us: int) -> int:
        query = select(func.coalesce(func.sum(tallies.c.sessions), 0)).where(
            tallies.c.tenant == self._tenant, tallies.c.hour_us >= from_us, tallies.c.hour_us < until_us
        )
        summed = int((await self._connection.execute(query)).scalar_one())
        return summed + self._waiting(from_us, until_us).total()

    def _waiting(self, from_us: int, until_us: int) -> Counter[int]:
        return Counter({hour_us: number for hour_us, number in self._waits.items() if from_us <= hour_us < until_us})

    async def _one_by_one(self, from_us: int, until_us: int) -> int:
        query = select(func.count()).where(
            outcomes.c.tenant == self._tenant, outcomes.c.revision == 0,
            outcomes.c.at_us >= from_us, outcomes.c.at_us < until_us,
        )  # fmt: skip
        return int((await self._connection.execute(query)).scalar_one())


def hour_of(at_us: int) -> int:
    """The beginning of the hour that an instant lies in."""
    return at_us - at_us % HOUR_US


def _hour_of(at_us: ColumnElement[int]) -> ColumnElement[int]:
    """The same. As a literal: PostgreSQL cannot tell that a parameter is the same in GROUP BY."""
    return at_us - at_us % literal_column(str(HOUR_US), BigInteger)
