"""JSON-RPC 2.0 over HTTP, as MCP and A2A use it: what was asked, and what was answered, whole or as a stream."""

from __future__ import annotations

from typing import Any

from sidecar.observer.apis.call import as_dict, as_text, dicts, error_code, stream_events, streamed
from sidecar.observer.exchange import Exchange

MESSAGES_MAX = 1_000
# They tell MCP from other protocols over JSON-RPC, some of whose methods have the same names.
MCP_HEADERS = frozenset({"mcp-session-id", "mcp-protocol-version", "mcp-method"})


def asked(exchange: Exchange) -> list[dict[str, Any]]:
    """The request's messages that have a method: one, or those of a batch."""
    return [message for message in _messages(exchange.request_json) if as_text(message.get("method"))]


def method_of(exchange: Exchange) -> str:
    """The first method of a JSON-RPC request; empty when the request is none."""
    if exchange.method != "POST":
        return ""
    return next((as_text(message["method"]) for message in asked(exchange) if message.get("jsonrpc") == "2.0"), "")


def said(exchange: Exchange) -> tuple[list[dict[str, Any]], bool]:
    """The response's messages in order, those of the server's own included, and whether a bound was passed."""
    if exchange.response is None:
        return [], False
    if streamed(exchange):
        events, overflow = stream_events(exchange)
        return [as_dict(event.json()) for event in events], overflow
    return _messages(exchange.response_json), False


def failure(exchange: Exchange, answer: dict[str, Any]) -> str | None:
    """A code for a failed exchange: JSON-RPC numbers its errors."""
    code = as_dict(answer.get("error")).get("code")
    numbered = f"rpc_{code}" if isinstance(code, int) and abs(code) < 1 << 31 else None
    return error_code(exchange, {"error": answer.get("error") and {"code": numbered}})


def _messages(body: Any) -> list[dict[str, Any]]:
    return dicts(body[:MESSAGES_MAX] if isinstance(body, list) else [body])
