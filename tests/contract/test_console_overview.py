"""The numbers of the console's first page, on a company's ledger: they lead from one to the other, and to invoices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from company import company
from console_pages import Page
from console_server import ConsoleServer

from sidecar.billing.ledger.entries import Wanted

MONTHS = ("2026-10", "2026-11")
CHARGED = r"Charged (\d+) (\d+) at first(?:, (\d+) later)?(?:, (\d+) taken back)? · by customer"
ESCALATED = r"Escalated to a human (\d+) (\d+) at first(?:, (\d+) later)? · sessions"
MONEY = r"Revenue \$([\d.]+) LLM cost \$([\d.]+) by list prices Margin per resolution \$([\d.]+) "
REVERSED = r"Reversed (\d+) charges taken back this month"


async def test_the_numbers_of_a_companys_months_do_not_contradict_each_other(tmp_path: Path) -> None:
    async with company(tmp_path, share=0.25) as server:
        for month in MONTHS:
            await _agrees(server, month)
        before = await _read(server, MONTHS[1])
        entries = await server.billing.entries(Wanted(customer="northwind", limit=1000))
        revised = {entry["session_id"] for entry in entries if entry["revision"]}
        alone = [entry for entry in entries if entry["session_id"] not in revised and entry["period"] == MONTHS[1]]
        charged = next(entry for entry in alone if entry["state"] == "RESOLVED" and not entry["held"])
        answer = await server.api.post(
            f"/v1/outcomes/{charged['id']}/reverse", json={"actor": "ann", "reason": "disputed"}
        )
        assert answer.is_success, answer.text
        for _ in range(2):  # while the decision waits to be summed up, and afterwards
            after = await _agrees(server, MONTHS[1])
            assert (after["net"], after["reversed"]) == (before["net"] - 1, before["reversed"] + 1)
            assert after["revenue"] == before["revenue"] - Decimal("0.99")
            await server.settle()


async def _read(server: ConsoleServer, month: str) -> dict[str, Any]:
    text = Page(await server.api.get("/", params={"period": month})).text
    found = [re.search(pattern, text) for pattern in (CHARGED, ESCALATED, MONEY, REVERSED)]
    assert all(found), text[:1500]
    charged, escalated, money, back = ([Decimal(one or 0) for one in match.groups()] for match in found if match)
    names = ("net", "first", "later", "taken_back", "escalated", "escalated_first", "escalated_later",
             "revenue", "llm_cost", "margin", "reversed")  # fmt: skip
    shown = dict(zip(names, [*charged, *escalated, *money, *back], strict=True))
    table = re.search(
        r"Charged, since Sessions At first (\d+) (?:Charged later (\d+) )?Taken back −(\d+) Charged (\d+)", text
    )
    assert table, text[-1500:]
    assert [int(one or 0) for one in table.groups()] == [
        shown[name] for name in ("first", "later", "taken_back", "net")
    ]
    return shown


async def _agrees(server: ConsoleServer, month: str) -> dict[str, Any]:
    shown = await _read(server, month)
    assert shown["net"] == shown["first"] + shown["later"] - shown["taken_back"]
    assert shown["reversed"] == shown["taken_back"] > 0
    assert shown["escalated"] == shown["escalated_first"] + shown["escalated_later"]
    assert shown["escalated"] == await _escalated(server, month)
    assert shown["margin"] == round((shown["revenue"] - shown["llm_cost"]) / shown["net"], 2)
    customers = await _customers(server, month)
    assert shown["net"] == sum(sessions for sessions, _ in customers.values())
    sessions, total = customers["northwind"]
    assert sessions * Decimal("0.99") == total > 0
    page = Page(await server.api.get("/customers/northwind", params={"period": month}))
    assert f"{sessions} sessions charged" in page.text
    return shown


async def _customers(server: ConsoleServer, month: str) -> dict[str, tuple[int, Decimal]]:
    page = await server.api.get("/customers", params={"period": month})
    cells = r'<a href="/customers/(\w+)\?.*?data-label="Charged">(\d+)</td>.*?data-label="Total"><a[^>]*>\$([\d.]+)'
    return {name: (int(number), Decimal(total)) for name, number, total in re.findall(cells, page.text, re.DOTALL)}


async def _escalated(server: ConsoleServer, month: str) -> int:
    """Sessions that stand as escalated at the month's end, less those that did at the end of the one before."""
    entries = await server.billing.entries(Wanted(limit=10_000))
    return _standing(entries, month) - _standing((one for one in entries if one["period"] < month), month)


def _standing(entries: Iterable[dict[str, Any]], month: str) -> int:
    last: dict[str, dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda one: one["revision"]):
        if entry["period"] <= month and not entry["shadow"]:
            last[entry["session_id"]] = entry
    return sum(json.loads(entry["body"])["data"]["escalated_to_human"] for entry in last.values())
