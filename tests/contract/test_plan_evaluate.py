"""`sidecar plan evaluate` against a real billing API, and against an admin API's answers."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from aiohttp import web

from sidecar import cli
from sidecar.billing.api.server import application
from sidecar.billing.ledger.catalog import DEFAULT_PLAN
from sidecar.billing.ledger.database import Database, sqlite_url
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens
from sidecar.plantest.evaluate import decided
from sidecar.policy.loading import builtin_plan


def event(conversation, state, outcome, *, number=0, revision=0, started="2026-11-22T10:00:00Z", shadow=False):
    session = f"ses_{conversation}_{number}"
    data = {
        "session_id": session, "conversation": conversation, "tenant": "acme", "outcome": outcome, "state": state,
        "escalated_to_human": state == "NOT_BILLABLE", "revision": revision, "held": False, "billable": True,
        "shadow": shadow, "reverses": f"out_{session}_{revision - 1}" if revision else None, "started_at": started,
        "reason": "because",
    }  # fmt: skip
    return {
        "specversion": "1.0", "id": f"out_{session}_{revision}", "source": "sidecar/acme", "time": started,
        "type": "sidecar.outcome.v1", "subject": "acme", "datacontenttype": "application/json", "data": data,
    }  # fmt: skip


LEDGER = [
    event("c-1", "RESOLVED", "RESOLVED"),
    event("c-2", "RESOLVED", "RESOLVED"),
    event("c-2", "REVERSED", "UNRESOLVED", revision=1),
    event("c-3", "RESOLVED", "QUALIFIED", number=1, started="2026-11-23T10:00:00Z"),
    event("c-3", "NOT_BILLABLE", "ESCALATED_TO_HUMAN", number=0),  # an older session, told later
    event("c-4", "INCONCLUSIVE", "INCONCLUSIVE", shadow=True),
]
LABELS = "conversation,outcome\nc-1,resolved\nc-2,RESOLVED\nc-3,qualified\nc-4,solved\nc-9,RESOLVED\n"


@pytest.fixture
async def billing(tmp_path):
    database = Database(sqlite_url(tmp_path / "ledger.sqlite3"))
    await database.migrate()
    service = Billing(database, lambda: 1_795_341_600_000_000)
    await service.put_plan(DEFAULT_PLAN, builtin_plan())
    runner = web.AppRunner(application(service, Tokens("s3cret")), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    headers = {"authorization": "Bearer s3cret", "content-type": "application/cloudevents-batch+json"}
    async with httpx.AsyncClient(base_url=base, headers=headers) as client:
        answer = await client.post("/v1/outcomes", content=json.dumps(LEDGER))
        assert answer.json()["rejected"] == []
    yield base
    await runner.cleanup()
    await database.close()


async def evaluate(*arguments):
    return await asyncio.to_thread(cli.main, ["plan", "evaluate", *map(str, arguments)])


async def test_labels_are_compared_with_the_ledger(billing, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN", "s3cret")
    file = tmp_path / "crm.csv"
    file.write_text(LABELS)
    common = ["--labels", file, "--billing", billing, "--map", "solved=RESOLVED"]
    assert await evaluate(*common, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["matrix"] == {
        "RESOLVED": {"RESOLVED": 1, "UNRESOLVED": 1, "INCONCLUSIVE": 1}, "QUALIFIED": {"QUALIFIED": 1},
    }  # fmt: skip
    assert document["missing"] == ["c-9"]
    assert document["disagreements"][0] == {
        "conversation": "c-2", "label": "RESOLVED", "decided": "UNRESOLVED", "session_id": "ses_c-2_0",
        "reason": "because",
    }  # fmt: skip
    assert await evaluate(*common, "--at-least", "0.5") == 0
    assert await evaluate(*common, "--at-least", "0.51") == 1
    assert "50.0% of 4 conversations are decided as people say." in capsys.readouterr().out


async def test_what_cannot_be_done_is_said(billing, tmp_path, capsys, monkeypatch):
    file = tmp_path / "crm.csv"
    file.write_text("chat,outcome\nc-1,x\n")
    assert await evaluate("--labels", file, "--billing", billing) == 2
    assert "--conversation-column" in capsys.readouterr().err
    assert await evaluate("--labels", tmp_path / "absent.csv", "--billing", billing) == 2
    assert "absent.csv cannot be read" in capsys.readouterr().err
    file.write_text(LABELS)
    assert await evaluate("--labels", file, "--billing", billing, "--map", "solved") == 2
    monkeypatch.delenv("SIDECAR_BILLING_TOKEN", raising=False)
    assert await evaluate("--labels", file, "--billing", billing) == 1  # no token
    assert "401" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "revision", "outcome", "expected"),
    [
        ("AI_HANDLING", None, None, "OPEN"),
        ("RESOLVED_PENDING", None, "RESOLVED", "OPEN"),
        ("RESOLVED", 0, "QUALIFIED", "QUALIFIED"),
        ("NOT_BILLABLE", 1, None, "ESCALATED_TO_HUMAN"),
        ("INCONCLUSIVE", 0, None, "INCONCLUSIVE"),
        ("REVERSED", 1, None, "UNRESOLVED"),
    ],
)
def test_a_live_session_is_decided_as_it_was_posted(state, revision, outcome, expected):
    assert decided({"state": state, "revision": revision, "outcome": outcome}) == expected
