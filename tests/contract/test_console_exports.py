"""The console's exports: what was sent, what is parked and decided, and the ledger beside what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from billing_api import event, post
from console_pages import Console, Page, console_on
from console_work import words, worked_out
from exporting import Setting, exporting
from sqlalchemy import func, select
from sqlalchemy.engine import URL

from sidecar.billing.console import live
from sidecar.billing.exports.tables import export_decisions, export_events

HOSTILE = "\"><script>alert('1')</script>\N{RIGHT-TO-LEFT OVERRIDE}"


@pytest.fixture
async def it(ledger_url: URL) -> AsyncIterator[Setting]:
    async with exporting(ledger_url, ["lago", "stripe_v1"]) as setting:
        setting.fakes["lago"].broken.add(HOSTILE)
        yield setting


async def parked(it: Setting) -> Console:
    """Three taken by both, one that Lago does not know the customer of, twice."""
    await post(it.api, *(event(number) for number in (1, 2, 3)), *(event(n, subject=HOSTILE) for n in (4, 5)))
    await it.run()
    return Console(it.api)


async def test_without_targets_the_page_says_how_to_have_some(ledger_url: URL) -> None:
    async with console_on(ledger_url) as console:
        assert "SIDECAR_BILLING_EXPORTS names a file" in words(await console.page("/exports"))
        await console.page("/exports/lago", 404)


async def test_a_target_without_entries(it: Setting) -> None:
    console = Console(it.api)
    assert "Acknowledged 0 of 0 sent" in words(await console.page("/exports"))
    assert "Nothing is parked." in words(await console.page("/exports/lago"))
    await console.page("/exports/lago?state=lost", 400)
    await console.page("/exports/nobody", 404)


async def test_counts_by_target_and_meter_and_the_parked_entries_with_their_reasons(it: Setting) -> None:
    console = await parked(it)
    page = await console.page("/exports")
    assert "Acknowledged 8 of 10 sent" in words(page)
    assert "Parked 2 for you to decide" in words(page)
    assert "lago Lago, resolutions 5 3 0 2" in words(page)
    assert "stripe_v1 Stripe meter events v1, resolutions 5 5 0 0" in words(page)
    page = await console.page("/exports/lago")
    assert words(page).count(f"{HOSTILE} , 1 of resolutions") == 2
    assert words(page).count("refused answered 422: ") == 2
    assert page.answer.text.count("<script") == 2
    assert len((await console.page("/exports/lago?state=acknowledged")).answer.text.split("<li>")) == 4


async def test_what_waits_is_shown_with_its_age(it: Setting) -> None:
    await post(it.api, event(1))
    await it.note()
    it.clock.now_us += 180_000_000
    console = Console(it.api)
    assert "lago Lago, resolutions 0 0 1 for 3 minutes 0" in words(await console.page("/exports"))
    assert "Not sent yet" in words(await console.page("/exports/lago?state=waiting"))


async def test_chosen_entries_are_sent_again_with_actor_and_reason(it: Setting) -> None:
    console = await parked(it)
    form = (await console.page("/exports/lago")).form("/exports/lago")
    one, two = form.choices["entry"]
    given = {**form.fields, "which": "chosen", "action": "send", "actor": HOSTILE, "reason": HOSTILE}
    for wrong, said in (
        ({"entry": []}, "Choose at least one entry"),
        ({"entry": [one], "reason": " "}, "Say why"),
        ({"entry": [one], "actor": ""}, "Say who you are"),
        ({"entry": [one], "action": "burn"}, "Choose whether to send them again"),
    ):
        page = Page(await it.api.post("/exports/lago", data={**given, **wrong}))
        assert (page.status, said in words(page)) == (422, True), said
        assert (f'value="{one}" checked' in page.answer.text) == (wrong["entry"] != [] if "entry" in wrong else True)
    page = Page(await it.api.post("/exports/lago", data={**given, "entry": [one], "action": "acknowledge"}))
    assert (page.status, "not parked as ambiguous at lago" in words(page)) == (409, True)
    assert await _decisions(it) == []
    answer = await it.api.post("/exports/lago", data={**given, "entry": [one]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/exports/lago")
    assert await _decisions(it) == [("send", HOSTILE, HOSTILE)]
    page = await console.page("/exports/lago")
    assert page.form("/exports/lago").choices["entry"] == [two]
    assert f"Sent again {one}" in words(page)
    assert words(page).count(HOSTILE) == 3
    it.fakes["lago"].broken.clear()
    await it.run()
    assert {entry["id"] for entry in await it.entries("lago", "parked")} == {two}
    again = {**given, "entry": [one]}
    assert "not parked at lago" in words(Page(await it.api.post("/exports/lago", data=again)))


async def test_all_parked_entries_at_once(it: Setting) -> None:
    console = await parked(it)
    it.fakes["lago"].broken.clear()
    form = (await console.page("/exports/lago")).form("/exports/lago")
    given = {**form.fields, "which": "all", "action": "send", "actor": "ann", "reason": "the customer is there now"}
    assert (await it.api.post("/exports/lago", data=given)).status_code == 303
    await it.run()
    assert "Acknowledged 10 of 10 sent" in words(await console.page("/exports"))
    assert await _decisions(it) == [("send", "ann", "the customer is there now")] * 2


async def test_the_ledger_beside_what_was_acknowledged(it: Setting) -> None:
    console = await parked(it)
    path = "/exports?period=2026-11"
    assert "lago resolutions – 3 0 2 –" in words(await console.page(path))
    page = await worked_out(console, path)
    assert "lago resolutions 5 3 0 2 0" in words(page)
    assert "stripe_v1 resolutions 5 5 0 0 0" in words(page)
    await post(it.api, event(6))
    it.clock.now_us += 1_000_000
    page = await worked_out(console, path)
    assert "stripe_v1 resolutions 6 5 0 0 1" in words(page), "what no entry was written for yet is a difference"
    assert "lago resolutions – 0 0 0 –" in words(await console.page("/exports?period=2026-10"))


async def test_a_list_longer_than_a_page_goes_on(it: Setting) -> None:
    await post(it.api, *(event(number) for number in range(60)), kind="application/cloudevents-batch+json")
    await it.run()
    console = Console(it.api)
    page = await console.page("/exports/lago?state=acknowledged")
    [following] = [link for link in page.links if "after=" in link]
    rest = await console.page(f"/exports/lago{following}")
    ids = [part.split("<")[0] for text in (page, rest) for part in text.answer.text.split('class="id">exp_')[1:]]
    assert (len(ids), len(set(ids))) == (60, 60)
    async with it.api.billing.database.reading() as connection:
        query = select(func.count()).select_from(export_events).where(export_events.c.target == "lago")
        assert (await connection.execute(query)).scalar_one() == 60


async def _decisions(it: Setting) -> list[tuple[str, str, str]]:
    async with it.api.billing.database.reading() as connection:
        query = select(export_decisions.c.action, export_decisions.c.actor, export_decisions.c.reason)
        return [tuple(row) for row in (await connection.execute(query)).all()]


async def test_an_open_page_is_told_when_a_target_has_answered(it: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(live, "HEARTBEAT_LOOKS", 1)
    await post(it.api, event(1))
    await it.note()
    async with asyncio.timeout(60), it.api.stream("GET", "/live") as answer:
        told = answer.aiter_lines()
        while await anext(told) != ":":
            pass
        await it.send()
        while await anext(told) != "event: changed":
            pass
