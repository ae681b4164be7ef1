"""The few answers that the sidecar gives itself. Each says in a header that it does not come from the origin."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

HEADER: Final = "X-Sidecar-Error"


def error_answer(status: int, code: str, reason: str, *, head_only: bool = False) -> bytes:
    """An error with a plain reason, in the shape that SDKs of agent APIs show to their users; closes the connection.

    `code` is a word of the header X-Sidecar-Error: bad-head, bad-body, head-too-large, header-timeout,
    body-timeout, too-many-connections, bad-response, unreachable, refused, tls-failure, connect-timeout, no-capacity,
    no-answer.
    `head_only` is for answers to HEAD.
    """
    body = {"error": {"type": "sidecar_error", "code": code, "message": f"outcome-sidecar: {reason}"}}
    return _answer(status, json_bytes(body), {HEADER: code, "Connection": "close"}, head_only=head_only)


def json_answer(status: int, document: Any) -> bytes:
    """A JSON document; the connection stays."""
    return _answer(status, json_bytes(document), {"Cache-Control": "no-store"})


def json_bytes(document: Any) -> bytes:
    """Compact UTF-8 JSON with a final newline, for people with curl."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def text_answer(status: int, text: str) -> bytes:
    """A line of text; the connection stays."""
    body = text.encode() + b"\n"
    return _answer(status, body, {"Cache-Control": "no-store"}, content_type="text/plain; charset=utf-8")


def _answer(
    status: int,
    body: bytes,
    fields: dict[str, str],
    *,
    content_type: str = "application/json",
    head_only: bool = False,
) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + body
