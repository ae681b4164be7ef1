"""The summary of a period, from sums: it reads a few rows for each day and one for each customer.

To what is summed up come: what still waits to be, computed apart in the reader's snapshot; customers whose sums were
made by what no longer holds, or cannot be kept, rated from their rows; and customers for whom nothing happened, who owe
what their plan asks in any case.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import localcontext
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ingest import BusyError
from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog, registered
from sidecar.billing.ledger.differences import basis
from sidecar.billing.ledger.entries import account_rows, active_customers
from sidecar.billing.ledger.summaries import NOTHING, Earning, Summaries, numbers_of
from sidecar.billing.ledger.tables import closings, customer_versions, earnings, pending, plan_versions, rated
from sidecar.billing.rating.account import UNATTRIBUTED, Account
from sidecar.billing.rating.allowance import LostTrackError
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.counts import UNDECIDED, Kind
from sidecar.billing.rating.movements import added
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.sections import SectionsOf
from sidecar.billing.rating.summary import Summary, Totals, totals

# Notes that a reader puts to the sums itself, and events that it rates from the rows, of customers whose sums do not
# hold; past it, it is asked to come again.
WAITING_MAX = 50_000
CHECKED_US = 60 * 1_000_000
DUE_MAX = 24  # periods of which is kept what is owed when nothing happens
Seen = tuple[int, int, int]


@dataclass
class Roll:
    """What follows from plans, customers and closed periods alone, kept until one of these changes.

    `whole` are the customers whose events must always be looked at together; None: everybody's.
    """

    seen: Seen = (-1, -1, -1)
    whole: set[str] | None = None
    since_us: dict[str, int] = field(default_factory=dict)  # of everybody registered
    due: dict[Period, dict[str, Totals]] = field(default_factory=dict)  # of them, when nothing happens
    # When no sums were found that were made by anything else. Looked at again after `CHECKED_US`: a replica that read
    # the plans before they changed may still write down what it summed up by them.
    checked_us: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What pending notes add for one customer: events by kind, and what its invoices come to then."""

    numbers: Counter[Kind]
    earning: Earning


class Summing:
    """Makes summaries on one connection; `roll` is what the reader before kept, `now_us` the Unix time."""

    def __init__(self, connection: AsyncConnection, roll: Roll, now_us: int) -> None:
        self._connection = connection
        self._catalog = Catalog(connection)
        self._roll = roll
        self._now_us = now_us
        self._sums = Aggregates(connection, self._catalog)
        self._summaries = Summaries(connection)
        self.stale: set[str] = set()

    async def summary(self, period: Period) -> tuple[dict[str, Any], Roll]:
        """The summary, and what the next reader can use. `stale` has whose sums must be made anew, also when it raises
        BusyError, for there are too many of them.
        """
        roll = self._roll = await self._called()
        found = Summary(period)
        if roll.whole is None:
            await self._add_whole(found, await active_customers(self._connection, period))
            return found.shown(), roll
        if roll.checked_us is None or not roll.checked_us <= self._now_us < roll.checked_us + CHECKED_US:
            self.stale = await self._outdated()
            roll.checked_us = None if self.stale else self._now_us
            many = await self._summaries.events(self.stale)
            if many > WAITING_MAX:
                raise BusyError(f"{many:,} events of {len(self.stale):,} customers are being summed up anew")
        whole = roll.whole | self.stale | await self._summaries.undecided(period)
        waiting = await self._waiting(period, whole)
        for day, kind, shadow, number in await self._summaries.of_days(period):
            found.count(day, kind, number, shadow=shadow)
        for day, kind, shadow, number in await self._summaries.of_customers(period, whole):
            found.count(day, kind, -number, shadow=shadow)
        await self._add_amounts(found, whole, waiting)
        await self._add_whole(found, sorted(whole))
        return found.shown(), roll

    async def _called(self) -> Roll:
        columns = (func.coalesce(func.max(table.c.seq), 0) for table in (plan_versions, customer_versions, closings))
        queries = [select(column).scalar_subquery() for column in columns]
        plans, customers, closed = (await self._connection.execute(select(*queries))).one()
        seen: Seen = (plans, customers, closed)
        if self._roll.seen == seen:
            return self._roll
        roll = Roll(seen)
        if await self._catalog.coupling(UNATTRIBUTED) != "account":  # nobody's plan is the default one
            roll.since_us = await registered(self._connection)
            await self._catalog.customers(roll.since_us)
            roll.whole = {name for name in roll.since_us if await self._catalog.coupling(name) == "account"}
        return roll

    async def _outdated(self) -> set[str]:
        """Whose sums were made by other plans or facts than hold now."""
        bases: dict[str, dict[Period, str]] = {}
        for row in await self._connection.execute(select(rated)):
            bases.setdefault(row.customer, {})[Period.parse(row.period)] = row.basis
        await self._catalog.customers(bases)
        found = set()
        for name, made_by in bases.items():
            sections_of = await self._catalog.sections_of(name)
            if any(basis(sections_of(period)) != then for period, then in made_by.items()):
                found.add(name)
        summed = select(earnings.c.customer).distinct().where(earnings.c.customer.not_in(select(rated.c.customer)))
        return found | set((await self._connection.execute(summed)).scalars())

    async def _waiting(self, period: Period, whole: set[str]) -> dict[str, Waiting]:
        """What pending notes add to the sums of a period. Adds to `whole` who cannot be told so."""
        notes = list((await self._connection.execute(select(pending).limit(WAITING_MAX + 1))).mappings())
        if not notes:
            return {}
        if len(notes) > WAITING_MAX:
            raise BusyError(f"more than {WAITING_MAX:,} events and decisions wait to be summed up")
        group = await self._sums.group(notes)
        kept, _ = await self._sums.kept(group)
        whole |= await self._sums.outdated({name: kept[name] for name in kept.keys() - whole})
        changes = await self._sums.differences(group, {name: kept[name] for name in kept.keys() - whole})
        allowances, sums = await self._summaries.allowances(changes), await self._sums.sums(changes)
        found = {}
        for name, difference in changes.items():
            try:
                numbers, _ = numbers_of(kept[name], difference, allowances[name])
            except LostTrackError:
                whole.add(name)
                continue
            if any(number and kind.name == UNDECIDED and kind.period == period for kind, number in numbers.items()):
                whole.add(name)
                continue
            with localcontext(EXACT):
                moved = added([sums[name], difference.movements])
            found[name] = Waiting(numbers, Earning(name, kept[name], difference, moved))
        return found

    async def _add_amounts(self, found: Summary, whole: set[str], waiting: Mapping[str, Waiting]) -> None:
        """What invoices come to, and what models cost, but for the customers that are looked at as a whole."""
        period = found.period
        known = await self._summaries.earned(period)
        for name, one in waiting.items():
            for kind, number in one.numbers.items():
                if kind.period == period:
                    found.count(kind.day, kind.name, number, shadow=kind.shadow)
            if period in one.earning.periods:
                known[name] = one.earning.now(period, known.get(name, NOTHING))
        due = await self._due(period)
        for name in (due.keys() | known.keys()) - whole:
            earned = known.get(name, NOTHING)
            found.spend(earned.llm_cost)
            found.charge(earned.charged)
            amounts = due.get(name) if earned.totals is None else earned.totals
            if amounts is not None:
                found.earn(amounts)

    async def _due(self, period: Period) -> Mapping[str, Totals]:
        """What everybody registered by the end of the period owes when nothing happens in it."""
        if period not in self._roll.due:
            names = {name for name, us in self._roll.since_us.items() if us < period.end_us} - {UNATTRIBUTED}
            await self._catalog.customers(names)
            owed = dict[str, Totals]()
            for name in names:
                with localcontext(EXACT):
                    owed[name] = totals(Costs(await self._catalog.sections_of(name), {}), period)
            if len(self._roll.due) >= DUE_MAX:
                self._roll.due.clear()
            self._roll.due[period] = owed
        return self._roll.due[period]

    async def _add_whole(self, found: Summary, names: Iterable[str]) -> None:
        for name in names:
            customer = (await self._catalog.customers([name]))[name]
            rows = await account_rows(self._connection, name)
            account = Account(customer, rows, prices=await self._catalog.prices())
            await asyncio.to_thread(_add, found, account, await self._catalog.sections_of(name))


def _add(found: Summary, account: Account, sections_of: SectionsOf) -> None:
    with localcontext(EXACT):
        found.add(account, sections_of)
