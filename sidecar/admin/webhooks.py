"""`POST /v1/webhooks/{source}`: bounded reading, then verify, map, journal; 200 once every signal of it is durable.

No bearer token is asked for: the signature is the sender's credential. What anybody may send without one costs little:
one body of bounded size, for a bounded time, out of a bounded total.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from aiohttp import web
from redis.exceptions import RedisError

from sidecar.admin.problems import problem
from sidecar.intake.verify import Delivery, RefusedError
from sidecar.intake.webhooks import BODY_BYTES_MAX, Endpoint, Found, MalformedError, Placement, Reading, read_webhook
from sidecar.observer.journal import Journal, JournalFull
from sidecar.observer.pipeline import now_ms
from sidecar.policy.current import CurrentPlan
from sidecar.sessions.candidate import Candidate
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.store import Store

ASK_SECONDS = 1.0  # for Redis to say whether a signal may wait
BODY_SECONDS = 10.0
BUFFERED_BYTES_MAX = 16 << 20  # of all bodies that are being read

log = structlog.get_logger(__name__)


class Tally(Protocol):
    """Counts what became of webhooks: `result` and, but for `unknown`, `source` come from closed sets."""

    def count_webhook(self, source: str, result: str, amount: int = 1) -> None:
        """Add to the counter of a source's results."""


class WebhookIntake:
    """Answers for all sources; `wake` is called when the journal has new rows."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        base_url: str | None,
        tenant: str,
        hash_key: bytes,
        journal: Journal,
        store: Store,
        plan: CurrentPlan,
        tally: Tally,
        wake: Callable[[], None],
        candidate: Candidate | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._base_url = base_url
        self._tenant = tenant
        self._hash_key = hash_key
        self._journal = journal
        self._store = store
        self._plan = plan
        self._tally = tally
        self._wake = wake
        self._candidate = candidate
        self._buffered = 0

    async def check(self, request: web.Request) -> web.Response:
        """`HEAD`: whether a source is set up; some senders ask before they send."""
        return web.Response(status=200 if self._endpoint(request) else 404)

    async def take(self, request: web.Request) -> web.Response:
        """One delivery."""
        endpoint = self._endpoint(request)
        if endpoint is None:
            self._tally.count_webhook("unknown", "unknown_source")
            return problem(404, "no secret is configured for this source: set SIDECAR_WEBHOOK_SECRET_<SOURCE>")
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            self._tally.count_webhook(endpoint.name, "malformed")
            return problem(415, "the body is compressed: send it as it was signed")
        try:
            body = await self._body(request)
        except _UnreadableError as error:
            self._tally.count_webhook(endpoint.name, error.result)
            return problem(error.status, str(error), error.headers)
        return await self._judge(endpoint, self._delivery(request, body), request)

    async def _judge(self, endpoint: Endpoint, delivery: Delivery, request: web.Request) -> web.Response:
        arrived_ms = now_ms()
        placement = Placement(self._journal.id, self._tenant, arrived_ms, self._hash_key)
        try:
            scheme = endpoint.check(delivery, arrived_ms)
            reading = read_webhook(endpoint, scheme, delivery, self._plan.loaded, placement)
        except RefusedError as error:
            self._tally.count_webhook(endpoint.name, error.reason)
            return problem(401, f"{error.reason}: {error}")
        except MalformedError as error:
            self._tally.count_webhook(endpoint.name, "malformed")
            return problem(error.status, str(error))
        over = await self._too_many_wait(reading)
        kept = [found for found, too_many in zip(reading.signals, over, strict=True) if not too_many]
        try:
            duplicates = await asyncio.to_thread(self._keep, kept, arrived_ms)
        except JournalFull as error:
            self._tally.count_webhook(endpoint.name, "refused")
            return problem(
                503, f"the webhook could not be made durable: {error}; send it again later", {"Retry-After": "5"}
            )
        if self._candidate is not None:
            judged = read_webhook(endpoint, scheme, delivery, self._candidate.plan.loaded, placement)
            for found in judged.signals:
                self._candidate.signal(found.numbered(0))
        answer = self._answer(endpoint, reading, len(kept), duplicates, request)
        return self._refuse_over(endpoint, sum(over)) if any(over) else answer

    async def _too_many_wait(self, reading: Reading) -> list[bool]:
        """Of each signal; while Redis is away all are taken."""
        signals = [found.numbered(0) for found in reading.signals]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._store.too_many_wait(signals)
        except (RedisError, OSError, TimeoutError):
            return [False] * len(signals)

    def _refuse_over(self, endpoint: Endpoint, over: int) -> web.Response:
        """What had room is kept, and known when it comes again."""
        self._tally.count_webhook(endpoint.name, "over", over)
        log.warning("webhook_over", source=endpoint.name, over=over)
        detail = (
            f"{LIMITS['waiting']} signals wait already for a conversation of this webhook, which no traffic has shown "
            "yet; send it again later"
        )
        return problem(503, detail, {"Retry-After": "60"})

    def _answer(
        self, endpoint: Endpoint, reading: Reading, kept: int, duplicates: int, request: web.Request
    ) -> web.Response:
        accepted = kept - duplicates
        counts = {"accepted": accepted, "duplicate": duplicates, "unmapped": reading.unmapped}
        for result, amount in counts.items():
            if amount:
                self._tally.count_webhook(endpoint.name, result, amount)
        if accepted:
            self._wake()
        answer: dict[str, Any] = {"source": endpoint.name, "events": reading.events, **counts}
        challenge = endpoint.source.challenge and request.headers.get(endpoint.source.challenge)
        return web.json_response(answer | ({"challenge": challenge} if challenge else {}))

    def _keep(self, signals: Sequence[Found], at_ms: int) -> int:
        """Journal each signal; how many were there already, as those are that were kept before one failed."""
        append = self._journal.append_signal
        return sum(append(found.source, found.id, at_ms, found.row)[1] for found in signals)

    def _endpoint(self, request: web.Request) -> Endpoint | None:
        return self._endpoints.get(request.match_info["source"].lower().replace("-", "_"))

    def _delivery(self, request: web.Request, body: bytes) -> Delivery:
        # Not X-Forwarded-…: whoever sends the request could write there another URL that the same secret signs.
        base = self._base_url or f"https://{request.headers.get('Host', '')}"
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), value)
        return Delivery(request.method, base + request.raw_path, headers, body)

    async def _body(self, request: web.Request) -> bytes:
        """The body's bytes, within the bounds."""
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    self._buffered += len(chunk)
                    chunks.append(chunk)
                    if size > BODY_BYTES_MAX:
                        raise _UnreadableError(413, "malformed", f"the body is over {BODY_BYTES_MAX} bytes")
                    if self._buffered > BUFFERED_BYTES_MAX:
                        raise _UnreadableError(503, "refused", "too many webhooks at once; send it again later")
        except TimeoutError:
            raise _UnreadableError(408, "malformed", f"the body took longer than {BODY_SECONDS:g} seconds") from None
        finally:
            self._buffered -= size
        return b"".join(chunks)


class _UnreadableError(Exception):
    def __init__(self, status: int, result: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.result = result
        self.headers = {"Retry-After": "5"} if status == 503 else None
