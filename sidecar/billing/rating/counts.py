"""What the summary of a period counts, as sums over parts of an account that have nothing to do with each other.

One thing does not add up so: which events had free units, for these are used up by all of an account in the order of
time. So a part says which of its events depend on that, and what it used of which charge (`FreeUse`); an `Allowance`
puts these together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.classes import LATER, Classes
from sidecar.billing.rating.feeding import limited
from sidecar.billing.rating.llm_cost import llm_cost
from sidecar.billing.rating.movements import ENTERED, Books, State
from sidecar.billing.rating.periods import DAY_US, Period, from_us
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import SectionsOf

# Beside the classes. "depends": charged, or free if it is among those "within" the free units. "undecided": parts
# cannot tell at all, so the account has to be asked as a whole. "escalated_later": sessions, of no day of the period.
DEPENDS, WITHIN, UNDECIDED, ESCALATED_LATER = "depends", "within", "undecided", "escalated_later"


class Kind(NamedTuple):
    """Of events: the day of the summary under which they stand, and their class."""

    period: Period
    day: str
    name: str
    shadow: bool


class Span(NamedTuple):
    """Whose free units: a section, live or shadow."""

    start_us: int
    shadow: bool


class FreeUse(NamedTuple):
    """One row's use of a charge with free units; in the order of time. `nth` is its metric's place in the charge.

    `day` is where the row stands in the summary when it depends on whether this was free, else None.
    """

    at_us: int
    id: str
    nth: int
    units: Decimal
    day: str | None


@dataclass
class Counts:
    """What some rows of a customer add to its summaries."""

    numbers: Counter[Kind] = field(default_factory=Counter)
    llm_cost: dict[Period, Decimal] = field(default_factory=dict)
    uses: dict[tuple[Span, str], set[FreeUse]] = field(default_factory=dict)
    depending: Counter[tuple[Span, str]] = field(default_factory=Counter)  # by day

    def add(self, other: Counts) -> None:
        """Take another part in."""
        self.numbers.update(other.numbers)
        for period, cost in other.llm_cost.items():
            self.llm_cost[period] = EXACT.add(self.llm_cost.get(period, ZERO), cost)
        for key, uses in other.uses.items():
            self.uses.setdefault(key, set()).update(uses)
        self.depending.update(other.depending)


@dataclass
class Change:
    """From one count of the same part to another."""

    numbers: Counter[Kind]
    llm_cost: dict[Period, Decimal]
    added: dict[tuple[Span, str], set[FreeUse]]
    removed: dict[tuple[Span, str], set[FreeUse]]
    depending: Counter[tuple[Span, str]]

    @classmethod
    def between(cls, before: Counts, now: Counts) -> Change:
        """What must be added to `before` to come to `now`."""
        numbers = Counter(now.numbers)
        numbers.subtract(before.numbers)
        periods = before.llm_cost.keys() | now.llm_cost.keys()
        costs = {
            period: EXACT.subtract(now.llm_cost.get(period, ZERO), before.llm_cost.get(period, ZERO))
            for period in periods
        }
        depending = Counter(now.depending)
        depending.subtract(before.depending)
        keys, none = before.uses.keys() | now.uses.keys(), set[FreeUse]()
        return cls(
            Counter({kind: number for kind, number in numbers.items() if number}),
            {period: cost for period, cost in costs.items() if cost},
            {key: now.uses.get(key, none) - before.uses.get(key, none) for key in keys},
            {key: before.uses.get(key, none) - now.uses.get(key, none) for key in keys},
            depending,
        )

    @property
    def spans(self) -> set[Span]:
        """Where the use of free units changes."""
        return {span for uses in (self.added, self.removed) for (span, _), some in uses.items() if some}


def day_of(row: Row) -> str:
    """Where the row stands in the summary: what came after its own period was closed, on the first day."""
    return _day(row.at_us // DAY_US if row.late is None else row.late.start_us // DAY_US)


def _first_day(period: Period) -> str:
    return _day(period.start_us // DAY_US)


@lru_cache(maxsize=1024)
def _day(number: int) -> str:
    return from_us(number * DAY_US).date().isoformat()


def counts(account: Account, sections_of: SectionsOf, books: Books) -> Counts:
    """Of a part of an account; `books` are those of the part."""
    found, depending = Counts(), dict[str, str]()
    classes = Classes(account, sections_of, books)
    for row in account.own:
        kind: str = classes.of(row)
        day = day_of(row)
        if kind == DEPENDS:
            if row.counts_from == row.period:
                depending[row.id] = day
            else:
                kind = UNDECIDED  # the free units of a closed period, as they are after what was taken back since
        found.numbers[Kind(row.entered, day, kind, account.shadow)] += 1
        if kind not in LATER and not account.shadow:
            cost = llm_cost(row.data, account.prices.at(row.at_us))
            found.llm_cost[row.entered] = EXACT.add(found.llm_cost.get(row.entered, ZERO), cost)
    if not account.shadow:
        for period, number in classes.escalated_later().items():
            found.numbers[Kind(period, _first_day(period), ESCALATED_LATER, shadow=False)] += number
    if account.chargeable:
        _note_uses(found, account, books, depending)
    return found


def _note_uses(found: Counts, account: Account, books: Books, depending: Mapping[str, str]) -> None:
    """Every section as it is in its own period, before anything is taken back."""
    times = {row.id: row.at_us for row in account.own}
    for period in {row.period for row in account.chargeable if row.counts_from == row.period}:
        for section, usages in books.counted(State(period, ENTERED)):
            if section.period != period:
                continue
            span = Span(section.start_us, account.shadow)
            inside = {row for row in depending if section.start_us <= times[row] < section.end_us}
            found.depending.update((span, depending[row]) for row in inside)
            for charge in section.plan.charges:
                uses = usages[charge.id].uses
                negative = sum(use.units < 0 for use in uses)
                if negative:  # what is used up may come back
                    found.numbers[Kind(period, _first_day(period), UNDECIDED, account.shadow)] += negative
                if limited(charge):
                    found.uses.setdefault((span, charge.id), set()).update(
                        FreeUse(use.row.at_us, use.row.id, charge.metrics.index(use.metric), use.units,
                                depending.get(use.row.id))
                        for use in uses if use.units > 0
                    )  # fmt: skip


def together(parts: Iterable[Counts]) -> Counts:
    """Of several parts of an account."""
    total = Counts()
    for part in parts:
        total.add(part)
    return total
