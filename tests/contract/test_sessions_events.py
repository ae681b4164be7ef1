"""Moves of sessions as who watches is told them, and the list of sessions in pages."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seeded import ESCALATE, RESOLVE, T0, seeded

from sidecar.sessions.scripts import LIMITS


@pytest.fixture
async def told(redis_server, tmp_path):
    async with seeded(redis_server.socket, tmp_path) as made:
        yield made


async def test_every_move_is_told_once_and_in_order(told):
    _, begin = await told.store.moves(None, 1)
    await told.say(0, "c", "acme")
    await told.say(1, "c", "acme", RESOLVE)
    first, cursor = await told.store.moves(begin, 100)
    await told.signal(2, "c", ESCALATE)
    await told.signal(3, "c", ESCALATE)  # changes nothing
    then, last = await told.store.moves(cursor, 100)
    assert [(move.get("from"), move["state"], move["revision"]) for move in first + then] == [
        (None, "AI_HANDLING", -1),
        ("AI_HANDLING", "RESOLVED_PENDING", -1),
        ("RESOLVED_PENDING", "RESOLVED", 0),
        ("RESOLVED", "NOT_BILLABLE", 1),
    ]
    assert [move["at"] - T0 for move in first + then] == [0, 60_900, 60_900, 120_000]
    assert {move["customer"] for move in first} == {"acme"}
    assert await told.store.moves(last, 100) == ([], last)
    one, after_one = await told.store.moves(begin, 1)
    assert one == first[:1]
    assert (await told.store.moves(after_one, 2))[0] == first[1:]
    assert (await told.store.moves(None, 2))[0] == (first + then)[-2:]


async def test_the_newest_moves_are_kept_for_a_day(told, monkeypatch):
    name = told.store.key("events")
    pipeline = told.store.redis.pipeline(transaction=False)
    for number in range(LIMITS["events"] + 500):
        pipeline.xadd(name, {"body": "{}"}, id=f"1-{number + 1}")
    await pipeline.execute()
    await told.say(0, "c", "acme")
    assert LIMITS["events"] <= await told.store.redis.xlen(name) < LIMITS["events"] + 200, "whole nodes are cut off"
    assert 0 < await told.store.redis.pttl(name) <= 86_400_000


async def test_a_fact_that_comes_again_tells_nothing(told):
    await told.say(0, "c", "acme", RESOLVE)
    _, cursor = await told.store.moves(None, 1)
    told._last["ring"] = 0
    with pytest.raises(AssertionError):
        await told.say(0, "c", "acme", RESOLVE)
    assert (await told.store.moves(cursor, 10))[0] == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_pages_of_sessions_are_the_list_cut_up(told, monkeypatch, data):
    monkeypatch.setattr("sidecar.sessions.store._READ_AT_ONCE", data.draw(st.integers(1, 4)))
    if not await told.store.list(1):
        for number in range(12):  # several begin in the same millisecond
            await told.say(
                number // 3, f"c-{number}", ("acme", "globex")[number % 2], *([RESOLVE] if number % 3 else [])
            )
    state = data.draw(st.sampled_from([None, "RESOLVED", "AI_HANDLING"]))
    customer = data.draw(st.sampled_from([None, "acme", "nobody"]))
    limit = data.draw(st.integers(1, 13))
    every = [view for view in await told.store.list(100) if state in {None, view.state}]
    every = [view.id for view in every if customer in {None, view.customer}]
    found, after = [], None
    while True:
        page, after = await told.store.page(limit, state, customer, after)
        assert len(page) <= limit
        found += [view.id for view in page]
        if after is None:
            break
        assert len(page) == limit
    assert found == every


async def test_the_admin_api_refuses_what_is_no_cursor(told):
    transport = httpx.AsyncHTTPTransport(uds=told.environ["SIDECAR_ADMIN_LISTEN"].removeprefix("unix:"))
    headers = {"Authorization": f"Bearer {told.environ['SIDECAR_ADMIN_TOKEN']}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://admin", headers=headers) as admin:
        for path in (
            "/v1/events?after=x",
            "/v1/events?limit=0",
            "/v1/events?limit=9999999999999999999",
            "/v1/events?limit=0000000011",
            "/v1/sessions?limit=0000001000000",
            "/v1/sessions?limit=1001",
            "/v1/sessions?after=1",
            "/v1/sessions?limit=x",
        ):
            answer = await admin.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (
                400,
                "application/problem+json; charset=utf-8",
            ), path
        assert (await admin.get("/v1/events")).json() == {"events": [], "next": "0-0"}
        await told.say(0, "c", None)
        [event] = (await admin.get("/v1/events?after=0-0")).json()["events"]
    assert event == {
        "at": "2026-11-22T10:00:00Z", "session_id": event["session_id"], "conversation": "c", "customer": None,
        "from": None, "state": "AI_HANDLING", "outcome": None, "reason": "", "revision": None, "held": False,
        "shadow": False,
    }  # fmt: skip
