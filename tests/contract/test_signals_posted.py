"""What `POST /v1/signals` answers, through the real admin server, a real journal and a real Redis."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import redis.asyncio as redis_async
from calls import TENANT, Calls

from sidecar import identity
from sidecar.admin.metrics import Metrics
from sidecar.admin.server import AdminParts, AdminServer
from sidecar.observer.journal import Journal
from sidecar.policy.current import CurrentPlan
from sidecar.policy.loading import builtin_plan
from sidecar.sessions.applier import Applier
from sidecar.sessions.store import Store
from sidecar.wire.status import STATUS_BYTES, StatusPage

RESPONSE = identity.key(TENANT, "response", "chatcmpl-123")


@pytest.fixture
async def store(redis_server):
    redis = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Store(redis, TENANT)
    await redis.aclose()


@pytest.fixture
async def admin(store, tmp_path):
    """A client of the admin server, and the counts that it keeps."""
    journal = Journal(tmp_path / "journal.sqlite3", hours=168, bytes_max=1 << 26)
    metrics = Metrics(StatusPage(bytearray(STATUS_BYTES)), dict)
    applier = Applier(journal, store, count=metrics.count)
    server = AdminServer(
        AdminParts(
            tenant=TENANT, hash_key=b"k", journal=journal, store=store, applier=applier,
            plan=CurrentPlan(builtin_plan(), None), metrics=metrics, token="the admin token", webhooks={},
            webhook_base_url="",
        )
    )  # fmt: skip
    await server.start(tmp_path / "observer.sock")
    task = asyncio.create_task(applier.run())
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "observer.sock"))
    headers = {"authorization": "Bearer the admin token"}
    async with httpx.AsyncClient(transport=transport, base_url="http://admin", headers=headers, timeout=60) as client:
        yield client, metrics
    task.cancel()
    applier.wake()
    await asyncio.gather(task, return_exceptions=True)
    await server.close()
    journal.close()


async def test_a_signal_says_what_became_of_it(admin, store):
    client, metrics = admin
    calls = Calls(store)
    await calls.make(made=(RESPONSE,), customer="c1")
    two = await calls.make(made=(RESPONSE,), customer="c2")

    async def tell(ident: str, value: str, **more):
        alias = {"kind": "response", "value": value}
        body = {"id": ident, "source": "crm", "alias": alias, "outcome": "RESOLVED"} | more
        answer = await client.post("/v1/signals", json=body)
        assert answer.status_code == 202, answer.text
        return {name: value for name, value in answer.json().items() if name not in ("id", "source")}

    assert await tell("1", "chatcmpl-123") == {"duplicate": False, "ambiguous": True}
    assert await tell("2", "chatcmpl-123", customer="c2") == {"duplicate": False, "session_id": two}
    assert await tell("3", "chatcmpl-7") == {"duplicate": False, "waiting": True}
    assert (await tell("3", "chatcmpl-7"))["duplicate"]
    assert 'sidecar_events_total{event="signal_ambiguous"} 1.0' in metrics.render().decode()
