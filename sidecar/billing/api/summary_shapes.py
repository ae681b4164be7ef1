"""What the API answers about a month over all customers, as pydantic describes it."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from sidecar.billing.api.shapes import Amounts


class Counts(TypedDict):
    """Sessions and later revisions by what became of them."""

    sessions: int
    charged: int
    free: int
    trial: int
    escalated: int
    inconclusive: int
    held: int
    not_billable: int
    unmatched: int
    reversed: int
    revised: int


class Day(Counts):
    """One day."""

    day: str


class Summary(Counts):
    """A period over all customers.

    `charged_net` = `charged` + `charged_later` - `taken_back` is how many outcomes its invoices charge, less those that
    they credit; an estimate where not `charged_exact`. `escalated` + `escalated_later` are escalated now.
    """

    charged_later: int
    taken_back: int
    charged_net: int
    charged_exact: bool
    escalated_later: int
    period: str
    events: int
    currency: str
    revenue: str
    other_revenue: Amounts
    llm_cost: str
    days: list[Day]
    shadow: Counts
    decisions: dict[str, int]
    status: Literal["open", "closed"]
