"""What rating takes: the rows of an account and the history of its customer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sidecar.billing.rating.periods import Period, to_us
from sidecar.policy.conditions import instant

NEVER_US = 1 << 62
UNATTRIBUTED = "unattributed"  # the subject of outcomes whose customer was not found: recorded, never invoiced


@dataclass(frozen=True, slots=True)
class Row:
    """One outcome of the ledger. `data` is the event's, with exact decimals; `at_us` the event's time."""

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

    @property
    def order(self) -> tuple[int, str]:
        """By time, then id: the order in which units are used up."""
        return self.at_us, self.id


@dataclass(frozen=True, slots=True)
class CustomerVersion:
    """What was known of a customer from an instant on; `facts` are plan, started_at, seat_tier, seats, attributes."""

    effective_us: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Customer:
    """A customer's history, oldest first; empty for one that nobody has registered."""

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

    @cached_property
    def started_us(self) -> int | None:
        """When the contract, and with it the trial, began; by what is known last, so that it can be corrected."""
        started = instant(self.versions[-1].facts.get("started_at")) if self.versions else None
        return to_us(started) if started else None


@dataclass(frozen=True)
class Account:
    """One customer with all rows of the sessions that it has a part in.

    Rows may come in any order, and a revision before its predecessor. Rows of other customers are there only for the
    revisions among them. Live and shadow rows never meet: an account is of one or the other (`shadow`).
    """

    customer: Customer
    all_rows: tuple[Row, ...]
    shadow: bool = False

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The account's rows, live or shadow, by time and id."""
        return tuple(sorted((row for row in self.all_rows if row.shadow == self.shadow), key=lambda row: row.order))

    @cached_property
    def replaced_us(self) -> Mapping[str, int]:
        """When each replaced row was replaced, by id."""
        return _replacements(self.rows)

    @cached_property
    def own(self) -> tuple[Row, ...]:
        """The customer's rows, by time and id."""
        return tuple(row for row in self.rows if row.customer == self.customer.id)

    @cached_property
    def chargeable(self) -> Mapping[Period, tuple[Row, ...]]:
        """The rows that filters may look at, by period: neither held nor declared not billable."""
        by_period: dict[Period, list[Row]] = {}
        for row in self.own if self.customer.attributed else ():
            if row.billable and not row.held:
                by_period.setdefault(Period.of(row.at_us), []).append(row)
        return {period: tuple(by_period[period]) for period in sorted(by_period)}

    def live(self, row: Row, horizon_us: int) -> bool:
        """Whether no later revision has replaced the row before the horizon."""
        return self.replaced_us.get(row.id, NEVER_US) >= horizon_us

    def predecessor(self, row: Row) -> Row | None:
        """The revision that a row replaces, if it has arrived."""
        earlier = [other for other in self._by_session[row.session_id] if other.revision < row.revision]
        return max(earlier, key=lambda other: (other.revision, other.order), default=None)

    @cached_property
    def _by_session(self) -> Mapping[str, list[Row]]:
        by_session: dict[str, list[Row]] = {}
        for row in self.rows:
            by_session.setdefault(row.session_id, []).append(row)
        return by_session


def _replacements(rows: Iterable[Row]) -> dict[str, int]:
    """When each replaced row was replaced: at the time of the first later revision, never before its own time."""
    rows = tuple(rows)
    by_session: dict[str, list[Row]] = {}
    by_id = {row.id: row for row in rows}
    for row in rows:
        by_session.setdefault(row.session_id, []).append(row)
    replaced: dict[str, int] = {}

    def note(old: Row, new: Row) -> None:
        replaced[old.id] = max(old.at_us, min(replaced.get(old.id, NEVER_US), new.at_us))

    for row in rows:
        if row.revision == 0:
            continue
        named = by_id.get(row.reverses or "")
        if named is not None and named is not row:
            note(named, row)
        for other in by_session[row.session_id]:
            if other.revision < row.revision:
                note(other, row)
    return replaced
