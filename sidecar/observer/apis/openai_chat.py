"""OpenAI Chat Completions, as OpenAI, Azure OpenAI and the many compatible servers speak it.

Source: OpenAI API reference, "Chat Completions" and "Chat Completions: streaming". A stream's deltas are put together
by choice index and, within a choice, by tool call index. Usage comes with the whole answer, or in a stream's last chunk
if `stream_options.include_usage` asked for it; compatible servers send it in every chunk, so the last one counts.
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
    stream_events,
    streamed,
    whole_calls,
)
from sidecar.observer.exchange import Exchange
from sidecar.observer.jsonbytes import loads_or_none

CHOICES_MAX = 128
_ROLES = {"developer": "system", "function": "tool"}
_TEXT_PARTS = {"text": "text", "refusal": "refusal"}


@dataclass(slots=True)
class _Function:
    """A tool call in the making."""

    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    given: dict[str, Any] | None = None  # some servers send the arguments as the object itself

    def add(self, delta: dict[str, Any]) -> None:
        """A whole call, or a delta of one: `function` (or `custom`) with a name and a piece of the arguments."""
        function = as_dict(delta.get("function")) or as_dict(delta.get("custom"))
        self.id = self.id or as_text(delta.get("id"))
        self.name = self.name or as_text(function.get("name"))
        arguments = function.get("arguments", function.get("input"))
        if isinstance(arguments, dict):
            self.given = arguments
        else:
            self.pieces.append(as_text(arguments))

    def call(self) -> ToolCall:
        arguments = arguments_of(joined(self.pieces)) if self.given is None else self.given
        return ToolCall(self.id, self.name, arguments)


@dataclass(slots=True)
class _Choice:
    """One choice in the making, from a whole message or from deltas."""

    text: list[str] = field(default_factory=list)
    calls: list[_Function] = field(default_factory=list)
    by_index: dict[int, _Function] = field(default_factory=dict)
    legacy: _Function | None = None
    finish_reason: str | None = None

    def add(self, delta: dict[str, Any]) -> None:
        content = delta.get("content")
        if content and isinstance(content, str):
            self.text.append(content)
        else:
            spoken = as_text(as_dict(delta.get("audio")).get("transcript"))
            self.text.append(_content(content)[0] or as_text(delta.get("refusal")) or spoken)
        for call in dicts(delta.get("tool_calls")):
            self._function(call).add(call)
        if function := as_dict(delta.get("function_call")):
            self.legacy = self.legacy or _Function()
            self.legacy.add({"function": function})

    def _function(self, delta: dict[str, Any]) -> _Function:
        """The call that a delta belongs to.

        A whole message numbers none; some servers' streams number none either, or all of them zero, and some give
        every call the same id. So a new id is a new call, another name is one, and so is a name without a number.
        """
        index, identity = delta.get("index"), as_text(delta.get("id"))
        number = index if isinstance(index, int) else None
        known = self.by_index.get(number) if number is not None else (self.calls[-1] if self.calls else None)
        name = as_text(as_dict(delta.get("function")).get("name")) or as_text(as_dict(delta.get("custom")).get("name"))
        if known is not None and known.id == identity != "" and name in ("", known.name):
            return known
        if known is not None and not identity and (number is not None or not name):
            return known
        function = _Function()
        if len(self.calls) <= TOOL_CALLS_MAX:  # one more shows that there were too many
            self.calls.append(function)
            if number is not None:
                self.by_index[number] = function
        return function

    def tool_calls(self) -> Iterator[ToolCall]:
        functions = [*self.calls, *([self.legacy] if self.legacy else [])]
        return whole_calls((function.call() for function in functions), self.finish_reason)


@dataclass(slots=True)
class _Answer:
    """A response in the making."""

    model: str = ""
    id: str = ""
    choices: dict[int, _Choice] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    overflow: bool = False

    def add(self, body: dict[str, Any], part: str) -> None:
        """A `chat.completion` (`part` is `message`) or a `chat.completion.chunk` (`delta`)."""
        # Azure opens its streams with a chunk that has neither.
        self.model = self.model or as_text(body.get("model"))
        self.id = self.id or as_text(body.get("id"))
        for choice in dicts(body.get("choices")):
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            if index not in self.choices and len(self.choices) >= CHOICES_MAX:
                self.overflow = True
                continue
            made = self.choices.setdefault(index, _Choice())
            made.add(as_dict(choice.get(part)))
            made.finish_reason = as_text(choice.get("finish_reason")) or made.finish_reason
        usage = body.get("usage") or as_dict(body.get("x_groq")).get("usage")  # Groq's streams have it there
        if isinstance(usage, dict):
            self.usage = _usage(usage)

    def finished(self, wanted: int) -> bool:
        """Whether every choice that was asked for has come to its end."""
        ended = [choice for choice in self.choices.values() if choice.finish_reason]
        return len(ended) == len(self.choices) and len(ended) >= wanted


class OpenAIChat:
    """`POST …/chat/completions`, under any prefix."""

    name: Final = "openai.chat"

    def recognises(self, exchange: Exchange) -> bool:
        """By the path's end."""
        return exchange.method == "POST" and exchange.path.endswith("/chat/completions")

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        request = as_dict(exchange.request_json)
        if exchange.succeeded and streamed(exchange):
            events, overflow = stream_events(exchange)
            return call_of(self.name, exchange, request, (event.data for event in events), overflow=overflow)
        return call_of(self.name, exchange, request)


def call_of(
    api: str,
    exchange: Exchange,
    request: dict[str, Any],
    events: Iterable[bytes] | None = None,
    *,
    overflow: bool = False,
) -> Call:
    """The call that a request and its answer make: `events` of the stream, None when the answer is the body."""
    answer = _Answer()
    if events is not None:
        done = _read_stream(exchange, events, answer)
        completed = done or answer.finished(as_tokens(request.get("n")) or 1)
        overflow = overflow and not done
    else:
        body = exchange.response_json
        answer.error = error_code(exchange, body)
        completed = answer.error is None and isinstance(as_dict(body).get("choices"), list)
        if completed:
            answer.add(body, "message")
    choices = [answer.choices[index] for index in sorted(answer.choices)]
    messages = messages_of(request)
    tool_calls, too_many = first_calls(call for choice in choices for call in choice.tool_calls())
    return Call(
        api=api,
        model=answer.model or as_text(request.get("model")) or None,
        turns=tuple(_turn(message) for message in messages),
        reply=joined(choices[0].text) if choices else "",
        tool_calls=tool_calls,
        tool_results=tuple(_tool_results(messages)),
        usage=answer.usage,
        finish_reason=next((choice.finish_reason for choice in choices if choice.finish_reason), None),
        response_id=answer.id or None,
        completed=completed and answer.error is None,
        error=answer.error,
        overflow=overflow or answer.overflow or too_many,
    )


def _read_stream(exchange: Exchange, events: Iterable[bytes], answer: _Answer) -> bool:
    """Whether the stream said that it is done."""
    for data in events:
        if data.startswith(b"[DONE]"):
            return True
        chunk = as_dict(loads_or_none(data))
        if chunk.get("error"):
            answer.error = error_code(exchange, chunk)
        answer.add(chunk, "delta")
    return False


def _usage(usage: dict[str, Any]) -> Usage:
    prompt = as_dict(usage.get("prompt_tokens_details"))
    completion = as_dict(usage.get("completion_tokens_details"))
    asked, made = as_tokens(usage.get("prompt_tokens")), as_tokens(usage.get("completion_tokens"))
    reasoning = as_tokens(completion.get("reasoning_tokens"))
    if made is not None and reasoning and as_tokens(usage.get("total_tokens")) == (asked or 0) + made + reasoning:
        made += reasoning  # xAI counts them beside
    return Usage(
        input=asked,
        output=made,
        # DeepSeek counts them beside.
        cached=first_tokens(as_tokens(prompt.get("cached_tokens")), as_tokens(usage.get("prompt_cache_hit_tokens"))),
        reasoning=reasoning,
    )


def _turn(message: dict[str, Any]) -> Turn:
    role = as_text(message.get("role"))
    text, media = _content(message.get("content"))
    return Turn(_ROLES.get(role, role), text, media)


def _content(content: Any) -> tuple[str, tuple[str, ...]]:
    """A message's content, a text or a list of parts, as its text and the digests of its other parts."""
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


def _tool_results(messages: Iterable[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        identity = as_text(message.get("tool_call_id"))
        if message.get("role") == "tool" and identity:
            yield identity


API: Api = OpenAIChat()
