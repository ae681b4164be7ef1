"""Closing periods: once their grace time is over, nothing that stands on their invoices changes any more.

A closing is a row, so that all replicas agree. Events are taken while holding the same lock as is asked for here
exclusively: none that counted in a period can appear after it was closed.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.catalog import born_us, read_closings
from sidecar.billing.ledger.database import CLOSING, Database
from sidecar.billing.ledger.tables import closings
from sidecar.billing.rating.periods import Period


def due_us(period: Period, born: int, grace_us: int) -> int:
    """When a period is to be closed: after the grace time, and, for what the ledger did not live to see, after as long
    from its own beginning, so that history can be brought in.
    """
    return max(period.end_us, born) + grace_us


async def close_due(database: Database, now_us: int, grace_us: int) -> Period | None:
    """Close the newest period whose time has come, and so all before it; None when there is nothing to close."""
    async with database.reading() as connection:
        if await _due(connection, now_us, grace_us) is None:
            return None
    async with database.writing(lock=CLOSING) as connection:
        period = await _due(connection, now_us, grace_us)
        if period is not None:
            await connection.execute(closings.insert().values(period=str(period), closed_us=now_us))
        return period


async def _due(connection: AsyncConnection, now_us: int, grace_us: int) -> Period | None:
    born = await born_us(connection)
    if born is None or due_us(Period(2000, 1), born, grace_us) > now_us:
        return None
    period = Period.of(now_us - grace_us).before
    last = (await read_closings(connection)).last
    return period if last is None or period > last else None
