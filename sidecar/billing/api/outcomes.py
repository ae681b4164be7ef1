"""`/v1/outcomes` and `/v1/sessions`: events in, ledger rows out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.events import UnreadableBodyError, canonical_json, parse_json
from sidecar.billing.ledger.append import storable
from sidecar.billing.ledger.entries import PAGE_MAX, Wanted
from sidecar.billing.rating.periods import from_us

EVENTS_MAX = 100
SESSION_ENTRIES_MAX = 1000
_SINGLE = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"


async def post_outcomes(request: web.Request) -> web.Response:
    """One event or a batch; every event has its own fate, and 200 means that what was accepted is on disk."""
    kind = request.content_type
    charset = (request.charset or "utf-8").lower()
    if kind not in {_SINGLE, _BATCH} or charset not in {"utf-8", "us-ascii"}:
        raise ProblemError(415, f"Content-Type must be {_SINGLE} or {_BATCH}, not {kind} ({charset})")
    try:
        content = parse_json(await request.read())
    except UnreadableBodyError as error:
        raise ProblemError(400, str(error)) from None
    if kind == _SINGLE and not isinstance(content, dict):
        raise ProblemError(400, f"{_SINGLE} holds one JSON object; send a list as {_BATCH}")
    if kind == _BATCH and not isinstance(content, list):
        raise ProblemError(400, f"{_BATCH} holds a JSON list; send one object as {_SINGLE}")
    events = content if isinstance(content, list) else [content]
    if len(events) > EVENTS_MAX:
        raise ProblemError(413, f"{len(events)} events: at most {EVENTS_MAX} in one batch")
    receipt = await request.app[BILLING].post(events)
    return web.json_response(
        {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": receipt.rejected}
    )


async def get_outcomes(request: web.Request) -> web.Response:
    """A page of the ledger, newest first; `next` is the `after` of the following page, or null."""
    query = request.query
    limit = _number(query.get("limit"), "limit", 100, PAGE_MAX)
    after = query.get("after")
    wanted = Wanted(
        customer=query.get("customer"),
        state=query.get("state"),
        conversation=storable(query.get("conversation")),
        before_seq=_number(after, "after", 0, 1 << 62) if after is not None else None,
        limit=limit + 1,
    )
    rows = await request.app[BILLING].entries(wanted)
    more = len(rows) > limit
    page = rows[:limit]
    return _exact({"outcomes": [_entry(row) for row in page], "next": str(page[-1]["seq"]) if more else None})


async def get_session(request: web.Request) -> web.Response:
    """One session: where it stands by its last revision, its evidence, and every ledger entry, oldest first."""
    session_id = request.match_info["id"]
    wanted = Wanted(session_id=session_id, limit=SESSION_ENTRIES_MAX)
    rows = await request.app[BILLING].entries(wanted)
    if not rows:
        raise ProblemError(404, f"no outcome of session {session_id!r} has arrived")
    rows.sort(key=lambda row: (row["revision"], row["at_us"], row["id"]))
    last = _entry(rows[-1])
    return _exact(
        {
            **{name: last[name] for name in ("session_id", "conversation", "customer", "state", "outcome", "revision")},
            "evidence": last["event"]["data"].get("evidence", []),
            "entries": [_entry(row) for row in rows],
        }
    )


def _exact(content: dict[str, Any]) -> web.Response:
    """An answer that shows the numbers of events as they came, not as the nearest float."""
    return web.Response(text=canonical_json(content), content_type="application/json")


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("id", "customer", "session_id", "conversation", "state", "outcome", "revision", "reverses")
    flags = ("held", "billable", "shadow", "period")
    return {
        **{name: row[name] for name in (*shown, *flags)},
        "time": from_us(row["at_us"]).isoformat().replace("+00:00", "Z"),
        "received_at": from_us(row["received_us"]).isoformat().replace("+00:00", "Z"),
        "event": parse_json(row["body"].encode()),
    }


def _number(text: str | None, name: str, default: int, largest: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= largest):
        raise ProblemError(400, f"{name} must be a whole number from 1 to {largest}, not {text!r}")
    return int(text)
