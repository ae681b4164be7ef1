"""Amazon Bedrock's runtime: Converse, ConverseStream, InvokeModel and InvokeModelWithResponseStream.

Source: Amazon Bedrock API reference (Converse, ConverseStreamOutput, InvokeModel) and "Inference request parameters and
response fields for foundation models". Streams are AWS event streams. Converse has one form for all models. InvokeModel
hands on the model's own: Anthropic's messages, OpenAI's chat completions (and those of others who speak it), Nova's,
which is Converse's, and the older ones of a prompt and a text, which `_PROMPTS` and `_TEXTS` list. A streamed chunk of
InvokeModel is one event of the model's own stream, in base64; the last one has the counts. Cached input is counted
beside `inputTokens`: both are added here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sidecar.observer.apis import anthropic_messages, openai_chat
from sidecar.observer.apis.call import (
    TOOL_CALLS_MAX,
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
    first_tokens,
    joined,
    media_digest,
    messages_of,
    whole_calls,
)
from sidecar.observer.exchange import Exchange
from sidecar.observer.jsonbytes import MARKS_MAX, loads_or_none, marks
from sidecar.observer.streams import AwsEvent, aws_events

BLOCKS_MAX = 4 * TOOL_CALLS_MAX
_METHODS = frozenset({"converse", "converse-stream", "invoke", "invoke-with-response-stream"})
_INPUT_COUNTS = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
# The model's own, and what says how to go on; never what a person or a tool said.
_SILENT_BLOCKS = frozenset({"toolUse", "reasoningContent", "cachePoint", "toolAddition", "toolRemoval"})
_METRICS = "amazon-bedrock-invocationMetrics"
_COUNT_HEADERS = ("x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count")
# Where models that take a prompt and give a text have them: Llama, Mistral, Titan, Cohere, AI21, older Anthropic.
_PROMPTS = ("prompt", "inputText", "message")
_TEXTS = ("generation", "outputText", "completion", "text")
_LISTS = ("outputs", "results", "completions", "generations")
_REASONS = ("stop_reason", "completionReason", "finish_reason", "finishReason")


@dataclass(slots=True)
class _Block:
    """A content block in the making."""

    start: dict[str, Any] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    input: list[str] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        tool = as_dict(self.start.get("toolUse"))
        if tool or self.input:
            return {"toolUse": tool | {"input": arguments_of(joined(self.input))}}
        return {"text": joined(self.text)} if any(self.text) else self.start


@dataclass(slots=True)
class _Stream:
    """A streamed Converse response in the making."""

    blocks: dict[int, _Block] = field(default_factory=dict)
    stop_reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    overflow: bool = False

    def add(self, kind: str, event: dict[str, Any]) -> None:
        index = event.get("contentBlockIndex")
        if kind in ("contentBlockStart", "contentBlockDelta") and isinstance(index, int):
            if index not in self.blocks and len(self.blocks) >= BLOCKS_MAX:
                self.overflow = True
                return
            block = self.blocks.setdefault(index, _Block())
            block.start = as_dict(event.get("start")) or block.start
            delta = as_dict(event.get("delta"))
            block.text.append(as_text(delta.get("text")))
            if isinstance(delta.get("toolUse"), dict):
                block.input.append(as_text(delta["toolUse"].get("input")))
        elif kind == "messageStop":
            self.stop_reason = as_text(event.get("stopReason")) or self.stop_reason
        elif kind == "metadata":
            self.usage = as_dict(event.get("usage"))

    def whole(self) -> dict[str, Any]:
        """The response as one that is not streamed has it."""
        content = [self.blocks[index].whole() for index in sorted(self.blocks)]
        message = {"role": "assistant", "content": content}
        return {"output": {"message": message}, "stopReason": self.stop_reason, "usage": self.usage}


class Bedrock:
    """`POST /model/{id}/converse`, `/converse-stream`, `/invoke`, `/invoke-with-response-stream`."""

    name: Final = "bedrock"

    def recognises(self, exchange: Exchange) -> bool:
        """By the path; a model's id may be an ARN, its slashes encoded."""
        segments = exchange.segments
        return exchange.method == "POST" and len(segments) >= 3 and segments[-3] == "model" and segments[-1] in _METHODS

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        segments = exchange.segments
        method, model = segments[-1], segments[-2] if len(segments) > 1 else ""
        request = as_dict(exchange.request_json)
        events, overflow = aws_events(exchange.response_body.body) if _streamed(exchange) else (None, False)
        if method.startswith("converse"):
            pairs = None if events is None else ((event.kind, as_dict(event.json())) for event in events)
            call = _converse(exchange, request, pairs)
        else:
            chunks, too_many = _chunks(events or ())
            overflow = overflow or too_many
            call = _invoke(exchange, request, None if events is None else chunks)
        failure = next((event.kind or "error" for event in events or () if event.failed), None)
        error = call.error or failure
        told = exchange.response_headers.get("x-amzn-errortype", "").partition(":")[0]
        if error and not exchange.succeeded and told:
            error = error_code(exchange, {"error": {"code": told}})
        return replace(
            call,
            model=call.model or model or None,
            error=error,
            completed=call.completed and error is None,
            response_id=call.response_id or exchange.response_headers.get("x-amzn-requestid") or None,
            overflow=call.overflow or (overflow and not call.completed),
        )


def _streamed(exchange: Exchange) -> bool:
    media_type = exchange.response_headers.get("content-type", "").partition(";")[0].strip().lower()
    return exchange.succeeded and media_type == "application/vnd.amazon.eventstream"


def _chunks(events: Iterable[AwsEvent]) -> tuple[list[bytes], bool]:
    """The model's own events, out of their base64, and whether they stand for too much to be read."""
    chunks: list[bytes] = []
    values = 0
    for event in events:
        if event.kind == "chunk":
            try:
                chunk = base64.b64decode(as_text(as_dict(event.json()).get("bytes")), validate=True)
            except (binascii.Error, ValueError):
                continue
            values += marks(chunk)
            if values > MARKS_MAX:
                return chunks, True
            chunks.append(chunk)
    return chunks, False


def _converse(
    exchange: Exchange, request: dict[str, Any], events: Iterable[tuple[str, dict[str, Any]]] | None = None
) -> Call:
    overflow = False
    if events is not None:
        stream = _Stream()
        for kind, event in events:
            stream.add(kind, event)
        response, overflow, error = stream.whole(), stream.overflow, None
    else:
        response = as_dict(exchange.response_json)
        error = error_code(exchange, None)
    blocks = dicts(as_dict(as_dict(response.get("output")).get("message")).get("content"))
    stop_reason = as_text(response.get("stopReason"))
    tool_calls, too_many = first_calls(whole_calls(_tool_calls(blocks), stop_reason))
    return Call(
        api=API.name,
        turns=tuple(_turns(request)),
        reply="".join(_said(blocks)),
        tool_calls=tool_calls,
        tool_results=tuple(_tool_results(request)),
        usage=_usage(as_dict(response.get("usage"))),
        finish_reason=stop_reason or None,
        completed=error is None and bool(stop_reason),
        error=error,
        overflow=overflow or too_many,
        answer=response if events is not None else None,
    )


def _usage(usage: dict[str, Any]) -> Usage:
    counts = [count for name in _INPUT_COUNTS if (count := as_tokens(usage.get(name))) is not None]
    return Usage(
        input=sum(counts) if counts else None,
        output=as_tokens(usage.get("outputTokens")),
        cached=as_tokens(usage.get("cacheReadInputTokens")),
    )


def _said(blocks: list[dict[str, Any]]) -> Iterator[str]:
    """The texts of an answer's blocks; one with citations has its text in pieces."""
    for block in blocks:
        if as_text(block.get("text")):
            yield block["text"]
        for part in dicts(as_dict(block.get("citationsContent")).get("content")):
            yield as_text(part.get("text"))


def _tool_calls(blocks: list[dict[str, Any]]) -> Iterator[ToolCall]:
    for block in blocks:
        tool = block.get("toolUse")
        if isinstance(tool, dict):
            yield ToolCall(as_text(tool.get("toolUseId")), as_text(tool.get("name")), tool.get("input", {}))


def _turns(request: dict[str, Any]) -> Iterator[Turn]:
    """The system prompt and the messages. The results of tools come in user messages: these are the tool's turns."""
    system = [as_text(block.get("text")) for block in dicts(request.get("system")) if "text" in block]
    if system:
        yield Turn("system", "\n".join(system))
    for message in messages_of(request):
        texts, media, results = [], [], []
        content = message.get("content")
        for block in dicts([{"text": content}] if isinstance(content, str) else content):
            guarded = as_dict(as_dict(block.get("guardContent")).get("text"))
            if isinstance(text := block.get("text", guarded.get("text")), str):
                texts.append(text)
            elif "citationsContent" in block:
                texts.append("".join(_said([block])))
            elif isinstance(block.get("toolResult"), dict):
                parts = (as_text(part.get("text")) for part in dicts(block["toolResult"].get("content")))
                results.append("\n".join(part for part in parts if part))
            elif _SILENT_BLOCKS.isdisjoint(block):
                media.append(media_digest(block))
        if results:
            yield Turn("tool", "\n".join(results))
        if texts or media or not results:
            yield Turn(as_text(message.get("role")), "\n".join(texts), tuple(media))


def _tool_results(request: dict[str, Any]) -> Iterator[str]:
    for message in messages_of(request):
        for block in dicts(message.get("content")):
            identity = as_text(as_dict(block.get("toolResult")).get("toolUseId"))
            if identity:
                yield identity


def _invoke(exchange: Exchange, request: dict[str, Any], chunks: list[bytes] | None) -> Call:
    """In whichever form the model has; the counts that Bedrock adds stand in where the model's own are missing."""
    values = [as_dict(exchange.response_json)] if chunks is None else [as_dict(loads_or_none(each)) for each in chunks]
    if "anthropic_version" in request and "messages" in request:
        call = anthropic_messages.call_of(API.name, exchange, request, None if chunks is None else values)
    elif any("choices" in value for value in values):
        call = openai_chat.call_of(API.name, exchange, request, chunks)
    elif isinstance(request.get("messages"), list):
        pairs = (
            None if chunks is None else ((kind, as_dict(event)) for value in values for kind, event in value.items())
        )
        call = _converse(exchange, request, pairs)
    else:
        call = _prompted(exchange, request, values)
    metrics = next((as_dict(value[_METRICS]) for value in reversed(values) if _METRICS in value), {})
    headers = [exchange.response_headers.get(name, "") for name in _COUNT_HEADERS]
    told = [int(text) if text.isascii() and text.isdigit() and len(text) < 13 else None for text in headers]
    usage = replace(
        call.usage,
        input=first_tokens(call.usage.input, as_tokens(metrics.get("inputTokenCount")), as_tokens(told[0])),
        output=first_tokens(call.usage.output, as_tokens(metrics.get("outputTokenCount")), as_tokens(told[1])),
    )
    return replace(call, usage=usage)


def _prompted(exchange: Exchange, request: dict[str, Any], values: list[dict[str, Any]]) -> Call:
    """A prompt and a text, whole or in pieces."""
    prompt = next((request[name] for name in _PROMPTS if as_text(request.get(name))), "")
    text, reason = [], ""
    for value in values:
        for part in (value, *(part for name in _LISTS for part in dicts(value.get(name))[:1])):
            inner = as_dict(part.get("data")) or part
            text += [as_text(inner.get(name)) for name in _TEXTS]
            reason = next((as_text(part[name]) for name in _REASONS if as_text(part.get(name))), reason)
    error = error_code(exchange, None)
    return Call(
        api=API.name,
        turns=(Turn("user", prompt),) if prompt else (),
        reply="".join(text),
        finish_reason=reason or None,
        completed=error is None and bool(reason),
        error=error,
    )


API: Api = Bedrock()
