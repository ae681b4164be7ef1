"""Errors as `application/problem+json` (RFC 9457), and the bearer token."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from sqlalchemy.exc import SQLAlchemyError

from sidecar.billing.ingest import BusyError

log = structlog.get_logger()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RETRY_AFTER_SECONDS = 2


class ProblemError(Exception):
    """A request that cannot be served; `detail` says what to change, `errors` lists the parts."""

    def __init__(self, status: int, detail: str, errors: Sequence[Any] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)


def problem(status: int, detail: str, errors: Sequence[Any] = (), **headers: str) -> web.Response:
    """One problem as an answer."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(
        status=status, text=json.dumps(body), content_type="application/problem+json", headers=named or None
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is answered as a problem; nothing of ours is shown that was not meant to be."""
    try:
        return await handler(request)
    except ProblemError as error:
        return problem(error.status, error.detail, error.errors)
    except web.HTTPRequestEntityTooLarge as error:
        return problem(413, f"the body is larger than {error.text.rpartition(' ')[2] if error.text else 'allowed'}")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = error.headers.get("Allow")
        return problem(error.status, f"{request.method} {request.path}", **({"Allow": allow} if allow else {}))
    except BusyError as error:
        return problem(503, str(error), Retry_After=str(RETRY_AFTER_SECONDS))
    except SQLAlchemyError as error:
        log.error("database_failed", path=request.path, error=str(error))
        return problem(503, "the ledger's database does not answer", Retry_After=str(RETRY_AFTER_SECONDS))
    except Exception:
        log.exception("request_failed", path=request.path)
        return problem(500, "an error of the billing service; its log says more")


def bearer(token: str | None) -> Middleware:
    """Ask for the token on everything under /v1/."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is not None and request.path.startswith("/v1/"):
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            expected, offered = token.encode(), given.strip().encode("utf-8", "surrogateescape")
            if scheme.lower() != "bearer" or not hmac.compare_digest(offered, expected):
                return problem(401, "send the token as `Authorization: Bearer …`", WWW_Authenticate="Bearer")
        return await handler(request)

    return check
