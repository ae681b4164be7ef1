"""The console's pages of plans: lists, sentences, versions side by side, and new versions, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from billing_api import put_plan, simple_plan
from console_pages import OPERATOR, VIEWER, Console, Page, console_on
from console_work import words
from sqlalchemy.engine import URL

from sidecar.billing.ledger.database import sqlite_url
from sidecar.policy.loading import load_plan

PLAN = simple_plan()
HOSTILE = [
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "\N{RIGHT-TO-LEFT OVERRIDE}evil", "{{ 7 * 7 }}",
    "</textarea><script>alert(1)</script>", "ünïcödé \N{PILE OF POO}",
]  # fmt: skip
# Every form of these pages, with fields that would be taken.
FORMS = {
    "/new-plan": {"id": "new", "text": PLAN},
    "/plans/p/edit": {"text": simple_plan(2), "base": "1", "do": "save"},
    "/plans/p/backtest": {"text": PLAN, "period": "2026-11"},
    "/exports": {},
    "/exports/stripe": {"action": "send", "which": "all", "reason": "r"},
    "/shadow": {},
    "/prices": {"model": "m", "input": "1", "output": "2", "reason": "r", "base": "0"},
}


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url) as found:
        await put_plan(found.http, "p", PLAN)
        yield found


async def key(console: Console) -> str:
    """The form key of a visitor who may decide."""
    return (await console.page("/new-plan")).form("").fields["form_key"]


async def send(console: Console, path: str, status: int = 200, **fields: str) -> httpx.Response:
    answer = await console.http.post(path, data={"form_key": await key(console), "actor": "ann", **fields})
    assert answer.status_code == status, answer.text[-2000:]
    return answer


async def test_the_list_says_how_many_have_each_plan(console: Console) -> None:
    for name, facts in {"a": {"plan": "p"}, "b": {"plan": "p"}, "c": {"plan": "default"}, "d": {}}.items():
        await console.http.put(f"/v1/customers/{name}", json=facts)
    await console.http.put("/v1/customers/b", json={"plan": "default"})
    page = await console.page("/plans")
    assert "default AI Resolution — Outcome-Based 3 and all not registered 1" in words(page)
    assert "p p 1 1" in words(page)
    assert "/plans/p" in page.links


async def test_a_plan_is_read_in_sentences_beside_its_file(console: Console) -> None:
    page = await console.page("/plans/default")
    assert "$0.99 for each unit" in words(page)
    assert "The first 100 units of a month are free." in words(page)
    assert "A session ends after 60 minutes of silence; silence is not charged." in words(page)
    assert "rate_plan:" in words(page)
    assert words(await console.page("/plans/default/compare")).count("There is one version of this plan") == 1


async def test_a_version_is_shown_against_the_newest_and_then_saved_with_its_author(console: Console) -> None:
    new = simple_plan(2)
    asked = Page(await send(console, "/plans/p/edit", text=new, base="1", do="check"))
    assert "charge pricing rate 1 2" in words(asked)
    assert len(await console.http.billing.plan("p")) == 1, "shown is not saved"
    answer = await send(console, "/plans/p/edit", 303, text=new.replace(", ", ",\r\n"), base="1", do="save")
    assert answer.headers["location"] == "/plans/p?saved=2"
    one, two = await console.http.billing.plan("p")
    assert (one.actor, two.actor, two.source) == (None, "ann", new.replace(", ", ",\n"))
    assert "Version 2 is saved." in words(await console.page("/plans/p?saved=2"))
    page = await console.page("/plans/p/compare?from=1&to=2")
    assert "charge pricing rate 1 2" in words(page)
    assert words(await console.page("/plans/p?version=1")).count("not the newest") == 1
    await console.page("/plans/p/compare?from=7", 404)
    await console.page("/plans/nothing", 404)
    await console.page("/plans/p%3Cscript%3E", 404)


async def test_what_is_wrong_is_said_by_line_and_the_text_is_kept(console: Console) -> None:
    wrong = "rate_plan:\n  name: x\n  metrix: []\n  pricing: {model: PER_UNIT}\n# </textarea> my notes"
    page = Page(await send(console, "/plans/p/edit", 422, text=wrong, base="1", do="save"))
    assert "Line 3: rate_plan: unknown field 'metrix'; did you mean metrics?" in words(page)
    assert "Line 4: pricing.model: PER_UNIT needs rate" in words(page)
    assert "# </textarea> my notes" in words(page)
    assert len(await console.http.billing.plan("p")) == 1
    page = Page(await send(console, "/plans/p/backtest", 422, text=wrong, period="never"))
    assert "unknown field 'metrix'" in words(page)
    assert "# </textarea> my notes" in words(page)


async def test_nobody_overwrites_what_somebody_else_saved(console: Console) -> None:
    await put_plan(console.http, "p", simple_plan(5))
    page = Page(await send(console, "/plans/p/edit", 422, text=simple_plan(2), base="1", do="save"))
    assert "version 2 was saved in the meantime" in words(page)
    assert "charge pricing rate 5 2" in words(page)
    assert page.form("").fields["base"] == "2", "sent again, it is against what was seen now"
    page = Page(await send(console, "/plans/p/edit", 422, text=simple_plan(5), base="2", do="save"))
    assert "this is the same file as version 2" in words(page)
    assert len(await console.http.billing.plan("p")) == 2


async def test_a_new_plan_needs_an_id_of_its_own_and_a_file_goes_before_the_text(console: Console) -> None:
    for wrong, said in (("a b", "the id is made of letters"), ("p", "there is a plan p already")):
        page = Page(await send(console, "/new-plan", 422, id=wrong, text=PLAN))
        assert said in words(page)
        assert page.form("").fields["id"] == wrong
    assert "say who you are" in words(Page(await send(console, "/new-plan", 422, id="q", text=PLAN, actor=" ")))
    files = {"file": ("plan.yaml", simple_plan(7).encode(), "application/yaml")}
    fields = {"form_key": await key(console), "actor": "bob", "id": "q", "text": "not this"}
    answer = await console.http.post("/new-plan", data=fields, files=files)
    assert (answer.status_code, answer.headers["location"]) == (303, "/plans/q?saved=1")
    [version] = await console.http.billing.plan("q")
    assert (version.source, version.actor) == (simple_plan(7), "bob")


async def test_what_a_plan_says_is_text_wherever_it_is_shown(tmp_path: Path) -> None:
    async with console_on(sqlite_url(tmp_path / "billing.sqlite3")) as console:
        for number, name in enumerate(HOSTILE, 1):
            quoted = "'" + name.replace("'", "''") + "'"
            condition = f"{{field: outcome, operator: EQUALS, value: {quoted}}}"
            plan = (
                f"rate_plan:\n  name: {quoted}\n  metrics:\n    - id: m\n      name: {quoted}\n      unit: {quoted}\n"
                f"      aggregation: COUNT\n      filter_conditions: [{condition}]\n"
                f"  charges:\n    - {{id: c, name: {quoted}, metrics: [m], model: PER_UNIT, rate: 1}}\n"
                f"  signals:\n    - {{id: s, on: tool_call, set: {{outcome: RESOLVED, reason: {quoted}}}}}\n"
            )
            await send(console, "/plans/default/edit", 303, text=plan, base=str(number), do="save", actor=name)
            for path in ("", "/default", "/default/compare", "/default/edit", "/default/backtest"):
                page = await console.page(f"/plans{path}")
                written = quoted[1:-1] if path.endswith(("edit", "backtest")) else name
                assert written in words(page), path
                assert "img" not in page.tags
                assert page.answer.text.count("<script") == 2, "the frame's own"


async def test_only_an_operator_with_a_form_of_the_session_decides(tmp_path: Path) -> None:
    async with console_on(sqlite_url(tmp_path / "billing.sqlite3"), tokens=True) as console:
        await console.http.billing.put_plan("p", load_plan(PLAN.encode(), "p"))
        for path, fields in FORMS.items():
            assert (await console.http.post(path, data=fields)).status_code == 401, path
        await console.log_in(VIEWER, "vera")
        for page in ("/plans", "/plans/p", "/plans/p/edit", "/plans/p/backtest", "/exports", "/shadow", "/prices"):
            shown = await console.page(page)
            assert [form.action for form in shown.forms if form.method == "post"] == ["/logout"], page
        of_viewer = shown.form("/logout").fields["form_key"]
        for path, fields in FORMS.items():
            answer = await console.http.post(path, data={"form_key": of_viewer, **fields})
            assert (answer.status_code, "ask an operator" in answer.text) == (403, True), path
        await console.log_in(OPERATOR, "olga")
        mine = (await console.page("/prices")).form("/logout").fields["form_key"]
        forged = (
            ({}, {}),
            ({"form_key": of_viewer}, {}),
            ({"form_key": mine}, {"Sec-Fetch-Site": "cross-site"}),
            ({"form_key": mine}, {"Origin": "https://elsewhere.example"}),
        )
        for path, fields in FORMS.items():
            for key_, headers in forged:
                answer = await console.http.post(path, data={**key_, **fields}, headers=headers)
                assert (answer.status_code, "not of this session" in answer.text) == (403, True), (path, headers)
        assert await console.http.billing.model_prices() == []
        assert len(await console.http.billing.plan("p")) == 1
        for path, fields in FORMS.items():
            answer = await console.http.post(path, data={"form_key": mine, **fields})
            assert answer.status_code == (404 if path.startswith("/exports") else 303), path


async def test_the_name_of_the_login_is_kept_with_a_version(ledger_url: URL) -> None:
    async with console_on(ledger_url, tokens=True) as console:
        await console.log_in(OPERATOR, "olga")
        fields = {"id": "q", "text": PLAN, "actor": "somebody else", "form_key": await key(console)}
        assert (await console.http.post("/new-plan", data=fields)).status_code == 303
        assert (await console.http.billing.plan("q"))[0].actor == "olga"
