from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.call import Call, ToolCall, Turn, Usage
from sidecar.observer.apis.gemini_interactions import API, STEPS_MAX
from sidecar.wire.records import EndFlag

PATH = "/v1beta/interactions"
GOOGLE = {"x-goog-api-key": "k"}
ASK = {"model": "gemini-3-flash", "input": "Close it.", "system_instruction": "You help."}
CALL = {"type": "function_call", "id": "call_a1", "name": "close_ticket", "arguments": {"ticket": "T-1"}}
SAID = {"type": "model_output", "content": [{"type": "text", "text": "I close it."}]}
USAGE = {
    "total_input_tokens": 20,
    "total_cached_tokens": 8,
    "total_output_tokens": 7,
    "total_thought_tokens": 30,
    "total_tool_use_tokens": 0,
    "total_tokens": 57,
}


def interaction(*steps: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body = {"id": "v1_abc", "object": "interaction", "model": "gemini-3-flash", "status": "requires_action"}
    return body | {"usage": USAGE, "steps": list(steps)} | changes


WHOLE = interaction({"type": "thought", "signature": "x"}, SAID, CALL)
EVENTS: list[dict[str, Any]] = [
    {"event_type": "interaction.created", "interaction": {"id": "v1_abc", "status": "in_progress"}},
    {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
    {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "I close "}},
    {"event_type": "step.start", "index": 1, "step": CALL | {"arguments": {}}},
    {"event_type": "step.delta", "index": 1, "delta": {"type": "arguments_delta", "arguments": '{"ticket"'}},
    {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "it."}},
    {"event_type": "step.delta", "index": 1, "delta": {"type": "arguments_delta", "arguments": ': "T-1"}'}},
    {"event_type": "step.stop", "index": 1},
    {
        "event_type": "interaction.completed",
        "interaction": {"id": "v1_abc", "model": "gemini-3-flash", "status": "requires_action", "usage": USAGE},
    },
]
EXPECTED = Call(
    api="gemini.interactions",
    model="gemini-3-flash",
    turns=(Turn("system", "You help."), Turn("user", "Close it.")),
    reply="I close it.",
    tool_calls=(ToolCall("call_a1", "close_ticket", {"ticket": "T-1"}),),
    usage=Usage(20, 37, 8, 30),
    finish_reason="requires_action",
    response_id="v1_abc",
    completed=True,
)


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["event_type"].encode(), orjson.dumps(e)) for e in events)


def test_a_whole_answer(wire) -> None:
    exchange = wire.exchange(wire.post(PATH, ASK, GOOGLE), wire.ok(WHOLE))
    assert API.recognises(exchange)
    assert API.read(exchange) == EXPECTED


def test_a_stream_says_the_same(wire) -> None:
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.stream(sse(*EVENTS) + b"data: [DONE]\n\n")))
    assert call.answer["steps"][1] == CALL
    assert call == Call(**{name: getattr(EXPECTED, name) for name in EXPECTED.__slots__} | {"answer": call.answer})


@pytest.mark.parametrize("at", range(1, len(EVENTS)))
def test_a_cut_stream_is_not_complete(wire, at: int) -> None:
    raw = wire.exchange(wire.post(PATH, ASK), wire.stream(sse(*EVENTS[:at]), whole=False), EndFlag.ABORTED_BY_CLIENT)
    assert not API.read(raw).completed


@pytest.mark.parametrize(
    ("given", "turns", "results"),
    [
        ("Hi", [Turn("user", "Hi")], ()),
        ({"type": "text", "text": "Hi"}, [Turn("user", "Hi")], ()),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], [Turn("user", "a\nb")], ()),
        (
            [{"role": "user", "content": "Hi"}, {"role": "model", "content": [{"type": "text", "text": "Yes?"}]}],
            [Turn("user", "Hi"), Turn("assistant", "Yes?")],
            (),
        ),
        (
            [
                {"type": "user_input", "content": [{"type": "text", "text": "Close it."}]},
                {"type": "thought", "signature": "x"},
                CALL,
                {"type": "function_result", "call_id": "call_a1", "result": [{"type": "text", "text": "closed"}]},
                SAID,
            ],
            [Turn("user", "Close it."), Turn("tool", "closed"), Turn("assistant", "I close it.")],
            ("call_a1",),
        ),
        ([{"type": "function_result", "call_id": "call_a1", "result": {"ok": 1}}], [Turn("tool", "")], ("call_a1",)),
    ],
)
def test_every_form_of_input(wire, given: Any, turns: list[Turn], results: tuple[str, ...]) -> None:
    call = API.read(wire.exchange(wire.post(PATH, {"model": "m", "input": given})))
    assert (list(call.turns), call.tool_results) == (turns, results)


def test_an_image_is_media(wire) -> None:
    image = {"type": "image", "data": "UklGRg", "mime_type": "image/png"}
    (turn,) = API.read(wire.exchange(wire.post(PATH, {"model": "m", "input": [image]}))).turns
    assert (turn.role, turn.text, len(turn.media)) == ("user", "", 1)


def test_what_google_runs_is_a_call_by_its_kind(wire) -> None:
    search = {"type": "google_search_call", "id": "s-1", "arguments": {"queries": ["order"]}}
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.ok(interaction(search, status="completed"))))
    assert call.tool_calls == (ToolCall("s-1", "google_search", {"queries": ["order"]}),)


def test_a_look_at_one_is_not_counted_again(wire) -> None:
    exchange = wire.exchange(wire.get(f"{PATH}/v1_abc", GOOGLE), wire.ok(WHOLE))
    assert API.recognises(exchange)
    call = API.read(exchange)
    assert (call.previous_response_id, call.usage, call.llm_call) == ("v1_abc", Usage(), False)
    assert (call.tool_calls, call.completed) == (EXPECTED.tool_calls, True)


def test_going_on(wire) -> None:
    call = API.read(wire.exchange(wire.post(PATH, ASK | {"previous_interaction_id": "v1_before"})))
    assert call.previous_response_id == "v1_before"


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (interaction(status="failed"), 200, "failed"),
        (interaction(status="cancelled"), 200, "cancelled"),
        ({"error": {"code": "invalid_request", "message": "no"}}, 400, "invalid_request"),
        (interaction(status="in_progress"), 200, None),
    ],
)
def test_what_is_no_answer(wire, body: dict[str, Any], status: int, error: str | None) -> None:
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.answer(status, body)))
    assert (call.completed, call.error) == (False, error)


def test_an_error_in_the_middle_of_a_stream(wire) -> None:
    failed = {"event_type": "error", "error": {"code": "overloaded", "message": "later"}}
    call = API.read(wire.exchange(wire.post(PATH, ASK), wire.stream(sse(*EVENTS[:3], failed))))
    assert (call.completed, call.error, call.reply) == (False, "overloaded", "I close ")


@pytest.mark.parametrize(
    ("path", "body", "headers", "known"),
    [
        (PATH, {"input": "Hi", "agent": "deep-research"}, {}, True),
        ("/v1beta1/projects/p/locations/l/interactions", ASK, {}, True),
        (f"{PATH}/v1_abc/cancel", {}, GOOGLE, True),
        (f"{PATH}/v1_abc/cancel", {}, {}, False),
        (PATH, {"text": "a product's own"}, {}, False),
    ],
)
def test_it_is_known_by_path_and_body(wire, path: str, body: Any, headers: dict[str, str], known: bool) -> None:
    assert API.recognises(wire.exchange(wire.post(path, body, headers))) is known


def test_steps_are_bounded(wire) -> None:
    starts = ({"event_type": "step.start", "index": n, "step": SAID} for n in range(STEPS_MAX + 1))
    assert API.read(wire.exchange(wire.post(PATH, ASK), wire.stream(sse(*starts, EVENTS[-1])))).overflow


def test_anything_is_survived(survives, sse) -> None:
    words = (
        "input model agent steps type function_call function_result model_output user_input text content arguments id "
        "name call_id result event_type step.start step.delta interaction.completed interaction step delta index "
        "status arguments_delta error usage role completed"
    )
    survives(API, PATH, words, {"application/json": lambda data: data, "text/event-stream": sse})
