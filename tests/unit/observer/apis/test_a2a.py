from __future__ import annotations

from typing import Any

import orjson
import pytest

from sidecar.observer.apis.a2a import API, ARTIFACTS_MAX
from sidecar.observer.apis.call import Call, Turn
from sidecar.policy.loading import load_plan
from sidecar.wire.records import EndFlag

CONTEXT = "c295ea44-7543-4f78-b524-7a38915ad6e4"
TASK = "3f36680c-7f37-4a5f-945e-d78981fafd36"
MESSAGE = {"role": "user", "parts": [{"kind": "text", "text": "Close it."}], "messageId": "m-1", "kind": "message"}
NEW_MESSAGE = {"role": "ROLE_USER", "parts": [{"text": "Close it."}], "messageId": "m-1"}
V1 = {"A2A-Version": "1.0"}


def ask(method: str = "message/send", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "r-1", "method": method, "params": params or {"message": MESSAGE}}


def rpc(result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "r-1", "result": result}


def sse(*bodies: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(body) + b"\n\n" for body in bodies)


def task(state: str, **fields: Any) -> dict[str, Any]:
    return {"id": TASK, "contextId": CONTEXT, "status": {"state": state}, "kind": "task"} | fields


def status(state: str, text: str = "") -> dict[str, Any]:
    said: dict[str, Any] = {"state": state, "timestamp": "2026-11-22T10:00:00Z"}
    if text:
        said["message"] = {"role": "agent", "parts": [{"kind": "text", "text": text}], "messageId": "m-2"}
    return {"taskId": TASK, "contextId": CONTEXT, "kind": "status-update", "status": said, "final": False}


def artifact(text: str, *, append: bool) -> dict[str, Any]:
    made = {"artifactId": "a-1", "parts": [{"kind": "text", "text": text}]}
    return {"taskId": TASK, "contextId": CONTEXT, "kind": "artifact-update", "artifact": made, "append": append}


OLD = [
    task("submitted"),
    status("working"),
    artifact("I closed", append=False),
    artifact(" it.", append=True),
    status("completed", "Done."),
]
NEW = [
    {"task": {key: value for key, value in task("TASK_STATE_SUBMITTED").items() if key != "kind"}},
    {"statusUpdate": {"taskId": TASK, "contextId": CONTEXT, "status": {"state": "TASK_STATE_WORKING"}}},
    {"artifactUpdate": {"taskId": TASK, "contextId": CONTEXT, "artifact": {"artifactId": "a-1",
     "parts": [{"text": "I closed"}]}}},
    {"artifactUpdate": {"taskId": TASK, "contextId": CONTEXT, "append": True, "artifact": {"artifactId": "a-1",
     "parts": [{"text": " it."}]}}},
    {"statusUpdate": {"taskId": TASK, "contextId": CONTEXT, "status": {"state": "TASK_STATE_COMPLETED",
     "message": {"role": "ROLE_AGENT", "parts": [{"text": "Done."}]}}}},
]  # fmt: skip


@pytest.fixture
def read(wire):
    def read(body: Any, answer: bytes, path: str = "/", flags: int = 0) -> Call:
        return API.read(wire.exchange(wire.post(path, body, V1), answer, flags))

    return read


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "known"),
    [
        ("POST", "/", ask(), {}, True),
        ("POST", "/agent", ask("SendStreamingMessage"), {}, True),
        ("POST", "/", ask("tasks/pushNotificationConfig/set"), {}, True),
        ("POST", "/v1/message:send", {"message": NEW_MESSAGE}, {}, True),
        ("POST", "/message:stream", b"", {}, True),
        ("GET", f"/tasks/{TASK}", b"", V1, True),
        ("POST", f"/tasks/{TASK}:cancel", b"", V1, True),
        ("GET", f"/tasks/{TASK}", b"", {}, False),
        ("POST", "/", ask("tools/call"), {}, False),
    ],
)
def test_it_is_known(wire, method: str, path: str, body: Any, headers: dict[str, str], known: bool) -> None:
    assert API.recognises(wire.exchange(wire.message(f"{method} {path} HTTP/1.1", body, headers))) is known


def test_a_task_that_is_done(wire, read) -> None:
    done = task("completed", artifacts=[{"artifactId": "a-1", "parts": [{"kind": "text", "text": "Closed."}]}])
    expected = Call(
        api="a2a",
        turns=(Turn("user", "Close it."),),
        reply="Closed.",
        finish_reason="completed",
        completed=True,
        conversation=CONTEXT,
        task_id=TASK,
        state="completed",
        llm_call=False,
    )
    assert read(ask(), wire.ok(rpc(done))) == expected
    new = {
        "task": {key: value for key, value in done.items() if key != "kind"}
        | {"status": {"state": "TASK_STATE_COMPLETED"}}
    }
    assert read(ask("SendMessage", message=NEW_MESSAGE), wire.ok(rpc(new))) == expected
    assert read({"message": NEW_MESSAGE}, wire.ok(new), "/message:send") == expected


def test_a_message_for_an_answer(wire, read) -> None:
    said = {"role": "agent", "parts": [{"kind": "text", "text": "Hi."}], "messageId": "m-2", "contextId": CONTEXT}
    old = read(ask(), wire.ok(rpc(said | {"kind": "message"})))
    new = read(ask("SendMessage", message=NEW_MESSAGE), wire.ok(rpc({"message": said | {"role": "ROLE_AGENT"}})))
    assert old == new
    assert (old.reply, old.completed, old.conversation, old.state) == ("Hi.", True, CONTEXT, None)


@pytest.mark.parametrize("version", ["0.3", "1.0", "http"])
def test_a_stream(wire, read, version: str) -> None:
    objects = OLD if version == "0.3" else NEW
    body = ask("message/stream") if version == "0.3" else ask("SendStreamingMessage", message=NEW_MESSAGE)
    path, wrap = ("/message:stream", dict) if version == "http" else ("/", rpc)
    body = {"message": NEW_MESSAGE} if version == "http" else body
    for kept in range(len(objects) + 1):
        events = sse(*map(wrap, objects[:kept]))
        call = read(body, wire.stream(events, whole=kept == 5), path, 0 if kept == 5 else EndFlag.ABORTED_BY_ORIGIN)
        assert call.completed is (kept == 5), kept
        assert call.conversation == (CONTEXT if kept else None)
        assert call.state == [None, "submitted", "working", "working", "working", "completed"][kept]
    assert (call.reply, call.task_id) == ("I closed it.\nDone.", TASK)
    result = call.answer if version == "http" else call.answer["result"]
    told = result if version == "0.3" else result["task"]
    assert told["status"]["state"] == objects[-1].get("statusUpdate", objects[-1])["status"]["state"]
    assert told["artifacts"] == [{"artifactId": "a-1", "parts": [{"text": "I closed it."}]}]


def test_states(wire, read) -> None:
    for state, completed in {"input-required": True, "failed": True, "canceled": True, "working": False}.items():
        call = read(ask(), wire.ok(rpc(task(state))))
        assert (call.state, call.completed, call.error) == (state, completed, None)
    assert read(ask(), wire.ok(rpc(task("TASK_STATE_INPUT_REQUIRED")))).state == "input-required"


def test_a_task_that_is_looked_at(wire, read) -> None:
    call = read(ask("tasks/get", id=TASK), wire.ok(rpc(task("completed", history=[MESSAGE]))))
    assert (call.turns, call.opens, call.task_id, call.state) == ((), False, TASK, "completed")
    look = API.read(wire.exchange(wire.get(f"/v1/tasks/{TASK}", V1), wire.answer(404, b"")))
    assert (look.task_id, look.error, look.completed) == (TASK, "http_404", False)


def test_other_parts_and_ids_of_the_message(wire, read) -> None:
    data = {"kind": "data", "data": {"order": 7}}
    message = MESSAGE | {"parts": [*MESSAGE["parts"], data], "contextId": "ctx-own", "taskId": "task-own"}
    call = read(ask(message=message), b"")
    assert (call.conversation, call.task_id, len(call.turns[0].media)) == ("ctx-own", "task-own", 1)


def test_failures(wire, read) -> None:
    missing = {"jsonrpc": "2.0", "id": "r-1", "error": {"code": -32001, "message": "words"}}
    for answer in (wire.ok(missing), wire.stream(sse(rpc(OLD[0]), missing))):
        call = read(ask(), answer)
        assert (call.completed, call.error) == (False, "rpc_-32001")
    assert read(ask(), wire.answer(500, b"")).error == "http_500"
    assert read(ask(), b"").error == "no_response"


def test_a_flood_of_artifacts_is_bounded(wire, read) -> None:
    made = [{"artifactId": str(n), "parts": [{"text": "x"}]} for n in range(ARTIFACTS_MAX + 3)]
    call = read(ask(), wire.ok(rpc(task("completed", artifacts=made))))
    assert (call.reply.count("x"), call.overflow) == (ARTIFACTS_MAX, True)


def test_wrong_types_never_raise(survives, sse) -> None:
    words = (
        "jsonrpc 2.0 id method params message/send message role parts kind text task status state result error code "
        "artifacts artifact artifactId statusUpdate artifactUpdate contextId taskId status-update "
        "artifact-update append"
    )
    survives(API, "/message:send", words, {"text/event-stream": sse, "application/json": lambda data: data})


PLAN = b"""
rate_plan:
  name: tasks
  signals:
    - id: task_done
      on: response
      conditions:
        - {field: body.result.status.state, operator: EQUALS, value: completed}
      set: {outcome: RESOLVED, confirmation: CONFIRMED}
    - id: task_handed_over
      on: response
      conditions:
        - {field: body.result.status.state, operator: IN, value: [input-required, rejected]}
      set: {escalated_to_human: true}
"""


def test_rules_see_a_tasks_state_streamed_or_not(wire, make_observer) -> None:
    observer = make_observer(plan=load_plan(PLAN, "tasks"))

    def rules(answer: bytes) -> list[str]:
        seen = observer.observe(wire.raw(wire.post("/", ask("message/stream")), answer))
        assert seen.llm_calls == 0
        return [effect.rule for effect in seen.effects]

    assert rules(wire.stream(sse(*map(rpc, OLD)))) == rules(wire.ok(rpc(task("completed")))) == ["task_done"]
    assert rules(wire.stream(sse(rpc(task("submitted")), rpc(status("rejected"))))) == ["task_handed_over"]
    assert rules(wire.stream(sse(*map(rpc, OLD[:3])), whole=False)) == []


def test_the_first_version_of_the_protocol(wire) -> None:
    words = {"role": "user", "parts": [{"type": "text", "text": "Close it."}]}
    asked = ask("tasks/sendSubscribe", id=TASK, sessionId=CONTEXT, message=words)
    said = [
        {"id": TASK, "status": {"state": "working"}, "final": False},
        {"id": TASK, "artifact": {"index": 0, "parts": [{"type": "text", "text": "I closed"}]}},
        {"id": TASK, "artifact": {"index": 0, "append": True, "parts": [{"type": "text", "text": " it."}]}},
        {"id": TASK, "status": {"state": "completed"}, "final": True},
    ]
    exchange = wire.exchange(wire.post("/", asked), wire.stream(sse(*map(rpc, said))))
    assert API.recognises(exchange)
    call = API.read(exchange)
    assert (call.conversation, call.task_id, call.state) == (CONTEXT, TASK, "completed")
    assert (call.reply, call.completed, call.turns) == ("I closed it.", True, (Turn("user", "Close it."),))
    whole = {"id": TASK, "sessionId": CONTEXT, "status": {"state": "input-required"}}
    call = API.read(wire.exchange(wire.post("/", ask("tasks/get", id=TASK)), wire.ok(rpc(whole))))
    assert (call.conversation, call.task_id, call.state, call.completed) == (CONTEXT, TASK, "input-required", True)


@pytest.mark.parametrize("state", ["completed", "failed", "canceled", "rejected", "input-required", "auth-required"])
@pytest.mark.parametrize("new", [False, True])
def test_every_state_in_which_a_task_waits_or_ended_is_told(wire, state: str, new: bool) -> None:
    spelled = f"TASK_STATE_{state.upper().replace('-', '_')}" if new else state
    result = {"task": {"id": TASK, "contextId": CONTEXT, "status": {"state": spelled}}} if new else task(state)
    method = "SendMessage" if new else "message/send"
    call = API.read(wire.exchange(wire.post("/", ask(method)), wire.ok(rpc(result))))
    assert (call.state, call.finish_reason, call.completed, call.error) == (state, state, True, None)


def test_tasks_of_mcp_are_not_a2a(wire) -> None:
    headers = {"MCP-Protocol-Version": "2025-11-25"}
    assert not API.recognises(wire.exchange(wire.post("/mcp", ask("tasks/get", taskId=TASK), headers)))
    assert API.recognises(wire.exchange(wire.post("/mcp", ask("tasks/get", id=TASK))))
