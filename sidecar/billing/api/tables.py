"""CSV for spreadsheets (RFC 4180): the ledger as a stream, an invoice line by line.

A text that a spreadsheet would take for a formula gets an apostrophe before it: conversation ids and the like come from
outside.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from aiohttp import web

from sidecar.billing.api.keys import BILLING
from sidecar.billing.ledger.entries import PAGE_MAX, Wanted
from sidecar.billing.rating.invoice import timestamp

OUTCOME_COLUMNS = (
    "id", "time", "received_at", "period", "late", "customer", "tenant", "session_id", "conversation", "state",
    "outcome", "revision", "reverses", "held", "billable", "shadow",
)  # fmt: skip
LINE_COLUMNS = (
    "customer", "period", "from", "kind", "charge", "metric", "description", "quantity", "trial", "free", "billed",
    "outcomes", "amount", "currency",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SIGNED = re.compile(r"[+-][0-9]+(\.[0-9]+)?")  # a number is none


async def outcomes(request: web.Request, wanted: Wanted) -> web.StreamResponse:
    """Every ledger row that is wanted, newest first, page by page as the client reads."""
    answer = web.StreamResponse(headers=_headers("outcomes.csv"))
    await answer.prepare(request)
    await answer.write(_written([OUTCOME_COLUMNS]))
    wanted = replace(wanted, limit=PAGE_MAX)
    while rows := await request.app[BILLING].entries(wanted):
        await answer.write(_written(_outcome(row) for row in rows))
        if len(rows) < PAGE_MAX:
            break
        wanted = replace(wanted, before_seq=rows[-1]["seq"])
    await answer.write_eof()
    return answer


def invoice(made: dict[str, Any]) -> web.Response:
    """Lines, adjustments, credits, what guardrails changed, and the total of every currency, one below the other."""
    rows = [LINE_COLUMNS]
    common = {"customer": made["customer"], "period": made["period"]}
    entries = [{**line, "kind": "line"} for line in made["lines"]]
    for section in made["sections"]:
        where = {"from": section["from"], "currency": section["currency"]}
        rails = section["guardrails"]
        entries += [
            {**where, "kind": "not charged by the cap", "amount": _negative(rails["not_charged_by_cap"])},
            {**where, "kind": "added to the minimum", "amount": rails["added_to_min_spend"]},
        ]
    entries += [{**change, "kind": "adjustment", "outcomes": None} for change in made["adjustment_lines"]]
    entries += [
        {**change, "kind": "credit", "amount": _negative(change["amount"]), "outcomes": _named(change)}
        for change in made["credit_lines"]
    ]
    entries += [{"kind": "total", "amount": amount, "currency": code} for code, amount in made["totals"].items()]
    rows += [tuple(_cell({**common, **one}.get(name)) for name in LINE_COLUMNS) for one in entries]
    return web.Response(body=_written(rows), headers=_headers("invoice.csv"))


def _named(credit: dict[str, Any]) -> int | None:
    """How many outcomes a credit takes back, or one below zero charges instead; None when it does not name all."""
    return None if credit["more"] else len(credit["instead" if credit["amount"].startswith("-") else "outcomes"])


def _negative(amount: str) -> str:
    if not amount.strip("0."):
        return amount
    return amount.removeprefix("-") if amount.startswith("-") else f"-{amount}"


def _outcome(row: dict[str, Any]) -> tuple[Any, ...]:
    shown = {**row, "time": timestamp(row["at_us"]), "received_at": timestamp(row["received_us"])}
    return tuple(_cell(shown[name]) for name in OUTCOME_COLUMNS)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA) and not _SIGNED.fullmatch(value):
        return "'" + value
    return value


def _written(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _headers(name: str) -> dict[str, str]:
    return {"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": f'attachment; filename="{name}"'}
