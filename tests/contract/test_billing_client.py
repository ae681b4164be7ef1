"""`sidecar plan backtest` and `sidecar billing import` against a real API."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from billing_api import event, get, post, put_plan, reversal, serving, simple_plan
from sqlalchemy.engine import URL

from sidecar import cli
from sidecar.billing.rating.account import Account
from sidecar.billing.service import Billing

PLANS = Path(__file__).parents[2] / "examples" / "plans"


@pytest.fixture
async def api(ledger_url: URL) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(ledger_url, token="s3cret") as client:
        client.headers["Authorization"] = "Bearer s3cret"
        await put_plan(client, "default", simple_plan(2))
        yield client


async def run(*argv: str) -> int:
    return await asyncio.to_thread(cli.main, list(argv))


async def test_a_backtest_stands_beside_what_was_charged(
    api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await post(api, *(event(n) for n in range(4)), event(5, data={"outcome": "QUALIFIED"}), event(6, subject="d"))
    await post(api, reversal(7, of=3, time="2026-11-25T00:00:00Z"), event(8, subject="unattributed"))
    plan = tmp_path / "new.yaml"
    plan.write_text(
        "rate_plan: {name: new, metrics: [{id: m, aggregation: COUNT, filter_conditions: "
        "[{field: outcome, operator: IN, value: [RESOLVED, QUALIFIED]}]}], "
        "pricing: {model: PER_UNIT, rate: 1.5, included_free: 1}}"
    )
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN", "s3cret")
    command = ("plan", "backtest", str(plan), "--billing", str(api.base_url), "--period", "2026-11")
    assert await run(*command, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["actual"], found["tested"], found["difference"]) == (
        {"USD": "8.00"}, {"USD": "4.50"}, {"USD": "-3.50"},
    )  # fmt: skip
    assert [(one["customer"], one["actual"], one["tested"], one["sessions_changed"]) for one in found["customers"]] == [
        ("customer-17", {"USD": "6.00"}, {"USD": "4.50"}, 2), ("d", {"USD": "2.00"}, {"USD": "0.00"}, 1),
    ]  # fmt: skip
    assert {(one["session_id"], one["actual"], one["tested"]) for one in found["sessions"]} == {
        ("ses_0", "charged", "free"), ("ses_5", "unmatched", "charged"), ("ses_6", "charged", "free"),
    }  # fmt: skip
    by_json = await api.post("/v1/plans/backtest", json={"plan": plan.read_text(), "period": "2026-11"})
    assert by_json.json() == found
    assert await run(*command) == 0
    shown = capsys.readouterr().out
    for words in ("customer-17", "6.00 USD", "-3.50 USD", "ses_5", "unmatched → charged"):
        assert words in shown


async def test_a_backtest_has_one_account_in_memory_at_a_time(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, alive = list[weakref.ref[Account]](), list[int]()

    async def one(*arguments: Any) -> Any:
        gc.collect()
        alive.append(sum(account() is not None for account in made))
        found = await Billing._account(api.billing, *arguments)
        made.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(api.billing, "_account", one)
    await post(api, *(event(number, subject=f"customer-{number}") for number in range(5)))
    answer = await api.post("/v1/plans/backtest", json={"plan": simple_plan(3), "period": "2026-11"})
    assert [one["customer"] for one in answer.json()["customers"]] == [f"customer-{number}" for number in range(5)]
    assert len(alive) == 5
    assert max(alive) <= 1, "the one that was rated last may not be gone yet"


async def test_what_a_backtest_says_when_it_cannot(
    api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, url = str(PLANS / "fin.yaml"), str(api.base_url)
    broken = tmp_path / "broken.yaml"
    broken.write_text("rate_plan: {name: x, nam: y}")
    for file, where, token, code, words in (
        (plan, url, "wrong", 1, "refuses the token: give the right one in SIDECAR_BILLING_TOKEN"),
        (str(broken), url, "s3cret", 1, "unknown field 'nam'"),
        (plan, "localhost", "s3cret", 2, "is no URL"),
    ):
        monkeypatch.setenv("SIDECAR_BILLING_TOKEN", token)
        assert await run("plan", "backtest", file, "--billing", where, "--period", "2026-11") == code
        assert words in capsys.readouterr().err
    for body in ({"plan": {"rate_plan": {}}, "period": "2026-11"}, {"plan": "x"}):
        assert (await api.post("/v1/plans/backtest", json=body)).status_code == 422


@pytest.mark.parametrize("form", ["lines", "list"])
async def test_events_are_brought_in_from_a_file_as_they_are_written(
    api: httpx.AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN", "s3cret")
    exact = '{"exact": 0.10000000000000000000001}'
    events = [json.dumps(event(n, data={"attributes": "A"})).replace('"A"', exact) for n in range(250)]
    events.append(json.dumps(event(300, data={"state": "OPEN"})))
    path = tmp_path / "events.json"
    path.write_text("[\n " + " ,\n".join(events) + "\n]\n" if form == "list" else "\n".join(events) + "\n\n")
    command = ("billing", "import", str(path), "--billing", str(api.base_url))
    assert await run(*command) == 1
    told = capsys.readouterr()
    assert told.out == "250 accepted, 0 duplicates, 1 rejected\n"
    assert "out_300: data.state" in told.err
    assert "0.10000000000000000000001" in (await api.get("/v1/outcomes")).text
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(events[:-1])))
    assert await run("billing", "import", "-", "--billing", str(api.base_url), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"accepted": 0, "duplicates": 250, "rejected": []}
    assert (await get(api, "/v1/summary", period="2026-11"))["sessions"] == 250


async def test_what_stands_before_a_line_that_is_no_json_is_brought_in(
    api: httpx.AsyncClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN", "s3cret")
    path = tmp_path / "events.json"
    lines = ["", *(json.dumps(event(n)) for n in range(150)), "not json", json.dumps(event(150))]
    path.write_text("\n".join(lines))
    command = ("billing", "import", str(path), "--billing", str(api.base_url))
    assert await run(*command) == 1
    told = capsys.readouterr().err
    assert "line 152 is no JSON" in told
    assert "(150 accepted and 0 duplicates before; correct line 152 and repeat the command to go on)" in told
    path.write_bytes(b"\n".join([*(line.encode() for line in lines[:-2]), b"\xff"]))
    assert await run(*command) == 1
    assert "duplicates before; correct the file and repeat the command to go on)" in capsys.readouterr().err
    for lead in ("[", ""):
        path.write_text("\ufeff" + lead + lines[-1] + ("]" if lead else ""), encoding="utf-8")
        assert await run(*command) == 0, "a byte order mark is no event"
    assert len((await get(api, "/v1/outcomes", limit="1000"))["outcomes"]) == 151


@pytest.mark.parametrize("text", ["{", "[{}", "[{} {}]", "[{}] x", '{"id": 1}\nnothing'])
async def test_files_that_are_no_json(
    api: httpx.AsyncClient,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN", "s3cret")
    path = tmp_path / "events.json"
    path.write_text(text)
    assert await run("billing", "import", str(path), "--billing", str(api.base_url)) == 1
    assert "is no JSON" in capsys.readouterr().err
