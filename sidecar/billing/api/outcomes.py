"""`/v1/outcomes` and `/v1/sessions`: events in, ledger rows out, and what operators decide about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sidecar.billing.api import tables
from sidecar.billing.api.bodies import AssignmentBody, DecisionBody
from sidecar.billing.api.keys import BILLING, METRICS
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import csv_wanted, exact, json_body, period_of, whole_number
from sidecar.billing.events import STATES, UnreadableBodyError, parse_json, read_body
from sidecar.billing.ledger.append import storable
from sidecar.billing.ledger.deciding import Kind, RefusedError, Ruling, UnknownOutcomeError
from sidecar.billing.ledger.entries import PAGE_MAX, Wanted
from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.rating.invoice import timestamp

EVENTS_MAX = 100
SESSION_ENTRIES_MAX = 1000
SEQ_MAX = 1 << 62
_SINGLE = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"


async def post_outcomes(request: web.Request) -> web.Response:
    """One event or a batch; every event has its own fate, and 200 means that what was accepted is on disk."""
    kind = request.content_type
    charset = (request.charset or "utf-8").lower()
    if kind not in {_SINGLE, _BATCH} or charset not in {"utf-8", "us-ascii"}:
        raise ProblemError(415, f"Content-Type must be {_SINGLE} or {_BATCH}, not {kind} ({charset})")
    try:
        content, bodies = read_body(await request.read())
    except UnreadableBodyError as error:
        raise ProblemError(400, str(error)) from None
    if kind == _SINGLE and not isinstance(content, dict):
        raise ProblemError(400, f"{_SINGLE} holds one JSON object; send a list as {_BATCH}")
    if kind == _BATCH and not isinstance(content, list):
        raise ProblemError(400, f"{_BATCH} holds a JSON list; send one object as {_SINGLE}")
    events = content if isinstance(content, list) else [content]
    if len(events) > EVENTS_MAX:
        raise ProblemError(413, f"{len(events)} events: at most {EVENTS_MAX} in one batch")
    receipt = await request.app[BILLING].post(events, bodies)
    request.app[METRICS].took(receipt)
    return web.json_response(
        {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": receipt.rejected}
    )


async def get_outcomes(request: web.Request) -> web.StreamResponse:
    """A page of the ledger, newest first; `next` is the `after` of the following page, or null. CSV has all pages."""
    query = request.query
    limit = whole_number(query.get("limit"), "limit", 100, PAGE_MAX)
    after = query.get("after")
    wanted = Wanted(
        customer=storable(query.get("customer")),
        state=_state(query.get("state")),
        conversation=storable(query.get("conversation")),
        period=None if "period" not in query else str(period_of(query["period"])),
        before_seq=whole_number(after, "after", 0, SEQ_MAX) if after is not None else None,
        limit=limit + 1,
    )
    if csv_wanted(request):
        return await tables.outcomes(request, wanted)
    rows = await request.app[BILLING].entries(wanted)
    more = len(rows) > limit
    page = rows[:limit]
    return exact({"outcomes": [entry(row) for row in page], "next": str(page[-1]["seq"]) if more else None})


def _state(text: str | None) -> str | None:
    """`?state=RESOLVED`."""
    if text is not None and text not in STATES:
        raise ProblemError(400, f"state must be one of {', '.join(STATES)}, not {text!r}")
    return text


async def get_outcome(request: web.Request) -> web.Response:
    """One row of the ledger, the decisions about its session, and what it costs: the invoice minus one without it; with
    what it, and each decision, changed on invoices when it came.
    """
    billing, name = request.app[BILLING], storable(request.match_info["id"])
    rows = await billing.entries(Wanted(id=name, limit=1))
    if not rows:
        raise ProblemError(404, f"there is no outcome {name!r}")
    taken = await billing.decisions_about(rows[0]["session_id"])
    payer, amounts = await billing.worth(rows[0])
    changed, decided = await billing.changed(rows[0], taken)
    ruled = [{**decision(one), "changed": amount} for one, amount in zip(taken, decided, strict=True)]
    told = {"decisions": ruled, "charged_to": payer, "amounts": amounts, "changed": changed}
    return exact({**entry(rows[0]), **told})


async def get_decisions(request: web.Request) -> web.Response:
    """What operators decided, newest first; `next` is the `after` of the following page, or null."""
    query = request.query
    limit = whole_number(query.get("limit"), "limit", 100, PAGE_MAX)
    after = query.get("after")
    before_seq = whole_number(after, "after", 0, SEQ_MAX) if after is not None else None
    rows = await request.app[BILLING].decisions(storable(query.get("customer")), before_seq, limit + 1)
    page, more = rows[:limit], len(rows) > limit
    following = str(page[-1]["seq"]) if more else None
    return web.json_response({"decisions": [decision(row) for row in page], "next": following})


async def get_session(request: web.Request) -> web.Response:
    """One session: where it stands by its last revision, its evidence, every ledger entry and decision."""
    session_id = storable(request.match_info["id"]) or ""
    billing = request.app[BILLING]
    rows = await billing.entries(Wanted(session_id=session_id, limit=SESSION_ENTRIES_MAX))
    if not rows:
        raise ProblemError(404, f"no outcome of session {session_id!r} has arrived")
    rows.sort(key=lambda row: (row["revision"], row["at_us"], row["id"]))
    taken = await billing.decisions_about(session_id)
    assigned = next((one["assigned"] for one in taken if one["kind"] == "assign"), None)
    last = entry(rows[-1])
    if last["customer"] == UNATTRIBUTED and assigned is not None:
        last["customer"] = assigned
    return exact(
        {
            **{name: last[name] for name in ("session_id", "conversation", "customer", "state", "outcome", "revision")},
            "evidence": last["event"]["data"].get("evidence", []),
            "entries": [entry(row) for row in rows],
            "decisions": [decision(one) for one in taken],
        }
    )


async def release(request: web.Request) -> web.Response:
    """A held outcome is charged after all."""
    return await _decide(request, "release")


async def drop(request: web.Request) -> web.Response:
    """A held outcome is never charged."""
    return await _decide(request, "drop")


async def reverse(request: web.Request) -> web.Response:
    """An outcome is taken back: a credit in the period of now."""
    return await _decide(request, "reverse")


async def assign(request: web.Request) -> web.Response:
    """The session of an unattributed outcome gets its customer."""
    return await _decide(request, "assign")


async def _decide(request: web.Request, kind: Kind) -> web.Response:
    model = AssignmentBody if kind == "assign" else DecisionBody
    body = await json_body(request, model, "the decision")
    customer = body.customer if isinstance(body, AssignmentBody) else None
    if customer == UNATTRIBUTED:
        raise ProblemError(422, f"{UNATTRIBUTED} stands for outcomes whose customer was not found: it is no customer")
    ruling = Ruling(request.match_info["id"], kind, body.actor, storable(body.reason) or "", customer)
    try:
        taken, new = await request.app[BILLING].decide(ruling)
    except UnknownOutcomeError:
        raise ProblemError(404, f"there is no outcome {ruling.outcome_id!r}") from None
    except RefusedError as error:
        raise ProblemError(409, str(error)) from None
    return web.json_response(decision(taken), status=201 if new else 200)


def entry(row: Mapping[str, Any]) -> dict[str, Any]:
    """A ledger row as answered."""
    shown = ("id", "customer", "session_id", "conversation", "state", "outcome", "revision", "reverses")
    flags = ("held", "billable", "shadow", "period", "late")
    return {
        **{name: row[name] for name in (*shown, *flags)},
        "time": timestamp(row["at_us"]),
        "received_at": timestamp(row["received_us"]),
        "event": parse_json(row["body"].encode()),
    }


def decision(row: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as answered."""
    shown = ("session_id", "number", "kind", "actor", "reason", "customer", "assigned", "period")
    return {
        "outcome": row["outcome_id"],
        **{name: row[name] for name in shown},
        "decided_at": timestamp(row["decided_us"]),
    }
