"""What the API does, without HTTP: reads a snapshot of the ledger, lets the pure rating work on it in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.events import EventError, Posted, id_of, read_event
from sidecar.billing.exports.service import Exports
from sidecar.billing.ingest import Ingest
from sidecar.billing.ledger import (
    behind,
    catalog,
    changed,
    deciding,
    entries,
    model_prices,
    reconcile,
    tables,
)
from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog, PlanVersion, compiled
from sidecar.billing.ledger.closing import close_due
from sidecar.billing.ledger.database import CLOSING, Database, met_another
from sidecar.billing.ledger.deciding import Ruling
from sidecar.billing.ledger.model_prices import PriceChange, PriceVersion
from sidecar.billing.ledger.summing import Roll, Summing
from sidecar.billing.ledger.worth import worth
from sidecar.billing.rating.account import Account, Customer
from sidecar.billing.rating.backtest import Backtest, Tested
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.invoice import invoice, written
from sidecar.billing.rating.llm_cost import PriceHistory
from sidecar.billing.rating.movements import movements_of
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import SectionsOf
from sidecar.billing.rating.taking_back import NOTHING
from sidecar.policy.loading import LoadedPlan

GRACE_US = 72 * 3_600_000_000
ATTEMPTS_MAX = 8
T = TypeVar("T")
REBORN = (
    "its session began after the one whose outcome it would replace had been finalized: the session's id was given "
    "again after a loss of data"
)


def now_us() -> int:
    """The wall clock, in Unix microseconds."""
    return time.time_ns() // 1000


class UnknownPlanError(LookupError):
    """A customer was to be assigned a plan that does not exist."""


@dataclass(slots=True)
class Receipt:
    """What became of the events of one post."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)


class Billing:
    """The reference billing service over one database; `clock` gives Unix microseconds.

    `stale` has the customers whose sums were found to be made by another plan, or other facts, than hold now, or may
    have been: who reads sums, changes a customer, or looks at caps puts them there.
    """

    def __init__(self, database: Database, clock: Callable[[], int] = now_us, grace_us: int = GRACE_US) -> None:
        self.database = database
        self.stale: set[str] = set()
        self._roll = Roll()
        self.exports: Exports | None = None
        self.grace_us = grace_us
        self.clock = clock
        self.ingest = Ingest(database, clock)

    async def post(self, values: Sequence[Any], bodies: Sequence[str] | None = None) -> Receipt:
        """Take events: each is added whole or rejected whole, and what is counted as accepted is on disk.

        `bodies`: their canonical forms, where known.
        """
        receipt = Receipt()
        checked: list[Posted] = []
        for value, body in zip(values, bodies or repeat(None, len(values)), strict=True):
            try:
                checked.append(read_event(value, body))
            except EventError as error:
                receipt.rejected.append({"id": id_of(value), "reason": str(error)})
        if not checked:
            return receipt
        for posted, verdict in zip(checked, await self.ingest.add(checked), strict=True):
            match verdict:
                case "accepted":
                    receipt.accepted += 1
                case "duplicate":
                    receipt.duplicates += 1
                case "conflict":
                    receipt.rejected.append({"id": posted.event.id, "reason": "conflict"})
                case "reborn":
                    receipt.rejected.append({"id": posted.event.id, "reason": REBORN})
        return receipt

    async def decide(self, ruling: Ruling) -> tuple[dict[str, Any], bool]:
        """An operator's decision; (the entry, whether it is new). Raises UnknownOutcomeError, RefusedError."""
        return await self._write(lambda connection: deciding.decide(connection, ruling, self.clock()), lock=CLOSING)

    async def put_plan(self, plan_id: str, loaded: LoadedPlan, actor: str | None = None) -> tuple[PlanVersion, bool]:
        """Add a version of a plan; (version, whether it is new). `actor` is who saved it, where that is known."""
        now = self.clock()
        return await self._write(lambda connection: catalog.put_plan(connection, plan_id, loaded, now, actor))

    async def plan(self, plan_id: str) -> list[PlanVersion]:
        """All versions of a plan, oldest first."""
        async with self.database.reading() as connection:
            return await catalog.plan_history(connection, plan_id)

    async def plans(self) -> list[PlanVersion]:
        """The newest version of every plan."""
        async with self.database.reading() as connection:
            names = await catalog.plan_ids(connection)
            return [(await catalog.plan_history(connection, name))[-1] for name in names]

    async def put_customer(self, customer: str, facts: Mapping[str, Any], from_us: int | None = None) -> None:
        """Add a version of a customer; raises UnknownPlanError, ClosedPeriodError."""

        async def put(connection: AsyncConnection) -> None:
            plan_id = facts.get("plan")
            if plan_id is not None and not await catalog.plan_history(connection, plan_id):
                raise UnknownPlanError(plan_id)
            await catalog.put_customer(connection, customer, facts, self.clock(), from_us)

        await self._write(put, lock=CLOSING)
        self.stale.add(customer)

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]], lock: int | None = None) -> T:
        """Do it in a transaction, beside others that share the lock.

        Versions and decisions have running numbers: who took one in the same moment makes us look again, as does who
        waits for us while we wait for him.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self.database.writing(lock=lock, shared=True) as connection:
                    return await work(connection)
            except DBAPIError as error:
                if attempt == ATTEMPTS_MAX or not met_another(error):
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def customer(self, customer: str) -> Customer:
        """A customer's history."""
        async with self.database.reading() as connection:
            return await catalog.read_customer(connection, customer)

    async def invoice(self, customer: str, period: Period, *, shadow: bool = False) -> dict[str, Any]:
        """The invoice of anybody, known or not; with `shadow`, what its shadow events would have cost."""
        async with self.database.reading() as connection:
            known = Catalog(connection)
            sections_of = await known.sections_of(customer)
            status = {"status": "open" if (await known.closings()).of(period) is None else "closed"}
            movements = None if shadow else await Aggregates(connection, known).read(customer)
            if movements is None:
                account, _ = await self._account(connection, known, customer)
                if shadow:
                    apart = replace(account, shadow=True)
                    return {**await asyncio.to_thread(invoice, apart, sections_of, period), **status}
                self.stale.add(customer)
                movements = await asyncio.to_thread(movements_of, account, sections_of)
            costs = Costs(sections_of, movements)
            taken = NOTHING
            if costs.credits(period):
                taken = await behind.taken_back(connection, known, customer, period, costs)
            return {**written(customer, costs, period, taken), **status}

    async def behind_line(self, line: behind.Behind) -> behind.Page:
        """The outcomes that a line of an invoice counts."""
        async with self.database.reading() as connection:
            return await behind.counted(connection, Catalog(connection), line)

    async def summary(self, period: Period) -> dict[str, Any]:
        """All customers of a period together, from sums; see `rating.summary.Summary.shown`."""
        async with self.database.reading() as connection:
            summing = Summing(connection, self._roll, self.clock())
            try:
                result, self._roll = await summing.summary(period)
            finally:
                self.stale |= summing.stale
            decided = await deciding.count(connection, period)
            status = "open" if (await catalog.read_closings(connection)).of(period) is None else "closed"
        return {**result, "decisions": decided, "status": status}

    async def backtest(self, loaded: LoadedPlan, period: Period) -> Tested:
        """What a plan would have charged in a period, beside what was charged: one account in memory at a time."""
        test = Backtest(compiled(loaded.source.decode(), loaded.name, loaded.digest), period)
        async with self.database.reading() as connection:
            known = Catalog(connection)
            for name in await entries.active_customers(connection, period):
                await asyncio.to_thread(test.add, *await self._account(connection, known, name))
        return await asyncio.to_thread(test.result)

    async def entries(self, wanted: entries.Wanted) -> list[dict[str, Any]]:
        """Ledger rows, newest first."""
        async with self.database.reading() as connection:
            return [dict(row) for row in await entries.entries(connection, wanted)]

    async def worth(self, outcome: Mapping[str, Any]) -> tuple[str | None, list[dict[str, str]]]:
        """Who is charged for a row of the ledger, and how much; see `ledger.worth`."""
        async with self.database.reading() as connection:
            return await worth(connection, Catalog(connection), outcome)

    async def changed(
        self, outcome: Mapping[str, Any], taken: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, str]] | None, list[list[dict[str, str]] | None]]:
        """What a row of the ledger did to invoices when it came, and each decision about it: see `ledger.changed`."""
        moments = [changed.of_outcome(outcome), *map(changed.of_decision, taken)]
        async with self.database.reading() as connection:
            known = Catalog(connection)
            found = [await changed.when_it_came(connection, known, outcome, moment) for moment in moments]
        return found[0], found[1:]

    async def decisions(self, customer: str | None, before_seq: int | None, limit: int) -> list[dict[str, Any]]:
        """What operators decided, newest first."""
        async with self.database.reading() as connection:
            return await deciding.newest(connection, before_seq, limit, customer)

    async def decisions_about(self, session_id: str) -> list[dict[str, Any]]:
        """What operators decided about a session's outcomes, oldest first."""
        async with self.database.reading() as connection:
            return await deciding.decisions_about(connection, session_id)

    async def customers(self, after: str, limit: int) -> list[str]:
        """Names of everybody who is registered or has been summed up, in order, from after a name on."""
        async with self.database.reading() as connection:
            return await catalog.customer_names(connection, after, limit)

    async def books(self) -> reconcile.Reconciled:
        """Every tenant's last statement beside the ledger."""
        async with self.database.reading() as connection:
            return await reconcile.reconciled(connection, self.clock())

    async def model_prices(self) -> list[PriceVersion]:
        """What operators saved over the shipped prices of models' tokens, oldest first."""
        async with self.database.reading() as connection:
            return await model_prices.read_versions(connection)

    async def price_history(self) -> PriceHistory:
        """Which prices of models hold when."""
        async with self.database.reading() as connection:
            return await model_prices.read_history(connection)

    async def save_model_prices(self, change: PriceChange) -> tuple[PriceVersion, bool]:
        """Add a version; (version, whether it is new). Raises OutdatedPricesError."""
        return await self._write(lambda connection: model_prices.save(connection, change, self.clock()))

    async def alerts(self, customer: str | None, before_seq: int | None, limit: int) -> list[dict[str, Any]]:
        """Alerts about spending, newest first."""
        query = select(tables.alerts).order_by(tables.alerts.c.seq.desc()).limit(limit)
        if customer is not None:
            query = query.where(tables.alerts.c.customer == customer)
        if before_seq is not None:
            query = query.where(tables.alerts.c.seq < before_seq)
        async with self.database.reading() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def close_due(self) -> Period | None:
        """Close the periods whose grace time is over; the newest of them, or None."""
        return await close_due(self.database, self.clock(), self.grace_us)

    async def _account(self, connection: AsyncConnection, known: Catalog, name: str) -> tuple[Account, SectionsOf]:
        customer = (await known.customers([name]))[name]
        rows = await entries.account_rows(connection, name)
        return Account(customer, rows, prices=await known.prices()), await known.sections_of(name)
