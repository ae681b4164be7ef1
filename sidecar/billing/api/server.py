"""The application: the endpoints of `routes`, health, metrics, and the description of it all."""

from __future__ import annotations

from aiohttp import web

from sidecar import __version__
from sidecar.billing.api.keys import BILLING, METRICS
from sidecar.billing.api.openapi import document
from sidecar.billing.api.problems import bearer, problems
from sidecar.billing.api.reports import get_metrics
from sidecar.billing.api.routes import ENDPOINTS
from sidecar.billing.metrics import Metrics
from sidecar.billing.service import Billing

BODY_BYTES_MAX = 32 << 20


def application(billing: Billing, token: str | None) -> web.Application:
    """The billing API over a service; with a token, /v1/ asks for it."""
    app = web.Application(middlewares=[problems, bearer(token)], client_max_size=BODY_BYTES_MAX)
    app[BILLING] = billing
    app[METRICS] = Metrics(billing)
    app.add_routes(
        [
            web.get("/", index),
            web.get("/livez", live),
            web.get("/readyz", ready),
            web.get("/healthz", ready),
            web.get("/metrics", get_metrics),
            web.get("/openapi.json", describe),
        ]
    )
    for endpoint in ENDPOINTS:
        app.router.add_route(endpoint.method, endpoint.path, endpoint.handler)
        if endpoint.method == "GET":
            app.router.add_route("HEAD", endpoint.path, endpoint.handler)
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
