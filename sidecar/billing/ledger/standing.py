"""One session in the books: on which invoices it stands, with how many units, and what these would cost without it.

With free units, tiers and caps no single session has a price of its own. What it is worth is what the invoice costs
with it, less what it would cost without it: exactly what a reversal gives back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.differences import Group, worked_out
from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.invoice import title
from sidecar.billing.rating.movements import ENTERED, Movements, Place, State, Units, added, less
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.sections import Section, SectionsOf
from sidecar.policy.plan import Charge


@dataclass(frozen=True, slots=True)
class Posting:
    """A change that a session made to an invoice: `period` is the invoice's, `section` the one whose price holds.

    `kind` is `line`, `adjustment` (it came after its period was closed) or `credit` (taken back). `worth` is what the
    invoice costs more with it (for a credit: less); None where that takes a look at every outcome of the customer.
    """

    kind: str
    period: Period
    section: Section
    charge: str
    units: Decimal
    trial: Decimal
    worth: Decimal | None

    @property
    def name(self) -> str:
        """Of the charge, as people know it."""
        return title(self._charge, self.section.plan)

    @property
    def priced(self) -> bool:
        """Whether units are what the charge is about: a FLAT one costs the same whatever happened."""
        return self._charge.model != "FLAT"

    @property
    def _charge(self) -> Charge:
        return next(one for one in self.section.plan.charges if one.id == self.charge)

    @property
    def currency(self) -> str:
        """Of the worth."""
        return self.section.plan.currency


async def postings(connection: AsyncConnection, session_id: str, customer: str) -> list[Posting] | None:
    """What a session is to its customer's invoices, in the order of the books.

    None when it cannot be said of a session alone: by the plan, any outcome of the customer can decide about it.
    """
    catalog = Catalog(connection)
    await catalog.customers([customer])
    sections_of, coupling = await catalog.sections_of(customer), await catalog.coupling(customer)
    if coupling == "account":
        return None
    sums = Aggregates(connection, catalog)
    rows = (await connection.execute(select(outcomes.c.id).where(outcomes.c.session_id == session_id))).scalars()
    notes = [{"session_id": session_id, "outcome_id": identifier} for identifier in rows]
    group = await sums.group(notes, {customer} if coupling == "conversation" else set())
    with localcontext(EXACT):
        mine = _mine(group, session_id, coupling, {customer: sections_of})
        everything = await sums.soon(customer)
        found = [_posting(sections_of, everything, key, units) for key, units in sorted(mine.items(), key=_order)]
        return [one for one in found if one.priced]


def _mine(group: Group, session_id: str, coupling: Any, sections_of: Mapping[str, SectionsOf]) -> Movements:
    """The movements with the session, less those without it."""
    others = [row for row in group.now if row.session_id != session_id]
    [now] = worked_out(group.now, group.prices, coupling, sections_of, count=False).values()
    [without] = worked_out(others, group.prices, coupling, sections_of, count=False).values()
    return added([now.movements, less(without.movements)])


def _order(entry: tuple[tuple[Place, State], Units]) -> tuple[State, Place]:
    (place, state), _ = entry
    return state, place


def _posting(sections_of: SectionsOf, everything: Movements | None, key: tuple[Place, State], units: Units) -> Posting:
    place, state = key
    home = Period.of(place.start_us)
    section = next(one for one in sections_of(home) if one.start_us == place.start_us)
    kind = "credit" if state.phase != ENTERED else "line" if state.period == home else "adjustment"
    worth = None if everything is None else _worth(sections_of, everything, section, {key: units})
    if worth is not None and kind == "credit":
        worth = -worth
    return Posting(kind, state.period, section, place.charge, units.units, units.trial, worth)


def _worth(sections_of: SectionsOf, everything: Movements, section: Section, change: Movements) -> Decimal:
    [state] = {state for _, state in change}
    without = added([everything, less(change)])
    with_it = Costs(sections_of, everything).at(section, state)
    return with_it.payable - Costs(sections_of, without).at(section, state).payable


def units_now(found: Sequence[Posting]) -> dict[str, Decimal]:
    """How many units of each charge still stand, in trial or not."""
    total: dict[str, Decimal] = {}
    for one in found:
        total[one.charge] = total.get(one.charge, Decimal(0)) + one.units + one.trial
    return total


def worth_now(found: Sequence[Posting]) -> dict[str, Decimal]:
    """What a session costs altogether, by currency, with what was given back."""
    total: dict[str, Decimal] = {}
    for one in found:
        if one.worth is not None:
            sign = -1 if one.kind == "credit" else 1
            total[one.currency] = total.get(one.currency, Decimal(0)) + sign * one.worth
    return total
