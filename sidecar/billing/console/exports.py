"""Exports to other billing systems: what was acknowledged, what waits, what is parked and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from sidecar.billing.api.bodies import RedeliveryBody
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.outcomes import SEQ_MAX
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import whole_number
from sidecar.billing.console.backtests import begin
from sidecar.billing.console.forms import actor_of, text_of, texts_of
from sidecar.billing.console.shell import month, render
from sidecar.billing.exports import sums
from sidecar.billing.exports.gate import CAUSES
from sidecar.billing.exports.report import oldest_waiting, redeliveries
from sidecar.billing.exports.service import Exports, NotParkedError, Redelivery
from sidecar.billing.exports.sums import Sum, Tally
from sidecar.billing.work import runs
from sidecar.billing.work.runs import Wanted

STATES = ("parked", "waiting", "acknowledged")
PAGE = 50
_DECISIONS_SHOWN = 20


async def show_all(request: web.Request) -> web.StreamResponse:
    """Every meter of every target, and the month's reconciliation as it was worked out last."""
    billing, period = request.app[BILLING], month(request)
    if billing.exports is None:
        return render(request, "exports.html", meters=None, run=None, reconciled={}, period=period, totals={})
    async with billing.database.reading() as connection:
        places = await sums.read(connection)
        oldest = await oldest_waiting(connection, billing.exports.destinations)
    run = await runs.newest(billing.database, "reconciliation", period, billing.clock())
    everything, of_month = sums.tallied(places), sums.tallied(places, period)
    meters: list[dict[str, Any]] = [
        {
            "target": one.name,
            "title": one.target.title,
            "meter": code,
            "sums": _counts(everything.get((one.name, code), Tally())),
            "month": _counts(of_month.get((one.name, code), Tally())),
            "waited_us": _age(oldest.get((one.name, code)), billing.clock()),
        }
        for one in billing.exports.destinations
        for code in one.meters
    ]
    totals = {
        name: sum(meter["sums"][name].entries for meter in meters) for name in ("sent", *STATES)
    }  # fmt: skip
    reconciled = {(one["target"], one["meter"]): one for one in run.result["meters"]} if run and run.result else {}
    return render(
        request, "exports.html", meters=meters, period=period, run=run, reconciled=reconciled, totals=totals
    )  # fmt: skip


async def show(request: web.Request) -> web.StreamResponse:
    """A target's entries, the parked ones first to be seen, with what can be decided about them."""
    return await _target(request, 200, [])


async def decide(request: web.Request) -> web.StreamResponse:
    """Send parked entries again, or note that the target has them."""
    exports, target, given = _exports(request), request.match_info["target"], await request.post()
    chosen = texts_of(given, "entry")
    everything = text_of(given, "which") == "all"
    body: dict[str, Any] = {
        "actor": actor_of(request, given), "reason": text_of(given, "reason"), "action": text_of(given, "action"),
        "entries": None if everything else chosen,
    }  # fmt: skip
    try:
        read = RedeliveryBody.model_validate(body)
    except ValidationError as error:
        return await _target(request, 422, [_sentence(dict(one)) for one in error.errors()], body)
    entries = None if read.entries is None else tuple(read.entries)
    try:
        await exports.redeliver(Redelivery(target, read.actor, read.reason, read.action, entries))
    except NotParkedError as error:
        return await _target(request, 409, [f"{error}. Somebody may have decided in the meantime."], body)
    raise web.HTTPSeeOther(f"/exports/{target}")


async def reconcile(request: web.Request) -> web.StreamResponse:
    """Rate the month's rows anew beside what was exported, as long work."""
    exports, given, period = _exports(request), await request.post(), month(request)
    meters = [
        {
            "target": one.name, "code": meter.code, "metrics": sorted(meter.metrics),
            "plans": None if meter.plans is None else sorted(meter.plans), "field": meter.field,
        }
        for one in exports.destinations
        for meter in one.meters.values()
    ]  # fmt: skip
    await begin(request, Wanted("reconciliation", period, actor_of(request, given)), meters=meters)
    raise web.HTTPSeeOther(f"/exports?period={period}")


async def _target(
    request: web.Request, status: int, errors: Sequence[str], body: Mapping[str, Any] | None = None
) -> web.StreamResponse:
    billing, exports, target = request.app[BILLING], _exports(request), request.match_info["target"]
    [destination] = [one for one in exports.destinations if one.name == target]
    state = request.query.get("state", "parked")
    if state not in STATES:
        raise ProblemError(400, f"state must be one of {', '.join(STATES)}, not {state!r}")
    after = request.query.get("after")
    before = whole_number(after, "after", 0, SEQ_MAX) if after is not None else None
    rows = await exports.page(target, state, before, PAGE + 1)
    async with billing.database.reading() as connection:
        tallies = sums.tallied(await sums.read(connection, target)).values()
        decided = await redeliveries(connection, target, _DECISIONS_SHOWN)
    return render(
        request, "export.html", status, target=target, title=destination.target.title, state=state,
        counts={one: sum(tally.states[one].entries for tally in tallies) for one in STATES},
        rows=rows[:PAGE], more=str(rows[PAGE - 1]["seq"]) if len(rows) > PAGE else None, causes=CAUSES,
        first=before is None, decided=decided, errors=errors, body=body or {"entries": [], "reason": "", "actor": ""},
    )  # fmt: skip


def _exports(request: web.Request) -> Exports:
    exports, target = request.app[BILLING].exports, request.match_info.get("target")
    if exports is None or (target is not None and target not in {one.name for one in exports.destinations}):
        raise ProblemError(404, f"SIDECAR_BILLING_EXPORTS names no target {target!r}")
    return exports


def _counts(tally: Tally) -> dict[str, Sum]:
    return {"sent": tally.sent, **tally.states}


def _age(oldest_us: int | None, now_us: int) -> int | None:
    return None if oldest_us is None else max(0, now_us - oldest_us)


def _sentence(error: Mapping[str, Any]) -> str:
    match str(error["loc"][0]):
        case "entries":
            return "Choose at least one entry, or all of them."
        case "action":
            return "Choose whether to send them again or to acknowledge them."
        case "actor":
            return "Say who you are: your name is kept with the decision."
    return "Say why: the reason is kept with the decision." if not error.get("input") else f"Reason: {error['msg']}."
