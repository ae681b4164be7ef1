"""Ollama's own API: `/api/chat` and `/api/generate`.

Source: Ollama API documentation. Both stream unless told not to: one JSON object a line, the last with `done` and the
counts. Tool calls come whole, as a rule without an id, and their arguments are an object. The model's thinking is a
field of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar.observer.apis.call import (
    Api,
    Call,
    ToolCall,
    Turn,
    Usage,
    arguments_of,
    as_dict,
    as_text,
    as_tokens,
    dicts,
    error_code,
    first_calls,
    joined,
    media_digest,
    messages_of,
)
from sidecar.observer.exchange import Exchange
from sidecar.observer.streams import json_lines


class Ollama:
    """`POST /api/chat` and `POST /api/generate`, with a model in the body: other products have such paths too."""

    name: Final = "ollama"

    def recognises(self, exchange: Exchange) -> bool:
        """By the path's end and what every request must have."""
        if exchange.method != "POST" or not exchange.path.endswith(("/api/chat", "/api/generate")):
            return False
        request = as_dict(exchange.request_json)
        if not isinstance(request.get("model"), str) or "id" in request:
            return False  # the AI SDK posts its chats, with their ids, to a path of the same name
        return "prompt" in request or "messages" in request or len(request) == 1

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        request = as_dict(exchange.request_json)
        values, overflow = json_lines(exchange.response_body.body)
        chunks = dicts(values)
        last: dict[str, Any] = next((chunk for chunk in reversed(chunks) if chunk.get("done") is True), {})
        failed = next((chunk for chunk in chunks if chunk.get("error")), None)
        error = error_code(exchange, failed)
        tool_calls, too_many = first_calls(_tool_calls(chunks))
        return Call(
            api=self.name,
            model=next(
                (name for chunk in chunks if (name := as_text(chunk.get("model")))), as_text(request.get("model"))
            )
            or None,
            turns=tuple(_turns(request)),
            reply=joined(_pieces(chunks)),
            tool_calls=tool_calls,
            tool_results=tuple(_tool_results(request)),
            usage=Usage(as_tokens(last.get("prompt_eval_count")), as_tokens(last.get("eval_count"))),
            finish_reason=as_text(last.get("done_reason")) or None,
            completed=error is None and bool(last),
            error=error,
            overflow=too_many or (overflow and not last),
        )


def _pieces(chunks: list[dict[str, Any]]) -> Iterator[str]:
    for chunk in chunks:
        yield as_text(as_dict(chunk.get("message")).get("content")) or as_text(chunk.get("response"))


def _tool_calls(chunks: list[dict[str, Any]]) -> Iterator[ToolCall]:
    for chunk in chunks:
        for call in dicts(as_dict(chunk.get("message")).get("tool_calls")):
            function = as_dict(call.get("function"))
            arguments = function.get("arguments", {})
            if isinstance(arguments, str):
                arguments = arguments_of(arguments)
            yield ToolCall(as_text(call.get("id")), as_text(function.get("name")), arguments)


def _turns(request: dict[str, Any]) -> Iterator[Turn]:
    for name, role in (("system", "system"), ("prompt", "user")):
        if as_text(request.get(name)):
            yield Turn(role, request[name], _images(request) if role == "user" else ())
    for message in messages_of(request):
        yield Turn(as_text(message.get("role")), as_text(message.get("content")), _images(message))


def _images(message: dict[str, Any]) -> tuple[str, ...]:
    images = message.get("images")
    return tuple(media_digest({"image": image}) for image in images) if isinstance(images, list) else ()


def _tool_results(request: dict[str, Any]) -> Iterator[str]:
    for message in messages_of(request):
        identity = as_text(message.get("tool_call_id"))
        if message.get("role") == "tool" and identity:
            yield identity


API: Api = Ollama()
