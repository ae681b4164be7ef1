"""What the API answers about outcomes, decisions and sessions; see `shapes`."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


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


class Decisions(TypedDict):
    """A page of them, newest first; `next` is the `after` of the following one."""

    decisions: list[Decision]
    next: str | None


class DecisionShown(Decision):
    """With what it changed on invoices when it was made, as `changed` of an outcome."""

    changed: list[Amount] | None


class OutcomeShown(Entry):
    """One row, with every decision about its session, and what it adds to the invoices of whom it is charged to.

    `changed` is what its arrival changed on invoices: all that had come until then, minus all before it, by the plans
    and customer facts of now. These add up, `amounts` do not. Null when too much came later.
    """

    decisions: list[DecisionShown]
    charged_to: str | None
    amounts: list[Amount]
    changed: list[Amount] | None


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
