"""Agent2Agent (A2A): one agent, or a user's client, talks to another.

Source: A2A protocol specification, versions 0.1 (`tasks/send`, a task's `sessionId`), 0.3 (`message/send`, `kind` in
every object) and 1.0 (`SendMessage`, one named member for each object), as JSON-RPC and as HTTP+JSON (`/message:send`).
A message belongs to a context, which is the conversation, and may belong to a task, which has a state. An answer is a
message, or a task as it stands; a stream begins with one of these and goes on with updates of the task's status and
pieces of its artifacts. Tasks are also looked at, cancelled and subscribed to, by their id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.observer.apis.call import (
    Api,
    Call,
    Turn,
    as_dict,
    as_text,
    dicts,
    joined,
    media_digest,
    streamed,
)
from sidecar.observer.apis.jsonrpc import MCP_HEADERS, asked, failure, method_of, said
from sidecar.observer.exchange import Exchange

ARTIFACTS_MAX = 1_000
_METHODS = frozenset({
    "tasks/send", "tasks/sendSubscribe",
    "message/send", "message/stream", "tasks/get", "tasks/cancel", "tasks/resubscribe", "tasks/list",
    "agent/getAuthenticatedExtendedCard",
    "SendMessage", "SendStreamingMessage", "GetTask", "ListTasks", "CancelTask", "SubscribeToTask",
    "GetExtendedAgentCard",
})  # fmt: skip
_METHOD_GROUPS = ("tasks/pushNotificationConfig/", "CreateTaskPush", "GetTaskPush", "ListTaskPush", "DeleteTaskPush")
_HEADERS = frozenset({"a2a-version", "a2a-extensions", "x-a2a-extensions"})
_TASK_PATH = re.compile(r"/tasks/([^/:]+)(?::cancel|:subscribe)?$")
_MEMBERS = {"task": "task", "message": "message", "statusUpdate": "status-update", "artifactUpdate": "artifact-update"}
_ROLES = {"user": "user", "ROLE_USER": "user", "agent": "assistant", "ROLE_AGENT": "assistant"}
# In these a task waits for somebody, or for nobody any more.
_SETTLED = frozenset({"completed", "failed", "canceled", "rejected", "input-required", "auth-required"})


@dataclass(slots=True)
class _Answer:
    """What the answer's objects say of the task, the last word last."""

    task: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    message: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    context: str = ""
    task_id: str = ""
    overflow: bool = False

    def add(self, kind: str, body: dict[str, Any]) -> None:
        self.context = _context(body) or self.context
        self.task_id = as_text(body.get("taskId")) or as_text(body.get("id")) or self.task_id
        if kind == "task":
            self.task, self.status = body, as_dict(body.get("status"))
            for artifact in dicts(body.get("artifacts")):
                self._artifact(artifact, append=False)
        elif kind == "message":
            self.message = body
        elif kind == "status-update":
            self.status = as_dict(body.get("status"))
        elif kind == "artifact-update":
            self._artifact(as_dict(body.get("artifact")), append=body.get("append") is True)

    def _artifact(self, artifact: dict[str, Any], *, append: bool) -> None:
        identity = as_text(artifact.get("artifactId"))
        if identity not in self.artifacts and len(self.artifacts) >= ARTIFACTS_MAX:
            self.overflow = True
            return
        text = _content(artifact)[0]
        if append:
            self.artifacts.setdefault(identity, []).append(text)
        else:
            self.artifacts[identity] = [text]

    @property
    def state(self) -> str:
        """The task's state in version 0.3's spelling, such as `input-required`."""
        state = as_text(self.status.get("state"))
        return state.removeprefix("TASK_STATE_").lower().replace("_", "-")

    def reply(self) -> str:
        """What the agent says: its message, what it made, and what it says beside the state."""
        told = as_dict(self.status.get("message"))
        texts = [joined(pieces) for pieces in self.artifacts.values()]
        return "\n".join(text for text in (*texts, _content(told)[0], _content(self.message)[0]) if text)

    def whole(self) -> dict[str, Any]:
        """The object that the same request gets without streaming."""
        if not self.status:
            return self.message
        artifacts = [
            {"artifactId": identity, "parts": [{"text": "".join(pieces)}]}
            for identity, pieces in self.artifacts.items()
        ]
        named = {"id": self.task_id, "contextId": self.context, "status": self.status}
        return self.task | named | ({"artifacts": artifacts} if artifacts else {})


class A2a:
    """By the JSON-RPC method; over HTTP+JSON by the path, with a header of A2A where the path is any product's."""

    name: Final = "a2a"

    def recognises(self, exchange: Exchange) -> bool:
        """JSON-RPC agents have any path."""
        if exchange.method == "POST" and exchange.path.endswith(("/message:send", "/message:stream")):
            return True
        if _TASK_PATH.search(exchange.path) and not _HEADERS.isdisjoint(exchange.headers):
            return True
        if not MCP_HEADERS.isdisjoint(exchange.headers):
            return False  # MCP has tasks too, and some of its methods are named like A2A's
        method = method_of(exchange)
        return method in _METHODS or method.startswith(_METHOD_GROUPS)

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        rpc = next(iter(asked(exchange)), None)
        params = as_dict(rpc.get("params")) if rpc else as_dict(exchange.request_json)
        message = as_dict(params.get("message"))
        bodies, overflow = said(exchange)
        answer, error, wrapped = _Answer(), failure(exchange, {}), False
        for body in bodies:
            error = failure(exchange, body) or error
            result = as_dict(body.get("result")) if rpc else body
            kind, inner = _object(result)
            wrapped = inner is not result
            answer.add(kind, inner)
        state = answer.state
        settled = state in _SETTLED or bool(answer.message)
        is_stream = exchange.succeeded and streamed(exchange)
        whole = exchange.response_body.complete and not is_stream
        whole_answer = answer.whole()
        if wrapped:
            whole_answer = {("task" if answer.status else "message"): whole_answer}
        in_path = _TASK_PATH.search(exchange.path) if rpc is None else None
        return Call(
            api=self.name,
            turns=tuple(_turns(message)),
            reply=answer.reply(),
            finish_reason=state or None,
            completed=error is None and bool(bodies or whole) and (settled or (whole and not state)),
            error=error,
            overflow=answer.overflow or (overflow and not settled),
            conversation=_context(message) or _context(params) or answer.context or None,
            task_id=answer.task_id or _task_id(params, message) or (in_path[1] if in_path else None),
            state=state or None,
            answer=({"result": whole_answer} if rpc else whole_answer) if is_stream else None,
            llm_call=False,
        )


def _context(body: dict[str, Any]) -> str:
    return as_text(body.get("contextId")) or as_text(body.get("sessionId"))


def _task_id(params: dict[str, Any], message: dict[str, Any]) -> str | None:
    """The task that the request is about: a message's, or the one that is looked at (1.0: a name may lead to it)."""
    return as_text(message.get("taskId")) or as_text(params.get("id")).rpartition("/")[2] or None


def _object(result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """An object's kind and the object: 0.3 says `kind`, 1.0 and HTTP+JSON have it in a member of that name."""
    if as_text(result.get("kind")):
        return result["kind"], result
    for name, kind in _MEMBERS.items():
        if isinstance(result.get(name), dict):
            return kind, result[name]
    if isinstance(result.get("artifact"), dict):
        return "artifact-update", result | {"append": result["artifact"].get("append")}  # as version 0.1 says it
    if "status" in result:
        return ("status-update" if "final" in result else "task"), result  # or a task that was looked at
    return "", result


def _turns(message: dict[str, Any]) -> Iterator[Turn]:
    if message:
        role = as_text(message.get("role"))
        text, media = _content(message)
        yield Turn(_ROLES.get(role, role), text, media)


def _content(holder: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The text of a message's or an artifact's parts, and the digests of the others."""
    parts = dicts(holder.get("parts")) or dicts(holder.get("content"))
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "\n".join(texts), tuple(media_digest(part) for part in parts if not isinstance(part.get("text"), str))


API: Api = A2a()
