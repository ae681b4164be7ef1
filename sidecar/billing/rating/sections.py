"""Which plan rates which part of a period, and what was known of the customer when the period was closed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from sidecar.billing.rating.account import Customer, Row
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.usage import RatedPlan

DEFAULT_PLAN = "default"


@dataclass(frozen=True)
class Section:
    """A period, or the part of one, that one plan rates in full; `customer` as known when the period was closed."""

    period: Period
    start_us: int
    end_us: int
    plan_id: str
    plan: RatedPlan
    customer: Customer

    def ties(self, charge: str, row: Row) -> Iterator[Hashable]:
        """What a row shares with others that can bring its units to a charge in its stead, of any section."""
        for inside, tie in self.plan.ties(charge, self.customer, row):
            yield (self.start_us if inside else None, tie)


SectionsOf = Callable[[Period], Sequence[Section]]
PlanVersionOf = Callable[[str, Period], RatedPlan]


@dataclass(frozen=True)
class Closings:
    """When periods were closed: a closing also closes every period before it."""

    closed_us: Mapping[Period, int] = field(default_factory=dict)

    @cached_property
    def _periods(self) -> list[Period]:
        return sorted(self.closed_us)

    @property
    def last(self) -> Period | None:
        """The newest closed period."""
        return self._periods[-1] if self._periods else None

    def of(self, period: Period) -> int | None:
        """When a period was closed; None while it is open."""
        index = bisect_left(self._periods, period)
        return self.closed_us[self._periods[index]] if index < len(self._periods) else None

    def first_open(self, period: Period) -> Period:
        """The period itself, or the first open one after it when it is closed."""
        return period if self.last is None or period > self.last else self.last.next


def assigned(customer: Customer) -> list[tuple[int | None, str]]:
    """Which plan from when on, in order; None: from ever.

    The first assignment holds from ever, a later one from the next period on, unless it says from when. What was said
    last holds from its beginning on, whatever had been said about later times.
    """
    found: list[tuple[int | None, str]] = [(None, DEFAULT_PLAN)]
    for index, version in enumerate(customer.versions):
        plan = version.facts.get("plan") or DEFAULT_PLAN
        start = version.plan_from_us
        if start is None:
            if index and plan == found[-1][1]:
                continue
            start = Period.of(version.effective_us).end_us if index else None
        found = [entry for entry in found if start is not None and (entry[0] is None or entry[0] < start)]
        if not found or found[-1][1] != plan:
            found.append((start, plan))
    return found


def sections(customer: Customer, plan_version: PlanVersionOf, closings: Closings) -> SectionsOf:
    """The sections of every period of a customer, computed when asked for."""
    known: dict[Period, tuple[Section, ...]] = {}

    def of(period: Period) -> tuple[Section, ...]:
        if period not in known:
            then = customer.known_before(closings.of(period))
            known[period] = tuple(_cut(then, plan_version, period))
        return known[period]

    return of


def _cut(customer: Customer, plan_version: PlanVersionOf, period: Period) -> list[Section]:
    plans = assigned(customer)
    starts = [start for start, _ in plans if start is not None and period.start_us < start < period.end_us]
    bounds = [period.start_us, *starts, period.end_us]
    found = []
    for start, end in pairwise(bounds):
        plan_id = next(plan for since, plan in reversed(plans) if since is None or since <= start)
        found.append(Section(period, start, end, plan_id, plan_version(plan_id, period), customer))
    return found


def always(plan: RatedPlan, customer: Customer) -> SectionsOf:
    """One plan for every period, whatever the customer is assigned: what a backtest asks."""

    def of(period: Period) -> tuple[Section, ...]:
        return (Section(period, period.start_us, period.end_us, DEFAULT_PLAN, plan, customer),)

    return of
