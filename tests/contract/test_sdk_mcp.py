"""The official MCP SDK's client against a recording origin, with a session and, in the newer revision, without."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from mcp.client import Client
from recording import Answer, origin, stream, whole

from sidecar.wire.message import Message

TOOL = {"name": "close_ticket", "inputSchema": {"type": "object", "properties": {"ticket": {"type": "string"}}}}
RESULT = {"content": [{"type": "text", "text": "closed"}], "isError": False}
SESSION = "1868a90c-7e37-4b5b-a5fc-1d8e3a1a0d3b"


def server_of(*, modern: bool, streams: bool) -> Answer:
    """A server with one tool; the older revision opens a session, the newer one is asked what it is."""

    def result_of(method: str) -> dict[str, Any] | None:
        info = {"name": "desk", "version": "1"}
        complete = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if modern else {}
        if method == "initialize" and not modern:
            return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        if method == "server/discover" and modern:
            about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "serverInfo": info}
            return about | complete
        return {"tools/list": {"tools": [TOOL]} | complete, "tools/call": RESULT | complete}.get(method)

    def answer(request: Message) -> bytes:
        if request.method != "POST":
            return whole(None, 405)(request)
        body = orjson.loads(request.body)
        if "id" not in body:
            return whole(None, 202)(request)
        extra = "" if modern else f"Mcp-Session-Id: {SESSION}\r\n"
        result = result_of(body["method"])
        reply = {"jsonrpc": "2.0", "id": body["id"]}
        if result is None:
            return whole(reply | {"error": {"code": -32601, "message": "no such method"}}, 404 if modern else 200)(
                request
            )
        if streams and body["method"] == "tools/call":
            return stream(("message", reply | {"result": result}))(request)
        return whole(reply | {"result": result}, extra=extra)(request)

    return answer


@pytest.mark.parametrize("streams", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("modern", [False, True], ids=["session", "stateless"])
async def test_a_tool_call(modern: bool, streams: bool) -> None:
    async with origin(server_of(modern=modern, streams=streams)) as server, Client(f"{server.url}/mcp") as client:
        result = await client.call_tool("close_ticket", {"ticket": "T-1"})
    assert result.content[0].text == "closed"
    calls = server.calls()
    assert {call.api for call in calls} == {"mcp"}
    (found,) = [number for number, call in enumerate(calls) if call.tool_calls]
    (tool_call,) = calls[found].tool_calls
    assert (tool_call.name, tool_call.arguments) == ("close_ticket", {"ticket": "T-1"})
    assert tool_call.id.partition(":")[0] == ("" if modern else SESSION)
    assert calls[found].completed
    head = server.exchanges[found][0].lower()
    assert (b"mcp-method: tools/call" in head) is modern
    assert (b"mcp-session-id:" in head) is not modern
    seen = server.observations()
    assert all(each.llm_calls == 0 for each in seen)
    # Without a session, and without an id of the deployment's own, a tool call belongs to nothing that is known.
    assert [each.conversation for each in seen if each.tool_calls] == ([] if modern else [SESSION])
