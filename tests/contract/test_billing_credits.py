"""A credit names what was taken back and nothing else, and every name leads to its session."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from billing_api import event, get, post, put_plan, reversal, simple_plan
from console_pages import OPERATOR, Console, console_on
from sqlalchemy.engine import URL

from sidecar.billing.ledger import behind
from sidecar.cli import outcomes
from sidecar.policy.loading import load_plan

ANN = {"actor": "ann", "reason": "r"}
PLAN = simple_plan(1)


def inconclusive(number: int, **changes: Any) -> dict[str, Any]:
    data = {"session_id": f"ses_{number}", "outcome": "INCONCLUSIVE", "state": "INCONCLUSIVE"}
    return event(number, data=data, **changes)


def resolved_later(number: int, of: int, **changes: Any) -> dict[str, Any]:
    return event(number, data={"session_id": f"ses_{of}", "revision": 1, "reverses": f"out_{of}"}, **changes)


FOUR = (
    event(1), reversal(11, of=1, time="2026-11-22T11:00:00Z"),  # charged, and taken back
    inconclusive(2), resolved_later(12, of=2, time="2026-11-22T11:00:00Z"),  # replaced, and charged only then
    event(3, data={"held": True}),
    event(4),
)  # fmt: skip


@pytest.fixture
async def api(api: httpx.AsyncClient) -> httpx.AsyncClient:
    await put_plan(api, "default", PLAN)
    return api


async def tell(api: httpx.AsyncClient) -> None:
    await post(api, *FOUR)
    for outcome, kind in (("out_3", "release"), ("out_4", "reverse")):
        assert (await api.post(f"/v1/outcomes/{outcome}/{kind}", json=ANN)).status_code == 201


async def november(api: httpx.AsyncClient) -> dict[str, Any]:
    return await get(api, "/v1/customers/customer-17/invoice", period="2026-11")


async def test_a_credit_names_the_outcomes_that_had_been_charged(api: httpx.AsyncClient) -> None:
    await tell(api)
    for _ in ("from what is pending", "from the sums"):
        made = await november(api)
        [credit] = made["credit_lines"]
        assert (made["subtotal"], made["total"]) == ("4.00", "2.00")
        assert (credit["amount"], credit["outcomes"], credit["sessions"], credit["more"]) == (
            "2.00", ["out_1", "out_4"], ["ses_1", "ses_4"], False,
        )  # fmt: skip
        await api.upkeep.settle()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        outcomes._show_invoice(made)
    assert "of 2026-11: 2 outcomes taken back" in said.getvalue()


async def test_a_line_marks_what_was_taken_back_since(api: httpx.AsyncClient) -> None:
    await tell(api)
    page = await get(api, "/v1/customers/customer-17/sessions", period="2026-11", charge="pricing")
    assert {use["outcome"]: use["taken_back"] for use in page["sessions"]} == {
        "out_1": "2026-11", "out_12": None, "out_3": None, "out_4": "2026-11",
    }  # fmt: skip


async def test_names_past_the_bound_are_said_to_be_missing(api: httpx.AsyncClient, monkeypatch) -> None:
    monkeypatch.setattr(behind, "NAMED_MAX", 2)
    await post(api, *(inconclusive(n) for n in range(5)), *(event(n) for n in range(5, 8)))
    await post(api, *(resolved_later(10 + n, of=n) for n in range(5)))
    await post(api, *(reversal(10 + n, of=n, time="2026-11-22T11:00:00Z") for n in (5, 6)))
    [credit] = (await november(api))["credit_lines"]
    assert (credit["outcomes"], credit["more"]) == (["out_5", "out_6"], False), "after pages that took nothing back"
    await post(api, reversal(17, of=7, time="2026-11-22T11:00:00Z"))
    [credit] = (made := await november(api))["credit_lines"]
    assert (len(credit["outcomes"]), credit["amount"], credit["more"]) == (2, "3.00", True)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        outcomes._show_invoice(made)
    assert "2 outcomes or more taken back" in said.getvalue()
    monkeypatch.setattr(behind, "LOOKED_MAX", 3)
    [credit] = (await november(api))["credit_lines"]
    assert (credit["outcomes"], credit["more"]) == ([], True)


async def test_a_session_that_an_operator_named_the_customer_of_is_named_as_well(api: httpx.AsyncClient) -> None:
    await post(api, event(1, subject="unattributed"))
    await api.post("/v1/outcomes/out_1/assign", json={**ANN, "customer": "customer-17"})
    await post(api, reversal(11, of=1, time="2026-11-22T11:00:00Z", subject="unattributed"))
    [credit] = (await november(api))["credit_lines"]
    assert (credit["amount"], credit["outcomes"]) == ("1.00", ["out_1"])


async def test_a_window_that_spans_sessions_decides_which_are_named(api: httpx.AsyncClient) -> None:
    """Of two in a conversation only the first counts, so only it is taken back when both are."""
    for window in ("CONVERSATION", "BILLING_PERIOD"):
        condition = "{field: conversation, operator: UNIQUE_WITHIN_WINDOW, window: %s}"
        await put_plan(api, "default", PLAN.replace("value: RESOLVED}", "value: RESOLVED}, " + condition % window))
        if window == "CONVERSATION":
            await post(api, event(1), event(2, time="2026-11-22T10:00:01Z", data={"conversation": "c-1"}), event(3))
            await post(api, *(reversal(10 + n, of=n, time="2026-11-22T11:00:00Z") for n in (1, 2)))
        [credit] = (await november(api))["credit_lines"]
        assert (credit["amount"], credit["outcomes"]) == ("1.00", ["out_1"]), window


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url, tokens=True) as found:
        await found.http.billing.put_plan("default", load_plan(PLAN.encode(), "default"))
        await found.log_in(OPERATOR, "Ann")
        yield found


async def test_what_a_credit_names_leads_to_its_session(console: Console) -> None:
    receipt = await console.http.billing.post(list(FOUR))
    assert receipt.accepted == len(FOUR)
    page = await console.page("/customers/customer-17/invoice", period="2026-11")
    assert "1 outcome out_1 −$1.00" in page.text
    assert [link for link in page.links if link.startswith("/sessions/")] == ["/sessions/ses_1"]
    session = await console.page("/sessions/ses_1")
    assert "Nothing can be decided about it: its charge is already taken back." in session.text
    line = await console.page("/customers/customer-17/invoice/lines/pricing", period="2026-11")
    assert line.text.count("1 taken back since") == 1, "one of three"
    assert len([link for link in line.links if link.startswith("/sessions/ses_")]) == 3


async def test_a_search_finds_a_session_by_any_of_its_outcomes(console: Console) -> None:
    receipt = await console.http.billing.post(list(FOUR))
    assert receipt.accepted == len(FOUR)
    for name, session in (("out_1", "ses_1"), ("out_11", "ses_1"), ("out_2", "ses_2"), ("out_4", "ses_4")):
        found = await console.page("/sessions", q=name)
        assert [link for link in found.links if link.startswith("/sessions/ses_")] == [f"/sessions/{session}"], name


async def test_what_was_never_charged_is_on_no_invoice(console: Console) -> None:
    await console.http.billing.post([inconclusive(2)])
    assert "Nothing can be decided about it: it is on no invoice." in (await console.page("/sessions/ses_2")).text
