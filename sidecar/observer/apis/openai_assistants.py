"""OpenAI Assistants: threads, messages and runs, at OpenAI and under Azure's `/openai/threads?api-version=…`.

Source: OpenAI API reference, "Threads", "Messages", "Runs" and "Assistants streaming". The history stays with the API:
a user message is added in one request, the run that answers it is started in another, and is then streamed, or looked
at until it has ended. All of it carries the thread's id, in the path or, when the run makes the thread, in the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
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
    media_digest,
    messages_of,
    stream_events,
    streamed,
)
from sidecar.observer.exchange import Exchange

MESSAGES_DONE_MAX = 500
# A run that has come to one of these goes on only when somebody asks it to.
_ANSWERED = frozenset({"completed", "incomplete", "requires_action"})


@dataclass(slots=True)
class _Stream:
    """A streamed run in the making."""

    run: dict[str, Any] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)  # of the message that is not done yet
    error: dict[str, Any] | None = None
    overflow: bool = False

    def add(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "error":
            self.error = as_dict(data.get("error")) or data
        elif kind == "thread.message.delta":
            self.pieces.append(_text(as_dict(data.get("delta")).get("content")))
        elif kind in ("thread.message.completed", "thread.message.incomplete"):
            self.pieces.clear()
            if len(self.done) < MESSAGES_DONE_MAX:
                self.done.append(_text(data.get("content")))
            else:
                self.overflow = True
        elif kind.startswith("thread.run.") and not kind.startswith("thread.run.step."):
            self.run = data

    def reply(self) -> str:
        return "\n".join([*self.done, *(["".join(self.pieces)] if self.pieces else [])])


class OpenAIAssistants:
    """`…/v1/threads` or `…/openai/threads` and all below; other products' threads have other neighbours."""

    name: Final = "openai.assistants"

    def recognises(self, exchange: Exchange) -> bool:
        """By the path, or the header that every one of OpenAI's clients sends with it."""
        segments = exchange.segments
        if "threads" not in segments:
            return False
        if exchange.headers.get("openai-beta", "").startswith("assistants"):
            return True
        before = segments[max(0, segments.index("threads") - 1)]
        identity = next(iter(segments[segments.index("threads") + 1 :]), "")
        foundry = "projects" in segments[:-3]  # Azure AI Foundry: /api/projects/{name}/threads/…
        return (before in ("v1", "openai") or foundry) and identity.startswith("thread_")

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        segments = exchange.segments
        below = segments[segments.index("threads") + 1 :] if "threads" in segments else ()
        request = as_dict(exchange.request_json)
        overflow, reply, answer = False, "", None
        if exchange.succeeded and streamed(exchange):
            stream = _Stream()
            events, overflow = stream_events(exchange)
            for event in events:
                stream.add(event.event, as_dict(event.json()))
            run, reply, answer = stream.run, stream.reply(), stream.run
            error = error_code(exchange, {"error": stream.error or run.get("last_error")})
            overflow = stream.overflow or (overflow and as_text(run.get("status")) not in _ANSWERED)
        else:
            body = as_dict(exchange.response_json)
            run = body if body.get("object") == "thread.run" else {}
            reply = _listed(body) if below[-1:] == ("messages",) else ""
            error = error_code(exchange, body if body.get("error") else {"error": run.get("last_error")})
        status = as_text(run.get("status"))
        tool_calls, too_many = first_calls(_tool_calls(run))
        return Call(
            api=self.name,
            model=as_text(run.get("model")) or as_text(request.get("model")) or None,
            turns=tuple(_turns(below, request)) if exchange.method == "POST" else (),
            reply=reply,
            tool_calls=tool_calls,
            tool_results=tuple(
                identity
                for each in dicts(request.get("tool_outputs"))
                if (identity := as_text(each.get("tool_call_id")))
            ),
            usage=_usage(as_dict(run.get("usage"))),
            finish_reason=status or None,
            response_id=as_text(run.get("id")) or None,
            # A request that starts no run, such as the adding of a message, is over when it is answered.
            completed=error is None and (status in _ANSWERED or (not run and answer is None)),
            error=error,
            overflow=overflow or too_many,
            conversation=_thread(below, run),
            answer=answer,
            llm_call=exchange.method == "POST" and below[-1:] in (("runs",), ("submit_tool_outputs",)),
        )


def _listed(body: dict[str, Any]) -> str:
    """What the assistant said since the user last spoke: the newest of a thread's messages, if they were asked for."""
    messages = dicts(body.get("data"))
    times = [at for each in (*messages[:1], *messages[-1:]) if isinstance(at := each.get("created_at"), int)]
    if times != sorted(times, reverse=True):
        messages.reverse()  # listed from the oldest on
    newest = list(takewhile(lambda each: each.get("role") == "assistant", messages))
    return "\n".join(_text(each.get("content")) for each in reversed(newest))


def _thread(below: tuple[str, ...], run: dict[str, Any]) -> str | None:
    in_path = below[0] if below and below[0].startswith("thread_") else ""
    return in_path or as_text(run.get("thread_id")) or None


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        input=as_tokens(usage.get("prompt_tokens")),
        output=as_tokens(usage.get("completion_tokens")),
        cached=as_tokens(as_dict(usage.get("prompt_token_details")).get("cached_tokens")),
    )


def _tool_calls(run: dict[str, Any]) -> Iterator[ToolCall]:
    action = as_dict(as_dict(run.get("required_action")).get("submit_tool_outputs"))
    for call in dicts(action.get("tool_calls")):
        function = as_dict(call.get("function"))
        arguments = arguments_of(as_text(function.get("arguments")))
        yield ToolCall(as_text(call.get("id")), as_text(function.get("name")), arguments)


def _turns(below: tuple[str, ...], request: dict[str, Any]) -> Iterator[Turn]:
    """What the request adds to the thread: a message, the messages of a thread or run that it makes, tool outputs."""
    for name in ("instructions", "additional_instructions"):
        if as_text(request.get(name)):
            yield Turn("system", request[name])
    added = [request] if below[-1:] == ("messages",) else []
    for source in (request, as_dict(request.get("thread")), {"messages": request.get("additional_messages")}):
        added += messages_of(source)
    for message in added:
        content = message.get("content")
        media = tuple(media_digest(part) for part in dicts(content) if part.get("type") != "text")
        yield Turn(as_text(message.get("role")), _text(content), media)
    for output in dicts(request.get("tool_outputs")):
        yield Turn("tool", as_text(output.get("output")))


def _text(content: Any) -> str:
    """A content's text: itself, or of its parts; requests have the text bare, messages and deltas in an object."""
    if isinstance(content, str):
        return content
    parts = (part.get("text") for part in dicts(content) if part.get("type") == "text")
    return "".join(as_text(part) or as_text(as_dict(part).get("value")) for part in parts)


API: Api = OpenAIAssistants()
