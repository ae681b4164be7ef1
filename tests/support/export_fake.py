"""What the fakes of billing systems have in common: what was billed, what is remembered, faults on demand."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

from aiohttp import web

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# dropped: the connection, before anything is stored. lost: after it was stored. stored_500: stored, then answered 500.
FAULTS = ("429", "409", "500", "dropped", "lost", "stored_500")


class Fake:
    """A target: `amounts` is what it would bill, by customer and meter; `faults` are used up one a request."""

    path = "/"
    memory_us: int | None = None
    accepted = 200

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.faults: list[str | None] = []
        self.fault: Callable[[], str | None] = lambda: self.faults.pop(0) if self.faults else None
        self.seen: dict[str, int] = {}
        self.bodies: dict[str, set[str]] = defaultdict(set)
        self.amounts: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.broken: set[str] = set()  # customers that the target does not know
        self.open = asyncio.Event()  # while it is not set, requests are heard and not answered
        self.open.set()
        self.under_way = 0
        self.most_at_once = 0
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{tail:.*}", self.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self.url
        finally:
            await runner.cleanup()

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.open.wait()
            return await self.handle(request, raw)
        finally:
            self.under_way -= 1

    async def handle(self, request: web.Request, raw: bytes) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path, headers, raw))
        fault = self.fault()
        if fault in {"429", "409"}:
            return web.Response(status=int(fault), headers={"Retry-After": "7"} if fault == "429" else None)
        if fault == "dropped":
            request.transport.abort()
            return web.Response()
        answer = self.work(request.path, headers, raw, fault)
        if fault == "lost":
            request.transport.abort()
        return answer

    def work(self, path: str, headers: dict[str, str], raw: bytes, fault: str | None) -> web.Response:
        """What comes of a request that is looked at; a server fails before or after it has done it."""
        answer = web.Response(status=500) if fault == "500" else self.answer(path, headers, raw)
        return web.Response(status=500) if fault == "stored_500" else answer

    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        assert path == self.path, f"no such path: {path}"
        assert headers["authorization"] == f"Bearer {SECRET}"
        assert headers["content-type"] == "application/json"
        return self.events(json.loads(raw, parse_float=Decimal))

    def events(self, content: Any) -> web.Response:
        raise AssertionError("every vendor has its own")

    def knows(self, identifier: str) -> bool:
        assert 0 < len(identifier) <= 100
        at = self.seen.get(identifier)
        return at is not None and (self.memory_us is None or self.clock() - at < self.memory_us)

    def store(self, identifier: str, customer: str, code: str, value: Any, body: Any) -> bool:
        """Whether it was new. A forgotten id counts again: that is the danger."""
        self.bodies[identifier].add(json.dumps(body, sort_keys=True, default=str))
        if self.knows(identifier):
            return False
        self.seen[identifier] = self.clock()
        self.amounts[customer, code] += Decimal(value)
        return True

    def total(self, code: str) -> Decimal:
        return sum((amount for (_, name), amount in self.amounts.items() if name == code), Decimal(0))


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000)
