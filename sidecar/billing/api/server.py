"""The application: the endpoints of `routes`, health, metrics, the description of it all, and the console."""

from __future__ import annotations

from aiohttp import web

from sidecar.billing.api.keys import BILLING, METRICS
from sidecar.billing.api.openapi import document
from sidecar.billing.api.problems import bearer, problems
from sidecar.billing.api.reading import taking_any_id
from sidecar.billing.api.reports import get_metrics
from sidecar.billing.api.routes import ENDPOINTS
from sidecar.billing.console.routes import add_console
from sidecar.billing.metrics import Metrics
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens

BODY_BYTES_MAX = 32 << 20


def application(billing: Billing, tokens: Tokens, help_desk_url: str | None = None) -> web.Application:
    """The billing API over a service, and its console; with tokens, both ask for one."""
    app = web.Application(middlewares=[problems, bearer(tokens)], client_max_size=BODY_BYTES_MAX)
    app[BILLING] = billing
    app[METRICS] = Metrics(billing)
    app.add_routes(
        [
            web.get("/livez", live),
            web.get("/readyz", ready),
            web.get("/healthz", ready),
            web.get("/metrics", get_metrics),
            web.get("/openapi.json", describe),
        ]
    )
    for endpoint in ENDPOINTS:
        path = taking_any_id(endpoint.path)
        app.router.add_route(endpoint.method, path, endpoint.handler)
        if endpoint.method == "GET":
            app.router.add_route("HEAD", path, endpoint.handler)
    add_console(app, billing, tokens, help_desk_url)
    return app


async def live(_: web.Request) -> web.Response:
    """The process runs."""
    return web.Response(text="ok\n")


async def ready(request: web.Request) -> web.Response:
    """The database answers; if not, the middleware makes it a 503."""
    await request.app[BILLING].database.check()
    return web.Response(text="ok\n")


async def describe(_: web.Request) -> web.Response:
    """The OpenAPI description."""
    return web.json_response(document())
