"""The official Google Gen AI SDK against an origin that records both directions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google import genai
from google.genai import types
from recording import origin, stream, whole

CALL = {"functionCall": {"name": "close_ticket", "args": {"ticket": "T-1"}}}
USAGE = {
    "promptTokenCount": 20,
    "cachedContentTokenCount": 8,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 30,
    "totalTokenCount": 57,
}


def body(*parts: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    told = {"finishReason": finish} if finish else {}
    return {
        "candidates": [candidate | told],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "mAitaLmkHPPlz7IPvtfUqQ4",
    }


PIECES = [
    body({"text": "Solved.", "thought": True}),
    body({"text": "I close "}),
    body({"text": "it."}, CALL, finish="STOP"),
]
WHOLE = body({"text": "Solved.", "thought": True}, {"text": "I close it."}, CALL, finish="STOP")


def ask(url: str, *, streams: bool, vertex: bool) -> list[Any]:
    client = genai.Client(vertexai=vertex, api_key="k", http_options=types.HttpOptions(base_url=url))
    config = types.GenerateContentConfig(
        system_instruction="You help.",
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    chat = client.chats.create(model="gemini-2.5-flash", config=config)
    said: list[Any] = []
    result = types.Part.from_function_response(name="close_ticket", response={"result": "closed"})
    for message in ("Close it.", result):
        if streams:
            said.append(list(chat.send_message_stream(message)))
        else:
            said.append([chat.send_message(message)])
    client.close()
    return said


@pytest.mark.parametrize("vertex", [False, True], ids=["gemini", "vertex"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_a_chat(streams: bool, vertex: bool) -> None:
    answer = stream(*((None, piece) for piece in PIECES)) if streams else whole(WHOLE)
    async with origin(answer) as server:
        said = await asyncio.to_thread(ask, server.url, streams=streams, vertex=vertex)
    first, second = server.calls()
    parts = [part for piece in said[0] for part in piece.candidates[0].content.parts]
    assert first.reply == "".join(part.text for part in parts if part.text and not part.thought) == "I close it."
    (called,) = [part.function_call for part in parts if part.function_call]
    (seen,) = first.tool_calls
    assert (seen.name, seen.arguments) == (called.name, called.args)
    usage = said[0][-1].usage_metadata
    assert (first.usage.input, first.usage.cached) == (usage.prompt_token_count, usage.cached_content_token_count)
    assert first.usage.output == usage.candidates_token_count + usage.thoughts_token_count
    assert (first.model, first.response_id) == (said[0][-1].model_version, said[0][-1].response_id)
    assert (first.completed, first.finish_reason) == (True, "STOP")
    assert [turn.role for turn in first.turns] == ["system", "user"]
    assert [turn.role for turn in second.turns][:2] == ["system", "user"]
    assert second.turns[-1].role == "tool"
    assert second.turns[-1].text == "closed"
