"""From posted outcomes to invoices and revenue, on both databases."""

from __future__ import annotations

from decimal import Decimal

import httpx
from billing_api import event, get, post, put_plan


async def test_outcomes_become_an_invoice_by_the_reference_plan(api: httpx.AsyncClient) -> None:
    events = [event(n) for n in range(102)]
    events.append(
        event(200, data={"outcome": "ESCALATED_TO_HUMAN", "state": "NOT_BILLABLE", "escalated_to_human": True})
    )
    events.append(event(201, data={"outcome": "INCONCLUSIVE", "state": "INCONCLUSIVE"}))
    assert await post(api, *events[:100]) == {"accepted": 100, "duplicates": 0, "rejected": []}
    assert await post(api, *events[100:]) == {"accepted": 4, "duplicates": 0, "rejected": []}
    invoice = await get(api, "/v1/customers/customer-17/invoice", period="2026-11")
    assert invoice["lines"] == [
        {
            "charge": "pricing", "metric": "ai_resolution", "quantity": 102, "trial": 0, "free": 100, "billed": 2,
            "amount": "1.98", "currency": "USD", "outcomes": 102, "from": "2026-11-01T00:00:00Z",
            "description": "Successful AI Resolutions: 100 free, 2 × 0.99 USD",
            "tiers": [{
                "units": 2, "per": "unit", "rate": "0.99", "flat": "0", "amount": "1.98", "currency": "USD",
            }],
            "sessions": "/v1/customers/customer-17/sessions?period=2026-11&charge=pricing"
            "&from=2026-11-01T00%3A00%3A00Z",
        }
    ]  # fmt: skip
    assert (invoice["customer"], invoice["period"], invoice["currency"]) == ("customer-17", "2026-11", "USD")
    assert (invoice["subtotal"], invoice["credits"], invoice["total"]) == ("1.98", "0.00", "1.98")
    summary = await get(api, "/v1/summary", period="2026-11")
    expected = {"sessions": 104, "charged": 2, "free": 100, "escalated": 1, "inconclusive": 1, "revenue": "1.98"}
    assert expected.items() <= summary.items()
    assert (await get(api, "/v1/customers/customer-17/invoice", period="2026-10"))["total"] == "0.00"


async def test_what_is_free_to_one_charge_and_charged_by_another_counts_as_free(api: httpx.AsyncClient) -> None:
    plan = """rate_plan:
  name: two charges
  currency: USD
  metrics: [{id: win, name: Wins, unit: win, aggregation: COUNT, event_field: outcome}]
  charges:
    - {id: some, metrics: [win], model: PER_UNIT, rate: 1, included_free: 1}
    - {id: all, metrics: [win], model: PER_UNIT, rate: 2}
"""
    await put_plan(api, "two", plan)
    assert (await api.put("/v1/customers/customer-17", json={"plan": "two"})).is_success
    await post(api, event(1), event(2))
    summary = await get(api, "/v1/summary", period="2026-11")
    assert (summary["free"], summary["charged"], summary["revenue"]) == (1, 1, "5.00")


async def test_a_contract_that_costs_something_without_outcomes_is_revenue(api: httpx.AsyncClient) -> None:
    plan = "rate_plan: {name: seat, currency: USD, metrics: [], charges: [{id: f, metrics: [], model: FLAT, rate: 49}]}"
    await put_plan(api, "seat", plan)
    assert (await api.put("/v1/customers/quiet", json={"plan": "seat"})).is_success
    assert (await get(api, "/v1/customers/quiet/invoice", period="2026-11"))["total"] == "49.00"
    summary = await get(api, "/v1/summary", period="2026-11")
    assert (summary["sessions"], summary["revenue"]) == (0, "49.00")


async def test_revenue_is_what_all_invoices_come_to_whoever_is_registered(api: httpx.AsyncClient) -> None:
    fee = "{id: fee, metrics: [], model: FLAT, rate: 49}, {id: each, metrics: [m], model: PER_UNIT, rate: 1}"
    metric = "{id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]}"
    await put_plan(api, "default", f"rate_plan: {{name: p, metrics: [{metric}], charges: [{fee}]}}")
    await post(api, event(1), event(2, subject="quiet", data={"outcome": "INCONCLUSIVE", "state": "INCONCLUSIVE"}))
    names = ("customer-17", "quiet", "nobody", "registered")
    for registered, expected in ((False, ("50.00", "0.00")), (True, ("99.00", "49.00"))):
        if registered:
            assert (await api.put("/v1/customers/registered", json={})).is_success
        for _ in ("from what is pending", "from the sums"):
            for period, revenue in zip(("2026-11", "2026-12"), expected, strict=True):
                made = [await get(api, f"/v1/customers/{name}/invoice", period=period) for name in names]
                assert str(sum(Decimal(one["total"]) for one in made)) == revenue
                assert (await get(api, "/v1/summary", period=period))["revenue"] == revenue
            await api.upkeep.settle()
