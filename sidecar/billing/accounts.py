"""What several invoices come to, for lists: amounts without what lies behind them, from the sums that are kept.

An account that must be rated from its rows (`ledger.aggregates`) is, if it has few; else its amounts are left out
here, and its own invoice has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.entries import account_rows
from sidecar.billing.ledger.tables import customer_versions, outcomes, rated
from sidecar.billing.rating.account import UNATTRIBUTED, Account
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.invoice import quantity, written
from sidecar.billing.rating.movements import Movements, movements_of
from sidecar.billing.rating.periods import Period
from sidecar.billing.service import Billing

FEW = 1000  # outcomes that are rated while a page waits


@dataclass(frozen=True, slots=True)
class Named:
    """A customer with the invoice of a month; None when that takes longer than a list may."""

    customer: str
    invoice: dict[str, Any] | None


async def listed(billing: Billing, period: Period, search: str | None, after: str, limit: int) -> list[Named]:
    """Customers in the order of their names, from after one on; with `search`, those whose names hold it."""
    async with billing.database.reading() as connection:
        names = await _names(connection, search, after, limit)
        catalog = Catalog(connection)
        await catalog.customers(names)
        return [Named(name, (await _made(billing, connection, catalog, name, [period]))[0]) for name in names]


async def invoices(billing: Billing, customer: str, periods: Sequence[Period]) -> list[dict[str, Any] | None]:
    """One customer's invoices of several months."""
    async with billing.database.reading() as connection:
        return await _made(billing, connection, Catalog(connection), customer, periods)


async def _made(
    billing: Billing, connection: AsyncConnection, catalog: Catalog, customer: str, periods: Sequence[Period]
) -> list[dict[str, Any] | None]:
    sections_of = await catalog.sections_of(customer)
    movements = await Aggregates(connection, catalog).read(customer)
    if movements is None:
        billing.stale.add(customer)
        movements = await _from_rows(connection, catalog, customer)
    if movements is None:
        return [None] * len(periods)
    costs, closed = Costs(sections_of, movements), await catalog.closings()
    return [_with_more(written(customer, costs, period, {}), closed.of(period)) for period in periods]


def _with_more(made: dict[str, Any], closed_us: int | None) -> dict[str, Any]:
    """The invoice with its status and how many units it bills, of lines that count any."""
    charged = sum((Decimal(line["billed"]) for line in made["lines"] if line["sessions"] is not None), Decimal(0))
    return {**made, "charged": quantity(charged), "status": "open" if closed_us is None else "closed"}


async def _from_rows(connection: AsyncConnection, catalog: Catalog, customer: str) -> Movements | None:
    some = select(outcomes.c.seq).where(outcomes.c.customer == customer).limit(FEW + 1).subquery()
    if (await connection.execute(select(func.count()).select_from(some))).scalar_one() > FEW:
        return None
    account = Account((await catalog.customers([customer]))[customer], await account_rows(connection, customer))
    return await asyncio.to_thread(movements_of, account, await catalog.sections_of(customer))


async def _names(connection: AsyncConnection, search: str | None, after: str, limit: int) -> list[str]:
    parts = []
    for table in (customer_versions, rated):
        column = table.c.customer
        part = select(column).distinct().where(column > after, column != UNATTRIBUTED).order_by(column).limit(limit)
        if search is not None:
            part = part.where(column.icontains(search, autoescape=True))
        parts.append(select(part.subquery()))
    found = union(*parts).subquery()
    return list((await connection.execute(select(found).order_by(found.c.customer).limit(limit))).scalars())
