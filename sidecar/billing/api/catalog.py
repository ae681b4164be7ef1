"""`/v1/plans` and `/v1/customers`."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.events import UnreadableBodyError, parse_json, plain_text
from sidecar.billing.ledger.catalog import PlanVersion
from sidecar.billing.rating.account import UNATTRIBUTED, Customer
from sidecar.billing.rating.periods import Period, from_us
from sidecar.billing.service import UnknownPlanError
from sidecar.policy.conditions import instant
from sidecar.policy.loading import LoadedPlan, PlanError, load_plan

_YAML = {"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain", "application/octet-stream"}
_PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _start(text: str) -> str:
    if instant(text) is None:
        raise ValueError("write a time like 2026-11-01T00:00:00Z")
    return text


class CustomerBody(BaseModel):
    """What may be said about a customer; a PUT says all of it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    plan: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    started_at: Annotated[str, AfterValidator(_start)] | None = None
    seat_tier: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seats: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    attributes: dict[str, str | int | float | bool | None] = Field(default_factory=dict, max_length=100)


async def put_plan(request: web.Request) -> web.Response:
    """A new version: 201, or 200 when the newest is the same file. 422 with every problem and its line."""
    plan_id = request.match_info["id"]
    if not _PLAN_ID.fullmatch(plan_id):
        raise ProblemError(422, "the id of a plan is made of letters, digits, _ . and -, at most 64")
    source = await request.read()
    if request.content_type == "application/json":
        source = _as_yaml(source)
    elif request.content_type not in _YAML:
        raise ProblemError(415, f"send a plan as application/yaml or application/json, not {request.content_type}")
    try:
        loaded = await asyncio.to_thread(load_plan, source, plan_id)
    except PlanError as error:
        errors = [{"line": problem.line, "message": problem.message} for problem in error.problems]
        raise ProblemError(422, "the plan cannot be used", errors) from None
    version, new = await request.app[BILLING].put_plan(plan_id, loaded)
    return web.json_response(_plan(version), status=201 if new else 200)


def _as_yaml(source: bytes) -> bytes:
    """JSON written out line by line, so that problems have lines; JSON's tabs would be no YAML."""
    try:
        content = parse_json(source, number=float)
        return json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    except UnreadableBodyError as error:
        raise ProblemError(400, str(error)) from None
    except RecursionError:
        raise ProblemError(422, "the plan is nested too deep") from None


async def get_plan(request: web.Request) -> web.Response:
    """The newest version, or `?version=n`; with the file as it was given."""
    plan_id = request.match_info["id"]
    versions = await request.app[BILLING].plan(plan_id)
    wanted = request.query.get("version")
    chosen = [version for version in versions if wanted in (None, str(version.version))]
    if not chosen:
        raise ProblemError(404, f"there is no plan {plan_id!r}" + (f" with version {wanted!r}" if wanted else ""))
    loaded: LoadedPlan = await asyncio.to_thread(load_plan, chosen[-1].source.encode(), plan_id)
    content = loaded.plan.model_dump(mode="json", exclude_none=True)
    return web.json_response(
        {
            **_plan(chosen[-1]),
            "versions": [version.version for version in versions],
            "source": chosen[-1].source,
            "rate_plan": content,
        }
    )


def _plan(version: PlanVersion) -> dict[str, Any]:
    return {
        "id": version.plan_id,
        "version": version.version,
        "name": version.name,
        "digest": version.digest,
        "created_at": from_us(version.created_us).isoformat().replace("+00:00", "Z"),
    }


async def put_customer(request: web.Request) -> web.Response:
    """Say who a customer is; whatever is left out is unset."""
    name = customer_id(request)
    if name == UNATTRIBUTED:
        raise ProblemError(422, f"{UNATTRIBUTED} stands for outcomes whose customer was not found: it is no customer")
    if request.content_type != "application/json":
        raise ProblemError(415, f"Content-Type must be application/json, not {request.content_type}")
    try:
        content = parse_json(await request.read(), number=float)
    except UnreadableBodyError as error:
        raise ProblemError(400, str(error)) from None
    try:
        body = CustomerBody.model_validate(content)
    except ValidationError as error:
        errors = [{"field": ".".join(map(str, part["loc"])), "message": part["msg"]} for part in error.errors()]
        raise ProblemError(422, "the customer cannot be used", errors) from None
    try:
        await request.app[BILLING].put_customer(name, body.model_dump(exclude_none=True))
    except UnknownPlanError:
        raise ProblemError(422, f"there is no plan {body.plan!r}: PUT it first") from None
    return web.json_response(_customer(await request.app[BILLING].customer(name)))


async def get_customer(request: web.Request) -> web.Response:
    """What is known last of a customer."""
    name = customer_id(request)
    found = await request.app[BILLING].customer(name)
    if not found.versions:
        raise ProblemError(404, f"{name!r} is not registered; it has the default plan and an invoice like any other")
    return web.json_response(_customer(found))


async def get_invoice(request: web.Request) -> web.Response:
    """One customer's invoice of a period."""
    return web.json_response(await request.app[BILLING].invoice(customer_id(request), period(request)))


async def get_summary(request: web.Request) -> web.Response:
    """A period over all customers."""
    return web.json_response(await request.app[BILLING].summary(period(request)))


def customer_id(request: web.Request) -> str:
    """The customer in the path, as events may name it."""
    name = request.match_info["id"]
    try:
        if len(plain_text(name)) <= 256:
            return name
    except ValueError as error:
        raise ProblemError(422, f"the id of the customer {error}") from None
    raise ProblemError(422, "the id of a customer has at most 256 characters")


def period(request: web.Request) -> Period:
    """`?period=2026-11`."""
    try:
        return Period.parse(request.query.get("period", ""))
    except ValueError as error:
        raise ProblemError(400, f"period: {error}") from None


def _customer(customer: Customer) -> dict[str, Any]:
    body: dict[str, Any] = {"plan": None, "started_at": None, "seat_tier": None, "seats": None, "attributes": {}}
    return {"customer": customer.id, **body, **customer.versions[-1].facts}
