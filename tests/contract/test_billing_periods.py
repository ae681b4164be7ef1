"""Periods close and never change; what comes later stands on the next; plans change between and inside periods."""

from __future__ import annotations

import httpx
import pytest
from billing_api import DAY_US, Clock, event, get, post, put_plan, reversal, serving, simple_plan
from sqlalchemy.engine import URL

from sidecar.billing.rating.periods import Period

CUSTOMER = "/v1/customers/customer-17"


@pytest.fixture
async def api(api: httpx.AsyncClient) -> httpx.AsyncClient:
    await put_plan(api, "default", simple_plan(2))
    return api


async def invoice(api: httpx.AsyncClient, period: str) -> dict:
    """From what is pending, from the sums, and both the same."""
    before = await get(api, f"{CUSTOMER}/invoice", period=period)
    await api.upkeep.settle()
    assert await get(api, f"{CUSTOMER}/invoice", period=period) == before
    return before


async def test_a_period_closes_after_its_grace_time_and_never_changes(api: httpx.AsyncClient, clock: Clock) -> None:
    await post(api, event(1), event(2))
    clock.now_us += 11 * DAY_US  # 3 December, 10:00
    assert await api.billing.close_due() == Period(2026, 10)
    await post(api, event(3))
    assert (await invoice(api, "2026-11"))["status"] == "open"
    clock.now_us += DAY_US
    assert await api.billing.close_due() == Period(2026, 11)
    assert await api.billing.close_due() is None
    closed = await invoice(api, "2026-11")
    summary = await get(api, "/v1/summary", period="2026-11")
    assert (closed["status"], closed["total"], summary["charged"]) == ("closed", "6.00", 3)

    await post(api, event(4), reversal(5, of=1, time="2026-11-29T00:00:00Z"), event(6, subject="other"))
    await api.put(CUSTOMER, json={"seat_tier": "PRO", "started_at": "2026-11-20T00:00:00Z"})
    await put_plan(api, "default", simple_plan(9))
    assert await invoice(api, "2026-11") == closed
    assert await get(api, "/v1/summary", period="2026-11") == summary

    december = await invoice(api, "2026-12")
    assert (december["subtotal"], december["adjustments"], december["credits"]) == ("0.00", "2.00", "2.00")
    [adjustment] = december["adjustment_lines"]
    assert (adjustment["period"], adjustment["amount"]) == ("2026-11", "2.00"), "at the prices of its own period"
    assert [line["outcomes"] for line in december["credit_lines"]] == [["out_1"]]
    found = await get(api, "/v1/summary", period="2026-12")
    assert (found["charged"], found["reversed"], found["events"]) == (2, 1, 3)
    rows = (await get(api, "/v1/outcomes", customer="customer-17"))["outcomes"]
    assert {row["id"]: row["late"] for row in rows} == {
        "out_1": None, "out_2": None, "out_3": None, "out_4": "2026-12", "out_5": "2026-12",
    }  # fmt: skip


async def test_history_can_be_brought_in_while_the_ledger_is_young(api: httpx.AsyncClient, clock: Clock) -> None:
    await put_plan(api, "old", simple_plan(2))
    await api.put(CUSTOMER, json={"plan": "old"})
    await post(api, event(1, time="2025-03-10T00:00:00Z"))
    assert await api.billing.close_due() is None
    assert (await invoice(api, "2025-03"))["total"] == "2.00"
    clock.now_us += 3 * DAY_US
    assert await api.billing.close_due() == Period(2026, 10), "everything that was over when the ledger began"
    await post(api, event(2, time="2025-03-11T00:00:00Z"))
    assert (await invoice(api, "2025-03"))["total"] == "2.00"
    assert (await invoice(api, "2026-11"))["adjustments"] == "2.00"


async def test_replicas_close_a_period_once(ledger_url: URL, clock: Clock) -> None:
    async with serving(ledger_url, clock=clock) as one, serving(ledger_url, clock=clock) as other:
        clock.now_us += 12 * DAY_US
        closed = [await one.billing.close_due(), await other.billing.close_due()]
        assert closed == [Period(2026, 11), None]
        await post(other, event(1))
        assert (await get(one, "/v1/outcomes"))["outcomes"][0]["late"] == "2026-12"


async def test_a_plan_takes_effect_with_the_next_period(api: httpx.AsyncClient) -> None:
    await put_plan(api, "gold", simple_plan(5))
    await api.put(CUSTOMER, json={"plan": "default"})
    await api.put(CUSTOMER, json={"plan": "gold"})
    await post(api, event(1), event(2, time="2026-12-10T00:00:00Z"))
    assert [(await invoice(api, period))["total"] for period in ("2026-11", "2026-12")] == ["2.00", "5.00"]


async def test_inside_a_period_each_part_is_rated_by_its_own_plan_in_full(api: httpx.AsyncClient, clock: Clock) -> None:
    rails = ", guardrails: {min_spend: 3}"
    await put_plan(api, "a", simple_plan(2, rails))
    await put_plan(api, "b", simple_plan(5, rails).replace("rate: 5", "rate: 5, included_free: 1, currency: EUR"))
    await api.put(CUSTOMER, json={"plan": "a"})
    answer = await api.put(CUSTOMER, json={"plan": "b", "effective_from": "2026-11-15T00:00:00Z"})
    assert answer.status_code == 200
    days = ("2026-11-03", "2026-11-14", "2026-11-15", "2026-11-20", "2026-11-30", "2026-12-02", "2026-12-03")
    await post(api, *(event(n, time=f"{day}T00:00:00Z") for n, day in enumerate(days)))
    made = await invoice(api, "2026-11")
    assert [(line["quantity"], line["free"], line["amount"]) for line in made["lines"]] == [
        (2, 0, "4.00"), (3, 1, "10.00"),
    ]  # fmt: skip
    first, second = made["sections"]
    assert (first["from"], first["to"]) == ("2026-11-01T00:00:00Z", "2026-11-15T00:00:00Z")
    assert (first["plan_id"], second["plan_id"]) == ("a", "b")
    assert made["totals"] == {"USD": "4.00", "EUR": "10.00"}
    assert (made["currency"], made["total"]) == ("EUR", "10.00")
    assert (await invoice(api, "2026-12"))["totals"] == {"EUR": "5.00"}
    history = await get(api, f"{CUSTOMER}/history")
    assert [(version["plan"], version["effective_from"]) for version in history["versions"]] == [
        ("a", "2026-11-22T10:00:00Z"), ("b", "2026-11-15T00:00:00Z"),
    ]  # fmt: skip
    clock.now_us += 12 * DAY_US
    await api.billing.close_due()
    answer = await api.put(CUSTOMER, json={"plan": "a", "effective_from": "2026-11-29T00:00:00Z"})
    assert (answer.status_code, "2026-12 is the first open" in answer.json()["detail"]) == (422, True)
    for wrong in ("yesterday", "2026-11-29", 5):
        assert (await api.put(CUSTOMER, json={"plan": "a", "effective_from": wrong})).status_code == 422


async def test_a_line_leads_to_its_sessions(api: httpx.AsyncClient) -> None:
    await put_plan(api, "default", simple_plan(1, window="SESSION"))
    again = event(100, data={"session_id": "ses_3", "conversation": "c-3"})
    bad = event(101, data={"outcome": "INCONCLUSIVE", "state": "INCONCLUSIVE"})
    await post(api, *(event(n) for n in range(12)), again, bad, event(102, time="2026-12-01T00:00:00Z"))
    [line] = (await invoice(api, "2026-11"))["lines"]
    assert (line["quantity"], line["outcomes"]) == (12, 12)
    seen, after = [], None
    while True:
        page = await get(api, line["sessions"], limit="5", **({"after": after} if after else {}))
        seen += [use["session_id"] for use in page["sessions"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == sorted(f"ses_{n}" for n in range(12))
    assert (await get(api, "/v1/sessions/ses_3"))["outcome"] == "RESOLVED"
    await get(api, f"{CUSTOMER}/sessions", 400, period="2026-11")


async def test_each_section_names_and_lists_its_own_sessions(api: httpx.AsyncClient) -> None:
    """A plan that changes inside the month gives a charge two lines: neither lists what the other counts."""
    await put_plan(api, "b", simple_plan(3))
    await api.put(CUSTOMER, json={})
    await api.put(CUSTOMER, json={"plan": "b", "effective_from": "2026-11-15T00:00:00Z"})
    days = ("2026-11-20", "2026-11-10", "2026-11-21", "2026-11-11")
    await post(api, *(event(n, time=f"{day}T00:00:00Z") for n, day in enumerate(days)))
    await post(api, *(reversal(10 + n, of=n, time="2026-11-22T00:00:00Z") for n in (0, 1)))
    await post(api, event(4, subject="unattributed", time="2026-11-12T00:00:00Z"))
    whose = {"actor": "ann", "reason": "r", "customer": "customer-17"}
    assert (await api.post("/v1/outcomes/out_4/assign", json=whose)).status_code == 201
    made = await invoice(api, "2026-11")
    assert [line["outcomes"] for line in made["lines"]] == [3, 2]
    pages = [await get(api, line["sessions"]) for line in made["lines"]]
    assert [[(use["outcome"], use["taken_back"]) for use in page["sessions"]] for page in pages] == [
        [("out_1", "2026-11"), ("out_3", None), ("out_4", None)], [("out_0", "2026-11"), ("out_2", None)],
    ]  # fmt: skip
    first = await get(api, made["lines"][1]["sessions"], limit="1")
    assert ([use["outcome"] for use in first["sessions"]], bool(first["next"])) == (["out_0"], True), "no empty page"
    assert [(one["from"], one["amount"], one["outcomes"]) for one in made["credit_lines"]] == [
        ("2026-11-01T00:00:00Z", "2.00", ["out_1"]), ("2026-11-15T00:00:00Z", "3.00", ["out_0"]),
    ]  # fmt: skip
    both = await get(api, f"{CUSTOMER}/sessions", period="2026-11", charge="pricing")
    assert len(both["sessions"]) == 5


async def test_a_line_that_is_not_on_the_invoice_is_not_found(api: httpx.AsyncClient) -> None:
    await post(api, event(1))
    where = {"period": "2026-11", "charge": "pricing"}
    problem = await get(api, f"{CUSTOMER}/sessions", 404, **{**where, "charge": "nope"})
    assert problem["detail"] == "the invoice of 'customer-17' for 2026-11 has no line 'nope'"
    problem = await get(api, f"{CUSTOMER}/sessions", 404, **where, **{"from": "2026-11-15T00:00:00Z"})
    assert problem["detail"].endswith("no line 'pricing' from 2026-11-15T00:00:00Z on")
    await get(api, f"{CUSTOMER}/sessions", 400, **where, **{"from": "yesterday"})
