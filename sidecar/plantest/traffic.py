"""Turns as bytes: the requests and responses that an agent and its API would have exchanged. Pure.

The history is sent again with every request, tools are run by the agent and answered in a request of their own, as the
APIs want it; so what is tested is what real agents send, and the decoder has to tell old from new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sidecar.plantest.conversation import Request, Step, Tool, plain

MODEL = {"openai.chat": "gpt-4o", "anthropic.messages": "claude-sonnet-4-5"}
_PATH = {"openai.chat": "/v1/chat/completions", "anthropic.messages": "/v1/messages"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response; `cut` and `dropped` as the step says."""

    request: bytes
    response: bytes
    cut: bool = False
    dropped: bool = False


@dataclass(slots=True)
class Talk:
    """A conversation's history so far, and how its API writes it."""

    api: str
    headers: Mapping[str, str]
    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: int = 0
    calls: int = 0

    def turn(self, step: Step) -> Iterator[Exchange]:
        """The exchanges of one step: one, or two when tools are called and the agent then speaks."""
        if step.user is not None:
            self.messages.append({"role": "user", "content": step.user})
        if step.tools:
            calls = [(tool, tool.id or self._call_id()) for tool in step.tools]
            yield self._exchange(step, None, calls)
            if step.status >= 400 or step.cut:
                return
            self._remember(None, calls)
            if step.agent is None:
                return
        yield self._exchange(step, step.agent or "", [])
        if step.status < 400 and not step.cut:
            self._remember(step.agent or "", [])

    def raw(self, request: Request) -> Exchange:
        """An exchange that the test wrote out."""
        head = dict(self.headers) | dict(request.headers)
        sent = _message(f"{request.method} {request.path} HTTP/1.1", head, plain(request.body))
        return Exchange(sent, _answer(request.response.status, request.response.headers, plain(request.response.body)))

    def _call_id(self) -> str:
        self.calls += 1
        return f"call_{self.calls:020d}test"

    def _exchange(self, step: Step, text: str | None, calls: list[tuple[Tool, str]]) -> Exchange:
        self.answers += 1
        body: dict[str, Any] = {"model": MODEL[self.api], "messages": list(self.messages)}
        if self.api == "anthropic.messages":
            body["max_tokens"] = 1024
        request = _message(f"POST {_PATH[self.api]} HTTP/1.1", self.headers, body)
        if step.status >= 400:
            answer: Any = {"error": {"type": "test_error", "message": _phrase(step.status)}}
        else:
            answer = self._openai(text, calls) if self.api == "openai.chat" else self._anthropic(text, calls)
        response = _answer(step.status, {}, answer)
        if step.cut:
            response = response[: -len(json.dumps(answer)) // 2 or None]
        return Exchange(request, response, step.cut, step.dropped)

    def _remember(self, text: str | None, calls: list[tuple[Tool, str]]) -> None:
        """What was answered, and what the tools gave, as the next request will tell it."""
        if self.api == "openai.chat":
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if calls:
                message["tool_calls"] = [_openai_call(tool, identity) for tool, identity in calls]
            self.messages.append(message)
            self.messages += [{"role": "tool", "tool_call_id": identity, "content": "done"} for _, identity in calls]
            return
        self.messages.append({"role": "assistant", "content": _blocks(text, calls)})
        if calls:
            results = [{"type": "tool_result", "tool_use_id": identity, "content": "done"} for _, identity in calls]
            self.messages.append({"role": "user", "content": results})

    def _openai(self, text: str | None, calls: list[tuple[Tool, str]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [_openai_call(tool, identity) for tool, identity in calls]
        return {
            "id": f"chatcmpl-{self.answers:012d}",
            "object": "chat.completion",
            "model": MODEL[self.api],
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 10},
        }

    def _anthropic(self, text: str | None, calls: list[tuple[Tool, str]]) -> dict[str, Any]:
        return {
            "id": f"msg_{self.answers:012d}",
            "type": "message",
            "role": "assistant",
            "model": MODEL[self.api],
            "content": _blocks(text, calls),
            "stop_reason": "tool_use" if calls else "end_turn",
            "usage": {"input_tokens": 20, "output_tokens": 10},
        }


def _blocks(text: str | None, calls: list[tuple[Tool, str]]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    uses = [
        {"type": "tool_use", "id": identity, "name": tool.name, "input": plain(tool.arguments)}
        for tool, identity in calls
    ]
    return blocks + uses


def _openai_call(tool: Tool, identity: str) -> dict[str, Any]:
    function = {"name": tool.name, "arguments": json.dumps(plain(tool.arguments))}
    return {"id": identity, "type": "function", "function": function}


def _answer(status: int, headers: Mapping[str, str], body: Any) -> bytes:
    return _message(f"HTTP/1.1 {status} {_phrase(status)}", headers, body)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in list(HTTPStatus) else "Said"


def _message(start_line: str, headers: Mapping[str, str], body: Any) -> bytes:
    raw = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    fields = {"host": "api.test"} if not start_line.startswith("HTTP/") else {}
    if body is not None:
        fields["content-type"] = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
    fields |= {name.lower(): value for name, value in headers.items()} | {"content-length": str(len(raw))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{start_line}\r\n{head}\r\n".encode() + raw
