"""Exchanges that failed, are cut or not understood, and what the bounds leave out: counted, and never raised."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import CALL_ID, CHAT, CONVERSATION, HASH_KEY, ask, say

from sidecar.identity import key
from sidecar.observer import observation as observations
from sidecar.observer import observe
from sidecar.observer.observe import USER_MESSAGES_MAX, Observing
from sidecar.observer.reader import RawExchange
from sidecar.policy.loading import builtin_plan
from sidecar.wire.records import EndFlag


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


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_a_failure_is_activity_and_no_llm_call(wire, observer, status: int) -> None:
    body = say(None, (CALL_ID, "resolve_conversation", "{}"))
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.answer(status, body)))
    assert (seen.llm_calls, seen.models, seen.effects, seen.tool_calls) == (0, (), (), ())
    assert len(seen.user_messages) == 1


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


def test_a_defect_of_an_api_costs_only_its_reading(wire, observer, monkeypatch, caplog) -> None:
    class Broken:
        name = "broken"

        def read(self, exchange: Any) -> Any:
            raise KeyError(exchange.path)

    monkeypatch.setattr(observe, "recognise", lambda _exchange: Broken())
    seen = observer.observe(wire.raw(wire.post(CHAT, ask("Hi"), CONVERSATION), wire.ok(say())))
    assert (seen.conversation, seen.api) == ("c-42", None)
    assert observer.counts == {"api_failed": 1}


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
