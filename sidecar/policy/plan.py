"""The rate plan's grammar as pydantic models: what a plan may say, and what it means when it does not say it.

`RatePlan` is what the rest of the program reads. A plan's `pricing` is a shorthand and is kept as the one charge over
all metrics that it stands for, so nobody else needs to know of it. Amounts are decimals, exactly as written.

Checks that need one mapping live in its model; checks across the plan (does the metric exist?) in `crosscheck.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from sidecar.policy.conditions import (
    Condition,
    ConditionError,
    Operator,
    Unique,
    Window,
    compile_condition,
    number,
    parse_path,
)
from sidecar.policy.currency import known_currency
from sidecar.policy.faults import FaultError
from sidecar.policy.terms import ChargePolicy
from sidecar.policy.tree import Path

AMOUNT_DIGITS_MAX = 12
DEFAULT_CURRENCY = "USD"


def _amount(value: Any) -> Any:
    exact = number(value)
    if exact is None:
        raise ValueError(f"a number like 0.99 is needed, not {value!r}")
    if exact < 0:
        raise ValueError(f"{exact} is negative: amounts are 0 or more")
    fraction = -int(exact.as_tuple().exponent)
    if exact >= 10**AMOUNT_DIGITS_MAX or fraction > AMOUNT_DIGITS_MAX:
        raise ValueError(f"{exact}: at most {AMOUNT_DIGITS_MAX} digits before and after the point")
    return exact


def _positive(value: Decimal) -> Decimal:
    if value <= 0:
        raise ValueError("more than 0 is needed")
    return value


def _path(text: str) -> str:
    parse_path(text)
    return text


Amount = Annotated[Decimal, BeforeValidator(_amount)]
PositiveAmount = Annotated[Amount, AfterValidator(_positive)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
OutcomeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
FieldPath = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_path)]


class Strict(BaseModel):
    """Every part of a plan: unknown fields are refused, nothing is converted silently, nothing changes later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ConditionSpec(Strict):
    """One condition, as written."""

    field: FieldPath
    operator: Operator
    value: Any = None
    window: Window | None = None

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            self.compiled()
        except ConditionError as error:
            raise FaultError((error.key,), str(error)) from None
        return self

    def compiled(self, field: str | None = None) -> Condition | Unique:
        """The condition ready to ask, optionally over another spelling of its field."""
        return compile_condition(field or self.field, self.operator, self.value, self.window)


class Metric(Strict):
    """What is counted: the events that pass all conditions, aggregated."""

    id: Identifier
    name: Label | None = None
    unit: Label = "unit"
    aggregation: Literal["COUNT", "SUM", "UNIQUE", "MAX"]
    event_field: FieldPath | None = None
    filter_conditions: list[ConditionSpec] = Field(default_factory=list, max_length=50)

    @model_validator(mode="after")
    def _has_a_field(self) -> Self:
        if self.event_field is None and self.aggregation != "COUNT":
            raise FaultError(("aggregation",), f"{self.aggregation} needs event_field: the field to aggregate")
        return self


class Tier(Strict):
    """One step of a GRADUATED or VOLUME charge: units up to and including `up_to` (null: without end)."""

    up_to: PositiveAmount | None = None
    rate: Amount = Decimal(0)
    flat: Amount = Decimal(0)


Model = Literal["PER_UNIT", "FLAT", "GRADUATED", "VOLUME", "PACKAGE"]
NEEDS: dict[Model, frozenset[str]] = {
    "PER_UNIT": frozenset({"rate"}),
    "FLAT": frozenset({"rate"}),
    "GRADUATED": frozenset({"tiers"}),
    "VOLUME": frozenset({"tiers"}),
    "PACKAGE": frozenset({"rate", "package_size"}),
}


class _Price(Strict):
    """What `pricing` and a charge have in common."""

    model: Model
    rate: Amount | None = None
    tiers: list[Tier] = Field(default_factory=list, max_length=100)
    package_size: PositiveAmount | None = None
    included_free: Amount = Decimal(0)
    overage_behavior: Literal["CHARGE", "NO_CHARGE"] = "CHARGE"

    @model_validator(mode="after")
    def _fits_its_model(self) -> Self:
        needs = NEEDS[self.model]
        for name in ("rate", "tiers", "package_size"):
            given = bool(self.tiers) if name == "tiers" else getattr(self, name) is not None
            if name in needs and not given:
                raise FaultError(("model",), f"{self.model} needs {name}")
            if given and name not in needs:
                raise FaultError((name,), f"{self.model} does not use {name}: remove it")
        if self.model == "FLAT" and self.included_free:
            raise FaultError(("included_free",), "FLAT counts no units, so none are free: remove it")
        _check_tiers(self.tiers)
        return self


def _check_tiers(tiers: list[Tier]) -> None:
    """Ascending, and open only at the end."""
    below = Decimal(0)
    for index, tier in enumerate(tiers):
        last = index == len(tiers) - 1
        if last and tier.up_to is not None:
            raise FaultError(("tiers", index, "up_to"), "the last tier must be open: write `up_to: null`")
        if tier.up_to is None:
            if not last:
                raise FaultError(("tiers", index, "up_to"), "only the last tier may be open: write its upper bound")
            continue
        if tier.up_to <= below:
            raise FaultError(("tiers", index, "up_to"), f"tiers must ascend: {tier.up_to} does not come after {below}")
        below = tier.up_to


class Pricing(_Price):
    """Shorthand for one charge over all metrics."""

    currency: str | None = None


class Charge(_Price):
    """One line of the invoice: what is asked for the units of its metrics."""

    id: Identifier
    name: Label | None = None
    metrics: list[Identifier] = Field(max_length=50)
    when: list[ConditionSpec] = Field(default_factory=list, max_length=50)

    @model_validator(mode="after")
    def _has_metrics(self) -> Self:
        if not self.metrics and self.model != "FLAT":
            raise FaultError(("metrics",), f"{self.model} needs at least one metric; only FLAT does without")
        if len(set(self.metrics)) < len(self.metrics):
            raise FaultError(("metrics",), "a metric is named twice: remove one")
        return self


class Guardrails(Strict):
    """Bounds on what one customer pays in one period."""

    max_spend_cap: PositiveAmount | None = None
    max_spend_behavior: Literal["ALERT", "CAP"] = "ALERT"
    min_spend: Amount = Decimal(0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        cap = self.max_spend_cap
        if self.max_spend_behavior == "CAP" and cap is None:
            raise FaultError(("max_spend_behavior",), "CAP needs max_spend_cap: the amount to stop at")
        if cap is not None and self.min_spend > cap:
            raise FaultError(("min_spend",), f"min_spend {self.min_spend} is above max_spend_cap {cap}")
        return self


def _timespan(longest: int) -> Any:
    def check(value: Decimal) -> Decimal:
        if value > longest:
            raise ValueError(f"{value} is too long: at most {longest}")
        return value

    return AfterValidator(check)


class SessionConfig(Strict):
    """How sessions behave; the only part, with `signals`, that the sidecar reads. Times may be fractions."""

    timeout_minutes: Annotated[PositiveAmount, _timespan(60 * 24 * 90)] = Decimal(60)
    settle_minutes: Annotated[Amount, _timespan(60 * 24 * 90)] = Decimal(0)
    reversal_hours: Annotated[Amount, _timespan(24 * 365)] = Decimal(72)
    inconclusive_policy: ChargePolicy = "NO_CHARGE"
    incomplete_policy: ChargePolicy = "NO_CHARGE"
    on_return: Literal["NEW_SESSION", "REVERSE"] = "NEW_SESSION"
    idempotency_key_field: Literal["session_id"] = "session_id"


# What `set` may read out of an event, by its kind: `customer: payload.account.id`.
READS: dict[str, tuple[str, ...]] = {"webhook": ("payload", "headers"), "tool_call": ("arguments",)}
_ROOTS = frozenset({"payload", "headers", "arguments", "body"})


class Alias(Strict):
    """Where a webhook names its conversation: `value` is a path into the facts, like `payload.conversation_id`."""

    kind: Literal["conversation", "response", "tool_call", "trace"] = "conversation"
    value: FieldPath


def is_path(on: str, value: Any) -> bool:
    """Whether a value in `set` of a rule stands for what is found in its event."""
    return isinstance(value, str) and value.startswith(tuple(f"{root}." for root in READS.get(on, ())))


def _attribute(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    return value


Attribute = Annotated[str, BeforeValidator(_attribute), StringConstraints(max_length=256)]


class Setting(Strict):
    """What a matched rule says about the session."""

    outcome: OutcomeName | None = None
    confirmation: Literal["CONFIRMED", "ASSUMED"] = "CONFIRMED"
    escalated_to_human: bool | None = None
    reason: Annotated[str, StringConstraints(max_length=200)] | None = None
    customer: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    attributes: dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Attribute] = Field(
        default_factory=dict, max_length=50
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.outcome == "INCONCLUSIVE":
            raise FaultError(("outcome",), "INCONCLUSIVE is what silence means, a rule cannot set it")
        if self.escalated_to_human and self.outcome not in (None, "ESCALATED_TO_HUMAN"):
            raise FaultError(
                ("outcome",), f"{self.outcome} and escalated_to_human: true contradict each other: remove one"
            )
        if self.outcome == "ESCALATED_TO_HUMAN" and self.escalated_to_human is False:
            raise FaultError(("escalated_to_human",), "contradicts outcome ESCALATED_TO_HUMAN: remove one")
        if not (self.outcome or self.escalated_to_human or self.customer or self.attributes):
            raise FaultError((), "nothing is set: write outcome, escalated_to_human: true, customer or attributes")
        return self


class SignalRule(Strict):
    """How something seen in traffic, or told by a webhook, becomes an outcome."""

    id: Identifier
    on: Literal["request", "response", "tool_call", "webhook"]
    conditions: list[ConditionSpec] = Field(default_factory=list, max_length=50)
    alias: Alias | None = None
    set: Setting

    @model_validator(mode="after")
    def _alias_is_for_webhooks(self) -> Self:
        if self.alias and self.on != "webhook":
            raise FaultError(("alias",), f"only webhooks need an alias, a {self.on} has its session: remove it")
        if self.on == "webhook" and not self.alias:
            raise FaultError(("on",), "a webhook needs alias: {kind, value}, to find its conversation")
        return self

    @model_validator(mode="after")
    def _reads_what_it_may(self) -> Self:
        """Some texts are paths into the event; other parts of traffic are nobody's to copy into what is posted."""
        places: dict[Path, str | None] = {
            ("set", "attributes", name): text for name, text in self.set.attributes.items()
        }
        allowed = READS.get(self.on, ())
        for place, text in (places | {("set", "customer"): self.set.customer}).items():
            root, dot, _ = (text or "").partition(".")
            if not text or not dot or root not in _ROOTS:
                continue
            if root not in allowed:
                instead = " and ".join(f"{name}.…" for name in allowed)
                instead = f"a {self.on} has {instead}" if instead else f"a {self.on} has none (see SIDECAR_CUSTOMER)"
                raise FaultError(place, f"{text!r} is a path of another kind of event: {instead}")
            try:
                parse_path(text)
            except ConditionError as error:
                raise FaultError(place, str(error)) from None
        return self


def _postpaid(value: Any) -> Any:
    if value == "PREPAID":
        raise ValueError("PREPAID is not supported, invoices are made after the period: write POSTPAID")
    return value


def _currency(value: Any) -> Any:
    if isinstance(value, str) and not known_currency(value):
        raise ValueError(f"{value!r} is no ISO 4217 currency code: write one like USD or EUR")
    return value


class RatePlan(Strict):
    """A whole plan."""

    name: Label
    billing_mode: Annotated[Literal["POSTPAID"], BeforeValidator(_postpaid)] = "POSTPAID"
    currency: Annotated[str, BeforeValidator(_currency)] | None = None
    trial_days: Annotated[int, Field(ge=0, le=3650)] = 0
    metrics: list[Metric] = Field(default_factory=list, max_length=200)
    pricing: Pricing | None = None
    charges: list[Charge] = Field(default_factory=list, max_length=200)
    guardrails: Guardrails = Guardrails()
    session_config: SessionConfig = SessionConfig()
    signals: list[SignalRule] | None = Field(default=None, max_length=500)

    @property
    def currency_code(self) -> str:
        """Where it was written: here, or in `pricing`; USD when nowhere."""
        inner = self.pricing.currency if self.pricing else None
        return self.currency or inner or DEFAULT_CURRENCY

    def all_charges(self) -> list[Charge]:
        """The charges, `pricing` written out as the one that it stands for."""
        if self.pricing is None:
            return self.charges
        price = self.pricing.model_dump(exclude={"currency"})
        return [Charge(id="pricing", metrics=[metric.id for metric in self.metrics], **price)]


class PlanFile(Strict):
    """The file: one mapping named `rate_plan`."""

    rate_plan: RatePlan
