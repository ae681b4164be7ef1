"""Which class of the summary each event of a period is in: every event is in exactly one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.feeding import Fed, counted_by, fed
from sidecar.billing.rating.movements import ENTERED, Books, State
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import SectionsOf

EventClass = Literal[
    "charged", "free", "trial", "escalated", "inconclusive", "held", "not_billable", "unmatched", "reversed", "revised"
]
CLASSES: tuple[EventClass, ...] = get_args(EventClass)
LATER: frozenset[str] = frozenset({"reversed", "revised"})  # what is no session's first event


class Classes:
    """Classes of an account's events; what is unattributed feeds no charge.

    An event stands in the summary of the period on whose invoice it stands. What is decided about it after that period
    was closed does not move it.

    Of a part of an account nobody can tell whether others have used up the free units. Then `books` are the part's,
    and what turns on that is classed as "depends".
    """

    def __init__(self, account: Account, sections_of: SectionsOf, books: Books | None = None) -> None:
        self.account = account
        self._books = books or Books(account, sections_of)
        self._part = books is not None
        self._fed: dict[Period, dict[str, Fed]] = {}
        self._counted_by: dict[Period, dict[str, set[str]]] = {}
        self._first = _first_events(account)

    def of_period(self, period: Period) -> Iterator[tuple[Row, EventClass]]:
        """Every event of the customer in the period, with its class."""
        for row in self.account.own:
            if row.entered == period:
                kind = self.of(row)
                assert kind != "depends", "asked of a whole account"  # noqa: S101 - for the type checker
                yield row, kind

    def of(self, row: Row) -> EventClass | Literal["depends"]:
        """The class of one event of the customer."""
        return self._of_first(row) if row.id in self._first else self._of_later(row)

    def escalated_later(self) -> Counter[Period]:
        """Sessions of the customer that were handed to a human after their first event, less those that no longer are.

        By the period that ends with it so; whatever happened inside the period comes to one change or none.
        """
        found: Counter[Period] = Counter()
        for rows in self.account.sessions:
            if any(_escalated(row) for row in rows):
                self._note_escalated(found, rows)
        return found

    def _note_escalated(self, found: Counter[Period], rows: Sequence[Row]) -> None:
        was = False
        for period in sorted({period for row in rows for period in (row.entered, row.counts_from)}):
            last = max((row for row in rows if row.entered <= period), key=lambda row: (row.revision, row.order))
            waits = last.held or (last.was_held and last.counts_from > period)
            now = last.customer == self.account.customer.id and _escalated(last) and not waits
            first = [row for row in rows if row.id in self._first and row.entered == period]
            at_first = any(row.customer == self.account.customer.id and self.of(row) == "escalated" for row in first)
            found[period] += now - was - at_first
            was = now

    def _of_first(self, row: Row) -> EventClass | Literal["depends"]:
        """A session's first event, under the first that holds."""
        later = row.counts_from > row.entered
        if row.held or (row.was_held and later):
            return "held"
        if _escalated(row):
            return "escalated"
        if row.data.get("state") == "INCONCLUSIVE":
            return "inconclusive"
        if not row.billable:
            return "not_billable"
        return (None if later else self.feeds(row)) or "unmatched"

    def _of_later(self, row: Row) -> EventClass:
        """A later revision takes a charge back when one that counted its predecessor does not count it, whatever
        others do: tokens may be charged of either.
        """
        before = self.account.predecessor(row)
        took_back = before is not None and self._charges(before) - self._charges(row)
        return "reversed" if took_back else "revised"

    def _charges(self, row: Row) -> set[str]:
        """Those that count the row on the first invoice on which it counts."""
        if row.counts_from not in self._counted_by:
            found = self._counted_by[row.counts_from] = {}
            for _, usages in self._books.counted(State(row.counts_from, ENTERED)):
                found |= counted_by(usages)
        return self._counted_by[row.counts_from].get(row.id, set())

    def feeds(self, row: Row) -> Fed | None:
        """What the row is to the charges of the first invoice on which it counts; None when it feeds none."""
        if row.counts_from not in self._fed:
            found = self._fed[row.counts_from] = {}
            for section, usages in self._books.counted(State(row.counts_from, ENTERED)):
                found |= fed(section, usages, part=self._part)
        return self._fed[row.counts_from].get(row.id)


def _escalated(row: Row) -> bool:
    return row.data.get("escalated_to_human") is True


def count(pairs: Iterator[tuple[Row, EventClass]]) -> Counter[EventClass]:
    """How many events are in each class."""
    return Counter(kind for _, kind in pairs)


def _first_events(account: Account) -> set[str]:
    """Ids of the first event of each session: its earliest revision 0, among those of the earliest invoice."""
    firsts: dict[str, Row] = {}
    for row in account.rows:
        known = firsts.get(row.session_id)
        if row.revision == 0 and (known is None or (row.entered, row.order) < (known.entered, known.order)):
            firsts[row.session_id] = row
    return {row.id for row in firsts.values()}
