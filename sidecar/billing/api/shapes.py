"""What the API answers, as pydantic describes it; the tests hold real answers against this.

Amounts are decimal texts with the currency's digits, quantities whole numbers where they are whole and texts where not,
instants RFC 3339 in UTC, periods `2026-11`.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Amounts = dict[str, str]
Quantity = int | str


class Problem(TypedDict, total=False):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Any]


class PlanShown(TypedDict):
    """One version of a plan."""

    id: str
    version: int
    name: str
    digest: str
    created_at: str


class PlanWhole(PlanShown):
    """With the file as it was given."""

    versions: list[int]
    source: str
    rate_plan: dict[str, Any]


class Plans(TypedDict):
    """The newest version of every plan."""

    plans: list[PlanShown]


class CustomerShown(TypedDict):
    """What is known last of a customer."""

    customer: str
    plan: str | None
    started_at: str | None
    seat_tier: str | None
    seats: int | None
    attributes: dict[str, Any]


class CustomerVersionShown(TypedDict):
    """What was said of a customer, when, and from when on it holds."""

    recorded_at: str
    effective_from: str
    plan: str | None
    started_at: str | None
    seat_tier: str | None
    seats: int | None
    attributes: dict[str, Any]


class CustomerHistory(TypedDict):
    """Everything that was said of a customer, oldest first."""

    customer: str
    versions: list[CustomerVersionShown]


class Customers(TypedDict):
    """Names of customers, in order; `next` is the `after` of the following page."""

    customers: list[str]
    next: str | None


class TierShown(TypedDict):
    """Units at one price; the amount is exact, rounding happens once for the line."""

    units: Quantity
    per: Literal["unit", "package", "period"]
    rate: str
    flat: str
    amount: str
    currency: str


Line = TypedDict(
    "Line",
    {
        "charge": str,
        "metric": str,
        "quantity": Quantity,
        "trial": Quantity,
        "free": Quantity,
        "billed": Quantity,
        "amount": str,
        "currency": str,
        "description": str,
        "tiers": list[TierShown],
        "outcomes": int,
        "sessions": str | None,
        "from": str,
    },
)


class GuardrailsShown(TypedDict):
    """What the plan's guardrails are, and did."""

    max_spend_cap: str | None
    max_spend_behavior: Literal["ALERT", "CAP"]
    min_spend: str
    alerts_percent: list[int]
    not_charged_by_cap: str
    added_to_min_spend: str


InvoiceSection = TypedDict(
    "InvoiceSection",
    {
        "from": str,
        "to": str,
        "plan_id": str,
        "plan": str,
        "currency": str,
        "lines": list[str],
        "subtotal": str,
        "payable": str,
        "guardrails": GuardrailsShown,
    },
)
Change = TypedDict("Change", {"period": str, "from": str, "currency": str, "amount": str, "outcomes": list[str]})


class Credit(Change):
    """What an earlier (or this) period no longer costs, with the first hundred outcomes that were taken back, and their
    sessions in the same order; `instead`, those that are charged now since these are not: what a credit below zero is
    of. `more`: there may be others.
    """

    sessions: list[str]
    instead: list[str]
    instead_sessions: list[str]
    more: bool


class Invoice(TypedDict):
    """One customer's period."""

    customer: str
    period: str
    currency: str
    plan: str
    lines: list[Line]
    subtotal: str
    adjustments: str
    credits: str
    total: str
    totals: Amounts
    guardrails: GuardrailsShown
    sections: list[InvoiceSection]
    adjustment_lines: list[Change]
    credit_lines: list[Credit]
    status: Literal["open", "closed"]


class Use(TypedDict):
    """An outcome that a line counts; `taken_back` is the period whose invoice credits it, null while it stands, or
    another has taken its place.
    """

    outcome: str
    session_id: str
    session: str
    conversation: str | None
    time: str
    metric: str
    units: Quantity
    trial: bool
    taken_back: str | None


class Uses(TypedDict):
    """A page of them, in the order of arrival."""

    sessions: list[Use]
    next: str | None


class ComparedCustomer(TypedDict):
    """What was charged, and what would have been, by currency."""

    customer: str
    actual: Amounts
    tested: Amounts
    difference: Amounts
    sessions_changed: int


class ChangedSession(TypedDict):
    """A session that would change side."""

    session_id: str
    outcome: str
    customer: str
    actual: str
    tested: str


class Backtest(TypedDict):
    """A plan beside what was charged."""

    period: str
    plan: str
    actual: Amounts
    tested: Amounts
    difference: Amounts
    customers: list[ComparedCustomer]
    sessions_changed: int
    sessions: list[ChangedSession]


class Alert(TypedDict):
    """An alert about spending, and what became of its delivery."""

    seq: int
    body: dict[str, Any]
    attempts: int
    delivered_at: str | None
    error: str | None


class Alerts(TypedDict):
    """A page of alerts, newest first."""

    alerts: list[Alert]
    next: str | None


class ModelPrice(TypedDict):
    """USD per million tokens, as decimal texts, of the models whose names begin so."""

    model: str
    input: str
    output: str
    source: Literal["shipped", "saved"]


class ModelPrices(TypedDict):
    """The prices that hold now; `version` is 0 while nobody has saved any."""

    version: int
    actor: str | None
    reason: str | None
    saved_at: str | None
    prices: list[ModelPrice]
