"""The console's books and shadow results: statements beside the ledger, closings, what shadow events would cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from billing_api import DAY_US, Clock, event, post, put_plan, simple_plan
from console_pages import Console, console_on
from console_work import words, worked_out
from sqlalchemy.engine import URL

from sidecar.billing.ledger import reconcile

HOSTILE = "\"><script>alert('1')</script>\N{RIGHT-TO-LEFT OVERRIDE}"


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url, clock=Clock()) as found:
        await put_plan(found.http, "default", simple_plan())
        yield found


def statement(tenant: str, finalized: int, opened: int, generation: str = "g1") -> dict[str, Any]:
    data = {
        "tenant": tenant, "opened": opened, "open": 0, "finalized": {"RESOLVED": finalized}, "dropped": 4,
        "generation": generation,
    }  # fmt: skip
    return {
        "specversion": "1.0", "id": f"stm_{tenant}", "source": "sidecar/x", "type": "sidecar.statement.v1",
        "subject": tenant, "time": "2026-11-22T10:00:00Z", "datacontenttype": "application/json", "data": data,
    }  # fmt: skip


async def test_books_without_anything_say_what_will_be_there(console: Console) -> None:
    page = await console.page("/books")
    assert "No sidecar has stated anything yet." in words(page)
    assert "November 2026 is open and closes" in words(page)
    assert "No month is closed yet." in words(page)


async def test_a_difference_is_an_alarm_after_an_hour_and_the_page_says_what_to_do(console: Console) -> None:
    await post(console.http, event(1), statement("acme", 3, 3), statement(HOSTILE, 1, 2, HOSTILE), kind=None)
    page = await console.page("/books")
    assert "Not arrived 3 sessions" in words(page)
    assert "Alarms 1 " in words(page), "the counters of one do not add up"
    assert words(page).count(HOSTILE) == 2
    assert page.answer.text.count("<script") == 2
    console.http.billing.clock.now_us += 3_700_000_000
    page = await console.page("/books")
    assert "Alarms 2 " in words(page)
    assert "acme alarm generation g1 3 1 2 2 of 22 Nov 2026, 10:00:00 0 0 4" in words(page)
    assert "dead-letter list" in words(page)


async def test_the_overview_sums_what_is_missing_and_leads_to_an_alarm(console: Console) -> None:
    assert "Books – no statement yet" in words(await console.page("/"))
    await post(console.http, event(1), event(2, data={"tenant": "b"}), statement("acme", 3, 3), kind=None)
    assert "Books 2 stated, not arrived" in words(await console.page("/"))
    await post(console.http, statement("b", 0, 0), kind=None)
    assert "Books 2 stated, not arrived" in words(await console.page("/")), "one too many of b is none of acme"
    await post(console.http, event(3), event(4), statement("c", 0, 1), kind=None)
    page = await console.page("/")
    assert "Books 0 alarm: see Books" in words(page)
    assert page.links.count("/books") == 2


async def test_what_came_after_a_statement_is_no_difference(console: Console) -> None:
    later = [event(n, time="2026-11-22T10:00:30Z") for n in range(2, 9)]
    await post(console.http, event(1), statement("acme", 1, 1), *later, kind=None)
    page = words(await console.page("/books"))
    assert "Missing Arrived since Open then" in page
    assert "acme generation g1 1 1 0 7 0 4" in page
    assert "Books 0 all closed" in words(await console.page("/"))


async def test_what_is_overdue_is_not_hidden_by_a_newer_statement(console: Console) -> None:
    await post(console.http, event(1), statement("acme", 3, 3), kind=None)
    console.http.billing.clock.now_us += 3_600_000_000
    anew = {**statement("acme", 1, 1, "g2"), "id": "stm_2", "time": "2026-11-22T11:00:00Z"}
    await post(console.http, anew)
    page = words(await console.page("/books"))
    assert "Not arrived 2 sessions" in page
    assert "2 of 22 Nov 2026, 10:00:00" in page
    assert "Books 2 alarm: see Books" in words(await console.page("/"))


async def test_sessions_of_no_hour_are_shown_and_said_what_to_do_about(console: Console) -> None:
    one = statement("acme", 3, 3)
    one["data"] |= {"finalized_by_hour": {"2026-11-22T10": 1}, "finalized_before": 0}
    await post(console.http, event(1), event(2), event(3), one, kind=None)
    page = words(await console.page("/books"))
    assert "Alarms 1 " in page
    assert "acme alarm generation g1 3 2 of no hour 3 0 0 0 4" in page
    assert "Sessions of no hour are finished" in page


async def test_tenants_that_are_not_looked_at_are_told_of(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "TENANTS_MAX", 2)
    for tenant in ("a", "b"):
        await post(console.http, statement(tenant, 0, 0))
    assert "There are more tenants" not in words(await console.page("/books"))
    await post(console.http, statement("c", 0, 0))
    page = words(await console.page("/books"))
    assert "There are more tenants than are looked at" in page
    assert "c generation" not in page


async def test_closed_months_are_listed(console: Console) -> None:
    console.http.billing.clock.now_us += 14 * DAY_US
    assert str(await console.http.billing.close_due()) == "2026-11"
    page = await console.page("/books")
    assert "November 2026 and all before it, closed 6 Dec 2026, 10:00:00" in words(page)
    assert "December 2026 is open" in words(page)
    assert "/?period=2026-11" in page.links


async def test_shadow_results_stand_beside_live_ones(console: Console) -> None:
    path = "/shadow?period=2026-11"
    assert "No shadow session ended in November 2026." in words(await console.page(path))
    shadow = {"shadow": True}
    await post(
        console.http, event(1), event(2), event(3, data=shadow), event(4, subject=HOSTILE, data=shadow),
        event(5, subject="unattributed", data=shadow), event(6, time="2026-10-22T10:00:00Z", data=shadow),
    )  # fmt: skip
    page = await console.page(path)
    assert "Would be charged 2 " in words(page)
    assert "Charged live 2 " in words(page)
    assert "Not worked out yet" in words(page)
    page = await worked_out(console, path)
    assert "customer-17 $1.00 1 $2.00 2 Shadow invoice of customer-17" in words(page)
    assert f"{HOSTILE} $1.00 1 $0.00 0" in words(page)
    assert "2 customers $2.00" in words(page)
    assert page.answer.text.count("<script") == 2
    assert "/customers/customer-17/invoice?period=2026-11&shadow=true" in page.links
    page = await console.page("/customers/customer-17/invoice?period=2026-11&shadow=true")
    assert "What shadow sessions would have cost: no invoice" in words(page)
    assert "Total $1.00" in words(page)
