from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.observer.apis.ollama import API
from sidecar.wire.records import EndFlag

ASK = {"model": "llama3.2", "messages": [{"role": "user", "content": "Close it.", "images": ["iVBO"]}]}
NDJSON = {"Content-Type": "application/x-ndjson"}
LOOKUP = {"function": {"name": "close_ticket", "arguments": {"ticket": "T-1"}}}


def line(message: dict[str, Any] | None = None, **fields: Any) -> bytes:
    body: dict[str, Any] = {"model": "llama3.2", "created_at": "2026-11-22T10:00:00.1Z"}
    if message is not None:
        body["message"] = {"role": "assistant"} | message
    return orjson.dumps(body | {"done": False} | fields) + b"\n"


END = {"done": True, "done_reason": "stop", "total_duration": 5, "prompt_eval_count": 26, "eval_count": 0}
LINES = [
    line({"content": "", "thinking": "Solved."}),
    line({"content": "I close "}),
    line({"content": "it."}),
    line({"content": "", "tool_calls": [LOOKUP]}),
    line({"content": ""}, **END),
]


@pytest.fixture
def read(wire):
    def read(answer: bytes, request: Any = ASK, path: str = "/api/chat", flags: int = 0) -> Call:
        return API.read(wire.exchange(wire.post(path, request), answer, flags))

    return read


@pytest.mark.parametrize(
    ("path", "body", "known"),
    [
        ("/api/chat", ASK, True),
        ("/api/generate", {"model": "m", "prompt": "Hi"}, True),
        ("/ollama/api/chat", ASK, True),
        ("/api/generate", {"model": "m"}, True),  # loads the model
        ("/api/chat", {"id": "c-1", "messages": [], "model": "m"}, False),
        ("/api/chat", {"messages": []}, False),
        ("/api/embed", {"model": "m", "input": "x"}, False),
    ],
)
def test_it_is_known_by_path_and_body(wire, path: str, body: Any, known: bool) -> None:
    assert API.recognises(wire.exchange(wire.post(path, body))) is known


def test_a_stream(wire, read) -> None:
    call = read(wire.ok(b"".join(LINES), NDJSON))
    assert call == Call(
        api="ollama",
        model="llama3.2",
        turns=call.turns,
        reply="I close it.",
        tool_calls=(ToolCall("", "close_ticket", {"ticket": "T-1"}),),
        usage=Usage(26, 0),
        finish_reason="stop",
        completed=True,
    )
    assert [(turn.role, turn.text, len(turn.media)) for turn in call.turns] == [("user", "Close it.", 1)]


def test_a_stream_cut_anywhere(wire, read) -> None:
    body = b"".join(LINES)
    for at in range(len(body) + 1):
        head = NDJSON | {"Content-Length": str(len(body))}
        call = read(wire.ok(body[:at], head), flags=EndFlag.ABORTED_BY_CLIENT)
        assert call.completed is (at >= len(body) - 1), at
        assert "I close it.".startswith(call.reply)


def test_a_whole_answer(wire, read) -> None:
    call = read(wire.ok(orjson.loads(line({"content": "Hi", "tool_calls": [LOOKUP | {"id": "call_x"}]}, **END))))
    assert (call.reply, call.completed, call.tool_calls[0].id) == ("Hi", True, "call_x")


def test_generate(wire, read) -> None:
    body = line(response="Hel") + line(response="lo") + line(response="", **END)
    call = read(wire.ok(body, NDJSON), {"model": "m", "system": "Be brief.", "prompt": "Hi"}, "/api/generate")
    assert (call.reply, call.turns) == ("Hello", (Turn("system", "Be brief."), Turn("user", "Hi")))


def test_results_of_tools(wire, read) -> None:
    request = {"model": "m", "messages": [{"role": "tool", "content": "closed", "tool_call_id": "call_x"}]}
    call = read(wire.ok(b"".join(LINES)), request)
    assert (call.turns, call.tool_results) == ((Turn("tool", "closed"),), ("call_x",))


def test_failures(wire, read) -> None:
    assert read(wire.answer(404, {"error": "model 'x' not found"})).error == "http_404"
    broken = read(wire.ok(LINES[1] + b'{"error": "an error was encountered"}\n', NDJSON))
    assert (broken.completed, broken.error) == (False, "http_200")
    assert read(b"").error == "no_response"
    assert read(wire.ok(line({"content": "x"}, done=True))).usage == Usage()


def test_wrong_types_never_raise(survives) -> None:
    words = (
        "model messages role content images message tool_calls function name arguments done done_reason error response"
    )
    survives(API, "/api/chat", words, {"application/x-ndjson": lambda data: data + b"\n"})
