"""Customers: the list of a month, one of them, an invoice, and the sessions behind one of its lines."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aiohttp import web

from sidecar.billing import accounts, desk
from sidecar.billing.api import tables
from sidecar.billing.api.catalog import NOTHING_KNOWN
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import customer_id
from sidecar.billing.console import paging
from sidecar.billing.console.shell import month, render
from sidecar.billing.ledger.behind import Behind
from sidecar.billing.rating.account import UNATTRIBUTED, CustomerVersion

PAGE, LINES_PAGE, MONTHS, ALERTS = 25, 50, 6, 10


async def show_all(request: web.Request) -> web.StreamResponse:
    """Who is charged how much in a month, by name."""
    period, search = month(request), paging.text(request, "q")
    after = paging.text(request, "after") or ""
    found = await accounts.listed(request.app[BILLING], period, search, after, PAGE + 1)
    more = (
        paging.address(request.path, {**request.query, "after": found[PAGE - 1].customer}) if len(found) > PAGE else ""
    )
    rows = [{"customer": one.customer, "made": one.invoice, "cap": cap_of(one.invoice)} for one in found[:PAGE]]
    return render(request, "customers.html", period=period, search=search or "", rows=rows, more=more, after=after)


async def show(request: web.Request) -> web.StreamResponse:
    """One customer: what was said of it, and what its last months cost."""
    name, period, billing = customer_id(request), month(request), request.app[BILLING]
    if name == UNATTRIBUTED:
        raise web.HTTPSeeOther("/decisions?only=unattributed")
    customer = await billing.customer(name)
    months = [period]
    while len(months) < MONTHS:
        months.append(months[-1].before)
    invoices = await accounts.invoices(billing, name, months)
    return render(
        request,
        "customer.html",
        period=period,
        customer=customer,
        history=[_version(version) for version in reversed(customer.versions)],
        invoices=invoices,
        made=invoices[0],
        cap=cap_of(invoices[0]),
        alerts=[desk.alert(row) for row in await billing.alerts(name, None, ALERTS)],
    )


def _version(version: CustomerVersion) -> Mapping[str, Any]:
    start = version.effective_us if version.plan_from_us is None else version.plan_from_us
    return {"told": version.known_us, "from": start, "facts": {**NOTHING_KNOWN, **version.facts}}


async def show_invoice(request: web.Request) -> web.StreamResponse:
    """An invoice, as on paper."""
    name, period = customer_id(request), month(request)
    made = await request.app[BILLING].invoice(name, period)
    sections = [{**section, "made": _lines_of(made, section)} for section in made["sections"]]
    return render(request, "invoice.html", period=period, name=name, made=made, sections=sections, cap=cap_of(made))


def _lines_of(made: Mapping[str, Any], section: Mapping[str, Any]) -> list[Any]:
    return [line for line in made["lines"] if line["from"] == section["from"]]


async def send_csv(request: web.Request) -> web.StreamResponse:
    """The invoice for a spreadsheet."""
    return tables.invoice(await request.app[BILLING].invoice(customer_id(request), month(request)))


async def show_line(request: web.Request) -> web.StreamResponse:
    """The sessions that a line of an invoice counts."""
    name, period, billing = customer_id(request), month(request), request.app[BILLING]
    charge = request.match_info["charge"]
    made = await billing.invoice(name, period)
    lines = [line for line in made["lines"] if line["charge"] == charge]
    if not lines:
        raise ProblemError(404, f"the invoice of {name!r} for {period} has no line {charge!r}")
    [after] = paging.numbers(request, 1) or [0]
    page = await billing.behind_line(Behind(name, period, charge, after, LINES_PAGE))
    more = paging.following(request, page.next) if page.next is not None else ""
    return render(
        request,
        "line.html",
        period=period,
        name=name,
        charge=charge,
        lines=lines,
        uses=page.uses,
        more=more,
        after=after,
    )


def cap_of(made: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The spend of an invoice against the cap of its plan; None without a cap."""
    rails = made["guardrails"] if made else {}
    if not rails or rails["max_spend_cap"] is None:
        return None
    spent, cap = Decimal(made["subtotal"]), Decimal(rails["max_spend_cap"])  # type: ignore[index]
    share = float(spent / cap) if cap else 1.0
    tone = "bad" if share >= 1 else "warn" if share >= 0.8 else "good"
    return {"spent": spent, "cap": cap, "share": share, "stops": rails["max_spend_behavior"] == "CAP", "tone": tone}
