"""Calls that come through any replica in any order, and how much is remembered of them for how long."""

from __future__ import annotations

from calls import HOUR, RESOLVE, SECOND, T0, TRACE, named, texts

from sidecar.sessions.scripts import LIMITS

# -- any replica, replay -----------------------------------------------------------------------------------------


async def test_what_follows_something_unknown_waits_while_another_replica_may_bring_it(calls):
    await calls.store.heartbeat("journal-a", T0, 1)
    await calls.store.heartbeat("journal-b", T0 + 10 * SECOND, 1)
    first = calls.call(at=0, replica="a", thread=texts("hi", reply="hello"))
    second = calls.call(at=5 * SECOND, replica="b", thread=texts("hi", "hello", "bill?", reply="paid"))
    options = {"own": "journal-b", "patient_from_ms": T0 + 3 * SECOND}
    (early,) = await calls.apply(second, **options)
    assert (early.status, early.final, early.mark) == ("early", False, 0)
    assert await calls.counters() == {}
    (one,) = await calls.apply(first, own="journal-a")
    (two,) = await calls.apply(second, **options)
    assert two.session_id == one.session_id


async def test_patience_ends_and_what_comes_late_is_joined(calls):
    first = calls.call(at=0, replica="a", thread=texts("hi", reply="hello"))
    second = calls.call(at=5 * SECOND, replica="b", thread=texts("hi", "hello", "bill?", reply="paid"))
    await calls.store.heartbeat("journal-a", T0, 1)
    (two,) = await calls.apply(second, own="journal-b", patient_from_ms=T0 + 6 * SECOND)
    (one,) = await calls.apply(first, own="journal-a")
    assert one.session_id == two.session_id
    view = await calls.store.session(one.session_id)
    assert (view.started_ms, view.llm_calls) == (T0, 2)


async def test_a_replay_in_another_order_finds_the_same_sessions(calls, redis):
    chat, thread, trace = named("chat-1", "body:id"), named("thread-1", "path:/threads/{}"), TRACE
    operations = [
        calls.call(replica="a", thread=texts("hi", reply="hello")),
        calls.call(replica="b", thread=texts("hi", reply="hello")),
        calls.call(replica="b", thread=texts("hi", "hello", "bill?", reply="paid"), effects=(RESOLVE,)),
        calls.call(replica="a", thread=texts("hi", "hello", "bill?", "paid", "more", reply="ok")),
        calls.call(thread, replica="b"),
        calls.call(chat, replica="a"),
        calls.call(chat, thread, replica="a"),
        calls.call(trace, replica="b", thread=texts("sub", reply="found")),
        calls.call(chat, trace, replica="a", effects=(RESOLVE,)),
    ]
    before = await calls.apply(*operations)
    posted = {(event.session_id, event.revision) for answer in before for event in answer.events}
    assert len(posted) == 2
    await redis.flushall()
    order = sorted(range(len(operations)), key=lambda n: (operations[n][0].producer == "a", n))
    again = await calls.apply(*(operations[n] for n in order), went=[before[n].went for n in order])
    sessions = {n: (await calls.store.session(answer.session_id)).id for n, answer in zip(order, again, strict=True)}
    lives = [(await calls.store.session(answer.session_id)).id for answer in before]
    assert [sessions[n] for n in range(len(operations))] == lives
    assert {(event.session_id, event.revision) for answer in again for event in answer.events} == posted


async def test_applying_again_without_loss_changes_nothing(calls):
    operations = [
        calls.call(thread=texts("hi", reply="hello")),
        calls.call(thread=texts("hi", "hello", "x", reply="y")),
    ]
    await calls.apply(*operations)
    before = await calls.counters()
    assert [answer.status for answer in await calls.apply(*operations)] == ["duplicate"] * 2
    assert await calls.counters() == before


# -- bounds, lives, wiring ---------------------------------------------------------------------------------------


async def test_a_text_leads_to_so_many_sessions_and_those_still_open_ended_stay(calls):
    sessions = [await calls.say("hi", reply=f"hello {n}") for n in range(LIMITS["text_sessions"] + 3)]
    assert len(set(sessions)) == len(sessions)
    assert (await calls.counters())["text_sessions_dropped"] == 3
    assert await calls.say("hi", "hello 0", "x", reply="y") == sessions[0]


async def test_a_session_has_so_many_texts_the_oldest_go(calls, redis):
    said = ["q0"]
    operations = []
    for n in range(LIMITS["texts"] // 3 + 5):
        operations.append(calls.call(thread=texts(*said, reply=f"a{n}")))
        said += [f"a{n}", f"q{n + 1}"]
    answers = await calls.apply(*operations)
    assert len({answer.session_id for answer in answers}) == 1
    assert (await calls.counters())["texts_dropped"] == 3 * len(operations) - LIMITS["texts"]
    assert await redis.llen(calls.store.key("texts", answers[0].session_id)) == LIMITS["texts"]


async def test_texts_and_what_was_merged_expire(calls, redis):
    await calls.make(TRACE, thread=texts("hi", reply="hello"))
    await calls.say("bye", opens=False)
    await calls.make(named("a", "x"))
    await calls.make(named("b", "y"))
    await calls.make(named("a", "x"), named("b", "y"))
    final = await calls.say("end", reply="done", effects=(RESOLVE,))
    eternal = {name.decode() async for name in redis.scan_iter() if await redis.pttl(name) == -1}
    bounded = {"outbox", "deadlines", "counters", "finalized"}
    assert {name.removeprefix(calls.store.prefix + ":") for name in eternal} == bounded
    assert await redis.pttl(calls.store.key("text", "state end done")) <= 96 * HOUR
    assert await redis.pttl(calls.store.key("texts", final)) <= 96 * HOUR


async def test_the_counters_tell_how_the_deployment_is_wired(calls):
    await calls.make(named("c-1"), customer="x")
    await calls.make(named("c-1"))
    await calls.say("hi", reply="hello", customer="x")
    await calls.say("hi", "hello", "y", reply="z")
    await calls.make(named("c-1"), touch=True)
    counters = await calls.counters()
    assert (counters["exchanges"], counters["exchanges_with_id"], counters["exchanges_with_customer"]) == (4, 2, 2)
    found = {name.partition(":")[2]: n for name, n in counters.items() if name.startswith("found_by:")}
    assert found == {"nothing": 2, "conversation": 1, "text": 1}
    assert counters["opened"] == 2
