"""Which class of the summary each event of a period is in: every event is in exactly one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.movements import ENTERED, Books, State
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import Section, SectionsOf
from sidecar.billing.rating.usage import Usage
from sidecar.policy.plan import Charge

EventClass = Literal[
    "charged", "free", "trial", "escalated", "inconclusive", "held", "not_billable", "unmatched", "reversed", "revised"
]
CLASSES: tuple[EventClass, ...] = get_args(EventClass)
LATER: frozenset[str] = frozenset({"reversed", "revised"})  # what is no session's first event
Fed = Literal["trial", "free", "depends", "charged"]


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

    def _of_first(self, row: Row) -> EventClass | Literal["depends"]:
        """A session's first event, under the first that holds."""
        later = row.counts_from > row.entered
        if row.held or (row.was_held and later):
            return "held"
        if row.data.get("escalated_to_human") is True:
            return "escalated"
        if row.data.get("state") == "INCONCLUSIVE":
            return "inconclusive"
        if not row.billable:
            return "not_billable"
        return (None if later else self.feeds(row)) or "unmatched"

    def _of_later(self, row: Row) -> EventClass:
        """A later revision takes a charge back when its predecessor fed a charge and it does not."""
        before = self.account.predecessor(row)
        took_back = before is not None and self.feeds(before) and not self.feeds(row)
        return "reversed" if took_back else "revised"

    def feeds(self, row: Row) -> Fed | None:
        """What the row is to the charges of the first invoice on which it counts; None when it feeds none."""
        if row.counts_from not in self._fed:
            counted = self._books.counted(State(row.counts_from, ENTERED))
            self._fed[row.counts_from] = _fed(counted, part=self._part)
        return self._fed[row.counts_from].get(row.id)


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


def limited(charge: Charge) -> bool:
    """Whether free units decide which of the charge's events are paid for."""
    return charge.included_free > 0 and charge.model != "FLAT" and charge.overage_behavior == "CHARGE"


def _fed(counted: Iterable[tuple[Section, dict[str, Usage]]], *, part: bool) -> dict[str, Fed]:
    """What each row was to the charges that it fed: in trial if it was that to any, else free to any, else charged.

    A flat fee says nothing of the outcomes that it covers: one that another charge counts is what it is to that one.
    """
    found: dict[str, Fed | Literal["covered"]] = {}
    rank = {"covered": 0, "charged": 1, "depends": 2, "free": 3, "trial": 4}

    def note(row: Row, kind: Fed | Literal["covered"]) -> None:
        if row.id not in found or rank[found[row.id]] < rank[kind]:
            found[row.id] = kind

    for section, usages in counted:
        for charge in section.plan.charges:
            usage = usages[charge.id]
            used = ZERO
            for use in usage.uses:
                used = EXACT.add(used, use.units)
                if charge.model == "FLAT":
                    note(use.row, "covered")
                elif charge.overage_behavior != "CHARGE" or use.units <= 0:
                    note(use.row, "free")
                elif part:
                    note(use.row, "depends" if limited(charge) else "charged")
                else:
                    note(use.row, "charged" if used > charge.included_free else "free")
            for use in usage.trial:
                note(use.row, "trial")
    return {identifier: "free" if kind == "covered" else kind for identifier, kind in found.items()}
