"""The billing API over real HTTP, on a real SQLite file and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import random
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from billing_api import BATCH, ONE, Clock, event, get, post, put_plan, reversal, serving, simple_plan
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

PLANS = Path(__file__).parents[2] / "examples" / "plans"


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


async def test_a_repeated_event_is_a_duplicate_and_a_changed_one_a_conflict(api: httpx.AsyncClient) -> None:
    assert await post(api, event(1)) == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert await post(api, event(1)) == {"accepted": 0, "duplicates": 1, "rejected": []}
    reordered = dict(reversed(list(event(1).items())))
    assert (await post(api, reordered))["duplicates"] == 1
    conflict = event(1, subject="somebody-else")
    assert await post(api, conflict) == {
        "accepted": 0, "duplicates": 0, "rejected": [{"id": "out_1", "reason": "conflict"}],
    }  # fmt: skip
    [stored] = (await get(api, "/v1/outcomes"))["outcomes"]
    assert stored["customer"] == "customer-17"


async def test_every_event_of_a_batch_has_its_own_fate(api: httpx.AsyncClient) -> None:
    broken = event(3, data={"state": "OPEN"})
    nameless = {key: value for key, value in event(4).items() if key != "id"}
    result = await post(api, event(1), event(2), event(1), event(2, time="2026-11-22T11:00:00Z"), broken, nameless, 7)
    assert (result["accepted"], result["duplicates"]) == (2, 1)
    reasons = {entry["id"]: entry["reason"] for entry in result["rejected"]}
    assert len(result["rejected"]) == 4
    assert reasons["out_2"] == "conflict"
    assert "data.state" in reasons["out_3"]
    assert await post(api, kind=BATCH) == {"accepted": 0, "duplicates": 0, "rejected": []}
    assert (await post(api, broken))["rejected"][0]["id"] == "out_3", "a single one is answered alike"


async def test_eight_clients_posting_the_same_hundred_events_make_one_row_each(api: httpx.AsyncClient) -> None:
    events = [event(n) for n in range(100)]

    async def client(seed: int) -> dict:
        mine = events[:]
        random.Random(seed).shuffle(mine)
        counts = {"accepted": 0, "duplicates": 0, "rejected": 0}
        for start in range(0, 100, 20):
            result = await post(api, *mine[start : start + 20])
            counts["accepted"] += result["accepted"]
            counts["duplicates"] += result["duplicates"]
            counts["rejected"] += len(result["rejected"])
        return counts

    counts = await asyncio.gather(*(client(seed) for seed in range(8)))
    assert sum(count["accepted"] for count in counts) == 100
    assert sum(count["duplicates"] for count in counts) == 700
    assert sum(count["rejected"] for count in counts) == 0
    assert (await get(api, "/v1/summary", period="2026-11"))["sessions"] == 100


async def test_two_replicas_on_one_database_agree(ledger_url: URL) -> None:
    async with serving(ledger_url) as one, serving(ledger_url) as other:
        results = await asyncio.gather(*(post(api, event(n)) for n in range(30) for api in (one, other)))
        assert sum(result["accepted"] for result in results) == 30
        assert sum(result["duplicates"] for result in results) == 30


async def test_unusable_posts(api: httpx.AsyncClient) -> None:
    async def status(content: bytes, kind: str | None) -> int:
        answer = await api.post("/v1/outcomes", content=content, headers={"Content-Type": kind} if kind else {})
        assert answer.headers["content-type"].startswith("application/problem+json")
        return answer.status_code

    good = json.dumps(event(1)).encode()
    assert await status(b"{", ONE) == 400
    assert await status(b"", ONE) == 400
    assert await status(b"\xff", BATCH) == 400
    assert await status(b"[" * 50_000, BATCH) == 400
    assert await status(good, BATCH) == 400
    assert await status(b"[]", ONE) == 400
    assert await status(good, "application/json") == 415
    assert await status(good, None) == 415
    assert await status(good, f"{ONE}; charset=utf-16") == 415
    assert await status(json.dumps([event(n) for n in range(101)]).encode(), BATCH) == 413
    assert await status(b"[" + b" " * (33 << 20) + b"]", BATCH) == 413
    assert (await get(api, "/v1/outcomes"))["outcomes"] == []
    answer = await api.post("/v1/outcomes", content=good, headers={"Content-Type": f"{ONE}; charset=UTF-8"})
    assert answer.json()["accepted"] == 1


async def test_a_reversal_that_arrives_before_what_it_reverses(api: httpx.AsyncClient) -> None:
    metric = "{id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]}"
    plan = f"rate_plan: {{name: p, metrics: [{metric}], pricing: {{model: PER_UNIT, rate: 0.99}}}}"
    assert (await api.put("/v1/plans/p", content=plan, headers={"Content-Type": "application/yaml"})).status_code == 201
    assert (await api.put("/v1/customers/customer-17", json={"plan": "p"})).status_code == 200
    back = event(
        2, time="2026-12-01T00:00:00Z",
        data={"session_id": "ses_1", "outcome": "UNRESOLVED", "state": "REVERSED", "revision": 1, "reverses": "out_1"},
    )  # fmt: skip
    await post(api, back)
    assert (await get(api, "/v1/customers/customer-17/invoice", period="2026-12"))["total"] == "0.00"
    await post(api, event(1))
    assert (await get(api, "/v1/customers/customer-17/invoice", period="2026-11"))["total"] == "0.99"
    december = await get(api, "/v1/customers/customer-17/invoice", period="2026-12")
    assert (december["credits"], december["total"]) == ("0.99", "-0.99")
    assert (await get(api, "/v1/summary", period="2026-12"))["reversed"] == 1
    session = await get(api, "/v1/sessions/ses_1")
    assert (session["state"], session["revision"]) == ("REVERSED", 1)
    assert [entry["id"] for entry in session["entries"]] == ["out_1", "out_2"]
    assert session["evidence"][0]["rule"] == "r"
    await get(api, "/v1/sessions/ses_unknown", status=404)


@pytest.mark.parametrize("together", [False, True])
async def test_a_session_that_was_given_an_old_id_takes_nothing_back(api: httpx.AsyncClient, together: bool) -> None:
    await put_plan(api, "default", simple_plan())
    old = event(1, data={"started_at": "2026-11-22T09:50:00Z"})
    assert (await post(api, old))["accepted"] == 1
    # Redis and journals are gone; the conversation comes back and is counted from 1 again.
    later = {"started_at": "2026-11-23T08:00:00Z"}
    again = event(1, time="2026-11-23T08:30:00Z", data={**later, "turns": 7})
    taken_back = reversal(2, 1, "2026-11-23T09:00:00Z")
    taken_back["data"] |= later
    escalated = event(3, time="2026-11-23T09:05:00Z", data={
        **later, "session_id": "ses_1", "revision": 2, "reverses": "out_2", "outcome": "ESCALATED_TO_HUMAN",
        "state": "NOT_BILLABLE", "escalated_to_human": True,
    })  # fmt: skip
    posts = [[again, taken_back, escalated]] if together else [[again], [taken_back], [escalated]]
    rejected = [one for some in posts for one in (await post(api, *some))["rejected"]]
    assert [(one["id"], one["reason"][:8]) for one in rejected] == [
        ("out_1", "conflict"), ("out_2", "its sess"), ("out_3", "its sess"),
    ]  # fmt: skip
    made = await get(api, "/v1/customers/customer-17/invoice", period="2026-11")
    assert (made["total"], made["credits"]) == ("1.00", "0.00")


async def test_a_revision_is_taken_though_its_session_was_told_otherwise_before(api: httpx.AsyncClient) -> None:
    """As after a rebuild from some of the journals: other counts, another beginning, but the same session."""
    await put_plan(api, "default", simple_plan())
    await post(api, event(1, data={"started_at": "2026-11-22T09:50:00Z"}))
    assert (await post(api, event(1, data={"started_at": "2026-11-22T09:59:00Z", "turns": 0})))["rejected"]
    revised = reversal(2, 1, "2026-11-23T09:00:00Z")
    revised["data"]["started_at"] = "2026-11-22T09:59:00Z"
    assert (await post(api, revised))["accepted"] == 1
    other = reversal(4, 3, "2026-11-24T09:00:00Z")  # began later than what it reverses, but nothing speaks against it
    other["data"]["started_at"] = "2026-11-24T08:00:00Z"
    first = event(3, data={"started_at": "2026-11-22T09:50:00Z"})
    assert await post(api, first, other) == {"accepted": 2, "duplicates": 0, "rejected": []}
    made = await get(api, "/v1/customers/customer-17/invoice", period="2026-11")
    assert (made["total"], made["credits"]) == ("0.00", "2.00")


async def test_outcomes_and_statements_share_their_ids(api: httpx.AsyncClient) -> None:
    statement = {**event(1), "type": "sidecar.statement.v1"}
    assert (await post(api, event(1)))["accepted"] == 1
    conflict = {"accepted": 0, "duplicates": 0, "rejected": [{"id": "out_1", "reason": "conflict"}]}
    assert await post(api, statement) == conflict
    assert (await post(api, event(1)))["duplicates"] == 1
    other = {**statement, "id": "sta_1"}
    assert await post(api, other, {**event(2), "id": "sta_1"}, {**statement, "id": "out_3"}, event(3)) == {
        "accepted": 2, "duplicates": 0, "rejected": [
            # Of one request, outcomes come first.
            {"id": "sta_1", "reason": "conflict"}, {"id": "out_3", "reason": "conflict"},
        ],
    }  # fmt: skip
    assert (await post(api, {**statement, "id": "sta_2"}))["accepted"] == 1
    assert (await post(api, {**event(2), "id": "sta_2"}))["rejected"] == [{"id": "sta_2", "reason": "conflict"}]
    assert len((await get(api, "/v1/outcomes", customer="customer-17"))["outcomes"]) == 3


async def test_statements_are_kept_apart(api: httpx.AsyncClient) -> None:
    statement = {
        "specversion": "1.0", "id": "sta_1", "source": "sidecar/acme", "type": "sidecar.statement.v1",
        "subject": "acme", "time": "2026-11-22T10:00:00Z", "data": {"opened": 5, "open": 1, "finalized": {}},
    }  # fmt: skip
    assert (await post(api, statement))["accepted"] == 1
    assert (await post(api, statement))["duplicates"] == 1
    assert (await post(api, {**statement, "data": {}}))["rejected"][0]["reason"] == "conflict"
    assert (await get(api, "/v1/outcomes"))["outcomes"] == []
    assert (await get(api, "/v1/summary", period="2026-11"))["events"] == 0


async def test_pages_of_the_ledger(api: httpx.AsyncClient) -> None:
    await post(api, *(event(n, subject=f"customer-{n % 2}") for n in range(25)))
    seen, after = [], None
    while True:
        page = await get(api, "/v1/outcomes", limit="10", **({"after": after} if after else {}))
        seen += [entry["id"] for entry in page["outcomes"]]
        await post(api, event(100 + len(seen)))  # what arrives meanwhile does not shift the pages
        after = page["next"]
        if after is None:
            break
    assert seen == [f"out_{n}" for n in reversed(range(25))]
    for unknown in ("FOO", "resolved", "RESOLVED\0", ""):
        problem = await get(api, "/v1/outcomes", 400, state=unknown)
        known = "RESOLVED, NOT_BILLABLE, INCONCLUSIVE, REVERSED"
        assert problem["detail"] == f"state must be one of {known}, not {unknown!r}"
    only = await get(api, "/v1/outcomes", customer="customer-1", state="RESOLVED")
    assert {entry["customer"] for entry in only["outcomes"]} == {"customer-1"}
    assert [entry["id"] for entry in (await get(api, "/v1/outcomes", conversation="c-3"))["outcomes"]] == ["out_3"]
    for wrong in ({"limit": "0"}, {"limit": "1001"}, {"after": "x"}, {"limit": "²"}):
        await get(api, "/v1/outcomes", status=400, **wrong)


async def test_the_ledger_shows_numbers_as_they_came(api: httpx.AsyncClient) -> None:
    exact = "0.1000000000000000000000000000000001"
    body = (
        json.dumps(event(1, data={"attributes": {"a": "A", "b": "B"}})).replace('"A"', exact).replace('"B"', "1e999999")
    )
    answer = await api.post("/v1/outcomes", content=body, headers={"Content-Type": ONE})
    assert answer.json()["accepted"] == 1
    for path in ("/v1/outcomes", "/v1/sessions/ses_1"):
        shown = (await api.get(path)).text
        assert exact in shown
        assert "1E+999999" in shown
    assert (await get(api, "/v1/customers/customer-17/invoice", period="2026-11"))["lines"][0]["quantity"] == 1


async def test_plans_have_versions_and_say_every_error(api: httpx.AsyncClient) -> None:
    fin = (PLANS / "fin.yaml").read_bytes()
    yaml = {"Content-Type": "application/yaml"}
    first = await api.put("/v1/plans/gold", content=fin, headers=yaml)
    assert (first.status_code, first.json()["version"]) == (201, 1)
    again = await api.put("/v1/plans/gold", content=fin, headers=yaml)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    as_json = await api.put(
        "/v1/plans/gold", json={"rate_plan": {"name": "g", "pricing": {"model": "FLAT", "rate": 4.5}}}
    )
    assert (as_json.status_code, as_json.json()["version"]) == (201, 2)
    newest = await get(api, "/v1/plans/gold")
    assert (newest["version"], newest["versions"], newest["rate_plan"]["pricing"]["rate"]) == (2, [1, 2], "4.5")
    assert (await get(api, "/v1/plans/gold", version="1"))["source"] == fin.decode()
    broken = await api.put("/v1/plans/gold", content=b"rate_plan:\n  name: x\n  trial_days: -1\n  nam: y", headers=yaml)
    assert broken.status_code == 422
    assert [error["line"] for error in broken.json()["errors"]] == [3, 4]
    assert (await api.put("/v1/plans/gold", json={"rate_plan": {}})).status_code == 422
    deep = b'{"rate_plan":' * 400 + b"1" + b"}" * 400
    refused = await api.put("/v1/plans/gold", content=deep, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert (await api.put("/v1/plans/gold", content=fin, headers={"Content-Type": "image/png"})).status_code == 415
    assert (await api.put("/v1/plans/no%20blank", content=fin, headers=yaml)).status_code == 422
    await get(api, "/v1/plans/absent", status=404)
    await get(api, "/v1/plans/gold", status=404, version="9")


async def test_customers_and_their_plans_through_time(api: httpx.AsyncClient, clock: Clock) -> None:
    flat = "rate_plan: {{name: p, charges: [{{id: f, metrics: [], model: FLAT, rate: {rate}}}]}}"
    for name, rate in (("a", 1), ("b", 2)):
        await api.put(f"/v1/plans/{name}", content=flat.format(rate=rate), headers={"Content-Type": "text/yaml"})
    await get(api, "/v1/customers/k%2F1", status=404)
    body = {"plan": "a", "started_at": "2026-11-01", "seat_tier": "PRO", "seats": 12, "attributes": {"region": "eu"}}
    put = await api.put("/v1/customers/k%2F1", json=body)
    assert put.json() == {"customer": "k/1", **body}
    assert await get(api, "/v1/customers/k%2F1") == {"customer": "k/1", **body}

    async def total(period: str) -> str:
        return (await get(api, "/v1/customers/k%2F1/invoice", period=period))["total"]

    assert await total("2026-11") == "1.00"
    await api.put("/v1/customers/k%2F1", json={**body, "plan": "b"})
    assert (await total("2026-11"), await total("2026-12")) == ("1.00", "2.00")
    clock.now_us += 40 * 86_400_000_000  # into January: a new version of b rates January, December stays
    await api.put("/v1/plans/b", content=flat.format(rate=3), headers={"Content-Type": "text/yaml"})
    assert [await total(period) for period in ("2026-11", "2026-12", "2027-01")] == ["1.00", "2.00", "3.00"]
    for wrong, status in (({"plan": "absent"}, 422), ({"seats": -1}, 422), ({"seat": 1}, 422), ([], 422)):
        assert (await api.put("/v1/customers/k%2F1", json=wrong)).status_code == status
    assert (
        await api.put("/v1/customers/k", content=b"{", headers={"Content-Type": "application/json"})
    ).status_code == 400
    assert (await api.put("/v1/customers/k", content=b"{}")).status_code == 415
    assert (await api.put("/v1/customers/a%0Ab", json={})).status_code == 422
    assert (await api.put("/v1/customers/unattributed", json={})).status_code == 422


async def test_wrong_requests_are_problems(api: httpx.AsyncClient) -> None:
    await get(api, "/v1/summary", status=400)
    await get(api, "/v1/summary", status=400, period="November")
    await get(api, "/v1/customers/x/invoice", status=400, period="2026-13")
    await get(api, "/v1/nothing", status=404)
    answer = await api.delete("/v1/outcomes")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET,HEAD,POST")
    assert answer.headers["content-type"].startswith("application/problem+json")
    answer = await api.get("/")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


async def test_the_token_is_asked_for(ledger_url: URL) -> None:
    async with serving(ledger_url, token="s3cret") as api:
        for given in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic s3cret"},
            {"Authorization": "Bearer é"},
        ):
            headers = {name: value.encode() for name, value in given.items()}
            answer = await api.get("/v1/summary?period=2026-11", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        answer = await api.get("/v1/summary?period=2026-11", headers={"Authorization": "Bearer s3cret"})
        assert answer.status_code == 200
        assert (await api.get("/livez")).status_code == 200
        assert (await api.get("/readyz")).status_code == 200


async def test_a_restart_keeps_everything(ledger_url: URL) -> None:
    async with serving(ledger_url) as api:
        await post(api, *(event(n) for n in range(50)))
        await api.put("/v1/customers/customer-17", json={"seat_tier": "PRO"})
        before = await get(api, "/v1/customers/customer-17/invoice", period="2026-11")
    async with serving(ledger_url) as api:
        assert await get(api, "/v1/customers/customer-17/invoice", period="2026-11") == before
        assert (await get(api, "/v1/customers/customer-17"))["seat_tier"] == "PRO"
        assert (await post(api, event(7)))["duplicates"] == 1


@pytest.mark.parametrize("table", ["outcomes", "statements", "plan_versions", "customer_versions"])
async def test_the_database_itself_refuses_to_change_the_ledger(api: httpx.AsyncClient, table: str) -> None:
    await post(api, event(1))
    await post(api, {**event(2), "type": "sidecar.statement.v1"})
    await api.put("/v1/customers/c", json={"seats": 1})
    for statement in (f"UPDATE {table} SET seq = seq + 100", f"DELETE FROM {table}"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with api.billing.database.writing() as connection:
                await connection.execute(text(statement))


_FULL = {
    "sqlite": [
        "CREATE TRIGGER full_disk BEFORE INSERT ON outcomes WHEN NEW.id = 'out_3' "
        "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON outcomes FOR EACH ROW WHEN (NEW.id = 'out_3') "
        "EXECUTE FUNCTION full_disk()",
    ],
}


async def test_a_database_that_fails_half_way_takes_nothing_of_the_post(
    api: httpx.AsyncClient, ledger_url: URL
) -> None:
    backend = ledger_url.get_backend_name()

    async def execute(*statements: str) -> None:
        async with api.billing.database.writing() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    await execute(*_FULL[backend])
    failing = api.post(
        "/v1/outcomes", content=json.dumps([event(n) for n in range(6)]), headers={"Content-Type": BATCH}
    )
    other = api.post("/v1/outcomes", content=json.dumps(event(9)), headers={"Content-Type": ONE})
    answer, fine = await asyncio.gather(failing, other)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert fine.json()["accepted"] == 1, "who shares a transaction with it does not suffer"
    assert [row["id"] for row in (await get(api, "/v1/outcomes"))["outcomes"]] == ["out_9"]
    await execute("DROP TRIGGER full_disk" + (" ON outcomes" if backend == "postgresql" else ""))
    assert (await post(api, *(event(n) for n in range(6))))["accepted"] == 6


async def test_past_a_bound_senders_are_asked_to_come_again(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.billing.ingest.WAITING_MAX", 5)
    content = json.dumps([event(n) for n in range(6)])
    answer = await api.post("/v1/outcomes", content=content, headers={"Content-Type": BATCH})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert (await post(api, *(event(n) for n in range(5))))["accepted"] == 5
    metrics = (await api.get("/metrics")).text
    assert "sidecar_billing_ingest_refused_events_total 6.0" in metrics
    assert "sidecar_billing_ingest_waiting_events 0.0" in metrics


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


async def test_a_rejected_event_is_named_whole(api: httpx.AsyncClient) -> None:
    long = "out_" + "x" * 200
    answer = await post(api, event(1, id=long))
    assert [one["id"] for one in answer["rejected"]] == [long]


async def test_a_plan_in_json_keeps_every_digit(api: httpx.AsyncClient) -> None:
    rate = "123456789012.123456789012"
    charge = f'{{"id": "f", "metrics": [], "model": "FLAT", "rate": {rate}}}'
    plan = f'{{"rate_plan": {{"name": "x", "currency": "USD", "metrics": [], "charges": [{charge}]}}}}'
    put = await api.put("/v1/plans/exact", content=plan, headers={"Content-Type": "application/json"})
    assert put.is_success, put.text
    assert (await get(api, "/v1/plans/exact"))["rate_plan"]["charges"][0]["rate"] == rate


async def test_whatever_an_id_holds_it_can_be_asked_for(api: httpx.AsyncClient) -> None:
    named = "{a}/b c?d=%7B#é"
    await post(api, event(1, subject=named, data={"session_id": f"ses_{named}"}))
    path = quote(named, safe="")
    assert (await get(api, f"/v1/customers/{path}/invoice", period="2026-11"))["customer"] == named
    assert (await get(api, f"/v1/sessions/ses_{path}"))["session_id"] == f"ses_{named}"


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
