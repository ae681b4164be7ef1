"""The fake LLM against the official SDKs and against the wire formats that the providers document."""

import json

import anthropic
import httpx
import openai
import pytest

TOOLS = ("lookup_order", "resolve_conversation", "transfer_to_human")
OPENAI_TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in TOOLS]
ANTHROPIC_TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in TOOLS]


@pytest.fixture
async def openai_client(llm_url):
    async with openai.AsyncOpenAI(base_url=f"{llm_url}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(llm_url):
    async with anthropic.AsyncAnthropic(base_url=llm_url, api_key="k", max_retries=0) as client:
        yield client


def user(text):
    return [{"role": "user", "content": text}]


def lines_of(response):
    return [line for line in response.text.split("\n") if line]


async def test_openai_answers_in_words(openai_client):
    answer = await openai_client.chat.completions.create(model="gpt-4o", messages=user("A refund, please"))
    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    assert "five working days" in choice.message.content
    assert choice.message.tool_calls is None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens == -(-len(choice.message.content) // 4)
    assert answer.id.startswith("chatcmpl-")


async def test_openai_streamed_and_whole_say_the_same(openai_client):
    request = {"model": "gpt-4o", "messages": user("orders 1042 and 1043"), "tools": OPENAI_TOOLS}
    whole = await openai_client.chat.completions.create(**request)
    async with openai_client.chat.completions.stream(**request, stream_options={"include_usage": True}) as stream:
        streamed = await stream.get_final_completion()
    calls = [
        [(c.function.name, c.function.arguments) for c in a.choices[0].message.tool_calls] for a in (whole, streamed)
    ]
    assert calls[0] == calls[1] == [("lookup_order", '{"order_id": "1042"}'), ("lookup_order", '{"order_id": "1043"}')]
    assert whole.choices[0].message.content == streamed.choices[0].message.content
    assert whole.choices[0].finish_reason == streamed.choices[0].finish_reason == "tool_calls"
    assert whole.usage.model_dump() == streamed.usage.model_dump()
    ids = [call.id for answer in (whole, streamed) for call in answer.choices[0].message.tool_calls]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("asked", [True, False])
async def test_openai_usage_comes_in_one_last_chunk_and_only_for_who_asked(openai_client, asked):
    options = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await openai_client.chat.completions.create(
        model="gpt-4o", messages=user("that is solved"), tools=OPENAI_TOOLS, stream=True, **options
    )
    chunks = [chunk async for chunk in stream]
    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    assert len({chunk.id for chunk in chunks}) == 1
    if asked:
        assert with_usage == [chunks[-1]]
        assert chunks[-1].choices == []
    else:
        assert with_usage == []
    pieces = [call.function.arguments for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or ()]
    assert len(pieces) > 2
    assert json.loads("".join(pieces)) == {"summary": "the customer confirmed the answer"}
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert ends[-1] == "tool_calls"
    assert set(ends[:-1]) == {None}


async def test_openai_takes_tool_results(openai_client):
    messages = user("I want a human")
    first = await openai_client.chat.completions.create(model="gpt-4o", messages=messages, tools=OPENAI_TOOLS)
    message = first.choices[0].message
    messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
    messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "{}"})
    second = await openai_client.chat.completions.create(model="gpt-4o", messages=messages, tools=OPENAI_TOOLS)
    assert "colleague" in second.choices[0].message.content
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="preceding message"):
        await openai_client.chat.completions.create(model="gpt-4o", messages=[messages[0], messages[2]])


async def test_openai_cuts_at_the_token_limit(openai_client):
    answer = await openai_client.chat.completions.create(
        model="gpt-4o", messages=user("refund"), max_completion_tokens=3
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


async def test_a_tool_that_was_not_offered_is_not_called(openai_client):
    answer = await openai_client.chat.completions.create(model="gpt-4o", messages=user("order 1042"))
    assert answer.choices[0].message.tool_calls is None


async def test_openai_models_and_embeddings(openai_client):
    assert [model.id async for model in openai_client.models.list()] == ["gpt-4o"]
    answer = await openai_client.embeddings.create(model="e", input="a text", encoding_format="float")
    assert len(answer.data[0].embedding) == 4


async def test_anthropic_streamed_and_whole_say_the_same(anthropic_client):
    request = {
        "model": "claude-sonnet-5",
        "max_tokens": 500,
        "messages": user("orders 1042 and 1043"),
        "tools": ANTHROPIC_TOOLS,
    }
    whole = await anthropic_client.messages.create(**request)
    async with anthropic_client.messages.stream(**request) as stream:
        streamed = await stream.get_final_message()
    said = [[part.model_dump(exclude={"id"}) for part in message.content] for message in (whole, streamed)]
    assert said[0] == said[1]
    assert [part.type for part in whole.content] == ["text", "tool_use", "tool_use"]
    assert whole.stop_reason == streamed.stop_reason == "tool_use"
    assert whole.usage.input_tokens == streamed.usage.input_tokens
    assert whole.usage.output_tokens == streamed.usage.output_tokens
    assert whole.id != streamed.id


async def test_anthropic_events_come_in_the_documented_order(llm_url):
    body = {"model": "m", "max_tokens": 99, "stream": True, "messages": user("all set"), "tools": ANTHROPIC_TOOLS}
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{llm_url}/v1/messages", json=body, headers={"x-api-key": "k", "anthropic-version": "2023-06-01"}
        )
    events = [json.loads(line[6:]) for line in lines_of(answer) if line.startswith("data: ")]
    names = [line[7:] for line in lines_of(answer) if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    kinds = list(dict.fromkeys(name for name in names if name != "ping"))
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["stop_reason"] is None
    assert events[0]["message"]["content"] == []
    inputs = [e["delta"]["partial_json"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"]
    assert len(inputs) > 2
    assert json.loads("".join(inputs)) == {"summary": "the customer confirmed the answer"}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_anthropic_takes_tool_results_and_words_beside_them(anthropic_client):
    request = {"model": "claude-sonnet-5", "max_tokens": 500, "tools": ANTHROPIC_TOOLS}
    first = await anthropic_client.messages.create(**request, messages=user("that is solved"))
    call = first.content[-1]
    history = [*user("that is solved"), {"role": "assistant", "content": [call.model_dump(exclude={"caller"})]}]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "{}"}
    after = await anthropic_client.messages.create(
        **request, messages=[*history, {"role": "user", "content": [result]}]
    )
    assert "marked this as resolved" in after.content[0].text
    words = {"role": "user", "content": [result, {"type": "text", "text": "a refund"}]}
    asked = await anthropic_client.messages.create(**request, messages=[*history, words])
    assert "five working days" in asked.content[0].text
    unknown = {"role": "user", "content": [result | {"tool_use_id": "toolu_none"}]}
    with pytest.raises(anthropic.BadRequestError, match="toolu_none"):
        await anthropic_client.messages.create(**request, messages=[*history, unknown])


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("chat/completions", {}, {}, 401),
        ("chat/completions", {"Authorization": "Bearer k"}, {}, 400),
        ("chat/completions", {"Authorization": "Bearer k"}, [], 400),
        ("chat/completions", {"Authorization": "Bearer k"}, {"model": "m", "messages": ["x"]}, 400),
        ("messages", {}, {}, 401),
        ("messages", {"x-api-key": "k"}, {}, 400),
        ("messages", {"x-api-key": "k", "anthropic-version": "v"}, {"model": "m", "messages": user("x")}, 400),
        (
            "messages",
            {"x-api-key": "k", "anthropic-version": "v"},
            {"model": "m", "max_tokens": 1, "messages": [3]},
            400,
        ),
    ],
)
async def test_bad_requests_get_the_providers_errors(llm_url, path, headers, body, status):
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{llm_url}/v1/{path}", json=body, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] in {"invalid_request_error", "authentication_error"}
    assert error["message"]
