from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.observer.apis.openai_chat import API
from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange
from sidecar.wire.records import EndFlag

PATH = "/v1/chat/completions"
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Where is my order?"}]}
CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"


def completion(message: dict[str, Any], finish: str = "stop", **changes: Any) -> dict[str, Any]:
    """As the API answers a request that does not stream."""
    body = {
        "id": "chatcmpl-BqR1",
        "object": "chat.completion",
        "created": 1795348800,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": 82,
            "completion_tokens": 17,
            "total_tokens": 99,
            "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }
    return body | changes


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **changes: Any) -> bytes:
    body = {
        "id": "chatcmpl-BqR2",
        "object": "chat.completion.chunk",
        "created": 1795348800,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }
    return b"data: " + orjson.dumps(body | changes) + b"\n\n"


def tool(index: int | None, arguments: str, identity: str | None = None, name: str | None = None) -> dict[str, Any]:
    call: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        call["index"] = index
    if identity:
        call |= {"id": identity, "type": "function"}
    if name:
        call["function"]["name"] = name
    return {"tool_calls": [call]}


DONE = b"data: [DONE]\n\n"
STREAM = b"".join(
    [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "I will "}),
        chunk({"content": "close it."}),
        chunk(tool(0, "", CALL_ID, "resolve_conversation")),
        chunk(tool(0, '{"reason": "sol')),
        chunk(tool(1, "", "call_second00", "lookup")),
        chunk(tool(0, 'ved"}')),
        chunk(tool(1, "{}")),
        chunk({}, "tool_calls"),
        chunk(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}),
        DONE,
    ]
)


@pytest.fixture
def read(wire):
    def read(response: bytes, request: Any = ASK, flags: int = 0, path: str = PATH) -> Call:
        return API.read(wire.exchange(wire.post(path, request), response, flags))

    return read


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("POST", PATH, True),
        ("POST", "/openai/deployments/gpt4/chat/completions?api-version=2024-10-21", True),
        ("POST", "/chat/completions", True),
        ("GET", PATH, False),
        ("POST", f"{PATH}/chatcmpl-1", False),
        ("POST", "/v1/completions", False),
    ],
)
def test_it_is_known_by_its_path(wire, method: str, path: str, known: bool) -> None:
    assert API.recognises(wire.exchange(wire.message(f"{method} {path} HTTP/1.1", ASK))) is known


def test_a_whole_answer(wire, read) -> None:
    assert read(wire.ok(completion({"role": "assistant", "content": "On its way.", "refusal": None}))) == Call(
        api="openai.chat",
        model="gpt-4o-2024-08-06",
        turns=(Turn("user", "Where is my order?"),),
        reply="On its way.",
        usage=Usage(82, 17, 64, 5),
        finish_reason="stop",
        response_id="chatcmpl-BqR1",
        completed=True,
    )


def test_roles_and_parts(wire, read) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": CALL_ID, "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": CALL_ID, "content": "a cat"},
        {"role": "function", "name": "old", "content": "a dog"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        "no message",
    ]
    call = read(wire.ok(completion({"content": "Hm."})), {"model": "m", "messages": messages})
    assert [(turn.role, turn.text) for turn in call.turns] == [
        ("system", "Be brief."),
        ("system", "Be\nkind."),
        ("user", "What is this?"),
        ("assistant", ""),
        ("tool", "a cat"),
        ("tool", "a dog"),
        ("assistant", "No."),
    ]
    assert [len(turn.media) for turn in call.turns] == [0, 0, 1, 0, 0, 0, 0]
    assert call.tool_results == (CALL_ID,)
    assert call.tool_calls == ()  # the history's calls are not the answer's


def test_tool_calls_of_a_whole_answer(wire, read) -> None:
    calls = [
        {"id": CALL_ID, "type": "function", "function": {"name": "lookup", "arguments": '{"order": 7}'}},
        {"id": "call_2", "type": "function", "function": {"name": "broken", "arguments": '{"order": '}},
        {"id": "call_3", "type": "function", "function": {"name": "empty", "arguments": ""}},
        {"id": "call_4", "type": "custom", "custom": {"name": "shell", "input": "ls -l"}},
        {"type": "function", "function": {"name": "nameless_a", "arguments": {"as": "object"}}},
        {"type": "function", "function": {"name": "nameless_b", "arguments": "{}"}},
    ]
    message = {"content": None, "tool_calls": calls}
    call = read(wire.ok(completion(message, "tool_calls")))
    assert call.tool_calls == (
        ToolCall(CALL_ID, "lookup", {"order": 7}),
        ToolCall("call_2", "broken", '{"order": '),
        ToolCall("call_3", "empty", {}),
        ToolCall("call_4", "shell", "ls -l"),
        ToolCall("", "nameless_a", {"as": "object"}),
        ToolCall("", "nameless_b", {}),
    )
    assert call.finish_reason == "tool_calls"


def test_a_function_call_of_old(wire, read) -> None:
    message = {"content": None, "function_call": {"name": "transfer_to_human", "arguments": '{"a": 1}'}}
    whole = read(wire.ok(completion(message, "function_call")))
    deltas = [{"function_call": {"name": "transfer_to_human", "arguments": ""}}]
    deltas += [{"function_call": {"arguments": piece}} for piece in ('{"a"', ": 1}")]
    streamed = read(wire.stream(b"".join(map(chunk, deltas)) + chunk({}, "function_call") + DONE))
    assert whole.tool_calls == streamed.tool_calls == (ToolCall("", "transfer_to_human", {"a": 1}),)


def test_a_refusal_is_the_reply(wire, read) -> None:
    assert read(wire.ok(completion({"content": None, "refusal": "I cannot."}))).reply == "I cannot."
    assert read(wire.stream(chunk({"refusal": "I "}) + chunk({"refusal": "cannot."}) + DONE)).reply == "I cannot."


def test_several_choices(wire, read) -> None:
    choices = [
        {"index": 1, "message": {"content": "B"}, "finish_reason": "length"},
        {"index": 0, "message": {"content": "A"}, "finish_reason": "stop"},
    ]
    call = read(wire.ok(completion({}, choices=choices)))
    assert (call.reply, call.finish_reason) == ("A", "stop")
    stream = chunk({"content": "B"}, index=1) + chunk({"content": "A"}) + chunk(tool(0, "{}", CALL_ID, "x"), index=1)
    call = read(wire.stream(stream + chunk({}, "stop") + chunk({}, "tool_calls", index=1) + DONE))
    assert (call.reply, call.finish_reason) == ("A", "stop")
    assert call.tool_calls == (ToolCall(CALL_ID, "x", {}),)


def test_a_stream(wire, read) -> None:
    call = read(wire.stream(STREAM))
    assert call == Call(
        api="openai.chat",
        model="gpt-4o-2024-08-06",
        turns=(Turn("user", "Where is my order?"),),
        reply="I will close it.",
        tool_calls=(
            ToolCall(CALL_ID, "resolve_conversation", {"reason": "solved"}),
            ToolCall("call_second00", "lookup", {}),
        ),
        usage=Usage(9, 0),
        finish_reason="tool_calls",
        response_id="chatcmpl-BqR2",
        completed=True,
    )


def test_zero_is_told_and_missing_is_not(wire, read) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}
    assert read(wire.ok(completion({}, usage=usage))).usage == Usage(0, 0, 0, None)
    assert read(wire.ok(completion({}, usage=None))).usage == Usage()
    assert read(wire.ok(completion({}, usage={"prompt_tokens": True, "completion_tokens": -1}))).usage == Usage()


def test_the_last_usage_counts(wire, read) -> None:
    stream = b"".join(chunk({"content": "x"}, usage={"prompt_tokens": 5, "completion_tokens": n}) for n in (1, 2, 3))
    assert read(wire.stream(stream + DONE)).usage == Usage(5, 3)


def test_azure_opens_with_a_chunk_that_has_no_model(wire, read) -> None:
    opening = chunk(id="", model="", choices=[], prompt_filter_results=[])
    call = read(wire.stream(opening + STREAM))
    assert (call.model, call.response_id) == ("gpt-4o-2024-08-06", "chatcmpl-BqR2")


def test_servers_that_number_every_call_zero_or_none(wire, read) -> None:
    for index in (0, None):
        deltas = [tool(index, '{"a": 1}', "id_a", "a"), tool(index, '{"b"', "id_b", "b"), tool(index, ": 2}")]
        call = read(wire.stream(b"".join(map(chunk, deltas)) + chunk({}, "tool_calls") + DONE))
        assert call.tool_calls == (ToolCall("id_a", "a", {"a": 1}), ToolCall("id_b", "b", {"b": 2}))


def test_a_stream_that_is_cut_is_completed_once_its_end_was_seen(wire, read) -> None:
    events = STREAM.split(b"\n\n")[:-1]
    for kept in range(len(events) + 1):
        cut = b"".join(event + b"\n\n" for event in events[:kept])
        call = read(wire.stream(cut, whole=False), flags=EndFlag.ABORTED_BY_ORIGIN)
        assert call.completed is (kept >= 9), kept  # from the chunk with the finish reason on
    half = read(wire.stream(STREAM[: len(STREAM) // 2], whole=False), flags=EndFlag.ABORTED_BY_CLIENT)
    assert half.reply.startswith("I will")


def test_every_choice_must_have_ended(wire, read) -> None:
    cut = wire.stream(chunk({"content": "A"}, "stop"), whole=False)
    assert read(cut).completed
    assert not read(cut, ASK | {"n": 2}).completed


def test_an_unlabelled_stream_is_read(wire, read) -> None:
    assert read(wire.ok(STREAM, {"Content-Type": "text/plain"})).reply == "I will close it."
    assert read(wire.ok(b": ping\n\n" + STREAM)).reply == "I will close it."


def test_failures(wire, read) -> None:
    limited = {"error": {"message": "Rate limit reached", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
    call = read(wire.answer(429, limited))
    assert (call.completed, call.error, call.model) == (False, "rate_limit_error", "gpt-4o")
    assert read(wire.answer(502, b"<html>")).error == "http_502"
    assert read(wire.ok({"error": {"message": "words, and more words"}})).error == "http_200"
    assert read(b"").error == "no_response"
    broken = read(wire.stream(chunk({"content": "x"}) + b'data: {"error": {"type": "server_error"}}\n\n'))
    assert (broken.completed, broken.error) == (False, "server_error")
    assert not read(wire.ok({"hello": "world"})).completed


def test_a_flood_of_choices_and_calls_is_bounded(wire, read) -> None:
    stream = b"".join(chunk({"content": "x"}, index=n) for n in range(300))
    stream += b"".join(chunk(tool(n, "{}", f"id_{n}", "t")) for n in range(600))
    call = read(wire.stream(stream + DONE))
    assert (len(call.tool_calls), call.completed, call.overflow) == (500, True, True)


def test_a_call_past_the_bound_is_told(wire, read) -> None:
    calls = [{"id": f"id_{n}", "type": "function", "function": {"name": "t", "arguments": ""}} for n in range(501)]
    assert read(wire.ok(completion({"tool_calls": calls}))).overflow
    assert not read(wire.ok(completion({"tool_calls": calls[1:]}))).overflow


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "choices", "delta", "message", "tool_calls", "index", "id",
                             "function", "function_call", "usage", "error", "type", "text", "model", "arguments"]),
            inner, max_size=4,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200)
@given(JSON, JSON, st.booleans())
def test_wrong_types_never_raise(request_body: Any, body: Any, streamed: bool) -> None:
    sent = orjson.dumps(request_body)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(sent)
    answer = b"data: %s\n\n" % orjson.dumps(body) if streamed else orjson.dumps(body)
    kind = b"text/event-stream" if streamed else b"application/json"
    response = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(answer), answer)
    call = API.read(Exchange(RawExchange("q", 1, 1, 0, 0, 0, head + sent, response, EndFlag(0), True)))
    assert call.api == "openai.chat"


def test_a_spoken_answer_is_its_transcript(wire) -> None:
    spoken = {
        "role": "assistant",
        "content": None,
        "audio": {"id": "audio_1", "data": "UklGRg", "transcript": "Hello."},
    }
    assert API.read(wire.exchange(wire.post(PATH, ASK), wire.ok(completion(spoken)))).reply == "Hello."
    deltas = [{"audio": {"id": "audio_1", "transcript": "Hel"}}, {"audio": {"transcript": "lo.", "data": "UklGRg"}}]
    body = b"".join(chunk(delta) for delta in deltas) + chunk({}, "stop") + b"data: [DONE]\n\n"
    assert API.read(wire.exchange(wire.post(PATH, ASK), wire.stream(body))).reply == "Hello."


def test_deepseek_counts_cached_tokens_beside(wire) -> None:
    usage = {"prompt_tokens": 82, "completion_tokens": 0, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 18}
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.ok(completion({"content": "Hi"}, usage=usage))))
    assert (call.usage.input, call.usage.output, call.usage.cached) == (82, 0, 64)


@pytest.mark.parametrize(("finish", "names"), [("length", ["lookup"]), ("content_filter", []), ("tool_calls", None)])
def test_a_call_that_the_token_limit_cut_off_was_not_asked_for(
    read, wire, finish: str, names: list[str] | None
) -> None:
    functions = [("call_1", "lookup", "{}"), ("call_2", "resolve_conversation", '{"reason": "so')]
    told = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in functions]
    whole = read(wire.ok(completion({"content": None, "tool_calls": told}, finish)))
    pieces = [chunk(tool(number, a, i, n)) for number, (i, n, a) in enumerate(functions)]
    streamed = read(wire.stream(b"".join([*pieces, chunk({}, finish), DONE])))
    wanted = ["lookup", "resolve_conversation"] if names is None else names
    for call in (whole, streamed):
        assert ([each.name for each in call.tool_calls], call.completed) == (wanted, True)


def test_xai_counts_reasoning_beside(wire, read) -> None:
    usage = {
        "prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94},
    }  # fmt: skip
    assert read(wire.ok(completion({"content": "Hi"}, usage=usage))).usage == Usage(32, 103, None, 94)


def test_groq_tells_a_streams_usage_in_a_place_of_its_own(wire, read) -> None:
    told = {"id": "req_1", "usage": {"prompt_tokens": 18, "completion_tokens": 4, "total_tokens": 22}}
    stream = chunk({"content": "Hi"}) + chunk({}, "stop", x_groq=told) + DONE
    assert read(wire.stream(stream)).usage == Usage(18, 4, None, None)
