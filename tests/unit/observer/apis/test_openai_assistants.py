from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.observer.apis.openai_assistants import API
from sidecar.wire.records import EndFlag

THREAD = "thread_jS6cLQ7qWnJ2ZV0yz7Yd1vXN"
CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"
ASSISTANTS = {"OpenAI-Beta": "assistants=v2"}
USAGE = {"prompt_tokens": 82, "completion_tokens": 0, "total_tokens": 82, "prompt_token_details": {"cached_tokens": 0}}
ACTION = {
    "type": "submit_tool_outputs",
    "submit_tool_outputs": {
        "tool_calls": [
            {"id": CALL_ID, "type": "function", "function": {"name": "close_ticket", "arguments": '{"ticket": "T-1"}'}}
        ]
    },
}


def run(status: str, **changes: Any) -> dict[str, Any]:
    body = {
        "id": "run_abc123",
        "object": "thread.run",
        "created_at": 1699063290,
        "assistant_id": "asst_abc123",
        "thread_id": THREAD,
        "status": status,
        "required_action": None,
        "last_error": None,
        "model": "gpt-4o",
        "usage": None,
    }
    return body | changes


def event(kind: str, data: Any) -> bytes:
    raw = data.encode() if isinstance(data, str) else orjson.dumps(data)
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), raw)


def delta(text: str) -> bytes:
    content = [{"index": 0, "type": "text", "text": {"value": text, "annotations": []}}]
    body = {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": content}}
    return event("thread.message.delta", body)


MESSAGE = {"id": "msg_1", "object": "thread.message", "role": "assistant", "thread_id": THREAD}
TEXT = [{"type": "text", "text": {"value": "I close it.", "annotations": []}}]
STREAM = b"".join(
    [
        event("thread.run.created", run("queued")),
        event("thread.run.in_progress", run("in_progress")),
        event("thread.run.step.created", {"id": "step_1", "object": "thread.run.step", "status": "in_progress"}),
        event("thread.message.created", MESSAGE | {"content": []}),
        delta("I close "),
        delta("it."),
        event("thread.message.completed", MESSAGE | {"content": TEXT}),
        event("thread.run.requires_action", run("requires_action", required_action=ACTION, usage=USAGE)),
        event("done", "[DONE]"),
    ]
)


@pytest.fixture
def read(wire):
    def read(path: str, request: Any, answer: bytes, flags: int = 0) -> Call:
        return API.read(wire.exchange(wire.post(path, request, ASSISTANTS), answer, flags))

    return read


@pytest.mark.parametrize(
    ("path", "headers", "known"),
    [
        (f"/v1/threads/{THREAD}/messages", {}, True),
        (f"/openai/threads/{THREAD}/runs?api-version=2024-05-01-preview", {}, True),
        ("/v1/threads/runs", ASSISTANTS, True),
        ("/v1/threads", ASSISTANTS, True),
        ("/v1/threads/42", {}, False),
        ("/forum/threads/thread_1", {}, False),
        ("/v1/assistants", ASSISTANTS, False),
    ],
)
def test_it_is_known_by_its_path(wire, path: str, headers: dict[str, str], known: bool) -> None:
    assert API.recognises(wire.exchange(wire.post(path, {}, headers))) is known


def test_a_message_is_added(wire, read) -> None:
    image = {"type": "image_file", "image_file": {"file_id": "file_1"}}
    request = {"role": "user", "content": [{"type": "text", "text": "Close it."}, image]}
    call = read(f"/v1/threads/{THREAD}/messages", request, wire.ok(MESSAGE | {"role": "user", "content": TEXT}))
    assert [(turn.role, turn.text, len(turn.media)) for turn in call.turns] == [("user", "Close it.", 1)]
    assert (call.conversation, call.completed, call.llm_call, call.opens) == (THREAD, True, False, True)


def test_a_run_that_makes_its_thread(wire, read) -> None:
    request = {
        "assistant_id": "asst_abc123",
        "instructions": "You help.",
        "thread": {"messages": [{"role": "user", "content": "Close it."}]},
    }
    call = read("/v1/threads/runs", request, wire.ok(run("queued")))
    assert call.turns == (Turn("system", "You help."), Turn("user", "Close it."))
    assert (call.conversation, call.completed, call.llm_call, call.error) == (THREAD, False, True, None)


def test_a_stream(wire, read) -> None:
    call = read(f"/v1/threads/{THREAD}/runs", {"assistant_id": "asst_abc123", "stream": True}, wire.stream(STREAM))
    assert call == Call(
        api="openai.assistants",
        model="gpt-4o",
        reply="I close it.",
        tool_calls=(ToolCall(CALL_ID, "close_ticket", {"ticket": "T-1"}),),
        usage=Usage(82, 0, 0),
        finish_reason="requires_action",
        response_id="run_abc123",
        completed=True,
        conversation=THREAD,
        answer=run("requires_action", required_action=ACTION, usage=USAGE),
    )


def test_a_stream_cut_anywhere(wire, read) -> None:
    events = STREAM.split(b"\n\n")[:-1]
    for kept in range(len(events) + 1):
        cut = b"".join(each + b"\n\n" for each in events[:kept])
        call = read("/v1/threads/runs", {}, wire.stream(cut, whole=False), EndFlag.ABORTED_BY_ORIGIN)
        assert call.completed is (kept >= 8), kept
        assert call.reply == ("" if kept < 5 else "I close " if kept == 5 else "I close it.")


def test_tool_outputs_and_looks_at_the_run(wire, read) -> None:
    outputs = {"tool_outputs": [{"tool_call_id": CALL_ID, "output": "closed"}]}
    path = f"/v1/threads/{THREAD}/runs/run_abc123"
    call = read(f"{path}/submit_tool_outputs", outputs, wire.ok(run("queued")))
    assert (call.tool_results, call.turns, call.llm_call) == ((CALL_ID,), (Turn("tool", "closed"),), True)
    look = wire.exchange(wire.get(path, ASSISTANTS), wire.ok(run("requires_action", required_action=ACTION)))
    call = API.read(look)
    assert (call.llm_call, call.opens, call.completed, len(call.tool_calls)) == (False, False, True, 1)


def test_failures(wire, read) -> None:
    failed = run("failed", last_error={"code": "rate_limit_exceeded", "message": "words"})
    for answer in (wire.ok(failed), wire.stream(event("thread.run.failed", failed))):
        call = read("/v1/threads/runs", {}, answer)
        assert (call.completed, call.error) == (False, "rate_limit_exceeded")
    broken = wire.stream(event("thread.run.created", run("queued")) + event("error", {"code": "server_error"}))
    assert read("/v1/threads/runs", {}, broken).error == "server_error"
    assert read("/v1/threads/runs", {}, wire.answer(404, b"")).error == "http_404"


def test_wrong_types_never_raise(survives) -> None:
    words = (
        "object thread.run status completed requires_action required_action submit_tool_outputs tool_calls function "
        "arguments thread messages role content type text value tool_outputs usage last_error delta error "
        "additional_messages"
    )
    kinds = [b"thread.run.completed", b"thread.message.delta", b"thread.message.completed", b"error"]
    frames = {f"text/event-stream; k={n}": _frame(kind) for n, kind in enumerate(kinds)}
    survives(API, "/v1/threads/runs", words, frames | {"application/json": lambda data: data})


def _frame(kind: bytes):
    return lambda data: b"event: " + kind + b"\ndata: " + data + b"\n\n"


def said(role: str, text: str, at: int) -> dict[str, Any]:
    content = [{"type": "text", "text": {"value": text, "annotations": []}}]
    return {"id": f"msg_{at}", "object": "thread.message", "role": role, "created_at": at, "content": content}


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_answer_is_in_the_messages_that_are_listed(wire, newest_first: bool) -> None:
    listed = [said("assistant", "Bye.", 4), said("assistant", "Done.", 3), said("user", "Close it.", 2)]
    listed.append(said("assistant", "Hello.", 1))
    body = {"object": "list", "data": listed if newest_first else listed[::-1]}
    call = API.read(wire.exchange(wire.get(f"/v1/threads/{THREAD}/messages", ASSISTANTS), wire.ok(body)))
    assert (call.reply, call.turns, call.llm_call, call.completed) == ("Done.\nBye.", (), False, True)


def test_azure_ai_foundry(wire) -> None:
    exchange = wire.exchange(
        wire.post(f"/api/projects/desk/threads/{THREAD}/runs?api-version=v1", {}), wire.ok(run("queued"))
    )
    assert API.recognises(exchange)
    assert (API.read(exchange).conversation, API.read(exchange).llm_call) == (THREAD, True)
    assert not API.recognises(wire.exchange(wire.get("/threads/thread_1/messages")))
