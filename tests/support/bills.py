"""Rows, customers and plans in few words, and the bills that they make."""

from __future__ import annotations

import textwrap
from datetime import datetime

from sidecar.billing.rating.account import Account, Customer, CustomerVersion, Row
from sidecar.billing.rating.classes import Classes, count
from sidecar.billing.rating.invoice import invoice
from sidecar.billing.rating.periods import Period, to_us
from sidecar.billing.rating.sections import always
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import builtin_plan, load_plan

NOVEMBER, DECEMBER = Period(2026, 11), Period(2026, 12)
RESOLUTION = """
metrics:
  - id: m
    aggregation: COUNT
    event_field: outcome
    filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]
"""


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text + "+00:00" if "T" in text else text + "T12:00:00+00:00"))


def row(number: int, when: str = "2026-11-10", **changes) -> Row:
    outcome = changes.pop("outcome", "RESOLVED")
    states = {"ESCALATED_TO_HUMAN": "NOT_BILLABLE", "INCONCLUSIVE": "INCONCLUSIVE", "UNRESOLVED": "REVERSED"}
    session = changes.pop("session", f"ses_{number}")
    revision = changes.pop("revision", 0)
    data = {
        "session_id": session,
        "outcome": outcome,
        "state": states.get(outcome, "RESOLVED"),
        "escalated_to_human": outcome == "ESCALATED_TO_HUMAN",
        "revision": revision,
        **changes.pop("data", {}),
    }
    return Row(
        id=f"out_{session}_{revision}_{number:06d}", customer=changes.pop("customer", "c"), session_id=session,
        revision=revision, at_us=us(when), data=data, **changes,
    )  # fmt: skip


def rated(body: str) -> RatedPlan:
    text = "rate_plan:\n  name: p\n" + textwrap.indent(textwrap.dedent(body), "  ")
    return RatedPlan(load_plan(text.encode(), "p").plan)


FIN = RatedPlan(builtin_plan().plan)


def bill(rows, plan: RatedPlan = FIN, period: Period = NOVEMBER, customer: Customer | None = None) -> dict:
    customer = customer or Customer("c")
    return invoice(Account(customer, tuple(rows)), always(plan, customer), period)


def classes(rows, plan: RatedPlan = FIN, period: Period = NOVEMBER, customer: Customer | None = None) -> dict:
    account = Account(customer or Customer("c"), tuple(rows))
    return dict(count(Classes(account, always(plan, account.customer)).of_period(period)))


def known(**facts) -> Customer:
    return Customer("c", (CustomerVersion(0, facts),))
