"""What lies behind an invoice: the outcomes that a line counts, and those that a credit takes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import localcontext
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.entries import account_rows, chunks
from sidecar.billing.ledger.tables import decisions, outcomes
from sidecar.billing.rating import invoice
from sidecar.billing.rating.account import UNATTRIBUTED, Account, Row
from sidecar.billing.rating.invoice import TakenBack
from sidecar.billing.rating.movements import ENTERED, Books, Place, State
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.sections import Section, SectionsOf

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


async def taken_back(connection: AsyncConnection, catalog: Catalog, customer: str, period: Period) -> TakenBack:
    """Outcomes that were taken back in a period; see `rating.invoice.taken_back`.

    Not among them are those whose revision names another customer.
    """
    known, sections_of = (await catalog.customers([customer]))[customer], await catalog.sections_of(customer)
    coupling = await catalog.coupling(customer)
    if coupling == "account":
        account = Account(known, await account_rows(connection, customer))
        everything = await asyncio.to_thread(list, invoice.taken_back(account, sections_of, period))
        return _bounded({(place, row.id): row for place, row in everything}, more=False)
    talkers = {customer} if coupling == "conversation" else set()
    notes = await _ends(connection, customer, period)
    found: dict[tuple[Place, str], Row] = {}
    for start in range(0, min(len(notes), LOOKED_MAX), NAMED_MAX):
        group = await Aggregates(connection, catalog).group(notes[start : start + NAMED_MAX], talkers)
        some = invoice.taken_back(Account(known, group.now), sections_of, period)
        found |= {(place, row.id): row for place, row in some}
        if len({name for _, name in found}) > NAMED_MAX:
            break
    return _bounded(found, more=len(notes) > LOOKED_MAX)


def _bounded(found: dict[tuple[Place, str], Row], *, more: bool) -> TakenBack:
    named = list(dict.fromkeys(name for _, name in found))
    kept = set(named[:NAMED_MAX])
    rows = ((place, row) for (place, name), row in found.items() if name in kept)
    return TakenBack.of(rows, more=more or len(named) > NAMED_MAX)


async def _ends(connection: AsyncConnection, customer: str, period: Period) -> list[dict[str, str]]:
    """Every revision and reversal that stands on a customer's invoice of a period, in the order of arrival: one more
    than are looked at.
    """
    o = outcomes.c
    later = select(o.seq, o.session_id, o.id).where(o.revision > 0, o.shadow.is_(False)).order_by(o.seq)
    assigned = select(decisions.c.session_id).where(decisions.c.assigned == customer)
    decided = select(decisions.c.seq, decisions.c.session_id, decisions.c.outcome_id).where(
        decisions.c.period == str(period), decisions.c.customer == customer, decisions.c.kind == "reverse"
    )
    parts = [decided.order_by(decisions.c.seq)]
    for whose in (o.customer == customer, o.session_id.in_(assigned) & (o.customer == UNATTRIBUTED)):
        parts += [
            later.where(whose, o.period == str(period), o.late.is_(None)),
            later.where(whose, o.late == str(period)),
        ]
    found: list[dict[str, str]] = []
    for part in parts:
        rows = await connection.execute(part.limit(LOOKED_MAX + 1 - len(found)))
        found += [{"session_id": session, "outcome_id": identifier} for _, session, identifier in rows]
        if len(found) > LOOKED_MAX:
            break
    return found


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
    taken = _later(account, sections_of, charge, shown)
    with localcontext(EXACT):
        for section, usages in Books(account, sections_of).counted(State(period, ENTERED)):
            if section.start_us in sections:
                usage = usages[charge]
                pairs = [(use, False) for use in usage.uses] + [(use, True) for use in usage.trial]
                uses += [_use(use, trial, taken.get(use.row.id)) for use, trial in pairs if use.row.id in shown]
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


def _later(account: Account, sections_of: SectionsOf, charge: str, shown: Iterable[str]) -> dict[str, Period]:
    """When outcomes were taken back that the charge counted."""
    found: dict[str, Period] = {}
    for period in {account.gone[name] for name in shown if name in account.gone}:
        for place, row in invoice.taken_back(account, sections_of, period, trial=True):
            if place.charge == charge:
                found[row.id] = period
    return found


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
