from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.observer.apis.gemini import API, PARTS_MAX
from sidecar.wire.records import EndFlag

PATH = "/v1beta/models/gemini-2.5-flash:generateContent"
STREAM_PATH = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
VERTEX = "/v1/projects/p-1/locations/us-central1/publishers/google/models/gemini-2.5-pro"
ASK = {"contents": [{"role": "user", "parts": [{"text": "Where is my order?"}]}]}
USAGE = {
    "promptTokenCount": 20,
    "cachedContentTokenCount": 8,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 30,
    "totalTokenCount": 57,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
}


def chunk(*parts: dict[str, Any], finish: str | None = None, **changes: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    body = {
        "candidates": [candidate],
        "usageMetadata": {"promptTokenCount": 20, "totalTokenCount": 20},
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "mAitaLmkHPPlz7IPvtfUqQ4",
    }
    return body | changes


CALL = {"functionCall": {"name": "close_ticket", "args": {"ticket": "T-1"}}}
CHUNKS = [
    chunk({"text": "The ticket is solved.", "thought": True}),
    chunk({"text": "I close "}),
    chunk({"text": "it."}, CALL | {"thoughtSignature": "CpUB"}),
    chunk({"text": ""}, finish="STOP", usageMetadata=USAGE),
]
SSE = b"".join(b"data: " + orjson.dumps(each) + b"\r\n\r\n" for each in CHUNKS)
ARRAY = b"[" + b"\n,\r\n".join(orjson.dumps(each, option=orjson.OPT_INDENT_2) for each in CHUNKS) + b"\n]\n"
SAID = Call(
    api="gemini",
    model="gemini-2.5-flash-001",
    turns=(Turn("user", "Where is my order?"),),
    reply="I close it.",
    tool_calls=(ToolCall("", "close_ticket", {"ticket": "T-1"}),),
    usage=Usage(20, 37, 8, 30),
    finish_reason="STOP",
    response_id="mAitaLmkHPPlz7IPvtfUqQ4",
    completed=True,
)


@pytest.fixture
def read(wire):
    def read(answer: bytes, request: Any = ASK, path: str = PATH, flags: int = 0) -> Call:
        return API.read(wire.exchange(wire.post(path, request), answer, flags))

    return read


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (PATH, True),
        (f"{STREAM_PATH}?alt=sse&key=k", True),
        (f"{VERTEX}:streamGenerateContent", True),
        ("/v1/projects/p/locations/l/endpoints/123:generateContent", True),
        ("/v1internal:generateContent", True),
        ("/v1beta/models/gemini-2.5-flash:countTokens", False),
        ("/v1beta/models/gemini-2.5-flash", False),
    ],
)
def test_it_is_known_by_its_path(wire, path: str, known: bool) -> None:
    assert API.recognises(wire.exchange(wire.post(path, ASK))) is known
    assert not API.recognises(wire.exchange(wire.get(path)))


def test_a_whole_answer(wire, read) -> None:
    parts = [part for each in CHUNKS for part in each["candidates"][0]["content"]["parts"]]
    assert read(wire.ok(chunk(*parts, finish="STOP", usageMetadata=USAGE))) == SAID


def test_a_stream_of_events_and_a_growing_array_say_the_same(wire, read) -> None:
    assert read(wire.stream(SSE), path=f"{STREAM_PATH}?alt=sse") == SAID
    assert read(wire.ok(ARRAY, {"Content-Type": "application/json"}), path=STREAM_PATH) == SAID


@pytest.mark.parametrize("form", ["events", "array"])
def test_a_stream_cut_anywhere(wire, read, form: str) -> None:
    body, kind = (SSE, "text/event-stream") if form == "events" else (ARRAY, "application/json")
    ends = [body.index(b'"STOP"'), len(body.rstrip(b"]\n"))]
    for at in range(0, len(body), 11):
        head = {"Content-Type": kind, "Content-Length": str(len(body))}
        call = read(wire.ok(body[:at], head), path=STREAM_PATH, flags=EndFlag.ABORTED_BY_ORIGIN)
        assert SAID.reply.startswith(call.reply)
        assert not (call.completed and at < ends[0])
        assert call.completed or at < ends[1] + 8


def test_roles_and_parts(wire, read) -> None:
    request = {
        "systemInstruction": {"parts": [{"text": "You help."}]},
        "contents": [
            {"parts": [{"text": "What is this?"}, {"inlineData": {"mimeType": "image/png", "data": "iVBO"}}]},
            {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "A cat."}, CALL]},
            {"role": "user", "parts": [{"functionResponse": {"id": "fc-1", "response": {"result": "ok"}}}]},
            {"role": "function", "parts": [{"function_response": {"name": "x", "response": {"a": 1}}}]},
        ],
    }  # fmt: skip
    call = read(wire.ok(chunk({"text": "Hi"}, finish="STOP")), request)
    assert [(turn.role, turn.text, len(turn.media)) for turn in call.turns] == [
        ("system", "You help.", 0),
        ("user", "What is this?", 1),
        ("assistant", "A cat.", 0),
        ("tool", "ok", 0),
        ("tool", "", 0),
    ]
    assert call.tool_results == ("fc-1",)
    snake = {"system_instruction": {"parts": {"text": "You help."}}, "contents": {"parts": [{"text": "Hi"}]}}
    assert read(wire.ok({}), snake).turns == (Turn("system", "You help."), Turn("user", "Hi"))


def test_tool_calls(wire, read) -> None:
    with_id = {"functionCall": {"id": "fc-7", "name": "lookup"}}
    code = {"executableCode": {"language": "PYTHON", "code": "1+1"}}
    call = read(wire.ok(chunk(with_id, code, {"functionCall": {"args": {}}}, finish="STOP")))
    assert call.tool_calls == (
        ToolCall("fc-7", "lookup", {}),
        ToolCall("", "code_execution", {"language": "PYTHON", "code": "1+1"}),
    )


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (USAGE, Usage(20, 37, 8, 30)),
        (USAGE | {"totalTokenCount": 27}, Usage(20, 7, 8, 30)),  # thoughts within the candidates
        ({"promptTokenCount": 5, "toolUsePromptTokenCount": 3, "candidatesTokenCount": 0}, Usage(8, 0)),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, Usage(5, None)),
        ({"thoughtsTokenCount": 4, "promptTokenCount": 1, "totalTokenCount": 5}, Usage(1, 4, None, 4)),
        ({}, Usage()),
    ],
)
def test_usage(wire, read, told: dict[str, Any], usage: Usage) -> None:
    assert read(wire.ok(chunk(finish="STOP", usageMetadata=told))).usage == usage


def test_a_blocked_prompt_and_the_models_name(wire, read) -> None:
    call = read(wire.ok({"promptFeedback": {"blockReason": "SAFETY"}}), path=f"{VERTEX}:generateContent")
    assert (call.completed, call.finish_reason, call.model) == (True, "SAFETY", "gemini-2.5-pro")


def test_the_wrapped_form(wire, read) -> None:
    body = {"response": chunk({"text": "Hi"}, finish="STOP")}
    call = read(wire.ok(body), {"model": "m", "project": "p", "request": ASK}, "/v1internal:generateContent")
    assert (call.reply, call.turns) == ("Hi", (Turn("user", "Where is my order?"),))


def test_failures(wire, read) -> None:
    limited = {"error": {"code": 429, "message": "words", "status": "RESOURCE_EXHAUSTED"}}
    assert read(wire.answer(429, limited)).error == "RESOURCE_EXHAUSTED"
    assert read(wire.answer(429, [limited]), path=STREAM_PATH).error == "RESOURCE_EXHAUSTED"
    broken = SSE[: SSE.index(b"\r\n\r\n") + 4] + b"data: " + orjson.dumps(limited) + b"\r\n\r\n"
    call = read(wire.ok(broken, {"Content-Type": "text/event-stream"}), path=STREAM_PATH)
    assert (call.completed, call.error) == (False, "RESOURCE_EXHAUSTED")
    assert read(wire.answer(502, b"<html>")).error == "http_502"
    assert read(b"").error == "no_response"


def test_a_flood_of_parts_is_bounded(wire, read) -> None:
    call = read(wire.ok(chunk(*([{"text": "x"}] * (PARTS_MAX + 3)), finish="STOP")))
    assert (len(call.reply), call.overflow, call.completed) == (PARTS_MAX, True, True)


def test_wrong_types_never_raise(survives, sse) -> None:
    words = (
        "contents role parts text functionCall functionResponse id name args response candidates content finishReason "
        "index usageMetadata promptTokenCount thoughtsTokenCount error status systemInstruction thought executableCode "
        "request"
    )
    frames = {"text/event-stream": sse, "application/json": lambda data: data, "text/plain": lambda data: b"[" + data}
    survives(API, STREAM_PATH, words, frames)


def test_function_arguments_in_pieces_are_put_together(wire) -> None:
    def piece(path: str, more: bool = True, **value: Any) -> dict[str, Any]:
        return {"functionCall": {"partialArgs": [{"jsonPath": path} | value], "willContinue": more}}

    chunks = [
        chunk({"functionCall": {"name": "close_ticket", "id": "fc-1", "willContinue": True}}),
        chunk(piece("$.ticket", stringValue="T-")),
        chunk(piece("$.ticket", stringValue="1"), piece("$.lines[0].text", stringValue="ge")),
        chunk(piece("$.lines[0].text", stringValue="löst"), piece("$.lines[1]['the amount']", numberValue=5)),
        chunk(
            piece("$.lines[7]", numberValue=1), piece("$.paid", boolValue=True), piece("$.by", nullValue="NULL_VALUE")
        ),
        chunk({"functionCall": {}}),
        chunk({"functionCall": {"name": "look_up", "args": {"a": 1}}}, finish="STOP"),
    ]
    body = b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in chunks)
    call = API.read(wire.exchange(wire.post(STREAM_PATH, ASK), wire.stream(body)))
    lines = [{"text": "gelöst"}, {"the amount": 5}]
    first = {"ticket": "T-1", "lines": lines, "paid": True, "by": "NULL_VALUE"}
    assert call.tool_calls == (ToolCall("fc-1", "close_ticket", first), ToolCall("", "look_up", {"a": 1}))


def test_arguments_in_pieces_are_bounded_in_depth(wire) -> None:
    deep = {"jsonPath": "$" + ".a" * 5_000, "stringValue": "x"}
    part = {"functionCall": {"name": "f", "partialArgs": [deep, {"jsonPath": "$.b", "stringValue": "y"}]}}
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.ok(chunk(part, finish="STOP"))))
    assert call.tool_calls == (ToolCall("", "f", {"b": "y"}),)


def test_tools_that_google_runs_are_calls_and_no_media(wire) -> None:
    search = {"toolCall": {"id": "t-1", "toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["order"]}}}
    found = {"toolResponse": {"id": "t-1", "toolType": "GOOGLE_SEARCH_WEB", "response": {}}}
    answer = chunk(search, found, {"text": "Here."}, finish="STOP")
    history = {"contents": [*ASK["contents"], answer["candidates"][0]["content"], *ASK["contents"]]}
    call = API.read(wire.exchange(wire.post(PATH, history), wire.ok(answer)))
    assert call.tool_calls == (ToolCall("t-1", "google_search_web", {"queries": ["order"]}),)
    assert call.turns[1] == Turn("assistant", "Here.")


def test_a_call_that_the_token_limit_cut_off_was_not_asked_for(wire, read) -> None:
    parts = [{"functionCall": {"name": name, "args": {}}} for name in ("look", "resolve_conversation")]
    for reason, number in {"MAX_TOKENS": 1, "SAFETY": 0, "STOP": 2}.items():
        assert len(read(wire.ok(chunk(*parts, finish=reason))).tool_calls) == number
