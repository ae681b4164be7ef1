"""A plan tried on a month that was recorded: the form, the run while it works, what came out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aiohttp import web

from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import period_of
from sidecar.billing.console import paging
from sidecar.billing.console.forms import actor_of, text_of
from sidecar.billing.console.plans import Draft, draft_of, version_of, versions_of
from sidecar.billing.console.shell import month, render
from sidecar.billing.ledger.catalog import PlanVersion
from sidecar.billing.work import runs
from sidecar.billing.work.runner import BusyError, Runner
from sidecar.billing.work.runs import Run, Wanted
from sidecar.policy.faults import Problem

RUNNER = web.AppKey("runner", Runner)
CUSTOMERS_SHOWN, PAGE = 200, 50


async def ask(request: web.Request) -> web.StreamResponse:
    """Which text, which month; and the runs before."""
    versions = await versions_of(request)
    chosen = version_of(versions, request.query.get("version"))
    return await _form(request, versions, chosen, Draft(chosen.source, (), None), period=str(month(request)))


async def start(request: web.Request) -> web.StreamResponse:
    """Begin a run and lead to it; a text that is no plan is shown again with what is wrong."""
    versions, given = await versions_of(request), await request.post()
    draft, text = await draft_of(given), text_of(given, "period")
    problems, period = list(draft.problems), None
    try:
        period = period_of(text)
    except ProblemError as error:
        problems.insert(0, Problem("", 0, error.detail))
    if problems or period is None:
        return await _form(
            request, versions, versions[-1], Draft(draft.source, problems, None), period=text, status=422
        )
    wanted = Wanted("backtest", period, actor_of(request, given), versions[-1].plan_id, draft.source)
    raise web.HTTPSeeOther(f"/plans/{versions[-1].plan_id}/backtest/{await begin(request, wanted)}")


async def begin(request: web.Request, wanted: Wanted, **more: Any) -> str:
    """A run's id; 503 when too many wait."""
    try:
        return await request.app[RUNNER].start(wanted, **more)
    except BusyError as error:
        raise ProblemError(503, str(error), Retry_After="60") from None


async def show(request: web.Request) -> web.StreamResponse:
    """How far a run is; when it is done, by customer and session, of which a page begins after so many."""
    [after] = paging.numbers(request, 1) or [0]
    billing, plan_id = request.app[BILLING], request.match_info["id"]
    run = await runs.read(billing.database, request.match_info["run"], billing.clock())
    if run is None or (run.kind, run.about) != ("backtest", plan_id):
        raise ProblemError(404, "there is no such run: the newest 200 are kept")
    return render(
        request, "backtest_run.html", run=run, plan_id=plan_id, found=_found(run), **_page(request, run, after)
    )


async def _form(
    request: web.Request,
    versions: list[PlanVersion],
    chosen: PlanVersion,
    draft: Draft,
    *,
    period: str,
    status: int = 200,
) -> web.StreamResponse:
    billing = request.app[BILLING]
    recent = await runs.recent(billing.database, "backtest", chosen.plan_id, billing.clock())
    return render(
        request, "backtest.html", status, plan=versions[-1], versions=list(reversed(versions)), chosen=chosen,
        draft=draft, wanted=period, recent=recent,
    )  # fmt: skip


def _found(run: Run) -> Mapping[str, Any] | None:
    """The result as the template lays it out: amounts by currency, the largest difference for the bars."""
    if run.result is None:
        return None
    result = run.result
    currencies = sorted({*result["actual"], *result["tested"]}) or ["USD"]
    rows = [
        {
            "customer": one["customer"],
            "sessions_changed": one["sessions_changed"],
            "amounts": _amounts(one, sorted({*one["actual"], *one["tested"]}) or currencies[:1]),
        }
        for one in result["customers"][:CUSTOMERS_SHOWN]
    ]
    return {
        "plan": result["plan"],
        "totals": _amounts(result, currencies),
        "customers": rows,
        "customers_counted": result["customers_counted"],
        "sessions_changed": result["sessions_changed"],
    }


def _page(request: web.Request, run: Run, after: int) -> Mapping[str, Any]:
    """The sessions of a page, and where the next begins. A run names so many sessions and counts the rest."""
    named = run.result["sessions"] if run.result else []
    until = after + PAGE
    more = f"{paging.following(request, until)}#sessions" if until < len(named) else ""
    return {"sessions": named[after:until], "after": after, "named": len(named), "more": more}


def _amounts(one: Mapping[str, Any], currencies: list[str]) -> list[Mapping[str, Any]]:
    return [
        {
            "currency": code,
            **{side: one[side].get(code, "0") for side in ("actual", "tested", "difference")},
            "sign": _sign(one["difference"].get(code, "0")),
        }
        for code in currencies
    ]


def _sign(amount: str) -> int:
    value = Decimal(amount)
    return (value > 0) - (value < 0)
