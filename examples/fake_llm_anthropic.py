"""The fake LLM's Anthropic dialect: Messages, whole and streamed.

Shapes as in Anthropic's API reference, "Messages" and "Streaming Messages".
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from fake_llm_words import Answer, BadRequestError, Heard, Json, make_id, pieces, texts, tokens


def hear_anthropic(body: Json) -> Heard:
    """The end of a Messages request; raises BadRequestError."""
    messages = body.get("messages")
    if not isinstance(body.get("model"), str) or not isinstance(messages, list) or not messages:
        raise BadRequestError("messages: at least one message is required")
    if not isinstance(body.get("max_tokens"), int):
        raise BadRequestError("max_tokens: Field required")
    offered = frozenset(tool["name"] for tool in body.get("tools") or ())
    names: dict[str, str] = {}
    for message in messages:
        for block in message["content"] if isinstance(message.get("content"), list) else ():
            if block.get("type") == "tool_use":
                names[block["id"]] = block["name"]
    last = messages[-1]
    if last.get("role") != "user":
        return Heard(tools=offered)
    words = texts(last.get("content"))
    blocks = last["content"] if isinstance(last.get("content"), list) else []
    results = [block["tool_use_id"] for block in blocks if block.get("type") == "tool_result"]
    if unknown := [result for result in results if result not in names]:
        raise BadRequestError(f"unexpected `tool_use_id` found in `tool_result` blocks: {unknown[0]}")
    if words:
        return Heard(user=words, tools=offered)
    return Heard(results=tuple(names[result] for result in results), tools=offered)


def anthropic_blocks(answer: Answer) -> list[Json]:
    """`content` of a message."""
    text = [{"type": "text", "text": answer.text}] if answer.text else []
    calls = [
        {
            "type": "tool_use",
            "id": make_id("toolu_01", 22),
            "name": call.name,
            "input": call.arguments,
        }
        for call in answer.calls
    ]
    return [*text, *calls]


def anthropic_stop(answer: Answer) -> str:
    """`stop_reason` of a message."""
    return "tool_use" if answer.calls else "max_tokens" if answer.cut else "end_turn"


def anthropic_usage(body: Json, output: int) -> Json:
    """`usage` of a message."""
    return {
        "input_tokens": tokens(json.dumps([body.get("system"), body["messages"], body.get("tools")])),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output,
        "service_tier": "standard",
    }


def anthropic_body(body: Json, answer: Answer) -> Json:
    """A whole `message`."""
    return {
        "id": make_id("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": anthropic_blocks(answer),
        "stop_reason": anthropic_stop(answer),
        "stop_sequence": None,
        "usage": anthropic_usage(body, answer.tokens()),
    }


def anthropic_block_events(index: int, block: Json) -> Iterator[Json]:
    """Start, deltas and stop of one content block; a call's input comes as pieces of JSON text."""
    if block["type"] == "text":
        start: Json = {"type": "text", "text": ""}
        deltas: Iterator[Json] = ({"type": "text_delta", "text": piece} for piece in pieces(block["text"]))
    else:
        start = block | {"input": {}}
        deltas = (
            {"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces(json.dumps(block["input"])))
        )
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def anthropic_events(body: Json, answer: Answer) -> Iterator[bytes]:
    """Events from `message_start` to `message_stop`; output tokens are known with `message_delta`."""
    whole = anthropic_body(body, answer)
    opening: Json = {"content": [], "stop_reason": None, "usage": anthropic_usage(body, 1)}
    events: list[Json] = [{"type": "message_start", "message": whole | opening}, {"type": "ping"}]
    for index, block in enumerate(whole["content"]):
        events.extend(anthropic_block_events(index, block))
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": answer.tokens()}
    events.append({"type": "message_delta", "delta": ending, "usage": usage})
    events.append({"type": "message_stop"})
    for event in events:
        data = json.dumps(event, separators=(",", ":"))
        yield f"event: {event['type']}\ndata: {data}\n\n".encode()
