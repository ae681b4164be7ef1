"""The first page: one month over all customers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from aiohttp import web

from sidecar.billing import accounts, desk
from sidecar.billing.api.keys import BILLING
from sidecar.billing.console import wording
from sidecar.billing.console.books import missing
from sidecar.billing.console.chart import stacked
from sidecar.billing.console.customers import cap_of
from sidecar.billing.console.shell import month, render
from sidecar.billing.console.wiring import WIRING
from sidecar.billing.rating.periods import Period
from sidecar.billing.service import Billing

NEAREST = 5
# The classes of the summary, in the order in which they are looked for: name, meaning.
CLASSES: Mapping[str, tuple[str, str]] = {
    "charged": ("Charged", "on an invoice"),
    "free": ("Free", "within the included units"),
    "trial": ("Trial", "before the first charge"),
    "escalated": ("Escalated", "a human stepped in"),
    "inconclusive": ("Inconclusive", "ended without a signal"),
    "held": ("Held", "kept back for an operator"),
    "not_billable": ("Not billable", "incomplete, never charged"),
    "unmatched": ("Unmatched", "no metric of the plan counts them"),
}


async def show(request: web.Request) -> web.StreamResponse:
    """Charged against escalated, revenue against cost, and whether the books close."""
    period = month(request)
    billing = request.app[BILLING]
    summary = await billing.summary(period)
    books = await billing.books()
    waiting = await desk.waits(billing, "held", None, 1)
    margin, margin_note = _margin(summary)
    return render(
        request,
        "overview.html",
        period=period,
        summary=summary,
        other_revenue=_others(summary["other_revenue"]),
        held_waiting=waiting.counts["held"],
        margin=margin,
        margin_note=margin_note,
        steps=_steps(summary),
        books={"stated": bool(books.tenants), "missing": missing(books.tenants), "alarm": books.alarm},
        classes=_classes(summary),
        chart=stacked(summary["days"], tuple(CLASSES)),
        nearest=await _nearest(billing, period),
        wiring=await request.app[WIRING].read(),
        unpriced=await _unpriced(request, period),
    )


async def _unpriced(request: web.Request, period: Period) -> int:
    """How many of the newest sessions, as just read, ended in the period and used a model without a price."""
    prices = await request.app[BILLING].price_history()

    def known(model: str, at_us: int) -> bool:
        elsewhen = not period.start_us <= at_us < period.end_us
        return elsewhen or prices.at(at_us).known(model) is not None

    return request.app[WIRING].unpriced(known).sessions


async def _nearest(billing: Billing, period: Period) -> Sequence[Mapping[str, Any]]:
    """The customers who have come nearest to the caps of their plans, with what their invoices say."""
    found = []
    for name in await desk.nearest_caps(billing, period, NEAREST):
        [made] = await accounts.invoices(billing, name, [period])
        if made is not None and (cap := cap_of(made)) is not None:
            found.append({"customer": name, "cap": cap, "currency": made["currency"]})
    return sorted(found, key=lambda one: one["cap"]["share"], reverse=True)


def _steps(summary: Mapping[str, Any]) -> Mapping[str, Sequence[tuple[str, str, int]]]:
    """How the numbers of first events lead to what is charged and who is escalated now: meaning, short, sessions."""
    later = summary["escalated_later"]
    found = {
        "charged": [
            ("At first", "at first", summary["charged"]),
            ("Charged later", "later", summary["charged_later"]),
            ("Taken back", "taken back", -summary["taken_back"]),
        ],
        "escalated": [
            ("At first", "at first", summary["escalated"]),
            ("Escalated later", "later", max(0, later)),
            ("No longer", "no longer", min(0, later)),
        ],
    }
    return {
        name: [steps[0], *(step for step in steps[1:] if step[2])] if any(step[2] for step in steps[1:]) else []
        for name, steps in found.items()
    }


def _classes(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [
        {"id": one, "name": name, "meaning": meaning, "sessions": summary[one]}
        for one, (name, meaning) in CLASSES.items()
    ]


def _others(amounts: Mapping[str, str]) -> str:
    return "".join(f"and {wording.money(amount, currency)} " for currency, amount in amounts.items()).strip()


def _margin(summary: Mapping[str, Any]) -> tuple[Decimal | None, str]:
    """What a session that stays charged leaves after the models of all sessions are paid; only within one currency."""
    if summary["currency"] != "USD" or summary["other_revenue"]:
        return None, "prices of models are in USD"
    if summary["charged_net"] <= 0:
        return None, "nothing is charged"
    left = (Decimal(summary["revenue"]) - Decimal(summary["llm_cost"])) / summary["charged_net"]
    return left.quantize(Decimal("0.01")), "revenue less LLM cost"
