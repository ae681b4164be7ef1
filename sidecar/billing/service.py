"""What the API does, without HTTP: reads a snapshot of the ledger, lets the pure rating work on it in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.events import EventError, Posted, id_of, read_event
from sidecar.billing.ledger import catalog, entries
from sidecar.billing.ledger.catalog import DEFAULT_PLAN, PlanVersion, plan_id_for, version_for
from sidecar.billing.ledger.database import Database
from sidecar.billing.rating.account import Account, Customer
from sidecar.billing.rating.cost import PlanOf
from sidecar.billing.rating.invoice import invoice
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.summary import summary
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import LoadedPlan, load_plan


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


@lru_cache(maxsize=256)
def _rated(source: str, name: str) -> RatedPlan:
    """Plans are immutable, so a compiled one serves for ever."""
    return RatedPlan(load_plan(source.encode(), name).plan)


class Billing:
    """The reference billing service over one database; `clock` gives Unix microseconds."""

    def __init__(self, database: Database, clock: Callable[[], int] = now_us) -> None:
        self.database = database
        self._clock = clock

    async def post(self, values: Iterable[Any]) -> Receipt:
        """Take events: each is added whole or rejected whole, and what is counted as accepted is on disk."""
        receipt = Receipt()
        checked: list[Posted] = []
        for value in values:
            try:
                checked.append(read_event(value))
            except EventError as error:
                receipt.rejected.append({"id": id_of(value), "reason": str(error)})
        if not checked:
            return receipt
        received_us = self._clock()
        async with self.database.writing() as connection:
            for posted, verdict in zip(checked, await entries.append(connection, checked, received_us), strict=True):
                match verdict:
                    case "accepted":
                        receipt.accepted += 1
                    case "duplicate":
                        receipt.duplicates += 1
                    case "conflict":
                        receipt.rejected.append({"id": posted.event.id, "reason": "conflict"})
        return receipt

    async def put_plan(self, plan_id: str, loaded: LoadedPlan) -> tuple[PlanVersion, bool]:
        """Add a version of a plan; (version, whether it is new)."""
        async with self.database.writing() as connection:
            return await catalog.put_plan(connection, plan_id, loaded, self._clock())

    async def plan(self, plan_id: str) -> list[PlanVersion]:
        """All versions of a plan, oldest first."""
        async with self.database.reading() as connection:
            return await catalog.plan_history(connection, plan_id)

    async def put_customer(self, customer: str, facts: Mapping[str, Any]) -> None:
        """Add a version of a customer; raises UnknownPlanError."""
        async with self.database.writing() as connection:
            plan_id = facts.get("plan")
            if plan_id is not None and not await catalog.plan_history(connection, plan_id):
                raise UnknownPlanError(plan_id)
            await catalog.put_customer(connection, customer, facts, self._clock())

    async def customer(self, customer: str) -> Customer:
        """A customer's history."""
        async with self.database.reading() as connection:
            return await catalog.read_customer(connection, customer)

    async def invoice(self, customer: str, period: Period) -> dict[str, Any]:
        """The invoice of anybody, known or not."""
        async with self.database.reading() as connection:
            account, plan_of = await self._account(connection, customer, period)
        return await asyncio.to_thread(invoice, account, plan_of, period)

    async def summary(self, period: Period) -> dict[str, Any]:
        """All customers of a period together."""
        async with self.database.reading() as connection:
            names = await entries.active_customers(connection, period)
            accounts = [await self._account(connection, name, period) for name in names]
        return await asyncio.to_thread(summary, accounts, period)

    async def entries(self, wanted: entries.Wanted) -> list[dict[str, Any]]:
        """Ledger rows, newest first."""
        async with self.database.reading() as connection:
            return [dict(row) for row in await entries.entries(connection, wanted)]

    async def _account(self, connection: AsyncConnection, name: str, period: Period) -> tuple[Account, PlanOf]:
        customer = await catalog.read_customer(connection, name)
        assigned = {version.facts.get("plan") or DEFAULT_PLAN for version in customer.versions}
        histories = {
            plan_id: await catalog.plan_history(connection, plan_id) for plan_id in sorted({DEFAULT_PLAN, *assigned})
        }

        def plan_of(at: Period) -> RatedPlan:
            version = version_for(histories[plan_id_for(customer, at)], at)
            return _rated(version.source, version.name)

        rows = await entries.account_rows(connection, name, period.end_us)
        return Account(customer, rows), plan_of
