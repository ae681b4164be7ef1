"""Tool calls and texts that a plan's signals are about: what becomes evidence, and what does not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from questions import CALL_ID, CHAT, CONVERSATION, HASH_KEY, ask, plan_with, say

from sidecar.identity import content_digest
from sidecar.observer import observe
from sidecar.observer.reader import RawExchange
from sidecar.policy.loading import builtin_plan
from sidecar.wire.records import EndFlag


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


def test_a_call_without_an_id_is_known_by_its_place(wire, observer) -> None:
    function = {"name": "resolve_conversation", "arguments": "{}"}
    choice = {"index": 0, "message": {"content": None, "function_call": function}, "finish_reason": "function_call"}

    def seen(response_id: str, **changes: Any) -> Any:
        answer = {"id": response_id, "model": "m", "choices": [choice]}
        return observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(answer), **changes)).effects

    assert seen("r1")[0].call == seen("r1", first=99)[0].call
    assert seen("r1")[0].call != seen("r2")[0].call
    assert seen("", first=1)[0].call != seen("", first=2)[0].call


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
