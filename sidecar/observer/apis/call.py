"""What every agent API is turned into: one `Call`. A module of this package that has an `API` is one such API.

To add an API, add one module with an object `API` that satisfies the protocol `Api`, and its test; `registry` finds it.
Its `read` gets an `Exchange` and must cope with anything in it: wrong types, cut bodies, other people's errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from sidecar.observer.exchange import Exchange
from sidecar.observer.jsonbytes import canonical, loads_or_none
from sidecar.observer.streams import ServerEvent, server_events

TOOL_CALLS_MAX = 500
MESSAGES_MAX = 20_000
TOKENS_MAX = 1 << 40

_STREAM_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")


class Turn(NamedTuple):
    """One message of a request. `role`: system, user, assistant or tool. `media`: digests of parts that are no text."""

    role: str
    text: str
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that a response asks for. `id` is empty when the API gave none.

    `arguments` is what the model's JSON says; the text itself when it is not JSON.
    """

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the API counted them; None is "not told", which zero is not.

    `input` is all of the prompt, whatever came from a cache included; `cached` the part that did. `output` is all that
    was generated, `reasoning` included.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One exchange of an understood API.

    `turns` are the request's messages, resent history included; `reply` and `tool_calls` come from the response alone.
    `tool_results` are the ids of the calls that the request brings results for, oldest first.
    `completed`: the answer's end was seen, be it that the connection broke after it. `error` is a short code, no text.

    `conversation` is the API's own id of the conversation, where one must know the API to know it for one;
    `previous_response_id` the answer that the request continues; `task_id` and `state` an agent's task, and how it
    stands. `answer` is a streamed answer put together as the JSON body that the API gives without streaming.
    """

    api: str
    model: str | None = None
    turns: tuple[Turn, ...] = ()
    reply: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[str, ...] = ()
    usage: Usage = Usage()
    finish_reason: str | None = None
    response_id: str | None = None
    completed: bool = False
    error: str | None = None
    overflow: bool = False  # a bound was passed: a part of the answer was not read
    conversation: str | None = None
    previous_response_id: str | None = None
    task_id: str | None = None
    state: str | None = None
    answer: Any = None
    llm_call: bool = True  # a model was asked, rather than a tool, another agent, or for what is stored

    @property
    def opens(self) -> bool:
        """Whether it may begin a session without any id: something was asked, of a model or by a user."""
        return self.llm_call or any(turn.role == "user" for turn in self.turns)


class Api(Protocol):
    """An agent API: its name, as observations show it, whether an exchange speaks it, and what it says."""

    @property
    def name(self) -> str:
        """Such as `openai.chat`."""

    def recognises(self, exchange: Exchange) -> bool:
        """By method and path, seldom more; must be cheap."""

    def read(self, exchange: Exchange) -> Call:
        """The exchange in this API's terms."""


def streamed(exchange: Exchange) -> bool:
    """Whether the response is a stream of server-sent events; a wrong Content-Type does not hide one."""
    media_type = exchange.response_headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return True
    return media_type != "application/json" and exchange.response_body.body.startswith(_STREAM_STARTS)


def stream_events(exchange: Exchange) -> tuple[list[ServerEvent], bool]:
    """The response's events, and whether a bound was passed."""
    return server_events(exchange.response_body.body)


# What an answer's end says of it, in lower case, by the vendors' references (OpenAI `finish_reason`, Anthropic and
# Bedrock `stop_reason`, Gemini `finishReason`): that it was cut off where it was, or that it is not to be used.
_CUT_OFF = frozenset({"length", "max_tokens", "model_context_window_exceeded"})
_WITHHELD = frozenset(
    {
        "content_filter", "refusal", "guardrail_intervened", "content_filtered", "malformed_model_output",
        "malformed_tool_use", "safety", "recitation", "language", "blocklist", "prohibited_content", "spii",
        "malformed_function_call",
    }
)  # fmt: skip


def whole_calls(calls: Iterable[ToolCall], finish_reason: str | None) -> Iterator[ToolCall]:
    """The calls that an agent can carry out: of an answer that was cut off not the last, of one withheld none.

    What the limit cut off may look whole (no arguments yet, or as much of them as is JSON), and would be taken for
    what the agent did.
    """
    reason = (finish_reason or "").lower()
    last: ToolCall | None = None
    for call in () if reason in _WITHHELD else calls:
        if last is not None:
            yield last
        last = call
    if last is not None and reason not in _CUT_OFF:
        yield last


def first_calls(calls: Iterable[ToolCall]) -> tuple[tuple[ToolCall, ...], bool]:
    """The first `TOOL_CALLS_MAX` of an answer's calls, and whether there were more."""
    found = tuple(islice(calls, TOOL_CALLS_MAX + 1))
    return found[:TOOL_CALLS_MAX], len(found) > TOOL_CALLS_MAX


class Stream(Protocol):
    """A streamed answer in the making; `overflow`: a bound left parts out."""

    error: dict[str, Any] | None
    overflow: bool

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event."""

    def whole(self) -> dict[str, Any]:
        """The answer as one that is not streamed has it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as one object; `made` is the same, None where it came in one piece."""

    body: dict[str, Any]
    made: dict[str, Any] | None
    error: str | None
    overflow: bool


def answer_of(exchange: Exchange, stream: Stream, ended: Container[str]) -> Answered:
    """The answer of an API that says in a `status` how it ended, streamed into `stream` or not.

    A stream that was cut by a bound is whole all the same when it had `ended` before.
    """
    if not (exchange.succeeded and streamed(exchange)):
        body = as_dict(exchange.response_json)
        return Answered(body, None, error_code(exchange, body), overflow=False)
    events, cut = stream_events(exchange)
    for event in events:
        stream.add(as_dict(event.json()))
    body = stream.whole()
    error = error_code(exchange, {"error": stream.error or body.get("error")})
    return Answered(body, body, error, stream.overflow or (cut and as_text(body.get("status")) not in ended))


def as_dict(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects in the value, if it is a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def messages_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The request's `messages`; of more than `MESSAGES_MAX`, the newest."""
    messages = request.get("messages")
    return dicts(messages[-MESSAGES_MAX:]) if isinstance(messages, list) else []


def as_text(value: Any) -> str:
    """The value if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def joined(pieces: Iterable[str]) -> str:
    """The text that its pieces make; a character that was cut between two of them, as JavaScript does it, is one."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_tokens(value: Any) -> int | None:
    """A count of tokens, or None when it is not one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        return None
    return value


def first_tokens(*values: int | None) -> int | None:
    """The first that was told; an explicit zero is told."""
    return next((value for value in values if value is not None), None)


def arguments_of(text: str) -> Any:
    """A tool call's arguments, as models write them: JSON, nothing at all, or what they took for JSON."""
    if not text.strip():
        return {}
    value = loads_or_none(text.encode("utf-8", "replace"))
    return text if value is None else value


def media_digest(part: dict[str, Any]) -> str:
    """A digest of a part that is no text (an image, a file), so that it is told from others without being kept."""
    kept = {key: value for key, value in part.items() if key != "cache_control"}
    return hashlib.sha256(canonical(kept)).hexdigest()


def error_code(exchange: Exchange, body: Any) -> str | None:
    """A code for a failed exchange; None for one that is none.

    It is the API's own, `type` or `code` of the body's `error`, else `http_<status>`, or `no_response`.
    """
    if exchange.response is None:
        return "no_response"
    error = as_dict(body).get("error")
    if not exchange.succeeded or error:
        details = as_dict(error)
        return _code(details.get("type")) or _code(details.get("code")) or f"http_{exchange.status}"
    return None


def _code(value: Any) -> str:
    """A code is a short word; anything else could be text."""
    text = as_text(value)
    return text if len(text) <= 64 and text.replace("_", "").replace("-", "").replace(".", "").isalnum() else ""
