"""Backtests run from a page: in a process of their own, shown by every replica, bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from billing_api import Clock, event, post, put_plan, simple_plan
from console_pages import Console, Page, console_on
from console_work import PATIENCE_SECONDS, finished, words
from sqlalchemy import select
from sqlalchemy.engine import URL

from sidecar.billing.rating.periods import Period
from sidecar.billing.work import runner, runs
from sidecar.billing.work.runner import BusyError, Runner
from sidecar.billing.work.runs import Wanted
from sidecar.billing.work.tables import runs as table

NOVEMBER = Period(2026, 11)
HOSTILE = "\"><script>alert('1')</script>\N{RIGHT-TO-LEFT OVERRIDE}"


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    async with console_on(ledger_url, clock=Clock()) as found:
        await put_plan(found.http, "default", simple_plan())
        yield found


def wanted(source: str = simple_plan(3)) -> Wanted:
    return Wanted("backtest", NOVEMBER, "ann", "default", source)


async def start(console: Console, text: str, period: str = "2026-11") -> str:
    form = (await console.page("/plans/default/backtest")).form("/plans/default/backtest")
    fields = {**form.fields, "text": text, "period": period, "actor": HOSTILE}
    answer = await console.http.post(form.action, data=fields)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def test_a_backtest_says_what_each_customer_would_have_paid(console: Console) -> None:
    held = {"outcome": "QUALIFIED"}
    await post(
        console.http, event(1), event(2), event(3, subject=HOSTILE), event(4, data=held), event(5, subject="small"),
        event(6, subject="unattributed"),
    )  # fmt: skip
    text = simple_plan(3).replace("operator: EQUALS, value: RESOLVED", "operator: IN, value: [RESOLVED, QUALIFIED]")
    path = await start(console, text)
    page = await finished(console, path)
    assert "Difference +$11.00" in words(page)
    assert "Charged $4.00" in words(page)
    assert "Tested $15.00" in words(page)
    assert "customer-17 $2.00 $9.00 +$7.00 1" in words(page)
    assert words(page).index("customer-17 $2.00") < words(page).index(HOSTILE), "the largest difference first"
    assert "ses_4 customer-17 unmatched charged" in words(page)
    assert "/sessions/ses_4" in page.links
    assert page.answer.text.count("<script") == 2
    answer = await console.http.post("/v1/plans/backtest", json={"plan": text, "period": "2026-11"})
    assert answer.json()["tested"] == {"USD": "15.00"}, "the API says the same"
    before = await console.page("/plans/default/backtest")
    assert path in before.links
    assert HOSTILE in words(before)
    assert len(await console.http.billing.plan("default")) == 2, "nothing was saved"


async def test_a_month_without_customers_and_a_run_that_is_not_there(console: Console) -> None:
    page = await finished(console, await start(console, simple_plan(3), "2026-09"))
    assert "No customer has anything on an invoice of September 2026." in words(page)
    await console.page("/plans/default/backtest/run_0", 404)
    run_id = await runs.add(console.http.billing.database, Wanted("shadow", NOVEMBER, "", ""), 1)
    await console.page(f"/plans/default/backtest/{run_id}", 404)


async def test_another_replica_shows_the_run_and_how_far_it_is(console: Console, ledger_url: URL) -> None:
    billing = console.http.billing
    run_id = await runs.add(billing.database, wanted(), billing.clock())
    path = f"/plans/default/backtest/{run_id}"
    async with console_on(ledger_url, clock=billing.clock) as other:
        assert "It waits for another run to finish." in words(await other.page(path))
        await runs.change(billing.database, run_id, state="running", total=12, done=5)
        page = await other.page(path)
        assert "5 of 12 customers rated" in words(page)
        assert "progress" in page.tags
        billing.clock.now_us += runs.LOST_AFTER_US + 1
        page = await other.page(path)
        assert "The replica that worked on it has stopped" in words(page)
        assert "data-refreshes" not in page.answer.text
        await runs.change(billing.database, run_id, state="failed", error=HOSTILE)
        assert HOSTILE in words(await other.page(path))


async def test_runs_wait_for_each_other_and_too_many_are_sent_away(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, gate = 0, asyncio.Event()

    async def work(*_: Any) -> dict[str, Any]:
        nonlocal working
        working += 1
        assert working == 1, "one at a time"
        await gate.wait()
        working -= 1
        return {"state": "done", "result": "{}"}

    one = Runner(console.http.billing)
    monkeypatch.setattr(one, "_work", work)
    ids = [await one.start(wanted()) for _ in range(runner.WAITING_MAX + 1)]
    with pytest.raises(BusyError, match="8 runs wait already"):
        await one.start(wanted())
    assert "sidecar_billing_runs_open 9.0" in (await console.http.get("/metrics")).text
    gate.set()
    await one.finish()
    found = await runs.recent(console.http.billing.database, "backtest", "default", console.http.billing.clock(), 20)
    assert {run.id: run.state for run in found} == dict.fromkeys(ids, "done")
    assert "sidecar_billing_runs_open 0.0" in (await console.http.get("/metrics")).text
    await one.start(wanted())
    await one.finish()


async def test_too_little_memory_ends_the_run_and_nothing_else(console: Console) -> None:
    await post(console.http, event(1))
    one = Runner(console.http.billing, memory_bytes_max=1 << 20)
    run_id = await one.start(wanted())
    await one.finish()
    run = await runs.read(console.http.billing.database, run_id, console.http.billing.clock())
    assert run is not None
    assert run.state == "failed"
    assert run.error


async def test_a_child_that_is_killed_and_a_replica_that_stops(console: Console) -> None:
    billing, one = console.http.billing, Runner(console.http.billing)
    await post(console.http, *(event(number, subject=f"c-{number}") for number in range(50)))
    run_id = await one.start(wanted())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while one.child is None:
            await asyncio.sleep(0.01)
    one.child.kill()
    await one.finish()
    run = await runs.read(billing.database, run_id, billing.clock())
    assert run is not None
    assert (run.state, run.error) == ("failed", "the process that worked on it ended early, with -9")
    run_id = await one.start(wanted())
    await one.stop()
    billing.clock.now_us += runs.LOST_AFTER_US + 1
    run = await runs.read(billing.database, run_id, billing.clock())
    assert run is not None
    assert run.state == "lost"


async def test_a_defect_is_in_the_log_by_its_kind_and_place(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the exception says may be a customer's words: they stay out of it."""
    billing, one = console.http.billing, Runner(console.http.billing)
    run_id = await one.start(Wanted("somebodys-words", NOVEMBER, "ann", "default", ""))
    await one.finish()
    run = await runs.read(billing.database, run_id, billing.clock())
    assert run is not None
    assert (run.state, run.error) == ("failed", "the process that worked on it ended early, with 1")
    said = capfd.readouterr().err
    [line] = [json.loads(line) for line in said.splitlines() if '"crashed"' in line]
    assert line["exception"][0]["kind"] == "KeyError"
    assert "work/child.py" in " ".join(line["exception"][0]["at"])
    assert "somebodys-words" not in said


async def test_a_result_that_is_too_large_ends_the_run(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LINE_BYTES_MAX", 64)
    billing, one = console.http.billing, Runner(console.http.billing)
    await post(console.http, event(1))
    run_id = await one.start(wanted())
    await one.finish()
    run = await runs.read(billing.database, run_id, billing.clock())
    assert run is not None
    assert (run.state, run.error) == ("failed", "what came of it is larger than 0 MiB")


async def test_old_runs_are_thrown_away(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT_MAX", 3)
    database = console.http.billing.database
    ids = [await runs.add(database, wanted(), number) for number in range(6)]
    async with database.reading() as connection:
        left = set((await connection.execute(select(table.c.id))).scalars())
    assert left == set(ids[3:])


async def test_the_page_of_a_run_without_script_is_a_page(console: Console) -> None:
    assert Page(await console.http.get(await start(console, simple_plan(2)))).status == 200
