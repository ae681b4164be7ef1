"""What forms of several pages have in common: texts, files, and who sends them."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from multidict import MultiDictProxy

from sidecar.billing.console.login import NAME_MAX, visitor_of
from sidecar.billing.ledger.append import storable

Given = MultiDictProxy[Any]


def text_of(given: Given, name: str) -> str:
    """A field's text without blanks around it; empty when it is not there."""
    value = given.get(name)
    return (storable(value) or "").strip() if isinstance(value, str) else ""


def texts_of(given: Given, name: str) -> list[str]:
    """All fields of a name."""
    return [(storable(value) or "").strip() for value in given.getall(name, []) if isinstance(value, str)]


def actor_of(request: web.Request, given: Given) -> str:
    """Who decides: the name of the login, or, where nobody logs in, what the form says."""
    visitor = visitor_of(request)
    return (visitor.name if visitor and visitor.name else text_of(given, "actor"))[:NAME_MAX]


def file_or_text(given: Given, file: str, text: str) -> bytes:
    """The bytes of an uploaded file if there is one, else of a text area, whose lines end as in a file."""
    uploaded = given.get(file)
    if isinstance(uploaded, web.FileField):
        content = uploaded.file.read()
        if content:
            return content
    written = given.get(text)
    return (written if isinstance(written, str) else "").replace("\r\n", "\n").encode("utf-8", "replace")
