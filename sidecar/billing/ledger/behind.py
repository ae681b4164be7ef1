"""What lies behind an invoice: the outcomes that a line counts, and those that a credit takes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import localcontext
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.entries import account_rows, chunks, has_few
from sidecar.billing.ledger.tables import decisions, outcomes
from sidecar.billing.rating import invoice
from sidecar.billing.rating import taking_back as rating
from sidecar.billing.rating.account import Account, Customer, Row
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.movements import ENTERED, Books, Place, State
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.sections import Section, SectionsOf
from sidecar.billing.rating.taking_back import Settled, TakenBack

NAMED_MAX = 100  # outcomes named beside the credits of an invoice
LOOKED_MAX = 1000  # revisions and reversals that are looked at for them: most of what is revised takes nothing back


@dataclass(frozen=True, slots=True)
class Page:
    """What a line counts, in the order of arrival; `next` is where the following page begins, None after the last."""

    uses: list[dict[str, Any]]
    next: int | None


class NoLineError(Exception):
    """The invoice has no such line; the text says so."""


@dataclass(frozen=True, slots=True)
class Behind:
    """Which line, and which page of what is behind it: `after` is the `next` of the page before, 0 for the first.

    A charge has a line in each section of the period: `start_us` is where the line's begins, None for all of them.
    """

    customer: str
    period: Period
    charge: str
    start_us: int | None = None
    after: int = 0
    limit: int = 100


async def taken_back(
    connection: AsyncConnection, catalog: Catalog, customer: str, period: Period, costs: Costs
) -> TakenBack:
    """Outcomes behind the credits of a period; see `rating.taking_back`.

    They are looked for where revisions of the customer are, and decisions. What is found is held against the `costs`.
    Where these move more, by a revision that names another customer for example, a small account is rated from all of
    its rows, and of a large one it is said that there is more.
    """
    known, sections_of = (await catalog.customers([customer]))[customer], await catalog.sections_of(customer)
    if await catalog.coupling(customer) != "account":
        found, all_ = await _found(connection, catalog, known, period)
        explained = costs.explained(period, found.moved())
        if explained or not all_ or not await has_few(connection, customer):
            return TakenBack.of(found, limit=NAMED_MAX, more=not (explained and all_))
    account = Account(known, await account_rows(connection, customer))
    return TakenBack.of(await asyncio.to_thread(rating.taken_back, account, sections_of, period), limit=NAMED_MAX)


async def _found(
    connection: AsyncConnection, catalog: Catalog, customer: Customer, period: Period
) -> tuple[Settled, bool]:
    """What the sessions of `_ends` have taken back, until there is more than is named; and whether that is all."""
    sections_of = await catalog.sections_of(customer.id)
    talkers = {customer.id} if await catalog.coupling(customer.id) == "conversation" else set()
    notes, found, seen = await _ends(connection, customer.id, period), Settled(), set[str]()
    for start in range(0, min(len(notes), LOOKED_MAX), NAMED_MAX):
        group = await Aggregates(connection, catalog).group(notes[start : start + NAMED_MAX], talkers)
        new = tuple(row for row in group.now if row.id not in seen)  # whatever is tied comes at once
        seen |= {row.id for row in new}
        found.add(rating.taken_back(Account(customer, new), sections_of, period))
        if len({shift.row.id for shift in found.taken}) > NAMED_MAX:
            return found, False
    return found, len(notes) <= LOOKED_MAX


async def _ends(connection: AsyncConnection, customer: str, period: Period) -> list[dict[str, Any]]:
    """Outcomes in whose sessions something of a customer may have been taken back in a period, in the order in which
    they came or were decided: one more than are looked at.

    Those that replace others and stand on the period's invoice; and those that are replaced by what stands on an
    earlier one, since they count only now: they came late, or were nobody's until now. Which one replaces
    which, rating tells by all rows of the session.
    """
    o, d = outcomes.c, decisions.c
    columns = (o.received_us.label("came_us"), o.seq, o.session_id, o.id.label("outcome_id"))
    live = select(*columns).where(o.shadow.is_(False))
    own = live.where(o.customer == customer)
    decided = select(d.decided_us.label("came_us"), d.seq, d.session_id, d.outcome_id).where(
        d.period == str(period), d.customer == customer, d.kind == "reverse"
    )
    came_late = own.where(o.late == str(period))
    found = [
        *await _first(connection, decided, d.seq),
        *await _first(connection, own.where(o.revision > 0, o.period == str(period), o.late.is_(None)), o.seq),
        *await _first(connection, came_late.where(o.revision > 0), o.seq),
    ]
    # Sessions first: a database that is asked for both at once may go through all revisions.
    replaced = {row["session_id"] for row in await _first(connection, came_late.where(o.revision == 0), o.seq)}
    replaced |= set((await connection.execute(select(d.session_id).where(d.assigned == customer))).scalars())
    for some in chunks(sorted(replaced)):
        revised = live.where(o.session_id.in_(some), o.revision > 0)
        found += (await connection.execute(revised)).mappings()
    once = {note["outcome_id"]: dict(note) for note in sorted(found, key=lambda note: (note["came_us"], note["seq"]))}
    return list(once.values())[: LOOKED_MAX + 1]


async def _first(connection: AsyncConnection, query: Select[Any], seq: ColumnElement[int]) -> Sequence[RowMapping]:
    return list((await connection.execute(query.order_by(seq).limit(LOOKED_MAX + 1))).mappings())


async def counted(connection: AsyncConnection, catalog: Catalog, line: Behind) -> Page:
    """What one charge counts in a period before anything is taken back. Raises NoLineError.

    Outcomes that were assigned to the customer later come with the first page.
    """
    customer, period, charge, after, limit = line.customer, line.period, line.charge, line.after, line.limit
    known, sections_of = (await catalog.customers([customer]))[customer], await catalog.sections_of(customer)
    sections = _sections(line, sections_of)
    own = (
        select(outcomes.c.seq, outcomes.c.session_id, outcomes.c.id.label("outcome_id"))
        .where(outcomes.c.period == str(period), outcomes.c.late.is_(None))
        .where(outcomes.c.customer == customer, outcomes.c.seq > after, *_within(sections, period))
        .order_by(outcomes.c.seq)
        .limit(limit)
    )
    found = list((await connection.execute(own)).mappings())
    following = found[-1]["seq"] if len(found) == limit else None
    if after == 0:
        found += await _assigned(connection, customer, period)
    shown = {note["outcome_id"]: note["seq"] for note in found}
    coupling = await catalog.coupling(customer)
    if coupling == "account":
        rows: tuple[Row, ...] = await account_rows(connection, customer)
    else:
        talkers = {customer} if coupling == "conversation" else set()
        rows = (await Aggregates(connection, catalog).group(found, talkers)).now
    account, uses = Account(known, rows), []
    taken = await asyncio.to_thread(rating.marks, account, sections_of)
    with localcontext(EXACT):
        for section, usages in Books(account, sections_of).counted(State(period, ENTERED)):
            if section.start_us in sections:
                usage, place = usages[charge], Place(section.start_us, charge)
                pairs = [(use, False) for use in usage.uses] + [(use, True) for use in usage.trial]
                uses += [
                    _use(use, trial, taken.get((place, use.row.id))) for use, trial in pairs if use.row.id in shown
                ]
    return Page(sorted(uses, key=lambda use: shown[use["outcome"]]), following)


def _sections(line: Behind, sections_of: SectionsOf) -> dict[int, Section]:
    """Those whose line is asked for, by their beginning."""
    having = [one for one in sections_of(line.period) if line.charge in {charge.id for charge in one.plan.charges}]
    found = {one.start_us: one for one in having if line.start_us in {None, one.start_us}}
    if not found:
        where = f" from {invoice.timestamp(line.start_us)} on" if having and line.start_us is not None else ""
        raise NoLineError(f"the invoice of {line.customer!r} for {line.period} has no line {line.charge!r}{where}")
    return found


def _within(sections: Mapping[int, Section], period: Period) -> Sequence[ColumnElement[bool]]:
    """So that the pages of a part of the period are not those of all of it, most of them empty."""
    start, end = min(sections), max(section.end_us for section in sections.values())
    whole = (start, end) == (period.start_us, period.end_us)
    return () if whole else (outcomes.c.at_us >= start, outcomes.c.at_us < end)


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


def _use(use: Any, trial: bool, taken: Period | None) -> dict[str, Any]:  # noqa: FBT001
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
        "taken_back": None if taken is None else str(taken),
    }
