"""What waits for an operator, what was decided, and the one form by which anything is: asked, confirmed, done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import MultiDictProxy
from pydantic import BaseModel, ValidationError

from sidecar.billing import desk
from sidecar.billing.api.bodies import AssignmentBody, DecisionBody
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.console import paging
from sidecar.billing.console.doors import page_of_ours
from sidecar.billing.console.forms import actor_of, text_of
from sidecar.billing.console.shell import render
from sidecar.billing.ledger.append import storable
from sidecar.billing.ledger.deciding import Kind, RefusedError, Ruling, UnknownOutcomeError
from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.service import Billing

PAGE, LOG_PAGE, AT_ONCE_MAX = 25, 50, 100
# What can be decided: the button, what it means, what was done.
WORDS: Mapping[Kind, Mapping[str, str]] = {
    "release": {"name": "Release", "means": "It is charged after all.", "done": "Released"},
    "drop": {"name": "Drop", "means": "It is never charged.", "done": "Dropped"},
    "reverse": {
        "name": "Reverse", "done": "Reversed",
        "means": "What was charged is taken back, as a credit on the invoice of this month.",
    },
    "assign": {
        "name": "Assign", "done": "Assigned",
        "means": "The session belongs to a customer, and is charged by that customer’s plan.",
    },
}  # fmt: skip


async def show(request: web.Request) -> web.StreamResponse:
    """What waits, the oldest first."""
    only = request.query.get("only") or None
    if only not in {None, "held", "unattributed"}:
        raise ProblemError(400, f"only must be held or unattributed, not {only!r}")
    found = await desk.waits(request.app[BILLING], only, paging.number_and_text(request), PAGE)
    rows = [{**row, "reason": _reason(row)} for row in found.outcomes]
    return render(
        request,
        "decisions.html",
        only=only,
        rows=rows,
        counts=found.counts,
        words=WORDS,
        first="after" not in request.query,
        more="" if found.following is None else paging.following(request, *found.following),
    )


async def show_log(request: web.Request) -> web.StreamResponse:
    """What was decided, the newest first."""
    [before] = paging.numbers(request, 1) or [None]
    rows = await request.app[BILLING].decisions(None, before, LOG_PAGE + 1)
    more = paging.following(request, rows[LOG_PAGE - 1]["seq"]) if len(rows) > LOG_PAGE else ""
    return render(request, "decided.html", rows=rows[:LOG_PAGE], words=WORDS, more=more, first=before is None)


@dataclass(slots=True)
class Form:
    """A decision as it was filled in; `errors` says what is wrong with it."""

    kind: str
    outcomes: Sequence[str]
    actor: str
    reason: str
    customer: str
    back: str
    confirmed: bool
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one of them: `refused` says why not."""

    outcome: str
    session: str | None
    refused: str | None = None
    new: bool = True


async def decide(request: web.Request) -> web.StreamResponse:
    """Asked for once, it is shown again to be confirmed; confirmed, it is done, and what came of it is shown."""
    form = _read(request, await request.post())
    if not form.confirmed or form.errors:
        return await _ask(request, form)
    results = [await _ruled(request.app[BILLING], form, one) for one in form.outcomes]
    refused = any(one.refused for one in results)
    return render(request, "results.html", 409 if refused else 200, form=form, words=WORDS[form.kind], results=results)  # type: ignore[index]


async def _ask(request: web.Request, form: Form) -> web.StreamResponse:
    """Name what would be decided about, and what is wrong or odd."""
    billing = request.app[BILLING]
    known = await desk.named(billing, form.outcomes)
    found = [(one, {**known[one], "reason": _reason(known[one])} if one in known else None) for one in form.outcomes]
    named = form.kind == "assign" and form.customer not in {"", UNATTRIBUTED}
    return render(
        request,
        "confirm.html",
        422 if form.errors else 200,
        form=form,
        words=WORDS[form.kind],  # type: ignore[index]
        found=found,
        unseen=named and not await desk.seen(billing, form.customer),
    )


def _read(request: web.Request, given: MultiDictProxy[Any]) -> Form:
    kind = text_of(given, "kind")
    ids = [storable(value) or "" for value in given.getall("outcome", []) if isinstance(value, str)]
    if kind not in WORDS:
        raise ProblemError(400, f"{kind!r} cannot be decided")
    if len(ids) > AT_ONCE_MAX:
        raise ProblemError(400, f"at most {AT_ONCE_MAX} outcomes are decided at once")
    reason, customer, back = (text_of(given, name) for name in ("reason", "customer", "back"))
    confirmed = text_of(given, "confirmed") == "yes"
    form = Form(kind, ids, actor_of(request, given), reason, customer, page_of_ours(back), confirmed)
    if not ids:
        form.errors.append("Choose at least one outcome.")
    elif form.confirmed:
        form.errors += _wrong(form)
    return form


def _wrong(form: Form) -> list[str]:
    """What the API would not take either."""
    model: type[BaseModel] = AssignmentBody if form.kind == "assign" else DecisionBody
    body = {"actor": form.actor, "reason": form.reason}
    if form.kind == "assign":
        body["customer"] = form.customer
        if form.customer == UNATTRIBUTED:
            return [f"{UNATTRIBUTED} stands for outcomes whose customer was not found: it is no customer."]
    try:
        model.model_validate(body)
    except ValidationError as error:
        names = {"actor": "Your name", "reason": "The reason", "customer": "The customer"}
        return [
            f"{names[str(one['loc'][0])]} is missing." if not body[str(one["loc"][0])]
            else f"{names[str(one['loc'][0])]}: {one['msg']}."
            for one in error.errors()
        ]  # fmt: skip
    return []


async def _ruled(billing: Billing, form: Form, outcome_id: str) -> Result:
    customer = form.customer if form.kind == "assign" else None
    ruling = Ruling(outcome_id, form.kind, form.actor, form.reason, customer)  # type: ignore[arg-type]
    try:
        entry, new = await billing.decide(ruling)
    except UnknownOutcomeError:
        return Result(outcome_id, None, "there is no such outcome")
    except RefusedError as error:
        return Result(outcome_id, None, str(error))
    return Result(outcome_id, entry["session_id"], None, new)


def _reason(row: Mapping[str, Any]) -> str:
    return str(json.loads(row["body"])["data"].get("reason") or "")
