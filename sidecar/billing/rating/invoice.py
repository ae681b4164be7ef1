"""The invoice of one customer for one period, as the API answers it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any
from urllib.parse import quote, urlencode

from sidecar.billing.rating.account import Account
from sidecar.billing.rating.cost import Change, Cost, Costs, Line
from sidecar.billing.rating.movements import movements_of
from sidecar.billing.rating.periods import Period, from_us
from sidecar.billing.rating.price import EXACT, ZERO, Step, round_amount
from sidecar.billing.rating.sections import SectionsOf
from sidecar.billing.rating.taking_back import TakenBack, taken_back
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.plan import Charge

ALERT_PERCENT = (50, 80, 100)


def invoice(account: Account, sections_of: SectionsOf, period: Period) -> dict[str, Any]:
    """Rate a period from an account's rows. See `written`."""
    costs = Costs(sections_of, movements_of(account, sections_of))
    return written(account.customer.id, costs, period, TakenBack.of(taken_back(account, sections_of, period)))


def written(customer: str, costs: Costs, period: Period, taken: TakenBack) -> dict[str, Any]:
    """The invoice. Amounts are texts with the currency's digits; quantities are whole numbers where they are whole.

    `sections` are the parts of the period that were rated by different plans; there is one but for a customer whose
    plan changed inside the period. `lines` are those of all sections; `subtotal`, `guardrails` and `total` speak of the
    sections in `currency`, the last one's, and `totals` has every currency. `total` = what the guardrails make of
    `subtotal`, plus `adjustments` (events that came after their period was closed), minus `credits`.
    """
    with localcontext(EXACT):
        gross = costs.gross(period)
        adjusted, credited = costs.adjustments(period), costs.credits(period)
    currency = gross[-1].currency
    same = [cost for cost in gross if cost.currency == currency]
    payable = _by_currency([(cost.currency, cost.payable) for cost in gross])
    adjustments = _by_currency([(change.currency, change.amount) for change in adjusted])
    credits_ = _by_currency([(change.currency, change.amount) for change in credited])
    totals = {
        code: payable.get(code, ZERO) + adjustments.get(code, ZERO) - credits_.get(code, ZERO)
        for code in sorted({*payable, *adjustments, *credits_})
    }
    nothing = round_amount(ZERO, currency)
    return {
        "customer": customer,
        "period": str(period),
        "currency": currency,
        "plan": gross[-1].section.plan.plan.name,
        "lines": [_line(line, cost, customer) for cost in gross for line in cost.lines],
        "subtotal": money(sum((cost.subtotal for cost in same), nothing)),
        "adjustments": money(adjustments.get(currency, nothing)),
        "credits": money(credits_.get(currency, nothing)),
        "total": money(totals[currency]),
        "totals": {code: money(amount) for code, amount in totals.items()},
        "guardrails": _guardrails(same),
        "sections": [_section(cost) for cost in gross],
        "adjustment_lines": [_change(change) for change in adjusted],
        "credit_lines": [{**_change(change), **_named(change, taken)} for change in credited],
    }


def money(amount: Decimal) -> str:
    """An amount as text, without exponent, and without a sign on zero."""
    return f"{amount or abs(amount):f}"


def quantity(value: Decimal) -> int | str:
    """A whole number where it is one, else a text that keeps it exact."""
    return int(value) if value == value.to_integral_value() else f"{value.normalize(EXACT):f}"


def timestamp(us: int) -> str:
    """RFC 3339 in UTC."""
    return from_us(us).isoformat().replace("+00:00", "Z")


def _by_currency(amounts: Sequence[tuple[str, Decimal]]) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for code, amount in amounts:
        total[code] = total.get(code, round_amount(ZERO, code)) + amount
    return total


def _section(cost: Cost) -> dict[str, Any]:
    section = cost.section
    return {
        "from": timestamp(section.start_us),
        "to": timestamp(section.end_us),
        "plan_id": section.plan_id,
        "plan": section.plan.plan.name,
        "currency": cost.currency,
        "lines": [line.charge.id for line in cost.lines],
        "subtotal": money(cost.subtotal),
        "payable": money(cost.payable),
        "guardrails": _guardrails([cost]),
    }


def _line(line: Line, cost: Cost, customer: str) -> dict[str, Any]:
    flat = line.charge.model == "FLAT"
    units = line.price.billed if flat else EXACT.add(line.quantity, line.trial)
    start = timestamp(cost.section.start_us)
    where = {"period": str(cost.section.period), "charge": line.charge.id, "from": start}
    return {
        "charge": line.charge.id,
        "metric": "+".join(line.charge.metrics),
        "quantity": quantity(units),
        "trial": 0 if flat else quantity(line.trial),
        "free": quantity(line.price.free),
        "billed": quantity(line.price.billed),
        "amount": money(line.price.amount),
        "currency": cost.currency,
        "description": _description(line, cost.section.plan),
        "tiers": [_tier(step, cost.currency) for step in line.price.steps],
        "outcomes": 0 if flat else line.outcomes,
        "sessions": None if flat else f"/v1/customers/{quote(customer, safe='')}/sessions?{urlencode(where)}",
        "from": start,
    }


def _tier(step: Step, currency: str) -> dict[str, Any]:
    return {
        "units": quantity(step.units),
        "per": step.per,
        "rate": f"{step.rate:f}",
        "flat": f"{step.flat:f}",
        "amount": f"{step.amount:f}",
        "currency": currency,
    }


def _description(line: Line, plan: RatedPlan) -> str:
    """How the amount comes about, in words a customer can check: `100 free, 3 × 0.99 USD`."""
    charge = line.charge
    parts_ = []
    if charge.model != "FLAT":
        if line.trial:
            parts_.append(f"{quantity(line.trial)} in trial")
        if line.price.free:
            parts_.append(f"{quantity(line.price.free)} free")
        beyond = line.quantity - line.price.free - line.price.billed
        if beyond > 0:
            parts_.append(f"{quantity(beyond)} beyond these not charged")
    parts_ += [_step(step, plan.currency) for step in line.price.steps]
    return f"{title(charge, plan)}: {', '.join(parts_) or 'nothing in this period'}"


def title(charge: Charge, plan: RatedPlan) -> str:
    """What a charge is called on invoices."""
    names = [plan.meters[name].metric.name or name for name in charge.metrics]
    return charge.name or " + ".join(names) or charge.id


def _step(step: Step, currency: str) -> str:
    rate = f"{step.rate:f} {currency}"
    if step.per == "period":
        return f"{rate} per period"
    packages = (" package" if step.units == 1 else " packages") if step.per == "package" else ""
    text = f"{quantity(step.units)}{packages} × {rate}"
    return f"{text} + {step.flat:f} {currency}" if step.flat else text


def alerts_reached(cost: Cost) -> list[int]:
    """The percentages of the section's cap that its subtotal has come to."""
    cap = cost.section.plan.plan.guardrails.max_spend_cap
    return [percent for percent in ALERT_PERCENT if cap is not None and cost.subtotal * 100 >= cap * percent]


def _guardrails(costs: Sequence[Cost]) -> dict[str, Any]:
    """Of the last section; what they changed is summed over all."""
    last = costs[-1]
    rails, currency, nothing = last.section.plan.plan.guardrails, last.currency, round_amount(ZERO, last.currency)
    cap = rails.max_spend_cap
    return {
        "max_spend_cap": None if cap is None else money(round_amount(cap, currency)),
        "max_spend_behavior": rails.max_spend_behavior,
        "min_spend": money(round_amount(rails.min_spend, currency)),
        "alerts_percent": alerts_reached(last),
        "not_charged_by_cap": money(sum((cost.subtotal - cost.capped for cost in costs), nothing)),
        "added_to_min_spend": money(sum((cost.payable - cost.capped for cost in costs), nothing)),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "period": str(change.section.period),
        "from": timestamp(change.section.start_us),
        "currency": change.currency,
        "amount": money(change.amount),
        "outcomes": list[str](),
    }


def _named(change: Change, taken: TakenBack) -> dict[str, Any]:
    named = taken.at(change.section.start_us)
    return {
        "outcomes": [row.id for row in named.taken],
        "sessions": [row.session_id for row in named.taken],
        "instead": [row.id for row in named.instead],
        "instead_sessions": [row.session_id for row in named.instead],
        "more": taken.more,
    }
