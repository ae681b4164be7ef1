"""Customers: the list of a month, one of them, an invoice, and the sessions behind one of its lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aiohttp import web

from sidecar.billing import accounts, desk
from sidecar.billing.api import tables
from sidecar.billing.api.catalog import NOTHING_KNOWN
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import customer_id, flag, instant
from sidecar.billing.console import paging
from sidecar.billing.console.shell import month, render
from sidecar.billing.ledger.behind import Behind, NoLineError
from sidecar.billing.ledger.catalog import read_closings
from sidecar.billing.rating.account import UNATTRIBUTED, Customer
from sidecar.billing.rating.invoice import timestamp
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import DEFAULT_PLAN

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
    while len(months) < MONTHS and not months[-1].first:
        months.append(months[-1].before)
    invoices = await accounts.invoices(billing, name, months)
    return render(
        request,
        "customer.html",
        period=period,
        customer=customer,
        history=_history(customer, billing.clock()),
        invoices=invoices,
        made=invoices[0],
        cap=cap_of(invoices[0]),
        alerts=[desk.alert(row) for row in await billing.alerts(name, None, ALERTS)],
        recorded=await desk.seen(billing, name),
    )


def _history(customer: Customer, now_us: int) -> list[dict[str, Any]]:
    """What was said of it, told last first. `holds` is of now; a plan may begin later than the rest (`plan_from`)."""
    found: list[dict[str, Any]] = []
    for before, version in zip((None, *customer.versions), customer.versions, strict=False):
        facts, start = {**NOTHING_KNOWN, **version.facts}, version.effective_us
        plans = [one.facts.get("plan") or DEFAULT_PLAN for one in (before or version, version)]
        next_us = Period.of(start).end_us if plans[0] != plans[1] and version.plan_from_us is None else None
        found.append({"told": version.known_us, "from": start, "plan_from": next_us, "facts": facts, "holds": ""})
    now = max((index for index, one in enumerate(found) if one["from"] <= now_us), default=0)
    for index, one in enumerate(found):
        one["holds"] = "now" if index == now else "past" if index < now else "later"
    return found[::-1]


async def show_invoice(request: web.Request) -> web.StreamResponse:
    """An invoice, as on paper; with `?shadow=true`, what shadow events would have cost."""
    name, period, shadow, billing = customer_id(request), month(request), flag(request, "shadow"), request.app[BILLING]
    made = await billing.invoice(name, period, shadow=shadow)
    async with billing.database.reading() as connection:
        closed_us = (await read_closings(connection)).of(period)
    return render(
        request,
        "invoice.html",
        period=period,
        name=name,
        made=made,
        sections=[{**section, "made": _lines_of(made, section)} for section in made["sections"]],
        cap=cap_of(made),
        shadow=shadow,
        closed_us=closed_us,
        as_of_us=billing.clock(),
        recorded=await desk.seen(billing, name),
    )


def _lines_of(made: Mapping[str, Any], section: Mapping[str, Any]) -> list[Any]:
    """The lines of a section; `alike` when only its charge tells a line from another one."""
    lines = [line for line in made["lines"] if line["from"] == section["from"]]
    names = Counter(_charge_name(line) for line in lines)
    return [{**line, "name": _charge_name(line), "alike": names[_charge_name(line)] > 1} for line in lines]


def _charge_name(line: Mapping[str, Any]) -> str:
    """What a line is called: its description without how its amount comes about."""
    return str(line["description"]).rsplit(": ", 1)[0]


async def send_csv(request: web.Request) -> web.StreamResponse:
    """The invoice for a spreadsheet."""
    return tables.invoice(await request.app[BILLING].invoice(customer_id(request), month(request)))


async def show_line(request: web.Request) -> web.StreamResponse:
    """The sessions that a line of an invoice counts."""
    name, period, billing = customer_id(request), month(request), request.app[BILLING]
    charge, start_us = request.match_info["charge"], instant(request, "from")
    [after] = paging.numbers(request, 1) or [0]
    try:
        page = await billing.behind_line(Behind(name, period, charge, start_us, after, LINES_PAGE))
    except NoLineError as error:
        raise ProblemError(404, str(error)) from None
    made = await billing.invoice(name, period)
    start = None if start_us is None else timestamp(start_us)
    lines = [line for line in made["lines"] if line["charge"] == charge and start in {None, line["from"]}]
    more = paging.following(request, page.next) if page.next is not None else ""
    return render(
        request,
        "line.html",
        period=period,
        name=name,
        charge=charge,
        start=start,
        lines=lines,
        uses=page.uses,
        more=more,
        after=after,
    )


def cap_of(made: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The spend against the cap of the newest plan, of the part of the month that it rates; None without a cap."""
    section = made["sections"][-1] if made else None
    if section is None or section["guardrails"]["max_spend_cap"] is None:
        return None
    rails = section["guardrails"]
    spent, cap = Decimal(section["subtotal"]), Decimal(rails["max_spend_cap"])
    share = float(spent / cap) if cap else 1.0
    tone = "bad" if share >= 1 else "warn" if share >= 0.8 else "good"
    return {"spent": spent, "cap": cap, "share": share, "stops": rails["max_spend_behavior"] == "CAP", "tone": tone}
