"""The invoice of one customer for one period, as the API answers it."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

from sidecar.billing.rating.account import Account
from sidecar.billing.rating.cost import Cost, Costs, Credit, Line, PlanOf, credits_of
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO, Step, round_amount
from sidecar.billing.rating.usage import RatedPlan

ALERT_PERCENT = (50, 80, 100)


def invoice(account: Account, plan_of: PlanOf, period: Period) -> dict[str, Any]:
    """Rate a period. Amounts are texts with the currency's digits; quantities are whole numbers where they are whole.

    `total` = what the guardrails make of `subtotal`, minus `credits`. Credits in another currency than the period's
    (the plan was changed in between) stand in `credit_lines` and are not in `credits`.
    """
    with localcontext(EXACT):
        return _invoice(Costs(account, plan_of), period)


def _invoice(costs: Costs, period: Period) -> dict[str, Any]:
    account = costs.account
    cost = costs.gross(period)
    given = credits_of(costs, period)
    currency = cost.plan.currency
    credit = sum((entry.amount for entry in given if entry.currency == currency), round_amount(ZERO, currency))
    return {
        "customer": account.customer.id,
        "period": str(period),
        "currency": currency,
        "plan": cost.plan.plan.name,
        "lines": [_line(line, cost.plan) for line in cost.lines],
        "subtotal": money(cost.subtotal),
        "credits": money(credit),
        "total": money(cost.payable - credit),
        "guardrails": _guardrails(cost),
        "credit_lines": [_credit(entry) for entry in given],
    }


def money(amount: Decimal) -> str:
    """An amount as text, without exponent, and without a sign on zero."""
    return f"{amount or abs(amount):f}"


def quantity(value: Decimal) -> int | str:
    """A whole number where it is one, else a text that keeps it exact."""
    return int(value) if value == value.to_integral_value() else f"{value.normalize(EXACT):f}"


def _line(line: Line, plan: RatedPlan) -> dict[str, Any]:
    flat = line.charge.model == "FLAT"
    units = line.price.billed if flat else EXACT.add(line.usage.quantity, line.usage.trial_quantity)
    return {
        "charge": line.charge.id,
        "metric": "+".join(line.charge.metrics),
        "quantity": quantity(units),
        "trial": 0 if flat else quantity(line.usage.trial_quantity),
        "free": quantity(line.price.free),
        "billed": quantity(line.price.billed),
        "amount": money(line.price.amount),
        "description": _description(line, plan),
    }


def _description(line: Line, plan: RatedPlan) -> str:
    """How the amount comes about, in words a customer can check: `100 free, 3 × 0.99 USD`."""
    charge = line.charge
    names = [plan.meters[name].metric.name or name for name in charge.metrics]
    title = charge.name or " + ".join(names) or charge.id
    parts = []
    if charge.model != "FLAT":
        if line.usage.trial_quantity:
            parts.append(f"{quantity(line.usage.trial_quantity)} in trial")
        if line.price.free:
            parts.append(f"{quantity(line.price.free)} free")
        beyond = line.usage.quantity - line.price.free - line.price.billed
        if beyond > 0:
            parts.append(f"{quantity(beyond)} beyond these not charged")
    parts += [_step(step, plan.currency) for step in line.price.steps]
    return f"{title}: {', '.join(parts) or 'nothing in this period'}"


def _step(step: Step, currency: str) -> str:
    rate = f"{step.rate:f} {currency}"
    if step.per == "period":
        return f"{rate} per period"
    packages = (" package" if step.units == 1 else " packages") if step.per == "package" else ""
    text = f"{quantity(step.units)}{packages} × {rate}"
    return f"{text} + {step.flat:f} {currency}" if step.flat else text


def _guardrails(cost: Cost) -> dict[str, Any]:
    rails = cost.plan.plan.guardrails
    currency = cost.plan.currency
    cap = rails.max_spend_cap
    reached = [percent for percent in ALERT_PERCENT if cap is not None and cost.subtotal * 100 >= cap * percent]
    return {
        "max_spend_cap": None if cap is None else money(round_amount(cap, currency)),
        "max_spend_behavior": rails.max_spend_behavior,
        "min_spend": money(round_amount(rails.min_spend, currency)),
        "alerts_percent": reached,
        "not_charged_by_cap": money(cost.subtotal - cost.capped),
        "added_to_min_spend": money(cost.payable - cost.capped),
    }


def _credit(entry: Credit) -> dict[str, Any]:
    return {
        "period": str(entry.period),
        "currency": entry.currency,
        "amount": money(entry.amount),
        "outcomes": list(entry.outcomes),
    }
