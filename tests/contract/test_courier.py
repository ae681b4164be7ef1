"""The courier between a real Redis and a real HTTP server that answers as scripted."""

from __future__ import annotations

import asyncio
import random

import orjson
import pytest
import redis.asyncio as redis_async
from aiohttp import web
from aiohttp.test_utils import TestServer
from couriers import Billing, Pauses, fill
from ports import held_port
from redis.exceptions import ConnectionError as RedisConnectionError

from sidecar.delivery.courier import DOWN, OK, UNKNOWN, Courier
from sidecar.sessions.store import GROUP, Store


@pytest.fixture
async def billing():
    billing = Billing()
    app = web.Application(client_max_size=10 << 20)
    app.router.add_post("/v1/outcomes", billing.handle)
    async with TestServer(app) as server:
        billing.url = str(server.make_url("")).rstrip("/")
        yield billing


@pytest.fixture
async def store(redis_server):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Store(client, "acme")
    await client.aclose()


@pytest.fixture
def nobody():
    with held_port() as port:
        yield port


@pytest.fixture
async def post(store, billing):
    """Runs couriers that are closed at the end; `post(**options)` gives (courier, pauses)."""
    made = []

    def make(**options):
        pauses = Pauses()
        options.setdefault("url", billing.url)
        courier = Courier(store, sleep=pauses, rng=random.Random(1), name=options.pop("name", "a"), **options)
        made.append(courier)
        return courier, pauses

    yield make
    for courier in made:
        await courier._client.aclose()


async def test_one_is_posted_as_itself_many_as_a_batch(store, billing, post):
    courier, _ = post(token="secret")
    await fill(store, 1)
    assert await courier.step() == 1
    headers, body, ids = billing.requests[0]
    assert headers["Content-Type"] == "application/cloudevents+json"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Idempotency-Key"] == ids[0] == orjson.loads(body)["id"]
    assert orjson.loads(body)["subject"] == "cust-0"
    await fill(store, 130)
    assert [await courier.step(), await courier.step()] == [100, 30]
    headers, _, ids = billing.requests[1]
    assert headers["Content-Type"] == "application/cloudevents-batch+json"
    assert len(headers["Idempotency-Key"]) <= 100
    assert len(ids) == 100
    assert await store.outbox_length() == 0
    assert courier.state == OK
    pending = await store.redis.xpending(store.key("outbox"), "courier")
    assert pending["pending"] == 0


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 302])
async def test_what_is_no_final_answer_is_sent_again_byte_for_byte(store, billing, post, status):
    states = []

    def refuse(_events):
        states.append(courier.state)
        return web.Response(status=status, headers={"Retry-After": "7", "Location": "/elsewhere"})

    courier, pauses = post()
    billing.script = [refuse] * 5
    await fill(store, 3)
    assert await courier.step() == 3
    assert states[1:] == [DOWN] * 4
    assert len({body for _, body, _ in billing.requests}) == 1
    assert len({headers["Idempotency-Key"] for headers, _, _ in billing.requests}) == 1
    assert len(billing.requests) == 6
    assert pauses.seconds == [7.0] * 5
    assert await store.outbox_length() == 0


async def test_pauses_grow_up_to_a_cap(store, billing, post):
    courier, pauses = post()
    billing.script = [lambda _: web.Response(status=500)] * 14
    await fill(store, 1)
    await courier.step()
    assert all(0.5 * cap <= pause <= cap for pause, cap in zip(pauses.seconds, [0.2, 0.4, 0.8, 1.6, 3.2], strict=False))
    assert max(pauses.seconds) <= 30
    assert sum(pauses.seconds[-3:]) >= 45


async def test_a_lost_answer_is_sent_again_and_the_same(store, billing, post):
    def drop(request_events):
        billing.take(request_events)
        return Dropping()

    class Dropping(web.Response):
        async def prepare(self, request):
            request.transport.abort()
            return await super().prepare(request)

    courier, _ = post()
    billing.script = [drop, drop]
    await fill(store, 5)
    await courier.step()
    assert len(billing.requests) == 3
    assert len(billing.taken) == 5
    assert billing.conflicts == 0
    assert await store.outbox_length() == 0


async def test_the_rejected_become_dead_letters_and_the_others_flow_on(store, billing, post):
    counted = []
    courier, _ = post(count=lambda event, n: counted.append((event, n)))
    billing.script = [lambda events: billing.take(events, [{"id": events[1]["id"], "reason": "conflict"}])]
    await fill(store, 3)
    await courier.step()
    assert await store.outbox_length() == 0
    (letter,) = await store.dead_letters()
    assert letter["reason"] == "conflict"
    assert letter["body"]["session_id"] == "ses_1"
    assert ("dead_letter", 1) in counted
    assert ("delivered", 2) in counted
    assert len(billing.taken) == 2
    assert await store.redeliver() == 1
    assert await store.dead_letters() == []
    await courier.step()
    assert len(billing.taken) == 3
    assert await store.outbox_length() == 0


async def test_a_batch_refused_as_a_whole_is_split_to_find_the_culprit(store, billing, post):
    def whole(events):
        if any(event["data"]["session_id"] == "ses_37" for event in events):
            return web.Response(status=400, text="no")
        return billing.take(events)

    courier, _ = post()
    billing.script = [whole] * 40
    await fill(store, 100)
    await courier.step()
    (letter,) = await store.dead_letters()
    assert letter["body"]["session_id"] == "ses_37"
    assert "400" in letter["reason"]
    assert len(billing.taken) == 99
    assert len(billing.requests) < 20


async def test_a_split_interrupted_by_an_outage_goes_on_afterwards(store, billing, post):
    def whole(events):
        if len(events) > 2:
            return web.Response(status=413)
        return billing.take(events)

    courier, _ = post()
    billing.script = [whole, whole, lambda _: web.Response(status=503), *[whole] * 30]
    await fill(store, 8)
    await courier.step()
    assert len(billing.taken) == 8
    assert await store.dead_letters() == []
    assert await store.outbox_length() == 0


async def test_an_event_that_the_api_fails_at_holds_up_nobody(store, billing, post):
    def poisoned(events):
        if any(event["data"]["session_id"] == "ses_37" for event in events):
            return web.Response(status=500)
        return billing.take(events)

    counted = []
    courier, _ = post(count=lambda event, n: counted.append((event, n)))
    billing.script = [poisoned] * 1000
    await fill(store, 250)
    for _ in range(3):
        await courier.step()
    assert len(billing.taken) == 249
    assert await store.outbox_length() == 1
    assert ("delivery_put_aside", 1) in counted
    assert await store.dead_letters() == []
    assert courier.state == OK  # the API takes outcomes, if not this one
    courier._aside_at = 0.0
    billing.script = []
    await courier.step()
    assert len(billing.taken) == 250
    assert await store.outbox_length() == 0
    assert billing.conflicts == 0


async def test_an_api_that_is_down_blames_no_event(store, billing, post):
    counted = []
    courier, pauses = post(count=lambda event, n: counted.append((event, n)))
    billing.script = [lambda _: web.Response(status=500)] * (8 + 5 * 8)  # whole batches, then eight alone each time
    await fill(store, 150)
    await courier.step()
    assert "delivery_put_aside" not in dict(counted)
    assert len(billing.taken) == 100
    assert max(len(ids) for _, _, ids in billing.requests[:8]) == 100
    assert max(pauses.seconds) <= 30


async def test_dead_letters_without_room_hold_up_nobody(store, billing, post, monkeypatch):
    def refusing(events):
        refused = [{"id": event["id"], "reason": "no"} for event in events if event["data"]["session_id"] == "ses_0"]
        return billing.take(events, refused)

    counted = []
    monkeypatch.setattr("sidecar.sessions.store.DEAD_LETTERS_MAX", 0)
    courier, pauses = post(count=lambda event, n: counted.append((event, n)), takeover_seconds=60)
    billing.script = [refusing] * 100
    await fill(store, 150)
    assert [await courier.step(), await courier.step(), await courier.step()] == [100, 50, 0]
    assert len(billing.taken) == 149
    assert ("dead_letters_full", 1) in counted
    assert pauses.seconds == []
    assert await store.outbox_length() == 1  # not lost: it comes again as what a dead courier had taken
    monkeypatch.setattr("sidecar.sessions.store.DEAD_LETTERS_MAX", 10)
    heir, _ = post(name="heir", takeover_seconds=0)
    assert await heir.step() == 1
    assert [letter["reason"] for letter in await store.dead_letters()] == ["no"]


async def test_an_answer_that_nobody_can_read_to_its_end_is_no_delivery(store, billing, post):
    courier, _ = post()
    billing.script = [lambda _: web.Response(body=b" " * (2 << 20))]
    await fill(store, 2)
    await courier.step()
    assert len(billing.requests) == 2
    assert len(billing.taken) == 2


async def test_whether_the_api_is_there_is_known_before_the_first_outcome(store, billing, post, nobody):
    courier, _ = post()
    assert courier.state == UNKNOWN
    await courier.probe()
    assert courier.state == OK
    away, _ = post(url=f"http://127.0.0.1:{nobody}", name="b")
    await away.probe()
    assert away.state == DOWN
    unknown, _ = post(url=lambda: None, name="c")
    await unknown.probe()
    assert unknown.state == DOWN


async def test_an_entry_that_is_none_is_buried_and_holds_up_nothing(store, billing, post):
    courier, _ = post()
    await store.redis.xadd(store.key("outbox"), {"kind": "outcome", "body": '{"v": 99}'})
    await store.redis.xadd(store.key("outbox"), {"kind": "outcome", "body": "no JSON"})
    await store.redis.xadd(store.key("outbox"), {"other": "fields"})
    await fill(store, 1)
    await courier.step()
    assert len(billing.taken) == 1
    assert [letter["body"] for letter in await store.dead_letters()] == [{"v": 99}, "no JSON", ""]
    assert await store.outbox_length() == 0


async def test_a_restarted_courier_goes_on_and_a_dead_ones_work_is_taken_over(store, billing, post):
    await fill(store, 2)
    dead, _ = post(name="dead")
    assert len(await dead._outbox.take()) == 2
    again, _ = post(name="dead")
    assert await again.step() == 2
    await fill(store, 3)
    assert len(await dead._outbox.take()) == 3
    heir, _ = post(name="heir", takeover_seconds=0)
    assert await heir.step() == 3
    assert await store.outbox_length() == 0
    assert billing.conflicts == 0


async def test_what_another_courier_delivered_meanwhile_is_not_sent_again(store, billing, post):
    courier, _ = post()

    async def other_delivers(_events):
        await store.redis.xtrim(store.key("outbox"), maxlen=0)
        return web.Response(status=503)

    billing.script = [other_delivers]
    await fill(store, 2)
    await courier.step()
    assert len(billing.requests) == 1


async def test_it_survives_flushall(store, billing, post):
    courier, _ = post()
    await fill(store, 1)
    await courier.step()
    await store.redis.flushall()
    await fill(store, 1)
    while await store.outbox_length():
        await courier.step()
    assert len(billing.requests) == 2
    assert billing.conflicts == 0


async def test_a_crash_between_delivery_and_its_note_leaves_nothing_in_the_outbox(store, billing, post, monkeypatch):
    noted = []

    def crashing(command):
        async def call(*arguments):
            if noted:
                raise RedisConnectionError("gone")
            noted.append(await command(*arguments))

        return call

    await fill(store, 3)
    courier, _ = post(name="a")
    with monkeypatch.context() as patched:
        patched.setattr(store.redis, "xack", crashing(store.redis.xack))
        patched.setattr(store.redis, "xdel", crashing(store.redis.xdel))
        with pytest.raises(RedisConnectionError):
            await courier.step()
    again, _ = post(name="a")
    await again.step()
    assert await store.outbox_length() == 0
    assert (await store.redis.xpending(store.key("outbox"), GROUP))["pending"] == 0
    assert billing.conflicts == 0


async def test_run_drains_at_shutdown(store, billing, post):
    billing.script = [lambda _: web.Response(status=503, headers={"Retry-After": "3600"})]
    courier = Courier(store, lambda: billing.url, name="a")
    running = asyncio.create_task(courier.run())
    await fill(store, 250)
    try:
        assert await courier.drain(asyncio.get_running_loop().time() + 30)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(billing.taken) == 250


async def test_statements_are_made_once_an_hour_by_whichever_replica(store, billing, post):
    await store.heartbeat("j", 0, 1, dropped=4)
    hour = 1_795_003_200_000
    assert not await store.statement(hour)  # nothing to state yet
    await store.redis.hset(store.key("counters"), mapping={"opened": 7, "open": 3, "finalized:RESOLVED": 4, "late": 1})
    assert [await store.statement(hour + 5), await store.statement(hour + 900_000)] == [1, 2]
    assert await store.statement(hour + 3_600_000)
    courier, _ = post()
    await courier.step()
    events = [orjson.loads(raw) for raw in billing.taken.values()]
    assert [event["type"] for event in events] == ["sidecar.statement.v1"] * 2
    assert events[0]["data"]["dropped"] == 4
    assert (events[0]["data"]["opened"], events[0]["data"]["open"]) == (7, 3)
    assert (events[0]["data"]["finalized"], events[0]["data"]["counters"]) == ({"RESOLVED": 4}, {"late": 1})
    assert len({event["id"] for event in events}) == 2
