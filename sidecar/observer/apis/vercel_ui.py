"""The stream between an AI SDK chat in the browser and the agent behind it: UI message stream and data stream.

Source: AI SDK documentation, "Stream Protocols" and "Chatbot: transport"; for version 4, "Data Stream Protocol". The
chat posts its `id` with the messages, or with the last one alone: here, and in no other API, a body's `id` names the
conversation. The answer is a stream of parts, as server-sent events that end with `[DONE]`; version 4 wrote a code, a
colon and JSON on each line. The agent asks the model elsewhere, so none of this is a call of a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.observer.apis.call import (
    TOOL_CALLS_MAX,
    Api,
    Call,
    ToolCall,
    Turn,
    as_dict,
    as_text,
    dicts,
    error_code,
    joined,
    media_digest,
    messages_of,
    stream_events,
)
from sidecar.observer.exchange import Exchange
from sidecar.observer.jsonbytes import loads_or_none

TEXTS_MAX = 1_000
LINES_MAX = 200_000
_UI_STREAM = "x-vercel-ai-ui-message-stream"
_DATA_STREAM = "x-vercel-ai-data-stream"
# Version 4's codes, and the kind of part that each has become.
_CODES = {
    b"0": "text-delta",
    b"3": "error",
    b"9": "tool-input-available",
    b"d": "finish",
    b"f": "start",
}
_TOOL_STATES_DONE = frozenset({"output-available", "output-error", "output-denied", "result"})


@dataclass(slots=True)
class _Answer:
    """An answer in the making; texts by the id of their block, in order."""

    id: str = ""
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    finish_reason: str = ""
    done: bool = False
    aborted: bool = False
    error: bool = False
    overflow: bool = False

    def add(self, kind: str, part: dict[str, Any]) -> None:
        match kind:
            case "start":
                self.id = as_text(part.get("messageId")) or self.id
            case "text-delta":
                self._text(as_text(part.get("id")), as_text(part.get("delta")))
            case "tool-input-available":
                self._call(part)
            case "finish":
                self.done = True
                self.finish_reason = as_text(part.get("finishReason")) or "finish"
            case "abort":
                self.aborted = True
            case "error":
                self.error = True

    def _text(self, block: str, delta: str) -> None:
        if block in self.texts or len(self.texts) < TEXTS_MAX:
            self.texts.setdefault(block, []).append(delta)
        else:
            self.overflow = True

    def _call(self, part: dict[str, Any]) -> None:
        identity = as_text(part.get("toolCallId"))
        if identity in self.calls or len(self.calls) < TOOL_CALLS_MAX:
            arguments = part.get("input", part.get("args", {}))
            self.calls[identity] = ToolCall(identity, as_text(part.get("toolName")), arguments)
        else:
            self.overflow = True


class VercelUi:
    """By the header that the answer must have, or by a body that only the SDK's chat posts."""

    name: Final = "vercel.ui"

    def recognises(self, exchange: Exchange) -> bool:
        """The header is on the answers of every method: a chat that is resumed gets its stream with GET."""
        if _UI_STREAM in exchange.response_headers or _DATA_STREAM in exchange.response_headers:
            return True
        if exchange.method != "POST":
            return False
        request = as_dict(exchange.request_json)
        if not isinstance(request.get("id"), str):
            return False
        last = next(iter(_messages(request)[-1:]), {})
        return isinstance(last.get("role"), str) and isinstance(last.get("parts"), list)

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        request = as_dict(exchange.request_json)
        answer = _Answer()
        overflow = False
        if _DATA_STREAM in exchange.response_headers:
            overflow = _read_lines(exchange.response_body.body, answer)
        elif exchange.succeeded:
            events, overflow = stream_events(exchange)
            for event in events:
                if event.data.startswith(b"[DONE]"):
                    answer.done = True
                    break
                part = as_dict(event.json())
                answer.add(as_text(part.get("type")), part)
        error = error_code(exchange, {"error": {"code": "error"}} if answer.error else None)
        return Call(
            api=self.name,
            turns=tuple(_turns(request)),
            reply="\n".join(joined(pieces) for pieces in answer.texts.values()),
            tool_calls=tuple(answer.calls.values()),
            tool_results=tuple(_tool_results(request)),
            finish_reason=answer.finish_reason or None,
            response_id=answer.id or None,
            completed=error is None and answer.done and not answer.aborted,
            error=error,
            overflow=answer.overflow or (overflow and not answer.done),
            conversation=as_text(request.get("id")) or None,
            llm_call=False,
        )


def _read_lines(body: bytes, answer: _Answer) -> bool:
    """Version 4's stream; whether a bound was passed. A last line without an end is not whole."""
    *lines, rest = body.split(b"\n", LINES_MAX)
    for line in lines:
        code, colon, raw = line.partition(b":")
        kind = _CODES.get(code) if colon else None
        if kind is not None:
            value = loads_or_none(raw)
            answer.add(kind, {"delta": value} if kind == "text-delta" else as_dict(value))
    return len(lines) == LINES_MAX and bool(rest)


def _messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages; chats that keep them on the server post the last one alone."""
    return messages_of(request) or messages_of({"messages": [request.get("message")]})


def _turns(request: dict[str, Any]) -> Iterator[Turn]:
    for message in _messages(request):
        texts, media = [], []
        parts = dicts(message.get("parts"))
        for part in parts:
            if part.get("type") == "text":
                texts.append(as_text(part.get("text")))
            elif part.get("type") == "file":
                media.append(media_digest(part))
        text = "\n".join(texts) if parts else as_text(message.get("content"))
        yield Turn(as_text(message.get("role")), text, tuple(media))


def _tool_results(request: dict[str, Any]) -> Iterator[str]:
    """Tools that ran in the browser, or before: their parts have the call's id, and their results."""
    for message in _messages(request):
        for part in _tools(message):
            identity = as_text(part.get("toolCallId"))
            if identity and as_text(part.get("state")) in _TOOL_STATES_DONE:
                yield identity


def _tools(message: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for part in dicts(message.get("parts")):
        yield as_dict(part.get("toolInvocation")) or part  # as version 4 has it


API: Api = VercelUi()
