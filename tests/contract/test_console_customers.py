"""A customer's pages: from the list down to an invoice's lines, what was said of it, its alerts and its spend."""

from __future__ import annotations

import pytest
from billing_api import Clock, event, put_plan, simple_plan
from console_pages import GRADUATED, Console, console_on, graduated, post
from sqlalchemy.engine import URL

from sidecar.billing.console import customers


async def test_a_customer_is_found_from_the_list_down_to_the_sessions_of_a_line(console: Console) -> None:
    await graduated(console)
    await post(console, *(event(number) for number in range(5)), event(9, subject="other"))
    await console.http.upkeep.settle()
    listed = await console.page("/customers", period="2026-11")
    assert "customer-17 Graduated 4 $12.98 $12.98 of $20.00" in listed.text
    assert "customer-17" not in (await console.page("/customers", q="OTH", period="2026-11")).text
    one = await console.page("/customers/customer-17", period="2026-11")
    assert "$12.98" in one.text
    assert "65 % $12.98 of $20.00" in one.text
    assert "graduated" in one.text
    invoice = await console.page("/customers/customer-17/invoice", period="2026-11")
    assert (
        "AI resolutions resolutions 5 1 4 $2.98 2 $0.99 $1.98 2 $0.50 $1.00 Platform fee 1 0 1 $10.00 per period $10.00"
        in (invoice.text.replace("\N{NO-BREAK SPACE}", " ").replace("  ", " "))
    )
    line = next(link for link in invoice.links if "/lines/" in link)
    assert [link for link in (await console.page(line)).links if "/sessions/ses_" in link] == [
        f"/sessions/ses_{number}" for number in range(5)
    ]
    table = await console.http.get("/customers/customer-17/invoice.csv", params={"period": "2026-11"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert "AI resolutions" in table.text


async def test_the_pages_of_customers_go_on_where_the_last_ended(console: Console) -> None:
    await post(console, *(event(number, subject=f"c-{number:03}") for number in range(60)))
    await console.http.upkeep.settle()
    seen: list[str] = []
    path = "/customers?period=2026-11"
    while path:
        page = await console.page(path)
        seen += [
            link.partition("?")[0] for link in page.links if link.startswith("/customers/") and "invoice" not in link
        ]
        path = next((link for link in page.links if "after=" in link), "")
    assert seen == [f"/customers/c-{number:03}" for number in range(60)]


async def test_what_was_said_of_a_customer_and_its_alerts_are_shown(console: Console) -> None:
    await graduated(console)
    facts = {"plan": "graduated", "seats": 0, "seat_tier": "PRO", "attributes": {"region": "<b>eu</b>"}}
    assert (await console.http.put("/v1/customers/customer-17", json=facts)).status_code == 200
    await post(console, *(event(number) for number in range(40)))
    await console.http.upkeep.settle()
    page = await console.page("/customers/customer-17", period="2026-11")
    assert "region <b>eu</b>" in page.text
    assert "0 PRO" in page.text
    assert "100 %" in page.text
    assert "capped" in page.text
    over = await console.page("/", period="2026-11")
    assert "Nearest their cap Customer Spend against cap Share customer-17" in over.text


async def test_a_change_of_plan_within_a_month_shows_every_currency_and_the_spend_against_the_cap_it_led_to(
    ledger_url: URL,
) -> None:
    async with console_on(ledger_url, clock=Clock()) as console:
        await put_plan(console.http, "a", simple_plan(2, ", guardrails: {max_spend_cap: 2}"))
        await put_plan(
            console.http,
            "b",
            simple_plan(5, ", guardrails: {max_spend_cap: 50}").replace("rate: 5", "rate: 5, currency: EUR"),
        )
        for plan, since in (("a", None), ("b", "2026-11-15T00:00:00Z")):
            body = {"plan": plan} if since is None else {"plan": plan, "effective_from": since}
            assert (await console.http.put("/v1/customers/customer-17", json=body)).status_code == 200
        days = ("2026-11-03", "2026-11-14", "2026-11-16")
        await post(console, *(event(n, time=f"{day}T00:00:00Z") for n, day in enumerate(days)))
        await console.http.upkeep.settle()
        for path in ("/customers", "/customers/customer-17", "/customers/customer-17/invoice"):
            page = await console.page(path, period="2026-11")
            assert "€5.00 + $4.00" in page.text, path
            assert "€5.00 of €50.00" in page.text, path


async def test_the_spend_against_a_cap_is_of_the_plan_that_has_it(ledger_url: URL) -> None:
    async with console_on(ledger_url, clock=Clock()) as console:
        await put_plan(console.http, "a", simple_plan(2))
        await put_plan(console.http, "b", simple_plan(5, ", guardrails: {max_spend_cap: 50}"))
        await console.http.put("/v1/customers/customer-17", json={"plan": "a"})
        body = {"plan": "b", "effective_from": "2026-11-15T00:00:00Z"}
        assert (await console.http.put("/v1/customers/customer-17", json=body)).status_code == 200
        days = ("2026-11-03", "2026-11-14", "2026-11-16")
        await post(console, *(event(n, time=f"{day}T00:00:00Z") for n, day in enumerate(days)))
        assert "$5.00 of $50.00" in (await console.page("/customers/customer-17", period="2026-11")).text


async def test_what_is_said_for_later_does_not_hold_now(ledger_url: URL) -> None:
    clock = Clock()
    async with console_on(ledger_url, clock=clock) as console:
        await put_plan(console.http, "a", simple_plan(2))
        await put_plan(console.http, "b", simple_plan(3))
        later = {"plan": "b", "seats": 8, "effective_from": "2026-12-15T00:00:00Z"}
        for body in ({"plan": "b"}, {"plan": "a"}, later):
            assert (await console.http.put("/v1/customers/customer-17", json=body)).status_code == 200
            clock.now_us += 1_000_000
        page = await console.page("/customers/customer-17")
        assert "15 Dec 2026, 00:00:00 later b" in page.text
        assert "22 Nov 2026, 10:00:01 now a from 1 Dec 2026" in page.text
        clock.now_us += 30 * 86_400_000_000
        page = await console.page("/customers/customer-17")
        assert "15 Dec 2026, 00:00:00 now b" in page.text


async def test_before_the_first_month_there_is_none(console: Console) -> None:
    for path in ("/", "/customers/customer-17", "/customers/customer-17/invoice"):
        page = await console.page(path, period="1970-01")
        assert not [link for link in page.links if "1969" in link], path
        assert [link for link in (await console.page(path, period="1970-02")).links if "1970-01" in link], path


async def test_the_lines_of_a_month_with_two_plans_lead_each_to_its_own_sessions(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customers, "LINES_PAGE", 1)
    await graduated(console)
    customer, later = "/v1/customers/customer-17", {"effective_from": "2026-11-15T00:00:00Z"}
    await put_plan(console.http, "other", GRADUATED)
    assert (await console.http.put(customer, json={"plan": "other", **later})).status_code == 200
    await post(console, *(event(n, time=f"2026-11-{day}T00:00:00Z") for n, day in enumerate((20, 10, 21))))
    invoice = await console.page("/customers/customer-17/invoice", period="2026-11")
    seen = []
    for path in (link for link in invoice.links if "/lines/" in link):
        page = await console.page(path)
        seen.append([link for link in page.links if link.startswith("/sessions/")])
        while following := [link for link in page.links if "after=" in link]:
            page = await console.page(following[0])
            seen[-1] += [link for link in page.links if link.startswith("/sessions/")]
    assert seen == [["/sessions/ses_1"], ["/sessions/ses_0", "/sessions/ses_2"]]
    session = await console.page("/sessions/ses_1")
    [line] = [link for link in session.links if "/lines/" in link]
    assert [link for link in (await console.page(line)).links if link.startswith("/sessions/")] == ["/sessions/ses_1"]
