"""What one outcome costs: the invoice as it is, minus what it would be without it, to the cent, for any plan.

The units of an account are sums over groups of rows that have nothing to do with each other (`rating.movements`). So
those of the outcome's own group are exchanged for what the group makes without the outcome, and both accounts are
priced. Free units are used up in order, so what is left out is always the last unit: of 101 resolutions with 100 free,
each costs one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.entries import account_rows
from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.invoice import money, written
from sidecar.billing.rating.movements import Movements, added, less, movements_of
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.sections import SectionsOf
from sidecar.billing.rating.taking_back import NOTHING


async def worth(
    connection: AsyncConnection, catalog: Catalog, outcome: Mapping[str, Any]
) -> tuple[str | None, list[dict[str, str]]]:
    """Who is charged for a row of the ledger (None: nobody), and how much, by period and currency, but zeros."""
    aggregates = Aggregates(connection, catalog)
    note = {"session_id": outcome["session_id"], "outcome_id": outcome["id"]}
    payer = next(row for row in (await aggregates.group([note], set())).now if row.id == outcome["id"]).customer
    customer, sections_of = (await catalog.customers([payer]))[payer], await catalog.sections_of(payer)
    if outcome["shadow"] or not customer.attributed:
        return None, []
    rows, total = await _rows(connection, catalog, aggregates, payer, note)
    whole = Account(customer, tuple(rows))
    rest = Account(customer, tuple(row for row in rows if row.id != outcome["id"]))
    mine, without = movements_of(whole, sections_of), movements_of(rest, sections_of)
    total = mine if total is None else total
    with localcontext(EXACT):
        other = added([total, less(mine), without])
    found = differences(payer, sections_of, (total, other))
    return payer, [
        {"period": period, "currency": currency, "amount": money(amount)}
        for (period, currency), amount in found.items()
    ]


async def _rows(
    connection: AsyncConnection, catalog: Catalog, aggregates: Aggregates, payer: str, note: Mapping[str, str]
) -> tuple[Sequence[Row], Movements | None]:
    """The rows that have to do with the outcome, and the movements of the whole account (None: those of the rows)."""
    total = await aggregates.read(payer)
    if total is None:
        return await account_rows(connection, payer), None
    talkers = {payer} if await catalog.coupling(payer) == "conversation" else set()
    return (await aggregates.group([note], talkers)).now, total


def differences(
    payer: str, sections_of: SectionsOf, both: tuple[Movements, Movements]
) -> dict[tuple[str, str], Decimal]:
    """Invoices of the first account minus those of the second, by period and currency, but zeros.

    Of all periods: a later one's credits may be priced in another tier.
    """
    with_it, without = (Costs(sections_of, movements) for movements in both)
    found = {}
    for period in sorted({state.period for movements in both for _, state in movements}):
        now, then = (written(payer, costs, period, NOTHING)["totals"] for costs in (with_it, without))
        for currency in sorted(now.keys() | then.keys()):
            amount = Decimal(now.get(currency, "0")) - Decimal(then.get(currency, "0"))
            if amount:
                found[str(period), currency] = amount
    return found
