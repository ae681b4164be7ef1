"""Plans as a list: the newest version of each, and how many registered customers have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.tables import customer_versions, plan_versions
from sidecar.billing.rating.sections import DEFAULT_PLAN

PLANS_MAX = 1000


@dataclass(frozen=True, slots=True)
class PlanLine:
    """A plan by its newest version."""

    plan_id: str
    version: int
    name: str
    created_us: int
    actor: str | None
    customers: int


async def plan_lines(connection: AsyncConnection) -> list[PlanLine]:
    """Every plan, in the order of ids, at most `PLANS_MAX`."""
    versions = plan_versions.c
    newest = select(versions.plan_id, func.max(versions.version).label("version")).group_by(versions.plan_id).subquery()
    query = (
        select(versions.plan_id, versions.version, versions.name, versions.created_us, versions.actor)
        .join(newest, and_(newest.c.plan_id == versions.plan_id, newest.c.version == versions.version))
        .order_by(versions.plan_id)
        .limit(PLANS_MAX)
    )
    counts = await customers_by_plan(connection)
    return [
        PlanLine(**row, customers=counts.get(row["plan_id"], 0)) for row in (await connection.execute(query)).mappings()
    ]


async def customers_by_plan(connection: AsyncConnection) -> Mapping[str, int]:
    """How many registered customers were assigned each plan last; those without one have the default."""
    facts = customer_versions.c
    newest = select(facts.customer, func.max(facts.version).label("version")).group_by(facts.customer).subquery()
    plan: Any = cast(facts.body, JSONB)["plan"].astext
    if connection.dialect.name == "sqlite":
        plan = func.json_extract(facts.body, "$.plan")
    name = func.coalesce(plan, DEFAULT_PLAN)
    query = (
        select(name, func.count())
        .join(newest, and_(newest.c.customer == facts.customer, newest.c.version == facts.version))
        .group_by(name)
    )
    return {row[0]: row[1] for row in await connection.execute(query)}
