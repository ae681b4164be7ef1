from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.call import Call, ToolCall, Turn
from sidecar.observer.apis.registry import recognise
from sidecar.observer.apis.vercel_ui import API, TEXTS_MAX
from sidecar.wire.records import EndFlag

UI = {"Content-Type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1"}
CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"
ASK = {
    "id": "c-42",
    "messages": [{"id": "m-1", "role": "user", "parts": [{"type": "text", "text": "Close it."}]}],
    "trigger": "submit-message",
}


def part(kind: str, **fields: Any) -> bytes:
    return b"data: " + orjson.dumps({"type": kind} | fields) + b"\n\n"


PARTS = [
    part("start", messageId="msg_1"),
    part("start-step"),
    part("reasoning-delta", id="r", delta="Solved."),
    part("text-start", id="t1"),
    part("text-delta", id="t1", delta="I close "),
    part("text-delta", id="t1", delta="it."),
    part("text-end", id="t1"),
    part("tool-input-start", toolCallId=CALL_ID, toolName="close_ticket"),
    part("tool-input-delta", toolCallId=CALL_ID, inputTextDelta='{"ticket"'),
    part("tool-input-available", toolCallId=CALL_ID, toolName="close_ticket", input={"ticket": "T-1"}),
    part("tool-output-available", toolCallId=CALL_ID, output="closed"),
    part("finish-step"),
    part("text-delta", id="t2", delta="Done."),
    part("data-weather", data={}),
    part("finish", finishReason="stop"),
    b"data: [DONE]\n\n",
]


@pytest.fixture
def read(wire):
    def read(answer: bytes, request: Any = ASK, flags: int = 0) -> Call:
        return API.read(wire.exchange(wire.post("/api/chat", request), answer, flags))

    return read


@pytest.mark.parametrize(
    ("body", "headers", "known"),
    [
        (ASK, {}, True),
        ({"id": "c-1", "message": ASK["messages"][0]}, {}, True),
        ({"anything": 1}, UI, True),
        ({"id": "c-1", "messages": [{"role": "user", "content": "Hi"}]}, {"x-vercel-ai-data-stream": "v1"}, True),
        ({"id": "c-1", "messages": [{"role": "user", "content": "Hi"}]}, {}, False),
        ({"id": "c-1", "name": "a record of another API"}, {}, False),
    ],
)
def test_it_is_known_by_header_or_body(wire, body: Any, headers: dict[str, str], known: bool) -> None:
    exchange = wire.exchange(wire.post("/api/chat", body), wire.ok(b"", headers))
    assert API.recognises(exchange) is known
    assert (recognise(exchange) is API) is known


def test_a_stream(wire, read) -> None:
    assert read(wire.ok(b"".join(PARTS), UI)) == Call(
        api="vercel.ui",
        turns=(Turn("user", "Close it."),),
        reply="I close it.\nDone.",
        tool_calls=(ToolCall(CALL_ID, "close_ticket", {"ticket": "T-1"}),),
        finish_reason="stop",
        response_id="msg_1",
        completed=True,
        conversation="c-42",
        llm_call=False,
    )


def test_a_stream_cut_anywhere(wire, read) -> None:
    for kept in range(len(PARTS) + 1):
        call = read(wire.ok(b"".join(PARTS[:kept]), UI), flags=EndFlag.ABORTED_BY_CLIENT)
        assert call.completed is (kept >= 15), kept
        assert "I close it.\nDone.".startswith(call.reply)


def test_the_data_stream_of_version_4(wire, read) -> None:
    lines = [
        b'f:{"messageId":"msg_4"}',
        b'0:"I close "',
        b'0:"it."',
        b'9:{"toolCallId":"%s","toolName":"close_ticket","args":{"ticket":"T-1"}}' % CALL_ID.encode(),
        b'a:{"toolCallId":"x","result":"closed"}',
        b"nonsense",
        b'd:{"finishReason":"stop","usage":{"promptTokens":1,"completionTokens":2}}',
    ]
    body = b"".join(line + b"\n" for line in lines)
    call = read(wire.ok(body, {"x-vercel-ai-data-stream": "v1"}))
    assert (call.reply, call.finish_reason, call.completed, call.response_id) == ("I close it.", "stop", True, "msg_4")
    assert call.tool_calls == (ToolCall(CALL_ID, "close_ticket", {"ticket": "T-1"}),)
    assert not read(wire.ok(body[:-5], {"x-vercel-ai-data-stream": "v1"})).completed


def test_history_and_tools_in_the_browser(wire, read) -> None:
    parts = [
        {"type": "step-start"},
        {"type": "tool-confirm", "toolCallId": CALL_ID, "state": "output-available", "input": {}, "output": "yes"},
        {"type": "tool-confirm", "toolCallId": "call_waits", "state": "input-available", "input": {}},
        {"type": "tool-invocation", "toolInvocation": {"toolCallId": "call_v4", "state": "result"}},
        {"type": "text", "text": "Shall I?"},
    ]
    file = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,iVBO"}
    messages = [
        {"role": "user", "parts": [{"type": "text", "text": "This:"}, file]},
        {"role": "assistant", "parts": parts},
        {"role": "user", "content": "plain"},
    ]
    call = read(wire.ok(b"".join(PARTS), UI), {"id": "c-1", "messages": messages})
    assert [(turn.role, turn.text, len(turn.media)) for turn in call.turns] == [
        ("user", "This:", 1),
        ("assistant", "Shall I?", 0),
        ("user", "plain", 0),
    ]
    assert call.tool_results == (CALL_ID, "call_v4")
    assert call.opens


def test_failures(wire, read) -> None:
    assert read(wire.answer(500, b"")).error == "http_500"
    assert read(b"").error == "no_response"
    broken = read(wire.ok(b"".join(PARTS[:6]) + part("error", errorText="words") + PARTS[-1], UI))
    assert (broken.completed, broken.error) == (False, "error")
    stopped = read(wire.ok(b"".join(PARTS[:6]) + part("abort") + PARTS[-1], UI))
    assert (stopped.completed, stopped.error) == (False, None)


def test_floods_are_bounded(wire, read) -> None:
    texts = b"".join(part("text-delta", id=str(number), delta="x") for number in range(TEXTS_MAX + 3))
    calls = b"".join(part("tool-input-available", toolCallId=str(number)) for number in range(503))
    call = read(wire.ok(texts + calls + PARTS[-1], UI))
    assert (call.reply.count("x"), len(call.tool_calls), call.overflow) == (TEXTS_MAX, 500, True)


def test_wrong_types_never_raise(survives, sse) -> None:
    words = (
        "id messages message role parts type text content toolCallId state delta text-delta tool-input-available "
        "toolName input"
    )
    frames = {
        "text/event-stream": sse,
        "text/plain\r\nx-vercel-ai-data-stream: v1": lambda data: b"9:" + data + b"\n0:" + data + b"\n",
    }
    survives(API, "/api/chat", words, frames)
