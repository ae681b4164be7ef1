"""What all pages share: templates, the frame around them, the headers that bind a browser to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sidecar import __version__
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import Handler, ProblemError, problem_of
from sidecar.billing.api.reading import period_of
from sidecar.billing.console import wording
from sidecar.billing.console.login import GATE, Visitor, visitor_of
from sidecar.billing.rating.periods import Period

HERE = Path(__file__).parent
HELP_DESK_URL = web.AppKey("help_desk_url", str)
MARK: web.AppKey[Callable[[], str]] = web.AppKey("mark")  # of what the ledger holds, as `live` last saw it
_SEEN = web.RequestKey("seen", str)
STATIC = "/static/"
# The pages' own script and style, pictures that a style names, and nothing else from anywhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",  # amounts stay out of the browser's disk
}
# The navigation: path, name.
PLACES: Mapping[str, str] = {
    "/": "Overview",
    "/customers": "Customers",
    "/sessions": "Sessions",
    "/decisions": "Decisions",
    "/plans": "Plans",
    "/exports": "Exports",
    "/books": "Books",
}
# Pages that lie beneath a place without its path.
_BENEATH = {"/new-plan": "/plans", "/prices": "/plans", "/shadow": "/books"}


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(wording.FILTERS)
    return found


TEMPLATES = _environment()


def render(request: web.Request, template: str, status: int = 200, **values: Any) -> web.Response:
    """A page of a template, which finds `values` and what the frame needs."""
    frame: Mapping[str, Any] = {
        "visitor": visitor_of(request),
        "logs_in": bool(request.app[GATE].tokens),
        "places": PLACES,
        "place": place_of(request),
        "here": request.rel_url.raw_path,
        "seen": request.get(_SEEN, ""),
        "query": request.query,
        "static": lambda name: f"{STATIC}{name}?v={__version__}",
        "help_desk_url": request.app[HELP_DESK_URL],
        "version": __version__,
        "period": None,
    }
    text = TEMPLATES.get_template(template).render({**frame, **values})
    # Events may hold halves of characters, which no encoding has.
    body = text.encode("utf-8", "replace")
    return web.Response(status=status, body=body, content_type="text/html", charset="utf-8", headers=HEADERS)


def origin(request: web.Request) -> str:
    """Our address as the visitor's browser has it; behind a proxy that ends TLS it is https all the same."""
    return f"{'https' if secure(request) else 'http'}://{request.host}"


def secure(request: web.Request) -> bool:
    """Whether the visitor's browser came over TLS."""
    return request.secure or request.headers.get("X-Forwarded-Proto") == "https"


def place_of(request: web.Request) -> str:
    """The place of the navigation that a page belongs to; empty for none."""
    first = "/" + request.rel_url.raw_path[1:].partition("/")[0]
    found = _BENEATH.get(first, first)
    return found if found in PLACES else ""


def month(request: web.Request) -> Period:
    """`?period=2026-11`, else the month of now."""
    text = request.query.get("period")
    return period_of(text) if text else Period.of(request.app[BILLING].clock())


@web.middleware
async def unknown_to_people(request: web.Request, handler: Handler) -> web.StreamResponse:
    """An address that leads nowhere is a page to a browser; programs get a problem."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        if request.path.startswith("/v1/") or "text/html" not in request.headers.get("Accept", ""):
            raise
        return _failed(request, _nowhere(request, error), title="No such page", visitor=_who_asks(request))


def _nowhere(request: web.Request, error: web.HTTPException) -> ProblemError:
    known = problem_of(request, error)
    if known.status == HTTPStatus.METHOD_NOT_ALLOWED:
        said = f"{request.path} is there, but takes {known.headers['Allow']}, not {request.method}."
    else:
        said = f"Nothing is at {request.path}. Is the address spelled as it should be?"
    return ProblemError(known.status, said, **known.headers)


def _who_asks(request: web.Request) -> Visitor | None:
    try:
        return request.app[GATE].visitor(request)
    except ProblemError:
        return None


def shown_to_people(handler: Handler) -> Handler:
    """What goes wrong is a page too."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        request[_SEEN] = request.app[MARK]()  # before anything is read, so that what changes meanwhile is told
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _failed(request, ProblemError(error.status, error.reason))
        except Exception as error:  # noqa: BLE001 - the one place that turns errors into pages
            return _failed(request, problem_of(request, error))

    return guarded


def _failed(request: web.Request, problem: ProblemError, title: str = "", **values: Any) -> web.Response:
    page = render(request, "error.html", problem.status, problem=problem, title=title or problem.title, **values)
    page.headers.update(problem.headers)  # Retry-After, Allow
    return page
