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


class Rejection(TypedDict):
    """An event that was not taken."""

    id: str | None
    reason: str


class Receipt(TypedDict):
    """What became of each event."""

    accepted: int
    duplicates: int
    rejected: list[Rejection]


class Entry(TypedDict):
    """One row of the ledger."""

    id: str
    customer: str
    session_id: str
    conversation: str | None
    state: Literal["RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED"]
    outcome: str
    revision: int
    reverses: str | None
    held: bool
    billable: bool
    shadow: bool
    period: str
    late: str | None
    time: str
    received_at: str
    event: dict[str, Any]


class Outcomes(TypedDict):
    """A page of the ledger, newest first; `next` is the `after` of the following one."""

    outcomes: list[Entry]
    next: str | None


class Decision(TypedDict):
    """An operator's decision; `period` is the one on whose invoice it stands."""

    outcome: str
    session_id: str
    number: int
    kind: Literal["release", "drop", "reverse", "assign"]
    actor: str
    reason: str
    customer: str
    assigned: str | None
    period: str
    decided_at: str


class Amount(TypedDict):
    """Money on the invoice of a period; below zero when it is taken back there."""

    period: str
    currency: str
    amount: str


class OutcomeShown(Entry):
    """One row, with every decision about its session, and what it adds to the invoices of whom it is charged to."""

    decisions: list[Decision]
    charged_to: str | None
    amounts: list[Amount]


class Session(TypedDict):
    """A session by its last revision, with its evidence and every ledger entry, oldest first."""

    session_id: str
    conversation: str | None
    customer: str
    state: str
    outcome: str
    revision: int
    evidence: list[Any]
    entries: list[Entry]
    decisions: list[Decision]


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
    credit_lines: list[Change]
    status: Literal["open", "closed"]


class Use(TypedDict):
    """An outcome that a line counts."""

    outcome: str
    session_id: str
    session: str
    conversation: str | None
    time: str
    metric: str
    units: Quantity
    trial: bool


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


class StatedCounters(TypedDict):
    """Counters of a statement; `unexplained` is opened minus open minus finalized, and must be 0."""

    opened: int
    open: int
    finalized: int
    by_state: dict[str, int]
    dropped_copies: int
    unexplained: int


class Compared(TypedDict):
    """Sessions finalized by the sidecars' account, and by the ledger's."""

    stated: int
    arrived: int


class TenantBooks(TypedDict):
    """One tenant's last statement beside the ledger."""

    tenant: str
    stated_at: str
    received_at: str
    generation: str
    since: str | None
    stated: StatedCounters
    compared: Compared
    difference: int
    alarm: bool


class BooksShown(TypedDict):
    """Whether what the sidecars state has arrived."""

    tenants: list[TenantBooks]
    difference: int
    alarm: bool


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
