"""Google's own SDK with Interactions, against a recording origin: a tool call, its result, the answer."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from google import genai
from recording import HASH_KEY, Answer, origin, stream, whole

from sidecar.identity import content_digest

USAGE = {"total_input_tokens": 20, "total_output_tokens": 7, "total_thought_tokens": 30, "total_cached_tokens": 0}
CALL = {"type": "function_call", "id": "call_9hRzq4Wk", "name": "close_ticket", "arguments": {"ticket": "T-1"}}
SAID = {"type": "model_output", "content": [{"type": "text", "text": "It is closed."}]}


def interaction(identity: str, step: dict[str, Any], status: str) -> dict[str, Any]:
    head = {"id": identity, "object": "interaction", "model": "gemini-3-flash", "status": status}
    return head | {
        "created": "2026-11-22T10:00:00Z",
        "updated": "2026-11-22T10:00:01Z",
        "steps": [step],
        "usage": USAGE,
    }


FIRST = interaction("v1_first01", CALL, "requires_action")
SECOND = interaction("v1_second2", SAID, "completed")


def events(body: dict[str, Any]) -> Answer:
    (step,) = body["steps"]
    head = {name: value for name, value in body.items() if name != "steps"}
    deltas: list[dict[str, Any]]
    if step is CALL:
        start = step | {"arguments": {}}
        deltas = [{"type": "arguments_delta", "arguments": piece} for piece in ('{"ticket"', ': "T-1"}')]
    else:
        start = {"type": "model_output"}
        deltas = [{"type": "text", "text": piece} for piece in ("It is ", "closed.")]
    made: list[dict[str, Any]] = [
        {"event_type": "interaction.created", "interaction": head | {"status": "in_progress"}}
    ]
    made.append({"event_type": "step.start", "index": 0, "step": start})
    made += [{"event_type": "step.delta", "index": 0, "delta": delta} for delta in deltas]
    made += [{"event_type": "step.stop", "index": 0}, {"event_type": "interaction.completed", "interaction": head}]
    return stream(*((each["event_type"], each) for each in made))


def talk(url: str, *, streams: bool) -> list[Any]:
    """What the SDK's user saw: both interactions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the API may still change
        client = genai.Client(api_key="k", http_options={"base_url": url})
        said: list[Any] = []
        result = [{"type": "function_result", "call_id": CALL["id"], "name": "close_ticket", "result": "closed"}]
        for asked in ("Close it.", result):
            request: dict[str, Any] = {"model": "gemini-3-flash", "input": asked}
            if said:
                request["previous_interaction_id"] = said[-1].id
            if streams:
                told = list(client.interactions.create(**request, stream=True))
                said.append(told[-1].interaction)
            else:
                said.append(client.interactions.create(**request))
        client.close()
    return said


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_interactions(streams: bool) -> None:
    make: Any = events if streams else whole
    async with origin(make(FIRST), make(SECOND)) as server:
        said = await asyncio.to_thread(talk, server.url, streams=streams)
    first, second = server.calls()
    for call, told in zip((first, second), said, strict=True):
        assert (call.api, call.response_id, call.model) == ("gemini.interactions", told.id, "gemini-3-flash")
        assert (call.usage.input, call.usage.output, call.usage.reasoning) == (told.usage.total_input_tokens, 37, 30)
        assert call.completed
    assert [(each.id, each.name, each.arguments) for each in first.tool_calls] == [
        ("call_9hRzq4Wk", "close_ticket", {"ticket": "T-1"})
    ]
    assert (second.reply, second.previous_response_id) == ("It is closed.", "v1_first01")
    assert second.tool_results == ("call_9hRzq4Wk",)
    opening, _following = server.observations()
    assert [effect.rule for effect in opening.effects] == ["close_ticket"]
    assert opening.user_messages == (content_digest(HASH_KEY, "0", "Close it."),)
