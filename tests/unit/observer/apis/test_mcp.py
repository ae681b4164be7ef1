from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.call import Call, ToolCall
from sidecar.observer.apis.mcp import API
from sidecar.wire.records import EndFlag

SESSION = {"Mcp-Session-Id": "1868a90c-7e37-4b5b"}
STATELESS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "close_ticket"}
RESULT = {"content": [{"type": "text", "text": "closed"}], "isError": False}


def call(identity: Any = 2, name: str = "close_ticket", **arguments: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments or {"ticket": "T-1"}, "_meta": {"progressToken": 2}}
    return {"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": params}


def answer(result: Any = None, identity: Any = 2) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "result": RESULT if result is None else result}


def sse(*messages: Any) -> bytes:
    return b"".join(b"event: message\nid: 1\ndata: %s\n\n" % orjson.dumps(message) for message in messages)


PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 2, "progress": 1}}
ELICIT = {"jsonrpc": "2.0", "id": 2, "method": "elicitation/create", "params": {"message": "Sure?"}}


@pytest.fixture
def read(wire):
    def read(body: Any, response: bytes, headers: dict[str, str] | None = None, flags: int = 0) -> Call:
        return API.read(
            wire.exchange(wire.post("/mcp", body, SESSION if headers is None else headers), response, flags)
        )

    return read


@pytest.mark.parametrize(
    ("body", "headers", "known"),
    [
        (call(), {}, True),
        ({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}, {}, True),
        ({"jsonrpc": "2.0", "method": "notifications/initialized"}, {}, True),
        (b"", SESSION, True),
        (b"", STATELESS, True),
        ({"jsonrpc": "2.0", "id": 1, "method": "eth_call"}, {}, False),
        ({"id": 1, "method": "tools/call"}, {}, False),
    ],
)
def test_it_is_known_by_header_or_method(wire, body: Any, headers: dict[str, str], known: bool) -> None:
    assert API.recognises(wire.exchange(wire.post("/any/path", body, headers))) is known


def test_streams_and_ends_of_sessions_are_known(wire) -> None:
    for method in ("GET", "DELETE"):
        exchange = wire.exchange(wire.message(f"{method} /mcp HTTP/1.1", b"", SESSION), wire.ok(b""))
        assert API.recognises(exchange)
        seen = API.read(exchange)
        assert (seen.tool_calls, seen.opens, seen.error) == ((), False, None)
    first = wire.exchange(wire.post("/mcp", {"jsonrpc": "2.0", "id": 0, "method": "x"}), wire.ok({}, SESSION))
    assert API.recognises(first)


def test_a_call_answered_with_json(wire, read) -> None:
    expected = Call(
        api="mcp",
        tool_calls=(ToolCall("1868a90c-7e37-4b5b:2", "close_ticket", {"ticket": "T-1"}),),
        completed=True,
        answer=answer(),
        llm_call=False,
    )
    assert read(call(), wire.ok(answer())) == expected
    stateless = read(call("req-9"), wire.ok(answer(identity="req-9")), STATELESS)
    assert stateless.tool_calls == (ToolCall("", "close_ticket", {"ticket": "T-1"}),)


def test_a_call_answered_with_a_stream(wire, read) -> None:
    priming = b"id: 0\ndata: \n\n"
    seen = read(call(), wire.stream(priming + sse(PROGRESS, ELICIT, answer())))
    assert (len(seen.tool_calls), seen.completed, seen.answer) == (1, True, answer())


def test_a_stream_cut_anywhere(wire, read) -> None:
    body = sse(PROGRESS, answer())
    for at in range(0, len(body) + 1, 3):
        seen = read(call(), wire.stream(body[:at], whole=False), flags=EndFlag.ABORTED_BY_CLIENT)
        # The helper ends what it was given with an empty line: whole is what has all of its JSON.
        assert seen.completed is (at >= len(body) - 2), at
        assert len(seen.tool_calls) == int(seen.completed)


def test_a_call_that_failed_is_no_call(wire, read) -> None:
    failed = read(call(), wire.ok(answer({"content": [], "isError": True})))
    assert (failed.tool_calls, failed.error, failed.completed) == ((), "tool_error", True)
    unknown = {"jsonrpc": "2.0", "id": 2, "error": {"code": -32602, "message": "words"}}
    assert read(call(), wire.ok(unknown)).error == "rpc_-32602"
    assert read(call(), wire.answer(404, b"")).error == "http_404"
    assert read(call(), b"").error == "no_response"
    waiting = read(call(), wire.ok(answer({"resultType": "input_required", "inputRequests": {}})))
    assert (waiting.tool_calls, waiting.error) == ((), None)


def test_a_batch(wire, read) -> None:
    bodies = [call(1, "lookup"), PROGRESS, call(2), call("2", "other")]
    answers = [answer(identity=2), answer({"isError": True}, 1), answer(identity="2")]
    seen = read(bodies, wire.ok(answers))
    assert [each.name for each in seen.tool_calls] == ["close_ticket", "other"]
    assert (seen.error, seen.completed) == (None, True)
    assert not read(bodies, wire.ok(answers[:1])).completed


def test_a_notification_is_accepted(wire, read) -> None:
    seen = read(PROGRESS, wire.answer(202, b""))
    assert (seen.completed, seen.error, seen.tool_calls) == (True, None, ())


def test_wrong_types_never_raise(survives) -> None:
    words = "jsonrpc 2.0 id method params name arguments tools/call result error code isError resultType complete"
    survives(
        API, "/mcp", words, {"text/event-stream": lambda d: b"data: " + d + b"\n\n", "application/json": lambda d: d}
    )


@pytest.mark.parametrize("method", ["resources/unsubscribe", "subscriptions/listen", "tools/list"])
def test_methods_are_known_without_a_header(wire, method: str) -> None:
    assert API.recognises(wire.exchange(wire.post("/any", {"jsonrpc": "2.0", "id": 1, "method": method})))
