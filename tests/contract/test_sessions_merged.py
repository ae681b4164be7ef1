"""Sessions that turned out to be one, on a real server: their evidence stays whole, whichever id one asks for."""

from __future__ import annotations

import asyncio
import itertools
import json

import httpx
import pytest
import redis.asyncio as redis_async

from sidecar import cli, identity
from sidecar.admin.metrics import Metrics
from sidecar.admin.server import AdminParts, AdminServer
from sidecar.delivery.event import outcome_event
from sidecar.intake.signal import Signal
from sidecar.observer.journal import Journal
from sidecar.observer.observation import Observation
from sidecar.policy.current import CurrentPlan
from sidecar.policy.effect import Effect
from sidecar.policy.loading import builtin_plan
from sidecar.policy.terms import Terms
from sidecar.sessions.applier import Applier
from sidecar.sessions.chain import against_ledger
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.store import Store
from sidecar.wire.status import STATUS_BYTES, StatusPage

TENANT, T0, HOUR = "acme", 1_795_000_000_000, 3_600_000
TERMS = Terms("fin", "sha256:aa", settle_ms=HOUR)
RESOLVE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED", digest="hmac-sha256:1")
OURS = identity.key(TENANT, "conversation", "chat-1", "body:id")
THEIRS = identity.key(TENANT, "conversation", "thread-1", "path:/threads/{}")


class Calls:
    """Exchanges through one replica, a second apart."""

    def __init__(self, store):
        self.store, self.sequence = store, 0

    def call(self, *keys, previous=None, **fields):
        self.sequence += 1
        at = T0 + self.sequence * 1000
        name = next(key.digest for key in keys if key.kind == "conversation")
        digests = {"request": f"hmac-sha256:q{self.sequence}", "response": f"hmac-sha256:r{self.sequence}"}
        return Observation(
            "ring", self.sequence, TENANT, at, at, keys, identity.session_base(TENANT, "conversation", name), TERMS,
            conversation=name, api="openai.chat", user_messages=(f"m{self.sequence}",), digests=digests, **fields,
        ), self.sequence - 1 if previous is None else previous  # fmt: skip

    async def make(self, *keys, **fields):
        (answer,) = await self.store.apply_many([self.call(*keys, **fields)])
        assert answer.status == "applied", answer
        return answer.session_id


@pytest.fixture
async def calls(redis_server):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Calls(Store(client, TENANT))
    await client.aclose()


async def verified(calls, *sessions):
    found = [await calls.store.verify(session) for session in sessions]
    assert [each.problems for each in found] == [()] * len(sessions)
    assert len({each.session_id for each in found}) == 1
    return found[0]


@pytest.mark.parametrize("resolved", ["neither", "the one that lives", "the one that is merged"])
async def test_the_chain_of_a_merged_session_is_whole_by_both_ids(calls, resolved):
    lives = await calls.make(OURS, effects=(RESOLVE,) if resolved == "the one that lives" else ())
    part = await calls.make(THEIRS, effects=(RESOLVE,) if resolved == "the one that is merged" else ())
    assert await calls.make(OURS, THEIRS) == lives != part
    assert (await verified(calls, lives, part)).session_id == lives
    await calls.make(THEIRS)
    found = await verified(calls, lives, part)
    assert found.entries == len((await calls.store.session(part)).timeline)


async def test_a_long_timeline_that_is_merged_is_still_verified(calls):
    over = 15
    lives = await calls.make(OURS)
    long = LIMITS["timeline_first"] + LIMITS["timeline_last"] + over - 1  # and `opened`
    await calls.store.apply_many([calls.call(THEIRS) for _ in range(long)])
    part = (await calls.store.by_alias("conversation", "thread-1")).id
    assert (await calls.store.session(part)).omitted == over
    await calls.make(OURS, THEIRS)
    found = await verified(calls, lives, part)
    merged = [entry for entry in (await calls.store.session(lives)).timeline if entry["what"] == "merged"]
    assert [(entry["id"], entry["omitted"]) for entry in merged] == [(part, over)]
    assert found.omitted > 0


async def test_what_a_merged_session_posts_agrees_with_its_chain(calls):
    lives = await calls.make(OURS)
    part = await calls.make(THEIRS, effects=(RESOLVE,))
    await calls.make(OURS, THEIRS)
    await calls.store.heartbeat("live", T0 + 2 * HOUR, 1)
    assert (await calls.store.sweep()).fired == 1
    found = await verified(calls, lives, part)
    entries = await calls.store.redis.xrange(calls.store.key("outbox"))
    posted = [{"event": json.loads(outcome_event(read_outcome(fields[b"body"])).body)} for _, fields in entries]
    assert [entry["event"]["data"]["session_id"] for entry in posted] == [lives]
    assert against_ledger(found.to_dict(), posted) == []


async def test_the_endpoint_and_the_command_verify_by_either_id(calls, tmp_path, capsys):
    lives, part = await calls.make(OURS), await calls.make(THEIRS)
    await calls.make(OURS, THEIRS)
    socket = tmp_path / "observer.sock"
    journal = Journal(tmp_path / "journal.sqlite3", hours=168, bytes_max=1 << 26)
    metrics = Metrics(StatusPage(bytearray(STATUS_BYTES)), dict)
    server = AdminServer(
        AdminParts(
            tenant=TENANT, hash_key=b"k", journal=journal, store=calls.store, applier=Applier(journal, calls.store),
            plan=CurrentPlan(builtin_plan(), None), metrics=metrics, token=None,
        )
    )  # fmt: skip
    await server.start(socket)
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as http:
            shown = [(await http.get(f"/v1/sessions/{name}/verification")).json() for name in (lives, part)]
        assert shown[0] == shown[1]
        assert (shown[0]["session_id"], shown[0]["intact"], shown[0]["problems"]) == (lives, True, [])
        for name in (lives, part, "conversation:thread-1"):
            code = await asyncio.to_thread(cli.main, ["sessions", "verify", name, "--admin", f"unix:{socket}"])
            assert (code, lives in capsys.readouterr().out) == (0, True)
    finally:
        await server.close()
        journal.close()


async def test_parts_of_parts_lead_to_the_session_that_lives(calls):
    """Each session turns out to be part of an older one, again and again."""
    number = 12
    keys = [identity.key(TENANT, "conversation", f"c-{n}", f"header:x-{n}-session-id") for n in range(number)]
    sessions = [await calls.make(key) for key in keys]
    for older, younger in reversed(list(itertools.pairwise(keys))):
        await calls.make(older, younger)
    assert len(set(sessions)) == number
    await verified(calls, *sessions)
    for session in sessions:
        assert (await calls.store.session(session)).id == sessions[0]
    counters = await calls.store.counters()
    assert (counters["opened"], counters["merged"]) == (1, number - 1)
    effect = Effect("signal:crm", "signal", "escalate", digest="hmac-sha256:s")
    told = Signal("journal", 1, TENANT, "crm", "s1", calls.call(*keys)[0].at_ms, effect, TERMS, session_id=sessions[-1])
    (answer,) = await calls.store.apply_many([(told, 0)])
    assert (answer.status, answer.session_id, answer.state) == ("applied", sessions[0], "NOT_BILLABLE")


async def test_a_merge_never_shortens_a_timer(calls):
    await calls.make(OURS)
    part = await calls.make(THEIRS)
    at = T0 + 600_000  # a CRM says so long after the last exchange, and the settling time runs from then on
    effect = Effect("signal:crm", "signal", "resolve", "RESOLVED", digest="hmac-sha256:s")
    await calls.store.apply_many([(Signal("journal", 1, TENANT, "crm", "s1", at, effect, TERMS, session_id=part), 0)])
    assert (await calls.store.session(part)).deadline_ms == at + HOUR
    lives = await calls.make(OURS, THEIRS)
    view = await calls.store.session(lives)
    assert (view.state, view.deadline_ms) == ("RESOLVED_PENDING", at + HOUR)


async def test_a_session_whose_time_was_up_before_is_not_merged_but_over(calls):
    """No sweeper has looked yet; a replay, in which one had, must come to the same."""
    over = await calls.make(THEIRS)
    calls.sequence += 2 * HOUR // 1000
    lives = await calls.make(OURS, previous=1)
    await calls.store.heartbeat("live", T0 + 9 * HOUR, 1)
    assert await calls.make(OURS, THEIRS) == lives
    assert [(await calls.store.session(each)).state for each in (over, lives)] == ["INCONCLUSIVE", "AI_HANDLING"]
    assert (await calls.store.counters()).get("merged", 0) == 0


async def test_a_signal_that_waits_for_a_part_waits_for_the_session_that_lives(calls):
    """After a loss of data: the part opens under another replica's journal, or never again."""
    part = "ses_" + "0" * 40
    effect = Effect("signal:crm", "signal", "escalate", digest="hmac-sha256:s")
    told = Signal("journal", 1, TENANT, "crm", "s1", T0, effect, TERMS, session_id=part)
    (answer,) = await calls.store.apply_many([(told, 0)])
    assert answer.status == "waiting"
    (answer,) = await calls.store.apply_many([calls.call(OURS)], went=[f"ses_1 ses_1 {part}"])
    assert (answer.session_id, answer.state) == ("ses_1", "NOT_BILLABLE")


async def test_a_part_in_the_list_of_its_conversation_is_no_second_session(calls):
    lives, part = await calls.make(OURS), await calls.make(THEIRS)
    await calls.make(OURS, THEIRS)
    # as a merge within one conversation leaves it
    await calls.store.redis.zadd(calls.store.key("sessions", lives), {part: 1})
    effect = Effect("signal:crm", "signal", "escalate", digest="hmac-sha256:s")
    told = Signal("journal", 1, TENANT, "crm", "s1", T0 + 9000, effect, TERMS, alias=OURS)
    await calls.store.apply_many([(told, 0)])
    timeline = (await calls.store.session(lives)).timeline
    assert [entry["what"] for entry in timeline].count("signal") == 1


async def test_where_an_observation_went_is_told_again_when_the_answer_was_lost(calls):
    operations = [calls.call(OURS), calls.call(THEIRS), calls.call(OURS, THEIRS)]
    first = await calls.store.apply_many(operations)
    again = await calls.store.apply_many(operations)
    assert [answer.status for answer in again] == ["duplicate"] * 3
    assert [answer.went for answer in again] == [answer.went for answer in first]
    assert len(first[2].went.split()) == 3
    await calls.store.apply_many([calls.call(OURS) for _ in range(LIMITS["went"])])
    name = calls.store.key("went", "ring")
    assert await calls.store.redis.zcard(name) == LIMITS["went"]
    assert 0 < await calls.store.redis.pttl(name) <= LIMITS["waiting_days"] * 24 * HOUR


async def test_tokens_past_what_the_scripts_write_whole_are_counted(calls):
    for _ in range(120):
        session = await calls.make(OURS, input_tokens=10**12, output_tokens=1)
    view = await calls.store.session(session)
    assert (view.input_tokens, view.output_tokens) == (LIMITS["tokens"], 120)
    assert (await calls.store.counters())["tokens_over"] == 21
