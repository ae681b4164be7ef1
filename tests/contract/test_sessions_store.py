"""The store on a real server: a fact counts once, and all that is kept has a bound and an end."""

from __future__ import annotations

from session_facts import DAY, ESCALATE, HOUR, RESOLVE, T0, TENANT, Talk, signal_effect

from sidecar import identity
from sidecar.policy.effect import Effect
from sidecar.sessions.store import Store


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


async def test_what_the_bounds_cut_is_counted(talk, monkeypatch):
    monkeypatch.setattr("sidecar.sessions.facts.KEYS_MAX", 2)
    monkeypatch.setattr("sidecar.sessions.facts.MESSAGES_MAX", 3)
    made = tuple(identity.key(TENANT, "response", f"r{n}") for n in range(5))
    models = tuple(f"model-{n}" for n in range(20))
    await talk.say(0, says=tuple(f"m{n}" for n in range(7)), made=made, models=models)
    await talk.say(1000, says=("m6",), models=models[:2])
    counters = await talk.store.counters()
    assert (counters["keys_over"], counters["resent_messages_over"], counters["models_over"]) == (3, 4, 4)


async def test_only_a_conversations_own_ids_outlive_its_session(talk, redis):
    reply = identity.key(TENANT, "response", "resp_1")
    await talk.say(0, says=("m1",), made=(reply,), effects=(RESOLVE,))
    own = identity.alias_digest(TENANT, "conversation", "c-1")
    hours = {digest: await redis.pttl(talk.store.key("alias", digest)) / HOUR for digest in (own, reply.digest)}
    assert 263 < hours[own] <= 96 + 7 * 24
    assert 95 < hours[reply.digest] <= 96


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


async def test_every_key_expires_but_those_that_are_bounded_otherwise(talk, redis):
    await talk.store.heartbeat("journal", T0, 1, dropped=3)
    await talk.store.hash_key("00")
    await talk.say(0, "a", says=("m",), tool_calls=("k",))
    await talk.say(0, "b", says=("m",), effects=(RESOLVE,), tool_calls=("k",))
    await talk.tell(0, signal_effect("escalate"), "never seen")
    assert await talk.store.statement(T0) == 1
    prefix = len(talk.store.prefix) + 1
    eternal = set()
    async for name in redis.scan_iter():
        if await redis.pttl(name) == -1:
            eternal.add(name.decode()[prefix:])
    counted = {"dropped", "counters", "finalized"}
    assert eternal == {"outbox", "deadlines", "marks", "beats", "hash-key", "generation", "told-since"} | counted
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
