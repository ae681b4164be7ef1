"""Gemini's generateContent, of the Gemini API and of Vertex AI.

Source: Gemini API reference, "Generating content"; Vertex AI reference, "Generate content with the Gemini API". A
streamed answer is a sequence of whole `GenerateContentResponse` objects whose parts follow one another, as server-sent
events with `alt=sse`, else as one JSON array that grows. Function calls may come without an id, and, if asked for, with
their arguments in pieces: values and pieces of texts, each with the path of where it belongs (`$.lines[0].text`).
Tokens of thoughts are counted beside those of the candidates, and within them by some versions: the total tells which.
Counts that are zero are often left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.observer.apis.call import (
    MESSAGES_MAX,
    TOOL_CALLS_MAX,
    Api,
    Call,
    ToolCall,
    Turn,
    Usage,
    as_dict,
    as_text,
    as_tokens,
    dicts,
    error_code,
    first_calls,
    joined,
    media_digest,
    stream_events,
    streamed,
    whole_calls,
)
from sidecar.observer.exchange import Exchange
from sidecar.observer.streams import json_objects

PARTS_MAX = 100 * TOOL_CALLS_MAX
_PATH = re.compile(r"([^/:]*):(generateContent|streamGenerateContent)$")
PATH_STEPS_MAX = 32
_STEP = re.compile(r"\.([^.\[\]]+)|\[['\"]([^'\"]*)['\"]\]|\[([0-9]{1,5})\]")
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")
_ROLES = {"model": "assistant", "function": "tool", "": "user"}
# Of tools that Google runs, sent back with the history; never what a person or the agent's own tool said.
_SILENT_PARTS = frozenset({"executableCode", "codeExecutionResult", "toolCall", "toolResponse"})
_IN_DEFINITION = {
    "functionCall": "function_call",
    "functionResponse": "function_response",
    "systemInstruction": "system_instruction",
}


@dataclass(slots=True)
class _Answer:
    """A response in the making: the parts of its first candidate, and what its chunks told last."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    id: str = ""
    finish_reason: str = ""
    error: dict[str, Any] | None = None
    overflow: bool = False

    def add(self, body: dict[str, Any]) -> None:
        body = as_dict(body.get("response")) or body  # as the command line's own endpoint wraps it
        self.error = as_dict(body.get("error")) or self.error
        self.model = as_text(body.get("modelVersion")) or self.model
        self.id = as_text(body.get("responseId")) or self.id
        self.usage |= as_dict(body.get("usageMetadata"))
        for candidate in dicts(body.get("candidates")):
            if candidate.get("index", 0) == 0:
                self.parts += dicts(as_dict(candidate.get("content")).get("parts"))
                self.finish_reason = as_text(candidate.get("finishReason")) or self.finish_reason
        self.finish_reason = self.finish_reason or as_text(as_dict(body.get("promptFeedback")).get("blockReason"))
        if len(self.parts) > PARTS_MAX:
            del self.parts[PARTS_MAX:]
            self.overflow = True


class Gemini:
    """`POST …:generateContent` and `…:streamGenerateContent`, of a model, a tuned model or an endpoint."""

    name: Final = "gemini"

    def recognises(self, exchange: Exchange) -> bool:
        """By the method that the path's last segment calls."""
        return exchange.method == "POST" and _PATH.search(exchange.path) is not None

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        request = as_dict(exchange.request_json)
        model = as_text(request.get("model"))
        request = as_dict(request.get("request")) or request
        answer = _Answer()
        bodies, overflow = _bodies(exchange)
        for body in bodies:
            answer.add(body)
        error = _error(exchange, answer.error)
        tool_calls, too_many = first_calls(whole_calls(_tool_calls(answer.parts), answer.finish_reason))
        match = _PATH.search(exchange.path)
        return Call(
            api=self.name,
            model=answer.model or model or (match[1] if match else None) or None,
            turns=tuple(_turns(request)),
            reply=joined(as_text(part.get("text")) for part in answer.parts if not part.get("thought")),
            tool_calls=tool_calls,
            tool_results=tuple(_tool_results(request)),
            usage=_usage(answer.usage),
            finish_reason=answer.finish_reason or None,
            response_id=answer.id or None,
            completed=error is None and bool(answer.finish_reason),
            error=error,
            overflow=answer.overflow or too_many or (overflow and not answer.finish_reason),
        )


def _bodies(exchange: Exchange) -> tuple[list[dict[str, Any]], bool]:
    """The response's objects, one or many, and whether a bound was passed."""
    if exchange.succeeded and streamed(exchange):
        events, overflow = stream_events(exchange)
        return [as_dict(event.json()) for event in events], overflow
    if isinstance(exchange.response_json, list):
        return dicts(exchange.response_json), False  # all of the array is there
    raw = exchange.response_body.body
    if raw.lstrip().startswith(b"["):
        objects, _ended, overflow = json_objects(raw)
        return objects, overflow
    return [as_dict(exchange.response_json)], False


def _error(exchange: Exchange, error: dict[str, Any] | None) -> str | None:
    """`status` is the code in words, such as RESOURCE_EXHAUSTED; `code` is only the HTTP status again."""
    return error_code(exchange, {"error": error and {"code": error.get("status")}})


def _usage(usage: dict[str, Any]) -> Usage:
    prompt, tools = as_tokens(usage.get("promptTokenCount")), as_tokens(usage.get("toolUsePromptTokenCount"))
    said, thought = as_tokens(usage.get("candidatesTokenCount")), as_tokens(usage.get("thoughtsTokenCount"))
    total = as_tokens(usage.get("totalTokenCount"))
    within = bool(thought) and total is not None and total == (prompt or 0) + (tools or 0) + (said or 0)
    output = said if within or thought is None else (said or 0) + thought
    return Usage(
        input=prompt if tools is None else (prompt or 0) + tools,
        output=output,
        cached=as_tokens(usage.get("cachedContentTokenCount")),
        reasoning=thought,
    )


def _get(part: dict[str, Any], name: str) -> Any:
    """A field by its JSON name, or by the name in its definition: requests may have either."""
    return part[name] if name in part else part.get(_IN_DEFINITION[name])


def _tool_calls(parts: list[dict[str, Any]]) -> Iterator[ToolCall]:
    growing: _Growing | None = None
    for part in parts:
        call = as_dict(part.get("functionCall"))
        if as_text(call.get("name")):
            growing = _Growing(as_text(call.get("id")), call["name"], call.get("args") or {})
        if growing is not None and isinstance(part.get("functionCall"), dict):
            growing.add(call)
            if call.get("willContinue") is not True:
                yield ToolCall(growing.id, growing.name, growing.arguments)
                growing = None
        elif isinstance(part.get("executableCode"), dict):
            yield ToolCall("", "code_execution", part["executableCode"])
        elif isinstance(part.get("toolCall"), dict):  # run by Google itself
            tool = part["toolCall"]
            yield ToolCall(as_text(tool.get("id")), as_text(tool.get("toolType")).lower(), tool.get("args") or {})


@dataclass(slots=True)
class _Growing:
    """A function call whose arguments come in pieces."""

    id: str
    name: str
    arguments: Any
    steps: int = 0

    def add(self, call: dict[str, Any]) -> None:
        for piece in dicts(call.get("partialArgs")):
            steps = _STEP.findall(as_text(piece.get("jsonPath")).removeprefix("$"))[: PATH_STEPS_MAX + 1]
            value = next((piece[name] for name in _VALUES if name in piece), None)
            self.steps += len(steps)
            if steps and len(steps) <= PATH_STEPS_MAX and self.steps <= PARTS_MAX:
                self.arguments = _placed(self.arguments, steps, value)


def _placed(holder: Any, steps: list[tuple[str, str, str]], value: Any) -> Any:
    """The holder with the value at the end of the steps; a text is added to the one that is there."""
    if not steps:
        return holder + value if isinstance(holder, str) and isinstance(value, str) else value
    (plain, quoted, number), *rest = steps
    if number:
        items, at = holder if isinstance(holder, list) else [], int(number)
        if at == len(items):
            items.append(None)
        if at < len(items):  # never a gap: pieces come in order
            items[at] = _placed(items[at], rest, value)
        return items
    fields = holder if isinstance(holder, dict) else {}
    name = plain or quoted
    fields[name] = _placed(fields.get(name), rest, value)
    return fields


def _contents(request: dict[str, Any]) -> list[dict[str, Any]]:
    contents = request.get("contents")
    return dicts(contents[-MESSAGES_MAX:] if isinstance(contents, list) else [contents])


def _parts(content: Any) -> list[dict[str, Any]]:
    """A content's parts; a content may be a bare text, and its parts a single one."""
    if isinstance(content, str):
        return [{"text": content}]
    parts = as_dict(content).get("parts")
    return dicts(parts if isinstance(parts, list) else [parts])


def _turns(request: dict[str, Any]) -> Iterator[Turn]:
    """The system instruction and the contents. Results of functions come in contents of the user: the tool's turns."""
    system = [as_text(part.get("text")) for part in _parts(_get(request, "systemInstruction"))]
    if system:
        yield Turn("system", "\n".join(system))
    for content in _contents(request):
        role = as_text(content.get("role"))
        texts, media, results = [], [], []
        for part in _parts(content):
            response = _get(part, "functionResponse")
            if isinstance(part.get("text"), str):
                texts += [] if part.get("thought") else [part["text"]]
            elif isinstance(response, dict):
                results.append(_result(response.get("response")))
            elif not isinstance(_get(part, "functionCall"), dict) and _SILENT_PARTS.isdisjoint(part):
                media.append(media_digest(part))
        if results:
            yield Turn("tool", "\n".join(results))
        if texts or media or not results:
            yield Turn(_ROLES.get(role, role), "\n".join(texts), tuple(media))


def _result(response: Any) -> str:
    """What a function gave back: the text in it, where the clients put one."""
    values = as_dict(response)
    return next((as_text(values[name]) for name in ("result", "output", "error") if as_text(values.get(name))), "")


def _tool_results(request: dict[str, Any]) -> Iterator[str]:
    for content in _contents(request):
        for part in _parts(content):
            identity = as_text(as_dict(_get(part, "functionResponse")).get("id"))
            if identity:
                yield identity


API: Api = Gemini()
