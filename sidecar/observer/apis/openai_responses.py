"""OpenAI Responses, as OpenAI and Azure OpenAI (`/openai/v1/responses`, `/openai/responses?api-version=…`) speak it.

Source: OpenAI API reference, "Responses" and "Streaming events". Each streamed event names its `type`; the last one
(`response.completed`, `.incomplete` or `.failed`) carries the whole response, so a stream is read from its end. Where
it was cut before that, or its end brings no output (as servers that store nothing have it), the items that were done
until then stand in. A response made in the background is fetched with GET: it is the same object. A conversation that
is kept there (`/v1/conversations/{id}`) gets items of its own: what a user said, for a response that is made later.
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
    error_code,
    first_calls,
    joined,
    media_digest,
)
from sidecar.observer.exchange import Exchange

OUTPUT_ITEMS_MAX = 2 * TOOL_CALLS_MAX
_ROLES = {"developer": "system"}
_TEXT_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_ENDED = frozenset({"completed", "incomplete"})
_ASKS = ("input", "prompt", "conversation", "previous_response_id")
# Calls of tools that run at OpenAI or in the client's own machine, and what of them the arguments are.
_BUILT_IN = {
    "web_search_call": "action",
    "file_search_call": "queries",
    "code_interpreter_call": "code",
    "computer_call": "action",
    "image_generation_call": "revised_prompt",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
    "tool_search_call": "arguments",
    "program": "code",
}


@dataclass(slots=True)
class _Stream:
    """A streamed response in the making."""

    response: dict[str, Any] = field(default_factory=dict)
    done: list[dict[str, Any]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    overflow: bool = False

    def add(self, event: dict[str, Any]) -> None:
        kind = as_text(event.get("type"))
        if kind == "error":
            # The API sends the error's fields in the event itself, Azure and others an object of them.
            self.error = as_dict(event.get("error")) or event | {"type": None}
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            self.text.append(as_text(event.get("delta")))
        elif kind == "response.output_item.done":
            if len(self.done) < OUTPUT_ITEMS_MAX:
                self.done.append(as_dict(event.get("item")))
            else:
                self.overflow = True
        elif isinstance(event.get("response"), dict):
            self.response = event["response"]

    def whole(self) -> dict[str, Any]:
        """The response as one that is not streamed has it."""
        if self.response.get("output"):
            return self.response
        items = list(self.done)
        if not any(item.get("type") == "message" for item in items) and self.text:
            items.append({"type": "message", "content": [{"type": "output_text", "text": joined(self.text)}]})
        return self.response | {"output": items}


class OpenAIResponses:
    """`POST …/responses`, `…/v1/responses/{id}` and `…/v1/conversations/{id}` with what is below, under any prefix."""

    name: Final = "openai.responses"

    def recognises(self, exchange: Exchange) -> bool:
        """By the path, and where that is any product's word, by the body."""
        path, method = exchange.path, exchange.method
        if method == "POST" and path.endswith(("/v1/responses", "/openai/responses", "/responses/compact")):
            return True
        if method == "POST" and path.endswith("/responses"):
            request = as_dict(exchange.request_json)
            return bool(request.get("model")) and any(name in request for name in _ASKS)
        return _stored_id(exchange) is not None or _kept_id(exchange) is not None

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        request = as_dict(exchange.request_json)
        stored, kept = _stored_id(exchange), _kept_id(exchange)
        if kept is not None:
            return _kept(exchange, request, kept)
        answer = answer_of(exchange, _Stream(), _ENDED)
        response = answer.body
        status = as_text(response.get("status"))
        error = answer.error or (status if status == "failed" else None)
        items = dicts(response.get("output"))
        tool_calls, too_many = first_calls(_tool_calls(items))
        # What is fetched again was counted when it was made, unless it was made in the background.
        counts = stored is None or (exchange.method == "GET" and response.get("background") is True)
        return Call(
            api=self.name,
            model=as_text(response.get("model")) or as_text(request.get("model")) or None,
            turns=tuple(_turns(request)),
            reply=joined(_reply(items)),
            tool_calls=tool_calls,
            tool_results=tuple(_tool_results(request)),
            usage=_usage(as_dict(response.get("usage"))) if counts else Usage(),
            finish_reason=as_text(as_dict(response.get("incomplete_details")).get("reason")) or status or None,
            response_id=as_text(response.get("id")) or None,
            completed=error is None and (status in _ENDED or response.get("object") == "response.compaction"),
            error=error,
            overflow=answer.overflow or too_many,
            conversation=_conversation(request) or _conversation(response),
            previous_response_id=stored or as_text(request.get("previous_response_id")) or None,
            answer=answer.made,
            llm_call=stored is None,
        )


def _stored_id(exchange: Exchange) -> str | None:
    """The id in `/v1/responses/{id}`, or before `/cancel` and the like."""
    return _id_below(exchange, "responses", "resp")


def _kept_id(exchange: Exchange) -> str | None:
    """The id in `/v1/conversations/{id}`, or before `/items`."""
    return _id_below(exchange, "conversations", "conv_")


def _id_below(exchange: Exchange, collection: str, prefix: str) -> str | None:
    segments = exchange.segments
    for before, word, identity in zip(segments, segments[1:], segments[2:], strict=False):
        if word == collection and before in ("v1", "openai") and identity.startswith(prefix):
            return identity
    return None


def _kept(exchange: Exchange, request: dict[str, Any], conversation: str) -> Call:
    """A look at a kept conversation, or items added to it; no model is asked."""
    added = {"input": request.get("items")} if exchange.method == "POST" else {}
    error = error_code(exchange, exchange.response_json)
    return Call(
        api=API.name,
        turns=tuple(_turns(added)),
        tool_results=tuple(_tool_results(added)),
        completed=error is None,
        error=error,
        conversation=conversation,
        llm_call=False,
    )


def _conversation(body: dict[str, Any]) -> str | None:
    conversation = body.get("conversation")
    return as_text(conversation) or as_text(as_dict(conversation).get("id")) or None


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        input=as_tokens(usage.get("input_tokens")),
        output=as_tokens(usage.get("output_tokens")),
        cached=as_tokens(as_dict(usage.get("input_tokens_details")).get("cached_tokens")),
        reasoning=as_tokens(as_dict(usage.get("output_tokens_details")).get("reasoning_tokens")),
    )


def _reply(items: list[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        if item.get("type") == "message":
            for part in dicts(item.get("content")):
                yield as_text(part.get(_TEXT_PARTS.get(as_text(part.get("type")), "")))


def _tool_calls(items: list[dict[str, Any]]) -> Iterator[ToolCall]:
    for item in items:
        kind, name = as_text(item.get("type")), as_text(item.get("name"))
        identity = as_text(item.get("call_id")) or as_text(item.get("id"))
        if item.get("status") in ("incomplete", "in_progress"):
            continue  # the model was cut off in the middle of it
        if kind in ("function_call", "mcp_call"):
            arguments = item.get("arguments")
            yield ToolCall(
                identity, name, arguments if isinstance(arguments, dict) else arguments_of(as_text(arguments))
            )
        elif kind == "custom_tool_call":
            yield ToolCall(identity, name, item.get("input", ""))
        elif kind in _BUILT_IN:
            yield ToolCall(identity, kind.removesuffix("_call"), item.get(_BUILT_IN[kind]) or {})


def _input(request: dict[str, Any]) -> list[dict[str, Any]]:
    items = request.get("input")
    return dicts(items[-MESSAGES_MAX:]) if isinstance(items, list) else []


def _turns(request: dict[str, Any]) -> Iterator[Turn]:
    if as_text(request.get("instructions")):
        yield Turn("system", request["instructions"])
    if as_text(request.get("input")):
        yield Turn("user", request["input"])
    for item in _input(request):
        if item.get("type", "message") == "message" and isinstance(item.get("role"), str):
            text, media = _content(item.get("content"))
            yield Turn(_ROLES.get(item["role"], item["role"]), text, media)
        elif as_text(item.get("type")).endswith("_output"):
            text, media = _content(item.get("output"))
            yield Turn("tool", text, media)


def _content(content: Any) -> tuple[str, tuple[str, ...]]:
    """A text, or a list of parts: its text, and the digests of its other parts."""
    if isinstance(content, str):
        return content, ()
    texts, media = [], []
    for part in dicts(content):
        key = _TEXT_PARTS.get(as_text(part.get("type")))
        if key is None:
            media.append(media_digest(part))
        else:
            texts.append(as_text(part.get(key)))
    return "\n".join(texts), tuple(media)


def _tool_results(request: dict[str, Any]) -> Iterator[str]:
    for item in _input(request):
        identity = as_text(item.get("call_id"))
        if identity and as_text(item.get("type")).endswith("_output"):
            yield identity


API: Api = OpenAIResponses()
