"""Sessions: the list with its filters, and one session with all that speaks for or against its charge."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, get_args
from urllib.parse import quote

from aiohttp import web

from sidecar.billing import desk
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.console import paging
from sidecar.billing.console.decisions import WORDS
from sidecar.billing.console.shell import HELP_DESK_URL, origin, render
from sidecar.billing.console.telling import timeline, verdict
from sidecar.billing.events import OutcomeData
from sidecar.billing.ledger.append import storable
from sidecar.billing.ledger.deciding import DECISIONS
from sidecar.billing.ledger.sessions import LOOKED_MAX, Asked, Place
from sidecar.billing.ledger.standing import units_now
from sidecar.billing.rating.llm_cost import llm_cost

PAGE = 50
STATES: Sequence[str] = get_args(OutcomeData.model_fields["state"].annotation)


async def show_all(request: web.Request) -> web.StreamResponse:
    """Sessions by their last revision, the newest first."""
    state = paging.text(request, "state")
    if state is not None and state not in STATES:
        raise ProblemError(400, f"state must be one of {', '.join(STATES)}, not {state!r}")
    asked = Asked(
        text=paging.text(request, "q"),
        customer=paging.text(request, "customer"),
        state=state,
        outcome=paging.text(request, "outcome"),
        reason=paging.text(request, "reason"),
        held=request.query.get("held") == "true",
        from_us=paging.day_us(request, "from"),
        until_us=paging.day_us(request, "to", end=True),
    )
    after = paging.numbers(request, 2)
    found = await desk.find(request.app[BILLING], asked, None if after is None else Place(*after), PAGE)
    return render(
        request,
        "sessions.html",
        asked=asked,
        states=STATES,
        filtered=asked != Asked(),
        narrowed=asked not in {Asked(), Asked(text=asked.text)},
        found=found,
        first=after is None,
        first_page=paging.address("", {name: value for name, value in request.query.items() if name != "after"}),
        more="" if found.following is None else paging.following(request, *found.following),
        looked_max=LOOKED_MAX,
    )


async def show(request: web.Request) -> web.StreamResponse:
    """One session: what was charged for it, why, and what can be done about it."""
    session_id = storable(request.match_info["id"]) or ""
    found = await desk.session(request.app[BILLING], session_id)
    if found is None:
        raise ProblemError(404, f"no outcome of session {session_id!r} has arrived")
    data = json.loads(found.last["body"])["data"]
    prices = await request.app[BILLING].price_history()
    return render(
        request,
        "session.html",
        found=found,
        data=data,
        counted=[one for one in found.postings or () if one.units or one.trial],
        verdict=verdict(found),
        attributes=_attributes(data),
        event=json.dumps(json.loads(found.last["body"]), indent=2, ensure_ascii=False),
        verify=shlex.join(["sidecar", "sessions", "verify", session_id, "--billing", origin(request)]),
        told=timeline(found.revisions, found.decisions),
        possible={kind: WORDS[kind] for kind in DECISIONS[found.stands] if kind != "reverse" or standing(found)},
        tokens=_tokens(data),
        llm_cost=_readable(llm_cost(data, prices.at(found.last["at_us"]))),
        help_desk=help_desk(request, found.last["conversation"]),
    )


def standing(found: desk.SessionFile) -> bool:
    """Whether there is anything to take back."""
    return found.postings is None or any(sum_ > 0 for sum_ in units_now(found.postings).values())


def help_desk(request: web.Request, conversation: str | None) -> str | None:
    """Where the conversation is in the help desk."""
    template = request.app[HELP_DESK_URL]
    return template.replace("{conversation}", quote(conversation, safe="")) if template and conversation else None


def _readable(cost: Decimal) -> Decimal:
    """Most sessions cost less than a cent: four digits, or as many as show that it is something."""
    return cost.quantize(Decimal(1).scaleb(-max(4, -cost.adjusted()))) if cost else cost


def _attributes(data: Mapping[str, Any]) -> Mapping[str, str]:
    given = data.get("attributes")
    found = given if isinstance(given, Mapping) else {}
    return {name: one if isinstance(one, str) else json.dumps(one) for name, one in list(found.items())[:20]}


def _tokens(data: Mapping[str, Any]) -> Mapping[str, Any]:
    given = data.get("tokens")
    found = given if isinstance(given, Mapping) else {}
    return {side: count if isinstance(count := found.get(side), int) else None for side in ("input", "output")}
