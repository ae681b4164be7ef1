from __future__ import annotations

from typing import Any

import pytest

from sidecar.observer.apis.call import (
    MESSAGES_MAX,
    TOKENS_MAX,
    Call,
    ToolCall,
    Turn,
    arguments_of,
    as_tokens,
    error_code,
    media_digest,
    messages_of,
    whole_calls,
)


@pytest.mark.parametrize(
    ("value", "tokens"), [(0, 0), (7, 7), (-1, None), (True, None), ("7", None), (7.0, None), (TOKENS_MAX + 1, None)]
)
def test_tokens(value: Any, tokens: int | None) -> None:
    assert as_tokens(value) == tokens


@pytest.mark.parametrize(
    ("text", "arguments"), [("", {}), (" \n", {}), ('{"a": 1}', {"a": 1}), ("{", "{"), ("\ud800", "\ud800")]
)
def test_arguments(text: str, arguments: Any) -> None:
    assert arguments_of(text) == arguments


def test_media_are_told_apart_however_deep() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    assert media_digest({"a": 1, "b": 2}) == media_digest({"b": 2, "a": 1})
    assert len({media_digest(part) for part in ({"a": 1}, {"a": 2}, deep)}) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"type": "overloaded_error"}, "overloaded_error"),
        ({"type": None, "code": "content.filter"}, "content.filter"),
        ({"type": "the customer said: hello"}, "http_200"),
        ({"type": "x" * 65}, "http_200"),
        ("text", "http_200"),
        (None, None),
    ],
)
def test_an_error_is_a_code_and_never_text(wire, error: Any, code: str | None) -> None:
    assert error_code(wire.exchange(wire.get("/"), wire.ok()), {"error": error}) == code


def test_of_too_many_messages_the_newest_are_read() -> None:
    messages = [{"n": number} for number in range(MESSAGES_MAX + 5)]
    assert messages_of({"messages": messages}) == messages[5:]
    assert messages_of({"messages": "none"}) == messages_of({}) == []


def test_only_what_is_asked_of_a_model_or_by_a_user_opens_a_session() -> None:
    assert Call("x").opens
    assert not Call("x", llm_call=False).opens
    assert not Call("x", llm_call=False, turns=(Turn("tool", "closed"),)).opens
    assert Call("x", llm_call=False, turns=(Turn("user", "Hi"),)).opens


CALLS = [ToolCall("1", "look", {}), ToolCall("2", "resolve_conversation", {})]


@pytest.mark.parametrize(
    ("reason", "number"),
    [
        (None, 2), ("", 2), ("stop", 2), ("tool_calls", 2), ("end_turn", 2), ("STOP", 2), ("a new one", 2),
        ("length", 1), ("max_tokens", 1), ("MAX_TOKENS", 1), ("model_context_window_exceeded", 1),
        ("content_filter", 0), ("refusal", 0), ("SAFETY", 0), ("guardrail_intervened", 0),
    ],
)  # fmt: skip
def test_an_agent_can_carry_out_what_was_not_cut_off_or_withheld(reason: str | None, number: int) -> None:
    assert list(whole_calls(CALLS, reason)) == CALLS[:number]
    assert list(whole_calls([], reason)) == []
