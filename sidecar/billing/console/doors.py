"""In and out: the page that asks for a token, what takes it, and the end of a session."""

from __future__ import annotations

from aiohttp import web

from sidecar.billing.api.problems import ProblemError
from sidecar.billing.console.login import COOKIE, GATE, NAME_MAX, SESSION_SECONDS, demand_form
from sidecar.billing.console.shell import render, secure

FORM_BYTES_MAX = 16 << 10  # anybody may send it, so little of it is read


async def ask(request: web.Request) -> web.StreamResponse:
    """The form; without tokens there is nothing to ask."""
    if not request.app[GATE].tokens:
        raise web.HTTPSeeOther("/")
    return render(request, "login.html", wanted=page_of_ours(request.query.get("next", "/")), failed=False, name="")


async def log_in(request: web.Request) -> web.StreamResponse:
    """The right token gets a session, and the page that was wanted."""
    if request.content_length is None or request.content_length > FORM_BYTES_MAX:
        raise ProblemError(413, f"send the form with its Content-Length, at most {FORM_BYTES_MAX} bytes")
    await demand_form(request, None)
    form = await request.post()
    token, name, wanted = (_text(form.get(field)) for field in ("token", "name", "next"))
    gate = request.app[GATE]
    cookie = await gate.log_in(token, name.strip()[:NAME_MAX]) if gate.tokens else None
    if cookie is None:
        return render(request, "login.html", 401, wanted=page_of_ours(wanted), failed=True, name=name)
    answer = web.HTTPSeeOther(page_of_ours(wanted))
    answer.set_cookie(
        COOKIE, cookie, max_age=SESSION_SECONDS, httponly=True, samesite="Lax", secure=secure(request), path="/"
    )
    raise answer


async def log_out(_: web.Request) -> web.StreamResponse:
    """Forget the session."""
    answer = web.HTTPSeeOther("/login")
    answer.del_cookie(COOKIE, path="/")
    raise answer


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def page_of_ours(wanted: str) -> str:
    """Only a page of ours: `//elsewhere` and `https://elsewhere` would lead away after the login."""
    ours = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted and wanted.isprintable()
    return wanted if ours else "/"
