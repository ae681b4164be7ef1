"""Questions to a chat API and its answers, and a plan with signals."""

from __future__ import annotations

from typing import Any

from sidecar.policy.loading import LoadedPlan, load_plan

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
