"""What runs work out, customer by customer over one snapshot of the ledger, so that one account at a time is in memory.

Each kind is an asynchronous generator: first the number of customers, then after each customer how many are done, and
at last the result as JSON can have it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports import sums
from sidecar.billing.exports.config import Meter
from sidecar.billing.exports.noting import Key, since
from sidecar.billing.exports.report import customers_of, reconciled, units_of_customer
from sidecar.billing.exports.sums import Tally
from sidecar.billing.ledger.catalog import Catalog, compiled
from sidecar.billing.ledger.entries import account_rows, active_customers
from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.account import UNATTRIBUTED, Account
from sidecar.billing.rating.backtest import Backtest
from sidecar.billing.rating.classes import Classes
from sidecar.billing.rating.invoice import money
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO, round_amount
from sidecar.billing.rating.summary import totals_of
from sidecar.policy.loading import load_plan

CUSTOMERS_MAX = 1000  # kept of a result; totals are over all
Job = Mapping[str, Any]
Progress = AsyncIterator[int | dict[str, Any]]


async def backtest(connection: AsyncConnection, job: Job) -> Progress:
    """The job's plan over its month beside what was charged; customers by the size of the difference."""
    period, loaded = Period.parse(job["period"]), load_plan(job["source"].encode(), job["about"])
    plan = compiled(job["source"], loaded.name, loaded.digest)
    catalog, test = Catalog(connection), Backtest(plan, period)
    names = await active_customers(connection, period)
    yield len(names)
    for number, name in enumerate(names, 1):
        customer = (await catalog.customers([name]))[name]
        test.add(Account(customer, await account_rows(connection, name)), await catalog.sections_of(name))
        yield number
    result = test.result()
    customers = sorted(result["customers"], key=lambda one: (-_size(one["difference"]), one["customer"]))
    yield {**result, "customers": customers[:CUSTOMERS_MAX], "customers_counted": len(customers)}


async def shadow(connection: AsyncConnection, job: Job) -> Progress:
    """What shadow events of a month would have cost, by customer, beside what was charged."""
    period, catalog = Period.parse(job["period"]), Catalog(connection)
    query = select(outcomes.c.customer).where(outcomes.c.shadow, outcomes.c.period == str(period)).distinct()
    names = sorted(set((await connection.execute(query)).scalars()) - {UNATTRIBUTED})
    yield len(names)
    found: list[dict[str, Any]] = []
    totals: dict[str, dict[str, Decimal]] = {"live": {}, "shadow": {}}
    for number, name in enumerate(names, 1):
        customer = (await catalog.customers([name]))[name]
        live = Account(customer, await account_rows(connection, name))
        with localcontext(EXACT):
            one = await _beside(live, catalog, period, totals)
        found.append({"customer": name, **one})
        yield number
    found.sort(key=lambda one: (-_size(one["shadow"]), one["customer"]))
    yield {
        "customers": found[:CUSTOMERS_MAX],
        "customers_counted": len(found),
        **{side: _shown(amounts) for side, amounts in totals.items()},
    }


async def _beside(
    live: Account, catalog: Catalog, period: Period, totals: dict[str, dict[str, Decimal]]
) -> dict[str, Any]:
    sections_of = await catalog.sections_of(live.customer.id)
    found: dict[str, Any] = {}
    for side, account in (("live", live), ("shadow", replace(live, shadow=True))):
        amounts = totals_of(account, sections_of, period)
        for currency, amount in amounts.items():
            totals[side][currency] = totals[side].get(currency, ZERO) + amount
        found[side] = _shown(amounts)
        kinds = [kind for _, kind in Classes(account, sections_of).of_period(period)]
        found[f"{side}_charged"] = kinds.count("charged")
    return found


async def reconciliation(connection: AsyncConnection, job: Job) -> Progress:
    """What the ledger's rows of a month count at every meter, beside what was written for it."""
    period, catalog = Period.parse(job["period"]), Catalog(connection)
    meters = {
        (one["target"], one["code"]): Meter(
            one["code"],
            frozenset(one["metrics"]),
            None if one["plans"] is None else frozenset(one["plans"]),
            one["field"],
        )
        for one in job["meters"]
    }
    begun = await since(connection)
    names = await customers_of(connection, period)
    yield len(names)
    ledger: dict[Key, Decimal] = dict.fromkeys(meters, ZERO)
    for number, name in enumerate(names, 1):
        for key, units in (
            await units_of_customer(connection, catalog, meters, begun, period=period, name=name)
        ).items():
            ledger[key] = EXACT.add(ledger[key], units)
        yield number
    written = sums.tallied(await sums.read(connection, period=period))
    yield {
        "meters": [
            {"target": key[0], "meter": key[1], **reconciled(units, written.get(key, Tally()))}
            for key, units in ledger.items()
        ]
    }


KINDS: Mapping[str, Callable[[AsyncConnection, Job], Progress]] = {
    "backtest": backtest,
    "shadow": shadow,
    "reconciliation": reconciliation,
}


def _size(amounts: Mapping[str, str]) -> Decimal:
    return max((abs(Decimal(amount)) for amount in amounts.values()), default=ZERO)


def _shown(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {code: money(round_amount(amount, code)) for code, amount in sorted(amounts.items())}
