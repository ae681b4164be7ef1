"""What operators decide: entries of their own, on the right invoice, once."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from billing_api import DAY_US, Clock, event, get, post, put_plan, reversal, serving, simple_plan
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from sidecar.billing.ledger.deciding import DECISIONS

ANN = {"actor": "ann", "reason": "customer called"}


@pytest.fixture
async def api(api: httpx.AsyncClient) -> httpx.AsyncClient:
    await put_plan(api, "default", simple_plan(2))
    return api


async def decide(api: httpx.AsyncClient, identifier: str, kind: str, status: int = 201, **more: str) -> dict:
    answer = await api.post(f"/v1/outcomes/{identifier}/{kind}", json={**ANN, **more})
    assert answer.status_code == status, answer.text
    return answer.json()


async def total(api: httpx.AsyncClient, period: str = "2026-11", customer: str = "customer-17") -> str:
    """Twice: from what is pending, and from the sums."""
    before = await get(api, f"/v1/customers/{customer}/invoice", period=period)
    await api.upkeep.settle()
    assert await get(api, f"/v1/customers/{customer}/invoice", period=period) == before
    return before["total"]


async def test_a_held_outcome_is_released_or_dropped(api: httpx.AsyncClient) -> None:
    await post(api, *(event(n, data={"held": True}) for n in range(3)))
    assert await total(api) == "0.00"
    assert (await get(api, "/v1/summary", period="2026-11"))["held"] == 3
    made = await decide(api, "out_0", "release")
    assert {**made, "decided_at": ""} == {
        "outcome": "out_0", "session_id": "ses_0", "number": 1, "kind": "release", **ANN, "customer": "customer-17",
        "assigned": None, "period": "2026-11", "decided_at": "",
    }  # fmt: skip
    await decide(api, "out_1", "drop")
    assert await total(api) == "2.00"
    found = await get(api, "/v1/summary", period="2026-11")
    assert (found["held"], found["charged"], found["revenue"]) == (2, 1, "2.00")
    assert found["decisions"] == {"release": 1, "drop": 1, "reverse": 0, "assign": 0}
    assert await decide(api, "out_0", "release", 200) == made, "the same again changes nothing"
    session = await get(api, "/v1/sessions/ses_0")
    assert session["decisions"] == [made]
    assert session["entries"][0]["held"] is True, "the event stays as it came"


async def test_a_disputed_outcome_is_reversed_in_the_period_of_the_decision(
    api: httpx.AsyncClient, clock: Clock
) -> None:
    await post(api, event(1), event(2))
    clock.now_us += 10 * DAY_US  # December
    await decide(api, "out_1", "reverse")
    assert (await total(api), await total(api, "2026-12")) == ("4.00", "-2.00")
    december = await get(api, "/v1/customers/customer-17/invoice", period="2026-12")
    assert december["credit_lines"] == [
        {
            "period": "2026-11", "from": "2026-11-01T00:00:00Z", "currency": "USD", "amount": "2.00",
            "outcomes": ["out_1"], "sessions": ["ses_1"], "instead": [], "instead_sessions": [], "more": False,
        }
    ]  # fmt: skip
    await post(api, reversal(3, of=1, time="2026-12-05T00:00:00Z"))
    assert await total(api, "2026-12") == "-2.00", "what is taken back is taken back once"


async def test_an_unattributed_session_gets_its_customer_later(api: httpx.AsyncClient) -> None:
    lost = event(1, subject="unattributed")
    await post(api, lost)
    assert (await total(api, customer="c"), await total(api, customer="unattributed")) == ("0.00", "0.00")
    await decide(api, "out_1", "reverse", 409)
    await decide(api, "out_1", "assign", customer="c")
    assert (await total(api, customer="c"), await total(api, customer="unattributed")) == ("2.00", "0.00")
    assert (await get(api, "/v1/sessions/ses_1"))["customer"] == "c"
    found = await get(api, "/v1/summary", period="2026-11")
    assert (found["sessions"], found["charged"], found["unmatched"]) == (1, 1, 0)
    await post(api, reversal(2, of=1, time="2026-11-23T00:00:00Z", subject="unattributed"))
    assert await total(api, customer="c") == "0.00", "later revisions of the session are the customer's as well"
    await decide(api, "out_2", "assign", 409, customer="d")


async def test_what_cannot_be_decided_is_refused_with_what_can(api: httpx.AsyncClient) -> None:
    await post(api, event(1), event(2, data={"held": True}), event(3, data={"shadow": True}), event(4))
    await post(api, reversal(5, of=4, time="2026-11-23T00:00:00Z"), event(6, data={"billable": False}))
    await decide(api, "out_unknown", "release", 404)
    for identifier, kind, words in (
        ("out_1", "release", "decided to reverse"),
        ("out_2", "reverse", "release, drop"),
        ("out_3", "reverse", "shadow"),
        ("out_4", "reverse", "replaced"),
        ("out_6", "release", "not billable"),
    ):
        assert words in (await decide(api, identifier, kind, 409))["detail"]
    await decide(api, "out_2", "drop")
    assert "dropped" in (await decide(api, "out_2", "release", 409))["detail"]
    for body in ({}, {"actor": "ann"}, {**ANN, "reason": ""}, {**ANN, "extra": 1}):
        answer = await api.post("/v1/outcomes/out_1/reverse", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json; charset=utf-8")
    await decide(api, "out_1", "assign", 422)
    await decide(api, "out_1", "assign", 422, customer="unattributed")
    assert await total(api) == "2.00"


async def test_two_operators_at_once_make_one_decision(ledger_url: URL) -> None:
    async with serving(ledger_url) as one, serving(ledger_url) as other:
        await post(one, *(event(n, data={"held": True}) for n in range(8)))
        for number in range(8):
            answers = await asyncio.gather(
                one.post(f"/v1/outcomes/out_{number}/release", json=ANN),
                other.post(f"/v1/outcomes/out_{number}/drop", json=ANN),
            )
            assert sorted(answer.status_code for answer in answers) == [201, 409]
        found = (await get(one, "/v1/summary", period="2026-11"))["decisions"]
        assert found["release"] + found["drop"] == 8


async def test_decisions_are_never_changed(api: httpx.AsyncClient) -> None:
    await post(api, event(1))
    await decide(api, "out_1", "reverse")
    for statement in ("UPDATE decisions SET actor = 'bob'", "DELETE FROM decisions"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with api.billing.database.writing() as connection:
                await connection.execute(text(statement))


def test_every_decision_leads_somewhere_known() -> None:
    for moves in DECISIONS.values():
        assert set(moves.values()) <= DECISIONS.keys()


async def test_shadow_is_rated_apart(api: httpx.AsyncClient) -> None:
    await post(api, event(1), event(2, data={"shadow": True}), event(3, data={"shadow": True}))
    assert await total(api) == "2.00"
    shadow = await get(api, "/v1/customers/customer-17/invoice", period="2026-11", shadow="true")
    assert shadow["total"] == "4.00"
    await get(api, "/v1/customers/customer-17/invoice", 400, period="2026-11", shadow="yes")
