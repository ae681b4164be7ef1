"""What one outcome costs: the same as a second ledger says that never had it, whatever the plan."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from billing_api import Clock, event, get, post, put_plan, reversal, serving, simple_plan
from sqlalchemy.engine import URL

from sidecar.billing.ledger import changed, entries
from sidecar.billing.ledger.database import sqlite_url

_METRIC = (
    "metrics: [{id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]}]"
)


def priced(pricing: str) -> str:
    return f"rate_plan: {{name: p, {_METRIC}, pricing: {pricing}}}"


PLANS = {
    "per unit, some free": priced("{model: PER_UNIT, rate: 0.99, included_free: 3}"),
    "tiers": priced("{model: VOLUME, tiers: [{up_to: 4, rate: 2}, {rate: 1}]}"),
    "packages": priced("{model: PACKAGE, rate: 5, package_size: 3}"),
    "capped": simple_plan(2, ", guardrails: {max_spend_cap: 9, max_spend_behavior: CAP}"),
    "once a conversation": simple_plan(2, window="CONVERSATION"),
    "once a period": simple_plan(2, window="BILLING_PERIOD"),
    "a conversation once a period": simple_plan(2, window="BILLING_PERIOD").replace("session_id", "conversation"),
}


def story(seed: int) -> list[dict]:
    """Ten outcomes of three customers, some held, shadow, taken back at once or in the next month."""
    rng = random.Random(seed)
    events = []
    for number in range(10):
        data = {"conversation": f"c-{rng.randrange(5)}", "held": rng.random() < 0.1, "shadow": rng.random() < 0.1}
        subject = rng.choice(["a", "a", "b", "unattributed"])
        events.append(event(number, subject=subject, time=f"2026-11-{rng.randrange(10, 20)}T00:00:00Z", data=data))
        if rng.random() < 0.3:
            time = rng.choice(["2026-11-25T00:00:00Z", "2026-12-02T00:00:00Z"])
            events.append(reversal(100 + number, of=number, time=time, subject=subject))
    return events


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[object]:
    """A factory of ledgers."""
    async with AsyncExitStack() as stack:
        count = 0

        async def make(plan: str, events: list[dict]) -> httpx.AsyncClient:
            nonlocal count
            count += 1
            api = await stack.enter_async_context(serving(sqlite_url(tmp_path / f"{count}.sqlite3")))
            await put_plan(api, "default", plan)
            await post(api, *events, kind="application/cloudevents-batch+json")
            return api

        yield make


async def totals(api: httpx.AsyncClient, customer: str) -> dict[tuple[str, str], Decimal]:
    found = {}
    for period in ("2026-11", "2026-12"):
        invoice = await get(api, f"/v1/customers/{customer}/invoice", period=period)
        found |= {(period, code): Decimal(amount) for code, amount in invoice["totals"].items()}
    return found


@pytest.mark.parametrize("plan", PLANS)
async def test_it_is_the_invoice_minus_one_without_the_outcome(made, plan: str) -> None:
    events = story(len(plan))
    whole = await made(PLANS[plan], events)
    pending = {one["id"]: await get(whole, f"/v1/outcomes/{one['id']}") for one in events}
    await whole.upkeep.settle()
    for left_out in events[::4]:
        shown = await get(whole, f"/v1/outcomes/{left_out['id']}")
        assert shown == pending[left_out["id"]], "the same from what is pending and from the sums"
        if shown["charged_to"] is None:
            assert shown["amounts"] == []
            continue
        without = await made(PLANS[plan], [one for one in events if one is not left_out])
        now, then = await totals(whole, shown["charged_to"]), await totals(without, shown["charged_to"])
        expected = {key: now.get(key, 0) - then.get(key, 0) for key in now.keys() | then.keys()}
        told = {(one["period"], one["currency"]): Decimal(one["amount"]) for one in shown["amounts"]}
        assert told == {key: amount for key, amount in expected.items() if amount}, left_out["id"]


async def test_it_follows_what_operators_decide(ledger_url: URL) -> None:
    async with serving(ledger_url) as api:
        await put_plan(api, "default", simple_plan(2))
        await post(api, event(1, data={"held": True}), event(2, subject="unattributed"), event(3))
        assert await costs(api, 1) == ("customer-17", [])
        assert await costs(api, 2) == (None, [])
        two = [{"period": "2026-11", "currency": "USD", "amount": "2.00"}]
        assert await costs(api, 3) == ("customer-17", two)
        ann = {"actor": "ann", "reason": "r"}
        await api.post("/v1/outcomes/out_1/release", json=ann)
        await api.post("/v1/outcomes/out_2/assign", json={**ann, "customer": "late"})
        await api.post("/v1/outcomes/out_3/reverse", json=ann)
        assert await costs(api, 1) == ("customer-17", two)
        assert await costs(api, 2) == ("late", two)
        assert await costs(api, 3) == ("customer-17", [])
        shown = await get(api, "/v1/outcomes/out_2")
        assert [one["kind"] for one in shown["decisions"]] == ["assign"]
        await get(api, "/v1/outcomes/out_none", 404)
        await get(api, "/v1/outcomes/%00", 404)


async def costs(api: httpx.AsyncClient, number: int) -> tuple[str | None, list[dict]]:
    shown = await get(api, f"/v1/outcomes/out_{number}")
    return shown["charged_to"], shown["amounts"]


DECIDED = {"actor": "ann", "reason": "r"}


async def decide_some(api: httpx.AsyncClient, rng: random.Random, names: list[str]) -> list[tuple[str, int]]:
    """Whatever can be decided about some outcomes; (outcome, number) of each decision."""
    made = []
    for name in rng.sample(names, min(3, len(names))):
        for kind in ("release", "reverse", "assign", "drop"):
            body = {**DECIDED, "customer": "a"} if kind == "assign" else DECIDED
            answer = await api.post(f"/v1/outcomes/{name}/{kind}", json=body)
            assert answer.status_code in {200, 201, 409}, answer.text
            if answer.status_code == 201:
                made.append((name, answer.json()["number"]))
                break
    return made


async def arrival(api: httpx.AsyncClient, name: str, number: int = 0) -> dict[tuple[str, str], Decimal]:
    shown = await get(api, f"/v1/outcomes/{name}")
    ruled = {(one["outcome"], one["number"]): one for one in shown["decisions"]}
    one = ruled[name, number] if number else shown
    return {(one["period"], one["currency"]): Decimal(one["amount"]) for one in one["changed"]}


async def all_totals(api: httpx.AsyncClient) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for customer in ("a", "b"):
        found.update(await totals(api, customer))
    return found


def difference(now: Counter[tuple[str, str]], before: Counter[tuple[str, str]]) -> dict[tuple[str, str], Decimal]:
    keys = now.keys() | before.keys()
    return {key: Decimal(now[key] - before[key]) for key in keys if now[key] != before[key]}


@pytest.mark.parametrize("plan", PLANS)
async def test_what_came_is_what_the_invoices_changed_by_when_it_came(tmp_path: Path, plan: str) -> None:
    """One by one, with decisions between, and asked for later as well as at once."""
    rng, clock = random.Random(plan), Clock()
    async with serving(sqlite_url(tmp_path / "ledger.sqlite3"), clock=clock) as api:
        await put_plan(api, "default", PLANS[plan])
        names: list[str] = []
        told: dict[tuple[str, int], dict[tuple[str, str], Decimal]] = {}
        for one in story(len(plan)):
            before = await all_totals(api)
            await post(api, one)
            now = await all_totals(api)
            told[one["id"], 0] = difference(now, before)
            assert await arrival(api, one["id"]) == told[one["id"], 0], one
            names.append(one["id"])
            clock.now_us += 1
            if rng.random() < 0.4:
                before = await all_totals(api)
                taken = await decide_some(api, random.Random(rng.random()), names[-1:])
                now = await all_totals(api)
                told |= dict.fromkeys(taken, difference(now, before))
                clock.now_us += 1
            if rng.random() < 0.3:
                await api.upkeep.settle()
        for (name, number), amounts in told.items():
            assert await arrival(api, name, number) == amounts, (name, number)
        assert any(number for _, number in told), "something was decided"


async def test_what_comes_in_one_moment_adds_up_to_the_invoices(ledger_url: URL) -> None:
    """By a clock that stands still, and in one batch."""
    async with serving(ledger_url) as api:
        await put_plan(api, "default", PLANS["per unit, some free"])
        events = story(7)
        await post(api, *events, kind="application/cloudevents-batch+json")
        keys = [(one["id"], 0) for one in events]
        keys += await decide_some(api, random.Random(1), [one["id"] for one in events])
        assert len(keys) > len(events)
        total: Counter[tuple[str, str]] = Counter()
        for key in keys:
            total.update(await arrival(api, *key))
        assert {key: amount for key, amount in total.items() if amount} == {
            key: amount for key, amount in (await all_totals(api)).items() if amount
        }


async def test_rows_of_replicas_whose_clocks_differ_are_told_by_their_times(ledger_url: URL) -> None:
    """What a decision changed is without all that came after it, in whatever order the rows were numbered."""
    plan = priced("{model: VOLUME, tiers: [{up_to: 1, rate: 10}, {up_to: 2, rate: 4}, {rate: 1}]}")
    clock = Clock()
    start = clock.now_us
    async with serving(ledger_url, clock=clock) as api:
        await put_plan(api, "default", plan)
        for number, seconds in ((1, 1), (3, 3), (2, 1), (4, 3)):
            clock.now_us = start + seconds * 1_000_000
            await post(api, event(number))
        clock.now_us = start + 2 * 1_000_000
        await api.post("/v1/outcomes/out_1/reverse", json=DECIDED)
        changed_then = await arrival(api, "out_1", 1)
    assert changed_then == {("2026-11", "USD"): Decimal("2.00")}, "2 of 4 each were there, then one of 10"


async def test_what_came_long_ago_is_not_worked_out(ledger_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed, "LATER_MAX", 2)
    monkeypatch.setattr(entries, "FEW", 2)
    async with serving(ledger_url) as api:
        await put_plan(api, "default", simple_plan(2))
        await post(api, *(event(number) for number in range(4)))
        shown = [(await get(api, f"/v1/outcomes/out_{number}"))["changed"] for number in range(4)]
        two = [{"period": "2026-11", "currency": "USD", "amount": "2.00"}]
        assert shown == [None, two, two, two]
        await put_plan(api, "default", PLANS["a conversation once a period"])
        assert (await get(api, "/v1/outcomes/out_3"))["changed"] is None


async def test_decisions_are_listed_newest_first(ledger_url: URL) -> None:
    async with serving(ledger_url) as api:
        await post(api, event(1), event(2, subject="unattributed"), event(3, subject="b"))
        await api.post("/v1/outcomes/out_1/reverse", json=DECIDED)
        await api.post("/v1/outcomes/out_2/assign", json={**DECIDED, "customer": "b"})
        await api.post("/v1/outcomes/out_3/reverse", json=DECIDED)
        first = await get(api, "/v1/decisions", limit="2")
        assert [one["outcome"] for one in first["decisions"]] == ["out_3", "out_2"]
        rest = await get(api, "/v1/decisions", limit="2", after=first["next"])
        assert ([one["kind"] for one in rest["decisions"]], rest["next"]) == (["reverse"], None)
        theirs = await get(api, "/v1/decisions", customer="b")
        assert [one["kind"] for one in theirs["decisions"]] == ["reverse", "assign"]
        assert (await get(api, "/v1/decisions", customer="nobody"))["decisions"] == []
        await get(api, "/v1/decisions", 400, after="x")
