"""The OpenAI Agents SDK with its normal settings (Responses) and with Chat Completions, against a recording origin."""

from __future__ import annotations

from typing import Any

import agents
import openai
import pytest
from answers import (
    ARGUMENTS,
    OPENAI_BYE,
    OPENAI_CALL_ID,
    OPENAI_TOOL,
    RESPONSES_BYE,
    RESPONSES_TOOL,
    call,
    openai_stream,
    response,
    responses_stream,
)
from recording import HASH_KEY, origin, whole

from sidecar.identity import content_digest

QUESTION = "Close my ticket T-1, please."
HANDOFF = response("resp_first01", call("transfer_to_human", "{}"))


@agents.function_tool
def close_ticket(ticket: str, note: str) -> str:
    """Close a ticket."""
    return f"closed {ticket}"


async def run(url: str, *, chat: bool, streams: bool, handoff: bool = False) -> str:
    """What the agent says at last."""
    agents.set_tracing_disabled(True)  # it would report to OpenAI, past any proxy
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0) as client:
        kind = agents.OpenAIChatCompletionsModel if chat else agents.OpenAIResponsesModel
        model = kind("gpt-5", client)
        human = agents.Agent(name="human", instructions="You are a person.", model=model)
        agent = agents.Agent(
            name="desk",
            instructions="You help.",
            model=model,
            tools=[close_ticket],
            handoffs=[human] if handoff else [],
        )
        if not streams:
            return str((await agents.Runner.run(agent, QUESTION)).final_output)
        running = agents.Runner.run_streamed(agent, QUESTION)
        async for _event in running.stream_events():
            pass
        return str(running.final_output)


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("chat", [False, True], ids=["responses", "chat"])
async def test_a_run_with_a_tool(chat: bool, streams: bool) -> None:
    make: Any = (openai_stream if chat else responses_stream) if streams else whole
    async with origin(*map(make, (OPENAI_TOOL, OPENAI_BYE) if chat else (RESPONSES_TOOL, RESPONSES_BYE))) as server:
        said = await run(server.url, chat=chat, streams=streams)
    asked, answered = server.calls()
    assert {asked.api, answered.api} == {"openai.chat" if chat else "openai.responses"}
    assert [(each.id, each.name, each.arguments) for each in asked.tool_calls] == [
        (OPENAI_CALL_ID, "close_ticket", ARGUMENTS)
    ]
    assert answered.reply == said == "Erledigt – closed."
    assert answered.tool_results == (OPENAI_CALL_ID,)
    assert {turn.role for turn in answered.turns} >= {"system", "user", "tool"}
    if not (chat and streams):  # there it asks for no usage
        assert (asked.usage.input, asked.usage.reasoning) == ((82, 3) if chat else (36, 64))
    opening, following = server.observations()
    assert [effect.rule for effect in opening.effects] == ["close_ticket"]
    assert opening.user_messages == following.user_messages == (content_digest(HASH_KEY, "0", QUESTION),)
    assert following.keys[0] in opening.made  # joined without any id: by the tool call


async def test_a_handoff_to_a_human_escalates() -> None:
    async with origin(whole(HANDOFF), whole(RESPONSES_BYE)) as server:
        await run(server.url, chat=False, streams=False, handoff=True)
    opening, _following = server.observations()
    assert [(effect.rule, effect.event) for effect in opening.effects] == [("transfer_to_human", "escalate")]
