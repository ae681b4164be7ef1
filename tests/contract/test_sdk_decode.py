"""The official SDKs talk to an origin that records both directions; the observer must see what the SDK's user saw.

What is on the wire is theirs: heads, bodies, retries, and how they read streams.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
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
from recording import HASH_KEY, origin, stream, whole

from sidecar.identity import content_digest, key
from sidecar.observer.exchange import Exchange
from sidecar.observer.observation import Observation

HEADERS = {"X-Session-Id": "c-42", "X-Customer-Id": "cust-17"}
QUESTION = "Close my ticket T-1, please."
FUNCTION = {"name": "close_ticket", "parameters": {"type": "object", "properties": {"ticket": {"type": "string"}}}}

SETTINGS: Any = {"api_key": "sk-test", "default_headers": HEADERS, "max_retries": 0}
WITH_USAGE: Any = {"stream_options": {"include_usage": True}}


class OpenAITalk:
    """A question, a tool call, its result, the answer; `answers` are the SDK's own view of both."""

    def __init__(self) -> None:
        self.messages: list[Any] = [{"role": "system", "content": "You help."}, {"role": "user", "content": QUESTION}]
        self.answers: list[Any] = []

    def request(self) -> dict[str, Any]:
        tools = [{"type": "function", "function": FUNCTION}]
        return {"model": "gpt-4o", "messages": list(self.messages), "tools": tools}

    def note(self, answer: Any) -> None:
        message = answer.choices[0].message
        self.answers.append(answer)
        self.messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        for call in message.tool_calls or ():
            self.messages.append({"role": "tool", "tool_call_id": call.id, "content": "closed"})

    def sync(self, url: str, *, streams: bool) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", **SETTINGS) as client:
            for _ in range(2):
                if streams:
                    with client.chat.completions.stream(**self.request(), **WITH_USAGE) as events:
                        self.note(events.get_final_completion())
                else:
                    self.note(client.chat.completions.create(**self.request()))

    async def concurrent(self, url: str, *, streams: bool) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **SETTINGS) as client:
            for _ in range(2):
                if streams:
                    async with client.chat.completions.stream(**self.request(), **WITH_USAGE) as events:
                        self.note(await events.get_final_completion())
                else:
                    self.note(await client.chat.completions.create(**self.request()))


class AnthropicTalk:
    """The same with Messages."""

    def __init__(self) -> None:
        self.messages: list[Any] = [{"role": "user", "content": QUESTION}]
        self.answers: list[Any] = []

    def request(self) -> dict[str, Any]:
        tools = [{"name": FUNCTION["name"], "input_schema": FUNCTION["parameters"]}]
        return {
            "model": "claude-test",
            "max_tokens": 100,
            "system": "You help.",
            "messages": list(self.messages),
            "tools": tools,
        }

    def note(self, answer: Any) -> None:
        self.answers.append(answer)
        self.messages.append({"role": "assistant", "content": answer.content})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "closed"}
            for block in answer.content
            if block.type == "tool_use"
        ]
        if results:
            self.messages.append({"role": "user", "content": results})

    def sync(self, url: str, *, streams: bool) -> None:
        with anthropic.Anthropic(base_url=url, **SETTINGS) as client:
            for _ in range(2):
                if streams:
                    with client.messages.stream(**self.request()) as events:
                        self.note(events.get_final_message())
                else:
                    self.note(client.messages.create(**self.request()))

    async def concurrent(self, url: str, *, streams: bool) -> None:
        async with anthropic.AsyncAnthropic(base_url=url, **SETTINGS) as client:
            for _ in range(2):
                if streams:
                    async with client.messages.stream(**self.request()) as events:
                        self.note(await events.get_final_message())
                else:
                    self.note(await client.messages.create(**self.request()))


async def hold(talk: OpenAITalk | AnthropicTalk, url: str, *, is_async: bool, streams: bool) -> None:
    if is_async:
        await talk.concurrent(url, streams=streams)
    else:
        await asyncio.to_thread(talk.sync, url, streams=streams)


def check_session(first: Observation, second: Observation, call_id: str) -> None:
    """What both APIs' conversations must have in common."""
    for seen in (first, second):
        assert seen.keys[0] == key("acme", "conversation", "c-42")
        assert (seen.customer, seen.complete, seen.aborted) == ("cust-17", True, False)
        assert (seen.llm_calls, seen.input_tokens, seen.output_tokens) == (1, 82, 17)
        assert seen.user_messages == (content_digest(HASH_KEY, "0", QUESTION),)  # one turn, sent twice
    assert first.tool_calls == (content_digest(HASH_KEY, call_id),)
    assert [(effect.rule, effect.outcome) for effect in first.effects] == [("close_ticket", "RESOLVED")]
    assert key("acme", "tool_call", call_id) in first.made
    assert (second.tool_calls, second.effects) == ((), ())


both_ways = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
streaming = pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])


@both_ways
@streaming
async def test_openai(is_async: bool, streams: bool) -> None:
    make = openai_stream if streams else whole
    talk = OpenAITalk()
    async with origin(make(OPENAI_TOOL), make(OPENAI_BYE)) as server:
        await hold(talk, server.url, is_async=is_async, streams=streams)
    first, second = server.calls()
    for call, answer in zip((first, second), talk.answers, strict=True):
        choice = answer.choices[0]
        assert (call.api, call.model, call.response_id) == ("openai.chat", answer.model, answer.id)
        assert (call.reply, call.finish_reason) == (choice.message.content or "", choice.finish_reason)
        assert (call.usage.input, call.usage.output) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
        assert (call.usage.cached, call.usage.reasoning) == (0, 3)
        assert call.completed
    (tool_call,) = first.tool_calls
    assert (tool_call.id, tool_call.name, tool_call.arguments) == (OPENAI_CALL_ID, "close_ticket", ARGUMENTS)
    assert [turn.role for turn in second.turns] == ["system", "user", "assistant", "tool"]
    assert second.tool_results == (OPENAI_CALL_ID,)
    check_session(*server.observations(), OPENAI_CALL_ID)


@both_ways
@streaming
async def test_anthropic(is_async: bool, streams: bool) -> None:
    make = anthropic_stream if streams else whole
    talk = AnthropicTalk()
    async with origin(make(ANTHROPIC_TOOL), make(ANTHROPIC_BYE)) as server:
        await hold(talk, server.url, is_async=is_async, streams=streams)
    first, second = server.calls()
    for call, answer in zip((first, second), talk.answers, strict=True):
        assert (call.api, call.model, call.response_id) == ("anthropic.messages", answer.model, answer.id)
        assert call.reply == "".join(block.text for block in answer.content if block.type == "text")
        assert call.finish_reason == answer.stop_reason
        assert call.usage.input == answer.usage.input_tokens + answer.usage.cache_read_input_tokens
        assert (call.usage.output, call.usage.cached) == (answer.usage.output_tokens, 70)
        assert call.completed
    (tool_call,) = first.tool_calls
    assert (tool_call.id, tool_call.name, tool_call.arguments) == (ANTHROPIC_CALL_ID, "close_ticket", ARGUMENTS)
    assert [turn.role for turn in second.turns] == ["system", "user", "assistant", "tool"]
    assert second.tool_results == (ANTHROPIC_CALL_ID,)
    check_session(*server.observations(), ANTHROPIC_CALL_ID)


async def test_an_sdks_retry_is_the_same_turn() -> None:
    failure = whole({"error": {"message": "Busy", "type": "server_error"}}, 500, "retry-after-ms: 1\r\n")
    async with origin(failure, whole(OPENAI_BYE)) as server:
        settings = SETTINGS | {"max_retries": 1}
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", **settings) as client:
            await client.chat.completions.create(**OpenAITalk().request())
    retries = [Exchange(server.raw(number)).headers["x-stainless-retry-count"] for number in range(2)]
    failed, answered = server.observations()
    assert retries == ["0", "1"]
    assert failed.user_messages == answered.user_messages
    assert (failed.llm_calls, answered.llm_calls) == (0, 1)
    assert server.calls()[0].error == "server_error"


async def test_an_error_in_the_middle_of_a_stream_is_no_answer() -> None:
    started = {"type": "message_start", "message": ANTHROPIC_BYE | {"content": [], "stop_reason": None}}
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    async with (
        origin(stream(("message_start", started), ("error", error))) as server,
        anthropic.AsyncAnthropic(base_url=server.url, **SETTINGS) as client,
    ):
        with pytest.raises(anthropic.APIStatusError):
            async with client.messages.stream(**AnthropicTalk().request()) as events:
                await events.get_final_message()
    (call,) = server.calls()
    assert (call.completed, call.error) == (False, "overloaded_error")
    (seen,) = server.observations()
    assert (seen.llm_calls, seen.effects) == (0, ())
