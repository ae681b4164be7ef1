"""What the observer tells of an exchange: texts as digests, whose it is, and what is new in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from questions import CALL_ID, CHAT, CONVERSATION, HASH_KEY, ask, say

from sidecar.identity import content_digest, key, session_base
from sidecar.observer import observation as observations
from sidecar.observer.observe import USER_MESSAGES_MAX
from sidecar.policy.loading import builtin_plan


def test_an_answered_question(wire, observer) -> None:
    raw = wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION | {"X-Customer-Id": "cust-1"}), wire.ok(say()))
    seen = observer.observe(raw)
    assert seen.thread.follows == ""
    assert seen.thread.reaches
    assert len(seen.caller) == 16
    assert replace(seen, thread=None, caller="") == observations.Observation(
        producer="q1",
        sequence=12,
        tenant="acme",
        started_ms=raw.started_ms,
        at_ms=raw.at_ms,
        keys=(key("acme", "conversation", "c-42"),),
        made=(key("acme", "response", "chatcmpl-1"),),
        base=session_base("acme", "conversation", "c-42"),
        terms=builtin_plan().terms,
        conversation="c-42",
        customer="cust-1",
        api="openai.chat",
        user_messages=(content_digest(HASH_KEY, "0", "Hi"),),
        said_now=1,
        llm_calls=1,
        models=("gpt-4o-2024-08-06",),
        input_tokens=82,
        output_tokens=17,
        digests={
            "request": content_digest(HASH_KEY, raw.request),
            "response": content_digest(HASH_KEY, raw.response),
        },
    )
    assert observer.counts == {}


def test_it_survives_the_journal(wire, observer) -> None:
    raw = wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(say(None, (CALL_ID, "close_ticket", "{}"))))
    seen = observer.observe(raw)
    assert observations.from_json(seen.to_json()) == seen


def test_no_text_leaves(wire, observer) -> None:
    secret = "sesame-4711"
    headers = CONVERSATION | {"Authorization": f"Bearer {secret}", "Cookie": secret}
    body = ask(f"My word is {secret}", user=secret)
    answer = say(f"Yes, {secret}", (CALL_ID, "resolve_conversation", orjson.dumps({"note": secret}).decode()))
    seen = observer.observe(wire.raw(wire.post(f"{CHAT}?key={secret}", body, headers), wire.ok(answer)))
    assert seen.effects
    assert secret.encode() not in seen.to_json()


def test_digests_depend_on_the_key(wire, make_observer) -> None:
    raw = wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(say(None, (CALL_ID, "x", "{}"))))
    one, other = (make_observer(hash_key=bytes([n]) * 32).observe(raw) for n in (1, 2))
    assert one.user_messages != other.user_messages
    assert one.tool_calls != other.tool_calls
    assert one.digests != other.digests
    assert (one.keys, one.base) == (other.keys, other.base)


def test_resent_history_brings_no_message_that_was_not_seen(wire, observer) -> None:
    def turns(*texts: str) -> tuple[str, ...]:
        return observer.observe(wire.raw(wire.post(CHAT, ask(*texts), CONVERSATION), wire.ok(say()))).user_messages

    first, second = turns("Hi"), turns("Hi", "yes")
    assert second[:1] == first
    assert turns("Hi", "yes", "yes")[:2] == second
    assert len(set(turns("Hi", "yes", "yes"))) == 3
    assert set(turns("yes", "more")) - set(second) == set(turns("more"))  # trimmed at its start
    assert turns("yes") == second[1:]  # asked about alone


def test_what_is_said_now_is_told_from_history(wire, observer) -> None:
    def said_now(*more: dict[str, Any]) -> int:
        body = ask("Hi", "yes")
        body["messages"] += more
        return observer.observe(wire.raw(wire.post(CHAT, body, CONVERSATION), wire.ok(say()))).said_now

    assert said_now() == 1
    assert said_now({"role": "user", "content": "and?"}) == 2
    assert said_now({"role": "assistant", "content": "No."}) == 0
    assert said_now({"role": "tool", "tool_call_id": CALL_ID, "content": "x"}) == 0


def test_only_the_last_messages_of_an_endless_history_are_told(wire, observer) -> None:
    texts = [f"message {number}" for number in range(USER_MESSAGES_MAX + 50)]
    seen = observer.observe(wire.raw(wire.post(CHAT, ask(*texts), CONVERSATION), wire.ok(say())))
    assert len(seen.user_messages) == USER_MESSAGES_MAX
    assert seen.user_messages[-1] == content_digest(HASH_KEY, "0", texts[-1])


def test_without_any_id_the_first_record_names_the_session(wire, observer) -> None:
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi")), wire.ok(say())))
    assert seen.keys == ()
    assert seen.conversation is None
    assert seen.base == session_base("acme", "observation", "q1", "7")
    assert observer.counts == {}


def test_the_result_of_a_tool_finds_the_session_of_the_call(wire, observer) -> None:
    made = observer.observe(wire.raw(wire.post(CHAT, ask("Hi")), wire.ok(say(None, (CALL_ID, "lookup", "{}"))))).made
    body = ask("Hi")
    body["messages"].append({"role": "tool", "tool_call_id": CALL_ID, "content": "found"})
    seen = observer.observe(wire.raw(wire.post(CHAT, body), wire.ok(say())))
    assert seen.keys == (key("acme", "tool_call", CALL_ID),)
    assert seen.keys[0] in made


def test_the_customer(wire, make_observer) -> None:
    observer = make_observer(customer="header:x-customer-id;listener:b=acme;literal:other", listeners=["a", "b"])

    def customer(headers: dict[str, str], listener: int) -> str:
        raw = wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION | headers), wire.ok(say()), listener=listener)
        return observer.observe(raw).customer

    assert customer({"X-Customer-Id": "c1"}, 1) == "c1"
    assert customer({"X-Customer-Id": "c" * 300}, 1) == "acme"
    assert customer({}, 0) == customer({}, 5) == "other"
    assert observer.counts == {"customer_unusable": 1}


def test_own_locators_come_first_and_shadow_is_told(wire, make_observer) -> None:
    observer = make_observer(session_keys="header:x-ticket", shadow=True)
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION | {"X-Ticket": "t"}), wire.ok(say())))
    assert (seen.conversation, seen.shadow) == ("t", True)
    with pytest.raises(ValueError, match="is no locator"):
        make_observer(session_keys="x-ticket")


def test_the_same_bytes_give_the_same_observation(wire, make_observer) -> None:
    raw = wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(say(None, (CALL_ID, "close_ticket", "{}"))))
    assert make_observer().observe(raw).to_json() == make_observer().observe(replace(raw)).to_json()
