from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import orjson
import pytest

from sidecar.observer.apis.bedrock import API, BLOCKS_MAX
from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.wire.records import EndFlag

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.amazon.nova-pro-v1%3A0"
CALL_ID = "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q"
ASK = {
    "system": [{"text": "You help."}, {"cachePoint": {"type": "default"}}],
    "messages": [{"role": "user", "content": [{"text": "Close it."}]}],
}
TOOL = {"toolUse": {"toolUseId": CALL_ID, "name": "close_ticket", "input": {"ticket": "T-1"}}}
ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "I close it."}, TOOL]}},
    "stopReason": "tool_use",
    "usage": {
        "inputTokens": 30,
        "outputTokens": 628,
        "totalTokens": 658,
        "cacheReadInputTokens": 100,
        "cacheWriteInputTokens": 0,
    },
    "metrics": {"latencyMs": 1275},
}
REQUEST_ID = {"x-amzn-RequestId": "1bb4a9a8-7e37"}


def message(payload: Any, kind: str, message_type: str = "event") -> bytes:
    """One message of an AWS event stream, its headers of type string."""
    name = ":event-type" if message_type == "event" else ":exception-type"
    headers = b""
    for key, value in {name: kind, ":content-type": "application/json", ":message-type": message_type}.items():
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = orjson.dumps(payload)
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    raw = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return raw + struct.pack(">I", zlib.crc32(raw))


def chunk(value: Any) -> bytes:
    return message({"bytes": base64.b64encode(orjson.dumps(value)).decode(), "p": "abcdefgh"}, "chunk")


MESSAGES = [
    message({"role": "assistant", "p": "abcd"}, "messageStart"),
    message({"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Solved."}}}, "contentBlockDelta"),
    message({"contentBlockIndex": 0}, "contentBlockStop"),
    message({"contentBlockIndex": 1, "delta": {"text": "I close "}, "p": "ab"}, "contentBlockDelta"),
    message({"contentBlockIndex": 1, "delta": {"text": "it."}}, "contentBlockDelta"),
    message({"contentBlockIndex": 1}, "contentBlockStop"),
    message(
        {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": CALL_ID, "name": "close_ticket"}}},
        "contentBlockStart",
    ),
    message({"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"ticket": '}}}, "contentBlockDelta"),
    message({"contentBlockIndex": 2, "delta": {"toolUse": {"input": '"T-1"}'}}}, "contentBlockDelta"),
    message({"contentBlockIndex": 2}, "contentBlockStop"),
    message({"stopReason": "tool_use"}, "messageStop"),
    message({"usage": ANSWER["usage"], "metrics": {"latencyMs": 1}}, "metadata"),
]
SAID = Call(
    api="bedrock",
    model=MODEL,
    turns=(Turn("system", "You help."), Turn("user", "Close it.")),
    reply="I close it.",
    tool_calls=(ToolCall(CALL_ID, "close_ticket", {"ticket": "T-1"}),),
    usage=Usage(130, 628, 100),
    finish_reason="tool_use",
    response_id="1bb4a9a8-7e37",
    completed=True,
)


@pytest.fixture
def read(wire):
    def read(method: str, request: Any, answer: bytes, flags: int = 0) -> Call:
        return API.read(
            wire.exchange(wire.post(f"/model/{MODEL.replace(':', '%3A')}/{method}", request), answer, flags)
        )

    return read


@pytest.fixture
def streamed(wire):
    def streamed(*messages: bytes) -> bytes:
        return wire.ok(b"".join(messages), {"Content-Type": "application/vnd.amazon.eventstream"} | REQUEST_ID)

    return streamed


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (f"/model/{MODEL}/converse", True),
        (f"/model/{ARN}/converse-stream", True),
        (f"/bedrock/model/{MODEL}/invoke", True),
        (f"/model/{MODEL}/invoke-with-response-stream", True),
        (f"/model/{MODEL}/count-tokens", False),
        ("/invoke", False),
        (f"/guardrail/{MODEL}/apply", False),
    ],
)
def test_it_is_known_by_its_path(wire, path: str, known: bool) -> None:
    assert API.recognises(wire.exchange(wire.post(path, ASK))) is known


def test_converse(wire, read, streamed) -> None:
    assert read("converse", ASK, wire.ok(ANSWER, REQUEST_ID)) == SAID
    call = read("converse-stream", ASK, streamed(*MESSAGES))
    assert call.answer["stopReason"] == "tool_use"
    for name in SAID.__slots__:
        if name != "answer":
            assert getattr(call, name) == getattr(SAID, name), name


def test_the_model_of_an_arn(wire) -> None:
    call = API.read(wire.exchange(wire.post(f"/model/{ARN}/converse", ASK), wire.ok(ANSWER)))
    assert call.model == "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-pro-v1:0"


def test_a_stream_cut_anywhere(wire, read, streamed) -> None:
    for kept in range(len(MESSAGES) + 1):
        call = read("converse-stream", ASK, streamed(*MESSAGES[:kept]), EndFlag.ABORTED_BY_ORIGIN)
        assert call.completed is (kept >= 11), kept
        assert SAID.reply.startswith(call.reply)
    body = b"".join(MESSAGES)
    for at in range(0, len(body), 13):
        assert SAID.reply.startswith(read("converse-stream", ASK, streamed(body[:at])).reply)


def test_roles_and_results(wire, read) -> None:
    image = {"image": {"format": "png", "source": {"bytes": "iVBO"}}}
    result = {"toolResult": {"toolUseId": CALL_ID, "content": [{"text": "closed"}, {"json": {}}], "status": "success"}}
    request = {
        "messages": [
            {"role": "user", "content": [{"text": "This:"}, image]},
            {"role": "assistant", "content": [TOOL]},
            {"role": "user", "content": [result]},
        ]
    }
    call = read("converse", request, wire.ok(ANSWER))
    assert [(turn.role, turn.text, len(turn.media)) for turn in call.turns] == [
        ("user", "This:", 1),
        ("assistant", "", 0),
        ("tool", "closed", 0),
    ]
    assert call.tool_results == (CALL_ID,)


ANTHROPIC = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "Close it."}],
}
ANTHROPIC_EVENTS = [
    {"type": "message_start", "message": {"id": "msg_bdrk_01", "model": "claude", "usage": {"input_tokens": 9}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Closed."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 4}},
]


def test_invoke_anthropic(wire, read, streamed) -> None:
    body = {
        "id": "msg_bdrk_01",
        "model": "claude",
        "content": [{"type": "text", "text": "Closed."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    whole = read("invoke", ANTHROPIC, wire.ok(body))
    stream = read("invoke-with-response-stream", ANTHROPIC, streamed(*map(chunk, ANTHROPIC_EVENTS)))
    assert whole == stream
    assert (whole.reply, whole.usage, whole.response_id, whole.completed) == (
        "Closed.",
        Usage(9, 4),
        "msg_bdrk_01",
        True,
    )
    cut = read("invoke-with-response-stream", ANTHROPIC, streamed(*map(chunk, ANTHROPIC_EVENTS[:4])))
    assert (cut.reply, cut.completed) == ("Closed.", False)


def test_invoke_chat_completions(wire, read, streamed) -> None:
    request = {"messages": [{"role": "user", "content": "Close it."}], "max_tokens": 10}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Closed."}, "finish_reason": "stop"}
    whole = read(
        "invoke", request, wire.ok({"id": "chatcmpl-1", "model": "openai.gpt-oss-120b-1:0", "choices": [choice]})
    )
    deltas = [{"delta": {"content": "Clo"}}, {"delta": {"content": "sed."}}, {"delta": {}, "finish_reason": "stop"}]
    chunks = [chunk({"id": "chatcmpl-1", "model": "openai.gpt-oss-120b-1:0", "choices": [each]}) for each in deltas]
    assert whole == read("invoke-with-response-stream", request, streamed(*chunks))
    assert (whole.reply, whole.completed, whole.turns) == ("Closed.", True, (Turn("user", "Close it."),))


def test_invoke_nova(wire, read, streamed) -> None:
    whole = read("invoke", ASK | {"schemaVersion": "messages-v1"}, wire.ok(ANSWER, REQUEST_ID))
    assert whole == SAID
    kinds = ("messageStart", "contentBlockDelta", "messageStop", "metadata")
    events = (
        {},
        {"contentBlockIndex": 0, "delta": {"text": "Hi"}},
        {"stopReason": "end_turn"},
        {"usage": {"inputTokens": 0}},
    )
    chunks = [chunk({kind: event}) for kind, event in zip(kinds, events, strict=True)]
    call = read("invoke-with-response-stream", ASK, streamed(*chunks))
    assert (call.reply, call.completed, call.usage) == ("Hi", True, Usage(0))


@pytest.mark.parametrize(
    ("request_body", "answer"),
    [
        ({"prompt": "Hi"}, {"generation": "Hello", "prompt_token_count": 1, "stop_reason": "stop"}),
        ({"prompt": "Hi"}, {"outputs": [{"text": "Hello", "stop_reason": "stop"}]}),
        ({"inputText": "Hi"}, {"results": [{"tokenCount": 2, "outputText": "Hello", "completionReason": "FINISH"}]}),
        ({"message": "Hi"}, {"text": "Hello", "generation_id": "g", "finish_reason": "COMPLETE"}),
        ({"prompt": "Hi"}, {"completions": [{"data": {"text": "Hello"}, "finishReason": {"reason": "endoftext"}}]}),
    ],
)
def test_invoke_with_a_prompt(wire, read, request_body: Any, answer: Any) -> None:
    headers = {"X-Amzn-Bedrock-Input-Token-Count": "3", "X-Amzn-Bedrock-Output-Token-Count": "0"}
    call = read("invoke", request_body, wire.ok(answer, headers))
    assert (call.turns, call.reply, call.usage) == ((Turn("user", "Hi"),), "Hello", Usage(3, 0))
    assert call.completed is (call.finish_reason is not None)


def test_invoke_with_a_prompt_streamed(read, streamed) -> None:
    pieces: list[dict[str, Any]] = [{"generation": "Hel"}, {"generation": "lo", "stop_reason": "stop"}]
    pieces[1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 3, "outputTokenCount": 2}
    call = read("invoke-with-response-stream", {"prompt": "Hi"}, streamed(*map(chunk, pieces)))
    assert (call.reply, call.completed, call.usage) == ("Hello", True, Usage(3, 2))


def test_failures(wire, read, streamed) -> None:
    kind = {"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/coral/"}
    assert read("converse", ASK, wire.answer(429, {"message": "words"}, kind)).error == "ThrottlingException"
    assert read("invoke", ANTHROPIC, wire.answer(400, {"message": "words"}, kind)).error == "ThrottlingException"
    assert read("converse", ASK, wire.answer(503, b"")).error == "http_503"
    assert read("converse", ASK, b"").error == "no_response"
    broken = message({"message": "words"}, "modelStreamErrorException", "exception")
    call = read("converse-stream", ASK, streamed(*MESSAGES[:5], broken))
    assert (call.completed, call.error, call.reply) == (False, "modelStreamErrorException", "I close it.")


def test_a_flood_of_blocks_is_bounded(read, streamed) -> None:
    flood = [
        message({"contentBlockIndex": n, "delta": {"text": "x"}}, "contentBlockDelta") for n in range(BLOCKS_MAX + 5)
    ]
    call = read("converse-stream", ASK, streamed(*flood, MESSAGES[10]))
    assert (len(call.reply), call.overflow) == (BLOCKS_MAX, True)


def test_wrong_types_never_raise(survives) -> None:
    words = (
        "messages role content text toolUse toolUseId name input toolResult system output message stopReason usage "
        "inputTokens contentBlockIndex delta start bytes type choices anthropic_version prompt generation outputs data "
        "contentBlockDelta metadata message_start content_block amazon-bedrock-invocationMetrics stop_reason"
    )
    for method in ("converse", "invoke"):
        survives(API, f"/model/m/{method}", words, {"application/json": lambda data: data})
    stream = "application/vnd.amazon.eventstream"
    kinds = ("contentBlockDelta", "contentBlockStart", "metadata", "messageStop")
    frames = {f"{stream}; k={kind}": _framed(kind) for kind in kinds}
    survives(API, "/model/m/converse-stream", words, frames)
    survives(API, "/model/m/invoke-with-response-stream", words, {stream: lambda data: chunk(orjson.loads(data))})


def _framed(kind: str):
    return lambda data: message(orjson.loads(data), kind)


def test_guarded_texts_and_texts_with_citations_are_texts(wire) -> None:
    guarded = {"guardContent": {"text": {"text": "Close it.", "qualifiers": ["query"]}}}
    cited = {"citationsContent": {"content": [{"text": "It is "}, {"text": "closed."}], "citations": []}}
    asked = {"messages": [{"role": "user", "content": [guarded]}, {"role": "assistant", "content": [cited]}]}
    answer = {
        "output": {"message": {"role": "assistant", "content": [cited, {"text": " Bye."}]}},
        "stopReason": "end_turn",
    }
    call = API.read(wire.exchange(wire.post("/model/m/converse", asked), wire.ok(answer)))
    assert call.turns == (Turn("user", "Close it."), Turn("assistant", "It is closed."))
    assert call.reply == "It is closed. Bye."


def test_what_changes_the_tools_is_no_media(wire) -> None:
    blocks = [{"text": "Hi"}, {"toolAddition": {"tools": []}}, {"toolRemoval": {"names": ["a"]}}]
    call = API.read(wire.exchange(wire.post("/model/m/converse", {"messages": [{"role": "user", "content": blocks}]})))
    assert call.turns == (Turn("user", "Hi"),)


def test_chunks_that_stand_for_too_much_are_not_read(wire) -> None:
    big = orjson.dumps({"a": [0] * 600_000})
    inner = [base64.b64encode(big).decode()] * 2
    body = b"".join(message({"bytes": each}, "chunk") for each in inner) + chunk({"completion": "Hi"})
    headers = {"Content-Type": "application/vnd.amazon.eventstream"}
    path = "/model/m/invoke-with-response-stream"
    call = API.read(wire.exchange(wire.post(path, {"prompt": "Hi"}), wire.ok(body, headers)))
    assert (call.overflow, call.completed, call.reply) == (True, False, "")


def test_a_call_that_the_token_limit_cut_off_was_not_asked_for(wire, read) -> None:
    blocks = [{"toolUse": {"toolUseId": f"t{n}", "name": "look", "input": {}}} for n in range(2)]
    for reason, number in {"max_tokens": 1, "guardrail_intervened": 0, "tool_use": 2}.items():
        answer = {"output": {"message": {"role": "assistant", "content": blocks}}, "stopReason": reason}
        assert len(read("converse", {"messages": []}, wire.ok(answer)).tool_calls) == number
