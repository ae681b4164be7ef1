from __future__ import annotations

import random
import string
from typing import Any

import pytest

from sidecar.identity import Key, key, session_base
from sidecar.observer.apis.call import Call, ToolCall
from sidecar.observer.locators import parse_locators
from sidecar.observer.stitch import (
    API_CONVERSATION,
    EXPLICIT_IDS_MAX,
    HANDED_ON_IDS_MAX,
    KNOWN_IDS,
    Stitcher,
    is_telling,
)

HASH_KEY = b"k" * 32
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
CALL_ID = "call_9hRzq4WkqXvS2Yd8LfB3TnMe"


def conversation(value: str) -> Key:
    return key("acme", "conversation", value)


@pytest.fixture
def stitcher() -> Stitcher:
    return Stitcher("acme", parse_locators(""), HASH_KEY)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Sidecar-Session-Id": "c 1"},
        {"X-Acme-Session-Id": "abcd-1234"},
        {"Session-Id": "c1"},
        {"session_id": "c1"},
        {"Thread-Id": "c1"},
        {"conversation_id": "c1"},
        {"X-Session-Id": "c1"},
        {"Helicone-Session-Id": "c1"},
        {"x-litellm-session-id": "c1"},
        {"x-litellm-trace-id": "c1"},
        {"x-portkey-trace-id": "c1"},
        {"X-OpenWebUI-Chat-Id": "c1"},
        {"x-claude-code-session-id": "c1"},
        {"Mcp-Session-Id": "c1"},
        {"X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": "c1"},
        {"baggage": "session.id=c1"},
    ],
)
def test_known_headers(wire, stitcher: Stitcher, headers: dict[str, str]) -> None:
    value = next(iter(headers.values())).removeprefix("session.id=")
    stitch = stitcher.stitch(wire.exchange(wire.get("/any", headers)), None)
    assert stitch.conversation == value
    assert stitch.keys == (conversation(value),)
    assert stitch.base == session_base("acme", "conversation", value)


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"session_id": "c1"}},
        {"metadata": {"conversation_id": "c1"}},
        {"litellm_session_id": "c1"},
        {"session_id": "c1"},
        {"sessionId": "c1"},
        {"conversation": "c1"},
        {"conversation": {"id": "c1"}},
        {"conversation_id": "c1"},
        {"conversationId": "c1"},
        {"thread_id": "c1"},
        {"threadId": "c1"},
        {"contextId": "c1"},
        {"jsonrpc": "2.0", "method": "message/send", "params": {"message": {"contextId": "c1"}}},
    ],
)
def test_known_body_fields(wire, stitcher: Stitcher, body: dict[str, Any]) -> None:
    assert stitcher.stitch(wire.exchange(wire.post("/agent", body)), None).conversation == "c1"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/v1/threads/thread_abc123/runs", "thread_abc123"),
        ("/api/conversations/42", "42"),
        ("/sessions/7f8d/messages?x=1", "7f8d"),
        ("/threads/abcdefghijklmnopqrstuvwx", "abcdefghijklmnopqrstuvwx"),
        ("/v1/threads/runs", None),
        ("/v1/threads", None),
        ("/sessions/v2/list", None),
        ("/sessions/v1beta1/list", None),
        ("/conversations/search", None),
        ("/v1/conversations/batchGetConversations", None),
        ("/v1/threads/create_and_run_sync", None),
        ("/v1/conversations/search-conversations", None),
        ("/api/sessions/current2", None),
        ("/sessions/550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        ("/sessions/fabeadde-dead-beef-cafe-abcdefabcdef", "fabeadde-dead-beef-cafe-abcdefabcdef"),
        ("/threads/thread_QxVbRtYpLkJhGfDsAzQw", "thread_QxVbRtYpLkJhGfDsAzQw"),
        ("/conversations/conv-1", "conv-1"),
        ("/conversations/a%201", None),
    ],
)
def test_known_paths(wire, stitcher: Stitcher, path: str, value: str | None) -> None:
    assert stitcher.stitch(wire.exchange(wire.get(path)), None).conversation == value


@pytest.mark.parametrize(
    "headers",
    [
        {"x-parent-session-id": "abcd-1234"},
        {"x-acme-parent-session-id": "abcd-1234"},
        {"x-acme-session-id": "short"},
        {"x-acme-session-id": "two words"},
        {"x-acme-session-id": "abcd/1234"},
        {"acme-session-id": "abcd-1234"},
        {"x-request-id": "abcd-1234"},
    ],
)
def test_what_is_no_conversation(wire, stitcher: Stitcher, headers: dict[str, str]) -> None:
    assert stitcher.stitch(wire.exchange(wire.get("/any", headers)), None).conversation is None


def test_body_field_id_is_no_conversation(wire, stitcher: Stitcher) -> None:
    assert stitcher.stitch(wire.exchange(wire.post("/api", {"id": "abcd-1234"})), None).conversation is None


def test_the_session_id_that_a_server_gives_out(wire, stitcher: Stitcher) -> None:
    exchange = wire.exchange(wire.post("/mcp", {"method": "initialize"}), wire.ok({}, {"Mcp-Session-Id": "m1"}))
    assert stitcher.stitch(exchange, None).conversation == "m1"
    exchange = wire.exchange(wire.post("/a2a", {"method": "message/send"}), wire.ok({"result": {"contextId": "k1"}}))
    assert stitcher.stitch(exchange, None).conversation == "k1"


def test_precedence_and_all_become_keys(wire) -> None:
    headers = {
        "mcp-session-id": "mcp",
        "x-session-id": "plain",
        "x-b-session-id": "wild-bbbb",
        "x-a-session-id": "wild-aaaa",
        "session-id": "codex",
        "x-sidecar-session-id": "own",
        "x-ticket": "deployment",
        "baggage": "session.id=bag",
    }
    exchange = wire.exchange(wire.post("/threads/thread_1", {"sessionId": "own", "threadId": "thr"}, headers))
    stitch = Stitcher("acme", parse_locators("header:x-ticket"), HASH_KEY).stitch(exchange, None)
    order = ["deployment", "own", "wild-aaaa", "codex", "plain", "mcp", "thr", "bag"]
    assert stitch.keys == tuple(map(conversation, order))
    assert len(order) == EXPLICIT_IDS_MAX
    assert stitch.conversation == "deployment"


def test_ids_are_scoped_by_tenant(wire, stitcher: Stitcher) -> None:
    exchange = wire.exchange(wire.get("/", {"x-session-id": "c1"}))
    other = Stitcher("other", parse_locators(""), HASH_KEY).stitch(exchange, None)
    own = stitcher.stitch(exchange, None)
    assert own.keys != other.keys
    assert own.base != other.base


def test_unusable_ids_are_counted(wire, stitcher: Stitcher) -> None:
    exchange = wire.exchange(wire.post("/", {"session_id": "x" * 300, "threadId": "t1"}))
    stitch = stitcher.stitch(exchange, None)
    assert (stitch.conversation, stitch.unusable) == ("t1", 1)


def test_more_ids_than_are_looked_at_are_counted(wire, stitcher: Stitcher) -> None:
    names = ("session-id", "thread-id", "x-session-id", "helicone-session-id", "x-litellm-session-id", "mcp-session-id")
    many = {name: f"c{n}" for n, name in enumerate(names)} | {"x-portkey-trace-id": "c7", "conversation_id": "c8"}
    whole = stitcher.stitch(wire.exchange(wire.post("/", {"sessionId": "c1"}, many)), None)
    assert (len(whole.keys), whole.over) == (EXPLICIT_IDS_MAX, ())  # c1 again is no other id
    more = stitcher.stitch(wire.exchange(wire.post("/", {"sessionId": "c9", "threadId": "c10"}, many)), None)
    assert (len(more.keys), more.over) == (EXPLICIT_IDS_MAX, ("session_keys_over",))


def test_more_tool_calls_than_are_looked_at_are_counted(wire, stitcher: Stitcher) -> None:
    ids = tuple(f"call_A1B2C3D4{n}" for n in range(HANDED_ON_IDS_MAX + 1))
    calls = tuple(ToolCall(each, "lookup", {}) for each in ids)
    exchange = wire.exchange(wire.post("/v1/chat/completions", {}))

    def over(results: tuple[str, ...], made: tuple[ToolCall, ...]) -> tuple[str, ...]:
        return stitcher.stitch(exchange, Call("x", tool_results=results, tool_calls=made, completed=True)).over

    assert over(ids[1:], calls[1:]) == ()
    assert over(ids, calls) == ("handed_on_ids_over", "made_ids_over")
    newest = stitcher.stitch(exchange, Call("x", tool_results=ids, completed=True)).keys
    assert (len(newest), newest[0]) == (HANDED_ON_IDS_MAX, key("acme", "tool_call", ids[-1]))


CALL = Call(
    "openai.chat",
    response_id="chatcmpl-1",
    tool_calls=(ToolCall(CALL_ID, "lookup", {}), ToolCall("call_0", "lookup", {}), ToolCall("", "old", {})),
    completed=True,
)


def test_with_an_explicit_id_weaker_ones_come_after_it(wire, stitcher: Stitcher) -> None:
    body = {"previous_response_id": "resp_0"}
    exchange = wire.exchange(wire.post("/v1/chat/completions", body, TRACEPARENT | {"x-session-id": "c1"}))
    call = Call(CALL.api, response_id=CALL.response_id, tool_calls=CALL.tool_calls, tool_results=("call_A1B2C3D4",),
                completed=True)  # fmt: skip
    stitch = stitcher.stitch(exchange, call)
    assert stitch.keys == (
        conversation("c1"),
        key("acme", "response", "resp_0"),
        key("acme", "tool_call", "call_A1B2C3D4"),
        key("acme", "trace", TRACE),
    )
    assert [each.source for each in stitch.keys] == ["header:x-session-id", "", "", ""]
    assert stitch.made == (key("acme", "response", "chatcmpl-1"), key("acme", "tool_call", CALL_ID))


def test_the_apis_own_id_of_the_conversation(wire, stitcher: Stitcher) -> None:
    exchange = wire.exchange(wire.post("/api/chat", {"id": "chat-1"}, {"baggage": "session.id=bag"}))
    stitch = stitcher.stitch(exchange, Call("vercel.ui", conversation="chat-1"))
    assert stitch.keys == (conversation("chat-1"), conversation("bag"))
    assert stitch.keys[0].source == API_CONVERSATION


def test_a_task_and_a_request_have_ids_of_their_own(wire, stitcher: Stitcher) -> None:
    headers = {
        "Idempotency-Key": "stainless-python-retry-c1f0b7a2-53d4-4a7e-9b1c-6d2e8f40a913",
        "amz-sdk-invocation-id": "1",
    }
    exchange = wire.exchange(wire.post("/a2a", {}, headers))
    stitch = stitcher.stitch(exchange, Call("a2a", task_id="task-9", previous_response_id="resp_1"))
    assert stitch.keys == (
        key("acme", "request", "stainless-python-retry-c1f0b7a2-53d4-4a7e-9b1c-6d2e8f40a913"),
        key("acme", "response", "resp_1"),
        key("acme", "response", "task-9"),
    )
    assert stitch.made == (key("acme", "response", "task-9"),)


def test_without_one_they_find_the_session_the_newest_first_and_the_trace_last(wire, stitcher: Stitcher) -> None:
    body = {"previous_response_id": "resp_0"}
    exchange = wire.exchange(wire.post("/v1/responses", body, TRACEPARENT), first=9, producer="q9")
    call = Call("x", tool_results=("toolu_01A09q90qw90lq91", "functions.lookup:0", CALL_ID), response_id="r1")
    stitch = stitcher.stitch(exchange, call)
    assert stitch.conversation is None
    assert stitch.keys == (
        key("acme", "response", "resp_0"),
        key("acme", "tool_call", CALL_ID),
        key("acme", "tool_call", "toolu_01A09q90qw90lq91"),
        key("acme", "trace", TRACE),
    )
    assert stitch.made == (key("acme", "response", "r1"),)
    assert stitch.base == session_base("acme", "observation", "q9", "9")


def test_tool_calls_of_a_cut_answer_are_not_made(wire, stitcher: Stitcher) -> None:
    cut = Call("x", tool_calls=CALL.tool_calls, completed=False)
    assert stitcher.stitch(wire.exchange(wire.get("/")), cut).made == ()


@pytest.mark.parametrize(
    ("identity", "telling"),
    [
        (CALL_ID, True),
        ("toolu_01A09q90qw90lq917835lq9", True),
        ("D681PevKs", True),
        ("550e8400-e29b-41d4-a716-446655440000", True),
        ("chatcmpl-tool-2fa0d5c1b8e64f", True),
        ("call_0", False),
        ("call_12345678", False),
        ("call_k3jx9qpl", True),
        ("call_9ab2d0qz", True),
        ("q7Xb2LmTz", True),
        ("web_search_1byjy32y4hvq", True),
        ("call_weather2", False),
        ("call_html2text", False),
        ("functions.text2sql:1", False),
        ("lookupOrder20251125", False),
        ("call_step12run", False),
        ("functions.get_weather:0", False),
        ("call_resolve_conversation_1", False),
        ("chatcmpl-123", False),
        ("chatcmpl-12345678", False),
        ("get_weather2forecast", False),
        ("getCustomerOrderStatus", False),
        ("setIdOfNewUserInDb", False),
        ("get-weather12", False),
        ("function-call-13570817468123456789", True),
        ("tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", True),
        ("", False),
        ("x" * 300, False),
    ],
)
def test_ids_that_could_be_met_twice_by_accident_say_nothing(
    wire, stitcher: Stitcher, identity: str, telling: bool
) -> None:
    call = Call("x", tool_results=(identity,))
    assert bool(stitcher.stitch(wire.exchange(wire.get("/")), call).keys) is telling


@pytest.mark.parametrize(
    ("alphabet", "length"),
    [
        (string.ascii_lowercase + string.digits, 8),  # Ollama
        (string.ascii_letters + string.digits, 9),  # Mistral
        (string.ascii_lowercase + string.digits, 12),
        (string.ascii_letters + string.digits, 24),
    ],
)
def test_most_random_ids_tell(alphabet: str, length: int) -> None:
    chance = random.Random(length)
    ids = ["call_" + "".join(chance.choices(alphabet, k=length)) for _ in range(1000)]
    assert sum(map(is_telling, ids)) > 600


@pytest.mark.parametrize(
    ("identity", "name", "telling"),
    [
        (CALL_ID, "call", True),
        (CALL_ID, "", True),
        ("q3_2024_A1B2C3D4_report", "q3_2024_A1B2C3D4_report", False),
        ("functions.q3_2024_A1B2C3D4_report:0", "q3_2024_A1B2C3D4_report", False),
        ("functions.q3_2024_A1B2C3D4_report:9hRzq4WkqXvS2Yd8", "q3_2024_A1B2C3D4_report", True),
    ],
)
def test_what_an_answer_calls_tells_by_more_than_the_name(
    wire, stitcher: Stitcher, identity: str, name: str, telling: bool
) -> None:
    call = Call("x", tool_calls=(ToolCall(identity, name, {}),), completed=True)
    assert bool(stitcher.stitch(wire.exchange(wire.get("/")), call).made) is telling


def test_handed_on_ids_are_bounded(wire, stitcher: Stitcher) -> None:
    call = Call("x", tool_results=tuple(f"call_9hRzq4WkqXvS{number:04}" for number in range(100)))
    keys = stitcher.stitch(wire.exchange(wire.get("/")), call).keys
    assert len(keys) == HANDED_ON_IDS_MAX
    assert keys[0] == key("acme", "tool_call", "call_9hRzq4WkqXvS0099")


@pytest.mark.parametrize(
    "value", ["", "00-0-0-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{TRACE}-00f067aa0ba902b7-01", "é"]
)
def test_broken_trace_parents(wire, stitcher: Stitcher, value: str) -> None:
    exchange = wire.exchange(wire.get("/", {"traceparent": value}))
    assert stitcher.stitch(exchange, Call("x")).keys == ()


def test_the_list_is_data() -> None:
    assert len(set(KNOWN_IDS)) == len(KNOWN_IDS)
    assert KNOWN_IDS[0] == "header:x-sidecar-session-id"
