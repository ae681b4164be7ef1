"""Ids and texts that several conversations have: what a merge leaves of them, how long they lead, signals by them."""

from __future__ import annotations

import pytest
import redis.asyncio as redis_async
from calls import MINUTE, SECOND, T0, TENANT, TERMS, Calls, named, texts

from sidecar import identity
from sidecar.intake.signal import Signal
from sidecar.policy.effect import Effect
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.store import Store

RESPONSE = identity.key(TENANT, "response", "chatcmpl-123")
TOOL = identity.key(TENANT, "tool_call", "call_9hRzq4WkqXvS2Yd8")
ONE, TWO = (identity.key(TENANT, "request", name) for name in ("idem-1", "idem-2"))
TRACE = identity.key(TENANT, "trace", "0af7651916cd43dd8448eb211c80319c")
DONE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED")
DAY_MS, LATE = 86_400_000, 5 * MINUTE


@pytest.fixture
async def calls(redis_server):
    redis = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Calls(Store(redis, TENANT))
    await redis.aclose()


def signal(sequence: int, event: str = "resolve", key=RESPONSE, customer: str | None = None):
    effect = Effect("told", "signal", event, "RESOLVED" if event == "resolve" else None, customer=customer)
    told = Signal("s", sequence, TENANT, "crm", f"s-{sequence}", T0 + LATE, effect, TERMS, alias=key)
    return told, sequence - 1


async def states(calls, *sessions: str) -> list[str]:
    return [(await calls.store.session(each)).state for each in sessions]


async def forget(redis, days: int) -> None:
    """As when so many days pass in which nothing happens."""
    for name in await redis.keys():
        if 0 <= await redis.pttl(name) < days * DAY_MS:
            await redis.delete(name)


# -- two that turn out to be one -----------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [0, 1])
async def test_who_made_an_id_made_it_still_when_one_with_who_handed_it_on(calls, maker):
    made: list[dict] = [{}, {}]
    made[maker] = {"made": (RESPONSE,)}
    one = await calls.make(ONE, caller="k0", **made[0])
    three = await calls.make(made=(RESPONSE,), caller="k3")
    await calls.make(made=(RESPONSE,), caller="k4")
    two = await calls.make(TWO, caller="k1", **made[1])
    # the other hands it on, under credentials that tell of none that made it
    assert await calls.make((TWO, ONE)[maker], RESPONSE, caller="k8") == (two, one)[maker]
    assert await calls.make(ONE, TWO, caller="k8") == one != two
    assert await calls.make(RESPONSE, caller=f"k{maker}") == one
    assert await calls.make(RESPONSE, caller="k3") == three


async def test_an_open_end_is_left_by_one_that_has_passed_it(calls):
    """Three say the same; one goes on, and turns out to be one with another that stands there still."""
    one = await calls.make(ONE, thread=texts("hi", reply="hello"))
    two = await calls.make(TWO, thread=texts("hi", reply="hello"))
    assert await calls.make(TWO, thread=texts("hi", "hello", "more", reply="x")) == two
    three = await calls.say("hi", reply="hello")
    assert await calls.make(ONE, TWO) == one
    assert await calls.say("hi", "hello", "so", reply="y") == one
    assert await calls.say("hi", "hello", "so", reply="z") == three


async def test_what_the_call_that_merges_passes_is_passed(calls):
    """It is found by its texts, asks again what was answered, and its trace joins the session to an older one."""
    one = await calls.make(TRACE)
    two = await calls.say("hi", reply="hello")
    assert await calls.say("hi", "hello", "more", reply="x") == two
    again = calls.now + LATE
    assert await calls.make(TRACE, thread=texts("hi", "hello", "more", reply="y"), at=again) == one
    assert (await calls.store.session(two)).id == one
    three = await calls.say("hi", reply="hello")
    assert await calls.say("hi", "hello", "more", reply="x") == three
    # nobody has gone on from this answer but the one
    assert await calls.say("hi", "hello", "more", "x", "go", reply="z") == three


async def test_those_that_made_the_same_are_found_by_it_once_they_are_one(calls):
    one = await calls.make(ONE, made=(RESPONSE,))
    two = await calls.make(TWO, made=(RESPONSE,))
    assert await calls.store.by_alias("response", "chatcmpl-123") is None
    assert await calls.make(ONE, TWO) == one != two
    assert (await calls.store.by_alias("response", "chatcmpl-123")).id == one
    (answer,) = await calls.apply(signal(1))
    assert (answer.status, answer.session_id) == ("applied", one)


async def test_an_answer_that_is_applied_after_what_follows_it_is_passed(calls):
    one = await calls.say("hi", "hello", "so", reply="y", at=10 * SECOND, replica="b")
    assert await calls.say("hi", reply="hello", at=5 * SECOND) == one
    two = await calls.say("hi", reply="hello", at=20 * SECOND)
    assert await calls.say("hi", "hello", "more", reply="x") == two != one
    assert await calls.say("hi", "hello", "so", "y", "go", reply="z") == one


async def test_who_made_an_id_is_remembered_before_who_handed_it_on(calls):
    first, second = [await calls.make(made=(RESPONSE,), caller=f"k{n}") for n in range(2)]
    for n in range(LIMITS["text_sessions"]):
        await calls.make(RESPONSE, caller=f"h{n}")
    raw = await calls.store.redis.hgetall(calls.store.key("text", RESPONSE.digest))
    assert {first.encode(), second.encode()} < set(raw)
    assert len(raw) == LIMITS["text_sessions"]


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["resolve", "escalate", "unresolve"])
async def test_a_signal_by_an_id_of_several_conversations_is_for_none_and_says_so(calls, event):
    one = await calls.make(made=(RESPONSE,), caller="k1")
    two = await calls.make(made=(RESPONSE,), caller="k2", customer="c2")
    (answer,) = await calls.apply(signal(1, event))
    assert (answer.status, answer.session_id, answer.final) == ("ambiguous", "", True)
    (again,) = await calls.apply((signal(1, event)[0], 0))
    assert again.status == "duplicate"
    assert await states(calls, one, two) == ["AI_HANDLING"] * 2
    counters = await calls.counters()
    assert (counters["signals_ambiguous"], counters.get("signals_late", 0)) == (1, 0)
    # it waits for none either
    three = await calls.make(made=(RESPONSE,), caller="k3")
    assert await states(calls, three) == ["AI_HANDLING"]


async def test_a_signal_by_an_id_of_several_is_for_the_one_of_its_customer(calls):
    one = await calls.make(made=(RESPONSE,), customer="c1")
    two = await calls.make(made=(RESPONSE,), customer="c2")
    other = await calls.make(made=(RESPONSE,))
    nobody, answer = await calls.apply(signal(1, customer="c3"), signal(2, "escalate", customer="c2"))
    assert (nobody.status, answer.status, answer.session_id) == ("ambiguous", "applied", two)
    assert await states(calls, one, two, other) == ["AI_HANDLING", "NOT_BILLABLE", "AI_HANDLING"]


async def test_a_signal_by_an_id_that_more_made_than_are_remembered_is_for_none(calls):
    for n in range(LIMITS["text_sessions"] + 1):
        await calls.make(made=(RESPONSE,), customer=f"c{n}")
    (answer,) = await calls.apply(signal(1, customer="c5"))
    assert answer.status == "ambiguous"


async def test_a_signal_by_an_id_of_several_that_are_forgotten_is_late(calls):
    for caller in ("k1", "k2"):
        await calls.make(made=(RESPONSE,), caller=caller)
    await calls.make(made=(TOOL,), effects=(DONE,), customer="c1")
    await calls.make(made=(TOOL,), caller="k2")
    assert not any(await calls.store.too_many_wait([signal(n)[0] for n in range(LIMITS["waiting"] + 1)]))
    for session in await calls.store.list():
        if session.state != "AI_HANDLING" or session.customer is None:
            await calls.store.redis.delete(calls.store.key("session", session.id))
    (answer,) = await calls.apply(signal(1))
    assert answer.status == "late"
    assert (await calls.counters())["signals_late"] == 1


async def test_an_id_of_one_that_is_forgotten_and_of_another_tells_a_signal_nothing(calls):
    await calls.make(made=(RESPONSE,), effects=(DONE,), caller="k1")
    two = await calls.make(made=(RESPONSE,), caller="k2", customer="c2")
    await forget(calls.store.redis, 7)
    nobody, answer = await calls.apply(signal(1), signal(2, customer="c2"))
    assert (nobody.status, answer.status, answer.session_id) == ("ambiguous", "applied", two)


# -- how long they lead --------------------------------------------------------------------------------------------


async def test_that_an_id_was_made_twice_is_known_when_one_that_made_it_is_forgotten(calls):
    await calls.make(named("chat-9"), effects=(DONE,), caller="k0")
    one = await calls.make(made=(RESPONSE,), caller="k1")
    await calls.make(made=(RESPONSE,), caller="k2")
    await calls.make(named("chat-9"), made=(RESPONSE,), says=(), caller="k0")  # trailing
    await forget(calls.store.redis, 7)
    four = await calls.make(made=(RESPONSE,), caller="k4")
    assert await calls.make(RESPONSE, caller="k1") == one
    assert await calls.make(RESPONSE, caller="k4") == four
    # whose it is may be forgotten: it is not that of another who has the same credentials
    await calls.make(made=(TOOL,), effects=(DONE,), caller="k1")
    two = await calls.make(made=(TOOL,), caller="k1")
    three = await calls.make(made=(TOOL,), caller="k3")
    await forget(calls.store.redis, 7)
    assert await calls.make(TOOL, caller="k1") not in (two, three)
    assert await calls.make(TOOL, caller="k3") == three


async def test_an_answer_that_another_gets_too_keeps_no_final_session(calls):
    final = await calls.make(made=(RESPONSE,), effects=(DONE,))
    names = [calls.store.key(kind, final) for kind in ("session", "timeline", "aliases")]
    for name in names:
        await calls.store.redis.pexpire(name, DAY_MS)
    other = await calls.make(made=(RESPONSE,), customer="c2")
    assert other != final
    texts_name = calls.store.key("texts", final)
    assert all([0 < await calls.store.redis.pttl(name) <= DAY_MS for name in (names[0], names[1], texts_name)])
    await forget(calls.store.redis, 2)
    assert await calls.store.session(final) is None
    assert await calls.make(RESPONSE, customer="c2") == other


# -- counted -------------------------------------------------------------------------------------------------------


async def test_what_was_handed_on_before_it_was_known_is_not_made_twice(calls):
    """The answer is that of which the id was handed on, though to another customer's session."""
    one = await calls.make(TOOL, customer="c1", at=SECOND)
    assert await calls.make(made=(TOOL,), customer="c2", at=0) != one
    assert (await calls.counters()).get("made_twice", 0) == 0


async def test_what_one_session_makes_again_counts_once(calls):
    await calls.make(named("chat-1"), made=(RESPONSE,))
    for _ in range(3):
        await calls.make(named("chat-2"), RESPONSE)
        await calls.make(named("chat-2"), made=(RESPONSE,))
    assert (await calls.counters())["made_twice"] == 1


# -- requests ------------------------------------------------------------------------------------------------------


async def test_requests_of_two_customers_with_the_same_id_are_of_two_sessions(calls):
    one = await calls.make(ONE, customer="c1")
    assert await calls.make(ONE, customer="c2") != one
    assert await calls.make(ONE, customer="c1") == one
    assert await calls.make(ONE) == one
