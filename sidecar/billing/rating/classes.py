"""Which class of the summary each event of a period is in: every event is in exactly one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal, get_args

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.cost import Costs, Line
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO

EventClass = Literal[
    "charged", "free", "trial", "escalated", "inconclusive", "held", "not_billable", "unmatched", "reversed", "revised"
]
CLASSES: tuple[EventClass, ...] = get_args(EventClass)
Fed = Literal["trial", "free", "charged"]


class Classes:
    """Classes of an account's events; what is unattributed feeds no charge."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._fed: dict[Period, dict[str, Fed]] = {}

    def of_period(self, period: Period) -> Iterator[tuple[Row, EventClass]]:
        """Every event of the customer in the period, with its class."""
        account = self._costs.account
        first = _first_events(account)
        for row in account.own:
            if Period.of(row.at_us) == period:
                yield row, self._of_first(row) if row.id in first else self._of_later(row)

    def _of_first(self, row: Row) -> EventClass:
        """A session's first event, under the first that holds."""
        if row.held:
            return "held"
        if row.data.get("escalated_to_human") is True:
            return "escalated"
        if row.data.get("state") == "INCONCLUSIVE":
            return "inconclusive"
        if not row.billable:
            return "not_billable"
        return self._feeds(row) or "unmatched"

    def _of_later(self, row: Row) -> EventClass:
        """A later revision takes a charge back when its predecessor fed a charge and it does not."""
        before = self._costs.account.predecessor(row)
        took_back = before is not None and self._feeds(before) and not self._feeds(row)
        return "reversed" if took_back else "revised"

    def _feeds(self, row: Row) -> Fed | None:
        period = Period.of(row.at_us)
        if period not in self._fed:
            self._fed[period] = _fed(self._costs.gross(period).lines)
        return self._fed[period].get(row.id)


def count(pairs: Iterator[tuple[Row, EventClass]]) -> Counter[EventClass]:
    """How many events are in each class."""
    return Counter(kind for _, kind in pairs)


def _first_events(account: Account) -> set[str]:
    """Ids of the first event of each session: its earliest revision 0."""
    firsts: dict[str, Row] = {}
    for row in account.rows:
        if row.revision == 0 and (row.session_id not in firsts or row.order < firsts[row.session_id].order):
            firsts[row.session_id] = row
    return {row.id for row in firsts.values()}


def _fed(lines: tuple[Line, ...]) -> dict[str, Fed]:
    """What each row was to the charges that it fed: charged if any of its units was, else free, else in trial."""
    found: dict[str, Fed] = {}
    rank = {"trial": 0, "free": 1, "charged": 2}

    def note(row: Row, kind: Fed) -> None:
        if row.id not in found or rank[found[row.id]] < rank[kind]:
            found[row.id] = kind

    for line in lines:
        charge = line.charge
        priced = charge.model != "FLAT" and charge.overage_behavior == "CHARGE"
        used = ZERO
        for use in line.usage.uses:
            used = EXACT.add(used, use.units)
            note(use.row, "charged" if priced and use.units > 0 and used > charge.included_free else "free")
        for use in line.usage.trial:
            note(use.row, "trial")
    return found
