"""Webhooks through the real admin server, into a real journal, applied in a real Redis, on two replicas."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import aiohttp
import pytest
import redis.asyncio as redis_async
from intake_replicas import TENANT, Replica
from vendors import EXAMPLES, first_of, front_event, hubspot_event, intercom_event, told, zendesk_event

from sidecar.admin import webhooks as admin_webhooks
from sidecar.intake.webhooks import BODY_BYTES_MAX
from sidecar.observer.observation import from_json
from sidecar.observer.observe import Observing
from sidecar.policy.current import CurrentPlan
from sidecar.policy.loading import load_plan
from sidecar.sessions.candidate import Candidate
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.states import State
from sidecar.sessions.store import Store


@pytest.fixture
async def replicas(redis_server, tmp_path):
    """A factory of replicas over one Redis."""
    async with contextlib.AsyncExitStack() as stack:
        made = []

        async def make(**more):
            client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
            stack.push_async_callback(client.aclose)
            made.append(await stack.enter_async_context(Replica(tmp_path / f"r{len(made)}", client, **more)))
            return made[-1]

        yield make


async def copies(replica):
    """500 of one webhook at once, over 50 connections."""
    example = first_of("zendesk")
    headers = example.headers(int(time.time()))

    async def send(http):
        async with http.post("http://admin/v1/webhooks/zendesk", data=example.body, headers=headers) as answer:
            assert answer.status == 200
            return await answer.json()

    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(replica.socket), limit=50)) as http:
        return await asyncio.gather(*(send(http) for _ in range(500)))


async def test_a_thousand_concurrent_copies_on_two_replicas_have_one_effect(replicas):
    one, two = await replicas(), await replicas()
    await one.open("5158")
    answers = [answer for replica in await asyncio.gather(*map(copies, (one, two))) for answer in replica]
    assert sum(answer["accepted"] for answer in answers) == 2  # once in each journal; Redis knows that they are one
    assert sum(answer["duplicate"] for answer in answers) == 998
    await two.drained()
    session = await one.session("5158")
    assert (session.state, session.revision) == (State.RESOLVED, 0)
    assert [entry.rule for entry in session.evidence] == ["zendesk_solved"]
    assert sum(entry["what"] == "signal" for entry in session.timeline) == 1
    assert [(outcome.conversation, outcome.outcome) for outcome in await one.outcomes()] == [("5158", "RESOLVED")]
    assert one.counted("zendesk", "accepted") + two.counted("zendesk", "accepted") == 2
    assert one.counted("zendesk", "duplicate") + two.counted("zendesk", "duplicate") == 998


async def test_every_vendor_s_documented_webhook_is_taken_and_a_forged_one_is_not(replicas):
    replica = await replicas()
    for example in EXAMPLES:
        answer = await replica.send(example)
        assert answer.status_code == 200, (example.source, answer.text)
        assert answer.json()["unmapped"] == (example.event is None)
        headers = example.headers(int(time.time()))
        headers[example.signature] = "A" + headers[example.signature][1:] + "A"
        forged = await replica.send(example, headers=headers)
        assert forged.status_code == 401
        assert forged.headers["content-type"].startswith("application/problem+json")
        assert forged.json()["detail"].startswith("forged")
    assert replica.counted("hubspot", "forged") == 5
    assert replica.counted("intercom", "unmapped") == 3


async def test_a_webhook_before_its_session_waits_for_it(replicas):
    replica = await replicas()
    event = intercom_event("conversation.admin.assigned", {"id": "early"})
    assert (await replica.send(first_of("intercom"), event)).json()["accepted"] == 1
    assert await replica.session("early") is None
    await replica.open("early")
    assert (await replica.session("early")).state is State.NOT_BILLABLE


async def test_escalation_wins_in_any_order_and_a_bad_rating_takes_the_resolution_back(replicas):
    replica = await replicas()
    await replica.open("a", "b", "c")
    example = first_of("intercom")

    async def tell(conversation, topic, item=None):
        event = intercom_event(topic, {"id": conversation} | (item or {}), f"notif_{conversation}_{topic}")
        assert (await replica.send(example, event)).json()["accepted"] == 1
        await replica.drained()

    for topic in ("conversation.admin.closed", "conversation.admin.assigned"):
        await tell("a", topic)
    for topic in ("conversation.admin.assigned", "conversation.admin.closed"):
        await tell("b", topic)
    await tell("c", "conversation.admin.closed")
    await tell("c", "conversation.rating.added", {"conversation_rating": {"rating": 1}})
    states = [(await replica.session(name)).state for name in "abc"]
    assert states == [State.NOT_BILLABLE, State.NOT_BILLABLE, State.REVERSED]


async def test_each_event_of_a_batch_finds_its_session_and_a_retry_of_half_of_it_is_known(replicas):
    replica = await replicas()
    await replica.open("7", "8", "9")
    events = [hubspot_event("status", "CLOSED", number=n, thread=n) for n in (7, 8)]
    assert (await replica.send(first_of("hubspot"), events)).json()["accepted"] == 2
    more = [hubspot_event("status", "CLOSED", number=n, thread=n, attempt=1) for n in (8, 9)]
    answer = (await replica.send(first_of("hubspot"), more)).json()
    assert (answer["events"], answer["accepted"], answer["duplicate"]) == (2, 1, 1)
    assert [(await replica.session(name)).state for name in "789"] == [State.RESOLVED] * 3
    assert len(await replica.outcomes()) == 3


async def test_stale_and_rotated(replicas):
    example = first_of("chatwoot")
    replica = await replicas(secrets={"chatwoot": (example.secret, "the former one")})
    stale = example.headers(int(time.time()) - 400)
    answer = await replica.send(example, headers=stale)
    assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (401, "stale")
    assert replica.counted("chatwoot", "stale") == 1
    for secret in ("the former one", example.secret):
        headers = example.headers(int(time.time()), secret=secret)
        assert (await replica.send(example, headers=headers)).status_code == 200


async def test_front_gets_its_challenge_back_when_it_signed_it(replicas):
    replica = await replicas()
    sync = {"type": "sync", "authorization": {"id": "cmp_abc"}}
    answer = await replica.send(first_of("front"), sync, headers={"X-Front-Challenge": 'a "random" text'})
    assert (answer.status_code, answer.json()["challenge"]) == (200, 'a "random" text')
    headers = {"X-Front-Challenge": "x", "X-Front-Signature": "forged"}
    assert (await replica.send(first_of("front"), sync, headers=headers)).status_code == 401
    assert "challenge" not in (await replica.send(first_of("front"), front_event("archive"))).json()


async def test_no_bearer_token_is_asked_for_and_nothing_else_is_opened_by_that(replicas):
    replica = await replicas()
    assert (await replica.send(first_of("zendesk"))).status_code == 200
    for path in ("/v1/sessions", "/v1/webhooks/../sessions", "/v1/webhooks/zendesk/../../sessions", "/v1/webhooks"):
        assert (await replica.http.get(path)).status_code in {401, 404}
    assert (await replica.http.post("/v1/signals", content=b"{}")).status_code == 401
    assert (await replica.http.get("/v1/webhooks/zendesk")).status_code == 401


async def test_sources_are_known_by_their_secrets(replicas):
    replica = await replicas(secrets={"my_crm": (first_of("outreach").secret,)})
    answer = await replica.send(first_of("zendesk"))
    assert answer.status_code == 404
    assert "SIDECAR_WEBHOOK_SECRET_" in answer.json()["detail"]
    assert replica.counted("unknown", "unknown_source") == 1
    example = first_of("outreach")
    for name in ("my_crm", "my-crm", "My-CRM"):
        body = json.dumps(told("RESOLVED")).encode()
        headers = example.headers(int(time.time()), body)
        answer = await replica.http.post(f"/v1/webhooks/{name}", content=body, headers=headers)
        assert (answer.status_code, answer.json()["source"]) == (200, "my_crm")
    # Some senders ask before they send.
    assert (await replica.http.head("/v1/webhooks/my-crm")).status_code == 200
    assert (await replica.http.head("/v1/webhooks/other")).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "result"),
    [
        (b"not json", 400, "malformed"),
        (b"[" * 3000 + b"]" * 3000, 400, "malformed"),
        (json.dumps([{}] * 501).encode(), 413, "malformed"),
        (b" " * (BODY_BYTES_MAX + 1), 413, "malformed"),
        (json.dumps([{"no": "rule"}] * 500).encode(), 200, "unmapped"),
        (b"{}" + b" " * (BODY_BYTES_MAX - 2), 200, "unmapped"),
    ],
    ids=range(6),
)
async def test_bounds(replicas, body, status, result):
    replica = await replicas()
    headers = first_of("hubspot").headers(int(time.time()), body)
    answer = await replica.send(first_of("hubspot"), content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert replica.counted("hubspot", result) >= 1
    if status != 200:
        assert answer.headers["content-type"].startswith("application/problem+json")


async def test_a_compressed_body_is_not_what_was_signed(replicas):
    replica = await replicas()
    assert (await replica.send(first_of("zendesk"), headers={"Content-Encoding": "gzip"})).status_code == 415


async def test_all_bodies_together_are_bounded(replicas, monkeypatch):
    monkeypatch.setattr(admin_webhooks, "BUFFERED_BYTES_MAX", 1000)
    replica = await replicas()
    answer = await replica.send(first_of("zendesk"), zendesk_event("status_changed", {"x": "y" * 2000}))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert replica.counted("zendesk", "refused") == 1
    assert (await replica.send(first_of("zendesk"))).status_code == 200  # and it is given back


async def test_a_body_that_does_not_come_is_not_waited_for(replicas, monkeypatch):
    monkeypatch.setattr(admin_webhooks, "BODY_SECONDS", 0.05)
    replica = await replicas()
    reader, writer = await asyncio.open_unix_connection(str(replica.socket))
    writer.write(b"POST /v1/webhooks/zendesk HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_journal_that_takes_nothing_is_a_503_and_the_retry_is_taken(replicas):
    replica = await replicas()
    await replica.open("5158")
    replica.journal._bytes_max = 1
    answer = await replica.send(first_of("zendesk"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "could not be made durable" in answer.json()["detail"]
    assert replica.counted("zendesk", "refused") == 1
    replica.journal._bytes_max = 1 << 26
    assert (await replica.send(first_of("zendesk"))).json()["accepted"] == 1
    assert (await replica.session("5158")).state is State.RESOLVED


async def test_more_than_may_wait_for_an_unknown_conversation_stay_with_their_sender(replicas):
    replica = await replicas()
    hubspot = first_of("hubspot")
    events = [hubspot_event("status", "CLOSED", number=n, thread=7) for n in range(LIMITS["waiting"] + 2)]
    events.append(hubspot_event("status", "CLOSED", number=900, thread=8))
    answer = await replica.send(hubspot, events)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "send it again later" in answer.json()["detail"]
    await replica.drained()
    assert (await replica.store.counters())["signals_waiting"] == LIMITS["waiting"] + 1
    assert (await replica.send(hubspot, events)).status_code == 503
    assert [replica.counted("hubspot", what) for what in ("accepted", "duplicate", "over")] == [65, 65, 4]
    await replica.open("7")
    again = await replica.send(hubspot, events)
    assert (again.status_code, again.json()["accepted"], again.json()["duplicate"]) == (200, 2, 65)
    await replica.drained()
    counters = await replica.store.counters()
    assert (counters["waiting_applied"], counters.get("refused", 0)) == (LIMITS["waiting"], 0)


async def test_taken_while_redis_is_away_and_applied_when_it_is_back(replicas, redis_server):
    replica = await replicas()
    await replica.open("5158")
    redis_server.kill()
    try:
        assert (await replica.send(first_of("zendesk"))).json()["accepted"] == 1
        assert (await replica.send(first_of("zendesk"))).json()["duplicate"] == 1
    finally:
        redis_server.start()
    async with asyncio.timeout(30):
        while (await replica.session("5158")).state is not State.RESOLVED:
            await asyncio.sleep(0.05)


async def test_hubspot_without_a_configured_url_is_judged_by_the_host_field(replicas):
    replica = await replicas(webhook_base_url=None)
    example = first_of("hubspot")
    host = {"Host": "hooks.example.com"}
    assert (await replica.send(example, headers=host)).status_code == 200
    # Whoever sends it can write these: they do not count.
    forwarded = {"Host": "elsewhere.example.com", "X-Forwarded-Host": "hooks.example.com", "X-Forwarded-Proto": "https"}
    refused = await replica.send(example, headers=forwarded)
    assert refused.status_code == 401
    assert "taken to be https://elsewhere.example.com/v1/webhooks/hubspot" in refused.json()["detail"]


async def test_a_candidate_plan_judges_webhooks_by_its_own_rules(tmp_path, redis_server):
    """The live plan knows Intercom's events, the candidate takes the same one for something else."""
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    source = b"""
rate_plan:
  name: candidate
  signals:
    - id: closed
      on: webhook
      conditions: [{field: payload.topic, operator: EQUALS, value: conversation.admin.closed}]
      alias: {value: conversation}
      set: {escalated_to_human: true}
"""
    live = Store(client, TENANT)
    observing = Observing(TENANT, b"k", "", "", False, lambda _: None)
    candidate = Candidate(live, CurrentPlan(load_plan(source, "c"), None), observing, producer="journal")
    async with Replica(tmp_path / "a", client, candidate=candidate) as replica:
        await replica.open("c-1")
        [row] = replica.journal.after(0, 1)
        await candidate.store.apply_many([(from_json(row.body), 0)])
        answer = await replica.send(first_of("intercom"), intercom_event("conversation.admin.closed", {"id": "c-1"}))
        assert answer.json()["accepted"] == 1
        await candidate.step()
        assert (await replica.session("c-1")).state == State.RESOLVED
        [judged] = await candidate.store.list()
        assert (judged.state, [item.rule for item in judged.evidence]) == (State.NOT_BILLABLE, ["closed"])
        assert [outcome.state for outcome in await replica.outcomes()] == ["RESOLVED"]
    await client.aclose()
