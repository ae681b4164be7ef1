"""Exchanges of every agent API, as their clients and servers write them, of about a given size. Seeded by the size."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from sidecar.observer.reader import RawExchange
from sidecar.wire.records import EndFlag

_TEXT = "the order has not come yet, and my card was charged twice last week – bitte prüfen"
_MESSAGE_CHARS = 400
_PIECES = 40  # of a streamed answer
_HEADERS = (
    "Host: api.example.com\r\nAccept: application/json\r\nContent-Type: application/json\r\nUser-Agent: SDK/1.0\r\n"
    "Authorization: Bearer sk-0123456789abcdef\r\nX-Session-Id: c-42-{n}\r\nX-Customer-Id: cust-17\r\n"
    "Connection: keep-alive\r\n"
)
Body = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """An API as one client speaks it: the name in tables, the path, the request made of texts, the answer."""

    name: str
    path: str
    request: Callable[[list[str]], Body]
    answer: Callable[[str], tuple[str, bytes]]  # media type and body


def kinds() -> list[Kind]:
    """All of them, whole and streamed."""
    return [
        Kind("openai.chat", "/v1/chat/completions", _chat, _json(_chat_answer)),
        Kind("openai.chat, stream", "/v1/chat/completions", _chat, _sse(_chat_chunks, done=True)),
        Kind("openai.responses", "/v1/responses", _responses, _json(_response)),
        Kind("openai.responses, stream", "/v1/responses", _responses, _sse(_response_events)),
        Kind("openai.assistants", "/v1/threads/thread_abc123/runs", _run, _json(_run_answer)),
        Kind("anthropic.messages", "/v1/messages", _messages, _json(_message)),
        Kind("anthropic.messages, stream", "/v1/messages", _messages, _sse(_message_events)),
        Kind("gemini", "/v1beta/models/gemini-3-pro:generateContent", _contents, _json(_candidates)),
        Kind("gemini, SSE", "/v1beta/models/gemini-3-pro:streamGenerateContent", _contents, _sse(_candidate_chunks)),
        Kind("gemini, array", "/v1beta/models/gemini-3-pro:streamGenerateContent", _contents, _array),
        Kind("gemini.interactions, stream", "/v1beta/interactions", _steps, _sse(_step_events, done=True)),
        Kind("bedrock, Converse", "/model/us.amazon.nova-pro-v1%3A0/converse", _converse, _json(_converse_answer)),
        Kind("bedrock, ConverseStream", "/model/us.amazon.nova-pro-v1%3A0/converse-stream", _converse, _aws_converse),
        Kind(
            "bedrock, InvokeModel stream",
            "/model/anthropic.claude-v4/invoke-with-response-stream",
            lambda texts: _messages(texts) | {"anthropic_version": "bedrock-2023-05-31"},
            _aws_invoke,
        ),
        Kind("ollama, stream", "/api/chat", _chat, _ndjson),
        Kind("vercel.ui", "/api/chat", _ui, _sse(_ui_parts, done=True)),
        Kind("mcp", "/mcp", _tool, _json(_tool_answer)),
        Kind("a2a, stream", "/a2a", _agent, _sse(_agent_events)),
        Kind("a product's own JSON", "/assist", lambda texts: {"texts": texts}, _json(lambda text: {"answer": text})),
    ]


def exchange(kind: Kind, size: int, number: int = 1) -> RawExchange:
    """The exchange number `number` whose request has about `size` bytes of body, in a conversation of its own."""
    texts = list(_texts(size, number))
    body = orjson.dumps(kind.request(texts))
    media_type, answer = kind.answer(f"I have looked at it ({number}): your card is credited today. Anything else?")
    head = f"POST {kind.path} HTTP/1.1\r\n{_HEADERS.format(n=number)}Content-Length: {len(body)}\r\n\r\n"
    told = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {len(answer)}\r\n"
    if kind.name == "vercel.ui":
        told += "x-vercel-ai-ui-message-stream: v1\r\n"
    raw, response = head.encode() + body, (told + "\r\n").encode() + answer
    return RawExchange("bench", number, number, 0, 1_000, 2_000, raw, response, EndFlag(0), finished=True)


def _texts(size: int, seed: int) -> Iterator[str]:
    """Messages in turn of the user and of the assistant; the last one is the user's."""
    chance = random.Random(f"{size} {seed}")
    count = max(1, size // (_MESSAGE_CHARS + 60)) | 1
    words = _TEXT.split()
    for number in range(count):
        text = f"{number}: "
        while len(text) < min(_MESSAGE_CHARS, size - 150):
            text += chance.choice(words) + " "
        yield text


def _roles(texts: list[str], model: str = "assistant") -> Iterator[tuple[str, str]]:
    return ((model if number % 2 else "user", text) for number, text in enumerate(texts))


def _pieces(text: str) -> list[str]:
    step = max(1, len(text) // _PIECES)
    return [text[at : at + step] for at in range(0, len(text), step)]


def _json(make: Callable[[str], Body]) -> Callable[[str], tuple[str, bytes]]:
    return lambda text: ("application/json", orjson.dumps(make(text)))


def _sse(make: Callable[[str], Iterator[Body]], *, done: bool = False) -> Callable[[str], tuple[str, bytes]]:
    def answer(text: str) -> tuple[str, bytes]:
        events = []
        for event in make(text):
            name = f"event: {event['type']}\n".encode() if isinstance(event.get("type"), str) else b""
            events.append(name + b"data: " + orjson.dumps(event) + b"\n\n")
        return "text/event-stream", b"".join(events) + (b"data: [DONE]\n\n" if done else b"")

    return answer


def _chat(texts: list[str]) -> Body:
    system = {"role": "system", "content": "You are a careful support agent."}
    messages = [system, *({"role": role, "content": text} for role, text in _roles(texts))]
    return {"model": "gpt-4o", "stream": True, "messages": messages}


_CHAT_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def _chat_answer(text: str) -> Body:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "c", "model": "gpt-4o", "choices": [choice], "usage": _CHAT_USAGE}


def _chat_chunks(text: str) -> Iterator[Body]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    for piece in _pieces(text):
        yield head | {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
    yield head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield head | {"choices": [], "usage": _CHAT_USAGE}


def _responses(texts: list[str]) -> Body:
    items = [
        {"role": role, "content": [{"type": "input_text" if role == "user" else "output_text", "text": text}]}
        for role, text in _roles(texts)
    ]
    return {"model": "gpt-5", "instructions": "You are a careful support agent.", "input": items, "stream": True}


def _response(text: str) -> Body:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    message["content"] = [{"type": "output_text", "text": text, "annotations": []}]  # type: ignore[assignment]
    usage = {"input_tokens": 82, "output_tokens": 17, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"id": "resp_1", "object": "response", "status": "completed", "output": [message], "usage": usage}


def _response_events(text: str) -> Iterator[Body]:
    yield {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}}
    for piece in _pieces(text):
        yield {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "delta": piece}
    body = _response(text)
    yield {"type": "response.output_item.done", "output_index": 0, "item": body["output"][0]}
    yield {"type": "response.completed", "response": body}


def _run(texts: list[str]) -> Body:
    messages = [{"role": role, "content": text} for role, text in _roles(texts)]
    return {"assistant_id": "asst_1", "additional_messages": messages}


def _run_answer(_text: str) -> Body:
    return {"id": "run_1", "object": "thread.run", "thread_id": "thread_abc123", "status": "completed", "usage": {}}


def _messages(texts: list[str]) -> Body:
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in _roles(texts)]
    return {"model": "claude-sonnet-5", "max_tokens": 999, "system": "You are careful.", "messages": messages}


def _message(text: str) -> Body:
    usage = {"input_tokens": 12, "output_tokens": 17, "cache_read_input_tokens": 70}
    content = [{"type": "text", "text": text}]
    return {"id": "msg_1", "type": "message", "content": content, "stop_reason": "end_turn", "usage": usage}


def _message_events(text: str) -> Iterator[Body]:
    opening = _message(text) | {"content": [], "stop_reason": None}
    yield {"type": "message_start", "message": opening}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for piece in _pieces(text):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 17}}
    yield {"type": "message_stop"}


def _contents(texts: list[str]) -> Body:
    contents = [{"role": role, "parts": [{"text": text}]} for role, text in _roles(texts, "model")]
    return {"contents": contents, "systemInstruction": {"parts": [{"text": "You are careful."}]}}


def _candidates(text: str, finish: str | None = "STOP") -> Body:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}} | ({"finishReason": finish} if finish else {})
    usage = {"promptTokenCount": 82, "candidatesTokenCount": 17, "totalTokenCount": 99}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3-pro", "responseId": "r1"}


def _candidate_chunks(text: str) -> Iterator[Body]:
    pieces = _pieces(text)
    return (_candidates(piece, "STOP" if number == len(pieces) else None) for number, piece in enumerate(pieces, 1))


def _steps(texts: list[str]) -> Body:
    steps = [
        {"type": kind, "content": [{"type": "text", "text": text}]} for kind, text in _roles(texts, "model_output")
    ]
    for step in steps[::2]:
        step["type"] = "user_input"
    return {"model": "gemini-3-pro", "system_instruction": "You are careful.", "input": steps}


def _step_events(text: str) -> Iterator[Body]:
    yield {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}}
    for piece in _pieces(text):
        yield {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": piece}}
    usage = {"total_input_tokens": 82, "total_output_tokens": 17}
    ended = {"id": "v1_1", "model": "gemini-3-pro", "status": "completed", "usage": usage}
    yield {"event_type": "interaction.completed", "interaction": ended}


def _array(text: str) -> tuple[str, bytes]:
    return "application/json", orjson.dumps(list(_candidate_chunks(text)))


def _converse(texts: list[str]) -> Body:
    messages = [{"role": role, "content": [{"text": text}]} for role, text in _roles(texts)]
    return {"messages": messages, "system": [{"text": "You are careful."}]}


_CONVERSE_USAGE = {"inputTokens": 82, "outputTokens": 17, "totalTokens": 99}


def _converse_answer(text: str) -> Body:
    message = {"role": "assistant", "content": [{"text": text}]}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": _CONVERSE_USAGE}


def _aws(kind: str, payload: Body) -> bytes:
    headers = b""
    for key, value in {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}.items():
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = orjson.dumps(payload)
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    raw = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return raw + struct.pack(">I", zlib.crc32(raw))


def _aws_converse(text: str) -> tuple[str, bytes]:
    events = [_aws("messageStart", {"role": "assistant"})]
    events += [_aws("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": each}}) for each in _pieces(text)]
    events.append(_aws("contentBlockStop", {"contentBlockIndex": 0}))
    events.append(_aws("messageStop", {"stopReason": "end_turn"}))
    events.append(_aws("metadata", {"usage": _CONVERSE_USAGE, "metrics": {"latencyMs": 9}}))
    return "application/vnd.amazon.eventstream", b"".join(events)


def _aws_invoke(text: str) -> tuple[str, bytes]:
    chunks = (base64.b64encode(orjson.dumps(each)).decode() for each in _message_events(text))
    return "application/vnd.amazon.eventstream", b"".join(_aws("chunk", {"bytes": chunk}) for chunk in chunks)


def _ndjson(text: str) -> tuple[str, bytes]:
    head = {"model": "llama3.3", "created_at": "2026-11-01T00:00:00Z", "done": False}
    lines = [head | {"message": {"role": "assistant", "content": piece}} for piece in _pieces(text)]
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 82, "eval_count": 17}
    lines.append(head | {"message": {"role": "assistant", "content": ""}} | end)
    return "application/x-ndjson", b"".join(orjson.dumps(line) + b"\n" for line in lines)


def _ui(texts: list[str]) -> Body:
    messages = [
        {"id": f"m{number}", "role": role, "parts": [{"type": "text", "text": text}]}
        for number, (role, text) in enumerate(_roles(texts))
    ]
    return {"id": "chat-1", "messages": messages, "trigger": "submit-message"}


def _ui_parts(text: str) -> Iterator[Body]:
    yield {"type": "start", "messageId": "m-9"}
    yield {"type": "text-start", "id": "t1"}
    for piece in _pieces(text):
        yield {"type": "text-delta", "id": "t1", "delta": piece}
    yield {"type": "text-end", "id": "t1"}
    yield {"type": "finish"}


def _tool(texts: list[str]) -> Body:
    params = {"name": "look_up", "arguments": {"texts": texts}}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


def _tool_answer(text: str) -> Body:
    return {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": text}]}}


def _agent(texts: list[str]) -> Body:
    message = {"kind": "message", "role": "user", "messageId": "m", "contextId": "ctx-7543-4f78"}
    message["parts"] = [{"kind": "text", "text": text} for text in texts]  # type: ignore[assignment]
    return {"jsonrpc": "2.0", "id": "r", "method": "message/stream", "params": {"message": message}}


def _agent_events(text: str) -> Iterator[Body]:
    place = {"taskId": "task-1", "contextId": "ctx-7543-4f78"}
    results: list[Body] = [
        {"kind": "artifact-update", "append": number > 0, "artifact": {"artifactId": "a", "parts": [{"text": piece}]}}
        for number, piece in enumerate(_pieces(text))
    ]
    results.append({"kind": "status-update", "status": {"state": "completed"}, "final": True})
    return ({"jsonrpc": "2.0", "id": "r", "result": place | result} for result in results)
