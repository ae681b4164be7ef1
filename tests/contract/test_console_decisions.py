"""Decisions made at the console are in the ledger, under the name of who made them, and only when that was meant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from billing_api import event, reversal, simple_plan
from console_pages import OPERATOR, VIEWER, Console, console_on
from sqlalchemy import select
from sqlalchemy.engine import URL

from sidecar.billing.ledger.tables import decisions, waiting
from sidecar.policy.loading import load_plan


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url, tokens=True) as found:
        await found.http.billing.put_plan("default", load_plan(simple_plan(2).encode(), "default"))
        await found.log_in(OPERATOR, "Ann <ann>")
        yield found


async def post(console: Console, *events: dict[str, Any]) -> None:
    receipt = await console.http.billing.post(list(events))
    assert receipt.accepted == len(events), receipt


async def made(console: Console) -> list[tuple[str, str, str, str, str | None]]:
    async with console.http.billing.database.reading() as connection:
        query = select(*(decisions.c[name] for name in ("outcome_id", "kind", "actor", "reason", "assigned")))
        return [tuple(row) for row in (await connection.execute(query.order_by(decisions.c.seq))).all()]


async def waits(console: Console, only: str = "") -> list[str]:
    page = await console.page("/decisions", **({"only": only} if only else {}))
    return [one for form in page.forms if form.method == "post" for one in form.choices.get("outcome", [])]


async def test_a_charge_is_reversed_after_it_was_confirmed(console: Console) -> None:
    await post(console, event(1))
    before = await console.page("/sessions/ses_1")
    assert "Charged $2.00" in before.text
    form = before.form("/decisions")
    assert "actor" not in form.fields, "whoever logged in decides, under no other name"
    assert form.choices == {"kind": ["reverse"]}
    asked = await console.send(form, kind="reverse", reason="the customer called", actor="Bob")
    assert "Reverse 1 outcome?" in asked.text
    assert "Customer customer-17 , conversation c-1 , session ses_1 : tool out_1" in asked.text
    assert await made(console) == [], "nothing is done before it is confirmed"
    done = await console.send(asked.form("/decisions"), confirmed="yes")
    assert "Reversed" in done.text
    assert await made(console) == [("out_1", "reverse", "Ann <ann>", "the customer called", None)]
    page = await console.page("/sessions/ses_1")
    assert "Taken back" in page.text
    assert "Ann <ann> took it back" in page.text
    assert "Nothing can be decided" in page.text
    invoice = await console.page("/customers/customer-17/invoice")
    assert "Credit: taken back of November 2026 1 outcome out_1 −$2.00" in invoice.text
    again = await console.send(asked.form("/decisions"), confirmed="yes")
    assert "was decided so before" in again.text
    assert len(await made(console)) == 1


async def test_whoever_comes_second_is_told_what_is_possible(console: Console) -> None:
    await post(console, event(1, data={"held": True}))
    form = (await console.page("/sessions/ses_1")).form("/decisions")
    assert form.choices == {"kind": ["release", "drop"]}
    first = await console.send(form, kind="release", reason="fine")
    second = await console.send(form, kind="drop", reason="not fine")
    await console.send(first.form("/decisions"), confirmed="yes")
    refused = await console.send(second.form("/decisions"), 409, confirmed="yes")
    assert "it can be decided to reverse, not to drop" in refused.text
    assert [one[1] for one in await made(console)] == ["release"]


async def test_several_are_decided_at_once_and_each_has_its_own_result(console: Console) -> None:
    await post(
        console,
        *(event(n, data={"held": True}) for n in range(3)),
        event(3, subject="unattributed"),
        event(4, subject="unattributed", data={"held": True}),
        event(5),
    )
    assert await waits(console) == [f"out_{n}" for n in range(5)]
    assert await waits(console, "held") == ["out_0", "out_1", "out_2", "out_4"]
    assert await waits(console, "unattributed") == ["out_3", "out_4"]
    form = (await console.page("/decisions")).form("/decisions")
    chosen = ["out_0", "out_2", "out_3"]
    asked = await console.send(form, kind="release", reason="all fine", outcome=chosen)
    assert "Release 3 outcomes?" in asked.text
    given = {**asked.form("/decisions").fields, "confirmed": "yes", "outcome": chosen}
    answer = await console.http.post("/decisions", data=given)
    assert answer.status_code == 409
    assert "Released 2 of 3" in " ".join(answer.text.split())
    assert [one[:2] for one in await made(console)] == [("out_0", "release"), ("out_2", "release")]
    assigned = {**given, "kind": "assign", "outcome": ["out_3", "out_4"], "customer": "customer-9"}
    assert (await console.http.post("/decisions", data=assigned)).status_code == 200
    assert await waits(console) == ["out_1", "out_4"], "out_4 is somebody's now, and still held"
    assert await waits(console, "unattributed") == []
    sessions = await console.page("/sessions", customer="customer-9")
    assert [link for link in sessions.links if "/ses_" in link] == ["/sessions/ses_4", "/sessions/ses_3"]
    log = await console.page("/decisions/made")
    assert log.text.index("Assigned") < log.text.index("Released")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reason": ""}, "The reason is missing."),
        ({"actor": " "}, None),
        ({"kind": "assign", "customer": ""}, "The customer is missing."),
        ({"kind": "assign", "customer": "unattributed"}, "it is no customer"),
        ({"reason": "x" * 1001}, "The reason: "),
        ({"outcome": []}, "Choose at least one outcome."),
    ],
)
async def test_what_is_missing_is_asked_for(console: Console, given: dict[str, Any], said: str | None) -> None:
    await post(console, event(1, subject="unattributed", data={"held": True}))
    form = (await console.page("/decisions")).form("/decisions")
    values = {"kind": "drop", "reason": "r", "confirmed": "yes", "outcome": ["out_1"], **given}
    page = await console.send(form, 200 if said is None else 422, **values)
    if said is None:
        assert (await made(console))[0][2] == "Ann <ann>", "whoever is logged in"
    else:
        assert said in page.text
        assert await made(console) == []


async def test_a_customer_of_whom_nobody_has_heard_is_pointed_out_before_it_is_charged(console: Console) -> None:
    await post(
        console, event(1, subject="unattributed"), event(2, subject="of an event"), event(3, subject="unattributed")
    )
    await console.http.billing.put_customer("registered", {"plan": "default"})
    form = (await console.page("/decisions")).form("/decisions")
    assert form.choices["outcome"] == ["out_1", "out_3"]

    async def pointed_out(customer: str) -> bool:
        page = await console.send(form, kind="assign", customer=customer, reason="r", outcome=["out_3", "out_none"])
        assert "Customer nobody , conversation c-3 , session ses_3 : tool out_3" in page.text
        assert "There is no such outcome out_none" in page.text
        return f"Nothing has ever been said of a customer “{customer}”" in page.text

    assert await pointed_out("mistyped")
    await console.send(form, kind="assign", customer="assigned", reason="r", confirmed="yes", outcome=["out_1"])
    for known in ("of an event", "registered", "assigned", ""):
        assert not await pointed_out(known), known


async def test_an_unknown_decision_or_too_many_outcomes_are_refused(console: Console) -> None:
    form = (await console.page("/decisions")).forms[0]
    key = {"form_key": form.fields["form_key"]}
    for given in ({"kind": "burn", "outcome": "x"}, {"kind": "drop", "outcome": [f"out_{n}" for n in range(101)]}):
        answer = await console.http.post("/decisions", data={**key, **given})
        assert answer.status_code == 400, answer.text
    unknown = {**key, "kind": "drop", "outcome": "none", "reason": "r", "confirmed": "yes"}
    answer = await console.http.post("/decisions", data=unknown)
    assert (answer.status_code, "there is no such outcome" in answer.text) == (409, True)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({}, False),
    ],
)
async def test_a_form_that_is_not_ours_decides_nothing(console: Console, headers: dict[str, str], key: bool) -> None:
    await post(console, event(1))
    form = (await console.page("/sessions/ses_1")).form("/decisions")
    given = {**form.fields, "kind": "reverse", "reason": "r", "confirmed": "yes"}
    given["form_key"] = given["form_key"] if key else "0" * 64
    answer = await console.http.post("/decisions", data=given, headers=headers)
    assert answer.status_code == 403
    assert await made(console) == []


async def test_a_form_of_another_session_decides_nothing(console: Console) -> None:
    await post(console, event(1))
    form = (await console.page("/sessions/ses_1")).form("/decisions")
    console.http.cookies.clear()
    await console.log_in(OPERATOR, "Bob")
    given = {**form.fields, "kind": "reverse", "reason": "r", "confirmed": "yes"}
    assert (await console.http.post("/decisions", data=given)).status_code == 403
    console.http.cookies.clear()
    assert (await console.http.post("/decisions", data=given)).status_code == 401
    bearer = {"Authorization": f"Bearer {OPERATOR}"}
    assert (await console.http.post("/decisions", data=given, headers=bearer)).status_code == 403
    await console.log_in(VIEWER, "Vera")
    assert (await console.http.post("/decisions", data=given)).status_code == 403
    assert await made(console) == []


async def test_the_way_back_leads_nowhere_else(console: Console) -> None:
    await post(console, event(1))
    form = (await console.page("/sessions/ses_1")).form("/decisions")
    for back in ("//evil.example", "https://evil.example/", "/\\evil.example"):
        page = await console.send(form, kind="reverse", back=back, reason="r")
        assert not any("evil" in link for link in page.links)


async def test_what_a_later_revision_replaced_waits_no_longer(console: Console) -> None:
    await post(console, event(1, data={"held": True}), event(2, data={"held": True}))
    await post(console, reversal(9, 1, "2026-11-22T11:00:00Z"))
    assert await waits(console) == ["out_2"]
    await post(console, reversal(8, 3, "2026-11-22T11:00:00Z"))
    await post(console, event(3, data={"held": True}))
    assert await waits(console) == ["out_2"], "it was overtaken by what replaced it"


async def test_the_queue_goes_on_page_by_page_in_the_order_of_time(console: Console) -> None:
    times = [f"2026-11-{1 + n * 7 % 28:02}T10:00:00Z" for n in range(60)]
    await post(console, *(event(n, time=time, data={"held": True}) for n, time in enumerate(times)))
    seen: list[str] = []
    path = "/decisions?only=held"
    while path:
        page = await console.page(path)
        seen += page.form("/decisions").choices["outcome"]
        path = next((link for link in page.links if "after=" in link), "")
    assert seen == sorted((f"out_{n}" for n in range(60)), key=lambda one: (times[int(one[4:])], one))


async def test_an_assigned_session_does_not_come_back_with_its_next_revision(console: Console) -> None:
    await post(console, event(1, subject="unattributed"))
    form = (await console.page("/decisions")).form("/decisions")
    await console.send(form, kind="assign", customer="c", reason="r", confirmed="yes", outcome=["out_1"])
    await post(console, reversal(2, 1, "2026-11-22T11:00:00Z", subject="unattributed"))
    assert await waits(console) == []
    async with console.http.billing.database.reading() as connection:
        assert (await connection.execute(select(waiting))).all() == []
