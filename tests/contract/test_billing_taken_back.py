"""Where an outcome and what replaces it stand in different months, come in no order, or are of different customers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from billing_api import DAY_US, Clock, event, get, post, put_plan, reversal, serving, simple_plan
from sqlalchemy.engine import URL

from sidecar.billing.ledger import behind
from sidecar.cli import outcomes

ANN = {"actor": "ann", "reason": "r"}
INVOICE = "/v1/customers/customer-17/invoice"


@pytest.fixture
async def api(ledger_url: URL) -> AsyncIterator[httpx.AsyncClient]:
    clock = Clock()
    async with serving(ledger_url, clock=clock) as found:
        await put_plan(found, "default", simple_plan(1, window="SESSION"))
        found.clock = clock
        yield found


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """No account is so small that all of its rows are looked at."""

    async def has_few(*_: Any) -> bool:
        return False

    monkeypatch.setattr(behind, "has_few", has_few)


def resolved_again(number: int, of: int, time: str, **changes: Any) -> dict[str, Any]:
    data = {"session_id": f"ses_{of}", "revision": 1, "reverses": f"out_{of}"}
    return event(number, time=time, data=data, **changes)


async def credits_of(api: httpx.AsyncClient, period: str) -> list[tuple[Any, ...]]:
    """From what is pending, from the sums, and both the same."""
    before = await get(api, INVOICE, period=period)
    await api.upkeep.settle()
    assert await get(api, INVOICE, period=period) == before
    return [(one["amount"], one["outcomes"], one["instead"], one["more"]) for one in before["credit_lines"]]


async def to_december(api: httpx.AsyncClient) -> None:
    """November is closed."""
    api.clock.now_us += 12 * DAY_US
    while await api.billing.close_due() is not None:
        continue


async def test_a_resolution_of_the_next_month_takes_the_place_of_this_months(
    api: httpx.AsyncClient, many: None
) -> None:
    await post(api, event(1), resolved_again(11, of=1, time="2026-12-01T10:00:00Z"))
    assert await credits_of(api, "2026-12") == [("1.00", ["out_1"], [], False), ("-1.00", [], ["out_11"], False)]
    made, found = await get(api, INVOICE, period="2026-12"), await get(api, "/v1/summary", period="2026-12")
    assert (made["total"], found["reversed"], found["revised"], found["taken_back"]) == ("0.00", 0, 1, 0)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        outcomes._show_invoice(made)
    assert "of 2026-11: 1 outcome taken back" in said.getvalue()
    assert "of 2026-12: 1 outcome charged instead" in said.getvalue()
    sheet = await api.get(INVOICE, params={"period": "2026-12"}, headers={"Accept": "text/csv"})
    rows = [line.split(",") for line in sheet.text.splitlines()]
    shown = [(row[11], row[12]) for row in rows if row[3] == "credit"]
    assert shown == [("1", "-1.00"), ("1", "1.00")]


async def test_a_line_marks_when_whoever_took_the_place_was_taken_back(api: httpx.AsyncClient, many: None) -> None:
    """The line has the first, the credit names the last."""
    last = reversal(12, of=1, time="2026-12-01T11:00:00Z")
    last["data"] |= {"revision": 2, "reverses": "out_11"}
    await post(api, event(1), resolved_again(11, of=1, time="2026-11-22T11:00:00Z"), last)
    assert (await credits_of(api, "2026-11"), await credits_of(api, "2026-12")) == (
        [], [("1.00", ["out_11"], [], False)]
    )  # fmt: skip
    page = await get(api, "/v1/customers/customer-17/sessions", period="2026-11", charge="pricing")
    assert [(use["outcome"], use["taken_back"]) for use in page["sessions"]] == [("out_1", "2026-12")]
    found = [(await get(api, "/v1/summary", period=month))["reversed"] for month in ("2026-11", "2026-12")]
    assert found == [0, 1]


async def test_who_came_after_its_revision_is_named_where_it_is_charged(api: httpx.AsyncClient, many: None) -> None:
    await post(api, reversal(11, of=1, time="2026-11-22T11:00:00Z"))
    await to_december(api)
    await post(api, event(1))
    made = await get(api, INVOICE, period="2026-12")
    assert (made["adjustments"], made["credits"]) == ("1.00", "1.00")
    assert await credits_of(api, "2026-12") == [("1.00", ["out_1"], [], False)]


async def test_who_is_assigned_when_it_is_replaced_is_named_where_it_is_charged(
    api: httpx.AsyncClient, many: None
) -> None:
    await post(api, event(1, subject="unattributed"))
    await post(api, reversal(11, of=1, time="2026-11-22T11:00:00Z", subject="unattributed"))
    await to_december(api)
    given = await api.post("/v1/outcomes/out_11/assign", json={**ANN, "customer": "customer-17"})
    assert given.status_code == 201, given.text
    assert await credits_of(api, "2026-12") == [("1.00", ["out_1"], [], False)]


async def test_who_is_replaced_by_another_customers_is_named(api: httpx.AsyncClient) -> None:
    await post(api, event(1), resolved_again(11, of=1, time="2026-11-22T11:00:00Z", subject="other"))
    assert await credits_of(api, "2026-11") == [("1.00", ["out_1"], [], False)]


async def test_of_a_large_account_it_is_said_that_there_is_more(api: httpx.AsyncClient, many: None) -> None:
    await post(api, event(1), resolved_again(11, of=1, time="2026-11-22T11:00:00Z", subject="other"))
    assert await credits_of(api, "2026-11") == [("1.00", [], [], True)]
    await post(api, event(2), reversal(12, of=2, time="2026-11-22T11:00:00Z"))
    assert await credits_of(api, "2026-11") == [("2.00", ["out_2"], [], True)]


async def test_those_that_came_first_are_named(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revisions and decisions, in one order."""
    monkeypatch.setattr(behind, "NAMED_MAX", 1)
    await post(api, event(1), event(2), event(3))
    for number in (1, 2, 3):
        api.clock.now_us += 1_000_000
        if number == 2:
            assert (await api.post("/v1/outcomes/out_2/reverse", json=ANN)).status_code == 201
        else:
            await post(api, reversal(10 + number, of=number, time="2026-11-22T11:00:00Z"))
    assert await credits_of(api, "2026-11") == [("3.00", ["out_1"], [], True)]
