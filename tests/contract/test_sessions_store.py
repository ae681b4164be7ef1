"""The store on a real server: each test reads as the conversation it checks."""

from __future__ import annotations

import dataclasses

import pytest
import redis.asyncio as redis_async

from sidecar import identity
from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.states import State
from sidecar.sessions.store import Store

TENANT = "acme"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T0 = 1_795_000_000_000
TERMS = Terms("fin", "sha256:aa")
RESOLVE = Effect(
    "resolve_tool", "tool_call", "resolve", "RESOLVED", reason="resolve_conversation tool", digest="hmac-sha256:1"
)
ESCALATE = Effect("human_tool", "tool_call", "escalate", reason="transfer_to_human tool", digest="hmac-sha256:2")


class Talk:
    """Facts of one deployment, in order; keeps each producer's sequence as a journal would."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.last: dict[str, int] = {}

    def _next(self, producer: str) -> tuple[int, int]:
        previous = self.last.get(producer, 0)
        self.last[producer] = previous + 1
        return previous + 1, previous

    def exchange(self, at, conversation="c-1", *, producer="ring", says=(), terms=TERMS, took=100, **fields):
        sequence, previous = self._next(producer)
        keys = fields.pop("keys", None)
        if keys is None:
            keys = (identity.key(TENANT, "conversation", conversation),) if conversation else ()
        base = (
            identity.session_base(TENANT, "conversation", conversation)
            if conversation
            else identity.session_base(TENANT, "observation", producer, str(sequence))
        )
        fields.setdefault("api", "openai.chat")
        fields.setdefault("llm_calls", 1)
        observation = Observation(
            producer,
            sequence,
            TENANT,
            T0 + at,
            T0 + at + took,
            keys,
            base,
            terms,
            conversation=conversation,
            user_messages=tuple(says),
            **fields,
        )
        return observation, previous

    def signal(self, at, effect, conversation="c-1", *, ident="s-1", source="crm", producer="journal", **fields):
        sequence, previous = self._next(producer)
        alias = None if "session_id" in fields else identity.key(TENANT, "conversation", conversation)
        fields.setdefault("alias", alias)
        return Signal(producer, sequence, TENANT, source, ident, T0 + at, effect, TERMS, **fields), previous

    async def apply(self, *operations, own="journal"):
        return await self.store.apply_many(operations, own=own)

    async def say(self, at, conversation="c-1", **fields):
        return (await self.apply(self.exchange(at, conversation, **fields)))[0]

    async def tell(self, at, effect, conversation="c-1", **fields):
        return (await self.apply(self.signal(at, effect, conversation, **fields)))[0]

    async def outcomes(self):
        entries = await self.store.redis.xrange(self.store.key("outbox"))
        return [read_outcome(fields[b"body"]) for _, fields in entries]

    async def states(self):
        return [(outcome.state, outcome.revision) for outcome in await self.outcomes()]


@pytest.fixture
async def redis(redis_server):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield client
    await client.aclose()


@pytest.fixture
def talk(redis):
    return Talk(Store(redis, TENANT))


def signal_effect(event, outcome=None, **fields):
    return Effect("signal", "signal", event, outcome, **fields)


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


async def test_the_same_fact_again_has_no_effect_and_a_gap_is_a_rewind(talk):
    first, second, third = (talk.exchange(at, says=(f"m{at}",)) for at in (0, 1000, 2000))
    assert [a.status for a in await talk.apply(first, second)] == ["applied", "applied"]
    assert [a.status for a in await talk.apply(first, second)] == ["duplicate", "duplicate"]
    later = talk.exchange(3000, says=("m9",))
    (gap,) = await talk.apply(later)
    assert (gap.status, gap.mark) == ("rewind", 2)
    assert [a.status for a in await talk.apply(third, later)] == ["applied", "applied"]
    view = await talk.store.by_alias("conversation", "c-1")
    assert view.turns == 4


async def test_after_flushall_a_replay_mints_the_same_outcomes(talk, redis):
    facts = [
        talk.exchange(0, says=("m1",)),
        talk.exchange(1000, says=("m1",), effects=(RESOLVE,)),
        talk.exchange(9000, says=("m1", "m2")),
        talk.exchange(9500, says=("m1", "m2"), effects=(ESCALATE,)),
        talk.signal(9800, signal_effect("escalate"), "c-2"),
        talk.exchange(9900, "c-2", says=("x",)),
    ]
    await talk.apply(*facts)
    before = await talk.outcomes()
    assert [o.state for o in before] == ["RESOLVED", "NOT_BILLABLE", "NOT_BILLABLE"]
    await redis.flushall()
    (gap, _) = await talk.apply(*facts[1:3])
    assert gap.status == "rewind"
    assert gap.mark == 0
    await talk.apply(*facts)
    assert await talk.outcomes() == before


async def test_escalation_wins_in_either_order(talk):
    await talk.say(0, "a", says=("m",))
    await talk.tell(10, signal_effect("resolve", "RESOLVED"), "a", ident="1")
    await talk.tell(20, signal_effect("escalate"), "a", ident="2")
    await talk.tell(30, signal_effect("resolve", "RESOLVED"), "a", ident="3")
    await talk.say(0, "b", says=("m",))
    await talk.tell(10, signal_effect("escalate"), "b", ident="4")
    await talk.tell(20, signal_effect("resolve", "RESOLVED"), "b", ident="5")
    assert await talk.states() == [("RESOLVED", 0), ("NOT_BILLABLE", 1), ("NOT_BILLABLE", 0)]
    outcomes = await talk.outcomes()
    assert [o.outcome for o in outcomes] == ["RESOLVED", "ESCALATED_TO_HUMAN", "ESCALATED_TO_HUMAN"]
    assert [o.confirmation for o in outcomes] == ["CONFIRMED", None, None]
    assert outcomes[0].turns == outcomes[1].turns == 1


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


async def test_a_late_resolution_bills_an_inconclusive_session_within_the_window(talk):
    await talk.say(0, "a", says=("m",))
    await talk.say(0, "b", says=("m",))
    await talk.store.heartbeat("journal", T0 + 2 * HOUR, 1)
    assert (await talk.store.sweep()).fired == 2
    await talk.tell(5 * HOUR, signal_effect("resolve", "QUALIFIED_LEAD", reason="survey"), "a", ident="1")
    await talk.tell(80 * HOUR, signal_effect("resolve", "RESOLVED"), "b", ident="2")
    last = (await talk.outcomes())[-1]
    assert len(await talk.outcomes()) == 3
    assert (last.state, last.outcome, last.revision, last.confirmation) == (
        "RESOLVED",
        "QUALIFIED_LEAD",
        1,
        "CONFIRMED",
    )
    assert (last.reason, last.time_ms) == ("survey", T0 + 5 * HOUR)
    assert (await talk.store.counters())["late"] == 1


async def test_unresolved_takes_a_resolution_back_and_escalation_still_wins(talk):
    await talk.say(0, says=("m",), effects=(RESOLVE,))
    await talk.tell(HOUR, signal_effect("unresolve"), ident="1")
    await talk.tell(2 * HOUR, signal_effect("escalate"), ident="2")
    assert await talk.states() == [("RESOLVED", 0), ("REVERSED", 1), ("NOT_BILLABLE", 2)]
    counters = await talk.store.counters()
    assert (counters["finalized:RESOLVED"], counters["finalized:REVERSED"], counters["finalized:NOT_BILLABLE"]) == (
        0,
        0,
        1,
    )


async def test_a_signal_counts_once_by_source_and_id_whoever_brings_it(talk):
    await talk.say(0, says=("m",))
    first = await talk.tell(10, signal_effect("resolve", "RESOLVED"))
    again = await talk.tell(20, signal_effect("resolve", "RESOLVED"), producer="journal-2")
    other = await talk.tell(30, signal_effect("escalate"), source="zendesk")
    assert [first.status, again.status, other.status] == ["applied", "duplicate", "applied"]
    assert await talk.states() == [("RESOLVED", 0), ("NOT_BILLABLE", 1)]


async def test_a_signal_waits_for_its_session(talk):
    early = await talk.tell(0, signal_effect("resolve", "RESOLVED", customer="cust-9"))
    assert (early.status, early.session_id) == ("waiting", "")
    opened = await talk.say(500, says=("m",))
    assert opened.state == State.RESOLVED
    (o,) = await talk.outcomes()
    assert (o.customer, o.time_ms, o.turns) == ("cust-9", T0 + 600, 1)
    assert (await talk.say(900, says=("m",))).state == State.RESOLVED
    assert len(await talk.outcomes()) == 1


async def test_a_signal_for_a_session_that_is_forgotten_is_late_and_does_not_decide_the_next_one(talk, redis):
    await talk.say(0, says=("m1",), effects=(RESOLVE,))
    for name in await redis.keys():
        if 0 <= await redis.pttl(name) <= 5 * DAY:
            await redis.delete(name)
    assert await talk.store.by_alias("conversation", "c-1") is None
    late = await talk.tell(5 * DAY, signal_effect("resolve", "RESOLVED"))
    assert (late.status, late.final) == ("late", True)
    back = await talk.say(6 * DAY, says=("m1", "another question"))
    assert back.state == State.AI_HANDLING
    assert await talk.states() == [("RESOLVED", 0)]
    assert (await talk.store.counters())["signals_late"] == 1
    now = await talk.tell(6 * DAY + 1000, signal_effect("resolve", "RESOLVED"), ident="s-2")
    assert (now.status, now.session_id) == ("applied", back.session_id)


async def test_an_escalation_reaches_every_session_of_a_long_conversation_within_its_window(talk):
    for n in range(70):
        effect = dataclasses.replace(RESOLVE, call=f"k{n}")
        await talk.say(n * MINUTE, says=(f"m{n}",), effects=(effect,))
    await talk.tell(71 * MINUTE, signal_effect("escalate"))
    states = await talk.states()
    assert (states.count(("RESOLVED", 0)), states.count(("NOT_BILLABLE", 1))) == (70, 70)


async def test_what_the_bounds_cut_is_counted(talk, monkeypatch):
    monkeypatch.setattr("sidecar.sessions.facts.KEYS_MAX", 2)
    monkeypatch.setattr("sidecar.sessions.facts.MESSAGES_MAX", 3)
    made = tuple(identity.key(TENANT, "response", f"r{n}") for n in range(5))
    models = tuple(f"model-{n}" for n in range(20))
    await talk.say(0, says=tuple(f"m{n}" for n in range(7)), made=made, models=models)
    await talk.say(1000, says=("m6",), models=models[:2])
    counters = await talk.store.counters()
    assert (counters["keys_over"], counters["resent_messages_over"], counters["models_over"]) == (3, 4, 4)


async def test_one_more_signal_than_may_wait_is_known_before_it_is_taken(talk):
    for n in range(64):
        assert (await talk.tell(n, signal_effect("escalate"), ident=f"s{n}")).status == "waiting"
    one_more, previous = talk.signal(64, signal_effect("escalate"), ident="s64")
    again, _ = talk.signal(65, signal_effect("escalate"), ident="s1")
    other, _ = talk.signal(66, signal_effect("escalate"), "c-2", ident="s66")
    assert await talk.store.too_many_wait([one_more, again, other]) == [True, False, False]
    several = [talk.signal(70 + n, signal_effect("escalate"), "c-2", ident=f"t{n}")[0] for n in range(66)]
    assert await talk.store.too_many_wait(several) == [False] * 64 + [True] * 2
    # taken all the same, on two replicas at once or while Redis was away, it waits too
    (answer,) = await talk.store.apply_many([(one_more, previous)])
    assert answer.status == "waiting"
    await talk.say(300)
    assert await talk.store.too_many_wait([one_more]) == [False]


async def test_only_a_conversations_own_ids_outlive_its_session(talk, redis):
    reply = identity.key(TENANT, "response", "resp_1")
    await talk.say(0, says=("m1",), made=(reply,), effects=(RESOLVE,))
    own = identity.alias_digest(TENANT, "conversation", "c-1")
    hours = {digest: await redis.pttl(talk.store.key("alias", digest)) / HOUR for digest in (own, reply.digest)}
    assert 263 < hours[own] <= 96 + 7 * 24
    assert 95 < hours[reply.digest] <= 96


async def test_a_signal_waits_for_an_alias_that_an_open_session_gets_later(talk):
    ticket = identity.key(TENANT, "ticket", "55")
    assert (await talk.tell(0, signal_effect("escalate"), alias=ticket)).status == "waiting"
    await talk.say(100, says=("m",))
    assert await talk.states() == []
    await talk.say(200, says=("m", "n"), made=(ticket,))
    assert await talk.states() == [("NOT_BILLABLE", 0)]


async def test_signals_that_waited_under_several_names_apply_in_the_order_of_their_arrival(talk):
    names = [identity.key(TENANT, "conversation", name) for name in ("c-1", "c-2")]
    await talk.tell(10, signal_effect("resolve", "RESOLVED"), ident="1", alias=names[1])
    await talk.tell(20, signal_effect("unresolve"), ident="2", alias=names[0])
    await talk.say(30, keys=tuple(names), terms=dataclasses.replace(TERMS, settle_ms=MINUTE))
    assert (await talk.store.by_alias("conversation", "c-1")).state == State.AI_HANDLING


async def test_a_resolution_goes_to_the_newest_session_an_escalation_to_all_in_their_window(talk):
    await talk.say(0, says=("m1",), effects=(RESOLVE,))
    await talk.say(HOUR // 2, says=("m2",))
    await talk.tell(HOUR, signal_effect("resolve", "RESOLVED"), ident="1")
    await talk.tell(2 * HOUR, signal_effect("escalate"), ident="2")
    posted = [(o.state, o.revision, o.turns) for o in await talk.outcomes()]
    assert posted[:2] == [("RESOLVED", 0, 1), ("RESOLVED", 0, 1)]
    assert sorted(posted[2:]) == [("NOT_BILLABLE", 1, 1), ("NOT_BILLABLE", 1, 1)]


async def test_the_first_customer_stays_and_a_different_later_one_is_counted(talk):
    await talk.say(0, says=("m1",), customer="first")
    await talk.say(1000, says=("m2",), customer="second")
    await talk.tell(2000, signal_effect("resolve", "RESOLVED", customer="third"))
    (o,) = await talk.outcomes()
    assert o.customer == "first"
    assert (await talk.store.counters())["customer_conflicts"] == 2


async def test_attributes_come_back_as_they_were(talk):
    attributes = {"big": 2**62 + 1, "rate": 0.1, "vip": True, "note": "ok ✓"}
    await talk.say(0, says=("m",), effects=(dataclasses.replace(RESOLVE, attributes=attributes),))
    assert (await talk.outcomes())[0].attributes == attributes


async def test_a_full_outbox_makes_finalization_wait_and_nothing_is_written(redis):
    talk = Talk(Store(redis, TENANT, outbox_max=1))
    await talk.say(0, "a", says=("m",), effects=(RESOLVE,))
    blocked = talk.exchange(10, "b", says=("m",), effects=(RESOLVE,))
    (answer,) = await talk.apply(blocked)
    assert (answer.status, answer.mark) == ("full", 1)
    assert await talk.store.by_alias("conversation", "b") is None
    await redis.xtrim(talk.store.key("outbox"), maxlen=0)
    (answer,) = await talk.apply(blocked)
    assert answer.status == "applied"


async def test_sessions_without_ids_are_named_after_their_first_observation(talk):
    reply = identity.key(TENANT, "response", "resp_1")
    one = await talk.say(0, None, says=("m1",), made=(reply,))
    assert one.session_id == identity.session_id(identity.session_base(TENANT, "observation", "ring", "1"), 1)
    two = await talk.say(1000, None, says=("m2",), keys=(reply,))
    assert two.session_id == one.session_id
    three = await talk.say(2000, None, says=("m3",))
    assert three.session_id != one.session_id
    assert (await talk.store.by_alias("response", "resp_1")).id == one.session_id


async def test_every_key_expires_but_those_that_are_bounded_otherwise(talk, redis):
    await talk.store.heartbeat("journal", T0, 1, dropped=3)
    await talk.store.hash_key("00")
    await talk.store.statement(T0)
    await talk.say(0, "a", says=("m",), tool_calls=("k",))
    await talk.say(0, "b", says=("m",), effects=(RESOLVE,), tool_calls=("k",))
    await talk.tell(0, signal_effect("escalate"), "never seen")
    prefix = len(talk.store.prefix) + 1
    eternal = set()
    async for name in redis.scan_iter():
        if await redis.pttl(name) == -1:
            eternal.add(name.decode()[prefix:])
    counted = {"dropped", "counters", "finalized"}
    assert eternal == {"outbox", "deadlines", "marks", "beats", "hash-key", "generation"} | counted
    final = await talk.store.by_alias("conversation", "b")
    assert 95 * HOUR < await redis.pttl(talk.store.key("session", final.id)) <= 96 * HOUR
    assert 95 * HOUR < await redis.pttl(talk.store.key("calls", final.id)) <= 96 * HOUR


async def test_what_producers_dropped_is_kept_as_one_total_when_they_are_gone(talk, redis):
    store = talk.store
    for n in range(100):
        await store.heartbeat(f"pod-{n}", T0, 1, dropped=2)
        await (store.leave(f"pod-{n}") if n % 2 else store.prune({f"pod-{n}": "1"}))
    assert await redis.hgetall(store.key("dropped")) == {b"*": b"200"}
    # The queue of one goes on counting under a sidecar that is started again.
    again = Store(redis, TENANT)
    await again.heartbeat("pod-1", T0, 2, dropped=5)
    assert await redis.hgetall(store.key("dropped")) == {b"*": b"200", b"pod-1": b"3"}
    await again.leave("pod-1")
    third = Store(redis, TENANT)
    await third.heartbeat("pod-1", T0, 3, dropped=5)
    assert sum(map(int, await redis.hvals(store.key("dropped")))) == 203


async def test_couriers_that_are_gone_are_forgotten_but_not_what_they_hold(talk, redis):
    outbox = talk.store.key("outbox")
    assert await talk.store.forget_couriers(0) == 0
    await talk.say(0, says=("m",), effects=(RESOLVE,))
    assert await talk.store.forget_couriers(0) == 0
    await redis.xgroup_create(outbox, "courier", id="0")
    await redis.xreadgroup("courier", "holds", {outbox: ">"}, count=1)
    for n in range(20):
        await redis.xgroup_createconsumer(outbox, "courier", f"pod-{n}")
    assert await talk.store.forget_couriers(3_600_000) == 0
    assert await talk.store.forget_couriers(-1) == 20
    assert [c["name"] for c in await redis.xinfo_consumers(outbox, "courier")] == [b"holds"]


async def test_a_number_that_nobody_asks_for_again_lives_as_long_as_its_session(talk, redis):
    await talk.say(0, None, says=("m",))
    await talk.say(0, "named", says=("m",))
    days = sorted([await redis.pttl(name) / DAY for name in await redis.keys("*:number:*")])
    assert 30 < days[0] < 31
    assert 399 < days[1] <= 400


async def test_the_hash_key_is_made_once(talk):
    assert await talk.store.hash_key("aa") == "aa"
    assert await talk.store.hash_key("bb") == "aa"


async def test_scripts_are_loaded_again_after_a_restart(talk, redis):
    await talk.say(0, says=("m",))
    await redis.script_flush()
    assert [a.status for a in await talk.apply(talk.exchange(1000), talk.exchange(2000))] == ["applied", "applied"]


async def test_out_of_memory_refuses_facts_whole_and_still_finishes_sessions(talk, redis):
    await talk.say(0, says=("m",))
    await talk.store.heartbeat("journal", T0, 1)
    await redis.config_set("maxmemory", 1)
    fact = talk.exchange(1000, "other", says=("m",), effects=(RESOLVE,))
    (answer,) = await talk.apply(fact)
    assert answer.status == "error"
    assert "OOM" in answer.reason or "maxmemory" in answer.reason
    await talk.store.heartbeat("journal", T0 + 2 * HOUR, 2)
    assert (await talk.store.sweep()).fired == 1
    await redis.config_set("maxmemory", 0)
    (answer,) = await talk.apply(fact)
    assert answer.status == "applied"


async def test_a_fact_that_can_never_be_applied_is_refused_and_passed(talk):
    nonsense = talk.exchange(0, effects=(Effect("x", "tool_call", "explode"),))  # type: ignore[arg-type]
    after = talk.exchange(1000, says=("m",))
    refused, applied = await talk.apply(nonsense, after)
    assert refused.status == "refused"
    assert "explode" in refused.reason
    assert applied.status == "applied"
    counters = await talk.store.counters()
    assert (counters["refused"], counters["opened"]) == (1, 1)


async def test_lists_and_timelines_for_people(talk):
    for n in range(5):
        await talk.say(n * 1000, f"c-{n}", says=("m",), effects=(RESOLVE,) if n % 2 else ())
    assert [view.conversation for view in await talk.store.list(3)] == ["c-4", "c-3", "c-2"]
    assert [view.conversation for view in await talk.store.list(10, "RESOLVED")] == ["c-3", "c-1"]
    view = await talk.store.by_alias("conversation", "c-1")
    assert [entry["what"] for entry in view.timeline] == ["opened", "exchange", "rule", "timer"]
    assert view.timeline[-1]["to"] == "RESOLVED"
    assert view.to_dict()["finalized_at"].endswith("Z")
    assert await talk.store.session("ses_none") is None
    assert await talk.store.by_alias("conversation", "none") is None


async def test_a_long_timeline_keeps_its_beginning_and_its_end(talk):
    await talk.apply(*(talk.exchange(n * 1000, says=(f"m{n}",)) for n in range(200)))
    view = await talk.store.by_alias("conversation", "c-1")
    assert len(view.timeline) == 120
    assert view.omitted == 201 - 120
    assert view.timeline[0]["what"] == "opened"
    assert view.timeline[-1]["at"] == T0 + 199_100


async def test_old_aliases_make_room_but_the_conversations_own_stays(talk):
    keys = [identity.key(TENANT, "response", f"r{n}") for n in range(300)]
    await talk.apply(*(talk.exchange(n * 10, says=("m",), made=(keys[n],)) for n in range(300)))
    assert await talk.store.by_alias("conversation", "c-1") is not None
    assert await talk.store.by_alias("response", "r299") is not None
    assert await talk.store.by_alias("response", "r20") is None
    assert (await talk.store.counters())["aliases_dropped"] == 301 - 256
