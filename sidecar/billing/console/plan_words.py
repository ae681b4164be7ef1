"""A plan in sentences that somebody in finance reads. Pure; the template lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sidecar.billing.console.wording import count, money, plural
from sidecar.policy.conditions import Operator
from sidecar.policy.plan import Charge, ConditionSpec, Guardrails, Metric, RatePlan, SessionConfig, Setting, SignalRule

_OPERATORS: Mapping[Operator, str] = {
    "EQUALS": "is", "NOT_EQUALS": "is not", "IN": "is one of", "NOT_IN": "is none of",
    "GREATER_THAN": "is more than", "GREATER_OR_EQUAL": "is at least", "LESS_THAN": "is less than",
    "LESS_OR_EQUAL": "is at most", "CONTAINS": "contains", "STARTS_WITH": "begins with", "ENDS_WITH": "ends with",
    "MATCHES": "matches the pattern", "EXISTS": "is there", "UNIQUE_WITHIN_WINDOW": "",
}  # fmt: skip
_WINDOWS = {"SESSION": "session", "CONVERSATION": "conversation", "BILLING_PERIOD": "month"}
_POLICIES = {"NO_CHARGE": "is not charged", "CHARGE": "is charged", "HOLD": "waits for an operator"}
_SOURCES = {"request": "a request", "response": "an answer", "tool_call": "a tool call", "webhook": "a webhook"}


@dataclass(frozen=True, slots=True)
class TierLine:
    """One tier: which units, and what they cost."""

    units: str
    rate: str
    flat: str


@dataclass(frozen=True, slots=True)
class ChargeText:
    """One charge: a sentence, its conditions, its tiers."""

    id: str
    name: str
    price: str
    counts: str
    when: Sequence[str]
    notes: Sequence[str]
    tiers: Sequence[TierLine]


@dataclass(frozen=True, slots=True)
class Text:
    """A thing with an id, in a sentence with conditions."""

    id: str
    name: str
    saying: str
    conditions: Sequence[str]
    unit: str = ""


def metric_text(metric: Metric) -> Text:
    """What is counted."""
    field = metric.event_field or "outcome"
    saying = {
        "COUNT": "Counts sessions",
        "SUM": f"Adds up {field}",
        "UNIQUE": f"Counts different values of {field}",
        "MAX": f"Takes the highest {field}",
    }[metric.aggregation]
    unit = "" if metric.unit == "unit" else metric.unit
    return Text(metric.id, metric.name or "", saying, conditions(metric.filter_conditions), unit)


def conditions(specs: Iterable[ConditionSpec]) -> list[str]:
    """`outcome is RESOLVED`."""
    return [_condition(spec) for spec in specs]


def _condition(spec: ConditionSpec) -> str:
    if spec.operator == "UNIQUE_WITHIN_WINDOW" and spec.field == "session_id":
        return "each session once"
    if spec.operator == "UNIQUE_WITHIN_WINDOW":
        return f"only the first with the same {spec.field} in one {_WINDOWS[spec.window or 'SESSION']}"
    words = f"{spec.field} {_OPERATORS[spec.operator]}"
    return words if spec.operator == "EXISTS" else f"{words} {_value(spec.value)}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def charge_text(charge: Charge, currency: str) -> ChargeText:
    """What is asked for what is counted."""
    notes = []
    if charge.included_free:
        notes.append(f"The first {_units(charge.included_free)} of a month are free.")
    if charge.overage_behavior == "NO_CHARGE":
        notes.append("Beyond the free units nothing is charged.")
    return ChargeText(
        charge.id,
        charge.name or "",
        _price(charge, currency),
        " and ".join(charge.metrics),
        conditions(charge.when),
        notes,
        tier_lines(charge, currency),
    )


def _price(charge: Charge, currency: str) -> str:
    rate = money(charge.rate or Decimal(0), currency)
    match charge.model:
        case "PER_UNIT":
            return f"{rate} for each unit"
        case "FLAT":
            return f"{rate} a month"
        case "PACKAGE":
            return f"{rate} for each started package of {_units(charge.package_size or Decimal(1))}"
        case "GRADUATED":
            return "Each unit at the rate of its tier"
    return "All units at the rate of the tier that their number reaches"


def tier_lines(charge: Charge, currency: str) -> list[TierLine]:
    """The tiers from the first unit on."""
    found, below = [], Decimal(0)
    for tier in charge.tiers:
        reach = f"over {count(below)}" if tier.up_to is None else f"{count(below + 1)} to {count(tier.up_to)}"
        if tier.up_to is None and not below:
            reach = "all"
        found.append(TierLine(reach, money(tier.rate, currency), money(tier.flat, currency) if tier.flat else ""))
        below = tier.up_to or below
    return found


def guardrail_texts(guardrails: Guardrails, currency: str) -> list[str]:
    """Bounds on what one customer pays in a month."""
    found = []
    if guardrails.max_spend_cap is not None:
        cap = money(guardrails.max_spend_cap, currency)
        stops = guardrails.max_spend_behavior == "CAP"
        found.append(
            f"Charges stop at {cap} a month." if stops else f"At {cap} a month an alert is sent; charges go on."
        )
    if guardrails.min_spend:
        found.append(f"At least {money(guardrails.min_spend, currency)} a month is charged.")
    return found or ["No cap and no minimum."]


def session_texts(config: SessionConfig) -> list[str]:
    """How sessions begin, end and are taken back."""
    settle = "at once"
    if config.settle_minutes:
        settle = f"after {_number(config.settle_minutes, 'minute')}, in which it can be taken back"
    returns = {
        "NEW_SESSION": "A customer who comes back begins a new session.",
        "REVERSE": "A customer who comes back begins a new session, and takes the resolution before it back.",
    }
    return [
        f"A session ends after {_number(config.timeout_minutes, 'minute')} of silence; silence "
        f"{_POLICIES[config.inconclusive_policy]}.",
        f"A resolution is final {settle}.",
        f"It can be taken back for {_number(config.reversal_hours, 'hour')}.",
        returns[config.on_return],
        f"A session of which a copy was lost {_POLICIES[config.incomplete_policy]}.",
    ]


def signal_text(rule: SignalRule) -> Text:
    """What a rule makes of what it sees."""
    return Text(rule.id, "", f"On {_SOURCES[rule.on]}: {_setting(rule.set)}", conditions(rule.conditions))


def _setting(setting: Setting) -> str:
    parts = []
    if setting.escalated_to_human:
        parts.append("a human steps in")
    elif setting.outcome == "UNRESOLVED":
        parts.append("the resolution is taken back")
    elif setting.outcome:
        parts.append(f"the outcome is {setting.outcome}, {setting.confirmation.lower()}")
    if setting.customer:
        parts.append(f"the customer is {setting.customer}")
    parts += [f"{name} is {value}" for name, value in setting.attributes.items()]
    if setting.reason:
        parts.append(f"reason “{setting.reason}”")
    return ", ".join(parts)


def described(plan: RatePlan) -> Mapping[str, Any]:
    """All of it."""
    currency = plan.currency_code
    return {
        "currency": currency,
        "trial": plan.trial_days,
        "metrics": [metric_text(one) for one in plan.metrics],
        "charges": [charge_text(one, currency) for one in plan.all_charges()],
        "guardrails": guardrail_texts(plan.guardrails, currency),
        "session": session_texts(plan.session_config),
        "signals": None if plan.signals is None else [signal_text(one) for one in plan.signals],
    }


def _units(number: Decimal) -> str:
    return f"{count(_plain(number))} {'unit' if number == 1 else 'units'}"


def _number(number: Decimal, unit: str) -> str:
    if number == number.to_integral_value():
        return plural(int(number), unit)
    return f"{count(_plain(number))} {unit}s"


def _plain(number: Decimal) -> Decimal:
    """Without zeros at its end and without an exponent."""
    return Decimal(f"{number.normalize():f}")
