"""One session in the books: on which invoices it stands, with how many units, and what these would cost without it.

With free units, tiers and caps no single session has a price of its own. What it is worth is what the invoice costs
with it, less what it would cost without it: exactly what a reversal gives back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from sidecar.billing.rating.movements import DEPEND, ENTERED, PAID, Movements, Place, State, Units, added, less
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


@dataclass(frozen=True, slots=True)
class Standing:
    """`postings` in the order of the books. `worth`, by currency, is what all invoices cost more with the session than
    without it: less than its postings' worths together come to, or more, where a cap or a tier is reached between them.
    It is None where a posting's is.
    """

    postings: Sequence[Posting] = ()
    worth: Mapping[str, Decimal] | None = field(default_factory=dict)


async def standing(connection: AsyncConnection, session_id: str, customer: str) -> Standing | None:
    """What a session is to its customer's invoices.

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
        moved = [(key, units) for key, units in sorted(mine.items(), key=_order) if key[0].charge not in {PAID, DEPEND}]
        found = [_posting(sections_of, everything, key, units) for key, units in moved]
        worth = None if everything is None else _altogether(sections_of, everything, mine)
        return Standing([one for one in found if one.priced], worth)


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
    section = _section(sections_of, place.start_us)
    home = section.period
    kind = "credit" if state.phase != ENTERED else "line" if state.period == home else "adjustment"
    worth = None if everything is None else _worth(sections_of, everything, section, {key: units})
    if worth is not None and kind == "credit":
        worth = -worth
    return Posting(kind, state.period, section, place.charge, units.units, units.trial, worth)


def _worth(sections_of: SectionsOf, everything: Movements, section: Section, change: Movements) -> Decimal:
    [state] = {state for _, state in change}
    return _more(sections_of, everything, change, section, state)


def _altogether(sections_of: SectionsOf, everything: Movements, mine: Movements) -> dict[str, Decimal]:
    """By currency, once all is booked: what a section's invoices add up to is what it costs at the last state."""
    total: dict[str, Decimal] = {}
    if not mine:
        return total
    last = max(state for _, state in (*everything, *mine))
    for start_us in sorted({place.start_us for place, _ in mine}):
        section = _section(sections_of, start_us)
        more = _more(sections_of, everything, mine, section, last)
        total[section.plan.currency] = total.get(section.plan.currency, Decimal(0)) + more
    return total


def _more(sections_of: SectionsOf, everything: Movements, mine: Movements, section: Section, state: State) -> Decimal:
    """What a section costs more at a state with some movements than without them."""
    with_it, without = (Costs(sections_of, one) for one in (everything, added([everything, less(mine)])))
    return with_it.at(section, state).payable - without.at(section, state).payable


def _section(sections_of: SectionsOf, start_us: int) -> Section:
    return next(one for one in sections_of(Period.of(start_us)) if one.start_us == start_us)


def units_now(found: Sequence[Posting]) -> dict[str, Decimal]:
    """How many units of each charge still stand, in trial or not."""
    total: dict[str, Decimal] = {}
    for one in found:
        total[one.charge] = total.get(one.charge, Decimal(0)) + one.units + one.trial
    return total
