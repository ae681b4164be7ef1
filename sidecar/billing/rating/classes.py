"""Which class of the summary each event of a period is in: every event is in exactly one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.feeding import Fed, fed
from sidecar.billing.rating.movements import ENTERED, Books, State
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import SectionsOf
from sidecar.billing.rating.taking_back import reversing, reversing_of

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
        self._reversing: dict[Period, set[str]] = {}
        self._first, self._escalated_later = _walked(account)

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
        return self._escalated_later

    def _of_first(self, row: Row) -> EventClass | Literal["depends"]:
        """A session's first event, under the first that holds."""
        if _waits(row, row.entered):
            return "held"
        if _escalated(row):
            return "escalated"
        if row.data.get("state") == "INCONCLUSIVE":
            return "inconclusive"
        if not row.billable:
            return "not_billable"
        return (None if row.counts_from > row.entered else self.feeds(row)) or "unmatched"

    def _of_later(self, row: Row) -> EventClass:
        """A later revision is told by what it takes back."""
        if row.entered not in self._reversing:
            self._reversing[row.entered] = (
                reversing_of(self._books, row.entered)
                if self._part
                else reversing(self.account, self._books.sections_of, row.entered)
            )
        return "reversed" if row.id in self._reversing[row.entered] else "revised"

    def feeds(self, row: Row) -> Fed | None:
        """What the row is to the charges of the first invoice on which it counts; None when it feeds none."""
        if row.counts_from not in self._fed:
            found = self._fed[row.counts_from] = {}
            for section, usages in self._books.counted(State(row.counts_from, ENTERED)):
                found |= fed(section, usages, part=self._part)
        return self._fed[row.counts_from].get(row.id)


def count(pairs: Iterator[tuple[Row, EventClass]]) -> Counter[EventClass]:
    """How many events are in each class."""
    return Counter(kind for _, kind in pairs)


def _walked(account: Account) -> tuple[set[str], Counter[Period]]:
    """Ids of the first event of each session, and the periods by which how many sessions more were escalated.

    The first event is the earliest revision 0, among those of the earliest invoice.
    """
    firsts, found = set[str](), Counter[Period]()
    for rows in account.sessions:
        first = min((row for row in rows if row.revision == 0), key=lambda row: (row.entered, row.order), default=None)
        if first is not None:
            firsts.add(first.id)
        if any(_escalated(row) for row in rows):
            _note_escalated(found, account.customer.id, rows, first)
    return firsts, found


def _note_escalated(found: Counter[Period], customer: str, rows: Sequence[Row], first: Row | None) -> None:
    was = False
    for period in sorted({period for row in rows for period in (row.entered, row.counts_from)}):
        last = max((row for row in rows if row.entered <= period), key=lambda row: (row.revision, row.order))
        now, at_first = (
            row is not None and row.customer == customer and _escalated(row) and not _waits(row, period)
            for row in (last, first if first is not None and first.entered == period else None)
        )
        found[period] += now - was - at_first
        was = now


def _escalated(row: Row) -> bool:
    return row.data.get("escalated_to_human") is True


def _waits(row: Row, period: Period) -> bool:
    """Whether an outcome still waits for an operator when a period ends."""
    return row.held or (row.was_held and row.counts_from > period)
