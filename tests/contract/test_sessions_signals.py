"""Signals on a real server: which session one goes to, which of several wins, and what waits or comes too late."""

from __future__ import annotations

import dataclasses

from session_facts import DAY, HOUR, MINUTE, RESOLVE, T0, TENANT, TERMS, signal_effect

from sidecar import identity
from sidecar.sessions.states import State


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
