"""The journal cannot be opened at the start: all else works, nothing is taken that could be lost, it recovers."""

import asyncio

import httpx
from harness import ledger, wait_for
from talk import Talk, hold


def metrics(running):
    return httpx.get(running.admin + "/metrics").raise_for_status().text


def resolve(running, number):
    alias = {"kind": "conversation", "value": "a"}
    return running.signal(id=f"s-{number}", source="crm", alias=alias, outcome="RESOLVED", reason="said so")


def test_an_observer_whose_journal_cannot_be_opened_serves_all_else_and_recovers_by_itself(sidecar):
    running = sidecar(BILLING_URL="embedded")
    blocked = running.data_dir / "journal.sqlite3"
    blocked.mkdir()  # nobody, root included, opens a directory for writing
    running.start()
    parts = running.wait_up()
    assert parts["journal"]["state"] == "down"
    pid = parts["observer"]["pid"]
    refused = wait_for("the admin API", lambda: (answer := resolve(running, 1)).status_code == 503 and answer)
    assert "could not be made durable" in refused.json()["detail"]
    asyncio.run(hold(Talk("a", "escalated", "acme"), running.url))
    assert httpx.get(running.admin + "/v1/sessions").json() == {"sessions": [], "next": None}
    assert 'sidecar_events_total{event="journal_full"}' in wait_for(
        "the copies to wait", lambda: "journal_full" in (text := metrics(running)) and text
    )
    blocked.rmdir()
    rows = wait_for("the outcome", lambda: ledger(running.billing_url()))
    assert [row["data"]["state"] for row in rows] == ["NOT_BILLABLE"]
    assert resolve(running, 2).status_code == 202
    parts = running.wait_up("observer", "redis", "journal")
    assert parts["observer"]["pid"] == pid, "it recovered without a restart"
