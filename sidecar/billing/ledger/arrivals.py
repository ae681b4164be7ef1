"""How many sessions of a tenant have arrived, by their first outcomes' times: what statements are held against.

Minutes are summed up in `tallies`; what still waits to be is looked up once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import BigInteger, ColumnElement, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import MINUTE_US
from sidecar.billing.ledger.stated import HOUR_US
from sidecar.billing.ledger.tables import outcomes, pending, tallies

EVER_US = 1 << 62


class Arrivals:
    """One tenant's, in one snapshot of the database."""

    def __init__(self, connection: AsyncConnection, tenant: str, waiting: Mapping[int, int]) -> None:
        self._connection = connection
        self._tenant = tenant
        self._waiting = waiting  # by minute

    @classmethod
    async def of(cls, connection: AsyncConnection, tenant: str) -> Arrivals:
        """Reads what is not summed up yet."""
        minute_us = _beginning(outcomes.c.at_us, MINUTE_US)
        query = (
            select(minute_us, func.count())
            .select_from(pending.join(outcomes, outcomes.c.id == pending.c.outcome_id))
            .where(pending.c.number == 0, outcomes.c.tenant == tenant, outcomes.c.revision == 0)
            .group_by(minute_us)
        )
        rows = (await connection.execute(query)).all()
        return cls(connection, tenant, {int(minute): int(number) for minute, number in rows})

    async def by_hour(self, from_us: int, until_us: int) -> Counter[int]:
        """Of whole hours, by their beginnings."""
        hour_us = _beginning(tallies.c.minute_us, HOUR_US)
        query = (
            select(hour_us, func.sum(tallies.c.sessions))
            .where(tallies.c.tenant == self._tenant)
            .where(tallies.c.minute_us >= from_us, tallies.c.minute_us < until_us)
            .group_by(hour_us)
        )
        found = Counter({int(hour): int(number) for hour, number in (await self._connection.execute(query)).all()})
        for minute_us, number in self._waiting.items():
            if from_us <= minute_us < until_us:
                found[minute_us - minute_us % HOUR_US] += number
        return found

    async def between(self, from_us: int, until_us: int = EVER_US) -> int:
        """Exactly: of minutes that are not in it as a whole, outcomes are counted one by one."""
        first_us, last_us = -(-from_us // MINUTE_US) * MINUTE_US, until_us // MINUTE_US * MINUTE_US
        if first_us > last_us:
            return await self._one_by_one(from_us, until_us)
        parts = [(from_us, first_us), (last_us, until_us)]
        return await self._minutes(first_us, last_us) + sum(
            [await self._one_by_one(*part) for part in parts if part[0] < part[1]]
        )

    async def _minutes(self, from_us: int, until_us: int) -> int:
        query = select(func.coalesce(func.sum(tallies.c.sessions), 0)).where(
            tallies.c.tenant == self._tenant, tallies.c.minute_us >= from_us, tallies.c.minute_us < until_us
        )
        waiting = sum(number for minute_us, number in self._waiting.items() if from_us <= minute_us < until_us)
        return int((await self._connection.execute(query)).scalar_one()) + waiting

    async def _one_by_one(self, from_us: int, until_us: int) -> int:
        """Of less than a minute."""
        query = select(func.count()).where(
            outcomes.c.tenant == self._tenant, outcomes.c.revision == 0,
            outcomes.c.at_us >= from_us, outcomes.c.at_us < until_us,
        )  # fmt: skip
        return int((await self._connection.execute(query)).scalar_one())


def _beginning(at_us: ColumnElement[int], of_us: int) -> ColumnElement[int]:
    """Of the minute or hour. As a literal: PostgreSQL cannot tell that a parameter is the same in GROUP BY."""
    return at_us - at_us % literal_column(str(of_us), BigInteger)
