"""Prices of models: the API, the table that operators edit, and what the summary makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from billing_api import Clock, event, get, post
from console_pages import Console, Page, console_on
from console_work import words
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from sidecar.billing.rating.llm_cost import shipped_prices

HOSTILE = "\"><script>alert('1')</script>\N{RIGHT-TO-LEFT OVERRIDE}"


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url, clock=Clock()) as found:
        yield found


async def save(console: Console, status: int, **changes: object) -> httpx.Response:
    """Send the table as it is shown, with some rows changed: `rows` are more of (model, input, output)."""
    page = await console.page("/prices")
    shown = (await get(console.http, "/v1/model-prices"))["prices"]
    edited = changes.pop("edited", {})
    rows = [(one["model"], *edited.get(one["model"], (one["input"], one["output"]))) for one in shown]
    rows += changes.pop("rows", [])
    fields = {**page.form("").fields, "actor": "ann", "reason": "our contract"}
    for name, column in zip(("model", "input", "output"), zip(*rows, strict=True), strict=True):
        fields[name] = list(column)
    answer = await console.http.post("/prices", data={**fields, **changes})
    assert answer.status_code == status, answer.text[-2000:]
    return answer


async def test_the_api_keeps_versions_of_what_differs_from_the_shipped_prices(console: Console) -> None:
    shown = await get(console.http, "/v1/model-prices")
    assert (shown["version"], shown["actor"], shown["saved_at"]) == (0, None, None)
    assert {one["model"] for one in shown["prices"]} == set(shipped_prices().entries)
    assert {one["source"] for one in shown["prices"]} == {"shipped"}
    body = {"prices": {"ours": {"input": "0.1", "output": 2}}, "actor": "ann", "reason": "measured", "base": 0}
    for status in (201, 200):
        answer = await console.http.put("/v1/model-prices", json=body)
        assert answer.status_code == status, answer.text
        assert (answer.json()["version"], answer.json()["actor"]) == (1, "ann")
    [ours] = [one for one in answer.json()["prices"] if one["source"] == "saved"]
    assert ours == {"model": "ours", "input": "0.1", "output": "2", "source": "saved"}
    other = {**body, "prices": {}}
    assert (await console.http.put("/v1/model-prices", json=other)).status_code == 409
    assert (await console.http.put("/v1/model-prices", json={**other, "base": 1})).status_code == 201
    assert len((await get(console.http, "/v1/model-prices"))["prices"]) == len(shipped_prices().entries)


@pytest.mark.parametrize("price", ["-1", "1e9", "0.0000000001", "much", True, None, "NaN"])
async def test_the_api_refuses_what_is_no_price(console: Console, price: object) -> None:
    body = {"prices": {"ours": {"input": price, "output": 1}}, "actor": "a", "reason": "r"}
    answer = await console.http.put("/v1/model-prices", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "prices.ours.input"


async def test_a_change_holds_for_sessions_that_end_from_then_on(console: Console) -> None:
    clock, million = console.http.billing.clock, {"input": 1_000_000, "output": 0}
    await post(console.http, event(1, data={"tokens": million}))
    clock.now_us += 1
    await save(console, 303, edited={"gpt-4o": ("7", "8")})
    clock.now_us += 3_600_000_000
    await post(console.http, event(2, time="2026-11-22T11:00:00Z", data={"tokens": million}))
    assert (await get(console.http, "/v1/summary", period="2026-11"))["llm_cost"] == "9.50"
    clock.now_us += 1
    await save(console, 303, edited={"gpt-4o": ("", "")})
    await post(console.http, event(3, time="2026-11-22T12:00:00Z", data={"tokens": million}))
    assert (await get(console.http, "/v1/summary", period="2026-11"))["llm_cost"] == "12.00"


async def test_the_table_is_edited_and_says_who_changed_what(console: Console) -> None:
    await save(console, 303, edited={"gpt-4o": ("2", "8")}, rows=[("ours-", "0.5", "1"), ("", "", "")])
    page = await console.page("/prices")
    assert "gpt-4o yours shipped: 2.50 / 10.00" in words(page)
    assert "by ann : our contract" in words(page)
    assert "gpt-4o : 2.50 / 10.00 → 2 / 8" in words(page)
    assert "ours- : none → 0.5 / 1" in words(page)
    await save(console, 303, edited={"gpt-4o": ("2.50", "10"), "ours-": ("", "")})
    versions = await console.http.billing.model_prices()
    assert [len(one.prices) for one in versions] == [2, 0], "what is as it ships is not kept as one's own"
    await save(console, 303)
    assert len(await console.http.billing.model_prices()) == 2, "nothing changed, nothing is saved"


async def test_nothing_that_was_written_is_lost_when_it_cannot_be_saved(console: Console) -> None:
    rows = [("ours", "cheap", "1"), ("", "3", "3"), ("o3", "1", "1")]
    page = Page(await save(console, 422, edited={"gpt-4o": ("9.99", "10.00")}, rows=rows, reason=""))
    assert "ours, input price: write a number of USD per million tokens, like 2.50." in words(page)
    assert "o3 stands twice: keep one row." in words(page)
    assert "a row without a name" in words(page)
    assert "Reason: it is needed." in words(page)
    for value in ("cheap", "9.99"):
        assert f'value="{value}"' in page.answer.text
    assert await console.http.billing.model_prices() == []
    await save(console, 303, edited={"gpt-4o": ("1", "1")})
    page = Page(await save(console, 422, edited={"gpt-4o": ("2", "2")}, base="0"))
    assert "Version 1 was saved in the meantime" in words(page)
    assert 'value="2"' in page.answer.text
    assert page.form("").fields["base"] == "1"


async def test_names_and_reasons_are_text(console: Console) -> None:
    await save(console, 303, rows=[(HOSTILE, "1", "2")], reason=HOSTILE, actor=HOSTILE)
    page = await console.page("/prices")
    assert words(page).count(HOSTILE) == 4
    assert page.answer.text.count("<script") == 2


async def test_the_database_refuses_to_change_a_version(console: Console) -> None:
    await save(console, 303, edited={"gpt-4o": ("1", "1")})
    for statement in ("UPDATE model_price_versions SET actor = 'x'", "DELETE FROM model_price_versions"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with console.http.billing.database.writing() as connection:
                await connection.execute(text(statement))


async def test_sessions_without_a_price_are_counted_beside_the_cost_and_named_where_prices_are(
    console: Console,
) -> None:
    assert "without a price" not in (await console.page("/")).answer.text
    used = {"tokens": {"input": 6_000_000, "output": 0}}
    await post(
        console.http,
        event(1),
        event(2, data={"models": ["theirs-1"], **used}),
        event(3, data={"models": ["theirs-2", "theirs-1", "gpt-4o"], **used}),
        event(4, data={"models": ["theirs-1"], "shadow": True, **used}),
        event(5, data={"models": ["theirs-1"], "tokens": {"input": 0, "output": 0}}),
        event(6, data={"models": ["theirs-1"], **used}, time="2026-10-22T10:00:00Z"),
    )
    overview = await console.page("/", period="2026-11")
    assert "by list prices; 2 sessions without a price" in words(overview)
    assert '<a href="/prices">2 sessions without a price</a>' in overview.answer.text
    page = words(await console.page("/prices"))
    assert "3 sessions of the newest used models that no row below fits" in page
    assert "theirs-1 : 3 sessions theirs-2 : 1 session" in page
    await save(console, 303, rows=[("theirs-1", "0", "0")])
    page = words(await console.page("/prices"))
    assert "1 session of the newest used models" in page
    assert "theirs-1 : 3 sessions" not in page
    # By the clock here they ended after the price was saved.
    assert "1 session without a price" in words(await console.page("/", period="2026-11"))
