"""`/v1/summary`, `/v1/books`, `/v1/alerts` and `/v1/plans/backtest`: what people look at."""

from __future__ import annotations

import json

from aiohttp import web

from sidecar.billing.api.bodies import BacktestBody
from sidecar.billing.api.catalog import YAML, as_yaml, plan_from
from sidecar.billing.api.keys import BILLING, METRICS
from sidecar.billing.api.outcomes import SEQ_MAX
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import json_body, period, period_of, whole_number
from sidecar.billing.ledger.append import storable
from sidecar.billing.ledger.entries import PAGE_MAX
from sidecar.billing.metrics import CONTENT_TYPE
from sidecar.billing.rating.invoice import timestamp


async def get_summary(request: web.Request) -> web.Response:
    """A period over all customers."""
    return web.json_response(await request.app[BILLING].summary(period(request)))


async def post_backtest(request: web.Request) -> web.Response:
    """A plan over a recorded period. JSON `{"plan", "period"}`, or the plan's YAML with `?period=`."""
    if request.content_type in YAML:
        source, month = await request.read(), period(request)
    else:
        body = await json_body(request, BacktestBody, "the request")
        month = period_of(body.period)
        given = body.plan
        source = given.encode() if isinstance(given, str) else as_yaml(json.dumps(given).encode())
    if not source.strip():
        raise ProblemError(400, "the plan is missing")
    return web.json_response(await request.app[BILLING].backtest(await plan_from(source, "plan"), month))


async def get_books(request: web.Request) -> web.Response:
    """What the sidecars state as finalized, beside what has arrived."""
    found = await request.app[BILLING].books()
    shown = {"tenants": found.tenants, "more": found.more, "difference": found.difference, "alarm": found.alarm}
    return web.json_response(shown)


async def get_alerts(request: web.Request) -> web.Response:
    """Alerts about spending, newest first, and whether they were delivered."""
    limit = whole_number(request.query.get("limit"), "limit", 100, PAGE_MAX)
    after = request.query.get("after")
    before = whole_number(after, "after", 0, SEQ_MAX) if after is not None else None
    rows = await request.app[BILLING].alerts(storable(request.query.get("customer")), before, limit + 1)
    shown = [
        {
            "seq": row["seq"],
            "body": json.loads(row["body"]),
            "attempts": row["attempts"],
            "delivered_at": None if row["delivered_us"] is None else timestamp(row["delivered_us"]),
            "error": row["error"],
        }
        for row in rows[:limit]
    ]
    return web.json_response({"alerts": shown, "next": str(shown[-1]["seq"]) if len(rows) > limit else None})


async def get_metrics(request: web.Request) -> web.Response:
    """Prometheus text."""
    return web.Response(body=await request.app[METRICS].text(), headers={"Content-Type": CONTENT_TYPE})
