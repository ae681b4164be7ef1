"""What cannot be read, or not all of it: what is counted, and what the session is told."""

from __future__ import annotations

import orjson
import pytest

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
CONVERSATION = {"X-Session-Id": "c-42"}
ANSWER = {"id": "c", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
DEEP = b"[" * 2_000 + b"]" * 2_000


def test_json_too_deep_is_counted_and_marks_the_session(wire, observer) -> None:
    seen = observer.observe(wire.raw(wire.post(CHAT, DEEP, JSON | CONVERSATION), wire.ok(ANSWER)))
    assert (seen.complete, seen.conversation) == (False, "c-42")
    assert observer.counts["json_too_deep"] == 1


@pytest.mark.parametrize(("status", "complete"), [(200, False), (400, True)])
def test_broken_json_matters_where_the_origin_took_it(wire, observer, status: int, complete: bool) -> None:
    answer = wire.answer(status, ANSWER if status == 200 else {"error": {"type": "invalid_request_error"}})
    seen = observer.observe(wire.raw(wire.post(CHAT, b'{"messages": [', JSON | CONVERSATION), answer))
    assert seen.complete is complete
    assert observer.counts["json_broken"] == 1


def test_a_broken_coding_is_counted_and_marks_the_session(wire, observer) -> None:
    coded = {"Content-Encoding": "gzip"} | CONVERSATION
    seen = observer.observe(wire.raw(wire.post(CHAT, b"\x1f\x8bgarbage", JSON | coded), wire.ok(ANSWER)))
    assert (seen.complete, observer.counts["coding_broken"]) == (False, 1)


def test_what_is_no_json_and_does_not_say_so_is_not_counted(wire, observer) -> None:
    page = wire.ok(b"<html>", {"Content-Type": "text/html"})
    assert observer.observe(wire.raw(wire.post("/upload", b"\x89PNG", CONVERSATION), page)).complete
    assert observer.observe(wire.raw(wire.post(CHAT, {}, CONVERSATION), wire.stream(b"data: [DONE]\n\n"))).complete
    assert observer.counts["json_broken"] == 0


def test_repaired_json_is_read_and_counted(wire, observer) -> None:
    body = rb'{"messages": [{"role": "user", "content": "cut \ud83d"}], "temperature": NaN}'
    seen = observer.observe(wire.raw(wire.post(CHAT, body, JSON | CONVERSATION), wire.ok(ANSWER)))
    assert (seen.complete, len(seen.user_messages)) == (True, 1)
    assert observer.counts["json_repaired"] == 1


def test_too_many_values_are_opaque(wire, observer) -> None:
    body = b"[" + b"0," * 1_000_001 + b"0]"
    seen = observer.observe(wire.raw(wire.post(CHAT, body, JSON | CONVERSATION), wire.ok(ANSWER)))
    assert not seen.complete
    assert (observer.counts["too_many_values"], observer.counts["opaque"]) == (1, 1)


@pytest.mark.parametrize("depth", [254, 900, 1_010])
def test_arguments_of_any_depth_are_judged(wire, observer, depth: int) -> None:
    arguments = '{"a":' * depth + "1" + "}" * depth
    call = {"id": "call_9hRzq4WkqXvS2Yd8", "function": {"name": "close_ticket", "arguments": arguments}}
    answer = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    seen = observer.observe(wire.raw(wire.post(CHAT, {}, CONVERSATION), wire.ok(answer)))
    assert [effect.rule for effect in seen.effects] == ["close_ticket"]


def test_an_answer_whose_end_is_not_found_is_counted(wire, observer) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
    body = b"data: " + orjson.dumps(chunk) + b"\n\n"
    assert observer.observe(wire.raw(wire.post(CHAT, {}, CONVERSATION), wire.stream(body)))
    assert observer.counts["answer_unended"] == 1
    # Not where the connection was cut, nor where the answer says that it is not ready.
    observer.observe(wire.raw(wire.post(CHAT, {}, CONVERSATION), wire.stream(body, whole=False)))
    queued = {"id": "resp_1", "object": "response", "status": "queued", "output": []}
    observer.observe(wire.raw(wire.post("/v1/responses", {"input": "Hi"}, CONVERSATION), wire.ok(queued)))
    assert observer.counts["answer_unended"] == 1
