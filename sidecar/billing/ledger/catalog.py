"""Versions of plans and of customers. A version never changes; a change is a further version.

Which plan rates a period: a customer's first assignment holds for all periods, a later one from the next period on.
Of that plan, the newest version that existed before the period's end rates the whole period.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.tables import customer_versions, plan_versions
from sidecar.billing.rating.account import Customer, CustomerVersion
from sidecar.billing.rating.periods import Period
from sidecar.policy.loading import LoadedPlan

DEFAULT_PLAN = "default"


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """One version of a plan; `source` is the file as it was given."""

    plan_id: str
    version: int
    name: str
    digest: str
    source: str
    created_us: int


async def put_plan(
    connection: AsyncConnection, plan_id: str, loaded: LoadedPlan, now_us: int
) -> tuple[PlanVersion, bool]:
    """Add a version, unless the newest one is the same file; (version, whether it is new)."""
    versions = await plan_history(connection, plan_id)
    if versions and versions[-1].digest == loaded.digest:
        return versions[-1], False
    number = versions[-1].version + 1 if versions else 1
    version = PlanVersion(plan_id, number, loaded.name, loaded.digest, loaded.source.decode(), now_us)
    values = {
        "plan_id": plan_id, "version": number, "name": version.name, "digest": version.digest,
        "source": version.source, "created_us": now_us,
    }  # fmt: skip
    await connection.execute(plan_versions.insert().values(values))
    return version, True


async def plan_history(connection: AsyncConnection, plan_id: str) -> list[PlanVersion]:
    """All versions of a plan, oldest first."""
    columns = [column for column in plan_versions.c if column.name != "seq"]
    query = select(*columns).where(plan_versions.c.plan_id == plan_id).order_by(plan_versions.c.version)
    return [PlanVersion(**row) for row in (await connection.execute(query)).mappings()]


def version_for(versions: Sequence[PlanVersion], period: Period) -> PlanVersion:
    """The version that rates a period; the first one for periods before there was any."""
    before_end = [version for version in versions if version.created_us < period.end_us]
    return before_end[-1] if before_end else versions[0]


async def put_customer(
    connection: AsyncConnection, customer: str, facts: Mapping[str, Any], now_us: int
) -> CustomerVersion:
    """Add a version, unless the newest one says the same."""
    known = await read_customer(connection, customer)
    if known.versions and dict(known.versions[-1].facts) == dict(facts):
        return known.versions[-1]
    # Two changes within one microsecond, or after the clock was set back, still follow each other.
    effective_us = max(now_us, known.versions[-1].effective_us + 1) if known.versions else now_us
    values = {
        "customer": customer,
        "version": len(known.versions) + 1,
        "effective_us": effective_us,
        "body": json.dumps(facts),
    }
    await connection.execute(customer_versions.insert().values(values))
    return CustomerVersion(effective_us, facts)


async def read_customer(connection: AsyncConnection, customer: str) -> Customer:
    """A customer's history; without versions when nobody has registered it."""
    query = (
        select(customer_versions.c.effective_us, customer_versions.c.body)
        .where(customer_versions.c.customer == customer)
        .order_by(customer_versions.c.version)
    )
    found = (await connection.execute(query)).all()
    return Customer(customer, tuple(CustomerVersion(effective_us, json.loads(body)) for effective_us, body in found))


def plan_id_for(customer: Customer, period: Period) -> str:
    """The plan that a customer is assigned in a period."""
    chosen = DEFAULT_PLAN
    for index, version in enumerate(customer.versions):
        if index == 0 or version.effective_us < period.start_us:
            chosen = version.facts.get("plan") or DEFAULT_PLAN
    return chosen
