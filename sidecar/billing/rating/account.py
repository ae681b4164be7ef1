"""What rating takes: the rows of an account and the history of its customer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sidecar.billing.rating.llm_cost import PriceHistory, shipped_history
from sidecar.billing.rating.periods import Period, to_us
from sidecar.policy.conditions import instant

UNATTRIBUTED = "unattributed"  # the subject of outcomes whose customer was not found: recorded, never invoiced


@dataclass(frozen=True)
class Row:
    """One outcome of the ledger, with what operators decided about it.

    `data` is the event's, with exact decimals; `at_us` the event's time. `late` is the period on whose invoice the
    event stands when its own was closed. `counts` is the period from which it counts, when a decision made it count
    later still (a hold released, a customer named); `taken_back` the period in which an operator took it back.
    `customer` is the one that pays, `held` whether it still waits.
    """

    id: str
    customer: str
    session_id: str
    revision: int
    at_us: int
    data: Mapping[str, Any]
    reverses: str | None = None
    conversation: str | None = None
    held: bool = False
    billable: bool = True
    shadow: bool = False
    late: Period | None = None
    counts: Period | None = None
    taken_back: Period | None = None
    was_held: bool = False

    @property
    def order(self) -> tuple[int, str]:
        """By time, then id: the order in which units are used up."""
        return self.at_us, self.id

    @cached_property
    def period(self) -> Period:
        """The period of the event's time, whose prices hold."""
        return Period.of(self.at_us)

    @cached_property
    def entered(self) -> Period:
        """The period on whose invoice and summary the event stands."""
        return self.late or self.period

    @cached_property
    def counts_from(self) -> Period:
        """The first period on whose invoice it can be charged."""
        return max(self.entered, self.counts or self.entered)


@dataclass(frozen=True, slots=True)
class CustomerVersion:
    """What was known of a customer from an instant on; `facts` are plan, started_at, seat_tier, seats, attributes.

    `plan_from_us` is when the plan begins, if that was said; else it begins with the next period. `recorded_us` is when
    we were told, if that is not the instant itself.
    """

    effective_us: int
    facts: Mapping[str, Any]
    plan_from_us: int | None = None
    recorded_us: int | None = None

    @property
    def known_us(self) -> int:
        """When we were told."""
        return self.effective_us if self.recorded_us is None else self.recorded_us


@dataclass(frozen=True)
class Customer:
    """A customer's history, in the order in which we were told; empty for one that nobody has registered."""

    id: str
    versions: tuple[CustomerVersion, ...] = ()

    @property
    def attributed(self) -> bool:
        """Whether this is anybody at all; nobody owes nothing."""
        return self.id != UNATTRIBUTED

    def as_of(self, us: int) -> dict[str, Any]:
        """The facts at an instant. What was first known also holds for the time before it was known."""
        chosen = self.versions[:1]
        for version in self.versions:
            if version.effective_us <= us:
                chosen = (version,)
        return {**(chosen[0].facts if chosen else {}), "id": self.id}

    def known_before(self, us: int | None) -> Customer:
        """The customer as it was known before an instant; None: as it is known now."""
        if us is None or all(version.known_us < us for version in self.versions):
            return self
        return Customer(self.id, tuple(version for version in self.versions if version.known_us < us))

    def registered_by(self, us: int) -> bool:
        """Whether anything that was said of it holds before an instant."""
        return any(version.effective_us < us for version in self.versions)

    @cached_property
    def started_us(self) -> int | None:
        """When the contract, and with it the trial, began; by what is known last, so that it can be corrected."""
        started = instant(self.versions[-1].facts.get("started_at")) if self.versions else None
        return to_us(started) if started else None


@dataclass(frozen=True)
class Account:
    """One customer with all rows of the sessions that it has a part in.

    Rows may come in any order, twice, and a revision before its predecessor. Rows of other customers are there only
    for the revisions among them. Live and shadow rows never meet: an account is of one or the other (`shadow`).
    `prices` are those of the models that served it.
    """

    customer: Customer
    all_rows: tuple[Row, ...]
    shadow: bool = False
    prices: PriceHistory = field(default_factory=shipped_history)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The account's rows, live or shadow, by time and id."""
        once = {row.id: row for row in self.all_rows if row.shadow == self.shadow}
        return tuple(sorted(once.values(), key=lambda row: row.order))

    @cached_property
    def gone(self) -> Mapping[str, Period]:
        """In which period a row was taken back, by id: replaced by a later revision, or by an operator. Never before
        the row counts itself.
        """
        found = {}
        for row in self.rows:
            ends = [later.entered for later in self.later(row)]
            if row.taken_back is not None:
                ends.append(row.taken_back)
            if ends:
                found[row.id] = max(row.counts_from, min(ends))
        return found

    @cached_property
    def own(self) -> tuple[Row, ...]:
        """The customer's rows, by time and id."""
        return tuple(row for row in self.rows if row.customer == self.customer.id)

    @cached_property
    def chargeable(self) -> tuple[Row, ...]:
        """The rows that filters may look at: of somebody, neither held nor declared not billable."""
        return tuple(row for row in self.own if self.may_charge(row))

    def may_charge(self, row: Row) -> bool:
        """Whether filters may look at a row."""
        mine = row.customer == self.customer.id and self.customer.attributed
        return mine and row.billable and not row.held

    def later(self, row: Row) -> list[Row]:
        """The revisions that replace a row, in order: the later ones of its session, and those that name it."""
        session, naming = self._by_session[row.session_id], self._naming.get(row.id, ())
        if len(session) == 1 and not naming:
            return []
        found = {other.id: other for other in session if other.revision > row.revision}
        found |= {other.id: other for other in naming}
        return sorted(found.values(), key=lambda other: (other.revision, other.order))

    @property
    def sessions(self) -> Iterable[Sequence[Row]]:
        """The rows by session, in each by time and id."""
        return self._by_session.values()

    @cached_property
    def _by_session(self) -> Mapping[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.session_id, []).append(row)
        return found

    @cached_property
    def _naming(self) -> Mapping[str, list[Row]]:
        """Revisions by the id that they replace."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.revision and row.reverses is not None and row.reverses != row.id:
                found.setdefault(row.reverses, []).append(row)
        return found
