"""Where a visitor could get stuck: addresses and names that are nothing, lists that end, lines that look alike."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from billing_api import DAY_US, Clock, event, post, put_plan, simple_plan
from console_pages import VIEWER, Console, Page, console_on
from console_work import finished, words
from sqlalchemy.engine import URL

from sidecar.billing.console import backtests
from sidecar.billing.console.routes import PAGES
from sidecar.billing.rating.periods import Period
from sidecar.billing.work import runs
from sidecar.billing.work.runs import Wanted

BROWSER = {"Accept": "text/html,*/*"}
NAMED = 7


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url, clock=Clock()) as found:
        yield found


async def test_an_address_that_is_nothing_says_so_and_leads_back(console: Console) -> None:
    page = Page(await console.http.get("/customers/a/b/<i>c", headers=BROWSER))
    assert page.status == 404
    assert "No such page Nothing is at /customers/a/b/<i>c." in page.text
    assert {"/", "/customers", "/books"} <= set(page.links), "the navigation is there"
    assert "Try again" not in page.text
    page = Page(await console.http.post("/books", headers=BROWSER))
    assert (page.status, "/books is there, but takes GET,HEAD, not POST." in page.text) == (405, True)


async def test_a_stranger_is_not_shown_the_navigation_by_a_wrong_address(ledger_url: URL) -> None:
    async with console_on(ledger_url, tokens=True) as console:
        page = Page(await console.http.get("/nope", headers=BROWSER))
        assert (page.status, set(page.links)) == (404, {"#content", "/"})
        await console.log_in(VIEWER, "vera")
        page = Page(await console.http.get("/nope", headers=BROWSER))
        assert (page.status, "/books" in page.links, "vera, viewer" in page.text) == (404, True, True)


@pytest.mark.parametrize("path", [path for path in PAGES if "{" not in path])
async def test_every_page_belongs_to_a_place_of_the_navigation(console: Console, path: str) -> None:
    answer = await console.http.get(path)
    place = {"/new-plan": "Plans", "/prices": "Plans", "/shadow": "Books", "/decisions/made": "Decisions"}
    marked = [part.partition("</a>")[0] for part in answer.text.split(" aria-current=")[1:] if "</nav>" in part]
    mark = '"true">' if path in place else '"page">'
    assert marked[0] == mark + place.get(path, "Overview" if path == "/" else path[1:].capitalize())


async def test_a_name_that_nothing_was_recorded_for_is_said_to_be_one(console: Console) -> None:
    await post(console.http, event(1), event(2, subject="only-in-shadow", data={"shadow": True}))
    assert (await console.http.put("/v1/customers/only-registered", json={"plan": "default"})).status_code == 200
    for name, unknown in (
        ("customer-17", False), ("only-in-shadow", False), ("only-registered", False), ("<i>customer-71", True),
    ):  # fmt: skip
        for path in ("", "/invoice"):
            page = await console.page(f"/customers/{quote(name)}{path}", period="2026-11")
            said = f"Nothing was ever recorded for a customer “{name}”"
            assert (said in words(page)) == unknown, (name, path)


async def test_lines_of_one_name_are_told_apart_by_their_charges(console: Console) -> None:
    charge = "{{id: {0}, name: {1}, metrics: [m], model: PER_UNIT, rate: 1}}"
    charges = ", ".join(charge.format(*one) for one in (("pro", "Resolved"), ("basic", "Resolved"), ("x", "Lead")))
    plan = simple_plan().replace("pricing: {model: PER_UNIT, rate: 1}", f"charges: [{charges}]")
    assert "charges" in plan
    await put_plan(console.http, "default", plan)
    await post(console.http, event(1))
    text = words(await console.page("/customers/customer-17/invoice", period="2026-11"))
    assert [one in text for one in ("Resolved pro · m", "Resolved basic · m", "Lead m")] == [True] * 3, text


async def test_an_invoice_says_which_it_is_and_of_when(console: Console) -> None:
    await post(console.http, event(1))
    path = "/customers/customer-17/invoice?period=2026-11"
    text = words(await console.page(path))
    assert "Invoice, not closed yet" in text
    assert "Reference customer-17/2026-11 Period November 2026 As of 22 Nov 2026, 10:00:00 Plan" in text
    console.http.billing.clock.now_us += 30 * DAY_US
    assert await console.http.billing.close_due() is not None
    text = words(await console.page(path))
    assert "Reference customer-17/2026-11 Period November 2026 Closed 22 Dec 2026 Plan" in text
    assert "Reference" not in words(await console.page(f"{path}&shadow=true")), "that is no invoice"


async def test_the_sessions_of_a_backtest_go_on_to_the_last_that_was_named(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtests, "PAGE", 3)
    await post(console.http, *(event(n, data={"outcome": "QUALIFIED"}) for n in range(NAMED)))
    text = simple_plan(3).replace("operator: EQUALS, value: RESOLVED", "operator: IN, value: [RESOLVED, QUALIFIED]")
    form = (await console.page("/plans/default/backtest")).form("/plans/default/backtest")
    answer = await console.http.post(form.action, data={**form.fields, "text": text, "period": "2026-11"})
    page, path, seen, said = await finished(console, answer.headers["location"]), "", [], []
    first = answer.headers["location"]
    while True:
        seen += [link for link in page.links if link.startswith("/sessions/")]
        said += [part for part in ("1 to 3 of 7.", "4 to 6 of 7.", "7 to 7 of 7.") if part in words(page)]
        path = next((link for link in page.links if "after=" in link), "")
        if not path:
            break
        page = await console.page(path)
        assert f"{first}#sessions" in page.links
    assert sorted(seen) == [f"/sessions/ses_{n}" for n in range(NAMED)]
    assert said == ["1 to 3 of 7.", "4 to 6 of 7.", "7 to 7 of 7."]
    assert "No more." in words(await console.page(f"{first}?after=7"))
    await console.page(f"{first}?after=x", 400)


async def test_a_backtest_that_names_less_than_it_counts_says_how_much(console: Console) -> None:
    billing = console.http.billing
    sessions = [{"session_id": f"s{n}", "customer": "c", "actual": "free", "tested": "charged"} for n in range(2)]
    result = {
        "plan": "p", "actual": {}, "tested": {}, "difference": {}, "customers": [], "customers_counted": 0,
        "sessions": sessions, "sessions_changed": 1234,
    }  # fmt: skip
    run_id = await runs.add(billing.database, Wanted("backtest", Period(2026, 11), "", "default", ""), billing.clock())
    await runs.change(billing.database, run_id, state="done", result=json.dumps(result))
    page = await console.page(f"/plans/default/backtest/{run_id}")
    assert "1 to 2 of 1\N{NARROW NO-BREAK SPACE}234. A run names the first 2." in page.answer.text
