"""Gemini's Interactions: a model or an agent of Google's is asked, and the history stays with the API.

Source: Gemini API reference, "Interactions", and the types of Google's own SDK. An interaction is a list of steps: what
the user put in, thoughts, calls of tools and their results, what the model put out. The input is a text, contents,
or steps; `previous_interaction_id` says what it goes on from. A stream names its events (`step.start`, `step.delta`,
`interaction.completed`), the last of which may leave out the steps. Tokens of thoughts are counted beside the output.
An interaction in the background is fetched by its id until it has ended; it is not counted again by that.
"""

from __future__ import annotations

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
    answer_of,
    arguments_of,
    as_dict,
    as_text,
    as_tokens,
    dicts,
    first_calls,
    joined,
    media_digest,
)
from sidecar.observer.exchange import Exchange

STEPS_MAX = 4 * TOOL_CALLS_MAX
_GOOGLE_HEADERS = frozenset({"x-goog-api-key", "x-goog-api-client", "x-goog-user-project"})
# In these it waits for somebody, or for nobody any more, and was no failure.
_ANSWERED = frozenset({"completed", "incomplete", "requires_action", "budget_exceeded"})
_FAILED = frozenset({"failed", "cancelled"})
_ROLES = {"model": "assistant", "user_input": "user", "model_output": "assistant"}


@dataclass(slots=True)
class _Step:
    """A step in the making."""

    start: dict[str, Any] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        made = dict(self.start)
        if self.text:
            made["content"] = [*dicts(made.get("content")), {"type": "text", "text": joined(self.text)}]
        if self.arguments:
            made["arguments"] = arguments_of(joined(self.arguments))
        return made


@dataclass(slots=True)
class _Stream:
    """A streamed interaction in the making."""

    interaction: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, _Step] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    overflow: bool = False

    def add(self, event: dict[str, Any]) -> None:
        kind, index = as_text(event.get("event_type")), event.get("index")
        if kind == "error":
            self.error = as_dict(event.get("error")) or {"code": "error"}
        elif kind == "interaction.status_update":
            self.interaction |= {name: event[name] for name in ("status", "usage") if event.get(name)}
        elif kind.startswith("interaction."):
            self.interaction |= {name: value for name, value in as_dict(event.get("interaction")).items() if value}
        elif kind.startswith("step.") and isinstance(index, int):
            if index not in self.steps and len(self.steps) >= STEPS_MAX:
                self.overflow = True
                return
            step = self.steps.setdefault(index, _Step())
            step.start = as_dict(event.get("step")) or step.start
            delta = as_dict(event.get("delta"))
            if delta.get("type") == "text":
                step.text.append(as_text(delta.get("text")))
            elif delta.get("type") == "arguments_delta":
                step.arguments.append(as_text(delta.get("arguments")))

    def whole(self) -> dict[str, Any]:
        """The interaction as one that is not streamed has it."""
        return {"steps": [self.steps[index].whole() for index in sorted(self.steps)]} | self.interaction


class GeminiInteractions:
    """`POST …/interactions`, and `…/interactions/{id}` with what is below it."""

    name: Final = "gemini.interactions"

    def recognises(self, exchange: Exchange) -> bool:
        """By the path, and what every such request has in its body or head."""
        if exchange.method == "POST" and exchange.path.endswith("/interactions"):
            request = as_dict(exchange.request_json)
            return "input" in request and bool(request.get("model") or request.get("agent"))
        return _stored_id(exchange) is not None

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        request, stored = as_dict(exchange.request_json), _stored_id(exchange)
        answer = answer_of(exchange, _Stream(), _ANSWERED)
        interaction = answer.body
        status = as_text(interaction.get("status"))
        error = answer.error or (status if status in _FAILED else None)
        steps = dicts(interaction.get("steps"))
        tool_calls, too_many = first_calls(_tool_calls(steps))
        return Call(
            api=self.name,
            model=next((name for name in map(as_text, _models(interaction, request)) if name), None),
            turns=tuple(_turns(request)),
            reply=joined(_said(steps)),
            tool_calls=tool_calls,
            tool_results=tuple(_tool_results(request)),
            usage=_usage(as_dict(interaction.get("usage"))) if stored is None else Usage(),
            finish_reason=status or None,
            response_id=as_text(interaction.get("id")) or stored,
            completed=error is None and status in _ANSWERED,
            error=error,
            overflow=answer.overflow or too_many,
            previous_response_id=stored or as_text(request.get("previous_interaction_id")) or None,
            answer=answer.made,
            llm_call=stored is None,
        )


def _stored_id(exchange: Exchange) -> str | None:
    """The id in `/v1beta/interactions/{id}`, or before `/cancel`, of a request with a header of Google's clients."""
    segments = exchange.segments
    if "interactions" not in segments[:-1] or _GOOGLE_HEADERS.isdisjoint(exchange.headers):
        return None
    return segments[segments.index("interactions") + 1] or None


def _models(*bodies: dict[str, Any]) -> Iterator[Any]:
    for body in bodies:
        yield body.get("model")
        yield body.get("agent")


def _usage(usage: dict[str, Any]) -> Usage:
    prompt, tools = as_tokens(usage.get("total_input_tokens")), as_tokens(usage.get("total_tool_use_tokens"))
    said, thought = as_tokens(usage.get("total_output_tokens")), as_tokens(usage.get("total_thought_tokens"))
    return Usage(
        input=prompt if tools is None else (prompt or 0) + tools,
        output=said if thought is None else (said or 0) + thought,
        cached=as_tokens(usage.get("total_cached_tokens")),
        reasoning=thought,
    )


def _said(steps: list[dict[str, Any]]) -> Iterator[str]:
    for step in steps:
        if step.get("type") == "model_output":
            yield from (as_text(part.get("text")) for part in dicts(step.get("content")))


def _tool_calls(steps: list[dict[str, Any]]) -> Iterator[ToolCall]:
    """Functions of the agent's by their name; what Google runs itself by the kind of the step."""
    for step in steps:
        kind = as_text(step.get("type"))
        if kind.endswith("_call"):
            name = as_text(step.get("name")) or kind.removesuffix("_call")
            yield ToolCall(as_text(step.get("id")), name, step.get("arguments", {}))


def _inputs(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The input as steps, turns and contents, whichever was sent; a bare text is one content."""
    given = request.get("input")
    if isinstance(given, str):
        return [{"type": "text", "text": given}]
    return dicts(given[-MESSAGES_MAX:] if isinstance(given, list) else [given])


def _turns(request: dict[str, Any]) -> Iterator[Turn]:
    if as_text(request.get("system_instruction")):
        yield Turn("system", request["system_instruction"])
    loose: list[dict[str, Any]] = []  # contents that follow one another are one message of the user's
    for item in _inputs(request):
        kind = as_text(item.get("role")) or as_text(item.get("type"))
        if kind in ("user", "model", "user_input", "model_output"):
            yield from _message("user", loose)
            loose = []
            content = item.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else dicts(content)
            yield Turn(_ROLES.get(kind, kind), *_content(parts))
        elif kind.endswith("_result"):
            result = item.get("result")
            text = as_text(result) or "\n".join(as_text(part.get("text")) for part in dicts(result))
            yield Turn("tool", text)
        elif kind and kind != "thought" and not kind.endswith("_call"):
            loose.append(item)
    yield from _message("user", loose)


def _message(role: str, parts: list[dict[str, Any]]) -> Iterator[Turn]:
    if parts:
        yield Turn(role, *_content(parts))


def _content(parts: list[dict[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """The text of contents, and the digests of the others."""
    texts = [as_text(part.get("text")) for part in parts if part.get("type") == "text"]
    return "\n".join(texts), tuple(media_digest(part) for part in parts if part.get("type") != "text")


def _tool_results(request: dict[str, Any]) -> Iterator[str]:
    for item in _inputs(request):
        identity = as_text(item.get("call_id"))
        if identity and as_text(item.get("type")).endswith("_result"):
            yield identity


API: Api = GeminiInteractions()
