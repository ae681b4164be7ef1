"""What the API takes besides events and plans: every field is checked, unknown ones are refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sidecar.billing.events import EventId, Text, Time
from sidecar.policy.conditions import instant, number


def _start(text: str) -> str:
    if instant(text) is None:
        raise ValueError("write a time like 2026-11-01T00:00:00Z")
    return text


def token_price(value: Any) -> Decimal:
    """USD per million tokens, exactly as written; ValueError says what to write."""
    exact = number(value)
    if exact is None:
        raise ValueError("write a number of USD per million tokens, like 2.50")
    if exact < 0:
        raise ValueError("a price is 0 or more")
    if exact >= 1_000_000 or -int(exact.as_tuple().exponent) > 9:
        raise ValueError("a price is below 1000000 and has at most 9 digits after the point")
    return exact


TokenPrice = Annotated[
    Decimal,
    BeforeValidator(token_price, json_schema_input_type=str | float),
    Field(description="USD per million tokens"),
]
ModelName = Annotated[Text, Field(max_length=128)]
MODELS_MAX = 1000


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class CustomerBody(_Body):
    """What may be said about a customer; a PUT says all of it: without `started_at` no open period has a trial.

    `effective_from`: when it begins to hold, plan included. Without it, facts hold from now on and another plan from
    the next period on; what is said first holds from ever.
    """

    plan: Annotated[Text, Field(max_length=64)] | None = None
    started_at: Annotated[str, AfterValidator(_start)] | None = None
    seat_tier: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seats: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    attributes: dict[str, str | int | float | bool | None] = Field(default_factory=dict, max_length=100)
    effective_from: Time | None = None


class DecisionBody(_Body):
    """Who decides, and why."""

    actor: Annotated[Text, Field(description="who decides")]
    reason: Annotated[str, Field(min_length=1, max_length=1000, description="why")]


class AssignmentBody(DecisionBody):
    """An unattributed outcome's session gets a customer."""

    customer: Text


class BacktestBody(_Body):
    """A plan, as the mapping that a plan file holds or as its text, and a period."""

    plan: dict[str, Any] | str
    period: str


class RedeliveryBody(DecisionBody):
    """What becomes of parked entries: all of the target, or those named.

    `send`: the target does not have them. `acknowledge`: it has them, which only ambiguous ones can be.
    """

    action: Literal["send", "acknowledge"] = "send"
    entries: Annotated[list[EventId], Field(min_length=1, max_length=1000)] | None = None


class ModelPrice(_Body):
    """What tokens of a model cost, in USD per million: decimal texts, or numbers."""

    input: TokenPrice
    output: TokenPrice


class ModelPricesBody(DecisionBody):
    """Prices that differ from the shipped ones, by the beginning of a model's name; all of them.

    `base`: the version that was looked at, 0 for none; another one in between is a 409.
    """

    prices: Annotated[dict[ModelName, ModelPrice], Field(max_length=MODELS_MAX)]
    base: Annotated[int, Field(ge=0)] | None = None
