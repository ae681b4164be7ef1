"""A session from its first exchange to its outcome and behind it: each test reads as the conversation it checks."""

from __future__ import annotations

import dataclasses

import pytest
from session_facts import ESCALATE, HOUR, MINUTE, RESOLVE, T0, TENANT, TERMS

from sidecar import identity
from sidecar.policy.effect import Effect
from sidecar.sessions.states import State


async def test_a_conversation_becomes_one_session_and_one_outcome(talk):
    first = await talk.say(0, says=("m1",), customer="cust-1", models=("gpt-4o",), input_tokens=100, output_tokens=7)
    second = await talk.say(5000, says=("m1", "m2"), models=("gpt-4o", "o3"), input_tokens=200, output_tokens=9)
    third = await talk.say(
        9000, says=("m1", "m2"), effects=(dataclasses.replace(RESOLVE, call="call-1"),), tool_calls=("call-1",)
    )
    assert [first.status, second.status, third.status] == ["applied"] * 3
    assert first.session_id == second.session_id == third.session_id
    base = identity.session_base(TENANT, "conversation", "c-1")
    assert first.session_id == identity.session_id(base, 1)
    assert third.events[0].session_id == first.session_id
    (outcome,) = await talk.outcomes()
    assert (outcome.state, outcome.outcome, outcome.confirmation) == ("RESOLVED", "RESOLVED", "CONFIRMED")
    assert (outcome.turns, outcome.llm_calls, outcome.tool_calls) == (2, 3, 1)
    assert (outcome.input_tokens, outcome.output_tokens, outcome.models) == (300, 16, ("gpt-4o", "o3"))
    assert (outcome.customer, outcome.conversation, outcome.tenant) == ("cust-1", "c-1", TENANT)
    assert (outcome.started_ms, outcome.ended_ms, outcome.time_ms) == (T0, T0 + 9100, T0 + 9100)
    assert outcome.complete
    assert outcome.billable
    assert not outcome.held
    assert not outcome.shadow
    assert outcome.reason == "resolve_conversation tool"
    assert [(e.rule, e.kind, e.digest) for e in outcome.evidence] == [("resolve_tool", "tool_call", "hmac-sha256:1")]
    counters = await talk.store.counters()
    assert (counters["opened"], counters["open"], counters["finalized:RESOLVED"]) == (1, 0, 1)


async def test_resolve_and_escalate_in_one_exchange_post_once(talk):
    await talk.say(0, says=("m",), effects=(RESOLVE, ESCALATE))
    assert await talk.states() == [("NOT_BILLABLE", 0)]


async def test_trailing_exchanges_freeze_counts_and_do_not_open_sessions(talk):
    await talk.say(0, says=("m1",), effects=(dataclasses.replace(RESOLVE, call="k"),), tool_calls=("k",))
    thanks = await talk.say(200, says=("m1",), llm_calls=1)
    assert thanks.state == State.RESOLVED
    # begun before the end, though it ends after it and brings a new message
    await talk.say(50, says=("m1", "m1b"), took=1000)
    await talk.say(3000, says=("m1", "m1b"))
    view = await talk.store.by_alias("conversation", "c-1")
    assert (view.turns, view.llm_calls, view.revision) == (1, 1, 0)
    assert [entry["what"] for entry in view.timeline].count("trailing") == 3
    assert (await talk.store.counters())["opened"] == 1


async def test_a_return_opens_a_numbered_session_that_inherits_what_was_said(talk):
    one = await talk.say(0, says=("m1",), effects=(RESOLVE,))
    two = await talk.say(5000, says=("m1", "m2"))
    base = identity.session_base(TENANT, "conversation", "c-1")
    assert (one.session_id, two.session_id) == tuple(identity.session_id(base, n) for n in (1, 2))
    view = await talk.store.session(two.session_id)
    assert (view.turns, view.state) == (1, State.AI_HANDLING)
    assert await talk.states() == [("RESOLVED", 0)]


async def test_on_return_reverse_takes_the_old_one_back_within_the_window(talk):
    terms = dataclasses.replace(TERMS, on_return="REVERSE")
    await talk.say(0, "a", says=("m1",), effects=(RESOLVE,), terms=terms)
    await talk.say(5000, "a", says=("m1", "m2"), terms=terms)
    await talk.say(0, "b", says=("m1",), effects=(RESOLVE,), terms=terms)
    await talk.say(73 * HOUR, "b", says=("m1", "m2"), terms=terms)
    assert await talk.states() == [("RESOLVED", 0), ("REVERSED", 1), ("RESOLVED", 0)]
    assert (await talk.outcomes())[1].outcome == "UNRESOLVED"
    assert (await talk.store.counters())["opened"] == 4


async def test_after_an_escalation_everything_trails_until_it_is_quiet(talk):
    await talk.say(0, says=("m1",), effects=(ESCALATE,))
    for hours in (50, 100, 150):
        assert (await talk.say(hours * HOUR, says=("m1", f"m{hours}"))).state == State.NOT_BILLABLE
    fresh = await talk.say((150 + 73) * HOUR, says=("m1", "again"))
    assert fresh.state == State.AI_HANDLING
    assert await talk.states() == [("NOT_BILLABLE", 0)]


async def test_an_api_not_understood_returns_with_any_exchange_but_a_touch(talk):
    one = await talk.say(0, api=None, effects=(RESOLVE,))
    assert (await talk.say(1000, api=None, touch=True)).session_id == one.session_id
    assert (await talk.say(2000, api=None)).session_id != one.session_id


async def test_a_tool_call_counts_and_acts_once(talk):
    undo = Effect("undo", "signal", "unresolve")
    effect = dataclasses.replace(RESOLVE, call="k")
    settling = dataclasses.replace(TERMS, settle_ms=HOUR)
    await talk.say(0, says=("m",), effects=(effect,), tool_calls=("k", "k", "j"), terms=settling)
    await talk.tell(500, undo)
    await talk.say(1000, says=("m",), effects=(effect,), tool_calls=("k",))
    view = await talk.store.by_alias("conversation", "c-1")
    assert (view.state, view.tool_calls) == (State.AI_HANDLING, 2)


async def test_settling_restarts_with_activity_and_may_be_taken_back(talk):
    terms = dataclasses.replace(TERMS, settle_ms=10 * MINUTE)
    await talk.say(0, says=("m",), effects=(RESOLVE,), terms=terms)
    await talk.say(5 * MINUTE, says=("m",))
    await talk.store.heartbeat("journal", T0 + 12 * MINUTE, 1)
    assert (await talk.store.sweep()).fired == 0
    await talk.store.heartbeat("journal", T0 + 16 * MINUTE, 2)
    assert (await talk.store.sweep()).fired == 1
    (outcome,) = await talk.outcomes()
    assert (outcome.state, outcome.time_ms, outcome.ended_ms) == (
        "RESOLVED",
        T0 + 15 * MINUTE + 100,
        T0 + 5 * MINUTE + 100,
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("NO_CHARGE", ("INCONCLUSIVE", "INCONCLUSIVE", None, False)),
        ("CHARGE", ("RESOLVED", "RESOLVED", "ASSUMED", False)),
        ("HOLD", ("RESOLVED", "RESOLVED", "ASSUMED", True)),
    ],
)
async def test_silence_ends_by_the_plans_policy(talk, policy, expected):
    await talk.say(0, says=("m",), terms=dataclasses.replace(TERMS, inconclusive_policy=policy))
    await talk.store.heartbeat("journal", T0 + 61 * MINUTE, 1)
    swept = await talk.store.sweep()
    assert (swept.fired, swept.more, swept.full) == (1, False, False)
    (o,) = await talk.outcomes()
    assert (o.state, o.outcome, o.confirmation, o.held) == expected
    assert o.time_ms == T0 + 100 + 60 * MINUTE


@pytest.mark.parametrize(
    ("policy", "billable", "held"), [("NO_CHARGE", False, False), ("HOLD", True, True), ("CHARGE", True, False)]
)
async def test_a_dropped_copy_is_judged_by_the_incomplete_policy(talk, policy, billable, held):
    terms = dataclasses.replace(TERMS, incomplete_policy=policy)
    await talk.say(0, says=("m",), complete=False, effects=(RESOLVE,), terms=terms)
    (o,) = await talk.outcomes()
    assert (o.complete, o.billable, o.held) == (False, billable, held)
    assert (await talk.store.counters())["incomplete"] == 1


async def test_no_deadline_fires_before_every_live_producer_has_come_past_it(talk):
    await talk.say(0, says=("m",))
    assert (await talk.store.sweep()).fired == 0
    await talk.store.heartbeat("a", T0 + 2 * HOUR, 1)
    await talk.store.heartbeat("b", T0 + 10 * MINUTE, 1)
    assert (await talk.store.sweep()).fired == 0
    # traffic that waited in b's backlog keeps the session alive
    kept = (await talk.apply(talk.exchange(90 * MINUTE, says=("m2",), producer="ring-a"), own="a"))[0]
    assert kept.state == State.AI_HANDLING
    await talk.store.leave("b")
    await talk.store.heartbeat("a", T0 + 4 * HOUR, 2)
    assert (await talk.store.sweep()).fired == 1


async def test_a_deadline_that_lay_before_a_fact_fires_first(talk):
    first = await talk.say(0, says=("m1",))
    await talk.store.heartbeat("journal", T0, 1)
    second = await talk.say(2 * HOUR, says=("m1", "m2"))
    assert second.session_id != first.session_id
    (o,) = await talk.outcomes()
    assert (o.state, o.time_ms) == ("INCONCLUSIVE", T0 + 100 + HOUR)


async def test_attributes_come_back_as_they_were(talk):
    attributes = {"big": 2**62 + 1, "rate": 0.1, "vip": True, "note": "ok ✓"}
    await talk.say(0, says=("m",), effects=(dataclasses.replace(RESOLVE, attributes=attributes),))
    assert (await talk.outcomes())[0].attributes == attributes


async def test_sessions_without_ids_are_named_after_their_first_observation(talk):
    reply = identity.key(TENANT, "response", "resp_1")
    one = await talk.say(0, None, says=("m1",), made=(reply,))
    assert one.session_id == identity.session_id(identity.session_base(TENANT, "observation", "ring", "1"), 1)
    two = await talk.say(1000, None, says=("m2",), keys=(reply,))
    assert two.session_id == one.session_id
    three = await talk.say(2000, None, says=("m3",))
    assert three.session_id != one.session_id
    assert (await talk.store.by_alias("response", "resp_1")).id == one.session_id
