"""The same scripts through every kind of client: decoding or not, valkey-py, and a real one-node cluster."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from dataclasses import replace

import pytest
import redis.asyncio as redis_async
import valkey.asyncio as valkey_async
from ports import held_port
from redis.asyncio.cluster import RedisCluster

from sidecar import identity
from sidecar.delivery.courier import Courier
from sidecar.embedded.redis import server_binary
from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation, Thread
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.store import Store

TENANT = "acme"
T0 = 1_795_000_000_000


def resolved(sequence):
    return Observation(
        "ring",
        sequence,
        TENANT,
        T0 + sequence,
        T0 + sequence,
        (identity.key(TENANT, "conversation", f"c-{sequence}"),),
        identity.session_base(TENANT, "conversation", f"c-{sequence}"),
        Terms("fin", "sha256:aa"),
        conversation=f"c-{sequence}",
        effects=(Effect("resolve_tool", "tool_call", "resolve", "RESOLVED", attributes={"né": 1.5}),),
    )


async def whole_way(client):
    """Everything that the store and the courier ask of a client, once."""
    store = Store(client, TENANT)
    generation = await store.generation()
    assert (await store.heartbeat("j", T0, 1)) == generation == await store.generation()
    answers = await store.apply_many([(resolved(n), n - 1) for n in range(1, 6)], own="j")
    assert [answer.status for answer in answers] == ["applied"] * 5
    assert await store.marks(["ring", "other"]) == {"ring": 5, "other": None}
    assert await store.beats() == {"j": "1"}
    assert (await store.sweep()).fired == 0
    assert await store.statement(T0)
    await two_that_are_one(store)
    assert await store.hash_key("aa") == await store.hash_key("bb") == "aa"
    view = await store.by_alias("conversation", "c-3")
    assert view.attributes == {"né": 1.5}
    assert len(view.timeline) == 4
    assert len(await store.list(10)) == 7
    assert (await store.counters())["finalized:RESOLVED"] == 5
    assert (await store.verify(view.id)).problems == ()
    told = Signal("j", 1, TENANT, "crm", "s-1", T0, Effect("crm", "signal", "escalate"), Terms("fin", "sha256:aa"))
    names = ({"alias": identity.key(TENANT, "conversation", "c-9")}, {"session_id": view.id})
    assert await store.too_many_wait([replace(told, **name) for name in names]) == [False, False]
    courier = Courier(store, "http://127.0.0.1:1", name="a")
    taken = await courier._open(await courier._outbox.take())
    assert len(taken) == await store.outbox_length() == 6
    assert await courier._still_ours(taken) == taken
    again = Courier(store, "http://127.0.0.1:1", name="b", takeover_seconds=0)
    again._outbox._resumed = True
    assert await again._open(await again._outbox.take()) == taken
    assert await store.bury(taken[0].entry, "why")
    (letter,) = await store.dead_letters()
    assert letter["reason"] == "why"
    assert await store.redeliver() == 1
    await store.leave("j")
    assert await store.beats() == {}
    await courier._client.aclose()
    await again._client.aclose()


async def two_that_are_one(store):
    """Found by texts, then merged: a script that touches many keys."""
    keys = [identity.key(TENANT, "conversation", name, name) for name in ("one", "two")]
    said = Thread("asked hi", reaches="state hi")
    more = Thread("asked more", follows="state hi", reaches="state more")
    facts = [
        Observation("texts", n, TENANT, T0 + n, T0 + n, found, f"base {n}", Terms("fin", "sha256:aa"), thread=thread)
        for n, (found, thread) in enumerate(
            [((), said), ((), more), (keys[:1], None), (keys[1:], None), (keys, None)], 1
        )
    ]
    answers = await store.apply_many([(fact, fact.sequence - 1) for fact in facts])
    assert [answer.status for answer in answers] == ["applied"] * 5
    assert answers[0].session_id == answers[1].session_id != answers[2].session_id == answers[4].session_id
    assert (await store.session(answers[3].session_id)).id == answers[2].session_id


@pytest.mark.parametrize("decode", [False, True])
async def test_redis_py(redis_server, decode):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket), decode_responses=decode)
    await whole_way(client)
    await client.aclose()


async def test_valkey_py(redis_server):
    client = valkey_async.Valkey(unix_socket_path=str(redis_server.socket))
    await whole_way(client)
    await client.aclose()


@pytest.fixture
async def cluster_port():
    """A cluster of one node that owns every slot. Its bus takes the port 10,000 above, so the port must be low."""
    folder = tempfile.mkdtemp(prefix="sidecar-cluster-")
    stack = contextlib.ExitStack()
    while (port := stack.enter_context(held_port())) >= 55_000:
        pass
    options = {"port": str(port), "bind": "127.0.0.1", "cluster-enabled": "yes", "dir": folder, "save": ""}
    argv = [str(server_binary()), *(part for name, value in options.items() for part in (f"--{name}", value))]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    client = redis_async.Redis(host="127.0.0.1", port=port)
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                    break
                except (redis_async.ConnectionError, OSError):
                    await asyncio.sleep(0.02)
            while "ok" not in str(await client.execute_command("CLUSTER", "INFO")).split("cluster_slots")[0]:
                await asyncio.sleep(0.02)
        yield port
    finally:
        await client.aclose()
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        stack.close()


async def test_a_cluster(cluster_port):
    client = RedisCluster(host="127.0.0.1", port=cluster_port)
    await whole_way(client)
    await client.aclose()
