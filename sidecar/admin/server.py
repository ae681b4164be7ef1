"""The observer's HTTP API, behind the proxy's admin listener: signals, webhooks, sessions, metrics.

Errors are `application/problem+json` (RFC 9457). Everything under /v1 but webhooks asks for the admin token when one is
set.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from redis.exceptions import RedisError

from sidecar.admin.metrics import CONTENT_TYPE, Metrics
from sidecar.admin.problems import problem
from sidecar.admin.webhooks import WebhookIntake
from sidecar.intake.signal import Signal
from sidecar.intake.signals import BODY_BYTES_MAX, InvalidSignalError, build_signal, parse_signal
from sidecar.intake.webhooks import Endpoint
from sidecar.observer.journal import Journal, JournalFull
from sidecar.observer.pipeline import now_ms
from sidecar.policy.current import CurrentPlan
from sidecar.sessions.applier import Applier
from sidecar.sessions.candidate import Candidate
from sidecar.sessions.explain import explain
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.states import State
from sidecar.sessions.store import Store
from sidecar.sessions.view import rfc3339

# How long a signal's sender waits to be told whether it was a duplicate. It is durable before that.
APPLIED_WAIT_SECONDS = 1.0
LIST_MAX = 1000
WEBHOOKS = "/v1/webhooks/{source}"
_CURSOR = re.compile(r"\d{1,15}-\d{1,15}")
_NO_MOVE = {"conversation": None, "customer": None, "from": None, "outcome": None}

log = structlog.get_logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the API reads and writes."""

    tenant: str
    hash_key: bytes
    journal: Journal
    store: Store
    applier: Applier
    plan: CurrentPlan
    metrics: Metrics
    token: str | None
    candidate: Candidate | None = None
    webhooks: Mapping[str, Endpoint] = field(default_factory=dict)
    webhook_base_url: str | None = None


class AdminServer:
    """Serves the API on a Unix socket until closed."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts
        webhooks = WebhookIntake(
            parts.webhooks,
            base_url=parts.webhook_base_url,
            tenant=parts.tenant,
            hash_key=parts.hash_key,
            journal=parts.journal,
            store=parts.store,
            plan=parts.plan,
            tally=parts.metrics,
            wake=parts.applier.wake,
            candidate=parts.candidate,
        )
        app = web.Application(middlewares=[_problems, self._authorize], client_max_size=BODY_BYTES_MAX)
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.post("/v1/signals", self._signal),
                web.post(WEBHOOKS, webhooks.take),
                web.head(WEBHOOKS, webhooks.check),
                web.get("/v1/sessions", self._sessions),
                web.get("/v1/sessions/{id}", self._session),
                web.get("/v1/sessions/{id}/verification", self._verification),
                web.get("/v1/events", self._events),
                web.get("/v1/plan", self._plan),
                web.get("/v1/candidate", self._candidate),
                web.get("/v1/dead-letters", self._dead_letters),
                web.post("/v1/dead-letters/redeliver", self._redeliver),
            ],
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, socket: Path) -> None:
        """Listen; a socket file that a former process left is replaced."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket)).start()

    async def close(self) -> None:
        """Answer what is under way, then stop."""
        await self._runner.cleanup()

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        token = self._parts.token
        resource = request.match_info.route.resource
        is_webhook = resource is not None and resource.canonical == WEBHOOKS  # signed instead
        if token is not None and not is_webhook and request.path.startswith("/v1/"):
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
                return problem(401, "the bearer token of SIDECAR_ADMIN_TOKEN is needed", {"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _metrics(self, _: web.Request) -> web.Response:
        body = self._parts.metrics.render()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _signal(self, request: web.Request) -> web.Response:
        parts = self._parts
        raw = await request.read()
        try:
            body = parse_signal(raw)
        except InvalidSignalError as error:
            parts.metrics.count("signal_invalid")
            return problem(400 if error.unreadable else 422, str(error), extra={"problems": error.problems})
        arrived_ms = now_ms()
        numbered = build_signal(
            body,
            producer=parts.journal.id,
            tenant=parts.tenant,
            at_ms=arrived_ms,
            terms=parts.plan.loaded.terms,
            hash_key=parts.hash_key,
            raw=raw,
        )
        if await self._too_many_wait(numbered(0)):
            parts.metrics.count("signal_over")
            return problem(
                429,
                f"{LIMITS['waiting']} signals wait already for this session, which no traffic has shown yet; send it "
                "again when it has begun",
                {"Retry-After": "60"},
            )
        try:
            sequence, duplicate = await asyncio.to_thread(
                parts.journal.append_signal,
                body.source,
                body.id,
                arrived_ms,
                lambda number: numbered(number).to_json(),
            )
        except JournalFull as error:
            parts.metrics.count("signal_refused")
            return problem(
                503, f"the signal could not be made durable: {error}; send it again later", {"Retry-After": "5"}
            )
        answer: dict[str, Any] = {"id": body.id, "source": body.source, "duplicate": duplicate}
        if not duplicate:
            if parts.candidate is not None:
                parts.candidate.signal(numbered(sequence))
            parts.applier.wake()
            applied = await self._applied(sequence)
            if applied is not None:
                answer |= applied
        parts.metrics.count("signal_duplicate" if answer["duplicate"] else "signal_accepted")
        return web.json_response(answer, status=202)

    async def _too_many_wait(self, signal: Signal) -> bool:
        """Asked before the signal is taken; while Redis is away it is taken all the same."""
        try:
            async with asyncio.timeout(APPLIED_WAIT_SECONDS):
                return any(await self._parts.store.too_many_wait([signal]))
        except (RedisError, OSError, TimeoutError):
            return False

    async def _applied(self, sequence: int) -> dict[str, Any] | None:
        """What became of the signal, when Redis says so soon; the 202 does not depend on it."""
        try:
            applied = await asyncio.wait_for(self._parts.applier.applied(sequence), APPLIED_WAIT_SECONDS)
        except TimeoutError:
            return None
        if applied.status == "duplicate":
            return {"duplicate": True}
        if applied.status in {"waiting", "ambiguous"}:
            return {applied.status: True}
        return {"session_id": applied.session_id} if applied.session_id else {}

    async def _sessions(self, request: web.Request) -> web.Response:
        alias = request.query.get("alias")
        if alias is not None:
            kind, colon, value = alias.partition(":")
            if not colon or not value:
                return problem(400, "alias must be KIND:VALUE, for example conversation:c-42")
            found = await self._parts.store.by_alias(kind, value)
            if found is None:
                return problem(404, f"no session is known by {kind} {value!r}")
            return web.json_response(self._shown(found))
        limit = _limit(request)
        state = request.query.get("state")
        if state is not None and state not in list(State):
            return problem(400, f"state must be one of {', '.join(State)}")
        after = request.query.get("after")
        started_ms, dash, name = (after or "").partition("-")
        if after is not None and not (started_ms.isdecimal() and dash and len(started_ms) < 16):
            return problem(400, "after must be the `next` of the page before")
        place = None if after is None else (int(started_ms), name)
        sessions, following = await self._parts.store.page(limit, state, request.query.get("customer"), place)
        shown = [session.to_dict() for session in sessions]
        return web.json_response({"sessions": shown, "next": following and f"{following[0]}-{following[1]}"})

    async def _events(self, request: web.Request) -> web.Response:
        """How sessions came into their states, on whichever replica: what `sidecar tail` asks for again and again."""
        after = request.query.get("after")
        if after is not None and not _CURSOR.fullmatch(after):
            return problem(400, "after must be the `next` of the answer before, or Unix milliseconds and -0")
        moves, following = await self._parts.store.moves(after, _limit(request))
        events = [{**_NO_MOVE, **move, "at": rfc3339(move["at"])} for move in moves]
        for event in events:
            event["revision"] = event["revision"] if event["revision"] >= 0 else None
        return web.json_response({"events": events, "next": following})

    async def _session(self, request: web.Request) -> web.Response:
        found = await self._parts.store.session(request.match_info["id"])
        if found is None:
            return problem(404, f"no session {request.match_info['id']!r} is known")
        return web.json_response(self._shown(found))

    async def _verification(self, request: web.Request) -> web.Response:
        found = await self._parts.store.verify(request.match_info["id"])
        if found is None:
            return problem(404, f"no session {request.match_info['id']!r} is known")
        return web.json_response(found.to_dict())

    @staticmethod
    def _shown(session: Any) -> dict[str, Any]:
        shown: dict[str, Any] = session.to_dict()
        return shown | {"explanation": explain(session)}

    async def _plan(self, _: web.Request) -> web.Response:
        """The plan in force, and why the file's newest version is not, if it was refused."""
        plan = self._parts.plan
        shown = {"name": plan.loaded.name, "digest": plan.loaded.digest, "problems": plan.problems}
        return web.json_response(shown | {"refused": plan.refused})

    async def _candidate(self, _: web.Request) -> web.Response:
        candidate = self._parts.candidate
        if candidate is None:
            return problem(404, "no candidate plan is judged: name its file in SIDECAR_PLAN_CANDIDATE")
        return web.json_response((await candidate.report()).to_dict())

    async def _dead_letters(self, _: web.Request) -> web.Response:
        letters = await self._parts.store.dead_letters(LIST_MAX)
        return web.json_response({"dead_letters": letters})

    async def _redeliver(self, _: web.Request) -> web.Response:
        count = await self._parts.store.redeliver()
        return web.json_response({"redelivered": count})


def _limit(request: web.Request) -> int:
    """`?limit=`; raises HTTPBadRequest."""
    text = request.query.get("limit", "100")
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= LIST_MAX:
        raise web.HTTPBadRequest(reason=f"limit must be a number from 1 to {LIST_MAX}")
    return int(text)


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as problem+json; a Redis that is away is a 503 with what still works."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
        return problem(405, f"{request.path} takes {allowed}, not {request.method}", {"Allow": allowed})
    except web.HTTPNotFound:
        return problem(404, f"there is nothing at {request.path}")
    except web.HTTPException as error:
        return problem(error.status, error.reason)
    except (RedisError, OSError) as error:
        return problem(
            503, f"Redis does not answer ({type(error).__name__}); signals are still taken", {"Retry-After": "5"}
        )
    except Exception:
        log.exception("admin_request_failed", path=request.path)
        return problem(500, "the sidecar failed to answer; its log says why")
