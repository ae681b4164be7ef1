"""A sidecar's intake of signals and webhooks: a real admin server, journal and applier."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
from vendors import EXAMPLES

from sidecar import identity
from sidecar.admin.metrics import Metrics
from sidecar.admin.server import AdminParts, AdminServer
from sidecar.intake.webhooks import endpoints
from sidecar.observer.journal import Journal, NewRow
from sidecar.observer.observation import Observation
from sidecar.observer.pipeline import now_ms
from sidecar.policy.current import CurrentPlan
from sidecar.policy.loading import builtin_plan
from sidecar.sessions.applier import Applier
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.store import Store
from sidecar.wire.status import STATUS_BYTES, StatusPage

TENANT = "acme"
SECRETS = {example.source: (example.secret,) for example in EXAMPLES}
BASE_URL = "https://hooks.example.com"


def opening(sequence, conversation):
    at_ms = now_ms()
    observation = Observation(
        "ring",
        sequence,
        TENANT,
        at_ms,
        at_ms,
        (identity.key(TENANT, "conversation", conversation),),
        identity.session_base(TENANT, "conversation", conversation),
        builtin_plan().terms,
        conversation=conversation,
        llm_calls=1,
    )
    return NewRow("ring", sequence, "observation", at_ms, observation.to_json())


class Replica:
    """One observer's intake: admin server, journal, applier."""

    def __init__(self, folder, client, *, secrets=SECRETS, **more):
        folder.mkdir()
        self.socket = folder / "observer.sock"
        self.journal = Journal(folder / "journal.sqlite3", hours=168, bytes_max=1 << 26)
        self.store = Store(client, TENANT)
        self.metrics = Metrics(StatusPage(bytearray(STATUS_BYTES)), dict)
        self.applier = Applier(self.journal, self.store, count=self.metrics.count)
        parts = {
            "tenant": TENANT,
            "hash_key": b"k",
            "journal": self.journal,
            "store": self.store,
            "applier": self.applier,
            "plan": CurrentPlan(builtin_plan(), None),
            "metrics": self.metrics,
            "token": "the admin token",
            "webhooks": endpoints(secrets, {}),
            "webhook_base_url": BASE_URL,
        }
        self.server = AdminServer(AdminParts(**parts | more))

    async def __aenter__(self):
        await self.server.start(self.socket)
        self.task = asyncio.create_task(self.applier.run())
        limits = httpx.Limits(max_connections=50)
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket), limits=limits)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=60)
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        self.applier.wake()  # redis-py may have swallowed the cancellation
        await asyncio.gather(self.task, return_exceptions=True)
        await self.http.aclose()
        await self.server.close()
        self.journal.close()

    async def send(self, example, payload=None, **more):
        body = example.body if payload is None else json.dumps(payload).encode()
        headers = example.headers(int(time.time()), body) | more.pop("headers", {})
        return await self.http.post(
            f"/v1/webhooks/{example.source}", content=more.get("content", body), headers=headers
        )

    async def open(self, *conversations):
        self.journal.append([opening(number, name) for number, name in enumerate(conversations, 1)])
        self.applier.wake()
        await self.drained()

    async def drained(self):
        assert await self.applier.drained(asyncio.get_running_loop().time() + 30)

    async def session(self, conversation):
        await self.drained()
        return await self.store.by_alias("conversation", conversation)

    async def outcomes(self):
        entries = await self.store.redis.xrange(self.store.key("outbox"))
        return [read_outcome(fields[b"body"]) for _, fields in entries]

    def counted(self, source, result):
        line = f'sidecar_webhooks_total{{result="{result}",source="{source}"}} '
        text = (
            self.metrics.render()
            .decode()
            .replace(f'source="{source}",result="{result}"', f'result="{result}",source="{source}"')
        )
        return next((float(found[len(line) :]) for found in text.splitlines() if found.startswith(line)), 0)
