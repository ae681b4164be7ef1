"""A tenant's sessions behind a real admin server, and their outcomes in a real ledger, the same at every run.

Facts, times and ids are fixed, so that what the command line prints of them can be shown in the docs and compared.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis.asyncio as redis_async
from billing_api import NOW_US, Clock, put_plan, serving

from sidecar import identity
from sidecar.admin.metrics import Metrics
from sidecar.admin.server import AdminParts, AdminServer
from sidecar.billing.ledger.database import sqlite_url
from sidecar.delivery.event import event_of
from sidecar.intake.signal import Signal
from sidecar.observer.journal import Journal
from sidecar.observer.observation import Observation
from sidecar.policy.current import CurrentPlan
from sidecar.policy.effect import Effect
from sidecar.policy.loading import load_plan
from sidecar.sessions.applier import Applier
from sidecar.sessions.store import Store
from sidecar.wire.status import STATUS_BYTES, StatusPage

TENANT = "default"
TOKEN = "s3cret"
T0 = NOW_US // 1000  # 2026-11-22T10:00:00Z
PLAN = """\
rate_plan:
  name: resolutions
  currency: USD
  metrics:
    - id: resolutions
      name: Resolutions
      aggregation: COUNT
      filter_conditions:
        - {field: outcome, operator: EQUALS, value: RESOLVED}
  pricing: {model: PER_UNIT, rate: 0.99, included_free: 1}
"""
RESOLVE = Effect(
    "resolve_tool", "tool_call", "resolve", "RESOLVED", reason="resolve_conversation tool", digest="hmac-sha256:1f"
)
ESCALATE = Effect("signal:crm", "signal", "escalate", reason="asked for a human", digest="hmac-sha256:2e")


@dataclass
class Seeded:
    """The two APIs, and the environment of a command that asks them."""

    store: Store
    billing: httpx.AsyncClient
    clock: Clock
    environ: dict[str, str]
    plan: object
    _last: dict[str, int] = field(default_factory=dict)

    def _number(self, producer: str) -> tuple[int, int]:
        before = self._last.get(producer, 0)
        self._last[producer] = before + 1
        return before + 1, before

    async def say(
        self, minute: float, conversation: str, customer: str | None = None, *effects: Effect, says: str = ""
    ):
        """One exchange."""
        at = T0 + int(minute * 60_000)
        sequence, before = self._number("ring")
        observation = Observation(
            "ring", sequence, TENANT, at, at + 900, (identity.key(TENANT, "conversation", conversation),),
            identity.session_base(TENANT, "conversation", conversation), self.plan.terms, conversation=conversation,
            user_messages=(says or f"message {sequence}",), api="openai.chat", llm_calls=1, customer=customer,
            models=("gpt-4o",), effects=effects,
        )  # fmt: skip
        [applied] = await self.store.apply_many([(observation, before)], own="journal")
        assert applied.status == "applied"

    async def signal(self, minute: float, conversation: str, effect: Effect):
        """What a CRM knows."""
        sequence, before = self._number("journal")
        alias = identity.key(TENANT, "conversation", conversation)
        at, terms = T0 + int(minute * 60_000), self.plan.terms
        signal = Signal("journal", sequence, TENANT, "crm", f"crm-{sequence}", at, effect, terms, alias=alias)
        [applied] = await self.store.apply_many([(signal, before)], own="journal")
        assert applied.status == "applied"

    async def deliver(self):
        """What the courier does: everything in the outbox to the ledger, each a second after the one before."""
        outbox = self.store.key("outbox")
        for entry, fields in await self.store.redis.xrange(outbox):
            self.clock.now_us += 1_000_000
            event = event_of(fields[b"kind"].decode(), fields[b"body"])
            headers = {"Content-Type": "application/cloudevents+json"}
            answer = await self.billing.post("/v1/outcomes", content=event.body, headers=headers)
            assert answer.json()["accepted"] == 1, answer.text
            await self.store.redis.xdel(outbox, entry)

    async def tell(self):
        """The story of the docs: of five conversations one is open, one was escalated after all, one is nobody's."""
        await self.say(0, "c-41", "acme", says="where is my order")
        await self.say(1, "c-41", "acme", RESOLVE, says="thanks")
        await self.say(2, "c-42", "acme", RESOLVE)
        await self.say(3, "c-43", "globex")
        await self.say(4, "c-44", None, RESOLVE)
        await self.say(5, "c-45", "acme", RESOLVE)
        await self.deliver()
        await self.signal(30, "c-42", ESCALATE)
        await self.deliver()
        await self.billing.upkeep.settle()


@contextlib.asynccontextmanager
async def seeded(redis_socket: Path, folder: Path):
    """Both, empty; `tell` fills them."""
    client = redis_async.Redis(unix_socket_path=str(redis_socket))
    store = Store(client, TENANT)
    journal = Journal(folder / "journal.sqlite3", hours=168, bytes_max=1 << 20)
    plan = load_plan(PLAN.encode(), "resolutions.yaml")
    metrics = Metrics(StatusPage(bytearray(STATUS_BYTES)), dict)
    applier = Applier(journal, store, count=metrics.count)
    parts = AdminParts(TENANT, b"k", journal, store, applier, CurrentPlan(plan, None), metrics, TOKEN)
    server = AdminServer(parts)
    await server.start(folder / "admin.sock")
    clock = Clock()
    clock.now_us += 3_600_000_000
    try:
        async with serving(sqlite_url(folder / "billing.sqlite3"), token=TOKEN, clock=clock) as billing:
            billing.headers["Authorization"] = f"Bearer {TOKEN}"
            await put_plan(billing, "default", PLAN)
            environ = {
                "SIDECAR_ADMIN_LISTEN": f"unix:{folder / 'admin.sock'}",
                "SIDECAR_ADMIN_TOKEN": TOKEN,
                "SIDECAR_BILLING_URL": str(billing.base_url).rstrip("/"),
                "SIDECAR_BILLING_TOKEN": TOKEN,
            }
            yield Seeded(store, billing, clock, environ, plan)
    finally:
        await server.close()
        journal.close()
        await client.aclose()


def lines(text: str) -> list[dict]:
    """JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
