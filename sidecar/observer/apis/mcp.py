"""Model Context Protocol over streamable HTTP: the tools that an agent calls.

Source: MCP specification, "Transports: Streamable HTTP" (2025-06-18), and the later revision without sessions, whose
requests carry `MCP-Protocol-Version`, `Mcp-Method` and `Mcp-Name`. A POST holds one JSON-RPC message (or, in
2025-03-26, several); the answer is JSON, or a stream of messages among which the response is found by its id. A GET is
the server's own stream, a DELETE ends the session. The same tool call was seen before, in the model's answer, where
that passes here too; so none of this opens a session, and a call that failed is no call.
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.observer.apis.call import Api, Call, ToolCall, as_dict, as_text, first_calls
from sidecar.observer.apis.jsonrpc import MCP_HEADERS, asked, failure, method_of, said
from sidecar.observer.exchange import Exchange

_METHODS = frozenset({
    "initialize", "ping", "tools/call", "tools/list", "prompts/get", "prompts/list", "resources/read",
    "resources/list", "resources/templates/list", "resources/subscribe", "resources/unsubscribe",
    "subscriptions/listen", "completion/complete", "logging/setLevel", "server/discover",
})  # fmt: skip


class Mcp:
    """By a header, or by a JSON-RPC method: clients send no header before they know the server's version."""

    name: Final = "mcp"

    def recognises(self, exchange: Exchange) -> bool:
        """Any method of HTTP with an MCP header; else a POST of an MCP method."""
        if not MCP_HEADERS.isdisjoint(exchange.headers) or "mcp-session-id" in exchange.response_headers:
            return True
        method = method_of(exchange)
        return method in _METHODS or method.startswith("notifications/")

    def read(self, exchange: Exchange) -> Call:
        """Both directions; whatever is missing is left empty."""
        requests = [message for message in asked(exchange) if _id(message)]
        messages, overflow = said(exchange)
        answers = {_id(message): message for message in messages if "result" in message or "error" in message}
        calls: list[ToolCall] = []
        error, answer = failure(exchange, {}), None
        session = exchange.headers.get("mcp-session-id", "")
        for request in requests:
            answer = answers.get(_id(request), {})
            failed = failure(exchange, answer) or _tool_error(answer)
            error = error or failed
            if request["method"] == "tools/call" and "result" in answer and failed is None and _is_final(answer):
                params = as_dict(request.get("params"))
                # The numbers of JSON-RPC begin anew with each client: only with the session do they tell calls apart.
                identity = f"{session}:{_id(request)}" if session else ""
                calls.append(ToolCall(identity, as_text(params.get("name")), params.get("arguments", {})))
        tool_calls, too_many = first_calls(calls)
        return Call(
            api=self.name,
            tool_calls=tool_calls,
            completed=exchange.succeeded and all(_id(request) in answers for request in requests),
            error=None if tool_calls else error,
            overflow=too_many or (overflow and len(answers) < len(requests)),
            answer=answer or None,
            llm_call=False,
        )


def _id(message: dict[str, Any]) -> str:
    """A request's id, which may be a number or a text, told apart; empty for a notification."""
    identity = message.get("id")
    if isinstance(identity, bool) or not isinstance(identity, int | str):
        return ""
    return str(identity) if isinstance(identity, int) else f'"{identity}"'


def _tool_error(answer: dict[str, Any]) -> str | None:
    return "tool_error" if as_dict(answer.get("result")).get("isError") is True else None


def _is_final(answer: dict[str, Any]) -> bool:
    """Not when the server wants more input first: the call comes again, with it."""
    return as_text(as_dict(answer.get("result")).get("resultType")) in ("", "complete")


API: Api = Mcp()
