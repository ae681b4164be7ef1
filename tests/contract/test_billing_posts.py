"""What is posted to billing, on both databases: each event counts once, or is told why not, and stays for ever."""

from __future__ import annotations

import asyncio
import json
import random

import httpx
import pytest
from billing_api import BATCH, ONE, event, get, post, put_plan, reversal, serving, simple_plan
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError


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


async def test_a_rejected_event_is_named_whole(api: httpx.AsyncClient) -> None:
    long = "out_" + "x" * 200
    answer = await post(api, event(1, id=long))
    assert [one["id"] for one in answer["rejected"]] == [long]
