"""Debian's Chromium, once per worker, and ledgers to look at: an empty one, a company's, one full of hostile texts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from billing_api import put_plan, simple_plan
from browsing import Visit, chromium, visiting
from company import company
from console_server import TOKENS, ConsoleServer, console_server
from hostile import hostile
from playwright.async_api import Browser

from sidecar.billing.console import live


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ledgers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, ConsoleServer]]:
    """Nobody changes these."""
    async with AsyncExitStack() as stack:
        yield {
            "empty": await stack.enter_async_context(console_server(tmp_path_factory.mktemp("empty"))),
            "company": await stack.enter_async_context(company(tmp_path_factory.mktemp("company"), share=0.25)),
            "hostile": await stack.enter_async_context(hostile(tmp_path_factory.mktemp("hostile"))),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def windows(browser: Browser, ledgers: dict[str, ConsoleServer]) -> AsyncIterator[dict[str, Visit]]:
    """A window on each ledger that goes from page to page: a new one costs more than most pages."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(visiting(browser, server.url)) for name, server in ledgers.items()}


@pytest.fixture
def often_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks for changes many times a second."""
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.05)


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(tmp_path: Path, often_looked: None) -> AsyncIterator[ConsoleServer]:
    """An empty ledger of one's own, whose plan charges for every resolution, and that asks for a token."""
    async with console_server(tmp_path, TOKENS) as server:
        await put_plan(server.api, "default", simple_plan())
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Callable[..., object]]:
    """Opens windows of visitors who share nothing; whatever a page complained of fails the test at its end."""
    async with AsyncExitStack() as stack:
        visits: list[Visit] = []

        async def open_window(server: ConsoleServer, **options: object) -> Visit:
            visits.append(await stack.enter_async_context(visiting(browser, server.url, **options)))
            return visits[-1]

        yield open_window
        for one in visits:
            await one.demand_calm()
