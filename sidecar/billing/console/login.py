"""Who looks at the console: a token exchanged for a signed cookie, two roles, and forms that only our pages can send.

Sessions are in the cookie (HttpOnly, SameSite=Lax), signed with a key made of the tokens: any replica reads them, and
changing a token ends them all. Without a token the API answers loopback alone, and so does the console: everybody
there is an operator.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import web
from itsdangerous import BadSignature, URLSafeTimedSerializer

from sidecar.billing.api.problems import Handler, ProblemError, demand_loopback_name
from sidecar.billing.tokens import Role, Tokens

COOKIE = "sidecar_console"
SESSION_SECONDS = 12 * 3600
NAME_MAX = 100
FAILURE_SECONDS = 1.0
FAILURES_WAITING_MAX = 32


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks: `name` is written beside what they decide; `form_key` must come back with every form."""

    name: str
    role: Role
    form_key: str

    @property
    def operator(self) -> bool:
        """Whether they may decide."""
        return self.role == "operator"


class Gate:
    """Lets visitors in."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self._key = _key(f"{tokens.operator}\0{tokens.viewer}".encode()) if tokens else secrets.token_bytes(32)
        self._signed = URLSafeTimedSerializer(self._key, salt="session")
        self._waiting = 0

    def visitor(self, request: web.Request) -> Visitor | None:
        """Who sent this; None when they must log in."""
        if not self.tokens:
            demand_loopback_name(request)
            return Visitor("", "operator", self._form_key("anybody"))
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            # A program that has the token may read pages; it has no form key, so it can send no form.
            role = self.tokens.role_of_header(request.headers.get("Authorization", ""))
            return None if role is None else Visitor("", role, secrets.token_urlsafe())
        try:
            content: Any = self._signed.loads(cookie, max_age=SESSION_SECONDS)
        except BadSignature:
            return None
        return Visitor(content["name"], content["role"], self._form_key(cookie))

    async def log_in(self, token: str, name: str) -> str | None:
        """The cookie of a new session; None for a wrong token, which takes a second to say."""
        role = self.tokens.role(token.strip())
        if role is not None:
            return str(self._signed.dumps({"name": name, "role": role}))
        if self._waiting >= FAILURES_WAITING_MAX:
            raise ProblemError(429, "too many attempts to log in; try again in a moment")
        self._waiting += 1
        try:
            await asyncio.sleep(FAILURE_SECONDS)
        finally:
            self._waiting -= 1
        return None

    def _form_key(self, session: str) -> str:
        return hmac.new(self._key, b"form\0" + session.encode(), hashlib.sha256).hexdigest()


def _key(secret: bytes) -> bytes:
    """A key that takes long to make (RFC 7914; 16 MiB, a twentieth of a second), once at the start: a viewer has a
    cookie that it signed and one of the tokens, and must not find the other by trying.
    """
    return hashlib.scrypt(secret, salt=b"sidecar console", n=1 << 14, r=8, p=1, dklen=32)


GATE = web.AppKey("gate", Gate)
_VISITOR = web.RequestKey("visitor", Visitor)


def visitor_of(request: web.Request) -> Visitor | None:
    """Who sent a request, if it was let in."""
    return request.get(_VISITOR)


def for_visitors(handler: Handler, *, operators: bool = False) -> Handler:
    """The handler for those who are logged in; with `operators`, for these alone. Forms must be ours."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        visitor = request.app[GATE].visitor(request)
        if visitor is None:
            if request.method != "GET" or request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
                raise ProblemError(401, "this session is over: log in again")
            raise web.HTTPSeeOther(f"/login?next={quote(request.path_qs, safe='/')}")
        request[_VISITOR] = visitor
        if request.method == "POST":
            await demand_form(request, visitor.form_key)
        if operators and not visitor.operator:
            raise ProblemError(403, "a viewer's token cannot do this: ask an operator")
        return await handler(request)

    return guarded


async def demand_form(request: web.Request, form_key: str | None) -> None:
    """Refuse a form that another site sent, or (with a key) that is not of this session."""
    origin = request.headers.get("Origin")
    ours = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    ours = ours and (origin is None or origin.partition("://")[2] == request.host)
    if ours and form_key is not None:
        given = (await request.post()).get("form_key")
        ours = isinstance(given, str) and hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), form_key.encode()
        )
    if not ours:
        raise ProblemError(403, "this form is not of this session: go back, load the page again and send it anew")
