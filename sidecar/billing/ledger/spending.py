"""Who is nearest the cap of their plan: kept as a share of it, so that the few at the top are found among all.

A share is noted when the sums of a customer change, and says only where to look: what is shown is the invoice's.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.tables import spends
from sidecar.billing.rating.cost import Cost
from sidecar.billing.rating.periods import Period

_SHARE_MAX = Decimal(1_000_000)


async def note(connection: AsyncConnection, costs: Sequence[Cost]) -> None:
    """Note how near sections with a cap have come to it; of several in one period, the last one's counts."""
    rows = [
        {
            "customer": cost.section.customer.id, "period": str(cost.section.period),
            "share": float(_share(cost.subtotal, cost.section.plan.plan.guardrails.max_spend_cap)),
        }
        for cost in costs
    ]  # fmt: skip
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(spends)
        new = {"share": statement.excluded.share}
        once = statement.on_conflict_do_update(index_elements=["customer", "period"], set_=new)
        await connection.execute(once, rows)


def _share(amount: Decimal, cap: Decimal | None) -> Decimal:
    """Of a cap of nothing, everything was spent."""
    return min(_SHARE_MAX, amount / cap) if cap else _SHARE_MAX


async def nearest(connection: AsyncConnection, period: Period, limit: int) -> list[str]:
    """The customers who have come nearest to their caps in a period."""
    query = select(spends.c.customer).where(spends.c.period == str(period)).order_by(spends.c.share.desc())
    return list((await connection.execute(query.limit(limit))).scalars())
