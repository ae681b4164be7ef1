"""The official Ollama client against an origin that records both directions."""

from __future__ import annotations

from typing import Any

import ollama
import orjson
import pytest
from recording import chunked, origin

END = {"done": True, "done_reason": "stop", "total_duration": 5, "prompt_eval_count": 26, "eval_count": 0}
CALL = {"function": {"name": "close_ticket", "arguments": {"ticket": "T-1"}}}


def lines(*values: dict[str, Any]) -> Any:
    named = [
        orjson.dumps({"model": "llama3.2", "created_at": "2026-11-22T10:00:00Z"} | each) + b"\n" for each in values
    ]
    return chunked(named, "application/x-ndjson")


CHAT = (
    {"message": {"role": "assistant", "content": "I close "}, "done": False},
    {"message": {"role": "assistant", "content": "it.", "tool_calls": [CALL]}, "done": False},
    {"message": {"role": "assistant", "content": ""}} | END,
)


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_chat(streams: bool) -> None:
    one = {"message": {"role": "assistant", "content": "I close it.", "tool_calls": [CALL]}} | END
    async with origin(lines(*CHAT) if streams else lines(one)) as server:
        client = ollama.AsyncClient(host=server.url)
        messages = [{"role": "system", "content": "You help."}, {"role": "user", "content": "Close it."}]
        answer = await client.chat(model="llama3.2", messages=messages, stream=streams)
        said = [part async for part in answer] if streams else [answer]
        await client._client.aclose()
    (call,) = server.calls()
    assert call.reply == "".join(part.message.content for part in said) == "I close it."
    called = [each.function for part in said for each in part.message.tool_calls or ()]
    assert [(each.name, each.arguments) for each in call.tool_calls] == [(each.name, each.arguments) for each in called]
    assert (call.usage.input, call.usage.output) == (said[-1].prompt_eval_count, said[-1].eval_count) == (26, 0)
    assert [turn.role for turn in call.turns] == ["system", "user"]
    assert call.completed


async def test_generate() -> None:
    async with origin(lines({"response": "Hel", "done": False}, {"response": "lo"} | END)) as server:
        client = ollama.AsyncClient(host=server.url)
        said = [part.response async for part in await client.generate(model="llama3.2", prompt="Hi", stream=True)]
        await client._client.aclose()
    (call,) = server.calls()
    assert (call.reply, call.turns[0].text, call.finish_reason) == ("".join(said), "Hi", "stop")
