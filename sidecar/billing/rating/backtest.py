"""What another plan would have charged for the same outcomes, beside what was charged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from sidecar.billing.rating.account import Account
from sidecar.billing.rating.classes import Classes, EventClass
from sidecar.billing.rating.invoice import money
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO, round_amount
from sidecar.billing.rating.sections import SectionsOf, always
from sidecar.billing.rating.summary import totals_of
from sidecar.billing.rating.usage import RatedPlan

SESSIONS_MAX = 1000  # named; `sessions_changed` counts all
Tested = dict[str, Any]
Totals = dict[str, Decimal]
_CHARGED: frozenset[EventClass] = frozenset({"charged"})


@dataclass(frozen=True, slots=True)
class _Compared:
    """One customer under both plans; `changed` counts sessions that would change side."""

    customer: str
    actual: Totals
    tested: Totals
    changed: int


class Backtest:
    """Rates a period's accounts by their own plans and by another one, one after the other.

    Earlier periods are rated by the tested plan as well, so credits of the period are what it would have credited.
    `sessions` are those that would change side: charged now and not then, or the other way round.
    """

    def __init__(self, plan: RatedPlan, period: Period) -> None:
        self._plan = plan
        self._period = period
        self._compared: list[_Compared] = []
        self._sessions: list[dict[str, Any]] = []

    def add(self, account: Account, sections_of: SectionsOf) -> None:
        """Rate one account by both plans; what is unattributed is nobody's."""
        if not account.customer.attributed:
            return
        with localcontext(EXACT):
            other = always(self._plan, account.customer)
            changed = _changed(account, sections_of, other, self._period)
            actual, tested = (totals_of(account, of, self._period) for of in (sections_of, other))
        self._compared.append(_Compared(account.customer.id, actual, tested, len(changed)))
        self._sessions += changed[: SESSIONS_MAX - len(self._sessions)]

    def result(self) -> Tested:
        """What came out over all accounts."""
        found = self._compared
        with localcontext(EXACT):
            actual, tested = _sum(one.actual for one in found), _sum(one.tested for one in found)
            return {
                "period": str(self._period),
                "plan": self._plan.plan.name,
                "actual": _shown(actual),
                "tested": _shown(tested),
                "difference": _shown(_minus(tested, actual)),
                "customers": [
                    {
                        "customer": one.customer,
                        "actual": _shown(one.actual),
                        "tested": _shown(one.tested),
                        "difference": _shown(_minus(one.tested, one.actual)),
                        "sessions_changed": one.changed,
                    }
                    for one in found
                ],
                "sessions_changed": sum(one.changed for one in found),
                "sessions": self._sessions,
            }


def _changed(account: Account, sections_of: SectionsOf, other: SectionsOf, period: Period) -> list[dict[str, Any]]:
    """The sessions that are charged by the one and not by the other."""
    before, after = dict(_classes(account, sections_of, period)), dict(_classes(account, other, period))
    return [
        {
            "session_id": session,
            "outcome": outcome,
            "customer": account.customer.id,
            "actual": kind,
            "tested": after[session, outcome],
        }
        for (session, outcome), kind in before.items()
        if (kind in _CHARGED) != (after[session, outcome] in _CHARGED)
    ]


def _classes(account: Account, sections_of: SectionsOf, period: Period) -> Iterable[tuple[tuple[str, str], EventClass]]:
    for row, kind in Classes(account, sections_of).of_period(period):
        yield (row.session_id, row.id), kind


def _sum(totals: Iterable[Totals]) -> Totals:
    found: Totals = {}
    for one in totals:
        for currency, amount in one.items():
            found[currency] = found.get(currency, ZERO) + amount
    return found


def _minus(one: Totals, other: Totals) -> Totals:
    return {code: one.get(code, ZERO) - other.get(code, ZERO) for code in sorted({*one, *other})}


def _shown(totals: Totals) -> dict[str, str]:
    return {code: money(round_amount(amount, code)) for code, amount in sorted(totals.items())}
