"""The application: every route, once."""

from __future__ import annotations

from aiohttp import web

from sidecar import __version__
from sidecar.billing.api import catalog, outcomes
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import bearer, problems
from sidecar.billing.service import Billing

BODY_BYTES_MAX = 32 << 20


def application(billing: Billing, token: str | None) -> web.Application:
    """The billing API over a service; with a token, /v1/ asks for it."""
    app = web.Application(middlewares=[problems, bearer(token)], client_max_size=BODY_BYTES_MAX)
    app[BILLING] = billing
    app.add_routes(
        [
            web.get("/", index),
            web.get("/livez", live),
            web.get("/readyz", ready),
            web.get("/healthz", ready),
            web.post("/v1/outcomes", outcomes.post_outcomes),
            web.get("/v1/outcomes", outcomes.get_outcomes),
            web.get("/v1/sessions/{id}", outcomes.get_session),
            web.put("/v1/plans/{id}", catalog.put_plan),
            web.get("/v1/plans/{id}", catalog.get_plan),
            web.put("/v1/customers/{id}", catalog.put_customer),
            web.get("/v1/customers/{id}", catalog.get_customer),
            web.get("/v1/customers/{id}/invoice", catalog.get_invoice),
            web.get("/v1/summary", catalog.get_summary),
        ]
    )
    return app


async def live(_: web.Request) -> web.Response:
    """The process runs."""
    return web.Response(text="ok\n")


async def ready(request: web.Request) -> web.Response:
    """The database answers; if not, the middleware makes it a 503."""
    await request.app[BILLING].database.check()
    return web.Response(text="ok\n")


async def index(request: web.Request) -> web.Response:
    """What this is, and what it can be asked."""
    routes = sorted(
        {
            f"{route.method} {route.resource.canonical}"
            for route in request.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        },
        key=lambda text: text.split(" ", 1)[::-1],
    )
    return web.json_response({"service": "outcome-sidecar billing", "version": __version__, "endpoints": routes})
