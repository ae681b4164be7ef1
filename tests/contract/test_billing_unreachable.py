"""A PostgreSQL that refuses connections: everybody is told so and may come again, and nothing ends for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from aiohttp import web
from billing_api import BATCH, ONE, Clock, event
from ports import held_port
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from sidecar.billing.api.server import application
from sidecar.billing.console import live
from sidecar.billing.ledger.database import Database
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens
from sidecar.billing.work.runner import Runner

PATIENCE_SECONDS = 30


@dataclass
class Refused:
    api: httpx.AsyncClient
    billing: Billing


@pytest.fixture
async def refused() -> AsyncIterator[Refused]:
    with held_port() as port:
        database = Database(URL.create("postgresql+asyncpg", "nobody", host="127.0.0.1", port=port, database="ledger"))
        billing = Billing(database, Clock())
        runner = web.AppRunner(application(billing, Tokens()), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with httpx.AsyncClient(base_url=base, timeout=PATIENCE_SECONDS, trust_env=False) as api:
                yield Refused(api, billing)
        finally:
            await runner.cleanup()
            await database.close()


@pytest.mark.parametrize("path", ["/readyz", "/v1/outcomes", "/v1/summary?period=2026-11", "/", "/customers", "/books"])
async def test_who_reads_is_told_to_come_again(refused: Refused, path: str) -> None:
    answer = await refused.api.get(path)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "2"), answer.text
    assert "database does not answer" in answer.text


async def test_who_posts_is_told_to_come_again(refused: Refused) -> None:
    one = refused.api.post("/v1/outcomes", json=event(1), headers={"Content-Type": ONE})
    many = refused.api.post("/v1/outcomes", json=[event(2), event(3)], headers={"Content-Type": BATCH})
    for answer in await asyncio.gather(one, many):
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "2"), answer.text


async def test_open_pages_still_hear_that_somebody_is_there(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two heartbeats: the looks go on after the first that found nobody, and nothing is said to have changed."""
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.01)
    async with asyncio.timeout(PATIENCE_SECONDS), refused.api.stream("GET", "/live?seen=1.2.3") as answer:
        assert answer.status_code == 200
        lines = aiter(answer.aiter_lines())
        heard: list[str] = []
        while heard.count(":") < 2:
            heard.append(await anext(lines))
    assert not [line for line in heard if line.startswith("event")]


async def test_a_run_whose_row_cannot_be_written_raises_nothing(refused: Refused) -> None:
    runner = Runner(refused.billing)  # its database went away after the start
    await runner._follow("run_1", {"kind": "nonsense"})
    with pytest.raises(SQLAlchemyError):
        await refused.billing.database.check()
