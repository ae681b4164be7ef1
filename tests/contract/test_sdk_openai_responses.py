"""The official OpenAI SDK, for OpenAI and Azure, with Responses and Assistants, against a recording origin."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import openai
import pytest
from answers import responses_stream
from recording import HASH_KEY, origin, whole

from sidecar.identity import content_digest, key

CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"
SETTINGS: Any = {"api_key": "sk-test", "max_retries": 0}
FUNCTION = {
    "id": "fc_67ca",
    "type": "function_call",
    "status": "completed",
    "call_id": CALL_ID,
    "name": "close_ticket",
    "arguments": '{"ticket": "T-1"}',
}
MESSAGE = {
    "id": "msg_67cc",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "It is closed.", "annotations": []}],
}


def response(identity: str, *output: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body = {
        "id": identity,
        "object": "response",
        "created_at": 1741476542,
        "status": "completed",
        "error": None,
        "model": "gpt-5-2025-08-07",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 64},
            "total_tokens": 123,
        },
    }
    return body | changes


FIRST, SECOND = (
    response("resp_first01", FUNCTION),
    response("resp_second2", MESSAGE, previous_response_id="resp_first01"),
)


def make_client(url: str, *, azure: bool) -> Any:
    if azure:
        return openai.AzureOpenAI(azure_endpoint=url, api_version="2025-04-01-preview", **SETTINGS)
    return openai.OpenAI(base_url=f"{url}/v1", **SETTINGS)


def talk(url: str, *, streams: bool, azure: bool) -> list[Any]:
    """A question, a tool call, its result, the answer; the second request has only what is new."""
    said: list[Any] = []
    inputs = ("Close it.", [{"type": "function_call_output", "call_id": CALL_ID, "output": "closed"}])
    with make_client(url, azure=azure) as client:
        for asked in inputs:
            request = {"model": "gpt-5", "input": asked}
            if said:
                request["previous_response_id"] = said[-1].id
            if streams:
                with client.responses.stream(**request) as told:
                    said.append(told.get_final_response())
            else:
                said.append(client.responses.create(**request))
    return said


@pytest.mark.parametrize("azure", [False, True], ids=["openai", "azure"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_responses(streams: bool, azure: bool) -> None:
    script = [responses_stream(each) if streams else whole(each) for each in (FIRST, SECOND)]
    async with origin(*script) as server:
        said = await asyncio.to_thread(talk, server.url, streams=streams, azure=azure)
    calls = server.calls()
    for call, told in zip(calls, said, strict=True):
        assert (call.api, call.model, call.response_id) == ("openai.responses", told.model, told.id)
        assert (call.reply, call.completed) == (told.output_text, True)
        assert (call.usage.input, call.usage.output) == (told.usage.input_tokens, told.usage.output_tokens)
        assert (call.usage.cached, call.usage.reasoning) == (0, 64)
    first, second = calls
    assert [(each.id, each.arguments) for each in first.tool_calls] == [(CALL_ID, {"ticket": "T-1"})]
    assert (second.previous_response_id, second.tool_results) == ("resp_first01", (CALL_ID,))
    opening, following = server.observations()
    assert [effect.rule for effect in opening.effects] == ["close_ticket"]
    assert opening.user_messages == (content_digest(HASH_KEY, "0", "Close it."),)
    assert following.user_messages == ()
    assert following.keys[0] == key("acme", "response", "resp_first01")
    assert following.keys[0] in opening.made


async def test_chat_completions_at_azure() -> None:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    }

    def ask(url: str) -> Any:
        with make_client(url, azure=True) as client:
            return client.chat.completions.create(model="my-deployment", messages=[{"role": "user", "content": "Hi"}])

    async with origin(whole(body)) as server:
        said = await asyncio.to_thread(ask, server.url)
    assert b"/openai/deployments/my-deployment/chat/completions?api-version=" in server.exchanges[0][0]
    (call,) = server.calls()
    assert (call.api, call.model, call.reply) == ("openai.chat", said.model, said.choices[0].message.content)


THREAD = "thread_jS6cLQ7qWnJ2ZV0yz7Yd1vXN"
RUN = {
    "id": "run_abc123",
    "object": "thread.run",
    "created_at": 1,
    "assistant_id": "asst_abc123",
    "thread_id": THREAD,
    "status": "requires_action",
    "model": "gpt-4o",
    "instructions": "",
    "tools": [],
    "required_action": {
        "type": "submit_tool_outputs",
        "submit_tool_outputs": {
            "tool_calls": [{"id": CALL_ID, "type": "function", "function": {"name": "close_ticket", "arguments": "{}"}}]
        },
    },
}
THREAD_MESSAGE = {
    "id": "msg_1",
    "object": "thread.message",
    "created_at": 1,
    "thread_id": THREAD,
    "role": "user",
    "content": [],
}


def run_thread(url: str) -> Any:
    with warnings.catch_warnings(), make_client(url, azure=False) as client:
        warnings.simplefilter("ignore", DeprecationWarning)  # the API is old, and still spoken
        thread = client.beta.threads.create()
        client.beta.threads.messages.create(thread.id, role="user", content="Close it.")
        return client.beta.threads.runs.create(thread.id, assistant_id="asst_abc123")


async def test_assistants() -> None:
    thread = {"id": THREAD, "object": "thread", "created_at": 1, "metadata": {}}
    async with origin(whole(thread), whole(THREAD_MESSAGE), whole(RUN)) as server:
        run = await asyncio.to_thread(run_thread, server.url)
    made, message, started = server.calls()
    assert {each.api for each in (made, message, started)} == {"openai.assistants"}
    assert (message.conversation, message.turns[0].text, message.llm_call) == (THREAD, "Close it.", False)
    assert (started.conversation, started.response_id, started.llm_call) == (run.thread_id, run.id, True)
    assert [each.id for each in started.tool_calls] == [CALL_ID]
