"""boto3 with a local endpoint against an origin that records both directions; botocore made the frames' format."""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import boto3
import orjson
import pytest
from botocore.config import Config
from recording import Answer, chunked, origin, whole

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CALL_ID = "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q"
TOOL = {"toolUse": {"toolUseId": CALL_ID, "name": "close_ticket", "input": {"ticket": "T-1"}}}
USAGE = {
    "inputTokens": 30,
    "outputTokens": 6,
    "totalTokens": 36,
    "cacheReadInputTokens": 100,
    "cacheWriteInputTokens": 0,
}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "I close it."}, TOOL]}},
    "stopReason": "tool_use",
    "usage": USAGE,
    "metrics": {"latencyMs": 1},
}
ANTHROPIC: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_bdrk_01", "model": "claude", "usage": {"input_tokens": 9}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Closed."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 4}},
]


def message(payload: Any, kind: str) -> bytes:
    headers = b""
    for key, value in {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}.items():
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = orjson.dumps(payload)
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    raw = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return raw + struct.pack(">I", zlib.crc32(raw))


def events(*messages: tuple[str, Any]) -> Answer:
    pieces = [message(payload, kind) for kind, payload in messages]
    return chunked(pieces, "application/vnd.amazon.eventstream", "x-amzn-RequestId: 1bb4a9a8\r\n")


def converse_events() -> Iterator[tuple[str, Any]]:
    yield "messageStart", {"role": "assistant"}
    for piece in ("I close ", "it."):
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield (
        "contentBlockStart",
        {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": CALL_ID, "name": "close_ticket"}}},
    )
    for piece in ('{"ticket"', ': "T-1"}'):
        yield "contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": piece}}}
    yield "contentBlockStop", {"contentBlockIndex": 1}
    yield "messageStop", {"stopReason": "tool_use"}
    yield "metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}


def client(url: str) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )


def converse(url: str, *, streams: bool) -> str:
    request: dict[str, Any] = {
        "modelId": MODEL,
        "system": [{"text": "You help."}],
        "messages": [{"role": "user", "content": [{"text": "Close it."}]}],
    }
    if not streams:
        answer = client(url).converse(**request)
        return str(answer["output"]["message"]["content"][0]["text"])
    told = client(url).converse_stream(**request)["stream"]
    return "".join(each.get("contentBlockDelta", {}).get("delta", {}).get("text", "") for each in told)


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_converse(streams: bool) -> None:
    answer = events(*converse_events()) if streams else whole(CONVERSE, extra="x-amzn-RequestId: 1bb4a9a8\r\n")
    async with origin(answer) as server:
        text = await asyncio.to_thread(converse, server.url, streams=streams)
    (call,) = server.calls()
    assert call.reply == text == "I close it."
    assert (call.model, call.response_id, call.finish_reason, call.completed) == (MODEL, "1bb4a9a8", "tool_use", True)
    (seen,) = call.tool_calls
    assert (seen.id, seen.name, seen.arguments) == (CALL_ID, "close_ticket", {"ticket": "T-1"})
    assert (call.usage.input, call.usage.output, call.usage.cached) == (130, 6, 100)
    assert [turn.role for turn in call.turns] == ["system", "user"]
    (observed,) = server.observations()
    assert [effect.rule for effect in observed.effects] == ["close_ticket"]


def invoke(url: str, *, streams: bool) -> list[dict[str, Any]]:
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    if not streams:
        return [orjson.loads(client(url).invoke_model(modelId=MODEL, body=orjson.dumps(body))["body"].read())]
    told = client(url).invoke_model_with_response_stream(modelId=MODEL, body=orjson.dumps(body))["body"]
    return [orjson.loads(each["chunk"]["bytes"]) for each in told]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_invoke_model(streams: bool) -> None:
    body = ANTHROPIC[0]["message"] | {
        "content": [{"type": "text", "text": "Closed."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    chunks = (("chunk", {"bytes": base64.b64encode(orjson.dumps(each)).decode(), "p": "abc"}) for each in ANTHROPIC)
    async with origin(events(*chunks) if streams else whole(body)) as server:
        told = await asyncio.to_thread(invoke, server.url, streams=streams)
    assert told == (ANTHROPIC if streams else [body])
    (call,) = server.calls()
    assert (call.reply, call.completed, call.response_id) == ("Closed.", True, "msg_bdrk_01")
    assert (call.usage.input, call.usage.output) == (9, 4)
    assert [turn.text for turn in call.turns] == ["Hi"]
