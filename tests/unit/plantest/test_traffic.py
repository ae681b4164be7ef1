"""Turns as bytes: what the decoder makes of them is what was said."""

from __future__ import annotations

import pytest

from sidecar.observer.apis.registry import recognise
from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange
from sidecar.plantest.conversation import Request, Step
from sidecar.plantest.traffic import Talk
from sidecar.wire.records import EndFlag

APIS = ["openai.chat", "anthropic.messages"]


def read(exchange):
    raw = RawExchange("q", 1, 1, 0, 0, 0, exchange.request, exchange.response, EndFlag(0), finished=True)
    seen = Exchange(raw, listener="")
    api = recognise(seen)
    return seen, api.read(seen) if api else None


@pytest.mark.parametrize("api", APIS)
def test_a_conversation_with_tools_reads_as_it_was_written(api):
    talk = Talk(api, {"x-session-id": "c-1"})
    [first] = talk.turn(Step(user="Hello", agent="Good morning"))
    tools = [{"name": "look_up", "arguments": {"number": 1042, "share": 0.5}}]
    called, answered = talk.turn(Step.model_validate({"user": "Where is it?", "tools": tools, "agent": "On its way"}))
    _, call = read(first)
    assert (call.api, call.reply, call.completed) == (api, "Good morning", True)
    _, call = read(called)
    assert [(each.name, each.arguments) for each in call.tool_calls] == [("look_up", {"number": 1042, "share": 0.5})]
    assert len(call.tool_calls[0].id) > 20
    seen, call = read(answered)
    assert call.reply == "On its way"
    assert [turn.text for turn in call.turns if turn.role == "user" and turn.text] == ["Hello", "Where is it?"]
    assert seen.headers["x-session-id"] == "c-1"
    assert call.usage.output == 10


@pytest.mark.parametrize("api", APIS)
def test_an_error_and_a_cut_answer_are_not_remembered(api):
    talk = Talk(api, {})
    [failed] = talk.turn(Step(user="Hello", agent="never said", status=503))
    seen, call = read(failed)
    assert (seen.status, call.error is not None) == (503, True)
    [cut] = talk.turn(Step(agent="never heard", cut=True))
    _, call = read(cut)
    assert not call.completed
    [again] = talk.turn(Step(user="Are you there?", agent="Yes"))
    _, call = read(again)
    assert all("never" not in turn.text for turn in call.turns)


def test_an_exchange_may_be_written_out():
    request = {"path": "/chat?x=1", "headers": {"X-Mode": "a"}, "body": {"text": "hi"}, "response": {"status": 202}}
    seen, call = read(Talk("openai.chat", {"x-session-id": "c-1"}).raw(Request.model_validate(request)))
    assert call is None
    assert (seen.method, seen.path, seen.status, seen.request_json) == ("POST", "/chat", 202, {"text": "hi"})
    assert seen.headers["x-session-id"] == "c-1"
    assert seen.headers["x-mode"] == "a"


def test_a_status_without_a_phrase_is_written_all_the_same():
    [exchange] = Talk("openai.chat", {}).turn(Step(user="x", status=499))
    assert exchange.response.startswith(b"HTTP/1.1 499 ")
