"""Shadow results beside live ones: what a deployment that only watches would have charged."""

from __future__ import annotations

from aiohttp import web

from sidecar.billing.api.keys import BILLING
from sidecar.billing.console.backtests import begin
from sidecar.billing.console.forms import actor_of
from sidecar.billing.console.overview import CLASSES
from sidecar.billing.console.shell import month, render
from sidecar.billing.work import runs
from sidecar.billing.work.runs import Wanted

CUSTOMERS_SHOWN = 200


async def show(request: web.Request) -> web.StreamResponse:
    """Counts by class of a month, and by customer what shadow events would have cost, as worked out last."""
    billing, period = request.app[BILLING], month(request)
    summary = await billing.summary(period)
    run = await runs.newest(billing.database, "shadow", period, billing.clock())
    classes = [
        {"id": one, "name": name, "meaning": meaning, "live": summary[one], "shadow": summary["shadow"][one]}
        for one, (name, meaning) in CLASSES.items()
    ]
    return render(
        request, "shadow.html", period=period, summary=summary, classes=classes, run=run, shown=CUSTOMERS_SHOWN
    )  # fmt: skip


async def work_out(request: web.Request) -> web.StreamResponse:
    """Rate the month's shadow events by customer, as long work."""
    given, period = await request.post(), month(request)
    await begin(request, Wanted("shadow", period, actor_of(request, given)))
    raise web.HTTPSeeOther(f"/shadow?period={period}")
