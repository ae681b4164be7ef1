from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.observer.apis.openai_responses import API, OUTPUT_ITEMS_MAX
from sidecar.wire.records import EndFlag

PATH = "/v1/responses"
ASK = {"model": "gpt-5", "input": "Where is my order?"}
CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"
MESSAGE = {
    "id": "msg_67cc",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "On its way.", "annotations": []}],
}
FUNCTION = {
    "id": "fc_67ca",
    "type": "function_call",
    "status": "completed",
    "call_id": CALL_ID,
    "name": "close_ticket",
    "arguments": '{"ticket": "T-1"}',
}


def response(*output: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """As the API answers a request that does not stream."""
    body = {
        "id": "resp_67ccd2bed1ec",
        "object": "response",
        "created_at": 1741476542,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": "gpt-5-2025-08-07",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "usage": {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 64},
            "total_tokens": 123,
        },
        "metadata": {},
    }
    return body | changes


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, "sequence_number": 1} | fields))


STARTED = response(status="in_progress", usage=None)
STREAM = b"".join(
    [
        event("response.created", response=STARTED),
        event("response.in_progress", response=STARTED),
        event("response.output_item.added", output_index=0, item=MESSAGE | {"status": "in_progress", "content": []}),
        event("response.content_part.added", item_id="msg_67cc", output_index=0, content_index=0, part={}),
        event("response.output_text.delta", item_id="msg_67cc", output_index=0, content_index=0, delta="On its "),
        event("response.output_text.delta", item_id="msg_67cc", output_index=0, content_index=0, delta="way."),
        event("response.output_text.done", item_id="msg_67cc", output_index=0, content_index=0, text="On its way."),
        event("response.output_item.done", output_index=0, item=MESSAGE),
        event("response.function_call_arguments.delta", item_id="fc_67ca", output_index=1, delta='{"ticket'),
        event("response.output_item.done", output_index=1, item=FUNCTION),
        event("response.completed", response=response(MESSAGE, FUNCTION)),
    ]
)


@pytest.fixture
def read(wire):
    def read(answer: bytes, request: Any = ASK, flags: int = 0, path: str = PATH) -> Call:
        return API.read(wire.exchange(wire.post(path, request), answer, flags))

    return read


@pytest.mark.parametrize(
    ("method", "path", "body", "known"),
    [
        ("POST", PATH, ASK, True),
        ("POST", "/openai/v1/responses?api-version=preview", ASK, True),
        ("POST", "/openai/responses?api-version=2025-04-01-preview", ASK, True),
        ("POST", "/backend-api/codex/responses", ASK, True),
        ("POST", "/v1/responses/compact", ASK, True),
        ("POST", "/surveys/7/responses", {"answer": 1}, False),
        ("GET", "/v1/responses/resp_67ccd2bed1ec?stream=true", b"", True),
        ("POST", "/v1/responses/resp_67ccd2bed1ec/cancel", b"", True),
        ("GET", "/v1/responses", b"", False),
        ("POST", "/v1/responses/input_tokens", ASK, False),
    ],
)
def test_it_is_known_by_its_path(wire, method: str, path: str, body: Any, known: bool) -> None:
    assert API.recognises(wire.exchange(wire.message(f"{method} {path} HTTP/1.1", body))) is known


def test_a_whole_answer(wire, read) -> None:
    request = ASK | {"previous_response_id": "resp_old", "instructions": "Be brief.", "conversation": {"id": "conv_1"}}
    assert read(wire.ok(response(MESSAGE)), request) == Call(
        api="openai.responses",
        model="gpt-5-2025-08-07",
        turns=(Turn("system", "Be brief."), Turn("user", "Where is my order?")),
        reply="On its way.",
        usage=Usage(36, 87, 0, 64),
        finish_reason="completed",
        response_id="resp_67ccd2bed1ec",
        completed=True,
        conversation="conv_1",
        previous_response_id="resp_old",
    )
    assert read(wire.ok(response(MESSAGE)), ASK | {"conversation": "conv_2"}).conversation == "conv_2"
    assert read(wire.ok(response(MESSAGE, conversation={"id": "conv_3"}))).conversation == "conv_3"


def test_input_items(wire, read) -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": "https://a/b.png"},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        MESSAGE,
        FUNCTION,
        {"type": "function_call_output", "call_id": CALL_ID, "output": "closed"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "done"}]},
        {"type": "item_reference", "id": "msg_9"},
        "no item",
    ]  # fmt: skip
    call = read(wire.ok(response(MESSAGE)), {"model": "m", "input": items})
    assert [(turn.role, turn.text, len(turn.media)) for turn in call.turns] == [
        ("system", "Be kind.", 0),
        ("user", "What is this?", 1),
        ("assistant", "On its way.", 0),
        ("tool", "closed", 0),
        ("tool", "done", 0),
    ]
    assert call.tool_results == (CALL_ID, "call_2")
    assert call.tool_calls == ()


def test_tool_calls(wire, read) -> None:
    call = read(
        wire.ok(
            response(
                FUNCTION,
                FUNCTION | {"call_id": "call_b", "arguments": "{broken"},
                {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_c", "name": "sql", "input": "SELECT 1"},
                {"type": "mcp_call", "id": "mcp_1", "name": "roll", "arguments": '{"n": 2}', "server_label": "dice",
                 "output": "4"},
                {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search",
                 "query": "weather"}},
                {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "1+1"},
                {"type": "computer_call", "id": "cu_1", "call_id": "call_d", "action": {"type": "click"}},
                {"type": "mcp_list_tools", "id": "mcpl_1", "tools": []},
                FUNCTION | {"call_id": "call_cut", "status": "incomplete"},
            )
        )
    )  # fmt: skip
    assert call.tool_calls == (
        ToolCall(CALL_ID, "close_ticket", {"ticket": "T-1"}),
        ToolCall("call_b", "close_ticket", "{broken"),
        ToolCall("call_c", "sql", "SELECT 1"),
        ToolCall("mcp_1", "roll", {"n": 2}),
        ToolCall("ws_1", "web_search", {"type": "search", "query": "weather"}),
        ToolCall("ci_1", "code_interpreter", "1+1"),
        ToolCall("call_d", "computer", {"type": "click"}),
    )


def test_a_stream_is_what_the_whole_answer_is(wire, read) -> None:
    streamed, whole = read(wire.stream(STREAM)), read(wire.ok(response(MESSAGE, FUNCTION)))
    assert streamed.answer == response(MESSAGE, FUNCTION)
    for name in ("model", "reply", "tool_calls", "usage", "finish_reason", "response_id", "completed", "error"):
        assert getattr(streamed, name) == getattr(whole, name), name


def test_a_stream_cut_anywhere(wire, read) -> None:
    events = STREAM.split(b"\n\n")[:-1]
    for kept in range(len(events) + 1):
        cut = b"".join(each + b"\n\n" for each in events[:kept])
        call = read(wire.stream(cut, whole=False), flags=EndFlag.ABORTED_BY_CLIENT)
        assert call.completed is (kept == len(events)), kept
        assert call.response_id == ("resp_67ccd2bed1ec" if kept else None)
        assert call.reply == ("" if kept < 5 else "On its " if kept == 5 else "On its way."), kept
    for at in range(0, len(STREAM), 7):
        assert not read(wire.stream(STREAM[:at], whole=False)).completed


def test_a_completed_event_without_output(wire, read) -> None:
    stream = STREAM.replace(orjson.dumps(response(MESSAGE, FUNCTION)), orjson.dumps(response()))
    call = read(wire.stream(stream))
    assert (call.reply, len(call.tool_calls), call.completed) == ("On its way.", 1, True)


def test_incomplete_and_failed(wire, read) -> None:
    incomplete = response(MESSAGE, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    for answer in (wire.ok(incomplete), wire.stream(event("response.incomplete", response=incomplete))):
        call = read(answer)
        assert (call.completed, call.finish_reason, call.error) == (True, "max_output_tokens", None)
    failed = response(status="failed", error={"code": "server_error", "message": "words"})
    for answer in (wire.ok(failed), wire.stream(event("response.failed", response=failed))):
        call = read(answer)
        assert (call.completed, call.error) == (False, "server_error")
    assert read(wire.ok(response(status="failed"))).error == "failed"
    for fields in ({"code": "rate_limit_exceeded", "message": "w"}, {"error": {"code": "rate_limit_exceeded"}}):
        call = read(wire.stream(event("response.created", response=STARTED) + event("error", **fields)))
        assert (call.completed, call.error) == (False, "rate_limit_exceeded")
    assert read(wire.answer(429, {"error": {"type": "tokens", "code": "x"}})).error == "tokens"
    assert read(b"").error == "no_response"


def test_made_in_the_background_and_fetched(wire, read) -> None:
    queued = read(wire.ok(response(status="queued", background=True, usage=None)))
    assert (queued.completed, queued.error, queued.llm_call, queued.usage) == (False, None, True, Usage())
    got = wire.get("/v1/responses/resp_67ccd2bed1ec")
    call = API.read(wire.exchange(got, wire.ok(response(FUNCTION, background=True))))
    assert (call.llm_call, call.opens, call.previous_response_id) == (False, False, "resp_67ccd2bed1ec")
    assert (call.completed, call.usage.output, len(call.tool_calls)) == (True, 87, 1)
    assert API.read(wire.exchange(got, wire.ok(response(FUNCTION)))).usage == Usage()


def test_zero_is_told_and_missing_is_not(wire, read) -> None:
    usage = {"input_tokens": 0, "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}}
    assert read(wire.ok(response(usage=usage))).usage == Usage(0, 0, None, 0)
    assert read(wire.ok(response(usage=None))).usage == Usage()


def test_a_flood_of_items_is_bounded(wire, read) -> None:
    flood = event("response.output_item.done", item=FUNCTION) * (OUTPUT_ITEMS_MAX + 5)
    call = read(wire.stream(flood + event("response.completed", response=response())))
    assert (len(call.tool_calls), call.overflow) == (500, True)


def test_wrong_types_never_raise(survives, sse) -> None:
    words = (
        "type response status output input instructions role message content text call_id id name arguments usage "
        "input_tokens_details error code conversation response.completed response.output_item.done item function_call "
        "function_call_output completed incomplete_details reason response.output_text.delta delta mcp_call object"
    )
    survives(API, PATH, words, {"text/event-stream": sse, "application/json": lambda data: data})


def test_a_refusal_that_was_cut_is_its_text(wire) -> None:
    body = event("response.created", response=response(status="in_progress")) + event(
        "response.refusal.delta", item_id="msg_1", output_index=0, content_index=0, delta="I can"
    )
    call = API.read(
        wire.exchange(wire.post(PATH, ASK), wire.stream(body + event("response.refusal.delta", delta="not.")))
    )
    assert (call.reply, call.completed) == ("I cannot.", False)


def test_a_program_is_a_call(wire) -> None:
    program = {"type": "program", "id": "prog_1", "call_id": "call_p1", "code": "close()", "fingerprint": "x"}
    made = {"type": "program_output", "id": "po_1", "call_id": "call_p1", "result": "ok", "status": "completed"}
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.ok(response(program, made, MESSAGE))))
    assert call.tool_calls == (ToolCall("call_p1", "program", "close()"),)


def test_a_conversation_that_is_kept_there(wire) -> None:
    path = "/v1/conversations/conv_123/items"
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Close it."}]}]
    exchange = wire.exchange(wire.post(path, {"items": items}), wire.ok({"object": "list", "data": items}))
    assert API.recognises(exchange)
    call = API.read(exchange)
    assert (call.conversation, call.turns, call.llm_call) == ("conv_123", (Turn("user", "Close it."),), False)
    looked = API.read(wire.exchange(wire.get(path), wire.ok({"object": "list", "data": items})))
    assert (looked.conversation, looked.turns, looked.completed, looked.reply) == ("conv_123", (), True, "")
    assert not API.recognises(wire.exchange(wire.get("/v1/conversations/c-42/items")))
