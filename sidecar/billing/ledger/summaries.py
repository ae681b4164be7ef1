"""The sums behind the summary of a period, changed in the transaction that changes the sums behind invoices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.differences import Difference, Sums
from sidecar.billing.ledger.entries import chunks
from sidecar.billing.ledger.tables import allowances, class_days, classes, earnings
from sidecar.billing.ledger.upserting import upsert
from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.rating.allowance import Allowance, LostTrackError
from sidecar.billing.rating.cost import NO_CHARGE, Charged, Costs
from sidecar.billing.rating.counts import ESCALATED_LATER, UNDECIDED, WITHIN, Kind, Span
from sidecar.billing.rating.feeding import limited
from sidecar.billing.rating.periods import Period, from_us
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import Section, SectionsOf
from sidecar.billing.rating.summary import Totals, totals


@dataclass(frozen=True, slots=True)
class Earned:
    """Of one customer in one period: live events, what the invoice comes to and how many outcomes it charges, what
    models cost in USD.

    `totals` None: there is no invoice unasked, or just that of somebody registered for whom nothing happened.
    """

    events: int
    totals: Totals | None
    llm_cost: Decimal
    charged: Charged = NO_CHARGE


NOTHING = Earned(0, None, ZERO)


class Summaries:
    """Reads and writes them on one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def change(
        self, changes: Mapping[str, Difference], sections_of: Mapping[str, SectionsOf], sums: Mapping[str, Sums]
    ) -> tuple[set[tuple[str, Period]], set[str]]:
        """Add differences by customer; `sums` are the movements with them.

        Returns whose earnings changed in which periods, and who is to be summed up anew (`LostTrackError`).
        """
        numbers: dict[str, Counter[Kind]] = {}
        kept = await self.allowances(changes)
        rows: list[dict[str, Any]] = []
        for name, difference in changes.items():
            try:
                numbers[name], changed = numbers_of(sections_of[name], difference, kept[name])
            except LostTrackError:
                continue
            rows += [
                {"customer": name, "start_us": span.start_us, "shadow": span.shadow, "body": text}
                for span, text in changed.items()
            ]
        await upsert(self._connection, allowances, rows, sets=("body",))
        await self._count(numbers)
        fed = await self._earn({
            name: Earning(name, sections_of[name], changes[name], sums[name]) for name in numbers
        })  # fmt: skip
        return fed, changes.keys() - numbers.keys()

    async def allowances(self, changes: Mapping[str, Difference]) -> dict[str, dict[Span, str]]:
        """Those that differences may change, by customer."""
        found: dict[str, dict[Span, str]] = {name: {} for name in changes}
        starts = {name: {span.start_us for span in one.counts.spans} for name, one in changes.items()}
        table = allowances.c
        for some in chunks(name for name in starts if starts[name]):
            wanted = set[int]().union(*(starts[name] for name in some))
            query = select(allowances).where(table.customer.in_(some), table.start_us.in_(wanted))
            for row in await self._connection.execute(query):
                found[row.customer][Span(row.start_us, row.shadow)] = row.body
        return found

    async def _count(self, numbers: Mapping[str, Mapping[Kind, int]]) -> None:
        total: Counter[Kind] = Counter()
        rows = []
        for name, counted in numbers.items():
            for kind, number in counted.items():
                if number:
                    total[kind] += number
                    rows.append({"customer": name, **_columns(kind), "number": number})
        await upsert(self._connection, classes, rows, adds=("number",))
        days = [{**_columns(kind), "number": number} for kind, number in sorted(total.items())]
        await upsert(self._connection, class_days, days, adds=("number",))

    async def _earn(self, earning: Mapping[str, Earning]) -> set[tuple[str, Period]]:
        known: dict[tuple[str, str], Earned] = {}
        table = earnings.c
        for some in chunks(earning):
            query = select(table.customer, table.period, table.events, table.llm_cost).where(table.customer.in_(some))
            for row in await self._connection.execute(query):
                known[row.customer, row.period] = Earned(row.events, None, Decimal(row.llm_cost))
        rows, fed = [], set()
        for name, one in earning.items():
            for period in one.periods:
                earned = one.now(period, known.get((name, str(period)), NOTHING))
                rows.append({"customer": name, "period": str(period), **_stored(earned)})
                fed.add((name, period))
        sets = ("events", "totals", "llm_cost", "charged", "taken_back", "exact")
        await upsert(self._connection, earnings, rows, sets=sets)
        return fed

    async def throw_away(self, customer: str) -> None:
        """Everything of a customer."""
        rows = [
            {"period": row.period, "day": row.day, "kind": row.kind, "shadow": row.shadow, "number": -row.number}
            for row in await self._connection.execute(select(classes).where(classes.c.customer == customer))
        ]
        await upsert(self._connection, class_days, rows, adds=("number",))
        for table in (classes, allowances, earnings):
            await self._connection.execute(delete(table).where(table.c.customer == customer))

    async def of_days(self, period: Period) -> list[tuple[str, str, bool, int]]:
        """Day, class, whether shadow, and how many events of all customers."""
        table = class_days.c
        query = select(table.day, table.kind, table.shadow, table.number).where(table.period == str(period))
        return [tuple(row) for row in (await self._connection.execute(query)).all()]

    async def of_customers(self, period: Period, names: Iterable[str]) -> list[tuple[str, str, bool, int]]:
        """The same of some customers."""
        table, found = classes.c, list[tuple[str, str, bool, int]]()
        for name in names:
            query = select(table.day, table.kind, table.shadow, table.number)
            mine = query.where(table.customer == name, table.period == str(period))
            found += [tuple(row) for row in (await self._connection.execute(mine)).all()]
        return found

    async def earned(self, period: Period) -> dict[str, Earned]:
        """By customer."""
        table = earnings.c
        columns = (table.customer, table.events, table.totals, table.llm_cost)
        query = select(*columns, table.charged, table.taken_back, table.exact).where(table.period == str(period))
        return {
            name: Earned(events, _amounts(text), Decimal(llm_cost), Charged(*charged))
            for name, events, text, llm_cost, *charged in (await self._connection.execute(query)).all()
        }

    async def events(self, names: Iterable[str]) -> int:
        """How many events of some customers were summed up, of all periods."""
        found = 0
        for some in chunks(names):
            query = select(func.coalesce(func.sum(earnings.c.events), 0)).where(earnings.c.customer.in_(some))
            found += int((await self._connection.execute(query)).scalar_one())
        return found

    async def undecided(self, period: Period) -> set[str]:
        """Customers whose events must be looked at together."""
        query = (
            select(classes.c.customer)
            .where(classes.c.period == str(period), classes.c.kind == literal_column(f"'{UNDECIDED}'"))
            .group_by(classes.c.customer)
            .having(func.sum(classes.c.number) > 0)
        )
        return set((await self._connection.execute(query)).scalars())


class Earning:
    """What a customer's invoices come to, once its movements have changed."""

    def __init__(self, customer: str, sections_of: SectionsOf, difference: Difference, sums: Sums) -> None:
        self._customer = customer
        self._costs = Costs(sections_of, sums)
        self._counts = difference.counts
        self._active = {state.period for (_, state), units in sums.items() if units}
        self._events: Counter[Period] = Counter()
        for kind, number in self._counts.numbers.items():
            if not kind.shadow and kind.name not in {UNDECIDED, WITHIN, ESCALATED_LATER}:
                self._events[kind.period] += number
        moved, places = difference.movements, {place.start_us for place, _ in difference.movements}
        # A section that has changed may cost something else in every later period that touches it.
        touched = {state.period for place, state in {**sums, **moved} if place.start_us in places}
        self.periods = touched | self._events.keys() | self._counts.llm_cost.keys()

    def now(self, period: Period, before: Earned) -> Earned:
        """Of one period, from what it was before."""
        events = before.events + self._events[period]
        llm_cost = EXACT.add(before.llm_cost, self._counts.llm_cost.get(period, ZERO))
        if self._customer == UNATTRIBUTED or not (events or period in self._active):
            return Earned(events, None, llm_cost)
        with localcontext(EXACT):
            return Earned(events, totals(self._costs, period), llm_cost, self._costs.charged(period))


def numbers_of(
    sections_of: SectionsOf, difference: Difference, kept: Mapping[Span, str]
) -> tuple[Counter[Kind], dict[Span, str]]:
    """How many events of each kind a difference adds, and the allowances that change with it.

    `kept` are the allowances before. Raises LostTrackError.
    """
    change = difference.counts
    numbers, changed = Counter(change.numbers), dict[Span, str]()
    with localcontext(EXACT):
        for span in change.spans:
            section = _section(sections_of, span.start_us)
            free = {charge.id: charge.included_free for charge in section.plan.charges if limited(charge)}
            allowance = Allowance.read(kept[span]) if span in kept else Allowance()
            before = allowance.within(free)
            allowance.change(change, span, free)
            for sign, days in ((-1, before), (1, allowance.within(free))):
                for kind, number in _within(section, days, shadow=span.shadow).items():
                    numbers[kind] += sign * number
            text = allowance.text()
            if text != kept.get(span):
                changed[span] = text
    return numbers, changed


def _columns(kind: Kind) -> dict[str, Any]:
    return {"period": str(kind.period), "day": kind.day, "kind": kind.name, "shadow": kind.shadow}


def _stored(earned: Earned) -> dict[str, Any]:
    amounts = earned.totals
    text = None if amounts is None else json.dumps({code: str(amount) for code, amount in amounts.items()})
    charged = earned.charged
    return {
        "events": earned.events, "totals": text, "llm_cost": str(earned.llm_cost),
        "charged": charged.entered, "taken_back": charged.taken_back, "exact": charged.exact,
    }  # fmt: skip


def _section(sections_of: SectionsOf, start_us: int) -> Section:
    return next(one for one in sections_of(Period.of(start_us)) if one.start_us == start_us)


def _within(section: Section, days: Mapping[str, int] | None, *, shadow: bool) -> dict[Kind, int]:
    if days is None:
        first = from_us(section.period.start_us).date().isoformat()
        return {Kind(section.period, first, UNDECIDED, shadow): 1}
    return {Kind(section.period, day, WITHIN, shadow): number for day, number in days.items()}


def _amounts(text: str | None) -> Totals | None:
    return None if text is None else {code: Decimal(amount) for code, amount in json.loads(text).items()}
