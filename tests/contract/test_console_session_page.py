"""A session's page: what it costs and why, whether its evidence is intact, and what sessions tell of the wiring."""

from __future__ import annotations

import re
import shlex
from urllib.parse import quote

import pytest
from billing_api import event, put_plan, reversal
from console_pages import GRADUATED, Console, Page, graduated, post

from sidecar.billing.console import wiring
from sidecar.billing.ledger.deciding import Ruling


async def test_a_session_says_what_it_costs_and_why(console: Console) -> None:
    await graduated(console)
    later = {
        "evidence_chain": "sha1:" + "ab" * 20,
        "attributes": {"ticket": "T-1"},
        "conversation": "c/1",
        "started_at": "2026-11-22T09:00:00Z",
    }
    await post(console, event(1), event(2), event(3, data=later), event(4, data={"conversation": "c/1"}))
    page = await console.page("/sessions/ses_3")
    assert "10 tokens in, 5 out, $0.00008 by list prices" in page.text, "10 at $2.50 and 5 at $10 for a million"
    assert "Charged $0.50" in page.text, "four units, one free: without this one, the last is not at 0.50"
    assert "The agent called a tool; the rule “r” took it" in page.text
    assert "sidecar sessions verify ses_3" in page.text
    assert "T-1" in page.text
    assert "https://help.example/c/c%2F1?a=1" in page.links
    assert "/sessions/ses_4" in page.links, "the next of the conversation"
    assert "/sessions/ses_3" in (await console.page("/sessions/ses_4")).links
    await post(console, reversal(9, 3, "2026-11-22T11:00:00Z"))
    taken = await console.page("/sessions/ses_3")
    assert "Taken back" in taken.text
    assert "every revision names the one before" in taken.text
    assert "Credit: AI resolutions" in taken.text


async def test_a_session_that_several_charges_count_costs_what_the_cap_leaves_of_them_together(
    console: Console,
) -> None:
    charge = "{{id: {0}, metrics: [resolutions], model: PER_UNIT, rate: 1}}"
    charges = f"charges: [{charge.format('one')}, {charge.format('two')}]"
    plan = re.sub(r"charges:\n(    .*\n)+", f"{charges}\n", GRADUATED).replace("max_spend_cap: 20", "max_spend_cap: 3")
    await put_plan(console.http, "default", plan)
    await post(console, event(1), event(2))
    page = await console.page("/sessions/ses_1")
    assert "Charged $1.00" in page.text, "four dollars with it, two without, of which the invoice asks three"
    await console.http.billing.decide(Ruling("out_1", "reverse", "ann", "r"))
    assert "Taken back" in (await console.page("/sessions/ses_1")).text
    assert "$2.00" in (await console.page("/customers", period="2026-11")).text


async def test_a_session_that_was_changed_in_the_database_is_not_called_intact(console: Console) -> None:
    await post(console, event(1))
    async with console.http.billing.database.writing() as connection:
        lifted = "DROP TRIGGER outcomes_no_update" if console.http.billing.database.sqlite else (
            "ALTER TABLE outcomes DISABLE TRIGGER outcomes_append_only"
        )  # fmt: skip
        await connection.exec_driver_sql(lifted)
        await connection.exec_driver_sql("UPDATE outcomes SET body = replace(body, 'tool_call', 'webhook')")
    page = await console.page("/sessions/ses_1")
    assert "was changed in the database" in page.text


async def test_a_session_of_a_plan_in_which_any_outcome_decides_leads_to_the_invoice(console: Console) -> None:
    unique = (
        "rate_plan: {name: u, metrics: [{id: m, aggregation: UNIQUE, event_field: conversation}], "
        "pricing: {model: PER_UNIT, rate: 1}}"
    )
    await put_plan(console.http, "default", unique)
    await post(console, event(1))
    await console.http.upkeep.settle()
    assert "See the invoice" in (await console.page("/sessions/ses_1")).text
    assert "$1.00" in (await console.page("/customers", period="2026-11")).text


async def test_the_wiring_is_told_from_the_newest_sessions(console: Console) -> None:
    calls = [{"llm_calls": 1, "conversation": None}] * 3 + [{"llm_calls": 7}]
    await post(console, *(event(number, data=data) for number, data in enumerate(calls)))
    page = await console.page("/")
    assert "With a conversation id 25 % 70 % of LLM calls" in page.text
    assert "SIDECAR_SESSION_KEYS" in page.text
    assert "SIDECAR_CUSTOMER" not in page.text
    await post(console, event(10, subject="unattributed", data={"llm_calls": 2}))
    page = await console.page("/")
    assert "Of all 5 sessions" in page.text
    assert "SIDECAR_CUSTOMER" in page.text


async def test_the_wiring_is_read_in_parts_and_says_when_there_is_more(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "NEWEST", 10)
    monkeypatch.setattr(wiring, "AT_ONCE", 3)
    parts: list[int] = []
    read = wiring._sessions
    monkeypatch.setattr(wiring, "_sessions", lambda rows: parts.append(len(rows)) or read(rows))
    newest, calls = wiring.Wiring(console.http.billing), list[int]()
    for number in (0, 4, 5, 1, 2, 13):
        new = range(len(calls), len(calls) + number)
        if number:
            await post(console, *(event(n, data={"llm_calls": n + 1}) for n in new))
        calls += [n + 1 for n in new]
        found = await newest.read()
        assert found.sessions == len(calls[-10:])
        assert found.cut == (len(calls) > 10)
        assert found.calls_per_session == (sum(calls[-10:]) / len(calls[-10:]) if calls else None)
    assert max(parts) == 3


async def test_the_command_that_verifies_a_session_can_be_copied(console: Console) -> None:
    name = "a b;c'd"
    await post(console, event(1, data={"session_id": name, "evidence_chain": "sha1:" + "ab" * 20}))
    headers = {"X-Forwarded-Proto": "https", "Host": "localhost"}
    page = Page(await console.http.get(f"/sessions/{quote(name)}", headers=headers))
    wanted = ["sidecar", "sessions", "verify", name, "--billing", "https://localhost"]
    assert shlex.join(wanted) in page.text
