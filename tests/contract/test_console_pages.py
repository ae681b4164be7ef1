"""Every page of the console: without anything, with hostile strings, at wrong addresses, and to whom it is shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from billing_api import event
from console_pages import OPERATOR, VIEWER, Console, Page, console_on, graduated, post
from sqlalchemy.engine import URL

from sidecar.billing.console import customers
from sidecar.billing.ledger import aggregates, entries
from sidecar.billing.ledger.deciding import Ruling

PAGES = ["/", "/customers", "/sessions", "/decisions", "/decisions/made", "/customers/nobody-yet"]
HOSTILE = [
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "\N{RIGHT-TO-LEFT OVERRIDE}evil", "x" * 256,
    "a/b", "a%2Fb", "{{ 7 * 7 }}", "?q=1&x=2#y", "' OR '1'='1", "100%", "a\\b", "ünïcödé \N{PILE OF POO}", "a;b,c",
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_without_anything_says_what_will_be_there(console: Console, path: str) -> None:
    page = await console.page(path)
    assert "None" not in page.text.replace("None.", "")
    assert not any(word in page.text for word in ("Undefined", "{{", "nan"))
    assert len(page.text) > 100


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


async def test_an_address_that_leads_nowhere_is_a_page_to_people_and_a_problem_to_programs(console: Console) -> None:
    browser = {"Accept": "text/html,*/*"}
    for status, method, path in ((404, "GET", "/nowhere"), (404, "GET", "/favicon.ico"), (405, "POST", "/books")):
        assert Page(await console.http.request(method, path, headers=browser)).status == status
        answer = await console.http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"][:24]) == (status, "application/problem+json")
    assert (await console.http.post("/books", headers=browser)).headers["Allow"] == "GET,HEAD"
    answer = await console.http.get("/v1/nowhere", headers=browser)
    assert (answer.status_code, answer.headers["content-type"][:24]) == (404, "application/problem+json")
