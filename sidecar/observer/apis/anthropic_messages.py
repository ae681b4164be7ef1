"""Anthropic Messages.

Source: Anthropic API reference, "Messages" and "Streaming Messages". A stream is `message_start`, then for each
content block `content_block_start`, `…_delta`, `…_stop`, then `message_delta` with the stop reason, then
`message_stop`; `ping` and `error` come anywhere, and unknown events are to be passed over. Counts in `message_delta`
are cumulative and replace earlier ones. `input_tokens` leaves out what was read from, or written to, the prompt cache:
both are added here, so that input means all of the prompt, as it does with every other API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
    stream_events,
    streamed,
    whole_calls,
)
from sidecar.observer.exchange import Exchange

BLOCKS_MAX = 2_000
# Called by the model and run by the agent, by a connected MCP server, or by Anthropic itself.
_CALL_BLOCKS = frozenset({"tool_use", "mcp_tool_use", "server_tool_use"})
# The model's own, sent back with the history; never what a person or a tool said.
_SILENT_BLOCKS = frozenset({"thinking", "redacted_thinking"}) | _CALL_BLOCKS
_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(slots=True)
class _Block:
    """A content block in the making: as started, with the pieces that its deltas brought."""

    start: dict[str, Any]
    text: list[str] = field(default_factory=list)
    json: list[str] = field(default_factory=list)

    def add(self, delta: dict[str, Any]) -> None:
        match delta.get("type"):
            case "text_delta":
                self.text.append(as_text(delta.get("text")))
            case "input_json_delta":
                self.json.append(as_text(delta.get("partial_json")))

    def whole(self) -> dict[str, Any]:
        """The block as a response that is not streamed has it."""
        made = dict(self.start)
        if self.text:
            made["text"] = as_text(made.get("text")) + "".join(self.text)
        pieces = joined(self.json)
        if pieces:
            made["input"] = arguments_of(pieces)
        return made


@dataclass(slots=True)
class _Stream:
    """A streamed message in the making."""

    message: dict[str, Any] = field(default_factory=dict)
    blocks: dict[int, _Block] = field(default_factory=dict)
    stop_reason: str = ""
    stopped: bool = False
    error: dict[str, Any] | None = None
    overflow: bool = False

    def add(self, event: dict[str, Any]) -> None:
        index = event.get("index")
        match event.get("type"):
            case "message_start":
                self.message = dict(as_dict(event.get("message")))
                self.message["usage"] = dict(as_dict(self.message.get("usage")))
            case "content_block_start" if isinstance(index, int):
                if len(self.blocks) < BLOCKS_MAX:
                    self.blocks[index] = _Block(as_dict(event.get("content_block")))
                else:
                    self.overflow = True
            case "content_block_delta" if isinstance(index, int) and index in self.blocks:
                self.blocks[index].add(as_dict(event.get("delta")))
            case "message_delta":
                self.stop_reason = as_text(as_dict(event.get("delta")).get("stop_reason")) or self.stop_reason
                told = {key: value for key, value in as_dict(event.get("usage")).items() if value is not None}
                self.message.setdefault("usage", {}).update(told)
            case "message_stop":
                self.stopped = True
            case "error":
                self.error = event

    def whole(self) -> dict[str, Any]:
        """The message as a response that is not streamed has it."""
        content = [self.blocks[index].whole() for index in sorted(self.blocks)]
        return self.message | {"content": content, "stop_reason": self.stop_reason or None}


class AnthropicMessages:
    """`POST …/v1/messages`, under any prefix, and Vertex AI's `…:rawPredict`; counting tokens is another path."""

    name: Final = "anthropic.messages"

    def recognises(self, exchange: Exchange) -> bool:
        """By the path's end; Vertex AI has the same bodies under methods of its own."""
        path = exchange.path
        vertex = "/publishers/anthropic/" in path and path.endswith((":rawPredict", ":streamRawPredict"))
        return exchange.method == "POST" and (vertex or path.endswith("/v1/messages"))

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        request = as_dict(exchange.request_json)
        if exchange.succeeded and streamed(exchange):
            events, overflow = stream_events(exchange)
            return call_of(self.name, exchange, request, (event.json() for event in events), overflow=overflow)
        return call_of(self.name, exchange, request)


def call_of(
    api: str,
    exchange: Exchange,
    request: dict[str, Any],
    events: Iterable[Any] | None = None,
    *,
    overflow: bool = False,
) -> Call:
    """The call that a request and its answer make: `events` of the stream, None when the answer is the body."""
    if events is not None:
        stream = _Stream()
        for event in events:
            stream.add(as_dict(event))
        message = stream.whole()
        error = None if stream.error is None else error_code(exchange, stream.error)
        # With the stop reason every block is whole; `message_stop` alone comes after it.
        completed = error is None and (stream.stopped or bool(stream.stop_reason))
        overflow = stream.overflow or (overflow and not completed)
    else:
        message = as_dict(exchange.response_json)
        error = error_code(exchange, message)
        completed = error is None and isinstance(message.get("content"), list)
    blocks = dicts(message.get("content"))
    stop_reason = as_text(message.get("stop_reason")) or None
    tool_calls, too_many = first_calls(whole_calls(_tool_calls(blocks), stop_reason))
    turns, tool_results = _asked(request)
    return Call(
        api=api,
        model=as_text(message.get("model")) or as_text(request.get("model")) or None,
        turns=tuple(turns),
        reply=joined(as_text(block.get("text")) for block in blocks if block.get("type") == "text"),
        tool_calls=tool_calls,
        tool_results=tuple(tool_results),
        usage=_usage(as_dict(message.get("usage"))),
        finish_reason=stop_reason,
        response_id=as_text(message.get("id")) or None,
        completed=completed,
        error=error,
        overflow=overflow or too_many,
    )


def _usage(usage: dict[str, Any]) -> Usage:
    # What a compaction of the context took on the way is told beside, and left out of the totals.
    beside = [each for each in dicts(usage.get("iterations")) if each.get("type") == "compaction"]
    told = [usage, *beside]
    inputs = [count for each in told for name in _INPUT_COUNTS if (count := as_tokens(each.get(name))) is not None]
    outputs = [count for each in told if (count := as_tokens(each.get("output_tokens"))) is not None]
    return Usage(
        input=sum(inputs) if inputs else None,
        output=sum(outputs) if outputs else None,
        cached=as_tokens(usage.get("cache_read_input_tokens")),
        reasoning=as_tokens(as_dict(usage.get("output_tokens_details")).get("thinking_tokens")),
    )


def _tool_calls(blocks: list[dict[str, Any]]) -> Iterator[ToolCall]:
    for block in blocks:
        if block.get("type") in _CALL_BLOCKS:
            yield ToolCall(as_text(block.get("id")), as_text(block.get("name")), block.get("input", {}))


def _asked(request: dict[str, Any]) -> tuple[list[Turn], list[str]]:
    """The system prompt and the messages, and the ids of the calls whose results are in them.

    The results of tools come in user messages: these are the tool's turns.
    """
    turns: list[Turn] = []
    answered: list[str] = []
    if request.get("system"):
        turns.append(Turn("system", *_content(request["system"], [], [])))
    for message in messages_of(request):
        role, content = as_text(message.get("role")), message.get("content")
        if isinstance(content, str):
            turns.append(Turn(role, content))
            continue
        results: list[str] = []
        text, media = _content(content, results, answered)
        if results:
            turns.append(Turn("tool", "\n".join(results)))
        if text or media or not results:
            turns.append(Turn(role, text, media))
    return turns, answered


def _content(content: Any, results: list[str], answered: list[str]) -> tuple[str, tuple[str, ...]]:
    """A content's text and the digests of other media; texts of tool results go to `results`, ids to `answered`."""
    if isinstance(content, str):
        return content, ()
    texts, media = [], []
    for block in dicts(content):
        kind = as_text(block.get("type"))
        if kind == "text":
            texts.append(as_text(block.get("text")))
        elif kind.endswith("tool_result"):
            inner = block.get("content")
            results.append(
                inner if isinstance(inner, str) else "\n".join(as_text(part.get("text")) for part in dicts(inner))
            )
            if kind == "tool_result" and as_text(block.get("tool_use_id")):
                answered.append(block["tool_use_id"])
        elif kind not in _SILENT_BLOCKS:
            media.append(media_digest(block))
    return "\n".join(texts), tuple(media)


API: Api = AnthropicMessages()
