"""One history, as each API's clients put it on the wire, and an answer to it: bytes, as a queue holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Tool:
    """A call that a model asks for; `id` is what goes over the wire."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a history: `user`, `assistant` (with the calls it asks for) or `tool` (the result of `tool`)."""

    role: str
    text: str
    calls: tuple[Tool, ...] = ()
    tool: Tool | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """An API: where its key stands, and whether its calls have ids that can be told from others."""

    name: str
    path: str
    key_header: str
    has_call_ids: bool = True


CHAT = Dialect("openai.chat", "/v1/chat/completions", "authorization")
RESPONSES = Dialect("openai.responses", "/v1/responses", "authorization")
ANTHROPIC = Dialect("anthropic.messages", "/v1/messages", "x-api-key")
GEMINI = Dialect("gemini", "/v1beta/models/gemini-2.5-pro:generateContent", "x-goog-api-key", has_call_ids=False)
OLLAMA = Dialect("ollama", "/api/chat", "authorization", has_call_ids=False)
VERCEL = Dialect("vercel.ui", "/api/chat", "cookie")
DIALECTS = (CHAT, RESPONSES, ANTHROPIC, GEMINI, OLLAMA)


def request(dialect: Dialect, system: str, history: list[Said], headers: Mapping[str, str]) -> bytes:
    """The request that asks for the next answer."""
    return message(f"POST {dialect.path} HTTP/1.1", _BODIES[dialect.name](system, history), headers)


def answer(dialect: Dialect, identity: str, said: Said, *, stream: bool = False) -> bytes:
    """The answer, whole or (of the chat APIs) streamed; `identity` is its id."""
    if dialect is VERCEL:
        return _vercel_stream(identity, said)
    if stream and dialect is CHAT:
        return _chat_stream(identity, said)
    return message("HTTP/1.1 200 OK", _ANSWERS[dialect.name](identity, said))


def failure(status: int) -> bytes:
    """An answer that is none."""
    return message(f"HTTP/1.1 {status} No", {"error": {"type": "overloaded_error", "message": "later"}})


def message(start_line: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """One HTTP message with a JSON body."""
    raw = orjson.dumps(body)
    fields = {"Host": "llm.test", "Content-Type": "application/json", "Content-Length": str(len(raw))} | dict(
        headers or {}
    )
    return head(start_line, fields) + raw


def head(start_line: str, fields: Mapping[str, str]) -> bytes:
    """A message's head."""
    lines = [start_line, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


def _chat_body(system: str, history: list[Said]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    for said in history:
        if said.tool is not None:
            messages.append({"role": "tool", "tool_call_id": said.tool.id, "content": said.text})
            continue
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _json(call.arguments)}}
            for call in said.calls
        ]
        messages.append({"role": said.role, "content": said.text} | ({"tool_calls": calls} if calls else {}))
    return {"model": "gpt-4o", "messages": messages}


def _responses_body(system: str, history: list[Said]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for said in history:
        if said.tool is not None:
            items.append({"type": "function_call_output", "call_id": said.tool.id, "output": said.text})
            continue
        if said.text:
            kind = "output_text" if said.role == "assistant" else "input_text"
            items.append({"type": "message", "role": said.role, "content": [{"type": kind, "text": said.text}]})
        items += [_responses_call(call) for call in said.calls]
    return {"model": "gpt-4o", "instructions": system, "input": items, "store": False}


def _responses_call(call: Tool) -> dict[str, Any]:
    arguments = _json(call.arguments)
    return {
        "type": "function_call",
        "id": f"fc_{call.id}",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
    }


def _anthropic_body(system: str, history: list[Said]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for said in history:
        if said.tool is not None:
            block = {"type": "tool_result", "tool_use_id": said.tool.id, "content": said.text}
            messages.append({"role": "user", "content": [block]})
            continue
        blocks: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
        blocks += [{"type": "tool_use", "id": c.id, "name": c.name, "input": dict(c.arguments)} for c in said.calls]
        messages.append({"role": said.role, "content": blocks})
    return {"model": "claude-sonnet-5", "max_tokens": 500, "system": system, "messages": messages}


def _gemini_body(system: str, history: list[Said]) -> dict[str, Any]:
    contents: list[dict[str, Any]] = []
    for said in history:
        if said.tool is not None:
            part = {"functionResponse": {"name": said.tool.name, "response": {"result": said.text}}}
            contents.append({"role": "user", "parts": [part]})
            continue
        role = "model" if said.role == "assistant" else "user"
        parts: list[dict[str, Any]] = [{"text": said.text}] if said.text else []
        parts += [{"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in said.calls]
        contents.append({"role": role, "parts": parts})
    return {"systemInstruction": {"parts": [{"text": system}]}, "contents": contents}


def _ollama_body(system: str, history: list[Said]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    for said in history:
        if said.tool is not None:
            messages.append({"role": "tool", "tool_name": said.tool.name, "content": said.text})
            continue
        calls = [{"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in said.calls]
        messages.append({"role": said.role, "content": said.text} | ({"tool_calls": calls} if calls else {}))
    return {"model": "qwen3", "messages": messages, "stream": False}


def _vercel_body(chat: str, history: list[Said]) -> dict[str, Any]:
    parts = [{"role": said.role, "parts": [{"type": "text", "text": said.text}]} for said in history]
    return {"id": chat, "trigger": "submit-message", "messages": parts}


def _chat_answer(identity: str, said: Said) -> dict[str, Any]:
    made = _chat_body("", [said])["messages"][1]
    choice = {"index": 0, "message": made, "finish_reason": "tool_calls" if said.calls else "stop"}
    return {
        "id": identity,
        "model": "gpt-4o",
        "choices": [choice],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5},
    }


def _responses_answer(identity: str, said: Said) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    if said.text:
        content = [{"type": "output_text", "text": said.text}]
        items.append({"type": "message", "id": f"msg_{identity}", "role": "assistant", "content": content})
    items += [_responses_call(call) for call in said.calls]
    return {"id": identity, "object": "response", "model": "gpt-4o", "status": "completed", "output": items}


def _anthropic_answer(identity: str, said: Said) -> dict[str, Any]:
    content = _anthropic_body("", [said])["messages"][0]["content"]
    reason = "tool_use" if said.calls else "end_turn"
    return {"id": identity, "model": "claude-sonnet-5", "role": "assistant", "content": content, "stop_reason": reason}


def _gemini_answer(identity: str, said: Said) -> dict[str, Any]:
    candidate = {"content": _gemini_body("", [said])["contents"][0], "finishReason": "STOP"}
    return {"responseId": identity, "modelVersion": "gemini-2.5-pro", "candidates": [candidate]}


def _ollama_answer(_identity: str, said: Said) -> dict[str, Any]:
    return {"model": "qwen3", "message": _ollama_body("", [said])["messages"][1], "done": True, "done_reason": "stop"}


def _chat_stream(identity: str, said: Said) -> bytes:
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant"}, None)]
    deltas += [({"content": said.text[n : n + 12]}, None) for n in range(0, len(said.text), 12)]
    for index, call in enumerate(_chat_body("", [said])["messages"][1].get("tool_calls", [])):
        deltas.append(({"tool_calls": [call | {"index": index}]}, None))
    deltas.append(({}, "tool_calls" if said.calls else "stop"))
    chunks = [
        {"id": identity, "model": "gpt-4o", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in deltas
    ]
    return _events([*map(orjson.dumps, chunks), b"[DONE]"], {})


def _vercel_stream(identity: str, said: Said) -> bytes:
    parts = [
        {"type": "start", "messageId": identity},
        {"type": "text-delta", "id": "0", "delta": said.text},
        {"type": "finish"},
    ]
    return _events([*map(orjson.dumps, parts), b"[DONE]"], {"x-vercel-ai-ui-message-stream": "v1"})


def _events(datas: list[bytes], headers: Mapping[str, str]) -> bytes:
    """Server-sent events, a chunk each."""
    fields = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"} | dict(headers)
    events = [b"data: %s\n\n" % data for data in datas]
    return (
        head("HTTP/1.1 200 OK", fields)
        + b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in events)
        + b"0\r\n\r\n"
    )


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(value)).decode()


_BODIES = {
    CHAT.name: _chat_body,
    RESPONSES.name: _responses_body,
    ANTHROPIC.name: _anthropic_body,
    GEMINI.name: _gemini_body,
    OLLAMA.name: _ollama_body,
    VERCEL.name: _vercel_body,
}
_ANSWERS = {
    CHAT.name: _chat_answer,
    RESPONSES.name: _responses_answer,
    ANTHROPIC.name: _anthropic_answer,
    GEMINI.name: _gemini_answer,
    OLLAMA.name: _ollama_answer,
}
