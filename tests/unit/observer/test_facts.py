"""The facts that rules are given: those that the plan's check allows, and how an agent's task stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sidecar.policy.fields import FACTS
from sidecar.policy.loading import builtin_plan

CONTEXT = "c295ea44-7543-4f78-b524-7a38915ad6e4"
TASK = "3f36680c-7f37-4a5f-945e-d78981fafd36"


class Seen:
    """Rules that hold for nothing and keep the facts that they were given."""

    def __init__(self) -> None:
        self.facts: dict[str, list[Mapping[str, Any]]] = {}

    def wants(self, on: str) -> bool:
        return True

    def judge(self, on: str, facts: Mapping[str, Any], *, call: str = "", digest: str = "") -> tuple[()]:
        self.facts.setdefault(on, []).append(facts)
        return ()


@pytest.fixture
def seen(make_observer) -> Any:
    rules = Seen()

    class Plan:
        terms = builtin_plan().terms

    Plan.rules = rules
    observer = make_observer(plan=Plan())
    observer.facts = rules.facts
    return observer


def test_every_fact_that_a_plan_may_name_is_given(wire, seen) -> None:
    call = {"id": "call_1", "function": {"name": "refund", "arguments": '{"amount": 5}'}}
    message = {"content": "Done.", "tool_calls": [call]}
    answer = {"model": "gpt-4o-2024", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Refund me"}]}
    seen.observe(wire.raw(wire.post("/v1/chat/completions?a=1", asked, {"X-Session-Id": "c"}), wire.ok(answer)))
    (request,), (response,), (tool,) = (seen.facts[on] for on in ("request", "response", "tool_call"))
    assert set(request) == set(FACTS["request"])
    assert set(response) == set(FACTS["response"]) - {"state"}
    assert set(tool) == set(FACTS["tool_call"]) - {"state"}
    assert (tool["name"], tool["arguments"], tool["status"]) == ("refund", {"amount": 5}, 200)
    assert (request["text"], response["text"], request["query"]) == ("Refund me", "Done.", {"a": "1"})
    assert (response["api"], response["model"]) == ("openai.chat", "gpt-4o-2024")


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("completed", "completed"),
        ("failed", "failed"),
        ("canceled", "canceled"),
        ("rejected", "rejected"),
        ("input-required", "input-required"),
        ("TASK_STATE_COMPLETED", "completed"),
        ("TASK_STATE_CANCELED", "canceled"),
        ("TASK_STATE_INPUT_REQUIRED", "input-required"),
        ("TASK_STATE_AUTH_REQUIRED", "auth-required"),
    ],
)
def test_how_a_task_stands_is_a_fact(wire, seen, said: str, state: str) -> None:
    task = {"id": TASK, "contextId": CONTEXT, "status": {"state": said}}
    result = {"task": task} if said.isupper() else task | {"kind": "task"}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": TASK}}
    seen.observe(
        wire.raw(wire.post("/a2a", ask, {"X-Session-Id": "c"}), wire.ok({"jsonrpc": "2.0", "id": 1, "result": result}))
    )
    (facts,) = seen.facts["response"]
    assert (facts["state"], facts["api"]) == (state, "a2a")


def test_a_task_that_still_runs_is_no_fact(wire, seen) -> None:
    task = {"kind": "task", "id": TASK, "contextId": CONTEXT, "status": {"state": "working"}}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": TASK}}
    seen.observe(
        wire.raw(wire.post("/a2a", ask, {"X-Session-Id": "c"}), wire.ok({"jsonrpc": "2.0", "id": 1, "result": task}))
    )
    assert "response" not in seen.facts
