"""Every page of the console that is about customers, sessions and decisions: empty, with data, with hostile strings."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from billing_api import Clock, event, put_plan, reversal, simple_plan
from console_pages import OPERATOR, VIEWER, Console, Page, console_on
from sqlalchemy.engine import URL

from sidecar.billing.console import customers, wiring
from sidecar.billing.ledger import aggregates, entries
from sidecar.billing.ledger.deciding import Ruling

PLAN = """
rate_plan:
  name: Graduated
  metrics:
    - id: resolutions
      name: AI resolutions
      aggregation: COUNT
      filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]
  charges:
    - id: resolution
      name: AI resolutions
      metrics: [resolutions]
      model: GRADUATED
      included_free: 1
      tiers: [{up_to: 2, rate: 0.99}, {rate: 0.5}]
    - {id: base, name: Platform fee, metrics: [resolutions], model: FLAT, rate: 10}
  guardrails: {max_spend_cap: 20, max_spend_behavior: CAP}
"""
PAGES = ["/", "/customers", "/sessions", "/decisions", "/decisions/made", "/customers/nobody-yet"]
HOSTILE = [
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "\N{RIGHT-TO-LEFT OVERRIDE}evil", "x" * 256,
    "a/b", "a%2Fb", "{{ 7 * 7 }}", "?q=1&x=2#y", "' OR '1'='1", "100%", "a\\b", "ünïcödé \N{PILE OF POO}", "a;b,c",
]  # fmt: skip


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url, help_desk="https://help.example/c/{conversation}?a=1") as found:
        yield found


async def post(console: Console, *events: dict) -> None:
    receipt = await console.http.billing.post(list(events))
    assert (receipt.accepted, receipt.rejected) == (len(events), []), receipt


async def graduated(console: Console, customer: str = "customer-17") -> None:
    await put_plan(console.http, "graduated", PLAN)
    answer = await console.http.put(f"/v1/customers/{customer}", json={"plan": "graduated", "seats": 3})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_without_anything_says_what_will_be_there(console: Console, path: str) -> None:
    page = await console.page(path)
    assert "None" not in page.text.replace("None.", "")
    assert not any(word in page.text for word in ("Undefined", "{{", "nan"))
    assert len(page.text) > 100


async def test_a_customer_is_found_from_the_list_down_to_the_sessions_of_a_line(console: Console) -> None:
    await graduated(console)
    await post(console, *(event(number) for number in range(5)), event(9, subject="other"))
    await console.http.upkeep.settle()
    listed = await console.page("/customers", period="2026-11")
    assert "customer-17 Graduated 4 $12.98 $12.98 of $20.00" in listed.text
    assert "customer-17" not in (await console.page("/customers", q="OTH", period="2026-11")).text
    one = await console.page("/customers/customer-17", period="2026-11")
    assert "$12.98" in one.text
    assert "65 % $12.98 of $20.00" in one.text
    assert "graduated" in one.text
    invoice = await console.page("/customers/customer-17/invoice", period="2026-11")
    assert (
        "AI resolutions resolutions 5 1 4 $2.98 2 $0.99 $1.98 2 $0.50 $1.00 Platform fee 1 0 1 $10.00 per period $10.00"
        in (invoice.text.replace("\N{NO-BREAK SPACE}", " ").replace("  ", " "))
    )
    line = next(link for link in invoice.links if "/lines/" in link)
    assert [link for link in (await console.page(line)).links if "/sessions/ses_" in link] == [
        f"/sessions/ses_{number}" for number in range(5)
    ]
    table = await console.http.get("/customers/customer-17/invoice.csv", params={"period": "2026-11"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert "AI resolutions" in table.text


async def test_the_pages_of_customers_go_on_where_the_last_ended(console: Console) -> None:
    await post(console, *(event(number, subject=f"c-{number:03}") for number in range(60)))
    await console.http.upkeep.settle()
    seen: list[str] = []
    path = "/customers?period=2026-11"
    while path:
        page = await console.page(path)
        seen += [
            link.partition("?")[0] for link in page.links if link.startswith("/customers/") and "invoice" not in link
        ]
        path = next((link for link in page.links if "after=" in link), "")
    assert seen == [f"/customers/c-{number:03}" for number in range(60)]


async def test_what_was_said_of_a_customer_and_its_alerts_are_shown(console: Console) -> None:
    await graduated(console)
    facts = {"plan": "graduated", "seats": 0, "seat_tier": "PRO", "attributes": {"region": "<b>eu</b>"}}
    assert (await console.http.put("/v1/customers/customer-17", json=facts)).status_code == 200
    await post(console, *(event(number) for number in range(40)))
    await console.http.upkeep.settle()
    page = await console.page("/customers/customer-17", period="2026-11")
    assert "region <b>eu</b>" in page.text
    assert "0 PRO" in page.text
    assert "100 %" in page.text
    assert "capped" in page.text
    over = await console.page("/", period="2026-11")
    assert "Nearest their cap Customer Spend against cap Share customer-17" in over.text


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
    plan = re.sub(r"charges:\n(    .*\n)+", f"{charges}\n", PLAN).replace("max_spend_cap: 20", "max_spend_cap: 3")
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


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_strings_are_shown_as_they_are_and_lead_somewhere(console: Console, text: str) -> None:
    data = {
        "session_id": text, "conversation": text, "reason": text, "tenant": text,
        "attributes": {text: f"{text}1"[-128:]}, "models": [text],
        "evidence": [{"at": "2026-11-22T10:00:00Z", "rule": text, "kind": text, "digest": text}],
    }  # fmt: skip
    await post(
        console,
        event(1, subject=text, data=data),
        event(2, subject=text, data={**data, "session_id": "held", "held": True}),
        event(3, subject="unattributed", data={**data, "session_id": f"{text[:250]}-3"}),
    )
    await console.http.billing.decide(Ruling("out_1", "reverse", text, text))
    await console.http.billing.put_customer(
        text, {"plan": "default", "attributes": {text: text}, "seat_tier": text[:64]}
    )
    await console.http.upkeep.settle()
    pages = await console.crawl("/", "/customers?period=2026-11", "/sessions", "/decisions", "/decisions/made")
    assert not any("script" in page.tags and page.answer.text.count("<script") != 2 for page in pages.values())
    assert not any("img" in page.tags for page in pages.values())
    shown = [path for path, page in pages.items() if " ".join(text.split()) in page.text]
    for part in ("/customers", "/customers/", "/invoice", "/lines/", "/sessions", "/sessions/", "/decisions"):
        assert any(part in path for path in shown), part
    found = await console.page("/sessions", q=text)
    assert any(link.startswith("/sessions/") for link in found.links)


async def test_halves_of_characters_and_other_shapes_of_data_do_not_break_a_page(console: Console) -> None:
    odd = {
        "evidence": ["x", {"at": 5}, {"at": "never"}],
        "attributes": {"a": {"b": [1, None]}},
        "tokens": {"input": "x"},
    }
    more = {"turns": None, "llm_calls": "many", "models": "gpt", "started_at": 7, "reason": None, "evidence_chain": 5}
    await post(console, event(1, data={**odd, **more}), event(2, data={"reason": "\ud800", "models": ["\ud800"]}))
    await console.crawl("/", "/sessions", "/sessions/ses_1", "/sessions/ses_2")


@pytest.mark.parametrize(
    "path",
    [
        "/sessions?after=1", "/sessions?after=1.2.3", "/sessions?after=%27%20OR%201%3D1", "/sessions?after=1.-2",
        "/sessions?after=99999999999999999999.1", "/sessions?after=%EF%BC%91.1", "/sessions?state=%27",
        "/sessions?from=2026-13-01", "/sessions?to=x", "/sessions?q=" + "x" * 1025, "/decisions?after=1",
        "/decisions?after=x.y", "/decisions?only=all", "/decisions/made?after=;DROP", "/customers?period=2026-13",
        "/customers/c/invoice?period=x",
    ],
)  # fmt: skip
async def test_an_address_that_makes_no_sense_is_a_page_that_says_so(console: Console, path: str) -> None:
    page = await console.page(path, 400)
    assert "Bad Request" in page.text


async def test_what_does_not_exist_is_a_page_that_says_so(console: Console) -> None:
    await post(console, event(1))
    assert "has arrived" in (await console.page("/sessions/none", 404)).text
    assert "no line" in (await console.page("/customers/customer-17/invoice/lines/none", 404, period="2026-11")).text


async def test_every_page_asks_who_looks(ledger_url: URL) -> None:
    async with console_on(ledger_url, tokens=True) as console:
        await post(console, event(1))
        paths = [*PAGES, "/sessions/ses_1", "/customers/customer-17/invoice", "/customers/customer-17/invoice.csv"]
        for path in paths:
            answer = await console.http.get(path)
            assert (answer.status_code, answer.headers["location"][:12]) == (303, "/login?next="), path
        await console.log_in(VIEWER, "vera")
        for path in paths:
            assert (await console.http.get(path)).status_code == 200, path


async def test_a_viewer_sees_no_forms_and_cannot_decide(ledger_url: URL) -> None:
    async with console_on(ledger_url, tokens=True) as console:
        await post(console, event(1), event(2, data={"held": True}))
        await console.log_in(VIEWER, "vera")
        pages = [await console.page(path) for path in ("/decisions", "/sessions/ses_1", "/sessions/ses_2")]
        assert all(not form.choices for page in pages for form in page.forms if form.action == "/decisions")
        assert "Your name" not in " ".join(page.text for page in pages)
        key = pages[0].forms[0].fields["form_key"]
        given = {
            "form_key": key,
            "kind": "reverse",
            "outcome": "out_1",
            "actor": "vera",
            "reason": "r",
            "confirmed": "yes",
        }
        answer = await console.http.post("/decisions", data=given)
        assert (answer.status_code, "ask an operator" in Page(answer).text) == (403, True)
        async with console.http.billing.database.reading() as connection:
            assert (await connection.exec_driver_sql("SELECT count(*) FROM decisions")).scalar() == 0


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


async def test_a_program_with_the_token_reads_pages(ledger_url: URL) -> None:
    async with console_on(ledger_url, tokens=True) as console:
        answer = await console.http.get("/customers", headers={"Authorization": f"Bearer {OPERATOR}"})
        assert answer.status_code == 200
        assert json.dumps("customers")[1:-1] in answer.text.lower()


async def test_a_page_does_not_wait_for_a_backlog_of_sums(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates, "SOON_MAX", 2)
    monkeypatch.setattr(entries, "FEW", 2)
    await graduated(console)
    await post(console, *(event(number) for number in range(4)))
    assert "not summed up" in (await console.page("/customers", period="2026-11")).text
    assert "not summed up yet" in (await console.page("/customers/customer-17", period="2026-11")).text
    assert "What it costs is said by the invoice" in (await console.page("/sessions/ses_1")).text
    assert "$12.48" in (await console.page("/customers/customer-17/invoice", period="2026-11")).text
    await console.http.upkeep.settle()
    assert "$12.48" in (await console.page("/customers", period="2026-11")).text


async def test_addresses_hold_whatever_a_name_has(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next page of an invoice's line, what a decision goes back to, what an error offers to try again."""
    monkeypatch.setattr(customers, "LINES_PAGE", 2)
    name = "a/b?c=1&d#e%2Ff\N{SNOWMAN}"
    await graduated(console)
    sessions = [f"{name}{number}" for number in range(5)]
    await post(console, *(event(n, subject=name, data={"session_id": one}) for n, one in enumerate(sessions)))
    invoice = await console.page(f"/customers/{quote(name, safe='')}/invoice", period="2026-11")
    path, seen = next(link for link in invoice.links if "/lines/" in link), []
    while path:
        page = await console.page(path)
        seen += [link for link in page.links if link.startswith("/sessions/")]
        path = next((link for link in page.links if "after=" in link), "")
    assert seen == [f"/sessions/{quote(one, safe='')}" for one in sessions]
    assert (await console.page(seen[0])).form("/decisions").fields["back"] == seen[0]
    nowhere = f"/sessions/{quote(name, safe='')}"
    assert nowhere in (await console.page(nowhere, 404)).links


async def test_little_is_read_of_a_login(ledger_url: URL) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"token=x"

    async with console_on(ledger_url, tokens=True) as console:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for body in (b"token=" + b"x" * (16 << 10), endless()):
            answer = await console.http.post("/login", content=body, headers=form)
            assert answer.status_code == 413, answer.text
            assert "Content-Length" in Page(answer).text
        await console.log_in(VIEWER, "v" * 1000)


async def test_a_change_of_plan_within_a_month_shows_every_currency_and_the_spend_against_the_cap_it_led_to(
    ledger_url: URL,
) -> None:
    async with console_on(ledger_url, clock=Clock()) as console:
        await put_plan(console.http, "a", simple_plan(2, ", guardrails: {max_spend_cap: 2}"))
        await put_plan(
            console.http,
            "b",
            simple_plan(5, ", guardrails: {max_spend_cap: 50}").replace("rate: 5", "rate: 5, currency: EUR"),
        )
        for plan, since in (("a", None), ("b", "2026-11-15T00:00:00Z")):
            body = {"plan": plan} if since is None else {"plan": plan, "effective_from": since}
            assert (await console.http.put("/v1/customers/customer-17", json=body)).status_code == 200
        days = ("2026-11-03", "2026-11-14", "2026-11-16")
        await post(console, *(event(n, time=f"{day}T00:00:00Z") for n, day in enumerate(days)))
        await console.http.upkeep.settle()
        for path in ("/customers", "/customers/customer-17", "/customers/customer-17/invoice"):
            page = await console.page(path, period="2026-11")
            assert "€5.00 + $4.00" in page.text, path
            assert "€5.00 of €50.00" in page.text, path


async def test_the_spend_against_a_cap_is_of_the_plan_that_has_it(ledger_url: URL) -> None:
    async with console_on(ledger_url, clock=Clock()) as console:
        await put_plan(console.http, "a", simple_plan(2))
        await put_plan(console.http, "b", simple_plan(5, ", guardrails: {max_spend_cap: 50}"))
        await console.http.put("/v1/customers/customer-17", json={"plan": "a"})
        body = {"plan": "b", "effective_from": "2026-11-15T00:00:00Z"}
        assert (await console.http.put("/v1/customers/customer-17", json=body)).status_code == 200
        days = ("2026-11-03", "2026-11-14", "2026-11-16")
        await post(console, *(event(n, time=f"{day}T00:00:00Z") for n, day in enumerate(days)))
        assert "$5.00 of $50.00" in (await console.page("/customers/customer-17", period="2026-11")).text


async def test_what_is_said_for_later_does_not_hold_now(ledger_url: URL) -> None:
    clock = Clock()
    async with console_on(ledger_url, clock=clock) as console:
        await put_plan(console.http, "a", simple_plan(2))
        await put_plan(console.http, "b", simple_plan(3))
        later = {"plan": "b", "seats": 8, "effective_from": "2026-12-15T00:00:00Z"}
        for body in ({"plan": "b"}, {"plan": "a"}, later):
            assert (await console.http.put("/v1/customers/customer-17", json=body)).status_code == 200
            clock.now_us += 1_000_000
        page = await console.page("/customers/customer-17")
        assert "15 Dec 2026, 00:00:00 later b" in page.text
        assert "22 Nov 2026, 10:00:01 now a from 1 Dec 2026" in page.text
        clock.now_us += 30 * 86_400_000_000
        page = await console.page("/customers/customer-17")
        assert "15 Dec 2026, 00:00:00 now b" in page.text


async def test_an_address_that_leads_nowhere_is_a_page_to_people_and_a_problem_to_programs(console: Console) -> None:
    browser = {"Accept": "text/html,*/*"}
    for status, method, path in ((404, "GET", "/nowhere"), (404, "GET", "/favicon.ico"), (405, "POST", "/books")):
        assert Page(await console.http.request(method, path, headers=browser)).status == status
        answer = await console.http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"][:24]) == (status, "application/problem+json")
    assert (await console.http.post("/books", headers=browser)).headers["Allow"] == "GET,HEAD"
    answer = await console.http.get("/v1/nowhere", headers=browser)
    assert (answer.status_code, answer.headers["content-type"][:24]) == (404, "application/problem+json")


async def test_before_the_first_month_there_is_none(console: Console) -> None:
    for path in ("/", "/customers/customer-17", "/customers/customer-17/invoice"):
        page = await console.page(path, period="1970-01")
        assert not [link for link in page.links if "1969" in link], path
        assert [link for link in (await console.page(path, period="1970-02")).links if "1970-01" in link], path


async def test_the_command_that_verifies_a_session_can_be_copied(console: Console) -> None:
    name = "a b;c'd"
    await post(console, event(1, data={"session_id": name, "evidence_chain": "sha1:" + "ab" * 20}))
    headers = {"X-Forwarded-Proto": "https", "Host": "localhost"}
    page = Page(await console.http.get(f"/sessions/{quote(name)}", headers=headers))
    wanted = ["sidecar", "sessions", "verify", name, "--billing", "https://localhost"]
    assert shlex.join(wanted) in page.text


async def test_the_lines_of_a_month_with_two_plans_lead_each_to_its_own_sessions(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customers, "LINES_PAGE", 1)
    await graduated(console)
    customer, later = "/v1/customers/customer-17", {"effective_from": "2026-11-15T00:00:00Z"}
    await put_plan(console.http, "other", PLAN)
    assert (await console.http.put(customer, json={"plan": "other", **later})).status_code == 200
    await post(console, *(event(n, time=f"2026-11-{day}T00:00:00Z") for n, day in enumerate((20, 10, 21))))
    invoice = await console.page("/customers/customer-17/invoice", period="2026-11")
    seen = []
    for path in (link for link in invoice.links if "/lines/" in link):
        page = await console.page(path)
        seen.append([link for link in page.links if link.startswith("/sessions/")])
        while following := [link for link in page.links if "after=" in link]:
            page = await console.page(following[0])
            seen[-1] += [link for link in page.links if link.startswith("/sessions/")]
    assert seen == [["/sessions/ses_1"], ["/sessions/ses_0", "/sessions/ses_2"]]
    session = await console.page("/sessions/ses_1")
    [line] = [link for link in session.links if "/lines/" in link]
    assert [link for link in (await console.page(line)).links if link.startswith("/sessions/")] == ["/sessions/ses_1"]
