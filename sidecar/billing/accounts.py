"""What several invoices come to, for lists: amounts without what lies behind them, from the sums that are kept.

An account that must be rated from its rows (`ledger.aggregates`) is, if it has few; else its amounts are left out
here, and its own invoice has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.entries import account_rows, has_few
from sidecar.billing.ledger.tables import customer_versions, outcomes, rated
from sidecar.billing.rating.account import UNATTRIBUTED, Account
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.invoice import written
from sidecar.billing.rating.movements import Movements, movements_of
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.taking_back import NOTHING
from sidecar.billing.service import Billing


@dataclass(frozen=True, slots=True)
class Named:
    """A customer with the invoice of a month, and `charged`, how many outcomes that charges (`rating.cost.Charged`);
    None when that takes longer than a list may.
    """

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
    movements = await Aggregates(connection, catalog).soon(customer)
    if movements is None:
        billing.stale.add(customer)
        movements = await _from_rows(connection, catalog, customer)
    if movements is None:
        return [None] * len(periods)
    costs, closed = Costs(sections_of, movements), await catalog.closings()
    return [
        {
            **written(customer, costs, period, NOTHING),
            "charged": costs.charged(period),
            "status": "open" if closed.of(period) is None else "closed",
        }
        for period in periods
    ]


async def _from_rows(connection: AsyncConnection, catalog: Catalog, customer: str) -> Movements | None:
    if not await has_few(connection, customer):
        return None
    account = Account((await catalog.customers([customer]))[customer], await account_rows(connection, customer))
    return await asyncio.to_thread(movements_of, account, await catalog.sections_of(customer))


async def _names(connection: AsyncConnection, search: str | None, after: str, limit: int) -> list[str]:
    columns = (customer_versions.c.customer, rated.c.customer)
    parts = [select(column).distinct().where(column > after).order_by(column) for column in columns]
    parts.append(_named_by_outcomes(after))
    bounded = []
    for part in parts:
        column = part.selected_columns[0]
        wanted = part.where(column != UNATTRIBUTED)
        if search is not None:
            wanted = wanted.where(column.icontains(search, autoescape=True))
        bounded.append(select(wanted.limit(limit).subquery()))
    found = union(*bounded).subquery()
    return list((await connection.execute(select(found).order_by(found.c.customer).limit(limit))).scalars())


def _named_by_outcomes(after: str) -> Select[tuple[str]]:
    """Names in order, each found in the index as the first after the one before: a step per name, not per outcome.

    They come in the order in which they are found, so that a page takes no more steps than it shows names.
    """
    o = outcomes.c
    names = select(func.min(o.customer).label("customer")).where(o.customer > after).cte("names", recursive=True)
    following = select(func.min(o.customer)).where(o.customer > names.c.customer).scalar_subquery()
    return select(names.union_all(select(following).where(names.c.customer.is_not(None))).c.customer)
