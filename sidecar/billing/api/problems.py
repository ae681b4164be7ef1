"""Errors as `application/problem+json` (RFC 9457), and the bearer token."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from sqlalchemy.exc import SQLAlchemyError

from sidecar.billing.ingest import BusyError
from sidecar.billing.tokens import Tokens

log = structlog.get_logger()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RETRY_AFTER_SECONDS = 2
# What a viewer may send that is no GET: it tries a plan, and changes nothing.
BACKTEST = ("POST", "/v1/plans/backtest")


class ProblemError(Exception):
    """A request that cannot be served; `detail` says what to change, `errors` lists the parts."""

    def __init__(self, status: int, detail: str, errors: Sequence[Any] = (), **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def answer(self) -> web.Response:
        """As RFC 9457 has it."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return web.Response(
            status=self.status, text=json.dumps(body), content_type="application/problem+json", headers=self.headers
        )


def problem_of(request: web.Request, error: Exception) -> ProblemError:
    """What a failed request is told; nothing of ours is shown that was not meant to be."""
    match error:
        case ProblemError():
            return error
        case web.HTTPRequestEntityTooLarge():
            bound = error.text.rpartition(" ")[2] if error.text else "allowed"
            return ProblemError(413, f"the body is larger than {bound}")
        case web.HTTPException():
            allow = error.headers.get("Allow")
            return ProblemError(error.status, f"{request.method} {request.path}", **({"Allow": allow} if allow else {}))
        case BusyError():
            return ProblemError(503, str(error), Retry_After=str(RETRY_AFTER_SECONDS))
        case SQLAlchemyError():
            log.error("database_failed", path=request.path, error=str(error))
            return ProblemError(503, "the ledger's database does not answer", Retry_After=str(RETRY_AFTER_SECONDS))
    log.error("request_failed", path=request.path, exc_info=error)
    return ProblemError(500, "an error of the billing service; its log says more")


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is answered as a problem."""
    try:
        return await handler(request)
    except Exception as error:
        if isinstance(error, web.HTTPException) and error.status < 400:
            raise
        return problem_of(request, error).answer()


def bearer(tokens: Tokens) -> Middleware:
    """Ask for a token on everything under /v1/; a viewer's reads, and tries plans. Without tokens see below."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/v1/"):
            return await handler(request)
        if not tokens:
            demand_loopback_name(request)
        else:
            role = tokens.role_of_header(request.headers.get("Authorization", ""))
            if role is None:
                refusal = ProblemError(401, "send the token as `Authorization: Bearer …`", WWW_Authenticate="Bearer")
                return refusal.answer()
            if role == "viewer" and not _only_reads(request):
                return ProblemError(403, "a viewer's token only reads: send an operator's").answer()
        return await handler(request)

    return check


def _only_reads(request: web.Request) -> bool:
    return request.method in {"GET", "HEAD"} or (request.method, request.path) == BACKTEST


def demand_loopback_name(request: web.Request) -> None:
    """Without a token, a site whose name was made to lead here (DNS rebinding) must not use the ledger.

    Then the service listens on loopback or on a Unix socket alone; over the latter no browser comes, and any name does.
    """
    name = request.url.host or ""
    try:
        fine = ipaddress.ip_address(name).is_loopback
    except ValueError:
        fine = name == "localhost" or name.endswith(".localhost")
    if not fine and request.transport is not None and request.transport.get_extra_info("peername"):
        raise ProblemError(403, f"without SIDECAR_BILLING_TOKEN the service answers to localhost, not to {name!r}")
