"""Answers of OpenAI (two APIs) and Anthropic, whole and streamed: a tool call, then a goodbye."""

from __future__ import annotations

from typing import Any

import orjson
from recording import Answer, stream

OPENAI_CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"
ANTHROPIC_CALL_ID = "toolu_01T1x1fJ34qAmk2tNTrN7Up6"
ARGUMENTS = {"ticket": "T-1", "note": "gelöst"}


def openai_body(message: dict[str, Any], finish: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-BqR1",
        "object": "chat.completion",
        "created": 1795348800,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": 82,
            "completion_tokens": 17,
            "total_tokens": 99,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def openai_stream(body: dict[str, Any]) -> Answer:
    """The same answer as chunks, its texts in pieces, its usage in the last chunk."""
    choice = body["choices"][0]
    head = {name: body[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in choice["message"].get("content") or ""]
    for index, call in enumerate(choice["message"].get("tool_calls", ())):
        deltas.append({"tool_calls": [call | {"index": index, "function": call["function"] | {"arguments": ""}}]})
        for piece in call["function"]["arguments"]:
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    chunks.append(head | {"choices": [], "usage": body["usage"]})
    return stream(*((None, chunk) for chunk in chunks), (None, "[DONE]"))


def anthropic_body(*content: dict[str, Any], stop_reason: str) -> dict[str, Any]:
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-20261101",
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "output_tokens": 17,
            "cache_read_input_tokens": 70,
            "cache_creation_input_tokens": 0,
        },
    }


def anthropic_stream(body: dict[str, Any]) -> Answer:
    """The same message as events, its blocks in pieces, its counts, which are cumulative, at both ends."""
    opening = body | {"content": [], "stop_reason": None, "usage": body["usage"] | {"output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": opening}, {"type": "ping"}]
    for index, block in enumerate(body["content"]):
        if block["type"] == "text":
            start = block | {"text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in block["text"]]
        else:
            start = block | {"input": {}}
            pieces = orjson.dumps(block["input"]).decode()
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": body["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ending, "usage": body["usage"]})
    events.append({"type": "message_stop"})
    return stream(*((event["type"], event) for event in events))


OPENAI_TOOL = openai_body(
    {
        "content": None,
        "tool_calls": [
            {
                "id": OPENAI_CALL_ID,
                "type": "function",
                "function": {"name": "close_ticket", "arguments": orjson.dumps(ARGUMENTS).decode()},
            }
        ],
    },
    "tool_calls",
)
OPENAI_BYE = openai_body({"content": "Erledigt – closed."}, "stop")
ANTHROPIC_TOOL = anthropic_body(
    {"type": "text", "text": "I close it."},
    {"type": "tool_use", "id": ANTHROPIC_CALL_ID, "name": "close_ticket", "input": ARGUMENTS},
    stop_reason="tool_use",
)
ANTHROPIC_BYE = anthropic_body({"type": "text", "text": "Erledigt – closed."}, stop_reason="end_turn")

_USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 123,
}


def response(identity: str, *items: dict[str, Any]) -> dict[str, Any]:
    body = {"id": identity, "object": "response", "created_at": 1, "status": "completed", "model": "gpt-5-2025-08-07"}
    settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}
    return body | settings | {"output": list(items), "usage": _USAGE}


def item(kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": f"{kind}_1", "type": kind, "status": "completed"} | fields


def call(name: str, arguments: str, identity: str = OPENAI_CALL_ID) -> dict[str, Any]:
    return item("function_call", call_id=identity, name=name, arguments=arguments)


TEXT = {"type": "output_text", "text": "Erledigt – closed.", "annotations": []}
RESPONSES_BYE = response("resp_second2", item("message", role="assistant", content=[TEXT]))
RESPONSES_TOOL = response("resp_first01", call("close_ticket", '{"ticket": "T-1", "note": "gelöst"}'))


def responses_stream(body: dict[str, Any]) -> Answer:
    """The same response as a stream, its texts and arguments in pieces."""
    made: list[dict[str, Any]] = [{"type": "response.created", "response": body | {"output": [], "usage": None}}]
    for index, item in enumerate(body["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        text = item["type"] == "message"
        started = item | ({"content": []} if text else {"arguments": ""})
        made.append({"type": "response.output_item.added", "output_index": index, "item": started})
        if text:
            part = item["content"][0]
            place |= {"content_index": 0}
            made.append({"type": "response.content_part.added", "part": part | {"text": ""}} | place)
            made += [
                {"type": "response.output_text.delta", "delta": each, "logprobs": []} | place for each in part["text"]
            ]
            done: dict[str, Any] = {"type": "response.output_text.done", "text": part["text"], "logprobs": []}
        else:
            kind = "response.function_call_arguments"
            made += [{"type": f"{kind}.delta", "delta": each} | place for each in item["arguments"]]
            done = {"type": f"{kind}.done", "arguments": item["arguments"], "name": item["name"]}
        made += [done | place, {"type": "response.output_item.done", "output_index": index, "item": item}]
    made.append({"type": "response.completed", "response": body})
    return stream(*((each["type"], each | {"sequence_number": number}) for number, each in enumerate(made)))
