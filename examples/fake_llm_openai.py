"""The fake LLM's OpenAI dialect: Chat Completions, whole and streamed.

Shapes as in the API reference of OpenAI, "Chat Completions" and "Streaming".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from fake_llm_words import Answer, BadRequestError, Heard, Json, make_id, pieces, texts, tokens


def hear_openai(body: Json) -> Heard:
    """The end of a Chat Completions request; raises BadRequestError."""
    messages = body.get("messages")
    if not isinstance(body.get("model"), str) or not isinstance(messages, list) or not messages:
        raise BadRequestError("you must provide a model parameter and a non-empty messages array")
    offered = frozenset(tool["function"]["name"] for tool in body.get("tools") or ())
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        if message.get("tool_call_id") not in names:
            raise BadRequestError(
                "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            )
        results.insert(0, names[message["tool_call_id"]])
    if results:
        return Heard(results=tuple(results), tools=offered)
    return Heard(user=texts(messages[-1].get("content")), tools=offered)


def openai_usage(body: Json, answer: Answer) -> Json:
    """`usage` of a completion."""
    prompt = tokens(json.dumps([body["messages"], body.get("tools")]))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer.tokens(),
        "total_tokens": prompt + answer.tokens(),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def openai_finish(answer: Answer) -> str:
    """`finish_reason` of a choice."""
    return "tool_calls" if answer.calls else "length" if answer.cut else "stop"


def openai_calls(answer: Answer) -> list[Json]:
    """`tool_calls` of a message, with their arguments as JSON text."""
    return [
        {
            "id": make_id("call_", 24),
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for call in answer.calls
    ]


def openai_body(body: Json, answer: Answer) -> Json:
    """A whole `chat.completion`."""
    message: Json = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        message["tool_calls"] = openai_calls(answer)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": openai_finish(answer),
    }
    return {
        "id": make_id("chatcmpl-", 29),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [choice],
        "usage": openai_usage(body, answer),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }


def openai_deltas(answer: Answer) -> Iterator[Json]:
    """The deltas of one streamed choice: role first, words, then each call's name and its arguments in pieces."""
    yield {"role": "assistant", "content": "", "refusal": None}
    for piece in pieces(answer.text):
        yield {"content": piece}
    for index, call in enumerate(openai_calls(answer)):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}
        for piece in pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def openai_events(body: Json, answer: Answer) -> Iterator[bytes]:
    """`chat.completion.chunk` events; usage comes in one more chunk, only for who asked for it."""
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    head = {
        "id": make_id("chatcmpl-", 29),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }

    def event(choices: Sequence[Json], usage: Json | None = None) -> bytes:
        chunk = head | {"choices": choices} | ({"usage": usage} if with_usage else {})
        return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"

    for delta in openai_deltas(answer):
        yield event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": openai_finish(answer)}
    yield event([end])
    if with_usage:
        yield event([], openai_usage(body, answer))
    yield b"data: [DONE]\n\n"
