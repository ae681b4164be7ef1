"""The billing API with its console on a port that stays ours, under a clock that tests set; it can go and come back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
from aiohttp import web
from billing_api import Clock, billing_on
from ports import held_port

from sidecar.billing.api.server import application
from sidecar.billing.ledger.database import sqlite_url
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens
from sidecar.billing.upkeep import Upkeep

OPERATOR, VIEWER = "an-operators-token", "a-viewers-token"
TOKENS = Tokens(OPERATOR, VIEWER)
NOBODY_IS_ASKED = Tokens()
HELP_DESK = "https://help.example/tickets/{conversation}"


@dataclass
class ConsoleServer:
    """`api` is a client with the operator's token; `tokens` may be changed while it is stopped. `named`: what stands in
    the path of a page after a word, for every word after which a page wants something.
    """

    billing: Billing
    clock: Clock
    api: httpx.AsyncClient
    port: int
    tokens: Tokens
    named: dict[str, str] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = application(self.billing, self.tokens, HELP_DESK)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def settle(self) -> None:
        """Bring the sums up to date and close what is due, as the process does in the background."""
        await Upkeep(self.billing).settle()
        await self.billing.close_due()

    def address(self, page: str) -> str:
        """The path of a page like `/customers/{id}/invoice`, with names in it."""
        return re.sub(r"(\w+)/\{\w+\}", lambda found: f"{found[1]}/{quote(self.named[found[1]], safe='')}", page)

    async def send(self, page: str, path: str, **fields: str) -> httpx.Response:
        """Send a form as the page that has it would; only where nobody is asked for a token."""
        shown = await self.api.get(page)
        key = re.search(r'name="form_key" value="(\w+)"', shown.text)
        assert key is not None
        return await self.api.post(path, data={"form_key": key[1], **fields})

    async def backtest(self, plan: str, period: str) -> str:
        """The id of a backtest of a plan's newest version that is done."""
        source = (await self.billing.plan(plan))[-1].source
        form = f"/plans/{plan}/backtest"
        answer = await self.send(form, form, text=source, period=period)
        assert answer.status_code == 303
        while "data-refreshes" in (await self.api.get(answer.headers["location"])).text:
            await asyncio.sleep(0.1)
        return answer.headers["location"].rpartition("/")[2]


@asynccontextmanager
async def console_server(
    folder: Path, tokens: Tokens = NOBODY_IS_ASKED, clock: Clock | None = None
) -> AsyncIterator[ConsoleServer]:
    clock = clock or Clock()
    headers = {"Authorization": f"Bearer {tokens.operator}"} if tokens else {}
    with held_port() as port:
        async with (
            billing_on(sqlite_url(folder / "billing.sqlite3"), clock) as billing,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as api,
        ):
            server = ConsoleServer(billing, clock, api, port, tokens)
            await server.start()
            try:
                yield server
            finally:
                await server.stop()
