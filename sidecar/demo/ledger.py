"""Reads the billing API: the ledger over all its pages, invoices, and a watch that conversations wait on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import httpx

from sidecar.demo.books import Posted, by_session

POLL_SECONDS = 0.2
# Without anything new in the ledger: settling, silence, a killed observer and a machine that is busy with other things.
STANDSTILL_SECONDS = 90.0
PAGES_MAX = 1000


class Ledger:
    """The billing API at `url`. `rows` is what the watch has read last, newest first."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=10.0)
        self._changed = asyncio.Condition()
        self.rows: list[Posted] = []

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def watch(self, progress: Callable[[int], None]) -> None:
        """Read again and again until cancelled; `progress` gets the number of outcomes."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                rows = await self.read()
                async with self._changed:
                    self.rows = rows
                    self._changed.notify_all()
                progress(len(rows))
            await asyncio.sleep(POLL_SECONDS)

    async def read(self) -> list[Posted]:
        """Every outcome in the ledger."""
        rows: list[Posted] = []
        query: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            answer = await self._http.get("/v1/outcomes", params=query)
            page = answer.raise_for_status().json()
            rows += [posted(row) for row in page["outcomes"]]
            if not page.get("next"):
                break
            query = {"after": str(page["next"])}
        return rows

    async def wait(self, holds: Callable[[list[Posted]], bool], standstill_s: float = STANDSTILL_SECONDS) -> bool:
        """Until `holds(rows)`; False when nothing new came for `standstill_s` and it still does not."""
        while not holds(self.rows):
            count = len(self.rows)
            try:
                async with asyncio.timeout(standstill_s), self._changed:
                    await self._changed.wait_for(lambda: len(self.rows) != count)  # noqa: B023 - awaited right here
            except TimeoutError:
                return False
        return True

    async def wait_session(self, conversation: str, number: int) -> bool:
        """Until the conversation's session with this number (from 1) has been posted; False when it never is."""
        return await self.wait(lambda rows: len(by_session(rows).get(conversation, ())) >= number)

    async def invoice(self, customer: str, period: str) -> dict[str, Any]:
        """`GET /v1/customers/{id}/invoice`."""
        answer = await self._http.get(f"/v1/customers/{customer}/invoice", params={"period": period})
        document: dict[str, Any] = answer.raise_for_status().json()
        return document

    async def summary(self, period: str) -> dict[str, Any]:
        """`GET /v1/summary`."""
        answer = await self._http.get("/v1/summary", params={"period": period})
        document: dict[str, Any] = answer.raise_for_status().json()
        return document


def posted(row: dict[str, Any]) -> Posted:
    """One row of `GET /v1/outcomes`: the ledger's own columns, and the event as it was posted."""
    return Posted(id=row["id"], time=row["time"], customer=row["customer"], data=row["event"]["data"])
