"""Who is nearest the cap of their plan: kept as a share of it, so that the few at the top are found among all.

A share is noted when the sums of a customer change, and says only where to look: what is shown is the invoice's.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.tables import spends
from sidecar.billing.ledger.upserting import upsert
from sidecar.billing.rating.cost import Cost
from sidecar.billing.rating.periods import Period

_SHARE_MAX = Decimal(1_000_000)


async def note(connection: AsyncConnection, costs: Sequence[Cost]) -> None:
    """Note how near sections with a cap have come to it; of several in one period, the last one's counts."""
    shares = {
        (cost.section.customer.id, str(cost.section.period)): float(
            _share(cost.subtotal, cost.section.plan.plan.guardrails.max_spend_cap)
        )
        for cost in costs
    }
    rows = [{"customer": customer, "period": period, "share": share} for (customer, period), share in shares.items()]
    await upsert(connection, spends, rows, sets=("share",))


def _share(amount: Decimal, cap: Decimal | None) -> Decimal:
    """Of a cap of nothing, everything was spent."""
    return min(_SHARE_MAX, amount / cap) if cap else _SHARE_MAX


async def nearest(connection: AsyncConnection, period: Period, limit: int) -> list[str]:
    """The customers who have come nearest to their caps in a period."""
    query = select(spends.c.customer).where(spends.c.period == str(period)).order_by(spends.c.share.desc())
    return list((await connection.execute(query.limit(limit))).scalars())
