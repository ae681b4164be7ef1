"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web


def problem(
    status: int,
    detail: str,
    headers: dict[str, str] | None = None,
    extra: dict[str, Any] | None = None,
) -> web.Response:
    """An answer whose `detail` says what to change; `extra` members stand beside it."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail} | (
        extra or {}
    )
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")
