"""Tells open pages that the ledger changed (server-sent events); the pages then ask for themselves again.

One look at the database every two seconds serves all pages of this replica, and none while nobody looks. A page says
what it has seen (`seen`, a mark that was taken before its figures were read), so that nothing is missed between its
making and its listening; any replica understands the mark of any other.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from aiohttp import web
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from sidecar.billing.api.problems import ProblemError
from sidecar.billing.console.shell import HEADERS
from sidecar.billing.exports.tables import export_decisions, export_sums
from sidecar.billing.ledger.tables import (
    alerts,
    closings,
    customer_versions,
    decisions,
    model_price_versions,
    outcomes,
    plan_versions,
    statements,
)
from sidecar.billing.service import Billing

log = structlog.get_logger()
INTERVAL_SECONDS = 2.0
HEARTBEAT_LOOKS = 8
PAGES_MAX = 200
# Rows are only ever added here, so the newest numbers say whether anything did change.
_NUMBERED = (
    outcomes, decisions, statements, alerts, closings, customer_versions, plan_versions, model_price_versions,
    export_decisions,
)  # fmt: skip


class Live:
    """The looks at the database, and who waits for them."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing
        self._changed = asyncio.Condition()
        self.seen = ""  # the mark: what was there at the last look
        self._tries = 0  # to look
        self._looks = 0  # that found the database there
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.pages = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """`event: changed` for every change; a comment now and then, so that what lies between does not hang up."""
        if self.pages >= PAGES_MAX:
            raise ProblemError(503, "too many open pages: this one does not update by itself", Retry_After="30")
        answer = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await answer.prepare(request)
        self.pages += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look())
            await answer.write(b"retry: 3000\n\n")
            await self._follow(answer, request.query.get("seen", ""))
        except ConnectionError:
            log.debug("page_closed")
        finally:
            self.pages -= 1
            if not self.pages and self._task is not None:
                self._task.cancel()
                self._task = None
        return answer

    async def stop(self, _: web.Application) -> None:
        """Let every page go."""
        async with self._changed:
            self._stopping = True
            self._changed.notify_all()

    async def _follow(self, answer: web.StreamResponse, seen: str) -> None:
        """`seen` is the mark of a page, which says nothing until somebody has looked since."""
        begun, told = self._looks, self._tries
        while True:
            async with self._changed:
                while True:
                    changed = self._looks > begun and self.seen != seen
                    if changed or self._stopping or self._tries - told >= HEARTBEAT_LOOKS:
                        break
                    await self._changed.wait()
                if self._stopping:
                    return
                seen, told = self.seen if changed else seen, self._tries
            await answer.write(b"event: changed\ndata:\n\n" if changed else b":\n\n")

    async def _look(self) -> None:
        while True:
            found = None
            with suppress(SQLAlchemyError):  # the pages themselves say that the database does not answer
                found = await self._newest()
            async with self._changed:
                self._tries += 1
                if found is not None:
                    self.seen = found
                    self._looks += 1
                self._changed.notify_all()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _newest(self) -> str:
        newest = [select(func.max(table.c.seq)).scalar_subquery() for table in _NUMBERED]
        exported = [
            select(func.sum(export_sums.c.entries)).where(export_sums.c.state == state).scalar_subquery()
            for state in ("waiting", "acknowledged", "parked")
        ]
        async with self._billing.database.reading() as connection:
            row = (await connection.execute(select(*newest, *exported))).one()
        return ".".join(str(number or 0) for number in row)
