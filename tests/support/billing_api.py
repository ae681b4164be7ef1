"""The billing API over real HTTP on a real database, and events to post to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from aiohttp import web
from sqlalchemy.engine import URL

from sidecar.billing.api.server import application
from sidecar.billing.ledger.database import Database
from sidecar.billing.rating.sections import DEFAULT_PLAN
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens
from sidecar.billing.upkeep import Upkeep
from sidecar.policy.loading import builtin_plan

ONE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
NOW_US = 1_795_341_600_000_000  # 2026-11-22T10:00:00Z
DAY_US = 86_400_000_000


class Clock:
    """Time as the tests set it, in microseconds."""

    def __init__(self) -> None:
        self.now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


def event(number: int, **changes: Any) -> dict[str, Any]:
    data = {
        "session_id": f"ses_{number}", "conversation": f"c-{number}", "tenant": "acme", "outcome": "RESOLVED",
        "state": "RESOLVED", "confirmation": "CONFIRMED", "escalated_to_human": False, "reason": "tool",
        "revision": 0, "reverses": None, "held": False, "billable": True, "shadow": False, "turns": 1,
        "models": ["gpt-4o"], "tokens": {"input": 10, "output": 5}, "complete": True, "attributes": {},
        "evidence": [{"at": "2026-11-22T10:00:00Z", "rule": "r", "kind": "tool_call", "digest": "hmac-sha256:0"}],
        **changes.pop("data", {}),
    }  # fmt: skip
    return {
        "specversion": "1.0", "id": f"out_{number}", "source": "sidecar/acme", "type": "sidecar.outcome.v1",
        "subject": "customer-17", "time": "2026-11-22T10:00:00Z", "datacontenttype": "application/json",
        "data": data, **changes,
    }  # fmt: skip


def reversal(number: int, of: int, time: str, **changes: Any) -> dict[str, Any]:
    data = {"session_id": f"ses_{of}", "outcome": "UNRESOLVED", "state": "REVERSED", "revision": 1}
    return event(number, time=time, data={**data, "reverses": f"out_{of}"}, **changes)


def statement(number: int, time: str, total: int, generation: str = "g1", **changes: Any) -> dict[str, Any]:
    """That so many sessions were final; it does not tell the hours."""
    data = {
        "tenant": "acme", "hour": time[:13], "generation": generation, "opened": total + 2, "open": 2,
        "finalized": {"RESOLVED": total - 1, "NOT_BILLABLE": 1}, "dropped": 0, "counters": {}, **changes,
    }  # fmt: skip
    return {
        "specversion": "1.0", "id": f"sta_{number}", "source": "sidecar/acme", "type": "sidecar.statement.v1",
        "subject": "acme", "time": time, "datacontenttype": "application/json", "data": data,
    }  # fmt: skip


@asynccontextmanager
async def billing_on(url: URL, clock: Clock | None = None) -> AsyncIterator[Billing]:
    database = Database(url)
    try:
        await database.migrate()
        billing = Billing(database, clock or Clock())
        await billing.put_plan(DEFAULT_PLAN, builtin_plan())
        yield billing
    finally:
        await database.close()


@asynccontextmanager
async def serving(url: URL, token: str | None = None, clock: Clock | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The API as the process serves it, but that upkeep is done when a test says so: `api.upkeep`, `api.billing`."""
    async with billing_on(url, clock) as billing:
        runner = web.AppRunner(application(billing, Tokens(token)), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
                client.billing, client.upkeep = billing, Upkeep(billing)
                yield client
        finally:
            await runner.cleanup()


async def post(api: httpx.AsyncClient, *events: object, kind: str | None = None) -> dict[str, Any]:
    one = len(events) == 1 and kind is None
    answer = await api.post(
        "/v1/outcomes",
        content=json.dumps(events[0] if one else list(events)),
        headers={"Content-Type": kind or (ONE if one else BATCH)},
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def get(api: httpx.AsyncClient, path: str, status: int = 200, **query: str) -> dict[str, Any]:
    answer = await api.get(httpx.URL(path).copy_merge_params(query))
    assert answer.status_code == status, answer.text
    if status >= 400:
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["status"] == status
    return answer.json()


async def put_plan(api: httpx.AsyncClient, name: str, body: str) -> None:
    answer = await api.put(f"/v1/plans/{name}", content=body, headers={"Content-Type": "application/yaml"})
    assert answer.status_code in {200, 201}, answer.text


def simple_plan(rate: object = 1, more: str = "", window: str = "") -> str:
    """One price per resolution."""
    unique = f", {{field: session_id, operator: UNIQUE_WITHIN_WINDOW, window: {window}}}" if window else ""
    condition = "{field: outcome, operator: EQUALS, value: RESOLVED}"
    return (
        f"rate_plan: {{name: p, metrics: [{{id: m, aggregation: COUNT, filter_conditions: [{condition}{unique}]}}], "
        f"pricing: {{model: PER_UNIT, rate: {rate}}}{more}}}"
    )
