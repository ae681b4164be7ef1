from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observer.apis.anthropic_messages import API
from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange
from sidecar.wire.records import EndFlag

PATH = "/v1/messages"
ASK = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 1024,
    "system": "You help.",
    "messages": [{"role": "user", "content": "Close my ticket, please."}],
}
CALL_ID = "toolu_01T1x1fJ34qAmk2tNTrN7Up6"


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind} | fields))


def delta(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind} | fields)


# As the API's documentation shows a stream with thinking, text and a tool call.
STREAM = b"".join(
    [
        event(
            "message_start",
            message={
                "id": "msg_01",
                "type": "message",
                "role": "assistant",
                "model": "claude-sonnet-4-5-20250929",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 12,
                    "cache_creation_input_tokens": 100,
                    "cache_read_input_tokens": 2000,
                    "output_tokens": 1,
                },
            },
        ),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("ping"),
        delta(0, "thinking_delta", thinking="The ticket is solved."),
        delta(0, "signature_delta", signature="EqQB"),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        delta(1, "text_delta", text="I close "),
        delta(1, "text_delta", text="it."),
        event("content_block_stop", index=1),
        event(
            "content_block_start",
            index=2,
            content_block={"type": "tool_use", "id": CALL_ID, "name": "close_ticket", "input": {}},
        ),
        delta(2, "input_json_delta", partial_json=""),
        delta(2, "input_json_delta", partial_json='{"ticket": '),
        delta(2, "input_json_delta", partial_json='"T-1"}'),
        event("content_block_stop", index=2),
        event("new_event_of_the_future", anything=[1]),
        event(
            "message_delta",
            delta={"stop_reason": "tool_use", "stop_sequence": None},
            usage={"output_tokens": 89, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 40}},
        ),
        event("message_stop"),
    ]
)


def message(*content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body = {
        "id": "msg_02",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 0},
    }
    return body | changes


@pytest.fixture
def read(wire):
    def read(response: bytes, request: Any = ASK, flags: int = 0) -> Call:
        return API.read(wire.exchange(wire.post(PATH, request), response, flags))

    return read


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("POST", PATH, True),
        ("POST", "/v1/messages?beta=true", True),
        ("POST", "/anthropic/v1/messages", True),
        ("POST", "/v1/messages/count_tokens", False),
        ("POST", "/v1/messages/batches", False),
        ("GET", PATH, False),
        ("POST", "/api/messages", False),
    ],
)
def test_it_is_known_by_its_path(wire, method: str, path: str, known: bool) -> None:
    assert API.recognises(wire.exchange(wire.message(f"{method} {path} HTTP/1.1", ASK))) is known


def test_a_whole_answer(wire, read) -> None:
    text = {"type": "text", "text": "Done."}
    tool = {"type": "tool_use", "id": CALL_ID, "name": "close_ticket", "input": {"ticket": "T-1"}}
    assert read(wire.ok(message(text, tool, stop_reason="tool_use"))) == Call(
        api="anthropic.messages",
        model="claude-sonnet-4-5-20250929",
        turns=(Turn("system", "You help."), Turn("user", "Close my ticket, please.")),
        reply="Done.",
        tool_calls=(ToolCall(CALL_ID, "close_ticket", {"ticket": "T-1"}),),
        usage=Usage(10, 0, None, None),
        finish_reason="tool_use",
        response_id="msg_02",
        completed=True,
    )


def test_a_stream(wire, read) -> None:
    assert read(wire.stream(STREAM)) == Call(
        api="anthropic.messages",
        model="claude-sonnet-4-5-20250929",
        turns=(Turn("system", "You help."), Turn("user", "Close my ticket, please.")),
        reply="I close it.",
        tool_calls=(ToolCall(CALL_ID, "close_ticket", {"ticket": "T-1"}),),
        usage=Usage(input=2112, output=89, cached=2000, reasoning=40),
        finish_reason="tool_use",
        response_id="msg_01",
        completed=True,
    )


def test_input_counts_what_the_cache_read_and_wrote(wire, read) -> None:
    usage = {"input_tokens": 0, "cache_read_input_tokens": 7, "cache_creation_input_tokens": None, "output_tokens": 1}
    assert read(wire.ok(message(usage=usage))).usage == Usage(7, 1, 7)
    assert read(wire.ok(message(usage={}))).usage == Usage()


def test_counts_of_message_delta_replace_those_of_the_start(wire, read) -> None:
    end = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": 50, "output_tokens": 0})
    assert read(wire.stream(STREAM + end)).usage == Usage(2150, 0, 2000, 40)


def test_tool_results_are_the_tools_turns(wire, read) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": CALL_ID, "name": "look", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": CALL_ID, "content": "a cat"}]},
        {"role": "assistant", "content": "A cat."},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}],
                },
                {"type": "text", "text": "Thank you!", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    call = read(wire.ok(message()), {"model": "m", "system": [{"type": "text", "text": "S"}], "messages": messages})
    assert [(turn.role, turn.text, len(turn.media)) for turn in call.turns] == [
        ("system", "S", 0),
        ("user", "What is it?", 1),
        ("assistant", "Let me look.", 0),
        ("tool", "a cat", 0),
        ("assistant", "A cat.", 0),
        ("tool", "no", 0),
        ("user", "Thank you!", 0),
    ]
    assert call.tool_results == (CALL_ID, "toolu_2")
    assert call.tool_calls == ()


def test_a_cache_mark_does_not_make_another_picture(wire, read) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    marked = image | {"cache_control": {"type": "ephemeral"}}
    first, second = (
        read(wire.ok(message()), {"messages": [{"role": "user", "content": [part]}]}) for part in (image, marked)
    )
    assert first.turns == second.turns


def test_calls_of_connected_servers_and_the_apis_own(wire, read) -> None:
    blocks = [
        {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "close_ticket", "server_name": "crm", "input": {"a": 1}},
        {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "content": []},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    ]
    assert read(wire.ok(message(*blocks))).tool_calls == (
        ToolCall("mcptoolu_1", "close_ticket", {"a": 1}),
        ToolCall("srvtoolu_1", "web_search", {"query": "x"}),
    )


def test_a_stream_that_is_cut_is_completed_once_its_end_was_seen(wire, read) -> None:
    events = STREAM.split(b"\n\n")[:-1]
    for kept in range(len(events) + 1):
        cut = b"".join(part + b"\n\n" for part in events[:kept])
        call = read(wire.stream(cut, whole=False), flags=EndFlag.ABORTED_BY_CLIENT)
        assert call.completed is (kept >= len(events) - 1), kept  # from `message_delta` with the stop reason on


def test_failures(wire, read) -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    assert read(wire.answer(529, body)).error == "overloaded_error"
    assert read(wire.answer(500, b"oops")).error == "http_500"
    assert read(b"").error == "no_response"
    events = STREAM.split(b"\n\n")[:9]
    cut = b"".join(part + b"\n\n" for part in events)
    broken = read(wire.stream(cut + event("error", error={"type": "overloaded_error", "message": "Overloaded"})))
    assert (broken.completed, broken.error, broken.reply) == (False, "overloaded_error", "I close it.")
    assert not read(wire.ok({"hello": "world"})).completed


def test_calls_and_blocks_past_the_bounds_are_told(wire, read) -> None:
    calls = [{"type": "tool_use", "id": f"id_{n}", "name": "t", "input": {}} for n in range(501)]
    call = read(wire.ok({"id": "msg_01", "content": calls, "stop_reason": "tool_use"}))
    assert (len(call.tool_calls), call.overflow) == (500, True)
    flood = b"".join(event("content_block_start", index=n, content_block={"type": "text"}) for n in range(2_001))
    stream = event("message_start", message={"id": "msg_01"}) + flood + event("message_stop")
    assert read(wire.stream(stream)).overflow


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["tool_use", "text", "tool_result", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "system", "delta", "message", "index", "id",
                             "content_block", "usage", "error", "type", "text", "model", "input", "partial_json",
                             "stop_reason"]),
            inner, max_size=4,
        )
    ),
    max_leaves=20,
)  # fmt: skip
KINDS = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "error"]
)


@settings(max_examples=200)
@given(JSON, st.lists(st.tuples(KINDS, JSON), max_size=5), st.booleans())
def test_wrong_types_never_raise(request_body: Any, events: list[tuple[str, Any]], streamed: bool) -> None:
    sent = orjson.dumps(request_body)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(sent)
    bodies = [(body | {"type": kind}) if isinstance(body, dict) else body for kind, body in events]
    answer = b"".join(b"data: %s\n\n" % orjson.dumps(body) for body in bodies)
    if not streamed:
        answer = orjson.dumps(bodies[0] if bodies else None)
    kind = b"text/event-stream" if streamed else b"application/json"
    response = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(answer), answer)
    call = API.read(Exchange(RawExchange("q", 1, 1, 0, 0, 0, head + sent, response, EndFlag(0), True)))
    assert call.api == "anthropic.messages"


def test_what_a_compaction_took_is_added(wire) -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 1000, "output_tokens": 50, "cache_read_input_tokens": 0},
        {"type": "message", "input_tokens": 12, "output_tokens": 17},
    ]
    usage = {"input_tokens": 12, "output_tokens": 17, "iterations": iterations}
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.ok({"content": [], "usage": usage})))
    assert (call.usage.input, call.usage.output) == (1012, 67)


def test_half_characters_in_two_pieces_are_one(wire) -> None:
    head = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    halves = [rb'{"type":"text_delta","text":"Sure \ud83d"}', rb'{"type":"text_delta","text":"\ude00!"}']
    deltas = [b'data: {"type":"content_block_delta","index":0,"delta":%s}\n\n' % half for half in halves]
    body = head + b"".join(deltas) + event("message_delta", delta={"stop_reason": "end_turn"}) + event("message_stop")
    assert API.read(wire.exchange(wire.post(PATH, ASK), wire.stream(body))).reply == "Sure 😀!"


def test_a_call_that_the_token_limit_cut_off_was_not_asked_for(wire, read) -> None:
    tools = [{"type": "tool_use", "id": f"{CALL_ID}{n}", "name": name, "input": {}} for n, name in enumerate("ab")]
    for reason, names in {"max_tokens": ["a"], "refusal": [], "tool_use": ["a", "b"]}.items():
        call = read(wire.ok(message(*tools, stop_reason=reason)))
        assert ([each.name for each in call.tool_calls], call.completed) == (names, True)
