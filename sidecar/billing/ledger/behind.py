"""What lies behind an invoice: the outcomes that a line counts, and those that a credit takes back."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import localcontext
from typing import Any

from sqlalchemy import select, union_all
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.entries import account_rows, chunks
from sidecar.billing.ledger.tables import decisions, outcomes
from sidecar.billing.rating import invoice
from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.movements import ENTERED, Books, State
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT

NAMED_MAX = 100  # outcomes named beside a credit


@dataclass(frozen=True, slots=True)
class Page:
    """What a line counts, in the order of arrival; `next` is where the following page begins, None after the last."""

    uses: list[dict[str, Any]]
    next: int | None


@dataclass(frozen=True, slots=True)
class Behind:
    """Which line, and which page of what is behind it: `after` is the `next` of the page before, 0 for the first."""

    customer: str
    period: Period
    charge: str
    after: int = 0
    limit: int = 100


async def taken_back(
    connection: AsyncConnection, catalog: Catalog, customer: str, period: Period
) -> dict[Period, list[str]]:
    """Outcomes that were taken back in a period, by the period of their own time.

    Named are the first hundred sessions that a revision of the same customer, and the first hundred that a decision,
    took back.
    """
    revised = (
        select(outcomes.c.session_id, outcomes.c.id)
        .where(outcomes.c.customer == customer, outcomes.c.revision > 0, outcomes.c.shadow.is_(False))
        .order_by(outcomes.c.seq)
    )
    in_time = revised.where(outcomes.c.period == str(period), outcomes.c.late.is_(None)).limit(NAMED_MAX)
    late = revised.where(outcomes.c.late == str(period)).limit(NAMED_MAX)
    decided = (
        select(decisions.c.session_id, decisions.c.outcome_id.label("id"))
        .where(decisions.c.period == str(period), decisions.c.customer == customer)
        .order_by(decisions.c.seq)
        .limit(NAMED_MAX)
    )
    query = union_all(*(select(part.subquery()) for part in (in_time, late, decided)))
    notes = [
        {"session_id": session, "outcome_id": identifier}
        for session, identifier in (await connection.execute(query)).all()
    ]
    group = await Aggregates(connection, catalog).group(notes, set())
    account = Account((await catalog.customers([customer]))[customer], group.now)
    return invoice.taken_back(account, period)


async def counted(connection: AsyncConnection, catalog: Catalog, line: Behind) -> Page:
    """What one charge counts in a period before anything is taken back.

    Outcomes that were assigned to the customer later come with the first page.
    """
    customer, period, charge, after, limit = line.customer, line.period, line.charge, line.after, line.limit
    own = (
        select(outcomes.c.seq, outcomes.c.session_id, outcomes.c.id.label("outcome_id"))
        .where(outcomes.c.period == str(period), outcomes.c.late.is_(None))
        .where(outcomes.c.customer == customer, outcomes.c.seq > after)
        .order_by(outcomes.c.seq)
        .limit(limit)
    )
    found = list((await connection.execute(own)).mappings())
    following = found[-1]["seq"] if len(found) == limit else None
    if after == 0:
        found += await _assigned(connection, customer, period)
    shown = {note["outcome_id"]: note["seq"] for note in found}
    known, sections_of = (await catalog.customers([customer]))[customer], await catalog.sections_of(customer)
    coupling = await catalog.coupling(customer)
    if coupling == "account":
        rows: tuple[Row, ...] = await account_rows(connection, customer)
    else:
        talkers = {customer} if coupling == "conversation" else set()
        rows = (await Aggregates(connection, catalog).group(found, talkers)).now
    uses = []
    with localcontext(EXACT):
        for section, usages in Books(Account(known, rows), sections_of).counted(State(period, ENTERED)):
            if section.period == period and charge in usages:
                usage = usages[charge]
                pairs = [(use, False) for use in usage.uses] + [(use, True) for use in usage.trial]
                uses += [_use(use, trial) for use, trial in pairs if use.row.id in shown]
    return Page(sorted(uses, key=lambda use: shown[use["outcome"]]), following)


async def _assigned(connection: AsyncConnection, customer: str, period: Period) -> list[RowMapping]:
    """The period's outcomes of sessions that were assigned. Sessions first: a database that is asked for both at once
    may go through all of the period.
    """
    query = select(decisions.c.session_id).where(decisions.c.assigned == customer)
    columns = (
        outcomes.c.seq,
        outcomes.c.session_id,
        outcomes.c.id.label("outcome_id"),
        outcomes.c.period,
        outcomes.c.late,
    )
    found: list[RowMapping] = []
    for some in chunks(sorted(set((await connection.execute(query)).scalars()))):
        rows = await connection.execute(select(*columns).where(outcomes.c.session_id.in_(some)))
        found += [row for row in rows.mappings() if row["period"] == str(period) and row["late"] is None]
    return found


def _use(use: Any, trial: bool) -> dict[str, Any]:  # noqa: FBT001
    row: Row = use.row
    return {
        "outcome": row.id,
        "session_id": row.session_id,
        "session": f"/v1/sessions/{row.session_id}",
        "conversation": row.conversation,
        "time": invoice.timestamp(row.at_us),
        "metric": use.metric,
        "units": invoice.quantity(use.units),
        "trial": trial,
    }
