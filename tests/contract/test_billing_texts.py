"""Texts that no database stores, as ids in addresses, queries, forms and bodies: nothing is found by them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
import pytest
from billing_api import event, get, post, serving
from console_pages import Console
from sqlalchemy.engine import URL

REASONED = {"actor": "ann", "reason": "r"}
ODD = "\0", "x\0y", "\ud800"


@pytest.fixture
async def api(ledger_url: URL) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(ledger_url) as client:
        await post(client, event(1))
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/v1/outcomes/%00", "/v1/sessions/%00", "/v1/plans/%00", "/v1/plans/x%00y", "/sessions/%00", "/sessions/x%00y",
        "/plans/%00", "/plans/%00/edit", "/plans/default/backtest/%00", "/plans/default/backtest/run_%00",
        "/v1/exports/%00/entries",
    ],
)  # fmt: skip
async def test_in_a_path_it_is_not_found(api: httpx.AsyncClient, path: str) -> None:
    assert (await api.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/v1/customers/%00", "/v1/customers/%00/invoice?period=2026-11", "/customers/x%00y"])
async def test_it_is_no_name_of_a_customer(api: httpx.AsyncClient, path: str) -> None:
    assert (await api.get(path)).status_code == 422


async def test_in_a_query_it_selects_nothing(api: httpx.AsyncClient) -> None:
    for name in ("customer", "conversation"):
        assert (await get(api, f"/v1/outcomes?{name}=x%00"))["outcomes"] == []
    assert (await get(api, "/v1/alerts?customer=x%00"))["alerts"] == []
    await get(api, "/v1/customers?after=%00")
    line = "/v1/customers/customer-17/sessions?period=2026-11&charge=%00"
    assert (await api.get(line)).status_code == 404
    for page in ("/sessions?q=%00", "/customers?q=%00", "/decisions?after=1.%00", "/customers?after=%00"):
        assert (await api.get(page)).status_code == 200, page


@pytest.mark.parametrize("kind", ["release", "drop", "reverse", "assign"])
async def test_nothing_is_decided_about_it(api: httpx.AsyncClient, kind: str) -> None:
    more = {"customer": "c"} if kind == "assign" else {}
    answer = await api.post(f"/v1/outcomes/%00/{kind}", json={**REASONED, **more})
    assert answer.status_code == 404, answer.text
    for field in ("actor", "customer") if more else ("actor",):
        answer = await api.post(f"/v1/outcomes/out_1/{kind}", json={**REASONED, **more, field: "x\0"})
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
async def test_a_form_that_decides_about_it_is_refused(api: httpx.AsyncClient, text: str) -> None:
    form = (await Console(api).page("/sessions/ses_1")).form("/decisions")
    given = {**form.fields, "kind": "reverse", "outcome": text, "actor": "ann", "reason": "r", "confirmed": "yes"}
    sent = httpx.QueryParams({name: value for name, value in given.items() if name != "outcome"})
    body = f"{sent}&outcome={quote(text, errors='surrogatepass')}"
    answer = await api.post("/decisions", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, "no such outcome" in answer.text) == (409, True), answer.text


@pytest.mark.parametrize("plan", ["default\0", "\0", "default\ud800"])
async def test_no_customer_gets_a_plan_of_such_a_name(api: httpx.AsyncClient, plan: str) -> None:
    answer = await api.put(
        "/v1/customers/c", content=json.dumps({"plan": plan}), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
