"""Versions of plans and of customers, and closed periods. A version never changes; a change is a further version.

Which plan rates a period: `rating.sections`. Of that plan, the newest version that existed before the period's end
rates the whole period.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import func, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger import model_prices
from sidecar.billing.ledger.entries import chunks
from sidecar.billing.ledger.tables import closings, customer_versions, plan_versions, rated
from sidecar.billing.rating.account import Customer, CustomerVersion
from sidecar.billing.rating.llm_cost import PriceHistory
from sidecar.billing.rating.movements import widest
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import DEFAULT_PLAN, Closings, SectionsOf, assigned, sections
from sidecar.billing.rating.usage import Coupling, RatedPlan
from sidecar.policy.loading import LoadedPlan, load_plan


class ClosedPeriodError(ValueError):
    """What was asked for would change an invoice that is closed."""


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """One version of a plan; `source` is the file as it was given."""

    plan_id: str
    version: int
    name: str
    digest: str
    source: str
    created_us: int
    actor: str | None = None


@lru_cache(maxsize=256)
def compiled(source: str, name: str, digest: str) -> RatedPlan:
    """Plans are immutable, so a compiled one serves for ever."""
    return RatedPlan(load_plan(source.encode(), name).plan, digest)


async def put_plan(
    connection: AsyncConnection, plan_id: str, loaded: LoadedPlan, now_us: int, actor: str | None = None
) -> tuple[PlanVersion, bool]:
    """Add a version, unless the newest one is the same file; (version, whether it is new)."""
    versions = await plan_history(connection, plan_id)
    if versions and versions[-1].digest == loaded.digest:
        return versions[-1], False
    number = versions[-1].version + 1 if versions else 1
    version = PlanVersion(plan_id, number, loaded.name, loaded.digest, loaded.source.decode(), now_us, actor)
    values = {
        "plan_id": plan_id, "version": number, "name": version.name, "digest": version.digest,
        "source": version.source, "created_us": now_us, "actor": actor,
    }  # fmt: skip
    await connection.execute(plan_versions.insert().values(values))
    return version, True


async def plan_history(connection: AsyncConnection, plan_id: str) -> list[PlanVersion]:
    """All versions of a plan, oldest first."""
    columns = [column for column in plan_versions.c if column.name != "seq"]
    query = select(*columns).where(plan_versions.c.plan_id == plan_id).order_by(plan_versions.c.version)
    return [PlanVersion(**row) for row in (await connection.execute(query)).mappings()]


async def plan_ids(connection: AsyncConnection) -> list[str]:
    """Every plan that there is."""
    query = select(plan_versions.c.plan_id).distinct().order_by(plan_versions.c.plan_id)
    return list((await connection.execute(query)).scalars())


async def born_us(connection: AsyncConnection) -> int | None:
    """When the ledger began: with its first plan."""
    found: int | None = (await connection.execute(select(func.min(plan_versions.c.created_us)))).scalar()
    return found


def version_for(versions: Sequence[PlanVersion], period: Period) -> PlanVersion:
    """The version that rates a period; the first one for periods before there was any."""
    before_end = [version for version in versions if version.created_us < period.end_us]
    return before_end[-1] if before_end else versions[0]


async def put_customer(
    connection: AsyncConnection, customer: str, facts: Mapping[str, Any], now_us: int, from_us: int | None = None
) -> CustomerVersion:
    """Add a version, unless the newest one says the same. `from_us`: when the facts, and the plan, begin to hold."""
    known = await read_customer(connection, customer)
    if known.versions and from_us is None and dict(known.versions[-1].facts) == dict(facts):
        return known.versions[-1]
    closed = await read_closings(connection)
    if from_us is not None and closed.last is not None and from_us < closed.last.end_us:
        raise ClosedPeriodError(f"effective_from lies in a closed period: {closed.last.next} is the first open one")
    # Two changes within one microsecond, or after the clock was set back, still follow each other; and what is told
    # after a period was closed is never taken for something that was known then.
    earlier = [version.known_us for version in known.versions[-1:]]
    recorded_us = max([now_us, *(us + 1 for us in (*earlier, *closed.closed_us.values()))])
    version = CustomerVersion(recorded_us if from_us is None else from_us, facts, from_us, recorded_us)
    values = {
        "customer": customer,
        "version": len(known.versions) + 1,
        "effective_us": version.effective_us,
        "body": json.dumps(facts),
        "plan_from_us": from_us,
        "recorded_us": recorded_us,
    }
    await connection.execute(customer_versions.insert().values(values))
    return version


async def read_customer(connection: AsyncConnection, customer: str) -> Customer:
    """A customer's history; without versions when nobody has registered it."""
    return (await read_customers(connection, [customer]))[customer]


async def read_customers(connection: AsyncConnection, names: Iterable[str]) -> dict[str, Customer]:
    """The histories of several customers."""
    table = customer_versions.c
    columns = (table.customer, table.effective_us, table.body, table.plan_from_us, table.recorded_us)
    query = select(*columns).order_by(table.customer, table.version)
    found: dict[str, list[CustomerVersion]] = {name: [] for name in names}
    for some in chunks(found):
        rows = await connection.execute(query.where(table.customer.in_(some)))
        for name, effective_us, body, plan_from_us, recorded_us in rows.all():
            found[name].append(CustomerVersion(effective_us, json.loads(body), plan_from_us, recorded_us))
    return {name: Customer(name, tuple(versions)) for name, versions in found.items()}


async def customer_names(connection: AsyncConnection, after: str, limit: int) -> list[str]:
    """Everybody who is registered or has been summed up, in order."""
    known = (select(table.c.customer).where(table.c.customer > after) for table in (customer_versions, rated))
    found = union(*known).subquery()
    return list((await connection.execute(select(found).order_by(found.c.customer).limit(limit))).scalars())


async def registered(connection: AsyncConnection) -> dict[str, int]:
    """Everybody who is registered, and since when."""
    table = customer_versions.c
    query = select(table.customer, func.min(table.effective_us).label("since_us")).group_by(table.customer)
    return {row.customer: row.since_us for row in await connection.execute(query)}


async def read_closings(connection: AsyncConnection) -> Closings:
    """Which periods are closed, since when."""
    found = await connection.execute(select(closings.c.period, closings.c.closed_us))
    return Closings({Period.parse(period): closed_us for period, closed_us in found.all()})


class Catalog:
    """What rating needs besides rows, read once for a transaction: customers, plans, closed periods."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._plans: dict[str, list[PlanVersion]] = {}
        self._sections: dict[str, SectionsOf] = {}
        self._customers: dict[str, Customer] = {}
        self._couplings: dict[str, Coupling] = {}
        self._closings: Closings | None = None
        self._prices: PriceHistory | None = None

    async def prices(self) -> PriceHistory:
        """What models cost, and cost before."""
        if self._prices is None:
            self._prices = await model_prices.read_history(self._connection)
        return self._prices

    async def closings(self) -> Closings:
        """Which periods are closed."""
        if self._closings is None:
            self._closings = await read_closings(self._connection)
        return self._closings

    async def customers(self, names: Iterable[str]) -> dict[str, Customer]:
        """The histories of customers."""
        missing = [name for name in names if name not in self._customers]
        if missing:
            self._customers |= await read_customers(self._connection, missing)
        return {name: self._customers[name] for name in names}

    async def sections_of(self, name: str) -> SectionsOf:
        """The sections of each period of a customer."""
        if name not in self._sections:
            customer = (await self.customers([name]))[name]
            await self._read_plans(customer)
            self._sections[name] = sections(customer, self._version, await self.closings())
        return self._sections[name]

    async def coupling(self, name: str) -> Coupling:
        """The widest coupling of all plans that the customer was ever assigned."""
        if name not in self._couplings:
            plans = await self._read_plans((await self.customers([name]))[name])
            versions = [version for plan in plans for version in self._plans[plan]]
            plans_ = (compiled(version.source, version.name, version.digest) for version in versions)
            self._couplings[name] = widest(plan.coupling for plan in plans_)
        return self._couplings[name]

    async def _read_plans(self, customer: Customer) -> set[str]:
        wanted = {DEFAULT_PLAN, *(plan for _, plan in assigned(customer))}
        wanted |= {version.facts.get("plan") or DEFAULT_PLAN for version in customer.versions}
        for plan_id in wanted - self._plans.keys():
            self._plans[plan_id] = await plan_history(self._connection, plan_id)
        return wanted

    def _version(self, plan_id: str, period: Period) -> RatedPlan:
        version = version_for(self._plans[plan_id], period)
        return compiled(version.source, version.name, version.digest)
