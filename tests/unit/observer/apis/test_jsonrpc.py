from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.jsonrpc import MESSAGES_MAX, asked, failure, method_of, said

ASK = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}
NOTE = {"jsonrpc": "2.0", "method": "notifications/progress"}
ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize(
    ("body", "method", "count"),
    [
        (ASK, "tools/call", 1),
        ([NOTE, ASK, "no message", ANSWER], "notifications/progress", 2),
        ({"method": "ping"}, "", 1),
        (ANSWER, "", 0),
        ("text", "", 0),
        ([ASK] * (MESSAGES_MAX + 5), "tools/call", MESSAGES_MAX),
    ],
)
def test_what_was_asked(wire, body: Any, method: str, count: int) -> None:
    exchange = wire.exchange(wire.post("/mcp", body))
    assert (method_of(exchange), len(asked(exchange))) == (method, count)


def test_a_get_asks_nothing(wire) -> None:
    assert method_of(wire.exchange(wire.get("/mcp"))) == ""


def test_what_was_said(wire) -> None:
    stream = b"".join(b"event: message\ndata: %s\n\n" % orjson.dumps(each) for each in (NOTE, ANSWER))
    assert said(wire.exchange(wire.post("/", ASK), wire.stream(stream))) == ([NOTE, ANSWER], False)
    assert said(wire.exchange(wire.post("/", ASK), wire.ok(ANSWER))) == ([ANSWER], False)
    assert said(wire.exchange(wire.post("/", ASK), wire.ok([NOTE, ANSWER]))) == ([NOTE, ANSWER], False)
    assert said(wire.exchange(wire.post("/", ASK))) == ([], False)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ANSWER, None),
        ({"error": {"code": -32602, "message": "words"}}, "rpc_-32602"),
        ({"error": {"code": "words of somebody"}}, "http_200"),
        ({"error": {"code": 1 << 40}}, "http_200"),
        ({"error": "words"}, "http_200"),
    ],
)
def test_failures(wire, answer: Any, code: str | None) -> None:
    assert failure(wire.exchange(wire.post("/", ASK), wire.ok(answer)), answer) == code
