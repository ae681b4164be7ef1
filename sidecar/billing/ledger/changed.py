"""What an outcome, or a decision about one, did to invoices when it came: with all until then, minus all before it.

So what came in a stretch of time adds up to how the invoices' totals changed in it, which what outcomes are worth now
(`worth`) does not: that is without each of them alone.

How it works. The sums of an account are those of now. The groups of rows that what came later belongs to
(`rating.movements`) are exchanged for what they made then, once with the outcome or decision and once without it, and
both accounts are priced: by the plans and customer facts of now, which also rate the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import takewhile

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.deciding import newest as newest_decisions
from sidecar.billing.ledger.differences import Group
from sidecar.billing.ledger.entries import Record, account_parts, chunks, decided, has_few
from sidecar.billing.ledger.tables import decisions, outcomes
from sidecar.billing.ledger.worth import differences
from sidecar.billing.rating.account import UNATTRIBUTED, Account, Row
from sidecar.billing.rating.invoice import money
from sidecar.billing.rating.movements import added, less, movements_of
from sidecar.billing.rating.price import EXACT

LATER_MAX = 500  # rows of a customer that came after it, and are undone to see what was before
GIVEN_MAX = 2000  # sessions that operators gave to a customer
# How far the times of two rows may be against the order of their numbers: replicas have clocks of their own, and write
# at the same time.
SKEW_US = 60_000_000
Amounts = dict[tuple[str, str], Decimal]  # by period and currency


@dataclass(frozen=True, slots=True)
class Moment:
    """When something came. Outcomes come in the order of `seq`, and so do decisions; one of each, by `at_us`."""

    seq: int
    at_us: int
    decides: bool

    def before_row(self, seq: int, received_us: int) -> bool:
        """Whether an outcome came later."""
        return received_us > self.at_us if self.decides else seq > self.seq

    def before_decision(self, seq: int, decided_us: int) -> bool:
        """Whether a decision came later."""
        return seq > self.seq if self.decides else decided_us >= self.at_us

    def until(self, group: Group, *, itself: bool) -> tuple[Row, ...]:
        """A group's rows as they were then, with or without what came at the moment."""
        row_left_out, decision_left_out = (not itself and self.decides is which for which in (False, True))
        rows = [
            row
            for row in group.rows
            if not self.before_row(row["seq"], row["received_us"]) and not (row_left_out and row["seq"] == self.seq)
        ]
        taken = [
            one
            for one in group.decisions
            if not self.before_decision(one.seq, one.decided_us) and not (decision_left_out and one.seq == self.seq)
        ]
        return decided(rows, taken)


def of_outcome(row: Record) -> Moment:
    """When a row of the ledger came."""
    return Moment(row["seq"], row["received_us"], decides=False)


def of_decision(row: Record) -> Moment:
    """When something was decided."""
    return Moment(row["seq"], row["decided_us"], decides=True)


async def when_it_came(
    connection: AsyncConnection, catalog: Catalog, outcome: Record, moment: Moment
) -> list[dict[str, str]] | None:
    """What an outcome, or a decision about it, changed on invoices when it came, but zeros, by period and currency.

    None: more came after it than is undone, or the account is too large to be rated from its rows.
    """
    note = {"session_id": outcome["session_id"], "outcome_id": outcome["id"]}
    group = await Aggregates(connection, catalog).group([note], set())
    payers = {row.customer for itself in (True, False) for row in moment.until(group, itself=itself)}
    total: Amounts = {}
    for payer in sorted(payers - {UNATTRIBUTED}) if not outcome["shadow"] else ():
        found = await _of_customer(connection, catalog, payer, note, moment)
        if found is None:
            return None
        for key, amount in found.items():
            total[key] = total.get(key, Decimal(0)) + amount
    return [
        {"period": period, "currency": currency, "amount": money(amount)}
        for (period, currency), amount in sorted(total.items())
        if amount
    ]


async def _of_customer(
    connection: AsyncConnection, catalog: Catalog, payer: str, note: Mapping[str, str], moment: Moment
) -> Amounts | None:
    customer, sections_of = (await catalog.customers([payer]))[payer], await catalog.sections_of(payer)
    sums = Aggregates(connection, catalog)
    total = await sums.read(payer)
    if total is None:
        if not await has_few(connection, payer):
            return None
        group = Group(*await account_parts(connection, payer))
    else:
        later = await _later(connection, payer, moment)
        if later is None:
            return None
        coupling = await catalog.coupling(payer)
        group = await sums.group([note, *later], {payer} if coupling == "conversation" else set())
    now, after, before = await asyncio.to_thread(
        lambda: [
            movements_of(Account(customer, rows), sections_of)
            for rows in (group.now, moment.until(group, itself=True), moment.until(group, itself=False))
        ]
    )
    total = now if total is None else total
    with localcontext(EXACT):
        then, until = (added([total, less(now), some]) for some in (after, before))
    return differences(payer, sections_of, (then, until))


async def _later(connection: AsyncConnection, customer: str, moment: Moment) -> Sequence[Record] | None:
    """Everything about a customer that came after a moment; None when that is much.

    Without revisions that name another customer than the one whose outcome they replaced.
    """
    o, d = outcomes.c, decisions.c
    columns = (o.seq, o.received_us, o.session_id, o.id.label("outcome_id"))

    def came_later(row: Record) -> bool:
        return moment.before_row(row["seq"], row["received_us"])

    def decided_later(row: Record) -> bool:
        return moment.before_decision(row["seq"], row["decided_us"])

    own = select(*columns).where(o.customer == customer).order_by(o.seq.desc()).limit(LATER_MAX + 1)
    if not moment.decides:
        own = own.where(o.seq > moment.seq)
    newest = (await connection.execute(own)).mappings().all()
    near = list(takewhile(lambda row: not moment.decides or row["received_us"] > moment.at_us - SKEW_US, newest))
    given_query = select(d.session_id).where(d.assigned == customer).limit(GIVEN_MAX + 1)
    given = (await connection.execute(given_query)).scalars().all()
    if len(near) > LATER_MAX or len(given) > GIVEN_MAX:
        return None
    found: list[Record] = list(filter(came_later, near))
    for some in chunks(given):  # sessions first: see `behind`
        rows = await connection.execute(select(*columns).where(o.session_id.in_(some)))
        found += filter(came_later, rows.mappings())
    ruled = await newest_decisions(connection, None, LATER_MAX + 1, customer)

    def decided_near(row: Record) -> bool:
        return decided_later(row) if moment.decides else row["decided_us"] > moment.at_us - SKEW_US

    close = list(takewhile(decided_near, ruled))
    found += filter(decided_later, close)
    return None if len(close) > LATER_MAX or len(found) > LATER_MAX else found
