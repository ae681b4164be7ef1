"""A ledger that exports to fakes, with several replicas that send, under a clock that tests set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
from billing_api import Clock, get, put_plan, serving, simple_plan
from export_fake import SECRET, Fake
from export_targets import FAKES
from sqlalchemy.engine import URL

from sidecar.billing.exports.config import load_exports
from sidecar.billing.exports.sender import Sender
from sidecar.billing.exports.service import Exports
from sidecar.billing.exports.targets import TARGETS
from sidecar.billing.ledger.database import Database

METER = "resolutions"
KINDS = sorted(TARGETS)
LATER = "2026-11-22T12:00:00Z"  # two hours after the outcomes


async def feed_until_idle(senders: Sequence[Sender]) -> None:
    """Send as upkeep does, all side by side, until nothing is due or on its way at any of them."""

    async def feed(sender: Sender) -> bool:
        worked = False
        while await sender.feed():
            worked = True
        return worked

    while any(await asyncio.gather(*(feed(sender) for sender in senders))):
        pass


@dataclass
class Setting:
    api: httpx.AsyncClient
    clock: Clock
    replicas: list[Exports]
    fakes: dict[str, Fake]

    @property
    def senders(self) -> list[Sender]:
        return [sender for exports in self.replicas for sender in exports.senders]

    async def note(self) -> None:
        await self.api.upkeep.settle()

    async def send(self) -> None:
        """Every replica, until nothing is due."""
        await feed_until_idle(self.senders)

    async def run(self, seconds: int = 0) -> None:
        self.clock.now_us += seconds * 1_000_000
        await self.note()
        await self.send()

    async def meter(self, kind: str, period: str = "2026-11") -> dict[str, Any]:
        shown = (await get(self.api, "/v1/exports", period=period))["exports"]
        return next(one for one in shown if one["kind"] == kind)

    async def entries(self, target: str, state: str | None = None) -> list[dict[str, Any]]:
        query = {} if state is None else {"state": state}
        return (await get(self.api, f"/v1/exports/{target}", **query))["entries"]

    async def redeliver(self, target: str, status: int = 200, **more: Any) -> dict[str, Any]:
        body = {"actor": "ann", "reason": "looked there", **more}
        answer = await self.api.post(f"/v1/exports/{target}/redeliver", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


def file(fakes: dict[str, Fake], more: str = "", codes: Sequence[str] = (METER,)) -> bytes:
    meters = ", ".join(f"{{code: {code}, metrics: [m]}}" for code in codes)
    targets = [
        f"- name: {kind}\n  kind: {kind}\n  url: {fake.url}\n  secret: {{env: KEY}}\n{more}  meters: [{meters}]\n"
        for kind, fake in fakes.items()
    ]
    return ("exports:\n" + "".join(targets)).encode()


@asynccontextmanager
async def exporting(
    url: URL, kinds: Sequence[str], *, replicas: int = 1, plan: str | None = None, more: str = "",
    fakes: dict[str, Fake] | None = None, codes: Sequence[str] = (METER,),
) -> AsyncIterator[Setting]:  # fmt: skip
    clock = Clock()
    fakes = fakes or {kind: FAKES[kind](clock) for kind in kinds}
    for fake in fakes.values():
        fake.clock = clock
    async with AsyncExitStack() as stack:
        for fake in fakes.values():
            await stack.enter_async_context(fake.listening())
        api = await stack.enter_async_context(serving(url, clock=clock))
        await put_plan(api, "default", plan or simple_plan())
        destinations = load_exports(file(fakes, more, codes), "exports.yaml", {"KEY": SECRET})
        made = []
        for number in range(replicas):
            database = api.billing.database
            if number:
                database = Database(url)
                stack.push_async_callback(database.close)
            made.append(Exports(database, destinations, clock))
            stack.push_async_callback(made[-1].close)
        api.billing.exports = made[0]
        await made[0].begin()
        yield Setting(api, clock, made, fakes)


def units(shown: dict[str, Any]) -> dict[str, Decimal]:
    names = ("ledger", "acknowledged", "waiting", "parked", "difference")
    return {name: Decimal(shown["reconciliation"][name]) for name in names}
