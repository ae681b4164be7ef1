"""`/v1/exports`: what went to which meter, what is parked, and what operators decide about it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sidecar.billing.api.bodies import RedeliveryBody
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.outcomes import SEQ_MAX
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import json_body, period, whole_number
from sidecar.billing.exports.service import Exports, NotParkedError, Redelivery, UnknownTargetError
from sidecar.billing.ledger.entries import PAGE_MAX
from sidecar.billing.rating.invoice import timestamp

STATES = ("waiting", "acknowledged", "parked")


async def get_exports(request: web.Request) -> web.Response:
    """Per target and meter: sent, acknowledged, waiting, parked. With a period, beside what the ledger counts."""
    wanted = period(request) if "period" in request.query else None
    exports = request.app[BILLING].exports
    return web.json_response({"exports": [] if exports is None else await exports.report(wanted)})


async def get_export(request: web.Request) -> web.Response:
    """Entries of a target, newest first."""
    state = request.query.get("state")
    if state is not None and state not in STATES:
        raise ProblemError(400, f"state must be one of {', '.join(STATES)}, not {state!r}")
    limit = whole_number(request.query.get("limit"), "limit", 100, PAGE_MAX)
    after = request.query.get("after")
    before = whole_number(after, "after", 0, SEQ_MAX) if after is not None else None
    target = request.match_info["target"]
    try:
        rows = await _exports(request).page(target, state, before, limit + 1)
    except UnknownTargetError:
        raise _unknown(target) from None
    shown = [_entry(row) for row in rows[:limit]]
    return web.json_response({"entries": shown, "next": str(rows[limit - 1]["seq"]) if len(rows) > limit else None})


async def redeliver(request: web.Request) -> web.Response:
    """Decide about parked entries: send them again, or note that the target has them."""
    target = request.match_info["target"]
    body = await json_body(request, RedeliveryBody, "the decision")
    entries = None if body.entries is None else tuple(body.entries)
    try:
        wanted = Redelivery(target, body.actor, body.reason, body.action, entries)
        return web.json_response(await _exports(request).redeliver(wanted))
    except UnknownTargetError:
        raise _unknown(target) from None
    except NotParkedError as error:
        raise ProblemError(409, str(error)) from None


def _exports(request: web.Request) -> Exports:
    exports = request.app[BILLING].exports
    if exports is None:
        raise _unknown(request.match_info["target"])
    return exports


def _unknown(target: str) -> ProblemError:
    return ProblemError(404, f"SIDECAR_BILLING_EXPORTS names no target {target!r}")


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    names = (
        "id",
        "meter",
        "outcome_id",
        "customer",
        "period",
        "quantity",
        "state",
        "cause",
        "reason",
        "act",
        "attempts",
    )
    times = {"time": "at_us", "created_at": "created_us", "sent_at": "sent_us", "acknowledged_at": "acknowledged_us"}
    shown = {name: row[name] for name in names}
    return shown | {
        name: None if row[column] is None else timestamp(row[column]) for name, column in times.items()
    }  # fmt: skip
