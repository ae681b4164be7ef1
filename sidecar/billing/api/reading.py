"""What handlers read out of requests: pages, periods, ids, JSON bodies. Whatever is wrong is a `ProblemError`."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sidecar.billing.api.problems import ProblemError
from sidecar.billing.events import UnreadableBodyError, canonical_json, parse_json, parse_time, plain_text
from sidecar.billing.rating.periods import Period, to_us

Body = TypeVar("Body", bound=BaseModel)


def taking_any_id(path: str) -> str:
    """The path for aiohttp's router, whose own `{id}` would find no id that has a brace in it."""
    return re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", path)


def whole_number(text: str | None, name: str, default: int, largest: int) -> int:
    """A query parameter that is a number from 1 on."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= largest):
        raise ProblemError(400, f"{name} must be a whole number from 1 to {largest}, not {text!r}")
    return int(text)


def period(request: web.Request) -> Period:
    """`?period=2026-11`."""
    return period_of(request.query.get("period", ""))


def period_of(text: str) -> Period:
    """A period as written."""
    try:
        return Period.parse(text)
    except ValueError as error:
        raise ProblemError(400, f"period: {error}") from None


def instant(request: web.Request, name: str) -> int | None:
    """`?name=2026-11-15T00:00:00Z`, in Unix microseconds; None if it is not there."""
    text = request.query.get(name)
    try:
        return None if text is None else to_us(parse_time(text))
    except ValueError as error:
        raise ProblemError(400, f"{name}: {error}") from None


def flag(request: web.Request, name: str) -> bool:
    """`?name=true`."""
    text = request.query.get(name, "false")
    if text not in {"true", "false"}:
        raise ProblemError(400, f"{name} must be true or false, not {text!r}")
    return text == "true"


def csv_wanted(request: web.Request) -> bool:
    """`?format=csv`, or a client that asks for text/csv."""
    wanted = request.query.get("format")
    if wanted not in {None, "json", "csv"}:
        raise ProblemError(400, f"format must be json or csv, not {wanted!r}")
    return wanted == "csv" or (wanted is None and request.headers.get("Accept", "").startswith("text/csv"))


def customer_id(request: web.Request) -> str:
    """The customer in the path, as events may name it."""
    name = request.match_info["id"]
    try:
        if len(plain_text(name)) <= 256:
            return name
    except ValueError as error:
        raise ProblemError(422, f"the id of the customer {error}") from None
    raise ProblemError(422, "the id of a customer has at most 256 characters")


async def json_body(request: web.Request, model: type[Body], what: str) -> Body:
    """A JSON body as a model."""
    if request.content_type != "application/json":
        raise ProblemError(415, f"Content-Type must be application/json, not {request.content_type}")
    try:
        content = parse_json(await request.read(), number=float)
    except UnreadableBodyError as error:
        raise ProblemError(400, str(error)) from None
    return checked(content, model, what)


def checked(content: Any, model: type[Body], what: str) -> Body:
    """A value as a model; every field that is wrong is named."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        errors = [{"field": ".".join(map(str, part["loc"])), "message": part["msg"]} for part in error.errors()]
        raise ProblemError(422, f"{what} cannot be used", errors) from None


def exact(content: Any) -> web.Response:
    """An answer that shows the numbers of events as they came, not as the nearest float."""
    return web.Response(text=canonical_json(content), content_type="application/json")
