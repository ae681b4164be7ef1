from __future__ import annotations

import gzip
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.identity import content_digest, key, session_base
from sidecar.observer import observation as observations
from sidecar.observer import observe
from sidecar.observer.observe import USER_MESSAGES_MAX, Observing
from sidecar.observer.reader import RawExchange
from sidecar.policy.loading import LoadedPlan, builtin_plan, load_plan
from sidecar.wire.records import EndFlag

CHAT = "/v1/chat/completions"
HASH_KEY = b"k" * 32
CONVERSATION = {"X-Session-Id": "c-42"}
CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"


def ask(*texts: str, **fields: Any) -> dict[str, Any]:
    """A history of user messages with an assistant's answer between each two."""
    messages = [{"role": "system", "content": "You help."}]
    for text in texts:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": f"About {text}"}]
    return {"model": "gpt-4o", "messages": messages[:-1]} | fields


def say(text: str | None = "Hello.", *tools: tuple[str, str, str], **fields: Any) -> dict[str, Any]:
    calls = [
        {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
        for identity, name, arguments in tools
    ]
    message = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
    body = {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {"prompt_tokens": 82, "completion_tokens": 17},
    }
    return body | fields


def plan_with(signals: str) -> LoadedPlan:
    base = b"""
rate_plan:
  name: "Test"
  billing_mode: POSTPAID
  metrics:
    - {id: m, name: M, unit: u, aggregation: COUNT, event_field: outcome}
  pricing: {model: PER_UNIT, rate: 1, currency: USD}
  signals:
"""
    return load_plan(base + signals.encode(), "test.yaml")


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


def test_a_tool_call_resolves_with_its_evidence(wire, observer) -> None:
    answer = say(None, (CALL_ID, "resolve_conversation", '{"reason": "solved"}'), ("call_2", "lookup", "{}"))
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(answer)))
    digest = content_digest(HASH_KEY, CALL_ID)
    assert seen.tool_calls == (digest, content_digest(HASH_KEY, "call_2", "lookup"))
    (effect,) = seen.effects
    assert (effect.rule, effect.event, effect.outcome) == ("resolve_conversation", "resolve", "RESOLVED")
    assert effect.call == digest
    assert effect.digest == content_digest(HASH_KEY, "resolve_conversation", b'{"reason":"solved"}')


def test_a_tool_call_that_was_cut_off_resolves_nothing(wire, observer) -> None:
    answer = say(None, (CALL_ID, "resolve_conversation", '{"reason": "so'))
    cut = {**answer, "choices": [{**answer["choices"][0], "finish_reason": "length"}]}
    assert observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(answer))).effects
    assert observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(cut))).effects == ()


def test_a_streamed_tool_call_is_the_same_as_a_whole_one(wire, observer) -> None:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: %s\n\n" % orjson.dumps({"id": "c", "model": "m", "choices": [choice]})

    function = {"name": "transfer_to_human", "arguments": ""}
    stream = chunk({"tool_calls": [{"index": 0, "id": CALL_ID, "function": function}]})
    stream += chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]})
    cut = wire.raw(
        wire.post(CHAT, ask("Hi"), CONVERSATION), wire.stream(stream, whole=False), EndFlag.ABORTED_BY_CLIENT
    )
    seen = observer.observe(cut)
    assert (seen.effects, seen.tool_calls, seen.aborted, seen.llm_calls) == ((), (), True, 1)
    stream += chunk({}, "tool_calls") + b"data: [DONE]\n\n"
    late = wire.raw(
        wire.post(CHAT, ask("Hi"), CONVERSATION), wire.stream(stream, whole=False), EndFlag.ABORTED_BY_ORIGIN
    )
    seen = observer.observe(late)
    assert [effect.event for effect in seen.effects] == ["escalate"]
    assert not seen.aborted  # the answer had come to its end
    whole = say(None, (CALL_ID, "transfer_to_human", '{"a": 1}'))
    again = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(whole)))
    assert again.effects == seen.effects


def test_tool_calls_in_resent_history_are_never_judged(wire, observer) -> None:
    body = ask("Hi")
    function = {"name": "resolve_conversation", "arguments": "{}"}
    body["messages"] += [
        {"role": "assistant", "tool_calls": [{"id": CALL_ID, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": CALL_ID, "content": "ok"},
    ]
    seen = observer.observe(wire.raw(wire.post(CHAT, body, CONVERSATION), wire.ok(say("Bye."))))
    assert (seen.effects, seen.tool_calls) == ((), ())


def test_servers_that_number_calls_anew_do_not_hide_one_behind_another(wire, observer) -> None:
    answer = say(None, ("call_0", "transfer_to_human", "{}"), ("call_0", "resolve_conversation", "{}"))
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(answer)))
    assert [effect.event for effect in seen.effects] == ["escalate", "resolve"]
    earlier = say(None, ("call_0", "lookup", "{}"))
    first = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(earlier)))
    assert not set(first.tool_calls) & {effect.call for effect in seen.effects}


def test_a_long_plain_text_is_cut_for_the_rules_and_counted(wire, observer) -> None:
    looking = plan_with("""
    - id: r
      on: request
      conditions: [{field: text, operator: CONTAINS, value: end}]
      set: {outcome: RESOLVED}
""")
    for plan, room, effects, cut in ((builtin_plan(), 0, 0, 0), (looking, 3, 1, 0), (looking, 0, 0, 1)):
        text = b"x" * (observe.PLAIN_TEXT_BYTES_MAX - room) + b"end"
        observer.plan = plan
        seen = observer.observe(wire.raw(wire.post("/agent", text, CONVERSATION), wire.ok(b"ok")))
        assert (len(seen.effects), observer.counts.get("plain_text_cut", 0)) == (effects, cut)


def test_what_the_bounds_leave_out_is_counted(wire, observer) -> None:
    ids = {name: f"c{n}" for n, name in enumerate(("session-id", "thread-id", "x-session-id", "helicone-session-id"))}
    ids |= {f"x-{n}-session-id": f"{n}-a1b2c3d4" for n in range(9)} | {"x-portkey-trace-id": "p"}
    body = ask(*["Hi"] * (2 * USER_MESSAGES_MAX + 2)) | {"session_id": "b1", "threadId": "b2", "contextId": "b3"}
    seen = observer.observe(wire.raw(wire.post(CHAT, body, ids), wire.ok(say("Hello"))))
    assert len(seen.user_messages) == USER_MESSAGES_MAX
    assert observer.counts == {"session_keys_over": 1, "user_messages_over": 1}


def test_a_text_in_the_models_place_is_not_passed_on(wire, observer) -> None:
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(say(model="x" * 5_000))))
    assert (seen.models, seen.llm_calls, observer.counts["model_unusable"]) == ((), 1, 1)


def test_a_call_without_an_id_is_known_by_its_place(wire, observer) -> None:
    function = {"name": "resolve_conversation", "arguments": "{}"}
    choice = {"index": 0, "message": {"content": None, "function_call": function}, "finish_reason": "function_call"}

    def seen(response_id: str, **changes: Any) -> Any:
        answer = {"id": response_id, "model": "m", "choices": [choice]}
        return observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(answer), **changes)).effects

    assert seen("r1")[0].call == seen("r1", first=99)[0].call
    assert seen("r1")[0].call != seen("r2")[0].call
    assert seen("", first=1)[0].call != seen("", first=2)[0].call


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_a_failure_is_activity_and_no_llm_call(wire, observer, status: int) -> None:
    body = say(None, (CALL_ID, "resolve_conversation", "{}"))
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.answer(status, body)))
    assert (seen.llm_calls, seen.models, seen.effects, seen.tool_calls) == (0, (), (), ())
    assert len(seen.user_messages) == 1


def test_without_any_id_the_first_record_names_the_session(wire, observer) -> None:
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi")), wire.ok(say())))
    assert seen.keys == ()
    assert seen.conversation is None
    assert seen.base == session_base("acme", "observation", "q1", "7")
    assert observer.counts == {}


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"])
def test_a_failure_without_any_id_opens_no_session(wire, observer, response: bytes) -> None:
    first = observer.observe(wire.raw(wire.post(CHAT, ask("Hi")), response))
    assert (first.opens, first.thread.reaches, first.keys) == (False, "", ())
    again = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), {"x-stainless-retry-count": "1"}), wire.ok(say())))
    assert (again.opens, again.thread.again) == (True, True)
    assert again.thread.asked == first.thread.asked
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    assert observer.observe(wire.raw(wire.post(CHAT, {}, trace), response)) is None
    assert observer.counts == {"unanswered": 1}


def test_the_result_of_a_tool_finds_the_session_of_the_call(wire, observer) -> None:
    made = observer.observe(wire.raw(wire.post(CHAT, ask("Hi")), wire.ok(say(None, (CALL_ID, "lookup", "{}"))))).made
    body = ask("Hi")
    body["messages"].append({"role": "tool", "tool_call_id": CALL_ID, "content": "found"})
    seen = observer.observe(wire.raw(wire.post(CHAT, body), wire.ok(say())))
    assert seen.keys == (key("acme", "tool_call", CALL_ID),)
    assert seen.keys[0] in made


def test_an_unknown_api_with_an_id_is_activity(wire, observer) -> None:
    raw = wire.raw(wire.post("/tools/search", {"session_id": "c-42", "q": "x"}), wire.ok({"hits": 3}))
    seen = observer.observe(raw)
    assert (seen.api, seen.conversation, seen.llm_calls, seen.user_messages) == (None, "c-42", 0, ())


def test_an_unknown_api_without_one_is_nothing(wire, observer) -> None:
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    assert observer.observe(wire.raw(wire.get("/healthz", trace), wire.ok())) is None
    assert observer.observe(wire.raw(b"\x16\x03\x01", b"")) is None
    assert observer.counts == {"unidentified": 2, "request_unreadable": 1}


def test_a_garbled_response_is_counted(wire, observer) -> None:
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), b"SMTP ready\r\n\r\n"))
    assert seen.llm_calls == 0
    assert observer.counts == {"response_unreadable": 1}


def test_a_touch_counts_nothing(wire, observer) -> None:
    request = wire.post(CHAT, ask("Hi"), CONVERSATION)
    seen = observer.observe(wire.raw(request, b"HTTP/1.1 200 OK\r\n", finished=False))
    assert seen.touch
    assert seen.keys == (key("acme", "conversation", "c-42"),)
    assert (seen.llm_calls, seen.user_messages, seen.effects, seen.made, seen.digests) == (0, (), (), (), {})
    assert observer.observe(wire.raw(wire.post(CHAT, ask("Hi")), b"", finished=False)) is None
    assert observer.observe(wire.raw(request[:30], b"", finished=False)) is None


@pytest.mark.parametrize(
    ("path", "flags", "complete"),
    [
        (CHAT, 0, True),
        (CHAT, EndFlag.DROPPED, False),
        (CHAT, EndFlag.BODY_CUT, False),
        ("/upload", EndFlag.BODY_CUT, True),
        ("/upload", EndFlag.DROPPED, False),
    ],
)
def test_a_cut_body_matters_where_it_is_understood(wire, observer, path: str, flags: int, complete: bool) -> None:
    seen = observer.observe(wire.raw(wire.post(path, ask("Hi"), CONVERSATION), wire.ok(say()), flags))
    assert seen.complete is complete


def test_a_bomb_leaves_an_incomplete_session(wire, observer) -> None:
    bomb = gzip.compress(b'{"messages": [' + b" " * (64 << 20))
    request = wire.post(CHAT, bomb, CONVERSATION | {"Content-Encoding": "gzip"})
    seen = observer.observe(wire.raw(request, wire.ok(say())))
    assert not seen.complete
    assert observer.counts == {"body_too_dense": 1, "opaque": 1}


def test_an_unknown_coding_is_activity_and_counted(wire, observer) -> None:
    response = wire.ok(b"\x0b\x02\x80", {"Content-Encoding": "dcb"})
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), response))
    assert seen.complete
    assert seen.models == ("gpt-4o",)
    assert observer.counts == {"coding_unknown": 1, "opaque": 1}


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


RULES = """
    - id: asked
      on: request
      conditions:
        - {field: text, operator: MATCHES, value: "(?i)human"}
        - {field: headers.X-Channel, operator: EQUALS, value: chat}
        - {field: body.model, operator: EQUALS, value: gpt-4o}
      set: {escalated_to_human: true}
    - id: answered
      on: response
      conditions:
        - {field: status, operator: EQUALS, value: 200}
        - {field: path, operator: ENDS_WITH, value: /completions}
        - {field: text, operator: CONTAINS, value: solved}
      set: {outcome: RESOLVED}
    - id: big_refund
      on: tool_call
      conditions:
        - {field: name, operator: EQUALS, value: refund}
        - {field: arguments.amount, operator: GREATER_THAN, value: 100}
      set: {escalated_to_human: true}
"""


@pytest.fixture
def ruled(make_observer):
    return make_observer(plan=plan_with(RULES))


def rules(observer: Any, raw: RawExchange) -> list[str]:
    return [effect.rule for effect in observer.observe(raw).effects]


def test_rules_see_requests_responses_and_tool_calls(wire, ruled) -> None:
    headers = CONVERSATION | {"X-Channel": "chat"}
    answer = say("It is solved.", (CALL_ID, "refund", '{"amount": 120}'), ("call_2", "refund", '{"amount": 5}'))
    raw = wire.raw(wire.post(CHAT, ask("A human, please"), headers), wire.ok(answer))
    effects = ruled.observe(raw).effects
    assert [effect.rule for effect in effects] == ["asked", "answered", "big_refund"]
    assert [bool(effect.call) for effect in effects] == [False, False, True]
    assert effects[0].digest == content_digest(HASH_KEY, raw.request)
    assert effects[1].digest == content_digest(HASH_KEY, raw.response)


def test_what_the_user_said_before_is_not_judged_again(wire, ruled) -> None:
    headers = CONVERSATION | {"X-Channel": "chat"}
    assert rules(ruled, wire.raw(wire.post(CHAT, ask("human!", "thanks"), headers), wire.ok(say()))) == []
    body = ask("human!")
    body["messages"].append({"role": "tool", "tool_call_id": CALL_ID, "content": "x"})
    assert rules(ruled, wire.raw(wire.post(CHAT, body, headers), wire.ok(say()))) == []


def test_a_cut_answer_says_nothing(wire, ruled) -> None:
    request = wire.post(CHAT, ask("Hi"), CONVERSATION)
    response = wire.ok(say("It is solved."))
    assert rules(ruled, wire.raw(request, response)) == ["answered"]
    assert rules(ruled, wire.raw(request, response[:-1], EndFlag.ABORTED_BY_ORIGIN)) == []
    stream = b'data: {"choices": [{"index": 0, "delta": {"content": "It is solved"}}]}\n\n'
    assert rules(ruled, wire.raw(request, wire.stream(stream))) == []
    assert rules(ruled, wire.raw(request, wire.stream(stream + b"data: [DONE]\n\n"))) == ["answered"]


def test_rules_over_an_api_that_is_not_understood(wire, make_observer) -> None:
    signals = """
    - id: done
      on: response
      conditions:
        - {field: body.ticket.status, operator: EQUALS, value: solved}
        - {field: method, operator: EQUALS, value: POST}
        - {field: text, operator: CONTAINS, value: solved}
        - {field: headers.set-cookie, operator: CONTAINS, value: b=2}
      set: {outcome: RESOLVED}
"""
    observer = make_observer(plan=plan_with(signals))
    response = wire.ok({"ticket": {"status": "solved"}}, {"Set-Cookie": "a=1", "set-cookie": "b=2"})
    assert rules(observer, wire.raw(wire.post("/tickets", {}, CONVERSATION), response)) == ["done"]


def test_a_defect_of_an_api_costs_only_its_reading(wire, observer, monkeypatch, caplog) -> None:
    class Broken:
        name = "broken"

        def read(self, exchange: Any) -> Any:
            raise KeyError(exchange.path)

    monkeypatch.setattr(observe, "recognise", lambda _exchange: Broken())
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(say())))
    assert (seen.conversation, seen.api) == ("c-42", None)
    assert observer.counts == {"api_failed": 1}


def test_the_same_bytes_give_the_same_observation(wire, make_observer) -> None:
    raw = wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(say(None, (CALL_ID, "close_ticket", "{}"))))
    assert make_observer().observe(raw).to_json() == make_observer().observe(replace(raw)).to_json()


@settings(max_examples=150)
@given(st.integers(0, 700), st.integers(0, 900), st.binary(max_size=8), st.integers(0, 63), st.booleans())
def test_mutilated_exchanges_never_raise(at: int, cut: int, noise: bytes, flags: int, finished: bool) -> None:
    sent = orjson.dumps(ask("Hi", "yes"))
    answer = orjson.dumps(say("Hello.", (CALL_ID, "close_ticket", "{}")))
    head = b"POST %s HTTP/1.1\r\nX-Session-Id: c-42\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(sent))
    request = head + sent
    request = request[:at] + noise + request[at + len(noise) :]
    response = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)[:cut]
    raw = RawExchange("q", 2, 1, 0, 5, 6, request, response, EndFlag(flags), finished)
    seen = Observing("t", HASH_KEY, "", "body:user", False, lambda _name: None).observe(raw, builtin_plan())
    assert seen is None or observations.from_json(seen.to_json()) == seen
