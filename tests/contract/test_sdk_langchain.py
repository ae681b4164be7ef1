"""LangChain's chat models with their normal settings, against a recording origin: a tool call, then the answer."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from answers import (
    ANTHROPIC_BYE,
    ANTHROPIC_CALL_ID,
    ANTHROPIC_TOOL,
    ARGUMENTS,
    OPENAI_BYE,
    OPENAI_CALL_ID,
    OPENAI_TOOL,
    anthropic_stream,
    openai_stream,
)
from recording import HASH_KEY, Answer, origin, whole

from sidecar.identity import content_digest, key

QUESTION = "Close my ticket T-1, please."
HEADERS = {"X-Session-Id": "c-42", "X-Customer-Id": "cust-17"}

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries' own dependencies
    from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI


@tool
def close_ticket(ticket: str, note: str) -> str:
    """Close a ticket."""
    return f"closed {ticket}"


def model_of(name: str, url: str) -> Any:
    if name == "openai":
        return ChatOpenAI(model="gpt-4o", api_key="sk-test", base_url=f"{url}/v1", default_headers=HEADERS)
    return ChatAnthropic(model="claude-test", api_key="sk-test", base_url=url, default_headers=HEADERS)


def talk(name: str, url: str, *, streams: bool) -> list[Any]:
    """What LangChain's user saw: both answers."""
    model = model_of(name, url).bind_tools([close_ticket])
    messages: list[Any] = [SystemMessage("You help."), HumanMessage(QUESTION)]
    answers: list[Any] = []
    for _ in range(2):
        if streams:
            pieces: list[AIMessageChunk] = list(model.stream(messages))
            answer: Any = pieces[0]
            for piece in pieces[1:]:
                answer += piece
        else:
            answer = model.invoke(messages)
        answers.append(answer)
        messages.append(answer)
        messages += [
            ToolMessage(close_ticket.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls
        ]
    return answers


SCRIPTS: dict[str, tuple[Any, Any, Any, str]] = {
    "openai": (OPENAI_TOOL, OPENAI_BYE, openai_stream, OPENAI_CALL_ID),
    "anthropic": (ANTHROPIC_TOOL, ANTHROPIC_BYE, anthropic_stream, ANTHROPIC_CALL_ID),
}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", SCRIPTS)
async def test_langchain(name: str, streams: bool) -> None:
    first, second, make_stream, call_id = SCRIPTS[name]
    make: Any = make_stream if streams else whole
    script: list[Answer] = [make(first), make(second)]
    async with origin(*script) as server:
        answers = await asyncio.to_thread(talk, name, server.url, streams=streams)
    asked, answered = server.calls()
    assert asked.api == {"openai": "openai.chat", "anthropic": "anthropic.messages"}[name]
    (call,) = asked.tool_calls
    (told,) = answers[0].tool_calls
    assert (call.id, call.name, call.arguments) == (told["id"], told["name"], told["args"])
    assert (call.id, call.arguments) == (call_id, ARGUMENTS)
    assert answered.reply == answers[1].text == "Erledigt – closed."
    assert [turn.role for turn in answered.turns] == ["system", "user", "assistant", "tool"]
    assert answered.tool_results == (call_id,)
    for seen, answer in zip((asked, answered), answers, strict=True):
        assert seen.completed
        usage = answer.usage_metadata
        assert (seen.usage.input, seen.usage.output) == (usage["input_tokens"], usage["output_tokens"]) == (82, 17)
    opening, following = server.observations()
    assert [effect.rule for effect in opening.effects] == ["close_ticket"]
    assert opening.keys[0] == following.keys[0] == key("acme", "conversation", "c-42")
    assert opening.user_messages == following.user_messages == (content_digest(HASH_KEY, "0", QUESTION),)
