"""Ids that answers make up: whoever hands one on goes on with who made it; who makes the same has nothing in common."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import redis.asyncio as redis_async
from calls import MINUTE, SECOND, T0, TENANT, Calls, named, texts

from sidecar import identity
from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.policy.effect import Effect
from sidecar.policy.loading import builtin_plan
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.store import Store
from sidecar.wire.records import EndFlag

RESPONSE = identity.key(TENANT, "response", "chatcmpl-123")
TOOL = identity.key(TENANT, "tool_call", "call_9hRzq4WkqXvS2Yd8")
LATE = 5 * MINUTE
ANSWER = "An answer like any other."


@pytest.fixture
async def calls(redis_server):
    redis = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Calls(Store(redis, TENANT))
    await redis.aclose()


# -- handed on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [RESPONSE, TOOL])
async def test_what_is_handed_on_goes_on_with_who_made_it(calls, key):
    one = await calls.make(made=(key,))
    other = await calls.make()
    assert await calls.make(key, replica="b") == one != other
    assert (await calls.counters())["found_by:" + key.kind] == 1


@pytest.mark.parametrize("key", [RESPONSE, TOOL])
async def test_the_answer_that_made_it_is_applied_later(calls, key):
    """Another replica saw it, and was behind. It opens nothing, and adds to what has gone on without it."""
    made = calls.call(made=(key,), at=0)
    two = await calls.make(key, at=SECOND, replica="b")
    (answer,) = await calls.apply(made)
    assert answer.session_id == two
    assert (await calls.store.session(two)).llm_calls == 2
    assert (await calls.counters())["opened"] == 1


@pytest.mark.parametrize("key", [RESPONSE, TOOL])
async def test_the_answer_that_made_it_is_applied_later_and_is_known_by_its_texts(calls, key):
    """Two sessions are open by then: they turn out to be one."""
    one = await calls.say("hi", reply="hello", at=0)
    made = calls.call(thread=texts("hi", "hello", "look", reply="found"), made=(key,), at=5 * SECOND)
    two = await calls.make(key, at=10 * SECOND, replica="b")
    assert two != one
    (answer,) = await calls.apply(made)
    assert answer.session_id == one
    assert (await calls.store.session(two)).id == one
    assert (await calls.counters())["merged"] == 1


async def test_what_hands_on_the_ids_of_two_makes_them_one(calls):
    one = await calls.make(made=(RESPONSE,))
    two = await calls.make(made=(TOOL,))
    assert await calls.make(TOOL, RESPONSE) == one != two
    assert (await calls.store.session(two)).id == one
    # but not of two customers
    other = identity.key(TENANT, "tool_call", "call_A1B2C3D4E5F6")
    await calls.make(made=(other,), customer="c2")
    await calls.make(TOOL, customer="c1")
    assert await calls.make(TOOL, other) == one
    assert (await calls.counters())["merged"] == 1


async def test_two_that_hand_on_what_nobody_was_seen_to_make_are_one(calls):
    """The conversation began before it was watched."""
    one = await calls.make(TOOL, caller="k1")
    assert await calls.make(TOOL, caller="k1", replica="b") == one
    # with other credentials it may be another answer that had the same id
    assert await calls.make(TOOL, caller="k2") != one
    assert await calls.make(TOOL, caller="k1", customer="c1") == one
    assert await calls.make(TOOL, caller="k1", customer="c2") != one


async def test_an_answer_is_not_that_of_which_the_id_was_handed_on_before(calls):
    one = await calls.make(RESPONSE, at=SECOND)
    later = await calls.make(made=(RESPONSE,), at=LATE)
    assert later != one
    assert (await calls.counters())["made_twice"] == 1
    # and whom it leads to now, nothing tells
    assert await calls.make(RESPONSE, at=LATE + SECOND) not in (one, later)


async def test_whoever_it_is_handed_on_to_is_no_other_customer(calls):
    one = await calls.make(made=(TOOL,), customer="c1")
    assert await calls.make(TOOL, customer="c2") != one
    assert await calls.make(TOOL) == one
    handed = await calls.make(RESPONSE, at=SECOND, customer="c1")
    assert await calls.make(made=(RESPONSE,), at=0, customer="c2") != handed
    assert (await calls.counters()).get("merged", 0) == 0


# -- made twice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [RESPONSE, TOOL])
async def test_what_is_made_twice_joins_nothing(calls, key):
    sessions = [
        await calls.make(made=(key,), caller=f"k{n}", customer=customer, replica="ab"[n % 2])
        for n, customer in enumerate(("c1", "c2", None, None))
    ]
    sessions.append(await calls.make(named("chat-1"), made=(key,)))
    assert len(set(sessions)) == 5
    counters = await calls.counters()
    assert (counters["opened"], counters["made_twice"], counters.get("merged", 0)) == (5, 4, 0)
    assert [(await calls.store.session(each)).turns for each in sessions] == [1] * 5
    assert await calls.store.by_alias(key.kind, "chatcmpl-123") is None


@pytest.mark.parametrize("key", [RESPONSE, TOOL])
async def test_two_open_conversations_that_make_the_same_stay_two(calls, key):
    one = await calls.say("hi", reply="hello", caller="k1")
    two = await calls.say("ho", reply="hello", caller="k2")
    assert await calls.say("hi", "hello", "more", reply="x", made=(key,), caller="k1") == one
    assert await calls.say("ho", "hello", "more", reply="y", made=(key,), caller="k2") == two
    assert (await calls.store.session(one)).id != (await calls.store.session(two)).id
    # what is handed on is found by what else it tells
    assert await calls.make(key, thread=texts("ho", "hello", "more", "y", "so", reply="z"), caller="k2") == two
    assert await calls.make(key, thread=texts("hi", "hello", "more", "x", "so", reply="z"), caller="k1") == one


async def test_of_those_that_made_it_the_customer_tells_then_the_texts_then_the_credentials(calls):
    one = await calls.make(made=(TOOL,), caller="k1", customer="c1")
    two = await calls.make(made=(TOOL,), caller="k1", customer="c2")
    three = await calls.say("hi", reply="found", made=(TOOL,), caller="k3")
    assert await calls.make(TOOL, caller="k1", customer="c2") == two
    assert await calls.make(TOOL, caller="k3", customer="c1") == one
    assert await calls.make(TOOL, caller="k9", thread=texts("hi", "found", "so", reply="x")) == three
    assert await calls.make(TOOL, caller="k3") == three
    # one of those that the credentials leave, and nothing tells which
    assert await calls.make(TOOL, caller="k1") not in (one, two, three)


async def test_an_older_id_that_was_made_once_tells_when_the_newest_was_made_twice(calls):
    own = identity.key(TENANT, "tool_call", "call_A1B2C3D4E5F6")
    one = await calls.make(made=(own,))
    assert await calls.make(own, made=(TOOL,)) == one
    await calls.make(made=(TOOL,))
    assert await calls.make(TOOL, own) == one


async def test_whoever_made_it_is_not_put_together_with_another_that_did(calls):
    own = identity.key(TENANT, "tool_call", "call_A1B2C3D4E5F6")
    await calls.make(made=(TOOL,), customer="c1")
    two = await calls.make(made=(own, TOOL))
    assert await calls.make(own, TOOL, customer="c1") == two
    assert (await calls.counters()).get("merged", 0) == 0


async def test_a_cached_answer_whose_second_maker_is_behind_is_waited_for(calls):
    """It was handed on by the second, and only the first is known to have made it."""
    await calls.store.heartbeat("journal-a", T0, 1)
    await calls.store.heartbeat("journal-b", T0 + 20 * SECOND, 1)
    one = await calls.say("hi", reply="found", made=(TOOL,), at=SECOND, replica="b")
    made = calls.call(thread=texts("ho", reply="found"), made=(TOOL,), at=2 * SECOND)
    goes_on = calls.call(TOOL, thread=texts("ho", "found", "so", reply="x"), at=5 * SECOND, replica="b")
    options = {"own": "journal-b", "patient_from_ms": T0 + 3 * SECOND}
    assert [answer.status for answer in await calls.apply(goes_on, **options)] == ["early"]
    (two,) = await calls.apply(made, own="journal-a")
    (three,) = await calls.apply(goes_on, **options)
    assert three.session_id == two.session_id != one
    # what follows where the first stands waits for nobody
    (four,) = await calls.apply(
        calls.call(TOOL, thread=texts("hi", "found", "so", reply="x"), at=6 * SECOND, replica="b"), **options
    )
    assert four.session_id == one


async def test_an_id_that_more_have_made_than_are_remembered_tells_nothing(calls):
    own = [await calls.make(made=(RESPONSE,), customer=f"c{n}") for n in range(LIMITS["text_sessions"] + 2)]
    assert len(set(own)) == len(own)
    assert (await calls.counters())["text_sessions_dropped"] > 0
    assert await calls.make(RESPONSE, customer="c5") not in own


async def test_the_same_session_may_make_an_id_again(calls):
    one = await calls.say("hi", reply="hello", made=(RESPONSE,))
    assert await calls.say("hi", reply="hello", made=(RESPONSE,), again=True) == one
    assert await calls.make(RESPONSE) == one
    assert (await calls.counters()).get("made_twice", 0) == 0


async def test_those_that_made_the_same_may_turn_out_to_be_one(calls):
    chat, thread = named("chat-1", "body:id"), named("thread-1", "path:/threads/{}")
    one = await calls.make(chat, made=(TOOL,))
    two = await calls.make(thread, made=(TOOL,))
    assert await calls.make(chat, thread) == one != two
    assert await calls.make(TOOL) == one
    assert await calls.make(thread) == one


async def test_who_comes_back_after_the_end_hands_on_what_the_former_session_made(calls):
    done = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED")
    one = await calls.make(made=(TOOL,), effects=(done,))
    two = await calls.make(TOOL, says=("again",), at=LATE)
    assert two != one
    assert await calls.make(TOOL, says=("and again",), at=LATE + SECOND) == two


# -- as it comes over the wire -----------------------------------------------------------------------------------


class Wire:
    """Chat completions as bytes, read and applied as any are; `key` and `customer` stand in headers."""

    def __init__(self, calls: Calls) -> None:
        self.store, self.now, self.last = calls.store, T0, {"a": 0, "b": 0}
        self.observing = Observing(TENANT, b"k" * 32, "", "header:x-customer-id", False, lambda _name: None)

    async def chat(
        self, *said: str, key: str, identity: str, customer: str = "", replica: str = "a", session: str = "",
        call: str = "", result: str = "", before: str = ANSWER,
    ) -> str:  # fmt: skip
        """Questions and answers in turn; the answer asks for the call `call`, the request brings `result`."""
        roles = ("user", "assistant")
        messages: list[dict[str, Any]] = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
        if result:
            messages += [{"role": "assistant", "content": before, "tool_calls": [_call(result)]}]
            messages += [{"role": "tool", "tool_call_id": result, "content": "42"}]
        headers = {"authorization": f"Bearer {key}", "x-customer-id": customer, "x-session-id": session}
        message = {"role": "assistant", "content": ANSWER}
        message |= {"tool_calls": [_call(call)]} if call else {}
        request = _http("POST /v1/chat/completions HTTP/1.1", {"model": "m", "messages": messages}, headers)
        answer = {"id": identity, "choices": [{"message": message, "finish_reason": "tool_calls" if call else "stop"}]}
        self.now += SECOND
        previous = self.last[replica]
        self.last[replica] += 1
        raw = RawExchange(
            replica, self.last[replica], self.last[replica], 0, self.now, self.now + 500, request,
            _http("HTTP/1.1 200 OK", answer, {}), EndFlag(0), finished=True,
        )  # fmt: skip
        observation = self.observing.observe(raw, builtin_plan())
        assert observation is not None
        (applied,) = await self.store.apply_many([(observation, previous)])
        assert applied.status == "applied", applied
        return applied.session_id


def _call(name: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "get_weather2forecast", "arguments": "{}"}}


def _http(start_line: str, body: Any, headers: dict[str, str]) -> bytes:
    raw = orjson.dumps(body)
    fields = {"content-type": "application/json", "content-length": str(len(raw))} | headers
    lines = [start_line, *(f"{name}: {value}" for name, value in fields.items() if value), "", ""]
    return "\r\n".join(lines).encode() + raw


@pytest.fixture
def wire(calls):
    return Wire(calls)


async def test_a_server_that_draws_its_ids_from_a_thousand(wire):
    """Ollama's `/v1/chat/completions` does."""
    sessions = [
        await wire.chat("my parcel?", key="k1", identity="chatcmpl-123", customer="cust-A"),
        await wire.chat("my invoice?", key="k2", identity="chatcmpl-123", customer="cust-B", replica="b"),
        await wire.chat("hi", key="k3", identity="chatcmpl-123"),
        await wire.chat("hello there", key="k3", identity="chatcmpl-123", session="chat-1"),
    ]
    assert len(set(sessions)) == 4
    views = [await wire.store.session(each) for each in sessions]
    assert [(view.turns, view.customer) for view in views] == [(1, "cust-A"), (1, "cust-B"), (1, None), (1, None)]
    assert (
        await wire.chat("my parcel?", ANSWER, "so", key="k1", identity="chatcmpl-7", customer="cust-A") == sessions[0]
    )
    assert await wire.chat("my invoice?", ANSWER, "so", key="k2", identity="chatcmpl-7") == sessions[1]
    assert (await wire.store.counters()).get("merged", 0) == 0


@pytest.mark.parametrize("customers", [("cust-A", "cust-B"), ("", "")])
async def test_a_cache_gives_one_answer_with_its_ids_to_many(wire, customers):
    cached = {"identity": "chatcmpl-B9zKqX4vS2Yd8LfB3TnMe", "call": "call_9hRzq4WkqXvS2Yd8LfB3TnMe"}
    one, two = [
        await wire.chat("how is the weather?", key="k1", customer=customer, replica=replica, **cached)
        for customer, replica in zip(customers, "ab", strict=True)
    ]
    assert one != two
    result = {"result": cached["call"], "key": "k1"}
    first = await wire.chat(
        "how is the weather?", identity="chatcmpl-B9zA1b2C3d4E5f6G7h8", customer=customers[0], **result
    )
    second = await wire.chat(
        "how is the weather?", identity="chatcmpl-B9zH8g7F6e5D4c3B2a1", customer=customers[1], **result
    )
    assert {first, second} == {one, two}
    assert (first == one) or not customers[0]


async def test_a_server_that_names_calls_after_their_functions(wire):
    one = await wire.chat("weather?", key="k1", identity="r1", call="get_weather2forecast")
    two = await wire.chat("rain?", key="k2", identity="r2", call="get_weather2forecast")
    assert one != two
    assert await wire.chat("rain?", key="k2", identity="r3", result="get_weather2forecast") == two
    assert await wire.chat("weather?", key="k1", identity="r4", result="get_weather2forecast") == one
    three = await wire.chat("snow?", key="k1", identity="r5", result="get_weather2forecast", before="Snow it is.")
    assert three not in (one, two)
    assert await wire.chat(
        "hail?", key="k1", identity="r6", result="get_weather2forecast", before="Hail it is."
    ) not in (one, two, three)
