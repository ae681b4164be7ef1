"""`/v1/plans` and `/v1/customers`."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import Any

from aiohttp import web

from sidecar.billing.api import tables
from sidecar.billing.api.bodies import CustomerBody
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.outcomes import SEQ_MAX
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import csv_wanted, customer_id, flag, instant, json_body, period, whole_number
from sidecar.billing.events import UnreadableBodyError, parse_json, parse_time
from sidecar.billing.ledger.append import storable
from sidecar.billing.ledger.behind import Behind, NoLineError
from sidecar.billing.ledger.catalog import ClosedPeriodError, PlanVersion
from sidecar.billing.ledger.entries import PAGE_MAX
from sidecar.billing.rating.account import UNATTRIBUTED, Customer, CustomerVersion
from sidecar.billing.rating.invoice import timestamp
from sidecar.billing.rating.periods import to_us
from sidecar.billing.service import UnknownPlanError
from sidecar.policy.loading import LoadedPlan, PlanError, load_plan

YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain", "application/octet-stream")
_PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NOTHING_KNOWN: dict[str, Any] = {
    "plan": None, "started_at": None, "seat_tier": None, "seats": None, "attributes": {},
}  # fmt: skip


async def put_plan(request: web.Request) -> web.Response:
    """A new version: 201, or 200 when the newest is the same file. 422 with every problem and its line."""
    plan_id = request.match_info["id"]
    if not _PLAN_ID.fullmatch(plan_id):
        raise ProblemError(422, "the id of a plan is made of letters, digits, _ . and -, at most 64")
    source = await request.read()
    if request.content_type == "application/json":
        source = as_yaml(source)
    elif request.content_type not in YAML:
        raise ProblemError(415, f"send a plan as application/yaml or application/json, not {request.content_type}")
    loaded = await plan_from(source, plan_id)
    version, new = await request.app[BILLING].put_plan(plan_id, loaded)
    return web.json_response(_plan(version), status=201 if new else 200)


async def plan_from(source: bytes, name: str) -> LoadedPlan:
    """A plan; 422 with every problem and its line."""
    try:
        return await asyncio.to_thread(load_plan, source, name)
    except PlanError as error:
        errors = [{"line": problem.line, "message": problem.message} for problem in error.problems]
        raise ProblemError(422, "the plan cannot be used", errors) from None


def as_yaml(source: bytes) -> bytes:
    """JSON written out line by line, so that problems have lines; JSON's tabs would be no YAML."""
    try:
        # json writes no exact decimals: each stands as a text with a mark of its own until all is written.
        mark = f"number-{secrets.token_hex(16)}:"
        content = parse_json(source, number=lambda text: mark + text)
        written = json.dumps(content, indent=2, ensure_ascii=False)
        return re.sub(f'"{mark}([^"]+)"', r"\1", written).encode("utf-8", "replace")
    except UnreadableBodyError as error:
        raise ProblemError(400, str(error)) from None
    except RecursionError:
        raise ProblemError(422, "the plan is nested too deep") from None


async def get_plans(request: web.Request) -> web.Response:
    """The newest version of every plan."""
    return web.json_response({"plans": [_plan(version) for version in await request.app[BILLING].plans()]})


async def get_plan(request: web.Request) -> web.Response:
    """The newest version, or `?version=n`; with the file as it was given."""
    plan_id = request.match_info["id"]
    versions = await request.app[BILLING].plan(plan_id) if _PLAN_ID.fullmatch(plan_id) else []
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
        "created_at": timestamp(version.created_us),
    }


async def put_customer(request: web.Request) -> web.Response:
    """Say who a customer is; whatever is left out is unset."""
    name = customer_id(request)
    if name == UNATTRIBUTED:
        raise ProblemError(422, f"{UNATTRIBUTED} stands for outcomes whose customer was not found: it is no customer")
    body = await json_body(request, CustomerBody, "the customer")
    start = None if body.effective_from is None else to_us(parse_time(body.effective_from))
    facts = body.model_dump(exclude_none=True, exclude={"effective_from"})
    try:
        await request.app[BILLING].put_customer(name, facts, start)
    except UnknownPlanError:
        raise ProblemError(422, f"there is no plan {body.plan!r}: PUT it first") from None
    except ClosedPeriodError as error:
        raise ProblemError(422, str(error)) from None
    return web.json_response(_customer(await request.app[BILLING].customer(name)))


async def get_customers(request: web.Request) -> web.Response:
    """Everybody who is registered or has had an outcome summed up, by name."""
    limit = whole_number(request.query.get("limit"), "limit", 100, PAGE_MAX)
    names = await request.app[BILLING].customers(storable(request.query.get("after")) or "", limit + 1)
    return web.json_response({"customers": names[:limit], "next": names[limit - 1] if len(names) > limit else None})


async def get_customer(request: web.Request) -> web.Response:
    """What is known last of a customer."""
    return web.json_response(_customer(await _registered(request)))


async def get_history(request: web.Request) -> web.Response:
    """Everything that was said of a customer."""
    found = await _registered(request)
    return web.json_response({"customer": found.id, "versions": [_version(version) for version in found.versions]})


async def _registered(request: web.Request) -> Customer:
    name = customer_id(request)
    found = await request.app[BILLING].customer(name)
    if not found.versions:
        raise ProblemError(404, f"{name!r} is not registered; it has the default plan and an invoice like any other")
    return found


async def get_invoice(request: web.Request) -> web.Response:
    """One customer's invoice of a period; with `shadow=true`, what its shadow events would have cost."""
    shadow = flag(request, "shadow")
    made = await request.app[BILLING].invoice(customer_id(request), period(request), shadow=shadow)
    return tables.invoice(made) if csv_wanted(request) else web.json_response(made)


async def get_line(request: web.Request) -> web.Response:
    """The sessions behind a line of an invoice; without `from`, behind all lines of the charge."""
    after = request.query.get("after")
    charge = request.query.get("charge")
    if not charge:
        raise ProblemError(400, "charge is needed: the id of a charge on the invoice")
    wanted = Behind(
        customer_id(request),
        period(request),
        charge,
        instant(request, "from"),
        whole_number(after, "after", 0, SEQ_MAX) if after is not None else 0,
        whole_number(request.query.get("limit"), "limit", 100, PAGE_MAX),
    )
    try:
        page = await request.app[BILLING].behind_line(wanted)
    except NoLineError as error:
        raise ProblemError(404, str(error)) from None
    return web.json_response({"sessions": page.uses, "next": None if page.next is None else str(page.next)})


def _customer(customer: Customer) -> dict[str, Any]:
    return {"customer": customer.id, **NOTHING_KNOWN, **customer.versions[-1].facts}


def _version(version: CustomerVersion) -> dict[str, Any]:
    start = version.effective_us if version.plan_from_us is None else version.plan_from_us
    told = {"recorded_at": timestamp(version.known_us), "effective_from": timestamp(start)}
    return {**told, **NOTHING_KNOWN, **version.facts}
